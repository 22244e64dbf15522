//! What was typed: the command line, the environment and the TOML file, which all have the same keys.
//!
//! Everything is optional here and nothing has a default; [`crate::config`] says what it means.

use crate::http::forwarded::TrustForwarded;
use crate::http::proxy::Upstream;
use crate::http::proxy_allow::AllowProxy;
use crate::log_files::KeepLimit;
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use relay_link::congestion::CongestionWish;
use relay_trust::next_hop::AllowNext;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// One small server for every role in a chain: origin, relay and web server.
#[derive(Debug, Parser)]
#[command(name = "relay-node", version, max_term_width = 110, after_help = AFTER_HELP, args_conflicts_with_subcommands = true, args_override_self = true)]
pub struct Cli {
    /// The port to listen on, on 127.0.0.1 unless --listen says otherwise; 0 takes a free one
    ///
    /// Without a port anywhere it asks when it runs in a terminal's foreground, and else takes 12000.
    #[arg(value_name = "PORT", env = "RELAY_NODE_PORT")]
    pub port: Option<u16>,

    /// A TOML file with the same keys as the long options (without the dashes in front); options and environment win
    #[arg(long, value_name = "FILE", env = "RELAY_NODE_CONFIG")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "its text would become the command's")]
    pub settings: Settings,

    /// Something else than to be a node.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What else the program does.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Print the node's public key, which is made if there is none yet
    Key {
        /// The file that keeps the secret key [default: node.key in $STATE_DIRECTORY, else ~/.local/state/relay-chain]
        #[arg(long, value_name = "FILE", env = "RELAY_NODE_KEY")]
        key: Option<PathBuf>,
    },
    /// Look after a cache's directory
    #[command(subcommand)]
    Cache(CacheCommand),
}

/// What is done with a cache's directory.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum CacheCommand {
    /// Read all that is stored, throw away what is not as it was stored, and say how much that was
    ///
    /// No node may use the directory meanwhile; a running one looks at 1 MiB a second by itself.
    Verify {
        /// The directory that --cache-dir names
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

const AFTER_HELP: &str = "\
Every option is also an environment variable: RELAY_NODE_ and its name in capitals, _ for -, values of a list separated
by commas (RELAY_NODE_ALLOW_NEXT=10.0.0.0/8,pchost2). Times are written like 10s, 5m, 1h 30m. RUST_LOG sets the log's
detail (RUST_LOG=debug).

Signals: SIGTERM or Ctrl-C stops accepting and lets transfers end within --drain; a second one ends at once.
SIGHUP reads the access rules again. SIGUSR1 writes a line into the log: open connections, those of each role, tasks, idle pipes, uptime.
Exit codes: 0 ended as told, 1 could not run or had to cut transfers, 2 bad usage or configuration.";

/// The settings proper: a flag, a variable and a key each.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// The port, in the file; on the command line it is the argument.
    #[arg(skip)]
    pub port: Option<u16>,

    /// Listen here; an address with a port, or an address alone to go with PORT (again and again)
    ///
    /// Without it the node listens on 127.0.0.1 alone. 0.0.0.0 is every IPv4 address of the machine, `[::]` every IPv6 one.
    #[arg(
        long,
        value_name = "ADDR",
        env = "RELAY_NODE_LISTEN",
        value_delimiter = ',',
        help_heading = "Server"
    )]
    pub listen: Vec<ListenAddress>,

    /// Serve the files in this directory and below; nothing outside it is readable [default: www where it
    /// is and the node listens on loopback alone, else no files]
    #[arg(long, value_name = "DIR", env = "RELAY_NODE_ROOT", help_heading = "Server")]
    pub root: Option<PathBuf>,

    /// Serve dotfiles and unfinished downloads (.part), too
    #[arg(long, env = "RELAY_NODE_HIDDEN", help_heading = "Server")]
    pub hidden: bool,

    /// Threads that serve connections [default: one a processor]
    #[arg(long, value_name = "N", env = "RELAY_NODE_WORKERS", help_heading = "Server")]
    pub workers: Option<usize>,

    /// Congestion control of this node's connections: auto (bbr where the kernel lets the node have it), or a name
    ///
    /// Without it the system's own. A name that cannot be had is an error at start.
    #[arg(long, value_name = "auto|NAME", env = "RELAY_NODE_CONGESTION", help_heading = "Server")]
    #[serde(deserialize_with = "from_text")]
    pub congestion: Option<CongestionWish>,

    /// Relay to this next hop: a host, host:port, an address, a network such as 10.1.0.0/16, or * (again and again)
    ///
    /// Without it a node that listens on loopback alone relays to loopback addresses, and another one to nobody; with it, only to what it names. A name
    /// allows whatever address it leads to, but for loopback and link-local ones: those must be named themselves (localhost
    /// is such a name). * is an open relay with the same exception. An address or a network lets no name be looked up but
    /// localhost and those of the hosts file.
    #[arg(
        long,
        value_name = "PATTERN",
        env = "RELAY_NODE_ALLOW_NEXT",
        value_delimiter = ',',
        help_heading = "Relay"
    )]
    #[serde(deserialize_with = "from_texts")]
    pub allow_next: Vec<AllowNext>,

    /// The most hops that a route may still have when it comes here [default: 64]
    #[arg(long, value_name = "N", env = "RELAY_NODE_MAX_HOPS", help_heading = "Relay")]
    pub max_hops: Option<usize>,

    /// The file that keeps the node's secret key, which is made at the first start [default: node.key in $STATE_DIRECTORY,
    /// else ~/.local/state/relay-chain]
    #[arg(long, value_name = "FILE", env = "RELAY_NODE_KEY", help_heading = "Trust")]
    pub key: Option<PathBuf>,

    /// Who may read what, and be relayed where: a TOML file of `[[who]]` entries; what no entry allows is denied
    ///
    /// Reading goes by the key that a client proves inside its pipe, relaying by what is allowed to anyone. With rules the HTTP face serves nobody. They are
    /// read again on SIGHUP, whole or not at all.
    #[arg(long, value_name = "FILE", env = "RELAY_NODE_ACCESS", help_heading = "Trust")]
    pub access: Option<PathBuf>,

    /// Refuse to serve files in the clear (relay-client --plain); relaying and HTTP are not affected
    #[arg(long, env = "RELAY_NODE_REQUIRE_ENCRYPTION", help_heading = "Trust")]
    pub require_encryption: bool,

    /// The most connections at once; further ones are told that the node is busy [default: 8192]
    #[arg(long, value_name = "N", env = "RELAY_NODE_MAX_CONNECTIONS", help_heading = "Limits")]
    pub max_connections: Option<usize>,

    /// The most connections of one address at once, of an IPv6 network of 64 bits [default: 256, for loopback no limit]
    ///
    /// Further ones are told that the node is busy. A number that is given holds for loopback, too.
    #[arg(long, value_name = "N", env = "RELAY_NODE_MAX_CONNECTIONS_PER_PEER", help_heading = "Limits")]
    pub max_connections_per_peer: Option<usize>,

    /// How often one connection may be here at once, when its route leads here more than once [default: 8]
    #[arg(long, value_name = "N", env = "RELAY_NODE_MAX_VISITS", help_heading = "Limits")]
    pub max_visits: Option<usize>,

    /// How long a new connection may take to send its request [default: 10s]
    #[arg(long, value_name = "TIME", env = "RELAY_NODE_REQUEST_TIMEOUT", help_heading = "Limits")]
    pub request_timeout: Option<Span>,

    /// How long name lookup, connect and hello of a next hop may take together [default: 10s]
    ///
    /// A client's own limit shortens it, so that the client hears which hop is silent before it gives up.
    #[arg(long, value_name = "TIME", env = "RELAY_NODE_DIAL_TIMEOUT", help_heading = "Limits")]
    pub dial_timeout: Option<Span>,

    /// How long a connection to an origin may stay open without a further request [default: 1m]
    #[arg(long, value_name = "TIME", env = "RELAY_NODE_KEEP_ALIVE_TIMEOUT", help_heading = "Limits")]
    pub keep_alive_timeout: Option<Span>,

    /// How long a transfer may stand still before it is cut; a reader may pause so long [default: 10m]
    #[arg(long, value_name = "TIME", env = "RELAY_NODE_IDLE_TIMEOUT", help_heading = "Limits")]
    pub idle_timeout: Option<Span>,

    /// How long transfers may go on after SIGTERM or Ctrl-C [default: 30s]
    #[arg(long, value_name = "TIME", env = "RELAY_NODE_DRAIN", help_heading = "Limits")]
    pub drain: Option<Span>,

    /// How log lines are written [default: text]
    #[arg(long, value_name = "FORMAT", env = "RELAY_NODE_LOG_FORMAT", help_heading = "Logs")]
    pub log_format: Option<LogFormat>,

    /// Write logs into this directory, a new file each day, instead of standard error
    #[arg(long, value_name = "DIR", env = "RELAY_NODE_LOG_DIR", help_heading = "Logs")]
    pub log_dir: Option<PathBuf>,

    /// Delete files of --log-dir that are older than these days, or more than this size together: 30 or 12w, 1GiB, or one of each
    ///
    /// Without it nothing is deleted. A file is ended at an eighth of the size, and the next one of that day gets a number.
    #[arg(
        long,
        value_name = "DAYS|SIZE",
        env = "RELAY_NODE_LOG_KEEP",
        value_delimiter = ',',
        help_heading = "Logs"
    )]
    #[serde(deserialize_with = "from_texts")]
    pub log_keep: Vec<KeepLimit>,

    /// Show no listing of a directory that has no index.html
    #[arg(long, env = "RELAY_NODE_NO_LISTING", help_heading = "Web server")]
    pub no_listing: bool,

    /// Answer 400 to methods other than GET and HEAD and to an unreadable If-Modified-Since
    ///
    /// Some courses on HTTP servers ask for it. Without it RFC 9110 holds: 405, and the date is ignored.
    #[arg(long, env = "RELAY_NODE_STRICT_HTTP", help_heading = "Web server")]
    pub strict_http: bool,

    /// Be a reverse proxy: fetch everything that browsers ask this node for from http://HOST:PORT
    #[arg(long, value_name = "URL", env = "RELAY_NODE_UPSTREAM", help_heading = "Proxy and gateway")]
    #[serde(deserialize_with = "from_text")]
    pub upstream: Option<Upstream>,

    /// Be a forward proxy, CONNECT included, to what --allow-proxy names
    #[arg(long, env = "RELAY_NODE_FORWARD_PROXY", help_heading = "Proxy and gateway")]
    pub forward_proxy: bool,

    /// Let the forward proxy go to `HOST[:PORT]`: a name, *.name, an address, a network, or * (again and again)
    ///
    /// A rule * or *.name reaches public addresses only; loopback, link-local and private ones must be named. A name is looked up
    /// only if a name, *.name or * allows it, or if this machine's hosts file has it.
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        env = "RELAY_NODE_ALLOW_PROXY",
        value_delimiter = ',',
        help_heading = "Proxy and gateway"
    )]
    #[serde(deserialize_with = "from_texts")]
    pub allow_proxy: Vec<AllowProxy>,

    /// Pass on what proxies in this network say of a request's origin (Forwarded, X-Forwarded-*), and add to it (again and again)
    ///
    /// From everybody else the proxies of this node take these fields away and write their own.
    #[arg(
        long,
        value_name = "NETWORK",
        env = "RELAY_NODE_TRUST_FORWARDED",
        value_delimiter = ',',
        help_heading = "Proxy and gateway"
    )]
    #[serde(deserialize_with = "from_texts")]
    pub trust_forwarded: Vec<TrustForwarded>,

    /// Be a gateway: a browser's GET /name is the file `name` at the end of this route file's hops
    ///
    /// The file that the route names itself does not matter.
    #[arg(long, value_name = "ROUTE", env = "RELAY_NODE_GATEWAY", help_heading = "Proxy and gateway")]
    pub gateway: Option<PathBuf>,

    /// Keep what proxy and gateway fetch in this directory, by HTTP's rules for shared caches (RFC 9111)
    ///
    /// What a forward proxy kept is used again under the same --allow-proxy rules only.
    #[arg(long, value_name = "DIR", env = "RELAY_NODE_CACHE_DIR", help_heading = "Proxy and gateway")]
    pub cache_dir: Option<PathBuf>,

    /// How large the cache may become [default: 10GiB]
    #[arg(long, value_name = "SIZE", env = "RELAY_NODE_CACHE_SIZE", help_heading = "Proxy and gateway")]
    pub cache_size: Option<ByteSize>,

    /// How long an upstream may take to begin its answer, and between two pieces of it [default: 1m]
    #[arg(
        long,
        value_name = "TIME",
        env = "RELAY_NODE_UPSTREAM_TIMEOUT",
        help_heading = "Proxy and gateway"
    )]
    pub upstream_timeout: Option<Span>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line of text.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Where to listen: an address, and perhaps a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address.
    pub ip: std::net::IpAddr,
    /// The port; none: the node's.
    pub port: Option<u16>,
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            return Ok(ListenAddress { ip: address.ip(), port: Some(address.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let ip = bare.parse().map_err(|_| "write an address like 0.0.0.0:12000, [::]:12000 or 192.0.2.1")?;
        Ok(ListenAddress { ip, port: None })
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A time, written like `10s` or `1h 30m`; a number alone is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> Result<Span, humantime::DurationError> {
        match text.parse() {
            Ok(seconds) => Ok(Span(Duration::from_secs(seconds))),
            Err(_) => humantime::parse_duration(text).map(Span),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Seconds(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Seconds(seconds) => Ok(Span(Duration::from_secs(seconds))),
            Written::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// A value that is written as text.
fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

/// A list of values that are written as text.
fn from_texts<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(|e| D::Error::custom(format!("{text:?}: {e}")))).collect()
}

impl Settings {
    /// These settings, and where they say nothing, those of the file.
    #[must_use]
    pub fn over(self, file: Settings) -> Settings {
        /// A key that is missing here does not compile.
        macro_rules! each {
            ($($key:ident),* $(,)?) => { Settings { $($key: self.$key.over(file.$key)),* } };
        }
        each!(
            port,
            listen,
            root,
            hidden,
            workers,
            congestion,
            allow_next,
            max_hops,
            key,
            access,
            require_encryption,
            max_connections,
            max_connections_per_peer,
            max_visits,
            request_timeout,
            dial_timeout,
            keep_alive_timeout,
            idle_timeout,
            drain,
            log_format,
            log_dir,
            log_keep,
            no_listing,
            strict_http,
            upstream,
            forward_proxy,
            allow_proxy,
            trust_forwarded,
            gateway,
            cache_dir,
            cache_size,
            upstream_timeout
        )
    }
}

/// A setting that may be said in two places.
trait Layered {
    /// This one, and where it says nothing, the one below.
    fn over(self, below: Self) -> Self;
}

impl<T> Layered for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }
}

impl<T> Layered for Vec<T> {
    fn over(self, below: Self) -> Self {
        if self.is_empty() { below } else { self }
    }
}

impl Layered for bool {
    fn over(self, below: Self) -> Self {
        self || below
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_has_the_same_keys() {
        let file = r#"
            port = 12001
            listen = ["0.0.0.0", "[::1]:9"]
            root = "files"
            allow-next = ["pchost2:11000", "10.0.0.0/8"]
            max-connections = 5
            request-timeout = "2s"
            drain = 7
            log-format = "json"
            upstream = "http://127.0.0.1:8000"
            cache-size = "2 GiB"
        "#;
        let file: Settings = toml::from_str(file).unwrap();
        assert_eq!(
            file.listen,
            [ListenAddress { ip: [0, 0, 0, 0].into(), port: None }, "[::1]:9".parse().unwrap()]
        );
        assert_eq!(file.cache_size, Some(ByteSize::gib(2)));
        assert!(file.upstream.is_some());
        assert_eq!(file.drain, Some(Span(Duration::from_secs(7))));
        let typed =
            Cli::try_parse_from(["relay-node", "12000", "--root", "typed", "--allow-next", "*"]).unwrap();
        let merged = typed.settings.over(file);
        assert_eq!(merged.root, Some("typed".into()));
        assert_eq!(merged.allow_next, ["*".parse().unwrap()]);
        assert_eq!(merged.max_connections, Some(5));
    }

    #[test]
    fn every_key_of_the_file_is_an_option_a_variable_and_a_line_of_the_help() {
        // The reader's own list of what it knows.
        let refusal = toml::from_str::<Settings>("nosuch = 1").unwrap_err().to_string();
        let (_, known) = refusal.split_once("expected one of").unwrap();
        let mut keys: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        let command = Cli::command();
        let mut options: Vec<&str> = Vec::new();
        for option in command.get_arguments().filter(|option| option.get_id() != "config") {
            let key = option.get_long().unwrap_or(option.get_id().as_str());
            let variable = format!("RELAY_NODE_{}", key.replace('-', "_").to_uppercase());
            assert_eq!(option.get_env(), Some(std::ffi::OsStr::new(&variable)), "{key}");
            assert!(option.get_help().is_some() && !option.is_hide_set(), "{key}");
            options.push(key);
        }
        keys.sort_unstable();
        options.sort_unstable();
        assert_eq!(keys, options);
    }

    #[test]
    fn what_is_said_nearer_wins_key_by_key() {
        let near = Settings { port: Some(1), hidden: true, ..Settings::default() };
        let far = Settings {
            port: Some(2),
            workers: Some(3),
            listen: vec!["::1".parse().unwrap()],
            ..Settings::default()
        };
        let merged = near.over(far);
        assert_eq!(
            (merged.port, merged.workers, merged.hidden, merged.listen.len()),
            (Some(1), Some(3), true, 1)
        );
    }

    #[test]
    fn a_wrong_key_or_value_is_refused() {
        for bad in
            ["prot = 1", "port = 70000", "allow-next = [\"a b\"]", "drain = \"soon\"", "listen = [\"host\"]"]
        {
            assert!(toml::from_str::<Settings>(bad).is_err(), "{bad}");
        }
    }
}

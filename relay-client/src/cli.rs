//! What was typed, as types. What it means is [`crate::plan`]'s business; nothing in here knows of the rest.

use crate::exit;
use crate::meant;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use relay_link::congestion::CongestionWish;
use relay_proto::digest::FileHash;
use relay_trust::key::PublicKey;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "relay-client",
    version,
    about = "Fetches a file through a chain of relay nodes, verified chunk by chunk",
    long_about = "Fetches a file through a chain of relay nodes, verified chunk by chunk.\n\n\
        The route's first line names the file, each further line a hop; the last hop serves the file. The file appears under its \
        final name only when it is whole and verified; until then it is NAME.part (another name when somebody else has that one, or \
        when it would be too long).",
    after_long_help = after_help(),
    args_conflicts_with_subcommands = true,
    args_override_self = true,
)]
pub struct Cli {
    /// Another command than fetching.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to fetch.
    #[command(flatten)]
    pub fetch: FetchArguments,
}

fn after_help() -> String {
    format!(
        "A route file:\n  myfile\n  pchost1 12000\n  pchost2 11000\n\n\
         Hops may also be written host:port, [v6]:port or tcp://host:port; what follows # is a comment. The \
         same as JSON:\n  {{\"file\": \"myfile\", \"hops\": [{{\"host\": \"pchost1\", \"port\": 12000}}], \"hash\": \"b3:…\"}}\n\
         A line `or` and another whole route behind it (in JSON: an array) name a further way to the same file: all are used at \
         once, and when one fails the others go on.\n\n\
         Examples:\n  relay-client route.txt\n  relay-client --get myfile --via pchost1:12000 --via pchost2:11000\n  \
         relay-client route.txt -o - | tar x\n  relay-client --get photos/ --via pchost1:12000 -o photos --exclude '*.tmp'\n  relay-client trace route.txt\n  relay-client list route.txt docs/\n\n\
         Exit codes:\n{}",
        exit::table()
    )
}

/// The other commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Walks the route and shows each hop's address, version and time, and where and why it ends
    #[command(after_long_help = exit_codes())]
    Trace(TraceArguments),
    /// Lists the files that the origin offers
    #[command(after_long_help = exit_codes())]
    List(ListArguments),
    /// Lists the nodes whose keys are known: the way there, the key, and since when
    #[command(after_long_help = exit_codes())]
    Known(KnownArguments),
}

/// What to do with known nodes.
#[derive(Debug, Args)]
pub struct KnownArguments {
    /// Something else than to list them.
    #[command(subcommand)]
    pub command: Option<KnownCommand>,
}

/// What else can be done with known nodes.
#[derive(Debug, Subcommand)]
pub enum KnownCommand {
    /// Forgets what is known of a node, so that its next key is remembered
    Forget {
        /// The way as `known` lists it, as in pchost1:12000>pchost2:11000
        #[arg(value_name = "WAY")]
        way: String,
    },
}

/// How the origin proves itself.
#[derive(Debug, Args)]
pub struct TrustArguments {
    /// A key that the origin may have (what `relay-node key` prints there), whatever is known; again for more of them
    #[arg(long, value_name = "ed25519:KEY", help_heading = "Trust")]
    pub pin: Vec<PublicKey>,
    /// Accept only pinned and known keys, no first contact
    #[arg(long, help_heading = "Trust")]
    pub strict: bool,
    /// Ask in the clear and check no key: every relay can read and change what passes
    #[arg(long, env = "RELAY_CLIENT_PLAIN", conflicts_with = "strict", help_heading = "Trust")]
    pub plain: bool,
}

fn exit_codes() -> String {
    format!("Exit codes:\n{}", exit::table())
}

/// What to fetch, to where, and how.
#[derive(Debug, Args)]
pub struct FetchArguments {
    /// The route.
    #[command(flatten)]
    pub route: RouteArguments,
    /// Where to.
    #[command(flatten)]
    pub output: OutputArguments,
    /// Which of a directory.
    #[command(flatten)]
    pub tree: TreeArguments,
    /// How patiently.
    #[command(flatten)]
    pub time: TimeArguments,
    /// Over which connections.
    #[command(flatten)]
    pub network: NetworkArguments,
    /// To whom.
    #[command(flatten)]
    pub trust: TrustArguments,
    /// How often.
    #[command(flatten)]
    pub retry: RetryArguments,
    /// How many connections each route may have: `auto` has one, and on long paths more while they bring more, at most 16
    #[arg(long, value_name = "auto|N", default_value = "auto", value_parser = connections, help_heading = "Route")]
    pub connections: Connections,
    /// What to show.
    #[command(flatten)]
    pub show: ShowArguments,
}

/// Where the route comes from.
#[derive(Debug, Args)]
pub struct RouteArguments {
    /// The route file; `-` reads it from standard input
    #[arg(value_name = "ROUTE", help_heading = "Route")]
    pub route: Option<PathBuf>,
    /// A hop, instead of a route file; again for each further hop, the last one is the origin
    #[arg(long, value_name = "HOST:PORT", help_heading = "Route")]
    pub via: Vec<String>,
    /// The file's name at the origin, instead of a route file; goes with --via
    #[arg(long, value_name = "NAME", requires = "via", conflicts_with = "route", help_heading = "Route")]
    pub get: Option<String>,
}

/// Where the file goes and what it must be.
#[derive(Debug, Args)]
pub struct OutputArguments {
    /// Where to save: a file (a symbolic link stays, and what it leads to is replaced), a directory (`DIR/`), or `-` for standard output, which gets only verified bytes; for a directory
    /// that is fetched, the directory that gets its content [default: the base name, here]
    #[arg(short, long, value_name = "PATH", help_heading = "File")]
    pub output: Option<PathBuf>,
    /// Compare an existing local copy by its chunks' hashes instead of its size and time
    #[arg(long, help_heading = "File")]
    pub checksum: bool,
    /// The BLAKE3 hash that the file must have (what b3sum prints); else it never gets its final name
    #[arg(long, value_name = "b3:HEX", help_heading = "File")]
    pub expect: Option<FileHash>,
}

/// Whether a whole directory is fetched, and what of it.
#[derive(Debug, Args)]
pub struct TreeArguments {
    /// The name is a directory: fetch all that is in it. A name that ends in `/` says the same; `/` alone is all that the
    /// origin offers
    #[arg(short, long, help_heading = "Directory")]
    pub recursive: bool,
    /// Only files that match; again for more patterns.
    /// `*` and `?` stand for anything but `/`, `**` for any directories, `[ab]` and `{a,b}` for one of them. A
    /// pattern without `/` is a name in any directory, another one a path from the fetched directory on (`/x` only there);
    /// what is in a directory that matches matches, too, and `x/` is only that
    #[arg(long, value_name = "PATTERN", help_heading = "Directory")]
    pub include: Vec<String>,
    /// Not those that match, even if they are included; again for more patterns
    #[arg(long, value_name = "PATTERN", help_heading = "Directory")]
    pub exclude: Vec<String>,
}

/// How long to wait.
#[derive(Debug, Args)]
pub struct TimeArguments {
    /// Give up when no byte came for so long: seconds, or a number with a unit as in 500ms, 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, help_heading = "Time")]
    pub timeout: Duration,
    /// Give up when all of it takes longer than this [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Time")]
    pub deadline: Option<Duration>,
}

/// How to be connected.
#[derive(Debug, Args)]
pub struct NetworkArguments {
    /// Congestion control of the connections to the first hop: auto (bbr where the kernel lets this user have it), or a name
    /// [default: the system's]
    #[arg(long, value_name = "auto|NAME", help_heading = "Network")]
    pub congestion: Option<CongestionWish>,
}

/// How often to try.
#[derive(Debug, Args)]
pub struct RetryArguments {
    /// Try again so often after a failure that may pass, with growing pauses, and go on where it broke off; a new chunk
    /// starts the count anew [default: 5, but not before a chain stood once]
    #[arg(long, value_name = "N", help_heading = "Time")]
    pub retries: Option<u32>,
    /// Begin no further try later than this after the first failure [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Time")]
    pub retry_max_time: Option<Duration>,
}

/// What to show meanwhile.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// Say nothing but errors
    #[arg(short, long, help_heading = "Display")]
    pub quiet: bool,
    /// Write one event a line as JSON on standard output
    #[arg(long, help_heading = "Display")]
    pub json: bool,
}

/// What to trace.
#[derive(Debug, Args)]
pub struct TraceArguments {
    /// The route.
    #[command(flatten)]
    pub route: RouteArguments,
    /// How patiently.
    #[command(flatten)]
    pub time: TimeArguments,
    /// Over which connections.
    #[command(flatten)]
    pub network: NetworkArguments,
    /// To whom.
    #[command(flatten)]
    pub trust: TrustArguments,
    /// Write one event a line as JSON
    #[arg(long, help_heading = "Display")]
    pub json: bool,
}

/// What to list.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// The route.
    #[command(flatten)]
    pub route: RouteArguments,
    /// Only names that start with this (with --via the only argument, or behind --get)
    #[arg(value_name = "PREFIX", help_heading = "Route")]
    pub prefix: Option<String>,
    /// Enter directories
    #[arg(short, long, help_heading = "Display")]
    pub recursive: bool,
    /// How patiently.
    #[command(flatten)]
    pub time: TimeArguments,
    /// Over which connections.
    #[command(flatten)]
    pub network: NetworkArguments,
    /// To whom.
    #[command(flatten)]
    pub trust: TrustArguments,
    /// Write one entry a line as JSON
    #[arg(long, help_heading = "Display")]
    pub json: bool,
}

/// How many connections a route may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// One, and more while they bring more.
    Auto,
    /// So many.
    Fixed(usize),
}

impl Connections {
    /// How many a route has from the beginning.
    #[must_use]
    pub fn at_first(self) -> usize {
        match self {
            Connections::Auto => 1,
            Connections::Fixed(count) => count,
        }
    }
}

/// What was typed; a mistake in it is told, with what was probably meant, and the exit code of that.
#[must_use]
pub fn read() -> Cli {
    let words: Result<Vec<String>, _> = std::env::args_os().skip(1).map(OsString::into_string).collect();
    let words = words.unwrap_or_default();
    let parsed = Cli::try_parse();
    let is_mistake = match &parsed {
        Ok(cli) => names_no_route(cli),
        Err(error) => error.use_stderr(),
    };
    if is_mistake && let Some(meant) = meant::meant(&words, &Cli::command()) {
        clap::Error::raw(ErrorKind::InvalidValue, meant).exit();
    }
    parsed.unwrap_or_else(|error| without_idle_tips(error).exit())
}

/// Whether what stands for a route cannot be one: a file that is not there, or several hops in one.
fn names_no_route(cli: &Cli) -> bool {
    let arguments = match &cli.command {
        Some(Command::Known(_)) => return false,
        Some(Command::Trace(arguments)) => &arguments.route,
        Some(Command::List(arguments)) => &arguments.route,
        None => &cli.fetch.route,
    };
    let is_missing = |path: &PathBuf| path.as_os_str() != "-" && !path.exists();
    arguments.via.is_empty() && arguments.route.as_ref().is_some_and(is_missing)
        || arguments.via.iter().any(|hop| hop.contains(','))
}

/// Without the tip that another argument was meant, unless that one is really similar.
fn without_idle_tips(mut error: clap::Error) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let (typed, tip) = (text(ContextKind::InvalidArg), text(ContextKind::SuggestedArg));
    let is_slip = strsim::osa_distance(&typed, &tip) <= typed.chars().count() / 3;
    if !is_slip {
        error.remove(ContextKind::SuggestedArg);
        // How it would be taken for a name, which nobody means by what begins with a dash.
        error.remove(ContextKind::Suggested);
    }
    error
}

/// The most connections that may be asked for, on each route.
const MAX_CONNECTIONS: usize = 32;

fn connections(text: &str) -> Result<Connections, String> {
    if text == "auto" {
        return Ok(Connections::Auto);
    }
    match text.parse() {
        Ok(count @ 1..=MAX_CONNECTIONS) => Ok(Connections::Fixed(count)),
        _ => Err(format!("`auto`, or a number from 1 to {MAX_CONNECTIONS}")),
    }
}

/// Seconds, or a number with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?,
        Err(_) => humantime::parse_duration(text).map_err(|e| e.to_string())?,
    };
    if parsed.is_zero() { Err("a limit of no time leaves none".to_owned()) } else { Ok(parsed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "0", "-1", "ten", "1e300", "nan"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tips_only_where_they_help() {
        let told = |argument: &str| {
            let error = Cli::try_parse_from(["relay-client", "list", argument]).unwrap_err();
            without_idle_tips(error).to_string()
        };
        for (slip, meant) in
            [("--jsom", "--json"), ("--recursiv", "--recursive"), ("--congetsion", "--congestion")]
        {
            assert!(told(slip).contains(&format!("'{meant}'")), "{}", told(slip));
        }
        for other in ["--comment", "--out", "--verbose"] {
            assert!(!told(other).contains("tip"), "{}", told(other));
        }
    }

    #[test]
    fn commands_and_the_default_form() {
        let parse = |arguments: &[&str]| Cli::try_parse_from([&["relay-client"], arguments].concat());
        assert!(parse(&["route.txt"]).is_ok_and(|cli| cli.command.is_none()));
        assert!(parse(&["--get", "a", "--via", "h:1", "--via", "h:2"]).is_ok());
        assert!(parse(&["trace", "route.txt"]).is_ok_and(|cli| cli.command.is_some()));
        assert!(parse(&["list", "route.txt", "docs/"]).is_ok_and(|cli| cli.command.is_some()));
        assert!(parse(&["list", "--get", "docs/", "--via", "h:1"]).is_ok_and(|cli| cli.command.is_some()));
        assert!(parse(&["trace", "--get", "a", "--via", "h:1"]).is_ok_and(|cli| cli.command.is_some()));
        assert!(parse(&["--get", "a"]).is_err());
        assert!(parse(&["route.txt", "--get", "a", "--via", "h:1"]).is_err());
        assert!(parse(&["route.txt", "--expect", "b3:12"]).is_err());
    }
}

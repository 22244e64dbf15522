//! What the settings mean: checked, resolved, with their defaults.

use crate::access::Access;
use crate::cli::{Cli, ListenAddress, LogFormat, Settings, Span};
use crate::http::forwarded::TrustForwarded;
use crate::http::proxy::{ProxyConfig, Upstream};
use crate::http::proxy_allow::AllowProxy;
use crate::http::proxy_dial::ProxyLimits;
use crate::identity;
use crate::log_files::Keep;
use crate::root::DocumentRoot;
use anyhow::{Context, anyhow, bail};
use bytesize::ByteSize;
use relay_link::congestion::Congestion;
use relay_proto::limits::MAX_HOPS;
use relay_proto::route::Route;
use relay_trust::key::SecretKey;
use relay_trust::next_hop::NextHopPolicy;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The port when nobody names one.
pub const DEFAULT_PORT: u16 = 12000;
/// The size of the cache when nobody names one, in bytes.
pub const DEFAULT_CACHE_SIZE: u64 = 10 * 1024 * 1024 * 1024;
/// The document root when nobody names one, if there is such a directory.
pub const DEFAULT_ROOT: &str = "www";

/// A node's whole configuration.
#[derive(Debug)]
pub struct Config {
    /// Where to listen; at least one address.
    pub listen: Vec<SocketAddr>,
    /// What is served.
    pub root: DocumentRoot,
    /// Its path, for people; `None` where nothing is served.
    pub root_path: Option<PathBuf>,
    /// Whether hidden files are served, too.
    pub hidden: bool,
    /// Who the node is.
    pub key: SecretKey,
    /// Whether files are served through encryption alone.
    pub require_encryption: bool,
    /// The access rules; none: everybody may what the other settings say.
    pub access: Option<Arc<Access>>,
    /// Where to relay to.
    pub policy: NextHopPolicy,
    /// The most hops that a route may still have.
    pub max_hops: usize,
    /// The most connections at once.
    pub max_connections: usize,
    /// The most connections of one peer at once; none: 256, and no limit for loopback.
    pub max_connections_per_peer: Option<usize>,
    /// The most visits of one connection at once.
    pub max_visits: usize,
    /// For a request to arrive.
    pub request_timeout: Duration,
    /// For name lookup, connect and hello.
    pub dial_timeout: Duration,
    /// Between requests.
    pub keep_alive_timeout: Duration,
    /// Without any progress.
    pub idle_timeout: Duration,
    /// For transfers to end.
    pub drain: Duration,
    /// Threads that serve connections; none: one a processor.
    pub workers: Option<usize>,
    /// What accepted and dialled connections get.
    pub congestion: Congestion,
    /// How and where to log.
    pub log: LogConfig,
    /// Show listings.
    pub listing: bool,
    /// The stricter HTTP.
    pub strict_http: bool,
    /// The proxy, when there is one.
    pub proxy: Option<ProxyConfig>,
    /// The route whose hops the gateway fetches through.
    pub gateway: Option<Route>,
    /// The cache of proxy and gateway.
    pub cache: Option<CacheConfig>,
}

/// Where the cache is, and how large it may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// Its directory, its own alone.
    pub directory: PathBuf,
    /// In bytes.
    pub size: u64,
}

/// How and where to log.
#[derive(Debug, Clone, Default)]
pub struct LogConfig {
    /// Text or JSON.
    pub format: LogFormat,
    /// Daily files in this directory; none: standard error.
    pub directory: Option<PathBuf>,
    /// Which of them are kept.
    pub keep: Keep,
}

impl Config {
    /// What was typed, with what the file says. `ask_port` is called when nobody named a port.
    ///
    /// # Errors
    /// A file that cannot be read, or a value that makes no sense, in words for the operator.
    pub fn resolve(cli: Cli, ask_port: impl FnOnce() -> anyhow::Result<u16>) -> anyhow::Result<Config> {
        let file = cli.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let settings = Settings { port: cli.port, ..cli.settings }.over(file);
        let listen = listen_addresses(&settings.listen, settings.port, ask_port)?;
        let is_open_to_others = !listen.iter().all(|address| address.ip().is_loopback());
        let root_path = root_path(settings.root, is_open_to_others);
        let root = match &root_path {
            // Its text already tells the cause and what to do.
            Some(path) => DocumentRoot::open(path, settings.hidden).map_err(|error| anyhow!("{error}"))?,
            None => DocumentRoot::empty(),
        };
        let time = |span: Option<Span>, default| span.map_or(default, |span| span.0);
        let dial_timeout = time(settings.dial_timeout, Duration::from_secs(10));
        let idle_timeout = time(settings.idle_timeout, Duration::from_secs(600));
        let upstream_timeout = time(settings.upstream_timeout, ProxyLimits::default().answer);
        let limits = ProxyLimits {
            lookup: dial_timeout,
            connect: dial_timeout,
            answer: upstream_timeout,
            silence: upstream_timeout,
            tunnel_idle: idle_timeout,
        };
        let congestion = Congestion::of(settings.congestion)?;
        let names_next_hops = !settings.allow_next.is_empty();
        let config = Config {
            listen,
            root,
            root_path,
            hidden: settings.hidden,
            policy: if settings.allow_next.is_empty() && is_open_to_others {
                NextHopPolicy::nowhere()
            } else {
                NextHopPolicy::new(settings.allow_next)
            },
            key: identity::read_or_create(settings.key)?,
            require_encryption: settings.require_encryption,
            access: settings.access.map(|path| access(path, names_next_hops)).transpose()?,
            max_hops: settings.max_hops.unwrap_or(MAX_HOPS),
            max_connections: settings.max_connections.unwrap_or(8192),
            max_connections_per_peer: settings.max_connections_per_peer,
            max_visits: settings.max_visits.unwrap_or(8),
            request_timeout: time(settings.request_timeout, Duration::from_secs(10)),
            dial_timeout,
            keep_alive_timeout: time(settings.keep_alive_timeout, Duration::from_secs(60)),
            idle_timeout,
            drain: time(settings.drain, Duration::from_secs(30)),
            workers: settings.workers,
            congestion,
            log: LogConfig {
                format: settings.log_format.unwrap_or_default(),
                directory: settings.log_dir,
                keep: Keep::of(&settings.log_keep),
            },
            listing: !settings.no_listing,
            strict_http: settings.strict_http,
            proxy: proxy(
                settings.upstream,
                settings.forward_proxy,
                settings.allow_proxy,
                settings.trust_forwarded,
                limits,
                congestion,
            )?,
            gateway: settings.gateway.as_deref().map(read_route).transpose()?,
            cache: cache(settings.cache_dir, settings.cache_size)?,
        };
        config.checked()
    }

    fn checked(self) -> anyhow::Result<Config> {
        if self.max_hops > MAX_HOPS {
            bail!("max-hops is {}, but no route has more than {MAX_HOPS} hops", self.max_hops);
        }
        if self.max_connections == 0 || self.max_connections > tokio::sync::Semaphore::MAX_PERMITS {
            bail!("max-connections must be at least 1 and not absurdly large");
        }
        if self.max_visits == 0 || self.max_connections_per_peer == Some(0) {
            bail!("max-visits and max-connections-per-peer must be at least 1");
        }
        if self.gateway.is_some() && self.proxy.as_ref().is_some_and(|proxy| proxy.upstream.is_some()) {
            bail!("gateway and upstream both want every path of this node; give each a node of its own");
        }
        if self.cache.is_some() && self.proxy.is_none() && self.gateway.is_none() {
            bail!(
                "cache-dir keeps what a proxy or a gateway fetches; add upstream, forward-proxy or gateway"
            );
        }
        if self.log.directory.is_none() && self.log.keep != Keep::default() {
            bail!("log-keep is about the files of log-dir; name that directory");
        }
        if self.access.is_some() && (self.proxy.is_some() || self.gateway.is_some()) {
            bail!("access rules do not hold for a proxy or a gateway; give each a node of its own");
        }
        if self.workers == Some(0) {
            bail!("workers must be at least 1");
        }
        let times = [
            ("request-timeout", self.request_timeout),
            ("dial-timeout", self.dial_timeout),
            ("keep-alive-timeout", self.keep_alive_timeout),
            ("idle-timeout", self.idle_timeout),
            ("upstream-timeout", self.proxy.as_ref().map_or(self.idle_timeout, |proxy| proxy.limits.answer)),
        ];
        match times.iter().find(|(_, time)| time.is_zero()) {
            Some((name, _)) => bail!("{name} must be longer than nothing"),
            None => Ok(self),
        }
    }
}

/// Relays, proxies and gateways need no files and are started anywhere. Others than this machine's own users get nothing that nobody
/// named.
fn root_path(named: Option<PathBuf>, is_open_to_others: bool) -> Option<PathBuf> {
    let is_missing = || matches!(Path::new(DEFAULT_ROOT).try_exists(), Ok(false));
    named.or_else(|| (!is_open_to_others && !is_missing()).then(|| DEFAULT_ROOT.into()))
}

fn read_file(path: &Path) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
    // The reader's own text shows line, column and the line itself with a caret.
    toml::from_str(&text).with_context(|| format!("in the configuration file {}", path.display()))
}

fn proxy(
    upstream: Option<Upstream>,
    forward: bool,
    allow: Vec<AllowProxy>,
    trust_forwarded: Vec<TrustForwarded>,
    limits: ProxyLimits,
    congestion: Congestion,
) -> anyhow::Result<Option<ProxyConfig>> {
    match (forward, allow.is_empty()) {
        (true, true) => {
            bail!("forward-proxy goes nowhere without allow-proxy; name the hosts that it may go to")
        }
        (false, false) => bail!("allow-proxy names hosts for a forward proxy; add forward-proxy"),
        _ => {}
    }
    if upstream.is_none() && !forward {
        if !trust_forwarded.is_empty() {
            bail!("trust-forwarded is about what a proxy passes on; add upstream or forward-proxy");
        }
        return Ok(None);
    }
    Ok(Some(ProxyConfig { upstream, forward, allow, trust_forwarded, limits, congestion }))
}

fn cache(directory: Option<PathBuf>, size: Option<ByteSize>) -> anyhow::Result<Option<CacheConfig>> {
    match (directory, size) {
        (Some(directory), size) => {
            Ok(Some(CacheConfig { directory, size: size.map_or(DEFAULT_CACHE_SIZE, |size| size.as_u64()) }))
        }
        (None, Some(_)) => bail!("cache-size is the size of the cache in cache-dir; name that directory"),
        (None, None) => Ok(None),
    }
}

fn access(path: PathBuf, names_next_hops: bool) -> anyhow::Result<Arc<Access>> {
    if names_next_hops {
        bail!(
            "access says who is relayed where, so allow-next has nothing to say; write `relay` into the rules"
        );
    }
    Access::open(path).map(Arc::new)
}

fn read_route(path: &Path) -> anyhow::Result<Route> {
    let bytes =
        std::fs::read(path).with_context(|| format!("cannot read the gateway's route {}", path.display()))?;
    let text = Route::as_utf8(&bytes);
    Route::parse(&text).map_err(|error| {
        let (line, column) = error.line_and_column(&text);
        anyhow!("in the gateway's route {}:{line}:{column}: {error}", path.display())
    })
}

fn listen_addresses(
    listen: &[ListenAddress],
    port: Option<u16>,
    ask_port: impl FnOnce() -> anyhow::Result<u16>,
) -> anyhow::Result<Vec<SocketAddr>> {
    let needs_port = listen.is_empty() || listen.iter().any(|address| address.port.is_none());
    let port = match port {
        Some(port) => port,
        None if needs_port => ask_port()?,
        None => DEFAULT_PORT,
    };
    if listen.is_empty() {
        return Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)]);
    }
    let mut addresses: Vec<SocketAddr> =
        listen.iter().map(|address| SocketAddr::new(address.ip, address.port.unwrap_or(port))).collect();
    // Port 0 is a free port each time; any other address twice would only fail to bind.
    let all = addresses.clone();
    let mut index = 0;
    addresses.retain(|address| {
        index += 1;
        address.port() == 0 || !all.iter().take(index - 1).any(|earlier| earlier == address)
    });
    Ok(addresses)
}

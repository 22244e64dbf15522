//! A node's HTTP face with proxy, cache or gateway, so that tests can set the clock and the limits.

use super::raw_http::PATIENCE;
use relay_link::platform::descriptors::raise_limit;
use relay_node::access_log::AccessLog;
use relay_node::http::cache::{Cache, Clock};
use relay_node::http::gateway::Gateway;
use relay_node::http::proxy::{Proxy, ProxyConfig};
use relay_node::http::proxy_dial::ProxyLimits;
use relay_node::http::{HttpConfig, HttpFace, serve};
use relay_node::root::DocumentRoot;
use relay_node::stop::{Stop, StopSource, channel};
use relay_proto::route::Route;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A proxy that listens; it ends with its test.
pub struct Front {
    pub address: SocketAddr,
    pub cache: Option<Arc<Cache>>,
    pub pseudonym: String,
    clock: Arc<AtomicU64>,
    _stop: StopSource,
    runtime: Option<Runtime>,
    _place: Option<TempDir>,
    _root: TempDir,
}

/// What a front is started with.
#[derive(Default)]
pub struct Setup {
    pub upstream: Option<SocketAddr>,
    pub forward: bool,
    pub allow: Vec<String>,
    pub trust_forwarded: Vec<String>,
    pub limits: ProxyLimits,
    pub cache_size: Option<u64>,
    pub gateway: Option<Route>,
}

impl Setup {
    /// A reverse proxy with a cache of plenty.
    pub fn caching(upstream: SocketAddr) -> Self {
        Self { upstream: Some(upstream), cache_size: Some(1 << 30), ..Self::default() }
    }

    pub fn reverse(upstream: SocketAddr) -> Self {
        Self { upstream: Some(upstream), ..Self::default() }
    }

    pub fn forward(allow: &[String]) -> Self {
        Self { forward: true, allow: allow.to_vec(), ..Self::default() }
    }

    pub fn start(self) -> Front {
        let place = self.cache_size.map(|_| TempDir::new().unwrap());
        let mut front = self.start_in(place.as_ref().map(TempDir::path));
        front._place = place;
        front
    }

    /// With its cache in a directory of the test's.
    pub fn start_in(self, dir: Option<&Path>) -> Front {
        // A thousand clients, the node and its upstream are in this one process.
        raise_limit(0).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
        let clock = Arc::new(AtomicU64::new(now));
        let guard = runtime.enter();
        let (source, stop) = channel();
        let cache = dir.zip(self.cache_size).map(|(dir, size)| {
            Cache::open(dir, size, Clock::Set(Arc::clone(&clock)), stop.clone()).expect("the cache opens")
        });
        drop(guard);
        let config = ProxyConfig {
            upstream: self.upstream.map(|upstream| format!("http://{upstream}").parse().unwrap()),
            forward: self.forward,
            allow: self.allow.iter().map(|rule| rule.parse().unwrap()).collect(),
            trust_forwarded: self.trust_forwarded.iter().map(|network| network.parse().unwrap()).collect(),
            limits: self.limits,
            ..ProxyConfig::default()
        };
        static PROCESSES: AtomicU64 = AtomicU64::new(1);
        let proxy = Proxy::new(config, cache.clone(), PROCESSES.fetch_add(1, Ordering::Relaxed));
        let root = TempDir::new().unwrap();
        std::fs::write(root.path().join("own.txt"), "the node's own").unwrap();
        let pseudonym = proxy.pseudonym().to_owned();
        let served = Arc::new(DocumentRoot::open(root.path(), false).unwrap());
        let silence = self.limits.silence;
        let mut face =
            HttpFace::new(served, HttpConfig::default(), Arc::new(AccessLog::off())).with_proxy(proxy);
        if let Some(route) = self.gateway {
            face = face.with_gateway(Gateway::new(route, silence, cache.clone(), pseudonym.clone()));
        }
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(listen(listener, Arc::new(face), stop));
        Front {
            address,
            cache,
            pseudonym,
            clock,
            _stop: source,
            runtime: Some(runtime),
            _place: None,
            _root: root,
        }
    }
}

impl Front {
    /// Lets time pass for the cache.
    pub fn later(&self, time: Duration) {
        self.clock.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }

    /// Waits until everything that it stores is on the disk.
    pub fn settle(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.block_on(self.cache().settled());
        }
    }

    /// Ends it once everything that it stores is on the disk.
    pub fn drop_stored(mut self) {
        self.settle();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    pub fn cache(&self) -> &Cache {
        self.cache.as_deref().expect("a cache")
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

async fn listen(listener: TcpListener, face: Arc<HttpFace>, stop: Stop) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        tokio::spawn(serve(stream, peer, Arc::clone(&face), stop.clone()));
    }
}

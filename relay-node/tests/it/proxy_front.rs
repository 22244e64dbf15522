//! The proxy and its cache behind a plain server loop, so that tests can set the clock and the limits.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use relay_node::http::cache::{Body, BoxError, Cache, Clock, FetchError};
use relay_node::http::connect::tunnel;
use relay_node::http::proxy::{Proxy, ProxyConfig};
use relay_node::http::proxy_dial::ProxyLimits;
use std::convert::Infallible;
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
    runtime: Option<Runtime>,
    _place: Option<TempDir>,
}

/// What a front is started with.
#[derive(Default)]
pub struct Setup {
    pub upstream: Option<SocketAddr>,
    pub forward: bool,
    pub allow: Vec<String>,
    pub limits: ProxyLimits,
    pub cache_size: Option<u64>,
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
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
        let clock = Arc::new(AtomicU64::new(now));
        let guard = runtime.enter();
        let cache = dir.zip(self.cache_size).map(|(dir, size)| {
            Cache::open(dir, size, Clock::Set(Arc::clone(&clock))).expect("the cache opens")
        });
        drop(guard);
        let config = ProxyConfig {
            upstream: self.upstream.map(|upstream| format!("http://{upstream}").parse().unwrap()),
            forward: self.forward,
            allow: self.allow.iter().map(|rule| rule.parse().unwrap()).collect(),
            limits: self.limits,
        };
        static PROCESSES: AtomicU64 = AtomicU64::new(1);
        let proxy = Proxy::new(config, cache.clone(), PROCESSES.fetch_add(1, Ordering::Relaxed));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let pseudonym = proxy.pseudonym().to_owned();
        runtime.spawn(listen(listener, proxy));
        Front { address, cache, pseudonym, clock, runtime: Some(runtime), _place: None }
    }
}

impl Front {
    /// Lets time pass for the cache.
    pub fn later(&self, time: Duration) {
        self.clock.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
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

async fn listen(listener: TcpListener, proxy: Proxy) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let proxy = proxy.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| serve(proxy.clone(), request, peer));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            drop(connection.with_upgrades().await);
        });
    }
}

async fn serve(
    proxy: Proxy,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Response<Body>, Infallible> {
    if request.method() == Method::CONNECT {
        return Ok(serve_connect(&proxy, request).await.unwrap_or_else(|error| page(&error)));
    }
    let request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
    Ok(proxy.answer(request, Some(peer.ip())).await.unwrap_or_else(|error| page(&error)))
}

async fn serve_connect(proxy: &Proxy, mut request: Request<Incoming>) -> Result<Response<Body>, FetchError> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _) = request.into_parts();
    let upstream = proxy.connect(&parts).await?;
    let idle = proxy.tunnel_idle();
    tokio::spawn(async move {
        if let Ok(client) = upgrade.await {
            tunnel(TokioIo::new(client), upstream, b"", idle).await;
        }
    });
    Ok(Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync()))
}

fn page(error: &FetchError) -> Response<Body> {
    let body = Full::new(Bytes::from(error.reason.clone())).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(error.status.as_u16()).unwrap();
    answer
}

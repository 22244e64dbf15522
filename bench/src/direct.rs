//! The client's side of a chain inside this process, so that a measurement need not start a process for each transfer.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use relay_chain::chain::{Pipe, Walk, random_id, walk};
use relay_chain::frames::encode;
use relay_chain::requests::{Answers, Body};
use relay_link::congestion::Congestion;
use relay_link::link::Link;
use relay_proto::address::Hop;
use relay_proto::digest::ChunkHash;
use relay_proto::file::{Conditions, FileFacts, Get, RequestedName, Stat};
use relay_proto::route::Route;
use tokio::runtime::Runtime;

/// How long to wait without a byte.
const SILENCE: Duration = Duration::from_secs(30);

/// A runtime on this one thread: what a client needs, and nothing that wakes elsewhere.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// The route to `name` over the hops, the origin being the last.
pub fn route(name: &str, hops: impl Iterator<Item = SocketAddr>) -> Result<Route> {
    let hops = hops
        .map(|a| Hop::new(&a.ip().to_string(), a.port()).map_err(|e| anyhow::anyhow!("{a} is no hop: {e:?}")))
        .collect::<Result<Vec<Hop>>>()?;
    Route::new(name, hops, None).map_err(|e| anyhow::anyhow!("no route to {name}: {e:?}"))
}

/// Walks the route without asking the origin for anything.
pub async fn walk_only(route: &Route) -> Result<Pipe> {
    open(route, &[]).await
}

/// Walks the route with the request for its file behind the `open`.
pub async fn ask(route: &Route) -> Result<Answers<Link>> {
    let name = RequestedName::try_from(route.file().as_str()).map_err(|e| anyhow::anyhow!(e))?;
    let get = encode(&Get { name, range: None, conditions: Conditions::default(), anew: false })?;
    Ok(Answers::new(open(route, &get).await?.link, SILENCE))
}

/// Fetches a file and verifies each chunk; returns how many bytes came.
pub async fn fetch(route: &Route) -> Result<u64> {
    let mut answers = ask(route).await?;
    let head = answers.head().await?;
    let body = Body::of(&head)?;
    let mut chunk = Vec::new();
    for index in body.chunks.first()..body.chunks.end() {
        chunk.resize(body.chunk_len(index), 0);
        let promised = answers.chunk(&mut chunk, |_| {}).await?;
        let size = body.file.size.bytes();
        ensure!(ChunkHash::of(&chunk, index, size) == promised, "chunk {index} arrived damaged");
    }
    Ok(body.file.size.bytes())
}

/// What the origin says about a file.
pub async fn facts(route: &Route) -> Result<FileFacts> {
    let name = RequestedName::try_from(route.file().as_str()).map_err(|e| anyhow::anyhow!(e))?;
    let mut answers = Answers::new(open(route, &encode(&Stat { name })?).await?.link, SILENCE);
    answers.head().await?.file.ok_or_else(|| anyhow::anyhow!("the origin does not have the file"))
}

async fn open(route: &Route, first_requests: &[u8]) -> Result<Pipe> {
    let way = Walk {
        route,
        id: random_id()?,
        silence: SILENCE,
        first_requests,
        encryption: None,
        congestion: Congestion::SYSTEM,
    };
    Ok(walk(&way, |_| {}).await?)
}

//! One client at the origin: requests in, answers out, in order, until either side ends it.

use super::answer::{self, Answer, Held, Request, Rest};
use super::body;
use super::outlet::Outlet;
use super::{Origin, OriginError, OriginLimits, OriginRecord};
use crate::access::Reader;
use crate::record::logged_name;
use crate::stop::Stop;
use relay_chain::frames::{ReadError, encode, read_frame};
use relay_link::closing::close_gently;
use relay_proto::code::Status;
use relay_proto::file::Head;
use relay_trust::access::Denial;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a request that is under way when the node stops may take to come.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// How long a client that is refused may take to take that answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// Answers the requests that come over `stream` until the client closes it, or until `stop` is said and no request waits. `stream` must stand behind the `hello`, with
/// nothing of it read ahead. `peer` is who waits when others ask for listings, too.
///
/// Files go out by `sendfile` when `stream` is a [`tokio::net::TcpStream`] itself; every other stream gets copies.
///
/// # Errors
/// Why the connection ended otherwise than by the client's close; the client has been told where that is possible.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: &mut S,
    peer: Option<IpAddr>,
    origin: &Origin,
    limits: OriginLimits,
    stop: &Stop,
    record: &mut OriginRecord,
) -> Result<(), OriginError> {
    let first = Instant::now() + limits.request;
    serve_from(stream, peer, origin, limits, first, stop, record).await
}

/// The same when the first request must be there at a certain time.
///
/// # Errors
/// As for [`serve`].
pub(super) async fn serve_from<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: &mut S,
    peer: Option<IpAddr>,
    origin: &Origin,
    limits: OriginLimits,
    first: Instant,
    stop: &Stop,
    record: &mut OriginRecord,
) -> Result<(), OriginError> {
    let mut outlet = Outlet::new(stream, limits.progress, record);
    let (mut held, mut deadline) = (None, first);
    loop {
        let read = tokio::select! {
            biased;
            read = timeout_at(deadline, read_frame(outlet.stream())) => read,
            () = after(stop, GRACE) => {
                refuse(&mut outlet, &Head::only(Status::UNAVAILABLE, "the node is shutting down")).await;
                return Ok(());
            }
        };
        let request = match read {
            Ok(Ok(frame)) => Request::of(&frame),
            Ok(Err(ReadError::Closed)) => return Ok(()),
            Ok(Err(ReadError::Io(error))) => return Err(OriginError::Stream(error)),
            Ok(Err(error)) => Err(error),
            // Between requests silence is an ordinary end; an answer to no request would confuse a client that closes late.
            Err(_) if outlet.record.requests > 0 => return Ok(()),
            Err(_) => {
                refuse(&mut outlet, &Head::only(Status::REQUEST_TIMEOUT, "")).await;
                return Err(OriginError::RequestTimeout(limits.request));
            }
        };
        match request {
            Ok(request) => {
                held = answer(&mut outlet, origin, peer, request, held.take()).await?;
                deadline = Instant::now() + limits.request;
            }
            Err(error) => {
                refuse(&mut outlet, &Head::only(Status::BAD_REQUEST, &error.to_string())).await;
                return Err(OriginError::BadRequest(error));
            }
        }
    }
}

/// Whether this reader may have an answer at all. A file has to be allowed by the name that was asked for and by the one that it is
/// reached under; what is not there is not there for anybody.
async fn may(reader: &Reader, request: &Request, origin: &Origin) -> Result<(), Denial> {
    let name = match request {
        Request::List(list) => return reader.may_list(list.prefix.as_str()),
        Request::Of(request) => request.name().as_str().to_owned(),
    };
    reader.may_read(&name)?;
    let root = Arc::clone(&origin.root);
    let reached = spawn_blocking(move || root.reached(&name)).await;
    reader.may_read(&reached.ok().flatten().ok_or(Denial::NotFound)?)
}

/// Returns when `stop` has been said for `grace`: a request may be under way.
pub(super) async fn after(stop: &Stop, grace: Duration) {
    stop.stopped().await;
    tokio::time::sleep(grace).await;
}

/// Says why, and ends the connection so that the word arrives. A client that is gone already misses nothing.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    outlet: &mut Outlet<'_, S>,
    head: &Head,
) {
    outlet.record.status = Some(head.status);
    let Ok(bytes) = encode(head) else { return };
    if let Ok(Ok(())) = timeout(FAREWELL, outlet.write_all(&bytes)).await {
        close_gently(outlet.stream()).await;
    }
}

async fn answer<S: AsyncWrite + Unpin + 'static>(
    outlet: &mut Outlet<'_, S>,
    origin: &Origin,
    peer: Option<IpAddr>,
    request: Request,
    held: Option<Held>,
) -> Result<Option<Held>, OriginError> {
    outlet.record.requests += 1;
    outlet.record.name = Some(logged_name(request.name().as_str()));
    let buffers = &origin.buffers;
    let denied = match &origin.reader {
        Some(reader) => may(reader, &request, origin).await.err(),
        None => None,
    };
    let answer = match request {
        _ if denied.is_some() => denied.map_or_else(|| Answer::denial(Denial::NotFound), Answer::denial),
        Request::Of(request) => {
            let (at, name) = (origin.clone(), request.name().clone());
            let work = move |reach| Answer::to(&request, &at, held.clone(), reach);
            let answer = origin.root.patiently(name.as_str().as_bytes(), work).await;
            answer.unwrap_or_else(|error| Answer::refusal(&error, &name, origin))
        }
        Request::List(list) => {
            tokio::select! {
                biased;
                answer = answer::to_list(&list, origin, peer) => answer,
                // Nobody waits for the page any more.
                error = outlet.client_gone() => return Err(OriginError::Stream(error)),
            }
        }
    };
    outlet.record.status = Some(answer.status);
    // Small answers to a row of requests share packets; each relay on the way would wake for every one otherwise.
    if matches!(answer.rest, Rest::Nothing) && outlet.next_is_here() {
        outlet.write_before_more(&answer.bytes).await?;
    } else {
        outlet.write_all(&answer.bytes).await?;
    }
    if let Some(state) = answer.broken {
        body::note_broken(outlet.record, state);
    }
    match answer.rest {
        Rest::Nothing => {}
        Rest::Chunks(source, chunks) => body::send_chunks(outlet, &source, buffers, chunks).await?,
        Rest::Hashes(source, chunks) => body::send_hashes(outlet, &source, chunks).await?,
    }
    outlet.flush().await?;
    Ok(answer.held)
}

//! One connection, request after request: wait, check, exchange, again.

mod exchange;
mod farewell;
mod short_answer;

use super::head::{Head, HeadScanner, Refusal};
use super::timer::Timer;
use super::wire::Wire;
use super::{HttpConfig, HttpEnd, HttpFace, HttpOutcome};
use crate::platform::send_file::as_socket;
use crate::stop::Stop;
use exchange::exchange;
use farewell::{abort, close, refuse};
use http::StatusCode;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

pub(super) const TIMED_OUT: Refusal =
    Refusal { status: StatusCode::REQUEST_TIMEOUT, detail: "The request did not arrive in time." };
/// For a node that has as many connections as it takes.
pub(super) const BUSY: Refusal = Refusal {
    status: StatusCode::SERVICE_UNAVAILABLE,
    detail: "This node has as many connections as it takes. Try again in a moment.",
};
/// For a node with access rules.
pub(super) const CLOSED: Refusal = Refusal {
    status: StatusCode::FORBIDDEN,
    detail: "This node gives files to those whom its rules name, and cannot ask who you are here. Use relay-client.",
};
const CUT_OFF: Refusal = Refusal { status: StatusCode::BAD_REQUEST, detail: "it is cut off" };

/// Whom a connection belongs to.
struct Owner {
    face: Arc<HttpFace>,
    peer: SocketAddr,
    stop: Stop,
}

/// What a wait for a request ends with.
enum Arrival {
    Request(Head),
    Refused(Refusal),
    End(HttpEnd),
}

/// What follows an exchange.
enum Next {
    Request,
    /// Close; with a lingering one when there may be bytes that nobody has read.
    Close {
        end: HttpEnd,
        lingers: bool,
    },
    Refuse(Refusal),
}

pub(super) async fn run<S>(stream: S, peer: SocketAddr, face: Arc<HttpFace>, stop: Stop) -> HttpOutcome
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if let Some(socket) = as_socket(&stream) {
        // The head and the first piece of a file are two writes; they shall not wait for each other's acknowledgement.
        let _ = socket.set_nodelay(true);
    }
    let mut wire = Wire::new(stream);
    let owner = Owner { face, peer, stop };
    let mut stopped = pin!(owner.stop.stopped());
    let mut timer = Timer::default();
    let mut outcome = HttpOutcome { requests: 0, sent: 0, end: HttpEnd::ClientClosed };
    loop {
        let is_first = outcome.requests == 0;
        let config = &owner.face.config;
        let next = match arrival(&mut wire, &mut timer, config, is_first, stopped.as_mut()).await {
            Arrival::Request(head) => {
                // Boxed, so that an idle connection does not keep the room for an exchange.
                let (returned, next) = Box::pin(exchange(wire, head, &owner, &mut outcome)).await;
                wire = returned;
                next
            }
            Arrival::Refused(refusal) => Next::Refuse(refusal),
            Arrival::End(end) => Next::Close { end, lingers: false },
        };
        match next {
            Next::Request => {}
            Next::Close { end, lingers } => {
                outcome.end = end;
                match end {
                    HttpEnd::ClientClosed => {}
                    HttpEnd::SendTimeout | HttpEnd::Broken => abort(&wire),
                    _ => Box::pin(close(wire, lingers)).await,
                }
                return outcome;
            }
            Next::Refuse(refusal) => {
                outcome.end = refusal.end();
                Box::pin(refuse(wire, refusal, &owner, &mut outcome)).await;
                return outcome;
            }
        }
    }
}

/// Waits for a whole head. Without a byte of it nothing is held, and the node's end is heard.
async fn arrival<S>(
    wire: &mut Wire<S>,
    timer: &mut Timer,
    config: &HttpConfig,
    is_first: bool,
    mut stopped: Pin<&mut impl Future<Output = ()>>,
) -> Arrival
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut scanner = HeadScanner::default();
    let start = Instant::now();
    let mut begun = is_first.then_some(start);
    poll_fn(|cx| {
        loop {
            match scanner.scan(&wire.pending, config) {
                Ok(None) => {}
                Ok(Some(head)) => return Poll::Ready(Arrival::Request(head)),
                Err(refusal) => return Poll::Ready(Arrival::Refused(refusal)),
            }
            let has_bytes = scanner.has_begun(&wire.pending);
            if has_bytes {
                begun.get_or_insert_with(Instant::now);
            }
            match wire.poll_fill(cx) {
                Poll::Ready(Ok(0)) if has_bytes => return Poll::Ready(Arrival::Refused(CUT_OFF)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Arrival::End(HttpEnd::ClientClosed)),
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(_)) => return Poll::Ready(Arrival::End(HttpEnd::Broken)),
                Poll::Pending => {}
            }
            if !has_bytes && stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Arrival::End(HttpEnd::Stopped));
            }
            return match begun {
                Some(begun) => {
                    timer.poll_over(begun + config.header_timeout, cx).map(|()| Arrival::Refused(TIMED_OUT))
                }
                // Who has had an answer and asks nothing more is not told about it.
                None => timer
                    .poll_over(start + config.keep_alive_timeout, cx)
                    .map(|()| Arrival::End(HttpEnd::Idle)),
            };
        }
    })
    .await
}

impl Refusal {
    fn end(self) -> HttpEnd {
        if self.status == StatusCode::REQUEST_TIMEOUT { HttpEnd::RequestTimeout } else { HttpEnd::BadRequest }
    }

    fn sentence(self) -> String {
        match self.status {
            StatusCode::BAD_REQUEST => format!("The request is malformed: {}.", self.detail),
            _ => self.detail.to_owned(),
        }
    }
}

/// Answers a connection that is not to be served, whatever it asks, and closes it.
pub(super) async fn turn_away<S>(
    stream: S,
    refusal: Refusal,
    peer: SocketAddr,
    face: Arc<HttpFace>,
    stop: Stop,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut outcome = HttpOutcome { requests: 0, sent: 0, end: refusal.end() };
    refuse(Wire::new(stream), refusal, &Owner { face, peer, stop }, &mut outcome).await;
}

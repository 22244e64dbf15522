//! One pipe at the origin: the first byte behind the `hello` tells whether what follows is TLS or comes in the clear.
//!
//! Everything behind the handshake is read and written through it; nothing falls back.

use super::outlet::Outlet;
use super::session::{GRACE, after, refuse, serve_from};
use super::{Origin, OriginError, OriginLimits, OriginRecord};
use crate::stop::Stop;
use relay_link::detect::TLS_HANDSHAKE;
use relay_link::link::Link;
use relay_link::tls::{Secured, accept};
use relay_proto::code::Status;
use relay_proto::file::Head;
use relay_trust::tls::Use;
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout, timeout_at};

/// How long the end of a session may take to go out.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a node proves to be itself, and whether a client has to want that.
#[derive(Debug, Clone)]
pub struct Security {
    /// The node's side of TLS inside a pipe.
    pub tls: Arc<ServerConfig>,
    /// Whether a pipe in the clear is refused.
    pub is_required: bool,
    /// The most that a handshake may take, from its first byte.
    pub handshake: Duration,
}

/// Answers the requests that come through a pipe until the client ends it, or until `stop` is said. `link` must stand behind the `hello`, with
/// nothing of it read ahead.
///
/// # Errors
/// Why the connection ended otherwise than by the client's close; the client has been told where that is possible.
pub async fn serve_pipe(
    mut link: Link,
    mut origin: Origin,
    security: &Security,
    limits: OriginLimits,
    stop: &Stop,
    record: &mut OriginRecord,
) -> Result<(), OriginError> {
    let deadline = Instant::now() + limits.request;
    let first = tokio::select! {
        biased;
        first = timeout_at(deadline, link.first_byte()) => first,
        // Whoever serves the requests knows what to say then.
        () = after(stop, GRACE) => Ok(Ok(None)),
    };
    match first {
        Ok(Ok(Some(TLS_HANDSHAKE))) => {
            let secured = handshake(link, security, record).await?;
            origin.reader = origin.reader.map(|reader| reader.with_key(secured.key));
            link = secured.link;
        }
        Ok(Ok(Some(_))) if security.is_required => {
            let text = "this node serves files through encryption alone; ask again without --plain";
            let mut outlet = Outlet::new(&mut link, limits.progress, record);
            refuse(&mut outlet, &Head::only(Status::FORBIDDEN, text)).await;
            return Err(OriginError::NotEncrypted);
        }
        Ok(Err(error)) => return Err(OriginError::Stream(error)),
        _ => {}
    }
    let peer = Some(link.peer().ip());
    let served = serve_from(&mut link, peer, &origin, limits, deadline, stop, record).await;
    // An end that is not told is a cut. A client that is gone misses nothing.
    let _ = timeout(FAREWELL, link.shutdown()).await;
    served
}

async fn handshake(
    link: Link,
    security: &Security,
    record: &mut OriginRecord,
) -> Result<Secured, OriginError> {
    match timeout(security.handshake, accept(link, &security.tls, Use::Pipe)).await {
        Ok(Ok(secured)) => {
            record.encrypted = true;
            Ok(secured)
        }
        Ok(Err(error)) => Err(OriginError::Handshake(error)),
        Err(_) => Err(OriginError::HandshakeTimeout(security.handshake)),
    }
}

//! How a connection ends: with an answer that hyper has no part in, gently, or with a reset.

use super::Owner;
use crate::access_log::HttpAccess;
use crate::http::error_page::{self, Form};
use crate::http::head::Refusal;
use crate::http::wire::Wire;
use crate::http::{HttpOutcome, date};
use crate::platform::send_file::as_socket;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use std::future::poll_fn;
use std::io;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long a client may take to read the last answer before the connection is cut.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of a client's that are read away behind the last answer, so that they do not reset the connection under it.
const MAX_LINGER: usize = 256 * 1024;
/// Of a request line that was refused, as much is logged.
const MAX_LOGGED_LINE: usize = 1024;

/// Answers what is not given to hyper, and closes.
pub(super) async fn refuse<S>(mut wire: Wire<S>, refusal: Refusal, owner: &Owner, outcome: &mut HttpOutcome)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (line, form) = glimpse(&wire.pending);
    let page = error_page::text(refusal.status, &refusal.sentence(), form);
    let body = if line.starts_with("HEAD ") { "" } else { &page };
    let answer = format!(
        "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        refusal.status.as_u16(),
        refusal.status.canonical_reason().unwrap_or_default(),
        date::imf_fixdate(SystemTime::now()),
        form.content_type().to_str().unwrap_or_default(),
        page.len(),
    );
    let wrote = timeout(LINGER, wire.stream.write_all(answer.as_bytes())).await;
    let complete = matches!(wrote, Ok(Ok(())));
    outcome.requests += 1;
    outcome.sent += if complete { answer.len() as u64 } else { 0 };
    let mut words = line.splitn(3, ' ');
    owner.face.log.http(&HttpAccess {
        peer: owner.peer.ip(),
        at: SystemTime::now(),
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        version: words.next().unwrap_or_default(),
        status: refusal.status.as_u16(),
        body_bytes: body.len() as u64,
        referer: None,
        user_agent: None,
        duration: Duration::ZERO,
        complete,
    });
    close(wire, true).await;
}

/// What can be told of a head that is not whole or not well formed: its first line, and the form its answer should have.
fn glimpse(head: &[u8]) -> (String, Form) {
    let mut lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let line = lines.next().unwrap_or_default();
    let line = line.get(..MAX_LOGGED_LINE).unwrap_or(line);
    let mut headers = HeaderMap::new();
    for field in lines {
        if let Some((name, value)) = field.split_at_checked(ACCEPT.as_str().len() + 1)
            && name.eq_ignore_ascii_case(b"accept:")
            && let Ok(value) = HeaderValue::from_bytes(value.trim_ascii())
        {
            headers.append(ACCEPT, value);
        }
    }
    (String::from_utf8_lossy(line).into_owned(), Form::accepted(&headers))
}

/// Ends the sending side, and reads away what the client still sends, for a while: closing over unread bytes would reset
/// the connection, and the client might lose the answer (RFC 9112, 9.6).
pub(super) async fn close<S>(mut wire: Wire<S>, lingers: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let reading = async {
        wire.stream.shutdown().await?;
        let mut left = if lingers { MAX_LINGER } else { 0 };
        while left > 0 {
            wire.pending.clear();
            match poll_fn(|cx| wire.poll_fill(cx)).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<_, io::Error>(())
    };
    // Whatever happens, the connection ends here.
    let _ = timeout(LINGER, reading).await;
}

/// An answer that is not whole ends in a reset, so that no client takes it for whole, and the system drops what it still
/// holds for a client that reads nothing.
pub(super) fn abort<S: 'static>(wire: &Wire<S>) {
    if let Some(socket) = as_socket(&wire.stream) {
        let _ = socket.set_zero_linger();
    }
}

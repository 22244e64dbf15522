//! The access log: one line a request, for people and programs that read such lines since decades.
//!
//! What a peer sent stands between quotes and with every special byte escaped, so that no peer can forge a line or
//! reach a terminal. Lines are written as soon as the thread has done what is ready to be done, those that came meanwhile
//! in one go: so a busy node makes few writes, and no request waits for another's line. A writer that may block belongs
//! behind a [`crate::log_queue::LogQueue`]. A line that cannot be written is lost, never the answer.

use crate::http::date;
use serde::Serialize;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// The most bytes of one field of a peer's that a line takes.
const MAX_FIELD: usize = 2_048;

/// In bytes; when as much waits, who comes next writes it and waits for that.
const MOST_PENDING: usize = 64 * 1024;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessFormat {
    /// The Combined Log Format, as Apache's `mod_log_config` describes it; times are UTC.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
}

/// Where lines go.
pub struct AccessLog {
    format: AccessFormat,
    lines: Option<Arc<Lines>>,
}

/// Lines on their way.
struct Lines {
    pending: Mutex<Pending>,
    out: Mutex<Box<dyn Write + Send>>,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// A task is about to write.
    is_awaited: bool,
}

/// One answered request of the HTTP face.
#[derive(Debug, Clone, Copy)]
pub struct HttpAccess<'a> {
    /// Who asked.
    pub peer: IpAddr,
    /// When the request had arrived.
    pub at: SystemTime,
    /// As it was sent; empty when it could not be read.
    pub method: &'a str,
    /// As it was sent.
    pub target: &'a str,
    /// `HTTP/1.1`; empty when it could not be read.
    pub version: &'a str,
    /// Of the answer.
    pub status: u16,
    /// Bytes of the answer's body that were given to the connection.
    pub body_bytes: u64,
    /// The request's field, if it has one.
    pub referer: Option<&'a [u8]>,
    /// The request's field, if it has one.
    pub user_agent: Option<&'a [u8]>,
    /// From the request's arrival to the end of the answer.
    pub duration: Duration,
    /// Whether the whole answer went out.
    pub complete: bool,
}

impl AccessLog {
    /// Writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self { format: AccessFormat::default(), lines: None }
    }

    /// Writes to `out`, in a task of the runtime, or at once where there is none.
    pub fn new(format: AccessFormat, out: impl Write + Send + 'static) -> Self {
        Self { format, lines: Some(Lines::new(out)) }
    }

    /// Whether lines go anywhere.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Writes the line of one request.
    pub fn http(&self, access: &HttpAccess<'_>) {
        if let Some(lines) = &self.lines {
            lines.add(&match self.format {
                AccessFormat::Combined => access.combined(),
                AccessFormat::Json => access.json(),
            });
        }
    }
}

impl Drop for AccessLog {
    /// The runtime may have ended before the last lines were written.
    fn drop(&mut self) {
        if let Some(lines) = &self.lines {
            lines.write();
        }
    }
}

impl Lines {
    fn new(out: impl Write + Send + 'static) -> Arc<Self> {
        Arc::new(Self { pending: Mutex::default(), out: Mutex::new(Box::new(out)) })
    }

    fn add(self: &Arc<Self>, line: &str) {
        let mut pending = lock(&self.pending);
        pending.bytes.extend_from_slice(line.as_bytes());
        pending.bytes.push(b'\n');
        let is_first = !std::mem::replace(&mut pending.is_awaited, true);
        let is_full = pending.bytes.len() >= MOST_PENDING;
        drop(pending);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if is_first => drop(runtime.spawn(Arc::clone(self).write_soon())),
            Ok(_) if !is_full => {}
            _ => drop(self.write()),
        }
    }

    async fn write_soon(self: Arc<Self>) {
        loop {
            // Whatever else is ready comes first, and may have lines of its own.
            tokio::task::yield_now().await;
            if !self.write() {
                return;
            }
        }
    }

    /// Writes what is pending; returns whether more has come meanwhile.
    fn write(&self) -> bool {
        let mut out = lock(&self.out);
        let bytes = std::mem::take(&mut lock(&self.pending).bytes);
        if !bytes.is_empty() {
            // Nobody could be told about a log that cannot be written.
            let _ = out.write_all(&bytes);
        }
        let mut pending = lock(&self.pending);
        pending.is_awaited = !pending.bytes.is_empty();
        pending.is_awaited
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").field("format", &self.format).field("is_on", &self.is_on()).finish()
    }
}

impl HttpAccess<'_> {
    fn combined(&self) -> String {
        let mut line = String::with_capacity(256);
        let _ = write!(line, "{} - - [", self.peer);
        write_time(&mut line, self.at);
        line.push_str("] \"");
        if self.method.is_empty() {
            line.push('-');
        } else {
            escape(&mut line, self.method.as_bytes());
            line.push(' ');
            escape(&mut line, self.target.as_bytes());
            line.push(' ');
            escape(&mut line, self.version.as_bytes());
        }
        let _ = write!(line, "\" {} {} \"", self.status, self.body_bytes);
        escape(&mut line, self.referer.unwrap_or(b"-"));
        line.push_str("\" \"");
        escape(&mut line, self.user_agent.unwrap_or(b"-"));
        line.push('"');
        line
    }

    fn json(&self) -> String {
        let escaped = |bytes: &[u8]| {
            let mut text = String::new();
            escape(&mut text, bytes);
            text
        };
        let line = JsonLine {
            time: date::rfc_3339(self.at),
            peer: self.peer,
            method: escaped(self.method.as_bytes()),
            target: escaped(self.target.as_bytes()),
            version: self.version,
            status: self.status,
            body_bytes: self.body_bytes,
            referer: self.referer.map(escaped),
            user_agent: self.user_agent.map(escaped),
            duration_ms: self.duration.as_secs_f64() * 1e3,
            complete: self.complete,
        };
        serde_json::to_string(&line).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    peer: IpAddr,
    method: String,
    target: String,
    version: &'a str,
    status: u16,
    body_bytes: u64,
    referer: Option<String>,
    user_agent: Option<String>,
    duration_ms: f64,
    complete: bool,
}

thread_local! {
    /// The second that was written last, and how: requests come many a second.
    static LAST_TIME: RefCell<(Option<u64>, String)> = const { RefCell::new((None, String::new())) };
}

/// Writes `10/Oct/2000:13:55:36 +0000`.
fn write_time(line: &mut String, at: SystemTime) {
    let second = at.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).ok();
    LAST_TIME.with_borrow_mut(|(last, text)| {
        if second.is_none() || *last != second {
            (*last, *text) = (second, combined_time(at));
        }
        line.push_str(text);
    });
}

fn combined_time(at: SystemTime) -> String {
    // "Tue, 10 Oct 2000 13:55:36 GMT" has every part of it.
    let date = date::imf_fixdate(at);
    let part = |from: usize, to: usize| date.get(from..to).unwrap_or_default();
    format!("{}/{}/{}:{} +0000", part(5, 7), part(8, 11), part(12, 16), part(17, 25))
}

/// Apache's form: quotes and backslashes behind a backslash, every other byte that is not plain ASCII as `\xHH`.
fn escape(line: &mut String, bytes: &[u8]) {
    let bytes = bytes.get(..MAX_FIELD).unwrap_or(bytes);
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if let (true, Ok(text)) = (bytes.iter().all(is_plain), str::from_utf8(bytes)) {
        return line.push_str(text);
    }
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => line.extend(['\\', char::from(byte)]),
            b' '..=b'~' => line.push(char::from(byte)),
            _ => {
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Writes(mpsc::Sender<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn access() -> HttpAccess<'static> {
        HttpAccess {
            peer: [192, 0, 2, 7].into(),
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(971_186_136_789),
            method: "GET",
            target: "/a?b=\"c\"",
            version: "HTTP/1.1",
            status: 206,
            body_bytes: 2326,
            referer: None,
            user_agent: Some(b"curl\\8 \x1b[31m\xff\n"),
            duration: Duration::from_micros(1_500),
            complete: true,
        }
    }

    fn check(format: AccessFormat, access: &HttpAccess<'_>, expected: &str) {
        let (sender, lines) = mpsc::channel();
        AccessLog::new(format, Writes(sender)).http(access);
        assert_eq!(String::from_utf8(lines.recv().unwrap()).unwrap(), expected);
    }

    #[test]
    fn combined_lines_cannot_be_forged() {
        check(
            AccessFormat::Combined,
            &access(),
            "192.0.2.7 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=\\\"c\\\" HTTP/1.1\" 206 2326 \"-\" \
             \"curl\\\\8 \\x1b[31m\\xff\\x0a\"\n",
        );
        let unread = HttpAccess { method: "", target: "", version: "", status: 408, ..access() };
        assert!(unread.combined().contains("] \"-\" 408 "));
    }

    #[test]
    fn json_lines_hold_the_same() {
        check(
            AccessFormat::Json,
            &access(),
            "{\"time\":\"2000-10-10T13:55:36.789Z\",\"peer\":\"192.0.2.7\",\"method\":\"GET\",\
             \"target\":\"/a?b=\\\\\\\"c\\\\\\\"\",\"version\":\"HTTP/1.1\",\"status\":206,\"body_bytes\":2326,\
             \"referer\":null,\"user_agent\":\"curl\\\\\\\\8 \\\\x1b[31m\\\\xff\\\\x0a\",\"duration_ms\":1.5,\
             \"complete\":true}\n",
        );
    }

    #[test]
    fn a_long_field_is_cut() {
        let agent = vec![b'a'; 100_000];
        let long = HttpAccess { user_agent: Some(&agent), ..access() };
        assert!(long.combined().len() < MAX_FIELD + 200);
    }

    #[tokio::test]
    async fn lines_that_come_together_are_one_write() {
        let (sender, writes) = mpsc::channel();
        let log = AccessLog::new(AccessFormat::Combined, Writes(sender));
        let line = format!("{}\n", access().combined());
        log.http(&access());
        log.http(&access());
        assert_eq!(writes.try_recv(), Err(mpsc::TryRecvError::Empty));
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(writes.try_recv(), Ok(line.repeat(2).into_bytes()));
        // Nor are those lost for which no turn comes any more.
        log.http(&access());
        drop(log);
        assert_eq!(writes.try_recv(), Ok(line.into_bytes()));
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let (sender, writes) = mpsc::channel();
        let log = AccessLog::new(AccessFormat::Combined, Writes(sender));
        let line = access().combined().len() + 1;
        for _ in 0..MOST_PENDING / line {
            log.http(&access());
        }
        assert_eq!(writes.try_recv(), Err(mpsc::TryRecvError::Empty));
        log.http(&access());
        assert_eq!(writes.try_recv().map(|written| written.len()), Ok((MOST_PENDING / line + 1) * line));
    }
}

//! The guard in front of hyper: where a request's head ends, how its body is framed, and whether it is well formed.
//!
//! hyper reads some malformed heads as if they were good (bare LF, both lengths, no `Host`). A server behind or in front
//! of this one may read them otherwise, and that difference is request smuggling (RFC 9112, 11.2). So each head is
//! checked here, byte by byte, before hyper sees it, and hyper is given exactly one request at a time.

use super::HttpConfig;
use super::body::{Stream, nothing};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Uri};
use http::{Method, Request, StatusCode, Version};

/// Empty lines that are passed over before a request (RFC 9112, 2.2, asks for one).
const MAX_EMPTY_LINES: usize = 4;
/// The most header fields that the parser has room for.
const FIELD_SLOTS: usize = 128;

/// A request head that may be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes to pass over before it.
    pub start: usize,
    /// Where it ends, from the start of the buffer.
    pub end: usize,
    pub framing: Framing,
    /// Not HTTP/1.0, whose clients know no interim answers.
    pub is_1_1: bool,
    /// The client waits for "100 Continue" before it sends the body.
    pub expects_continue: bool,
    /// The client leaves the connection open for another request.
    pub is_persistent: bool,
    /// An OPTIONS for the named server as a whole, not for its `/` (RFC 9112, 3.2.4): a [`Uri`] cannot tell these apart.
    pub is_server_wide: bool,
}

/// Marks a request of which [`Head::is_server_wide`] was told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerWide;

/// How the request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As many bytes; 0 is no body.
    Length(u64),
    /// Its end is known only to who decodes it.
    Chunked,
}

/// Why a request is answered without being looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    /// For the error page.
    pub detail: &'static str,
}

/// Looks for the end of a head in a buffer that grows; no byte is looked at twice.
#[derive(Debug, Default)]
pub(crate) struct HeadScanner {
    looked_at: usize,
    line_start: usize,
    start: usize,
    empty_lines: usize,
}

impl HeadScanner {
    /// `Ok(None)` as long as the head is not whole. The buffer holds everything since the scanner was made.
    pub(crate) fn scan(&mut self, buffer: &[u8], config: &HttpConfig) -> Result<Option<Head>, Refusal> {
        while let Some(length) = self.rest(buffer).iter().position(|&byte| byte == b'\n') {
            let end = self.looked_at + length;
            let line = buffer.get(self.line_start..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").ok_or(bad("a line does not end in CR LF"))?;
            self.looked_at = end + 1;
            if self.line(line, config)? {
                return check(buffer, self.start, self.looked_at, config).map(Some);
            }
            self.line_start = self.looked_at;
        }
        self.looked_at = buffer.len();
        self.unfinished_line(buffer, config)?;
        Ok(None)
    }

    fn rest<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        buffer.get(self.looked_at..).unwrap_or_default()
    }

    /// Whether the line ends the head.
    fn line(&mut self, line: &[u8], config: &HttpConfig) -> Result<bool, Refusal> {
        if line.contains(&b'\r') {
            return Err(bad("a CR stands alone"));
        }
        let is_first = self.line_start == self.start;
        if is_first && line.is_empty() {
            self.empty_lines += 1;
            self.start = self.looked_at;
            return if self.empty_lines > MAX_EMPTY_LINES {
                Err(bad("there is no request line"))
            } else {
                Ok(false)
            };
        }
        if is_first {
            check_beginning(line)?;
            if line.len() > config.max_request_line {
                return Err(TOO_LONG_TARGET);
            }
            check_version(line)?;
        }
        if !is_first && matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(bad("a header field is folded over several lines"));
        }
        if self.looked_at - self.start > config.max_head {
            return Err(TOO_LARGE_HEAD);
        }
        Ok(line.is_empty())
    }

    fn unfinished_line(&self, buffer: &[u8], config: &HttpConfig) -> Result<(), Refusal> {
        let is_first = self.line_start == self.start;
        let line = buffer.get(self.line_start..).unwrap_or_default();
        if is_first && line != b"\r" {
            check_beginning(line)?;
        }
        if is_first && line.len() > config.max_request_line {
            return Err(TOO_LONG_TARGET);
        }
        if buffer.len() - self.start > config.max_head {
            return Err(TOO_LARGE_HEAD);
        }
        Ok(())
    }

    /// Whether any byte of a request has come; empty lines are none, nor is what can only become one.
    pub(crate) fn has_begun(&self, buffer: &[u8]) -> bool {
        !matches!(buffer.get(self.start..), None | Some(b"" | b"\r"))
    }
}

const TOO_LONG_TARGET: Refusal =
    Refusal { status: StatusCode::URI_TOO_LONG, detail: "The request line is too long." };
const TOO_LARGE_HEAD: Refusal = Refusal {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    detail: "The header fields are too large.",
};

const fn bad(detail: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, detail }
}

/// RFC 9110, 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Tells early what begins like no request at all, such as the first byte of TLS.
fn check_beginning(line: &[u8]) -> Result<(), Refusal> {
    match line.first() {
        Some(&byte) if !is_token_byte(byte) => Err(bad("this is no HTTP request")),
        _ => Ok(()),
    }
}

/// Refuses a version early: of what follows one that is unknown nothing can be known.
fn check_version(line: &[u8]) -> Result<(), Refusal> {
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal {
                status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                detail: "This server speaks HTTP/1.1 and HTTP/1.0.",
            })
        }
        _ => Err(bad("the request line does not end in an HTTP version")),
    }
}

fn check(buffer: &[u8], start: usize, end: usize, config: &HttpConfig) -> Result<Head, Refusal> {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; FIELD_SLOTS];
    let mut request = httparse::Request::new(&mut []);
    let bytes = buffer.get(start..end).unwrap_or_default();
    match request.parse_with_uninit_headers(bytes, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(bad("the head does not end where it seems to end")),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE_HEAD),
        Err(_) => return Err(bad("the request line or a header field is malformed")),
    }
    if request.headers.len() > config.max_fields {
        return Err(TOO_LARGE_HEAD);
    }
    let fields = Fields::read(request.headers)?;
    let is_1_1 = request.version == Some(1);
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    check_target(method, target)?;
    fields.check_host(is_1_1)?;
    Ok(Head {
        start,
        end,
        framing: fields.framing(is_1_1)?,
        is_1_1,
        expects_continue: is_1_1 && fields.expects_continue,
        is_persistent: if is_1_1 { !fields.closes } else { fields.keeps_alive && !fields.closes },
        is_server_wide: method == "OPTIONS" && names_no_path(target),
    })
}

/// The request that a checked head of no body makes; `None` where the types have no room for what it says.
pub(crate) fn request(head: &Bytes) -> Option<Request<Stream>> {
    let mut slots = [const { std::mem::MaybeUninit::uninit() }; FIELD_SLOTS];
    let mut parsed = httparse::Request::new(&mut []);
    parsed.parse_with_uninit_headers(head, &mut slots).ok()?;
    let mut request = Request::new(nothing());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::from_maybe_shared(head.slice_ref(parsed.path?.as_bytes())).ok()?;
    *request.version_mut() = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let fields = request.headers_mut();
    fields.reserve(parsed.headers.len());
    for field in parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        fields.append(name, HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?);
    }
    Some(request)
}

/// RFC 9112, 3.2: each method has its form of target, and no form has a fragment.
fn check_target(method: &str, target: &str) -> Result<(), Refusal> {
    let is_good = match (method, target) {
        _ if target.contains('#') => false,
        ("CONNECT", authority) => authority
            .parse::<Authority>()
            .is_ok_and(|authority| authority.port_u16().is_some() && !authority.as_str().contains('@')),
        ("OPTIONS", "*") => true,
        (_, path) if path.starts_with('/') => PathAndQuery::try_from(path).is_ok(),
        (_, uri) => uri.parse::<Uri>().is_ok_and(|uri| {
            uri.scheme().is_some()
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        }),
    };
    if is_good { Ok(()) } else { Err(bad("the request target is malformed")) }
}

/// An absolute target with neither path nor query.
fn names_no_path(target: &str) -> bool {
    target.split_once("://").is_some_and(|(scheme, rest)| !scheme.contains('/') && !rest.contains(['/', '?']))
}

/// The fields that decide how the connection goes on.
#[derive(Default)]
struct Fields<'a> {
    hosts: usize,
    host: &'a [u8],
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    expects_continue: bool,
    closes: bool,
    keeps_alive: bool,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                fields.hosts += 1;
                fields.host = header.value;
            } else if is("content-length") {
                if fields.length.replace(header.value).is_some() {
                    return Err(bad("there are two Content-Length fields"));
                }
            } else if is("transfer-encoding") {
                if fields.coding.replace(header.value).is_some() {
                    return Err(bad("there are two Transfer-Encoding fields"));
                }
            } else if is("expect") {
                fields.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue");
            } else if is("connection") {
                fields.closes |= has_token(header.value, b"close");
                fields.keeps_alive |= has_token(header.value, b"keep-alive");
            }
        }
        Ok(fields)
    }

    /// RFC 9112, 3.2.
    fn check_host(&self, is_1_1: bool) -> Result<(), Refusal> {
        match self.hosts {
            0 if is_1_1 => Err(bad("there is no Host field")),
            0 => Ok(()),
            1 if is_host(self.host) => Ok(()),
            1 => Err(bad("the Host field is malformed")),
            _ => Err(bad("there are two Host fields")),
        }
    }

    /// RFC 9112, 6.
    fn framing(&self, is_1_1: bool) -> Result<Framing, Refusal> {
        match (self.length, self.coding) {
            (Some(_), Some(_)) => Err(bad("there are both a Content-Length and a Transfer-Encoding")),
            (_, Some(_)) if !is_1_1 => Err(bad("HTTP/1.0 has no Transfer-Encoding")),
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (None, Some(coding)) if has_token_last(coding, b"chunked") => Err(Refusal {
                status: StatusCode::NOT_IMPLEMENTED,
                detail: "This server knows no transfer coding but chunked.",
            }),
            (None, Some(_)) => Err(bad("the body's end cannot be known from its Transfer-Encoding")),
            (Some(length), None) => {
                length_of(length).map(Framing::Length).ok_or(bad("the Content-Length is no number"))
            }
            (None, None) => Ok(Framing::Length(0)),
        }
    }
}

/// At most 18 digits, so that no two readers can disagree about an overflow.
fn length_of(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// `host [":" port]`, of which each may be empty (RFC 9110, 7.2; RFC 9112, 3.2).
fn is_host(value: &[u8]) -> bool {
    // The last colon, unless it stands in an address in brackets.
    let end = value.rsplit(|byte| *byte == b':').next().filter(|end| end.len() < value.len());
    let has_port_or_none = end.is_none_or(|end| end.ends_with(b"]") || end.iter().all(u8::is_ascii_digit));
    let is_authority = || Authority::try_from(value).is_ok() && !value.contains(&b'@');
    value.is_empty() || has_port_or_none && is_authority()
}

fn tokens(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    tokens(value).any(|found| found.eq_ignore_ascii_case(token))
}

fn has_token_last(value: &[u8], token: &[u8]) -> bool {
    tokens(value).next_back().is_some_and(|found| found.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &[u8]) -> Result<Option<Head>, Refusal> {
        HeadScanner::default().scan(text, &HttpConfig::default())
    }

    /// Also when the bytes come one at a time.
    fn scan_slowly(text: &[u8]) -> Result<Option<Head>, Refusal> {
        let mut scanner = HeadScanner::default();
        for end in 0..=text.len() {
            if let done @ (Err(_) | Ok(Some(_))) = scanner.scan(&text[..end], &HttpConfig::default()) {
                return done;
            }
        }
        Ok(None)
    }

    #[track_caller]
    fn check_good(text: &str) -> Head {
        let head = scan(text.as_bytes()).unwrap().unwrap_or_else(|| panic!("{text:?} is not whole"));
        assert_eq!(scan_slowly(text.as_bytes()), Ok(Some(head)), "{text:?}");
        head
    }

    #[track_caller]
    fn check_refused(text: &str, status: u16) {
        for found in [scan(text.as_bytes()), scan_slowly(text.as_bytes())] {
            assert_eq!(found.map_err(|refusal| refusal.status.as_u16()), Err(status), "{text:.300?}");
        }
    }

    #[test]
    fn finds_the_end_of_a_head() {
        let head = check_good("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((head.start, head.end, head.framing), (0, 27, Framing::Length(0)));
        assert!(head.is_persistent && !head.expects_continue);
        let head = check_good("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((head.start, head.end), (4, 31));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\r"), Ok(None));
        assert_eq!(scan(b""), Ok(None));
    }

    #[test]
    fn options_of_a_server_are_told_from_those_of_its_root() {
        let is_wide = |line: &str| check_good(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")).is_server_wide;
        assert!(is_wide("OPTIONS http://a") && is_wide("OPTIONS http://a:80"));
        for line in ["GET http://a", "OPTIONS http://a/", "OPTIONS http://a?q", "OPTIONS /://a", "OPTIONS *"]
        {
            assert!(!is_wide(line), "{line}");
        }
    }

    #[test]
    fn knows_how_the_connection_goes_on() {
        let with = |version: &str, fields: &str| {
            check_good(&format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"))
        };
        assert_eq!(with("1.1", "Content-Length: 12\r\n").framing, Framing::Length(12));
        assert_eq!(with("1.1", "transfer-encoding: Chunked\r\n").framing, Framing::Chunked);
        assert!(with("1.1", "Expect: 100-Continue\r\n").expects_continue);
        assert!(!with("1.0", "Expect: 100-continue\r\n").expects_continue);
        assert!(!with("1.1", "Connection: x, Close\r\n").is_persistent);
        assert!(!with("1.0", "").is_persistent);
        assert!(with("1.0", "Connection: Keep-Alive\r\n").is_persistent);
        assert!(!with("1.0", "Connection: keep-alive, close\r\n").is_persistent);
    }

    #[test]
    fn refuses_what_others_might_read_otherwise() {
        for text in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\"b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nx: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/11\r\nHost: a\r\n\r\n",
            "\u{16}\u{3}\u{1}",
            " GET / HTTP/1.1\r\n",
            "\r\n\r\n\r\n\r\n\r\n\r\n",
        ] {
            check_refused(text, 400);
        }
        check_refused("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505);
        check_refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
        check_refused("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501);
    }

    #[test]
    fn accepts_every_form_of_target() {
        for line in [
            "GET http://a/x HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "CONNECT a:80 HTTP/1.1",
            "CONNECT [::1]:80 HTTP/1.1",
            "GET /?q HTTP/1.1",
            "M-SEARCH //x HTTP/1.1",
            "GET /näme HTTP/1.1",
            "get / HTTP/1.1",
        ] {
            check_good(&format!("{line}\r\nHost: [::1]:80\r\n\r\n"));
        }
        check_good("GET / HTTP/1.1\r\nHost:\r\n\r\n");
        check_good("GET / HTTP/1.0\r\n\r\n");
    }

    #[test]
    fn limits_lines_and_fields() {
        let config = HttpConfig::default();
        let long = "a".repeat(config.max_request_line);
        check_refused(&format!("GET /{long} HTTP/1.1\r\n"), 414);
        check_refused(&long.repeat(2), 414);
        let field = format!("x: {}\r\n", "a".repeat(1000));
        check_refused(
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", field.repeat(config.max_head / 1000 + 1)),
            431,
        );
        check_refused(&format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}", "a".repeat(config.max_head)), 431);
        let fields = "x: y\r\n".repeat(config.max_fields);
        check_refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), 431);
        let fields = "x: y\r\n".repeat(config.max_fields - 1);
        check_good(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        check_refused(
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(FIELD_SLOTS + 1)),
            431,
        );
    }
}

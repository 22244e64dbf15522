//! Names of fields as their specifications spell them. They have no case (RFC 9110, 5.1), but some readers compare letters.

use std::io::IoSlice;

/// The names that are more than a capital behind each hyphen, of those in IANA's list that an answer may have.
fn spelling(name: &[u8]) -> Option<&'static str> {
    Some(match name {
        b"accept-ch" => "Accept-CH",
        b"cdn-cache-control" => "CDN-Cache-Control",
        b"cdn-loop" => "CDN-Loop",
        b"content-dpr" => "Content-DPR",
        b"content-id" => "Content-ID",
        b"content-md5" => "Content-MD5",
        b"critical-ch" => "Critical-CH",
        b"dasl" => "DASL",
        b"dav" => "DAV",
        b"dnt" => "DNT",
        b"dpop" => "DPoP",
        b"dpop-nonce" => "DPoP-Nonce",
        b"etag" => "ETag",
        b"expect-ct" => "Expect-CT",
        b"im" => "IM",
        b"mime-version" => "MIME-Version",
        b"nel" => "NEL",
        b"odata-version" => "OData-Version",
        b"p3p" => "P3P",
        b"slug" => "SLUG",
        b"sec-gpc" => "Sec-GPC",
        b"sec-websocket-accept" => "Sec-WebSocket-Accept",
        b"sec-websocket-extensions" => "Sec-WebSocket-Extensions",
        b"sec-websocket-protocol" => "Sec-WebSocket-Protocol",
        b"sec-websocket-version" => "Sec-WebSocket-Version",
        b"sourcemap" => "SourceMap",
        b"te" => "TE",
        b"www-authenticate" => "WWW-Authenticate",
        b"x-ua-compatible" => "X-UA-Compatible",
        b"x-xss-protection" => "X-XSS-Protection",
        _ => return None,
    })
}

/// Writes a name, which is given in lower case.
pub(super) fn put_name(out: &mut Vec<u8>, name: &str) {
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    spell(out.get_mut(start..).unwrap_or_default());
}

/// From lower case to how it is written.
fn spell(name: &mut [u8]) {
    if let Some(spelling) = spelling(name) {
        return name.copy_from_slice(spelling.as_bytes());
    }
    let mut before = b'-';
    for byte in name {
        if before == b'-' {
            byte.make_ascii_uppercase();
        }
        before = *byte;
    }
}

/// The heads that hyper writes, on their way to the client: hyper has one rule for all names.
#[derive(Debug, Default)]
pub(super) struct Respelling {
    /// What hyper has given of its heads and is not written yet: byte for byte what it gave, but for the case of letters.
    pending: Vec<u8>,
    /// Of `pending`, where the line begins that is not whole yet.
    line_start: usize,
    /// The head's status says that another one follows (RFC 9110, 15.2).
    is_interim: bool,
    is_over: bool,
}

impl Respelling {
    /// What is to be written in place of hyper's slices: the rest of its heads, and what is behind them. `None` once the heads
    /// are written, and its slices are what goes out.
    pub(super) fn instead<'a>(&'a mut self, slices: &'a [IoSlice<'_>]) -> Option<[IoSlice<'a>; 3]> {
        if self.is_over && self.pending.is_empty() {
            return None;
        }
        let (first, others) = slices.split_first()?;
        self.take(first.get(self.pending.len()..).unwrap_or_default());
        let behind = first.get(self.pending.len()..).unwrap_or_default();
        let second = others.first().map_or(&[][..], |slice| slice);
        Some([&self.pending, behind, second].map(IoSlice::new))
    }

    /// As many bytes were written.
    pub(super) fn wrote(&mut self, length: usize) {
        let of_heads = length.min(self.pending.len());
        self.pending.drain(..of_heads);
        self.line_start = self.line_start.saturating_sub(of_heads);
    }

    fn take(&mut self, mut more: &[u8]) {
        while !self.is_over && !more.is_empty() {
            let line_end = more.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
            let (line, behind) = more.split_at(line_end.unwrap_or(more.len()));
            self.pending.extend_from_slice(line);
            more = behind;
            if line_end.is_some() {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = self.pending.get_mut(self.line_start..).unwrap_or_default();
        if line == b"\r\n" {
            self.is_over = !self.is_interim;
        } else if line.starts_with(b"HTTP/") {
            self.is_interim = line.get(b"HTTP/1.1 ".len()) == Some(&b'1');
        } else if let Some(name) = line.split_mut(|&byte| byte == b':').next() {
            name.make_ascii_lowercase();
            spell(name);
        }
        self.line_start = self.pending.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_their_specifications_do() {
        for (name, expected) in [
            ("etag", "ETag"),
            ("www-authenticate", "WWW-Authenticate"),
            ("te", "TE"),
            ("sec-websocket-accept", "Sec-WebSocket-Accept"),
            ("content-md5", "Content-MD5"),
            ("proxy-authenticate", "Proxy-Authenticate"),
            ("content-type", "Content-Type"),
            ("x--a-", "X--A-"),
            ("", ""),
        ] {
            let mut written = b"before ".to_vec();
            put_name(&mut written, name);
            assert_eq!(str::from_utf8(&written).unwrap(), format!("before {expected}"));
        }
    }

    /// What comes out when each call takes at most `step` bytes, and hyper gives `whole` in one slice and `body` in another.
    fn written(whole: &[u8], body: &[u8], step: usize) -> String {
        let (mut respelling, mut given, mut out) = (Respelling::default(), 0, Vec::new());
        let all = whole.len() + body.len();
        while given < all {
            let rest_of_body = body.get(given.saturating_sub(whole.len())..).unwrap();
            let slices = [whole.get(given..).unwrap_or_default(), rest_of_body].map(IoSlice::new);
            let now = match respelling.instead(&slices) {
                Some(instead) => joined(&instead),
                None => joined(&slices),
            };
            let now = &now[..now.len().min(step)];
            out.extend_from_slice(now);
            respelling.wrote(now.len());
            given += now.len();
        }
        String::from_utf8(out).unwrap()
    }

    fn joined(slices: &[IoSlice<'_>]) -> Vec<u8> {
        slices.iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn heads_are_respelled_and_nothing_else() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        let head = |tag: &str| format!("HTTP/1.1 200 OK\r\n{tag}: \"Etag: a\"\r\nX-A: Etag: b\r\n\r\n");
        let body = "Etag: c\r\nEtag: d\r\n";
        for start in ["", interim] {
            let given = format!("{start}{}{body}", head("Etag"));
            let expected = format!("{start}{}{body}{body}", head("ETag"));
            for step in 1..=expected.len() {
                assert_eq!(written(given.as_bytes(), body.as_bytes(), step), expected, "{step}");
            }
        }
    }
}

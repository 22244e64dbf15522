//! Who answers where no relay node is: the first bytes of protocols that are often found on a port that was written by mistake. What is told
//! here is only for people; nothing is decided by it.

use core::fmt;

/// Who speaks instead of a relay node, as far as its first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// A web server: a status line (RFC 9112 §4), or nothing but a page that tells of an error.
    Http,
    /// TLS: an alert, or a handshake (RFC 8446 §5.1).
    Tls,
    /// SSH (RFC 4253 §4.2).
    Ssh,
    /// SMTP (RFC 5321 §4.2) or FTP (RFC 959 §5.4): both greet with 220.
    Smtp,
    /// Nobody that these bytes would give away.
    Unknown,
}

/// How each of them begins. Nine bytes are all that is looked at, see [`crate::limits::PREFACE_LEN`].
const BEGINNINGS: [(&[u8], Stranger); 9] = [
    (b"HTTP/", Stranger::Http),
    (b"<!DOCTYPE", Stranger::Http),
    (b"<!doctype", Stranger::Http),
    (b"<html", Stranger::Http),
    (b"\x15\x03", Stranger::Tls),
    (b"\x16\x03", Stranger::Tls),
    (b"SSH-", Stranger::Ssh),
    (b"220 ", Stranger::Smtp),
    (b"220-", Stranger::Smtp),
];

impl Stranger {
    /// Who begins like this.
    #[must_use]
    pub fn of(first_bytes: &[u8]) -> Stranger {
        let found = BEGINNINGS.iter().find(|(beginning, _)| first_bytes.starts_with(beginning));
        found.map_or(Stranger::Unknown, |(_, stranger)| *stranger)
    }
}

/// The end of a sentence about these bytes; nothing when they say nothing.
impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stranger::Http => ", but those of a web server (HTTP)",
            Stranger::Tls => ", but those of TLS (HTTPS, for example)",
            Stranger::Ssh => ", but those of an SSH server",
            Stranger::Smtp => ", but those of a server for mail (SMTP) or FTP",
            Stranger::Unknown => "",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_bytes_tell_nothing() {
        for (bytes, stranger) in [
            (&b"HTTP/1.1 "[..], Stranger::Http),
            (b"HTTP", Stranger::Unknown),
            (b"<html>\r\n<", Stranger::Http),
            (b"\x15\x03\x01", Stranger::Tls),
            (b"SSH-2.0-x", Stranger::Ssh),
            (b"220 mail.", Stranger::Smtp),
            (b"2200", Stranger::Unknown),
            (b"", Stranger::Unknown),
        ] {
            assert_eq!(Stranger::of(bytes), stranger, "{bytes:?}");
        }
    }
}

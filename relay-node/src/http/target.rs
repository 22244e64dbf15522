//! From a request's path to the name of a file: decoded once, component by component.
//!
//! Nothing here decides what may be read; the document root does. A slash, a backslash or a NUL that was encoded stays
//! out of the name altogether, so that no decoding can make another path of it.

use crate::platform::beneath::NAMES_ARE_BYTES;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use std::borrow::Cow;
use std::fmt::Write;

/// What may not stand for itself in a path segment (RFC 3986, 3.3), and what HTML or a shell would take amiss.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b';');

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Relative to the document root, without a slash at its end; empty for the root itself. UTF-8 where the system's names are.
    pub name: Vec<u8>,
    /// The path ended in a slash: only a directory is meant.
    pub wants_directory: bool,
}

/// Why a path asks for nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadTarget {
    /// A `%` without two hexadecimal digits: the request is malformed.
    Malformed,
    /// No file can have that name.
    NoName,
}

/// Reads the path of a request, which begins with a slash.
pub(crate) fn parse(path: &str) -> Result<Target, BadTarget> {
    if !has_whole_escapes(path) {
        return Err(BadTarget::Malformed);
    }
    let path = path.strip_prefix('/').ok_or(BadTarget::NoName)?;
    if path.is_empty() {
        return Ok(Target { name: Vec::new(), wants_directory: true });
    }
    let (path, wants_directory) = match path.strip_suffix('/') {
        Some(path) => (path, true),
        None => (path, false),
    };
    let mut name = Vec::with_capacity(path.len());
    for (index, component) in path.split('/').enumerate() {
        let component = Cow::from(percent_decode_str(component));
        if component.iter().any(|byte| b"/\\\0".contains(byte)) {
            return Err(BadTarget::NoName);
        }
        if index > 0 {
            name.push(b'/');
        }
        name.extend_from_slice(&component);
    }
    if name.is_empty() || !NAMES_ARE_BYTES && str::from_utf8(&name).is_err() {
        return Err(BadTarget::NoName);
    }
    Ok(Target { name, wants_directory })
}

fn has_whole_escapes(path: &str) -> bool {
    path.split('%')
        .skip(1)
        .all(|rest| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

/// One component of a path, encoded for a link.
pub(crate) fn encode_component(component: &[u8]) -> impl std::fmt::Display + '_ {
    percent_encode(component, SEGMENT)
}

/// A name for people: bytes that are no text are encoded as they are in a link.
pub(crate) fn readable(name: &[u8]) -> Cow<'_, str> {
    if let Ok(name) = str::from_utf8(name) {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len() + 8);
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        let _ = write!(text, "{}", percent_encode(chunk.invalid(), SEGMENT));
    }
    Cow::Owned(text)
}

/// A whole name as an absolute path, encoded, without a slash at its end.
pub(crate) fn encode_path(name: &[u8]) -> String {
    let mut path = String::with_capacity(name.len() + 8);
    for component in name.split(|&byte| byte == b'/').filter(|component| !component.is_empty()) {
        let _ = write!(path, "/{}", encode_component(component));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, name: &str, wants_directory: bool) {
        assert_eq!(parse(path), Ok(Target { name: name.into(), wants_directory }), "{path}");
    }

    #[test]
    fn decodes_once() {
        check("/", "", true);
        check("/a.txt", "a.txt", false);
        check("/a/b/", "a/b", true);
        check("/n%C3%A4me%20x.txt", "näme x.txt", false);
        check("/100%25", "100%", false);
        check("/%252e%252e/a", "%2e%2e/a", false);
        check("/a+b", "a+b", false);
    }

    #[test]
    fn names_are_as_the_system_has_them() {
        let name = b"caf\xe9 \xc3\xa9";
        match parse("/caf%E9%20%C3%A9") {
            Ok(target) => assert_eq!((NAMES_ARE_BYTES, target.name.as_slice()), (true, &name[..])),
            Err(bad) => assert_eq!((NAMES_ARE_BYTES, bad), (false, BadTarget::NoName)),
        }
        assert_eq!(encode_path(name), "/caf%E9%20%C3%A9");
        assert_eq!(readable(name), "caf%E9 é");
        assert_eq!(readable("100% é".as_bytes()), "100% é");
    }

    #[test]
    fn leaves_dots_and_empty_components_to_the_document_root() {
        check("/../a", "../a", false);
        check("/%2e%2E/a", "../a", false);
        check("/a//b", "a//b", false);
        check("//a", "/a", false);
    }

    #[test]
    fn no_encoding_makes_another_path() {
        for path in ["/..%2fsecret", "/a%2Fb", "/a%5cb", "/a%00", "a", "", "//"] {
            assert_eq!(parse(path), Err(BadTarget::NoName), "{path}");
        }
        for path in ["/%", "/%2", "/%zz", "/a%2", "/%%41", "/a%é"] {
            assert_eq!(parse(path), Err(BadTarget::Malformed), "{path}");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_again() {
        for name in ["a b", "ä/ö", "100%", "x?y#z", "\"<&>'\"", "a;b,c=d", "[1]{2}"] {
            check(&encode_path(name.as_bytes()), name, false);
            assert!(encode_path(name.as_bytes()).is_ascii());
        }
        assert_eq!(encode_path(b""), "");
    }
}

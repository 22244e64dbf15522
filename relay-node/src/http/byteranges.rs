//! Parts of a body as answers carry them (RFC 9110, 14.4 and 14.6): one by itself, several one behind another in a
//! multipart. What a part is made of, and what else an answer says, is for those who have the body to say.

use super::body::Part;
use http::HeaderValue;
use std::collections::VecDeque;
use std::ops::Range;

/// The value of `Content-Range`. `range` is not empty.
pub(super) fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// What several ranges of one body have in common.
pub(super) struct Multipart<'a> {
    /// The body's length in bytes.
    pub size: u64,
    /// That of the whole body, if it has one.
    pub content_type: Option<&'a HeaderValue>,
    /// What the body cannot hold: at most 70 letters and digits (RFC 2046, 5.1.1).
    pub boundary: &'a str,
}

impl Multipart<'_> {
    /// The value of the answer's own `Content-Type`.
    pub(super) fn media_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The answer's body; `stretch` has the bytes of one range.
    pub(super) fn parts(
        &self,
        ranges: &[Range<u64>],
        stretch: impl Fn(&Range<u64>) -> Part,
    ) -> VecDeque<Part> {
        let mut parts = VecDeque::with_capacity(2 * ranges.len() + 1);
        let mut line_end = "";
        for range in ranges {
            parts.push_back(Part::Bytes(self.part_head(line_end, range).into()));
            parts.push_back(stretch(range));
            line_end = "\r\n";
        }
        parts.push_back(Part::Bytes(format!("\r\n--{}--\r\n", self.boundary).into()));
        parts
    }

    fn part_head(&self, line_end: &str, range: &Range<u64>) -> Vec<u8> {
        let mut head = format!("{line_end}--{}\r\n", self.boundary).into_bytes();
        if let Some(content_type) = self.content_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(content_type.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(
            format!("Content-Range: {}\r\n\r\n", content_range(range, self.size)).as_bytes(),
        );
        head
    }
}

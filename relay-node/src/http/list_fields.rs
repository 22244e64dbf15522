//! Fields that are lists: read over all their lines, written as one (RFC 9110 §5.6.1). What a list means is its reader's to know.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The members of a list, however many lines it takes.
pub fn members<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = fields.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// As one line, so that readers which look at one line only see all of it.
pub fn append_to_list(fields: &mut HeaderMap, name: HeaderName, member: &str) {
    let mut line = Vec::new();
    for value in fields.get_all(&name) {
        line.extend_from_slice(value.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(member.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&line) {
        fields.insert(name, value);
    }
}

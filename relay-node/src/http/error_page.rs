//! What a client sees when there is no file for it: a small page, or JSON for who asks for it.
//!
//! No inner detail may appear here: no path of the machine, and of what a client sent nothing but the host and port that the
//! proxy could not reach. A proxy's page says why in the system's words, for nobody else can tell its user.

use super::body::Body;
use super::page::{self, Escaped};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use http::{Response, StatusCode};
use serde::Serialize;

/// In which form a client wants to read answers that the node makes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Form {
    #[default]
    Html,
    Json,
}

impl Form {
    /// JSON is for who names it and does not prefer HTML (RFC 9110, 12.5.1).
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let (mut html, mut json) = (None, None);
        for field in headers.get_all(ACCEPT) {
            for range in field.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let media = parts.next().unwrap_or_default();
                let weight = parts.find_map(weight).unwrap_or(1.0);
                if media.eq_ignore_ascii_case("application/json") {
                    json = Some(weight);
                } else if media.eq_ignore_ascii_case("text/html") {
                    html = Some(weight);
                }
            }
        }
        match (json, html) {
            (Some(json), None) if json > 0.0 => Self::Json,
            (Some(json), Some(html)) if json > html => Self::Json,
            _ => Self::Html,
        }
    }

    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        })
    }
}

/// The weight that a parameter `q=0.5` gives.
fn weight(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().unwrap_or(0.0))
}

#[derive(Serialize)]
struct JsonError<'a> {
    status: u16,
    error: &'a str,
    detail: &'a str,
}

/// A whole answer. `detail` is one sentence of the node's own.
pub(crate) fn response(status: StatusCode, detail: &str, form: Form) -> Response<Body> {
    let mut response = Response::default();
    *response.status_mut() = status;
    let page = put(response.headers_mut(), status, detail, form);
    *response.body_mut() = Body::Full(page);
    response
}

/// Puts what describes the page into an answer's fields, and returns the page.
pub(crate) fn put(fields: &mut HeaderMap, status: StatusCode, detail: &str, form: Form) -> Bytes {
    let page = text(status, detail, form);
    fields.insert(CONTENT_TYPE, form.content_type());
    fields.append(VARY, HeaderValue::from_static("accept"));
    fields.insert(CONTENT_LENGTH, page.len().into());
    page.into()
}

/// The body alone.
pub(crate) fn text(status: StatusCode, detail: &str, form: Form) -> String {
    let reason = status.canonical_reason().unwrap_or("Error");
    let number = status.as_u16();
    match form {
        Form::Json => {
            let mut text = serde_json::to_string(&JsonError { status: number, error: reason, detail })
                .unwrap_or_default();
            text.push('\n');
            text
        }
        Form::Html => {
            let head = page::head(&format!("{number} {reason}"));
            format!("{head}<p>{}</p>{}", Escaped(detail), page::END)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_who_asks() {
        for (accept, expected) in [
            ("", Form::Html),
            ("*/*", Form::Html),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Form::Html),
            ("application/json", Form::Json),
            ("Application/JSON; charset=utf-8", Form::Json),
            ("application/json, text/plain, */*", Form::Json),
            ("text/html;q=0.5, application/json", Form::Json),
            ("text/html, application/json", Form::Html),
            ("text/html, application/json;q=0.9", Form::Html),
            ("application/json;q=0", Form::Html),
            ("application/json;q=x", Form::Html),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Form::accepted(&headers), expected, "{accept}");
        }
    }

    #[test]
    fn html_is_escaped() {
        let page = text(StatusCode::NOT_FOUND, "<x>", Form::Html);
        assert!(page.contains("404 Not Found") && page.contains("&lt;x&gt;"), "{page}");
    }

    #[test]
    fn json_is_one_line() {
        assert_eq!(
            text(StatusCode::NOT_FOUND, "No \"file\".", Form::Json),
            "{\"status\":404,\"error\":\"Not Found\",\"detail\":\"No \\\"file\\\".\"}\n"
        );
    }
}

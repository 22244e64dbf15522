//! GET and HEAD of the document root.

use super::body::{Body, FileParts, Part, read_piece};
use super::byteranges::{Multipart, content_range};
use super::conditional::{self, Tag, Validators, Verdict};
use super::error_page::{self, Form};
use super::range::{self, Wanted};
use super::target::{self, BadTarget, Target};
use super::{HttpFace, blocking, date, listing};
use crate::platform::positioned;
use crate::root::{Opened, RootError, ServedFile};
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    LAST_MODIFIED, LOCATION, RETRY_AFTER,
};
use http::{Method, Response, StatusCode, Uri};
use std::collections::VecDeque;
use std::fs::File;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

/// What a directory shows of itself.
const INDEX: &str = "index.html";
/// Answers up to this size are read into memory and leave together with their head.
const SMALL: u64 = 32 * 1024;

/// Answers a request for a file or a directory.
pub(super) async fn answer(
    face: &HttpFace,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    peer: IpAddr,
) -> Response<Body> {
    find_and_answer(face, method, uri, headers, peer)
        .await
        .unwrap_or_else(|problem| problem.response(Form::accepted(headers)))
}

async fn find_and_answer(
    face: &HttpFace,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    peer: IpAddr,
) -> Result<Response<Body>, Problem> {
    // 1. Only reading is offered.
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(if face.config.strict { Problem::StrictMethod } else { Problem::Method });
    }
    // 2. The path names a file or a directory.
    let target = target::parse(uri.path())?;
    let (name, file) = match open(face, &target.name).await? {
        Opened::File(file) if !target.wants_directory => (target.name, file),
        Opened::File(_) => return Err(Problem::NotFound),
        Opened::Directory if !target.wants_directory => return Ok(redirect(&target, uri)),
        // 3. A directory is its index, or a listing where it has none or the address asks for one.
        Opened::Directory if face.config.listing && listing::is_asked_for(uri) => {
            return listing::answer(face, &target.name, uri, headers, peer).await.map_err(Problem::from);
        }
        Opened::Directory => match index(face, &target.name).await? {
            Some(file) => (INDEX.into(), file),
            None if face.config.listing => {
                return listing::answer(face, &target.name, uri, headers, peer).await.map_err(Problem::from);
            }
            None => return Err(Problem::NotFound),
        },
    };
    // 4. The client's conditions.
    let tag = file.meta.entity_tag();
    let last_modified = date::last_modified(file.meta.modified.0, SystemTime::now());
    let validators = Validators { entity_tag: Some(Tag::strong(&tag)), last_modified };
    match conditional::evaluate(headers, validators, face.config.strict) {
        Verdict::Proceed => {}
        Verdict::NotModified => return not_modified(&tag),
        Verdict::Failed => return Err(Problem::Precondition),
        Verdict::Unreadable => return Err(Problem::StrictDate),
    }
    // 5. All of it, or parts.
    let size = file.meta.size;
    let wants_parts = *method == Method::GET && conditional::allows_range(headers, validators);
    let wanted = if wants_parts { range::wanted(headers, size) } else { Wanted::Whole };
    let content_type = content_type(&String::from_utf8_lossy(&name));
    let (mut response, parts) = match wanted {
        Wanted::Whole => whole(size, content_type),
        Wanted::Parts(parts) => partial(&parts, size, content_type, &tag)?,
        Wanted::Unsatisfiable => return Err(Problem::Range { size }),
    };
    // 6. What the client may remember of it.
    let fields = response.headers_mut();
    if let Some(time) = last_modified {
        fields.insert(LAST_MODIFIED, header(time.text())?);
    }
    fields.insert(ETAG, header(format!("\"{tag}\""))?);
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if *method == Method::GET {
        *response.body_mut() = body(file, parts).await?;
    }
    Ok(response)
}

/// Opens on the spot what the system has in memory, and in the blocking pool what it may have to wait for.
async fn open(face: &HttpFace, name: &[u8]) -> Result<Opened, RootError> {
    if let Some(opened) = face.root.open_entry_cached(name) {
        return opened;
    }
    let (root, opened) = (Arc::clone(&face.root), name.to_owned());
    face.root.patiently(name, move |reach| root.open_entry(&opened, reach)).await
}

async fn index(face: &HttpFace, directory: &[u8]) -> Result<Option<ServedFile>, RootError> {
    let name = [directory, INDEX.as_bytes()].join(&b'/');
    let name = name.strip_prefix(b"/").unwrap_or(&name);
    match open(face, name).await {
        Ok(Opened::File(file)) => Ok(Some(file)),
        Ok(Opened::Directory) | Err(RootError::NotFound { .. } | RootError::Denied) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A directory's relative links work only behind its slash.
fn redirect(target: &Target, uri: &Uri) -> Response<Body> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{}/{query}", target::encode_path(&target.name));
    let mut response = error_page::response(
        StatusCode::MOVED_PERMANENTLY,
        "This is a directory; its address ends in a slash.",
        Form::Html,
    );
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn not_modified(tag: &str) -> Result<Response<Body>, Problem> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(ETAG, header(format!("\"{tag}\""))?);
    Ok(response)
}

fn whole(size: u64, content_type: HeaderValue) -> (Response<Body>, VecDeque<Part>) {
    let mut response = Response::new(Body::Empty);
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, content_type);
    fields.insert(CONTENT_LENGTH, size.into());
    let parts = if size == 0 { VecDeque::new() } else { VecDeque::from([file_part(&(0..size))]) };
    (response, parts)
}

/// RFC 9110, 15.3.7.
fn partial(
    ranges: &[Range<u64>],
    size: u64,
    content_type: HeaderValue,
    tag: &str,
) -> Result<(Response<Body>, VecDeque<Part>), Problem> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let fields = response.headers_mut();
    let parts = match ranges {
        [range] => {
            fields.insert(CONTENT_TYPE, content_type);
            fields.insert(CONTENT_RANGE, header(content_range(range, size))?);
            VecDeque::from([file_part(range)])
        }
        ranges => {
            // The tag is made of the time of the file's last change, so no file can hold its own.
            let multipart = Multipart { size, content_type: Some(&content_type), boundary: tag };
            fields.insert(CONTENT_TYPE, header(multipart.media_type())?);
            multipart.parts(ranges, file_part)
        }
    };
    fields.insert(CONTENT_LENGTH, parts.iter().map(Part::length).sum::<u64>().into());
    Ok((response, parts))
}

fn file_part(range: &Range<u64>) -> Part {
    Part::File { offset: range.start, length: range.end - range.start }
}

/// By the name alone. Text is UTF-8 unless it says otherwise itself.
pub(super) fn content_type(name: &str) -> HeaderValue {
    let media = mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream");
    let is_text = media.starts_with("text/") || matches!(media, "application/javascript" | "image/svg+xml");
    match is_text.then(|| HeaderValue::try_from(format!("{media}; charset=utf-8"))) {
        Some(Ok(with_charset)) => with_charset,
        _ => HeaderValue::from_static(media),
    }
}

/// Small bodies are read at once, from memory where they are there.
async fn body(file: ServedFile, parts: VecDeque<Part>) -> Result<Body, Problem> {
    let file = Arc::new(file.file);
    let is_one_piece = matches!(parts.iter().next(), Some(Part::File { .. })) && parts.len() == 1;
    match parts.front() {
        None => Ok(Body::Empty),
        Some(&Part::File { offset, length }) if is_one_piece && length <= SMALL => {
            let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
            if positioned::read_at_once(&file, &mut piece, offset) == Some(piece.len()) {
                return Ok(Body::Full(piece.into()));
            }
            Ok(Body::Full(read_small(file, offset, length).await?))
        }
        Some(_) => Ok(Body::File(FileParts { file, parts, seals: None })),
    }
}

async fn read_small(file: Arc<File>, offset: u64, length: u64) -> Result<Bytes, RootError> {
    blocking(move || read_piece(&file, offset, length).map_err(RootError::Io)).await
}

fn header(text: String) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(text).map_err(|error| Problem::Inner(error.to_string()))
}

/// Why there is no file in the answer.
enum Problem {
    Malformed,
    NotFound,
    Method,
    StrictMethod,
    StrictDate,
    Precondition,
    Range {
        size: u64,
    },
    Busy,
    /// For the log only.
    Inner(String),
}

impl From<BadTarget> for Problem {
    fn from(bad: BadTarget) -> Self {
        match bad {
            BadTarget::Malformed => Self::Malformed,
            BadTarget::NoName => Self::NotFound,
        }
    }
}

impl From<RootError> for Problem {
    fn from(error: RootError) -> Self {
        match error {
            RootError::NotFound { reason } => {
                tracing::debug!(%reason, "not served");
                Self::NotFound
            }
            RootError::Denied => {
                tracing::debug!(reason = %error, "not served");
                Self::NotFound
            }
            RootError::TooManyFiles
            | RootError::Elsewhere
            | RootError::Leased
            | RootError::Hung
            | RootError::Busy
            | RootError::Abandoned => {
                tracing::warn!("{error}");
                Self::Busy
            }
            RootError::Io(_) => Self::Inner(error.to_string()),
        }
    }
}

impl Problem {
    fn response(self, form: Form) -> Response<Body> {
        let (status, detail) = match &self {
            Self::Malformed => {
                (StatusCode::BAD_REQUEST, "The path holds a % without two hexadecimal digits.")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "There is no such file here."),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "Files can be read with GET and HEAD only."),
            Self::StrictMethod => (StatusCode::BAD_REQUEST, "This server knows GET and HEAD only."),
            Self::StrictDate => (StatusCode::BAD_REQUEST, "The date in If-Modified-Since cannot be read."),
            Self::Precondition => (StatusCode::PRECONDITION_FAILED, conditional::FAILED),
            Self::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, range::UNSATISFIABLE),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "This server is busy; try again in a moment."),
            Self::Inner(reason) => {
                tracing::error!(reason, "a request failed inside");
                (StatusCode::INTERNAL_SERVER_ERROR, "This server failed; its log says why.")
            }
        };
        let mut response = error_page::response(status, detail, form);
        let fields = response.headers_mut();
        match self {
            Self::Method => drop(fields.insert(ALLOW, HeaderValue::from_static("GET, HEAD"))),
            Self::Busy => drop(fields.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
            Self::Range { size } => {
                if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
                    fields.insert(CONTENT_RANGE, range);
                }
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_come_from_names() {
        for (name, expected) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.TXT", "text/plain; charset=utf-8"),
            ("a.png", "image/png"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.b/c", "application/octet-stream"),
            ("", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), expected, "{name}");
        }
    }
}

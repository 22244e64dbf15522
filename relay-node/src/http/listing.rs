//! A directory's names, as a plain page or as JSON, with memory bounded by the page.

use super::body::Body;
use super::date;
use super::error_page::Form;
use super::page::{self, Escaped};
use super::target::{encode_component, encode_path, readable};
use super::{HttpFace, blocking};
use crate::root::{DocumentRoot, EntryKind, ListEntry, ListQuery, MAX_LIST_PAGE, RootError};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use http::{Response, Uri};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write;

/// The largest directory that is sorted by size or time. Larger ones come by name, a page at a time, in every case.
const MAX_SORTED: usize = 10_000;

/// What the query part of the address asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    sort: Sort,
    is_descending: bool,
    after: Option<Vec<u8>>,
    format: Option<Form>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    Name,
    Size,
    Time,
}

/// A directory, or a page of it.
struct Listing {
    directory: Vec<u8>,
    entries: Vec<ListEntry>,
    more: bool,
    not_offered: u64,
    sort: Sort,
    is_descending: bool,
    /// What every link to another page or order of this listing must repeat.
    format: Option<Form>,
}

/// Whether the address asks for the listing by its format, as one must where a directory has an index.
pub(super) fn is_asked_for(uri: &Uri) -> bool {
    Query::read(uri.query().unwrap_or_default()).format.is_some()
}

/// Answers with the listing of a directory that exists.
pub(super) async fn answer(
    face: &HttpFace,
    directory: &[u8],
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response<Body>, RootError> {
    let query = Query::read(uri.query().unwrap_or_default());
    let form = query.format.unwrap_or_else(|| Form::accepted(headers));
    let (root, directory) = (face.root.clone(), directory.to_owned());
    let page = blocking(move || {
        let listing = Listing::read(&root, directory, &query)?;
        Ok(match form {
            Form::Html => listing.html(),
            Form::Json => listing.json(),
        })
    })
    .await?;
    let mut response = Response::new(Body::Empty);
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, form.content_type());
    fields.insert(CONTENT_LENGTH, page.len().into());
    fields.insert(VARY, HeaderValue::from_static("accept"));
    *response.body_mut() = Body::Full(Bytes::from(page));
    Ok(response)
}

impl Query {
    fn read(text: &str) -> Self {
        let mut query = Self::default();
        for (key, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            match (key, value) {
                ("sort", "size") => query.sort = Sort::Size,
                ("sort", "time") => query.sort = Sort::Time,
                ("order", "desc") => query.is_descending = true,
                ("format", "html") => query.format = Some(Form::Html),
                ("format", "json") => query.format = Some(Form::Json),
                ("after", name) => query.after = Some(percent_decode_str(name).collect()),
                _ => {}
            }
        }
        query
    }
}

impl Listing {
    fn read(root: &DocumentRoot, directory: Vec<u8>, query: &Query) -> Result<Self, RootError> {
        let prefix = if directory.is_empty() { Vec::new() } else { [&*directory, b"/"].concat() };
        let first = query.after.as_ref().map(|name| [&*prefix, name].concat());
        let of_one =
            ListQuery { prefix: &prefix, limit: MAX_LIST_PAGE, any_bytes: true, ..ListQuery::default() };
        let mut listing = Self {
            directory,
            format: query.format,
            entries: Vec::new(),
            more: true,
            not_offered: 0,
            sort: Sort::Name,
            is_descending: false,
        };
        let is_sorted = query.after.is_none() && (query.sort != Sort::Name || query.is_descending);
        let limit = if is_sorted { MAX_SORTED } else { MAX_LIST_PAGE };
        while listing.more && listing.entries.len() < limit {
            let after = listing.entries.last().map(|entry| entry.name.as_slice()).or(first.as_deref());
            let page = root.list(ListQuery { after, ..of_one })?;
            listing.more = page.more;
            listing.not_offered += page.not_offered;
            listing.entries.extend(page.entries);
        }
        if is_sorted && listing.more {
            listing.entries.truncate(MAX_LIST_PAGE);
        } else if is_sorted {
            listing.sort(query);
        }
        Ok(listing)
    }

    fn sort(&mut self, query: &Query) {
        (self.sort, self.is_descending) = (query.sort, query.is_descending);
        // Both are stable, so that equal ones stay in the order of their names.
        match query.sort {
            Sort::Name => {}
            Sort::Size => self.entries.sort_by_key(|entry| entry.size),
            Sort::Time => self.entries.sort_by_key(|entry| entry.modified),
        }
        if query.is_descending {
            self.entries.reverse();
        }
    }

    /// The name within the directory.
    fn short<'a>(&self, entry: &'a ListEntry) -> &'a [u8] {
        let name = entry.name.get(self.directory.len()..).unwrap_or_default();
        name.strip_prefix(b"/").unwrap_or(name)
    }

    fn html(&self) -> String {
        let path = format!("/{}", readable(&self.directory));
        let mut page = page::head(&path);
        page.push_str("\n<table><thead><tr>");
        for (column, key, title) in [
            (Sort::Name, "name", "Name"),
            (Sort::Size, "size", "Bytes"),
            (Sort::Time, "time", "Modified (UTC)"),
        ] {
            self.heading(&mut page, column, key, title);
        }
        page.push_str("</tr></thead>\n<tbody>\n");
        if !self.directory.is_empty() {
            page.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
        }
        for entry in &self.entries {
            self.row(&mut page, entry);
        }
        page.push_str("</tbody></table>\n");
        self.notes(&mut page);
        page.push_str(page::END);
        page
    }

    fn heading(&self, page: &mut String, column: Sort, key: &str, title: &str) {
        let is_current = column == self.sort;
        let order = if is_current && !self.is_descending { "desc" } else { "asc" };
        let state = match (is_current, self.is_descending) {
            (false, _) => "none",
            (true, false) => "ascending",
            (true, true) => "descending",
        };
        let _ = write!(
            page,
            "<th scope=\"col\" aria-sort=\"{state}\"><a href=\"?sort={key}&amp;order={order}{}\">{title}</a></th>",
            self.kept_format()
        );
    }

    fn kept_format(&self) -> &'static str {
        if self.format.is_some() { "&amp;format=html" } else { "" }
    }

    fn row(&self, page: &mut String, entry: &ListEntry) {
        let name = self.short(entry);
        let link = encode_component(name);
        let (slash, size) = match entry.kind {
            EntryKind::Directory => ("/", String::new()),
            EntryKind::File => ("", entry.size.to_string()),
        };
        let time = date::rfc_3339(date::at(entry.modified.0));
        let (day, minute) = (time.get(..10).unwrap_or_default(), time.get(11..16).unwrap_or_default());
        // "./" keeps a name with a colon from being read as a scheme.
        let _ = writeln!(
            page,
            "<tr><td><a href=\"./{link}{slash}\">{}{slash}</a></td><td>{size}</td><td>{day} {minute}</td></tr>",
            Escaped(&readable(name))
        );
    }

    fn notes(&self, page: &mut String) {
        if self.not_offered > 0 {
            let _ = writeln!(page, "<p>{} more cannot be named in an address here.</p>", self.not_offered);
        }
        if let Some(last) = self.entries.last().filter(|_| self.more) {
            let _ = writeln!(
                page,
                "<p><a href=\"?after={}{}\">Next page</a></p>",
                encode_component(self.short(last)),
                self.kept_format()
            );
        }
    }

    fn json(&self) -> String {
        let path = encode_path(&self.directory);
        let entries = self
            .entries
            .iter()
            .map(|entry| JsonEntry {
                name: readable(self.short(entry)),
                kind: match entry.kind {
                    EntryKind::File => "file",
                    EntryKind::Directory => "directory",
                },
                size: (entry.kind == EntryKind::File).then_some(entry.size),
                modified: date::rfc_3339(date::at(entry.modified.0)),
                href: match entry.kind {
                    EntryKind::File => encode_path(&entry.name),
                    EntryKind::Directory => format!("{}/", encode_path(&entry.name)),
                },
            })
            .collect();
        let next = self.entries.last().filter(|_| self.more);
        let page = JsonListing {
            path: format!("{path}/"),
            entries,
            not_offered: self.not_offered,
            next: next
                .map(|last| format!("{path}/?format=json&after={}", encode_component(self.short(last)))),
        };
        let mut text = serde_json::to_string(&page).unwrap_or_default();
        text.push('\n');
        text
    }
}

#[derive(Serialize)]
struct JsonListing<'a> {
    path: String,
    entries: Vec<JsonEntry<'a>>,
    not_offered: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct JsonEntry<'a> {
    name: Cow<'a, str>,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    modified: String,
    href: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_query() {
        let query = Query::read("sort=size&order=desc&after=a%20b&format=json&x=y&z");
        let expected = Query {
            sort: Sort::Size,
            is_descending: true,
            after: Some("a b".into()),
            format: Some(Form::Json),
        };
        assert_eq!(query, expected);
        assert_eq!(Query::read(""), Query::default());
        assert_eq!(Query::read("sort=x&after=%ff"), Query { after: Some(vec![0xff]), ..Query::default() });
    }
}

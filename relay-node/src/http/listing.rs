//! A directory's names, as a plain page or as JSON, with memory bounded by the page.

use super::HttpFace;
use super::body::Body;
use super::date;
use super::error_page::Form;
use super::page::{self, Escaped};
use super::target::{encode_component, encode_path, readable};
use crate::root::{DocumentRoot, EntryKind, ListEntry, ListPage, ListQuery, MAX_LIST_PAGE, RootError};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use http::{Response, Uri};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

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
    page: ListPage,
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
    peer: IpAddr,
) -> Result<Response<Body>, RootError> {
    let query = Query::read(uri.query().unwrap_or_default());
    let form = query.format.unwrap_or_else(|| Form::accepted(headers));
    let listing = Listing::read(&face.root, directory, &query, peer).await?;
    let page = match form {
        Form::Html => listing.html(),
        Form::Json => listing.json(),
    };
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
    async fn read(
        root: &Arc<DocumentRoot>,
        directory: &[u8],
        query: &Query,
        peer: IpAddr,
    ) -> Result<Self, RootError> {
        let prefix = if directory.is_empty() { Vec::new() } else { [directory, b"/"].concat() };
        let of_one =
            ListQuery { prefix: &prefix, limit: MAX_LIST_PAGE, any_bytes: true, ..ListQuery::default() };
        let first = query.after.as_ref().map(|name| [&*prefix, name].concat());
        let first = ListQuery { after: first.as_deref(), ..of_one };
        let page = root.list_in_turn(first, Some(peer), |_| true).await?;
        let listing = |page| Self {
            directory: directory.to_owned(),
            page,
            format: query.format,
            sort: Sort::Name,
            is_descending: false,
        };
        if query.after.is_some() || query.sort == Sort::Name && !query.is_descending {
            return Ok(listing(page));
        }
        let mut all = page.clone();
        while all.entries.len() < MAX_SORTED {
            let Some(next) = all.next.take() else { break };
            let query = ListQuery { after: Some(&next), ..of_one };
            let more = root.list_in_turn(query, Some(peer), |_| true).await?;
            all.entries.extend(more.entries);
            all.next = more.next;
            all.not_offered += more.not_offered;
            all.links += more.links;
            all.unreadable += more.unreadable;
        }
        if all.next.is_some() {
            return Ok(listing(page));
        }
        let mut listing = listing(all);
        listing.sort(query);
        Ok(listing)
    }

    fn sort(&mut self, query: &Query) {
        (self.sort, self.is_descending) = (query.sort, query.is_descending);
        // Both are stable, so that equal ones stay in the order of their names.
        match query.sort {
            Sort::Name => {}
            Sort::Size => self.page.entries.sort_by_key(|entry| entry.size),
            Sort::Time => self.page.entries.sort_by_key(|entry| entry.modified),
        }
        if query.is_descending {
            self.page.entries.reverse();
        }
    }

    /// A name within the directory.
    fn short<'a>(&self, name: &'a [u8]) -> &'a [u8] {
        let name = name.get(self.directory.len()..).unwrap_or_default();
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
        for entry in &self.page.entries {
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
        let name = self.short(&entry.name);
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
        for (count, what) in [
            (self.page.not_offered, "more cannot be named in an address here."),
            (self.page.links, "links lead nowhere, or out of what is served here."),
            (self.page.unreadable, "cannot be read here."),
        ] {
            if count > 0 {
                let _ = writeln!(page, "<p>{count} {what}</p>");
            }
        }
        if let Some(last) = &self.page.next {
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
            .page
            .entries
            .iter()
            .map(|entry| JsonEntry {
                name: readable(self.short(&entry.name)),
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
        let page = JsonListing {
            path: format!("{path}/"),
            entries,
            not_offered: self.page.not_offered,
            links: self.page.links,
            unreadable: self.page.unreadable,
            next: (self.page.next.as_ref())
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
    links: u64,
    unreadable: u64,
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

//! What RFC 9111 says about one stored response: may it be kept, is it fresh, may it be used although it is stale.
//!
//! No clock and no files here: every question brings its time along, so that tests can ask about next year.
//!
//! The rules themselves are http-cache-semantics'. It is handed cleaned fields (one `Cache-Control` line in lower case, the
//! three date formats as one, an `Age` that already holds the time on the way, RFC 9111 §4.2.3) and never what a peer sent as it came:
//! raw fields could overflow its clock, and it neither knows upper-case directives nor RFC 850 dates. Its fields for the
//! response are not used, for they keep only one line of each name.

use super::directives::{
    Directives, LONGEST_SECONDS, delta_seconds, is_token, members, split_outside_quotes, trimmed,
};
use http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AGE, AUTHORIZATION, CACHE_CONTROL, DATE,
    EXPIRES, LAST_MODIFIED, PRAGMA, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};
use std::time::{Duration, SystemTime};

/// The longest time for which a response without explicit times counts as fresh (RFC 9111 §4.2.2 leaves it to the cache).
pub const LONGEST_HEURISTIC: Duration = Duration::from_secs(24 * 3600);

/// How many request fields a `Vary` may name before the response is no longer kept.
pub const MOST_VARY_FIELDS: usize = 16;

/// Request fields that are lists of members with optional white space around them (RFC 9110 §12.5).
const LISTS: [HeaderName; 4] = [ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE];

/// A clock that is set back by less than this makes no response look much younger than it is.
const CLOCK_STEP: Duration = Duration::from_secs(60);

/// When a response was asked for and when its head was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The request went out.
    pub sent: SystemTime,
    /// The response's head arrived.
    pub received: SystemTime,
}

/// The rules for one response.
#[derive(Debug, Clone)]
pub struct Rules {
    policy: CachePolicy,
    storable: bool,
    /// The moment at which the response's age was zero.
    born: SystemTime,
    received: SystemTime,
    lifetime: Duration,
    needs_validation: bool,
    never_stale: bool,
    while_revalidate: Duration,
    if_error: Option<Duration>,
}

/// What to do with a stored response for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Use it.
    Fresh,
    /// Use it, and ask the origin behind it (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Ask the origin first, because it is stale.
    Stale,
    /// Ask the origin first, because the client wants it so.
    Refused,
}

impl Rules {
    /// The rules for the response with `status` and `response` fields to a GET with the `request` fields.
    pub fn new(request: &HeaderMap, status: StatusCode, response: &HeaderMap, times: Times) -> Self {
        let said = Directives::of(response);
        let born = birth(response, times);
        let policy = policy(request, status, response, &said, born, times);
        let explicit = said.has("max-age") || said.has("s-maxage") || response.contains_key(EXPIRES);
        let lifetime = match policy.time_to_live(born) {
            lifetime if explicit => lifetime,
            lifetime => lifetime.min(LONGEST_HEURISTIC),
        };
        let needs_validation = said.has("no-cache") || pragma_no_cache(response);
        Self {
            storable: policy.is_storable() && !said.is_unreadable() && vary_is_bearable(response),
            born,
            received: times.received,
            lifetime,
            needs_validation,
            // RFC 9111 §5.2.2.10: s-maxage means proxy-revalidate, too.
            never_stale: needs_validation
                || ["must-revalidate", "proxy-revalidate", "s-maxage"].iter().any(|name| said.has(name)),
            while_revalidate: Duration::from_secs(said.seconds("stale-while-revalidate").unwrap_or(0)),
            if_error: said.seconds("stale-if-error").map(Duration::from_secs),
            policy,
        }
    }

    /// Whether the response may be kept at all (RFC 9111 §3).
    pub fn is_storable(&self) -> bool {
        self.storable
    }

    /// The response's age at `now` (RFC 9111 §4.2.3). When the clock was set back to before the response arrived, its age is
    /// not known, and it counts as old: otherwise it would stay fresh until the clock is there again, for years perhaps.
    pub fn age(&self, now: SystemTime) -> Duration {
        if now.checked_add(CLOCK_STEP).is_some_and(|now| now < self.received) {
            return Duration::from_secs(LONGEST_SECONDS);
        }
        now.duration_since(self.born).unwrap_or_default()
    }

    /// For how long the response is fresh still; negative seconds say for how long it has been stale.
    pub fn seconds_to_live(&self, now: SystemTime) -> i64 {
        // Both are far below 2^63 seconds.
        self.lifetime.as_secs() as i64 - self.age(now).as_secs() as i64
    }

    /// Whether it could be used, fresh or stale, without the origin's confirmation.
    pub fn is_ever_usable(&self) -> bool {
        let stale = !self.never_stale && (!self.while_revalidate.is_zero() || self.if_error.is_some());
        stale || (!self.needs_validation && self.is_fresh(self.received))
    }

    /// What to do with the response for a request with these fields.
    pub fn verdict(&self, request: &HeaderMap, now: SystemTime) -> Verdict {
        let asks = request.contains_key(CACHE_CONTROL) || request.contains_key(PRAGMA);
        if self.is_fresh(now) && !self.needs_validation && !asks {
            return Verdict::Fresh;
        }
        let asked = Directives::of_request(request);
        if asks && self.client_accepts(&asked, request, now) {
            return Verdict::Fresh;
        }
        if asks && refuses_stale(&asked, request) {
            return Verdict::Refused;
        }
        let stale_for = self.stale_for(now);
        if !self.never_stale && !stale_for.is_zero() && stale_for <= self.while_revalidate {
            return Verdict::StaleWhileRevalidate;
        }
        if self.is_fresh(now) && !self.needs_validation { Verdict::Refused } else { Verdict::Stale }
    }

    /// Whether the response may stand in when the origin cannot be reached or answers with 500, 502, 503 or 504
    /// (RFC 5861 §4). Either side can allow it; the origin can forbid it.
    pub fn may_stand_in(&self, request: &HeaderMap, now: SystemTime) -> bool {
        let asked = Directives::of_request(request).seconds("stale-if-error").map(Duration::from_secs);
        let Some(allowed) = asked.max(self.if_error) else { return false };
        !self.never_stale && self.stale_for(now) <= allowed
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        self.age(now) < self.lifetime
    }

    fn stale_for(&self, now: SystemTime) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    fn client_accepts(&self, asked: &Directives, request: &HeaderMap, now: SystemTime) -> bool {
        let mut asked = asked.clone();
        // max-stale cannot overrule an origin that forbids stale use (RFC 9111 §4.2.4).
        if self.never_stale {
            asked.forget("max-stale");
        }
        if !self.is_fresh(now) && !asked.has("max-stale") {
            return false;
        }
        let mut fields = HeaderMap::new();
        if let Ok(line) = HeaderValue::from_str(&asked.to_line())
            && !line.is_empty()
        {
            fields.insert(CACHE_CONTROL, line);
        } else if let Some(pragma) = request.get(PRAGMA) {
            fields.insert(PRAGMA, pragma.clone());
        }
        matches!(self.policy.before_request(&plain_request(fields), now), BeforeRequest::Fresh(_))
    }
}

/// The request fields that chose this response (RFC 9111 §4.1), each with what it said, lines joined.
pub fn selecting_fields(request: &HeaderMap, response: &HeaderMap) -> Vec<(HeaderName, Option<String>)> {
    let mut selecting: Vec<(HeaderName, Option<String>)> = Vec::new();
    for name in members(response, VARY) {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && selecting.iter().all(|(have, _)| *have != name)
        {
            let said = said(request, &name);
            selecting.push((name, said));
        }
    }
    selecting
}

/// Whether a request says the same as the one that these fields were taken from.
pub fn selects(selecting: &[(HeaderName, Option<String>)], request: &HeaderMap) -> bool {
    selecting.iter().all(|(name, value)| said(request, name) == *value)
}

/// Whether two requests say the same in one field.
pub fn said_the_same(one: &HeaderMap, other: &HeaderMap, name: &HeaderName) -> bool {
    said(one, name) == said(other, name)
}

/// Its bytes as the characters of the same numbers. White space is left out only where it is known to mean nothing.
fn said(request: &HeaderMap, name: &HeaderName) -> Option<String> {
    if !request.contains_key(name) {
        return None;
    }
    let lines = request.get_all(name).into_iter().map(characters);
    if LISTS.contains(name) {
        let lines: Vec<String> = lines.collect();
        let members: Vec<&str> =
            lines.iter().flat_map(|line| split_outside_quotes(line)).map(trimmed).collect();
        return Some(members.join(","));
    }
    // No line holds one of its own.
    Some(lines.collect::<Vec<_>>().join("\n"))
}

/// The bytes of a field's value as the characters U+0000 to U+00FF of the same numbers.
pub fn characters(value: &HeaderValue) -> String {
    value.as_bytes().iter().map(|byte| char::from(*byte)).collect()
}

fn vary_is_bearable(response: &HeaderMap) -> bool {
    let readable = response.get_all(VARY).into_iter().all(|line| line.to_str().is_ok());
    let names = members(response, VARY);
    // What is no field's name says, as "*" does, that it is not known what the response was chosen by.
    let named = names.iter().all(|name| *name != "*" && is_token(name));
    readable && names.len() <= MOST_VARY_FIELDS && named
}

fn refuses_stale(asked: &Directives, request: &HeaderMap) -> bool {
    asked.has("no-cache")
        || asked.has("max-age")
        || asked.has("min-fresh")
        || (!request.contains_key(CACHE_CONTROL) && request.contains_key(PRAGMA))
}

/// RFC 9111 §4.2.3: the moment from which the age counts.
fn birth(response: &HeaderMap, times: Times) -> SystemTime {
    let delay = times.received.duration_since(times.sent).unwrap_or_default();
    let claimed = members(response, AGE).first().and_then(|age| delta_seconds(age)).unwrap_or(0);
    let corrected = Duration::from_secs(claimed).saturating_add(delay);
    let apparent =
        date(response, &DATE).and_then(|date| times.received.duration_since(date).ok()).unwrap_or_default();
    let apparent = apparent.min(Duration::from_secs(LONGEST_SECONDS));
    times.received.checked_sub(corrected.max(apparent)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn policy(
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    said: &Directives,
    born: SystemTime,
    times: Times,
) -> CachePolicy {
    let mut asked = HeaderMap::new();
    if Directives::of_request(request).has("no-store") {
        asked.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if request.contains_key(AUTHORIZATION) {
        asked.insert(AUTHORIZATION, HeaderValue::from_static("-"));
    }
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.headers_mut() = cleaned_response(status, response, said, times);
    let options = CacheOptions { shared: true, ..CacheOptions::default() };
    CachePolicy::new_options(&plain_request(asked), &answer, born, options)
}

fn plain_request(fields: HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.headers_mut() = fields;
    request
}

/// The fields that the rules look at, in one form.
fn cleaned_response(status: StatusCode, response: &HeaderMap, said: &Directives, times: Times) -> HeaderMap {
    let mut fields = HeaderMap::new();
    let mut said = said.clone();
    // For the crate proxy-revalidate means "never fresh"; what it does mean is kept in `never_stale`.
    said.forget("proxy-revalidate");
    // And immutable means fresh for a day, while it says nothing of how long (RFC 8246 §2).
    said.forget("immutable");
    obey_must_understand(status, &mut said);
    if pragma_no_cache(response) {
        said.demand("no-cache");
    }
    if let Ok(line) = HeaderValue::from_str(&said.to_line())
        && !line.is_empty()
    {
        fields.insert(CACHE_CONTROL, line);
    }
    if response.contains_key(SET_COOKIE) {
        fields.insert(SET_COOKIE, HeaderValue::from_static("-"));
        // A cookie is one client's: without an explicit `public` it must reach nobody else.
        if !said.has("public") {
            fields.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
        }
    }
    put_date(&mut fields, DATE, date(response, &DATE).unwrap_or(times.received));
    if let Some(modified) = date(response, &LAST_MODIFIED) {
        put_date(&mut fields, LAST_MODIFIED, modified);
    }
    match date(response, &EXPIRES) {
        Some(expires) => put_date(&mut fields, EXPIRES, expires),
        None if response.contains_key(EXPIRES) => drop(fields.insert(EXPIRES, HeaderValue::from_static("0"))),
        None => {}
    }
    fields
}

/// RFC 9111 §5.2.2.3: who understands the status need not heed the no-store beside must-understand; others keep nothing.
fn obey_must_understand(status: StatusCode, said: &mut Directives) {
    if !said.has("must-understand") {
        return;
    }
    if matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 302 | 303 | 307 | 308 | 404 | 405 | 410 | 414 | 501
    ) {
        said.forget("no-store");
    } else {
        said.demand("no-store");
    }
}

/// HTTP/1.0's way to say no-cache; it counts only where `Cache-Control` says nothing.
fn pragma_no_cache(response: &HeaderMap) -> bool {
    !response.contains_key(CACHE_CONTROL)
        && members(response, PRAGMA).iter().any(|member| member.eq_ignore_ascii_case("no-cache"))
}

fn date(fields: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = fields.get_all(name).into_iter();
    let date = lines.next()?.to_str().ok()?;
    if lines.next().is_some() {
        return None;
    }
    httpdate::parse_http_date(date).ok()
}

fn put_date(fields: &mut HeaderMap, name: HeaderName, date: SystemTime) {
    if let Ok(value) = HeaderValue::from_str(&httpdate::fmt_http_date(date)) {
        fields.insert(name, value);
    }
}

#[cfg(test)]
mod tests;

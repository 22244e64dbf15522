//! What a proxy takes out of a message's fields and what it adds (RFC 9110 §7.6, RFC 7239).

use super::forwarded::{Sender, is_claim};
use super::list_fields::{append_to_list, members};
use super::number::number;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{Method, StatusCode, Version};

/// Through how many proxies a request may have come.
pub const MOST_HOPS: usize = 32;

const MAX_FORWARDS: HeaderName = HeaderName::from_static("max-forwards");

/// Fields that are for one connection only, whether or not `Connection` names them.
const OF_THE_CONNECTION: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether, and how, a request came back to the proxy that is to send it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// It did not.
    None,
    /// Its `Via` names this very process.
    Itself,
    /// It has come through more than [`MOST_HOPS`] proxies.
    TooManyHops,
}

/// Removes what is for one connection only (RFC 9110 §7.6.1).
pub fn remove_connection_fields(fields: &mut HeaderMap) {
    let named: Vec<String> = members(fields, &CONNECTION).map(str::to_owned).collect();
    for name in named {
        // Naming one of these takes nothing away but sense; who does it means mischief.
        if !name.eq_ignore_ascii_case("host") && !name.eq_ignore_ascii_case("content-length") {
            fields.remove(name);
        }
    }
    for name in &OF_THE_CONNECTION {
        fields.remove(name);
    }
}

/// Removes what the next server may read as another field than this proxy did.
///
/// CGI and what came of it (WSGI, PHP, Rack) know fields as variables in which `-` and `_`, for some servers all that is no letter
/// and no digit, are one character (RFC 3875 §4.1.18). Whoever wrote such a name means a field that he could not set by its own.
fn remove_lookalikes(fields: &mut HeaderMap) {
    let is_odd = |byte: u8| byte != b'-' && !byte.is_ascii_alphanumeric();
    let odd = fields.keys().filter(|name| name.as_str().bytes().any(is_odd));
    let lookalikes: Vec<HeaderName> = odd.filter(|name| looks_like_ours(name.as_str())).cloned().collect();
    for name in lookalikes {
        fields.remove(name);
    }
}

fn looks_like_ours(name: &str) -> bool {
    let plain = name.replace(|character: char| !character.is_ascii_alphanumeric(), "-");
    let is = |ours: &HeaderName| ours.as_str() == plain;
    // The proxy's own fields, those that tell a message's end, and the conditions, which the cache judges.
    is_claim(&plain)
        || plain.starts_with("if-")
        || is(&CONTENT_LENGTH)
        || is(&MAX_FORWARDS)
        || OF_THE_CONNECTION.iter().any(is)
}

/// Prepares a request's fields for the next server.
pub fn prepare_request(fields: &mut HeaderMap, version: Version, pseudonym: &str, sender: Sender) {
    remove_connection_fields(fields);
    // The body's own length is written anew, and the wait for 100 (Continue) is over by now.
    fields.remove(CONTENT_LENGTH);
    fields.remove(EXPECT);
    remove_lookalikes(fields);
    add_via(fields, version, pseudonym);
    sender.tell(fields);
}

/// Refuses an answer whose end another might see elsewhere (RFC 9112 §6.3), or that is none; the error says why.
///
/// hyper reads what it can; an answer to HEAD it does not look at, and of two lengths it leaves the wrong one in the fields.
pub fn check_answer(status: StatusCode, fields: &mut HeaderMap) -> Result<(), &'static str> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("it changes to another protocol, which nobody asked for");
    }
    let mut lengths = fields.get_all(CONTENT_LENGTH).into_iter();
    let length = lengths.next().map(HeaderValue::as_bytes);
    if length.is_some_and(|length| length.is_empty() || !length.iter().all(u8::is_ascii_digit)) {
        return Err("the length of its answer is not a number");
    }
    if lengths.any(|other| Some(other.as_bytes()) != length) {
        return Err("its answer has several lengths");
    }
    let mut codings = fields.get_all(TRANSFER_ENCODING).into_iter();
    if let Some(coding) = codings.next() {
        if length.is_some() {
            return Err("its answer has both a Content-Length and a Transfer-Encoding");
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("its answer has a Transfer-Encoding that was not offered to it");
        }
    }
    match fields.get(CONTENT_LENGTH).cloned() {
        // The same length twice counts once.
        Some(length) if status != StatusCode::NO_CONTENT => drop(fields.insert(CONTENT_LENGTH, length)),
        _ => drop(fields.remove(CONTENT_LENGTH)),
    }
    Ok(())
}

/// Adds this proxy to `Via` (RFC 9110 §7.6.3).
pub fn add_via(fields: &mut HeaderMap, version: Version, pseudonym: &str) {
    let version = if version == Version::HTTP_10 { "1.0" } else { "1.1" };
    append_to_list(fields, VIA, &format!("{version} {pseudonym}"));
}

/// Whether a request has been here before, or too many times elsewhere.
pub fn noticed_loop(fields: &HeaderMap, pseudonym: &str) -> Loop {
    let mut hops = 0;
    for member in members(fields, &VIA) {
        hops += 1;
        if member.split_ascii_whitespace().nth(1).is_some_and(|by| by.eq_ignore_ascii_case(pseudonym)) {
            return Loop::Itself;
        }
    }
    if hops >= MOST_HOPS { Loop::TooManyHops } else { Loop::None }
}

/// RFC 9110 §7.6.2: counts `Max-Forwards` down; `false` if the request ends here.
pub fn may_go_on(method: &Method, fields: &mut HeaderMap) -> bool {
    if *method != Method::OPTIONS && *method != Method::TRACE {
        return true;
    }
    let left = fields.get(MAX_FORWARDS).and_then(|left| number(left.to_str().ok()?.trim()));
    match left {
        Some(0) => false,
        Some(left) => {
            fields.insert(MAX_FORWARDS, HeaderValue::from(left - 1));
            true
        }
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    #[test]
    fn what_is_for_one_connection_goes_no_further() {
        let mut fields = fields(&[
            ("connection", "close, X-Secret"),
            ("connection", "host, x-other, (bad name)"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("host", "a"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        remove_connection_fields(&mut fields);
        let mut left: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
    }

    #[test]
    fn a_request_says_where_it_came_through() {
        let mut asked = fields(&[("via", "1.0 a"), ("via", "1.1 b"), ("expect", "100-continue")]);
        let sender = Sender::new(Some("192.0.2.7".parse().unwrap()), &[], false);
        prepare_request(&mut asked, Version::HTTP_11, "me", sender);
        assert_eq!(asked["via"], "1.0 a, 1.1 b, 1.1 me");
        assert_eq!(asked["forwarded"], "for=192.0.2.7;proto=http");
        assert!(!asked.contains_key("expect"));
        let mut asked = HeaderMap::new();
        prepare_request(&mut asked, Version::HTTP_10, "me", sender);
        assert_eq!(asked["via"], "1.0 me");
    }

    #[test]
    fn what_others_would_take_for_the_proxys_own_fields_goes_no_further() {
        let trusted = ["192.0.2.7".parse().unwrap()];
        for trusted in [&[][..], &trusted] {
            let mut asked = fields(&[
                ("x_forwarded_host", "evil"),
                ("x-forwarded_for", "192.0.2.9"),
                ("x_forwarded-proto", "https"),
                ("x.forwarded.prefix", "/evil"),
                ("content_length", "5"),
                ("transfer_encoding", "chunked"),
                ("keep_alive", "x"),
                ("if_none_match", "*"),
                ("x_own", "1"),
                ("accept", "*/*"),
            ]);
            let sender = Sender::new(Some("192.0.2.7".parse().unwrap()), trusted, false);
            prepare_request(&mut asked, Version::HTTP_11, "me", sender);
            let mut left: Vec<_> = asked.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, ["accept", "forwarded", "via", "x-forwarded-for", "x-forwarded-proto", "x_own"]);
            assert_eq!(asked["x-forwarded-for"], "192.0.2.7");
        }
    }

    #[test]
    fn answers_with_one_end_only() {
        const LENGTH: (&str, &str) = ("content-length", "5");
        const CHUNKED: (&str, &str) = ("transfer-encoding", "Chunked");
        for (status, lines, good) in [
            (200, &[][..], true),
            (200, &[LENGTH], true),
            (200, &[LENGTH, LENGTH], true),
            (200, &[CHUNKED], true),
            (304, &[LENGTH], true),
            (200, &[LENGTH, CHUNKED], false),
            (200, &[LENGTH, ("content-length", "6")], false),
            (200, &[("content-length", "-1")], false),
            (200, &[("content-length", "+5")], false),
            (200, &[("content-length", "")], false),
            (200, &[("content-length", "5, 5")], false),
            (200, &[("transfer-encoding", "gzip, chunked")], false),
            (200, &[("transfer-encoding", "gzip"), CHUNKED], false),
            (200, &[("transfer-encoding", "identity")], false),
            (101, &[], false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(check_answer(status, &mut fields(lines)).is_ok(), good, "{status} {lines:?}");
        }
        let mut nothing = fields(&[LENGTH]);
        check_answer(StatusCode::NO_CONTENT, &mut nothing).unwrap();
        assert_eq!(nothing.get(CONTENT_LENGTH), None, "RFC 9110, 8.6");
        let mut twice = fields(&[LENGTH, LENGTH]);
        check_answer(StatusCode::OK, &mut twice).unwrap();
        assert_eq!(twice.get_all(CONTENT_LENGTH).iter().count(), 1);
    }

    #[test]
    fn loops_are_noticed() {
        assert_eq!(noticed_loop(&fields(&[("via", "1.1 a, 1.1 mee")]), "me"), Loop::None);
        assert_eq!(
            noticed_loop(&fields(&[("via", "1.1 a"), ("via", "1.1 ME (comment)")]), "me"),
            Loop::Itself
        );
        let mut many = HeaderMap::new();
        for _ in 0..MOST_HOPS {
            many.append(VIA, HeaderValue::from_static("1.1 x"));
        }
        assert_eq!(noticed_loop(&many, "me"), Loop::TooManyHops);
    }

    #[test]
    fn max_forwards_counts_down() {
        let mut asked = fields(&[("max-forwards", "1")]);
        assert!(may_go_on(&Method::OPTIONS, &mut asked));
        assert_eq!(asked["max-forwards"], "0");
        assert!(!may_go_on(&Method::OPTIONS, &mut asked));
        assert!(may_go_on(&Method::GET, &mut asked));
        let mut asked = fields(&[("max-forwards", "99999999999999999999")]);
        assert!(may_go_on(&Method::OPTIONS, &mut asked));
        assert_eq!(asked["max-forwards"], (u64::MAX - 1).to_string());
    }
}

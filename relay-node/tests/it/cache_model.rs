//! What RFC 9111 forbids a shared cache to answer with, said as plainly as can be: it is what the real cache is compared with.
//!
//! It knows no store and no waiting, only all answers that the origin ever gave, and says of one of them whether a cache may give it
//! to a request. It may be slow, and it must not share a line with the code that it judges.

use std::collections::BTreeMap;

/// A request as the origin sees it, or would.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whose it is: every request has another number.
    pub id: usize,
    pub path: String,
    /// What goes on of its fields, with what the proxy adds; names in lower case.
    pub fields: BTreeMap<String, String>,
    /// When it was sent: by the clock, in seconds, and as the test's own count of steps.
    pub clock: u64,
    pub step: usize,
}

/// An answer of the origin, which may be a 304 to a condition.
#[derive(Debug, Clone)]
pub struct Answered {
    pub to: Asked,
    pub control: &'static str,
    pub vary: Option<&'static str>,
    pub sets_cookie: bool,
    /// The answer that it confirms, if it is a 304.
    pub confirms: Option<usize>,
    /// By the test's count of steps: when the origin had the question at the latest, and when the client that had asked
    /// was seen to have all of the answer.
    pub asked: usize,
    pub arrived: Option<usize>,
    /// What the clock said then, and when the origin answered.
    pub sent: u64,
    pub clock: u64,
}

/// An unsafe request that has succeeded.
#[derive(Debug, Clone)]
pub struct Changed {
    pub path: String,
    /// When the origin answered it, and when its client knew.
    pub answered: usize,
    pub known: usize,
}

impl Asked {
    fn says(&self, directive: &str) -> bool {
        self.fields.get("cache-control").is_some_and(|said| has(said, directive))
    }
}

fn has(control: &str, directive: &str) -> bool {
    control.split(", ").any(|said| said == directive)
}

fn seconds(control: &str, name: &str) -> Option<u64> {
    control.split(", ").find_map(|said| said.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// Why a cache may not give this answer to another's request; `None` if it may.
pub fn forbids(answer: &Answered, asked: &Asked, all: &[Answered], changes: &[Changed]) -> Option<String> {
    let forbidden = |why: &str| Some(why.to_owned());
    let control = answer.control;
    // RFC 9111, 3: what may be stored at all.
    if has(control, "no-store") || has(control, "private") || answer.to.says("no-store") {
        return forbidden("it may not be stored");
    }
    if answer.sets_cookie && !has(control, "public") {
        return forbidden("it has another client's cookie");
    }
    let is_for_all = ["public", "must-revalidate"].iter().any(|directive| has(control, directive))
        || seconds(control, "s-maxage").is_some();
    if answer.to.fields.contains_key("authorization") && !is_for_all {
        return forbidden("it was asked for with credentials (3.5)");
    }
    // 4.1: what it was chosen by.
    if let Some(vary) = answer.vary {
        let of = |request: &Asked| request.fields.get(vary).cloned();
        if vary == "*" || of(&answer.to) != of(asked) {
            return Some(format!("it varies by {vary}"));
        }
    }
    // 4.2, 5.2.2.4: whether it is fresh.
    let clock = asked.clock.max(answer.clock);
    let age = clock - answer.sent;
    let lifetime = seconds(control, "s-maxage").or_else(|| seconds(control, "max-age")).unwrap_or(0);
    // RFC 5861, 3: or only a little stale.
    let usable = lifetime + seconds(control, "stale-while-revalidate").unwrap_or(0);
    if has(control, "no-cache") || age >= usable {
        return Some(format!("it must be confirmed: {control:?}, {age} s old"));
    }
    // 5.2.1: whether the client takes it.
    if asked.says("no-cache") {
        return forbidden("the client wants it from the origin");
    }
    if asked
        .fields
        .get("cache-control")
        .and_then(|said| seconds(said, "max-age"))
        .is_some_and(|most| age > most)
    {
        return forbidden("it is too old for the client");
    }
    // 4.4: whether it is from before a change that the client may know of.
    let is_outdated = |change: &Changed| {
        change.path == asked.path && change.known < asked.step && answer.asked < change.answered
    };
    if changes.iter().any(is_outdated) {
        return forbidden("it is from before a change");
    }
    // 4: of several the newest. (Which are several where they vary is more than this model wants to know.)
    let of_the_path = || all.iter().filter(|other| other.to.path == asked.path);
    if of_the_path().any(|other| other.vary.is_some()) {
        return None;
    }
    let is_newer = |other: &&Answered| {
        other.to.step > answer.asked && other.arrived.is_some_and(|arrived| arrived < asked.step)
    };
    let newer = of_the_path().filter(is_newer).find(|other| forbids(other, asked, &[], changes).is_none());
    newer.map(|newer| format!("{} had a newer one before", newer.to.id))
}

#[test]
fn the_model_knows_the_rules() {
    let request = |id, step, fields: &[(&str, &str)]| Asked {
        id,
        path: "/".to_owned(),
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        clock: 100,
        step,
    };
    let answer = |fields: &[(&str, &str)], control, vary, sets_cookie| Answered {
        to: request(0, 0, fields),
        control,
        vary,
        sets_cookie,
        confirms: None,
        asked: 0,
        arrived: Some(2),
        sent: 100,
        clock: 100,
    };
    let plain = request(9, 5, &[]);
    for (control, may) in [
        ("", false),
        ("max-age=60", true),
        ("max-age=0, s-maxage=60", true),
        ("max-age=0, must-revalidate", false),
        ("public, no-cache", false),
        ("no-store, max-age=60", false),
        ("private, max-age=60", false),
    ] {
        assert_eq!(forbids(&answer(&[], control, None, false), &plain, &[], &[]).is_none(), may, "{control}");
    }
    let fresh = answer(&[], "max-age=60", None, false);
    let may = |answer: &Answered, asked: &Asked| forbids(answer, asked, &[], &[]).is_none();
    assert!(!may(&answer(&[], "max-age=60", None, true), &plain));
    assert!(!may(&answer(&[("authorization", "x")], "max-age=60", None, false), &plain));
    assert!(may(&answer(&[("authorization", "x")], "public, max-age=60", None, false), &plain));
    assert!(!may(&answer(&[("cookie", "a")], "max-age=60", Some("cookie"), false), &plain));
    assert!(may(&answer(&[], "max-age=60", Some("cookie"), false), &plain));
    assert!(!may(&fresh, &request(9, 5, &[("cache-control", "no-cache")])));
    assert!(!may(&fresh, &Asked { clock: 160, ..plain.clone() }));
    let change = Changed { path: "/".to_owned(), answered: 3, known: 4 };
    assert!(forbids(&fresh, &plain, &[], &[change]).is_some());
    let newer = Answered { to: request(1, 1, &[]), ..fresh.clone() };
    assert!(forbids(&fresh, &plain, &[newer], &[]).is_some());
}

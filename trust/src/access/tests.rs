use super::*;
use crate::key::SecretKey;
use crate::token::Token;
use std::time::Duration;

const KEY: &str = "ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const OTHER_KEY: &str = "ed25519:PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw";

/// The example of the documents, whole.
const EXAMPLE: &str = r#"# Who may do what here.

[[who]]
name = "anna"                      # for logs and metrics
key = "ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
read = ["photos/", "docs/**"]
write = ["inbox/anna/"]
relay = ["pchost2:11000", "@home"]
register = ["home"]
expires = 2027-01-01T00:00:00Z
connections = 8                    # at once
rate = "20MiB/s"

# A friend, until we have moved.
[[who]]
name = "ben"
token = "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
read = ["films/*.mkv"]

[[who]]
name = "everybody"
anyone = true
read = ["public/"]
"#;

fn rules(text: &str) -> AccessRules {
    AccessRules::parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn at(text: &str) -> SystemTime {
    let time = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
    time.unwrap().into()
}

fn anna() -> Credentials {
    Credentials { key: Some(KEY.parse().unwrap()), token: None }
}

fn ben() -> Credentials {
    let hash = "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    Credentials { key: None, token: Some(hash.parse().unwrap()) }
}

fn hop(text: &str) -> Hop {
    text.parse().unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn each_may_what_the_rules_say_and_nothing_else() {
    let rules = rules(EXAMPLE);
    let now = at("2026-11-28T12:00:00Z");
    let anna = rules.caller(&anna(), now);
    assert_eq!((anna.name(), anna.is_known(), anna.denial()), ("anna", true, Denial::NotFound));
    assert!(anna.may_read("photos/1.jpg") && anna.may_read("docs/a/b") && anna.may_read("public/x"));
    assert!(!anna.may_read("films/a.mkv") && !anna.may_read("inbox/anna/x"));
    assert!(anna.may_write("inbox/anna/x") && !anna.may_write("inbox/ben/x") && !anna.may_write("photos/x"));
    assert!(anna.may_look_into("") && anna.may_look_into("photos") && !anna.may_look_into("films"));
    assert!(anna.may_relay_to_node("home") && !anna.may_relay_to_node("work"));
    assert!(anna.may_register("home") && !anna.may_register("work"));
    assert_eq!((anna.connections(), anna.rate()), (Some(8), Some(20 * 1024 * 1024)));

    let ben = rules.caller(&ben(), now);
    assert_eq!((ben.name(), ben.is_known()), ("ben", true));
    assert!(ben.may_read("films/a.mkv") && ben.may_read("public/x") && !ben.may_read("photos/1.jpg"));
    assert!(!ben.may_write("films/a.mkv") && !ben.may_register("home"));
    assert_eq!((ben.connections(), ben.rate()), (None, None));

    let stranger = rules.caller(&Credentials::default(), now);
    assert_eq!(
        (stranger.name(), stranger.is_known(), stranger.denial()),
        ("everybody", false, Denial::Unauthorized)
    );
    assert!(
        stranger.may_read("public/x")
            && !stranger.may_read("photos/1.jpg")
            && !stranger.may_write("public/x")
    );
}

#[test]
fn a_key_that_nobody_listed_is_nobody() {
    let rules = rules(EXAMPLE);
    let now = at("2026-11-28T12:00:00Z");
    let other = Credentials {
        key: Some(SecretKey::generate().unwrap().public()),
        token: Some(Token::generate().unwrap().hash()),
    };
    let caller = rules.caller(&other, now);
    assert!(!caller.is_known() && caller.expired().is_none() && !caller.may_read("photos/1.jpg"));
    let nobody = AccessRules::default();
    let caller = nobody.caller(&anna(), now);
    assert_eq!((caller.name(), caller.may_read("public/x")), ("nobody", false));
    assert_eq!(caller.denial(), Denial::Unauthorized);
}

#[test]
fn an_entry_ends_at_its_moment() {
    let rules = rules(EXAMPLE);
    let end = at("2027-01-01T00:00:00Z");
    assert!(rules.caller(&anna(), end - Duration::from_nanos(1)).may_read("photos/x"));
    let late = rules.caller(&anna(), end);
    assert!(!late.may_read("photos/x") && !late.is_known() && late.may_read("public/x"));
    assert_eq!(late.expired().map(Who::name), Some("anna"));
    assert_eq!(late.denial(), Denial::Unauthorized);
}

#[test]
fn a_key_and_a_token_of_two_entries_give_both() {
    let rules = rules(EXAMPLE);
    let both = Credentials { key: anna().key, token: ben().token };
    let caller = rules.caller(&both, at("2026-11-28T12:00:00Z"));
    assert!(caller.may_read("photos/x") && caller.may_read("films/a.mkv"));
    assert_eq!(caller.name(), "anna");
}

/// Whether somebody whose `relay` is this may go to `hop`, whose name leads to `address`.
fn relays(relay: &str, to: &str, leads_to: &str) -> bool {
    let rules = rules(&format!("[[who]]\nname = \"a\"\nkey = \"{KEY}\"\nrelay = [{relay}]\n"));
    let caller = rules.caller(&anna(), SystemTime::UNIX_EPOCH);
    let to = hop(to);
    let port = to.port.get();
    caller.lookup(&to) != Lookup::Denied && caller.may_relay(&to, address(&format!("{leads_to}:{port}")))
}

#[test]
fn relaying_goes_where_a_rule_says() {
    assert!(relays(r#""pchost2:11000""#, "PCHOST2.:11000", "192.0.2.1"));
    assert!(!relays(r#""pchost2:11000""#, "pchost2:11001", "192.0.2.1"));
    assert!(!relays(r#""pchost2:11000""#, "pchost3:11000", "192.0.2.1"));
    assert!(relays(r#""*""#, "pchost2:1", "192.0.2.1") && relays(r#""10.0.0.0/8""#, "x:1", "10.1.2.3"));
    assert!(!relays("", "127.0.0.1:1", "127.0.0.1"), "no rule is no relaying, and no default");
    assert!(!relays(r#""@home""#, "home:1", "192.0.2.1"));
}

#[test]
fn neither_a_star_nor_a_network_leads_home() {
    for wide in [r#""*""#, r#""0.0.0.0/0""#, r#""127.0.0.0/8""#, r#""::/0""#, r#""169.254.0.0/16""#] {
        for home in
            ["127.0.0.1", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "169.254.169.254", "[64:ff9b::7f00:1]"]
        {
            assert!(!relays(wide, "x:1", home), "{wide} {home}");
            assert!(!relays(wide, &format!("{home}:1"), home), "{wide} {home}");
        }
    }
    assert!(relays(r#""127.0.0.1:11000""#, "127.0.0.1:11000", "127.0.0.1"), "but itself it can be named");
    assert!(relays(r#""localhost""#, "localhost:1", "127.0.0.1"));
    assert!(!relays(r#""pchost""#, "pchost:1", "127.0.0.1"));
    let caller_rules = rules(&format!("[[who]]\nname = \"a\"\nkey = \"{KEY}\"\nrelay = [\"*\"]\n"));
    let caller = caller_rules.caller(&anna(), SystemTime::UNIX_EPOCH);
    assert!(!caller.may_relay_to_node("home"), "* is no registered node");
    assert!(caller.may_relay_anywhere());
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_place() {
    let text = format!(
        "version = 2\n[[who]]\nname = \"anna\"\nkey = [\"{KEY}\", \"ed25519:x\"]\nreed = [\"a\"]\nread = [\"ok\", \"/no\"]\n\
        [[who]]\nname = \"ä\"\nanyone = false\nrelay = \"*\"\nexpires = 2027-01-01\nconnections = 0\nrate = \"20\"\n\
        register = [\"@home\"]\nwrite = [1]\n[[who]]\nname = \"nobody\"\n[[who]]\nname = \"x\"\nanyone = true\nkey = \"{OTHER_KEY}\"\n\
        [[who]]\nanyone = true\n"
    );
    let errors = AccessRules::parse(&text).unwrap_err();
    let places: Vec<(usize, usize)> = errors.0.iter().map(|error| (error.line, error.column)).collect();
    let expected = "line 1, column 1: a rules file has only [[who]], not `version`\n\
        line 4, column 63: a key has 43 characters behind ed25519:, this has 1; was it cut?\n\
        line 5, column 1: an entry has no `reed`; it may have name, key, token, anyone, read, write, relay, register, expires, connections, rate\n\
        line 6, column 15: no name has an empty component, `.` or `..`, or a backslash; write photos/ or docs/**\n\
        line 8, column 8: a name is 1 to 64 letters, digits, `.`, `-`, `_`, `@` and `+`\n\
        line 9, column 10: write anyone = true, or leave it out\n\
        line 10, column 9: write a list, as in [\"one\", \"two\"]\n\
        line 11, column 11: write a time with its offset and without quotes: 2027-01-01T00:00:00Z\n\
        line 12, column 15: write how many connections at once, 1 or more\n\
        line 13, column 8: write a rate like \"20MiB/s\"\n\
        line 14, column 13: a registered node's name is 1 to 64 small letters, digits and `-`, without @\n\
        line 15, column 10: write a text in quotes\n\
        line 16, column 1: an entry needs a key, a token, or anyone = true\n\
        line 18, column 1: an entry for anyone has neither key nor token\n\
        line 22, column 1: an entry needs a name, as in name = \"anna\"\n\
        line 22, column 1: the entry x is for anyone already";
    assert_eq!(errors.to_string(), expected, "{places:?}");
}

#[test]
fn what_two_entries_claim_is_refused() {
    let hash = Token::generate().unwrap().hash();
    let text = format!(
        "[[who]]\nname = \"a\"\nkey = \"{KEY}\"\ntoken = \"{hash}\"\n[[who]]\nname = \"a\"\nkey = \"{OTHER_KEY}\"\n\
        [[who]]\nname = \"b\"\nkey = [\"{OTHER_KEY}\", \"{KEY}\"]\ntoken = [\"{hash}\"]\n"
    );
    let errors = AccessRules::parse(&text).unwrap_err().to_string();
    let expected = format!(
        "line 5, column 1: there is another entry named a\n\
        line 8, column 1: {OTHER_KEY} stands in the entry a already\n\
        line 8, column 1: {KEY} stands in the entry a already\n\
        line 8, column 1: the token {hash} stands in the entry a already"
    );
    assert_eq!(errors, expected);
}

#[test]
fn what_is_no_toml_has_its_place() {
    let check = |text: &str, place: &str| {
        let errors = AccessRules::parse(text).unwrap_err().to_string();
        assert!(errors.starts_with(place), "{text:?}: {errors}");
        assert!(!errors.contains('\n'), "{errors}");
    };
    check("[[who]]\nname = \"anna\nkey = 1\n", "line 2, column ");
    check("[[who]\n", "line 1, column ");
    check("[[who]]\nname = \"a\"\nname = \"b\"\n", "line 3, column 1: ");
    check("who = [{ name = \"a\", anyone = true }]\n", "line 1, column 1: write each entry as [[who]]");
    check("\n\u{e9} = 1\n", "line 2, column ");
    check(&format!("# {}", "x".repeat(MAX_ACCESS_FILE)), "line 1, column 1: a rules file has at most ");
}

#[test]
fn a_secret_that_stands_in_the_rules_is_not_repeated() {
    let token = Token::generate().unwrap();
    let secret = token.expose();
    let text =
        format!("[[who]]\nname = \"a\"\ntoken = \"{secret}\"\nkey = \"{secret}\"\nrate = \"{secret}\"\n");
    let errors = AccessRules::parse(&text).unwrap_err().to_string();
    assert!(errors.contains("this is a token itself"), "{errors}");
    assert!(!errors.contains(&secret[11..]), "{errors}");
}

#[test]
fn times_with_any_offset() {
    let ends = |text: &str| {
        let rules = rules(&format!("[[who]]\nname = \"a\"\nanyone = true\nexpires = {text}\n"));
        rules.whos()[0].expires().unwrap()
    };
    assert_eq!(ends("2027-01-01T01:00:00+01:00"), at("2027-01-01T00:00:00Z"));
    assert_eq!(ends("2027-01-01 00:00:00Z"), at("2027-01-01T00:00:00Z"));
    assert_eq!(ends("1900-01-01T00:00:00Z"), SystemTime::UNIX_EPOCH);
    for bad in ["2027-01-01T00:00:00", "2027-01-01", "00:00:00", "\"2027-01-01T00:00:00Z\"", "2027"] {
        let text = format!("[[who]]\nname = \"a\"\nanyone = true\nexpires = {bad}\n");
        let errors = AccessRules::parse(&text).unwrap_err().to_string();
        assert!(errors.starts_with("line 4, column 11: write a time with its offset"), "{errors}");
    }
}

#[test]
fn a_grant_is_added_at_the_end_and_the_rest_stays() {
    let token = Token::generate().unwrap();
    let given = Grant {
        name: "carla".into(),
        token: Some(token.hash()),
        read: vec!["photos/".into()],
        expires: Some(at("2026-11-30T08:00:00Z")),
        ..Grant::default()
    };
    let expected = format!(
        "[[who]]\nname = \"carla\"\ntoken = \"{}\"\nread = [\"photos/\"]\nexpires = 2026-11-30T08:00:00Z\n",
        token.hash()
    );
    assert_eq!(grant("", &given).unwrap(), expected);
    let changed = grant(EXAMPLE, &given).unwrap();
    assert_eq!(changed, format!("{EXAMPLE}\n{expected}"));
    let credentials = Credentials { key: None, token: Some(token.hash()) };
    let rules = rules(&changed);
    let caller = rules.caller(&credentials, at("2026-11-29T00:00:00Z"));
    assert_eq!((caller.name(), caller.may_read("photos/x")), ("carla", true));
    assert!(matches!(grant(&changed, &given), Err(EditError::After(_))), "the name is taken");
    let whole = Grant {
        name: "all".into(),
        keys: vec![OTHER_KEY.parse().unwrap(), SecretKey::generate().unwrap().public()],
        write: vec!["in/".into()],
        relay: vec!["@home".into(), "*:80".into()],
        register: vec!["work".into()],
        connections: Some(2),
        rate: Some("1MiB/s".into()),
        ..Grant::default()
    };
    AccessRules::parse(&grant(&changed, &whole).unwrap()).unwrap();
}

#[test]
fn a_grant_that_would_break_the_rules_is_refused() {
    let bad = Grant { name: "carla".into(), read: vec!["/etc".into()], ..Grant::default() };
    let error = grant(EXAMPLE, &bad).unwrap_err().to_string();
    assert!(error.starts_with("the rules are not changed: no name has an empty component"), "{error}");
    let error = grant("[[who]]\nname = 1\n", &bad).unwrap_err().to_string();
    assert!(error.contains("wrong as it is:\nline 2, column 8"), "{error}");
}

#[test]
fn revoking_takes_one_entry_with_its_comment() {
    let changed = revoke(EXAMPLE, "ben").unwrap();
    let start = EXAMPLE.find("\n# A friend").unwrap();
    let end = EXAMPLE.find("\n[[who]]\nname = \"everybody\"").unwrap();
    assert_eq!(changed, format!("{}{}", &EXAMPLE[..start], &EXAMPLE[end..]));
    assert!(!rules(&changed).caller(&ben(), at("2026-11-28T12:00:00Z")).is_known());

    let first = revoke(EXAMPLE, "anna").unwrap();
    assert!(first.starts_with("# Who may do what here.\n\n# A friend"), "{first}");
    let mut left = EXAMPLE.to_owned();
    for name in ["anna", "everybody", "ben"] {
        left = revoke(&left, name).unwrap();
    }
    assert_eq!(left.trim_end(), "# Who may do what here.");
    assert_eq!(rules(&left), AccessRules::default());
    let error = revoke(EXAMPLE, "bob").unwrap_err().to_string();
    assert_eq!(error, "there is no entry named bob; there are: anna, ben, everybody");
    assert_eq!(revoke("", "bob").unwrap_err().to_string(), "there is no entry named bob; there are: none");
}

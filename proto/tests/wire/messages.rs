//! One way to run a check over every kind of message, and values of each to run it with.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use relay_proto::address::{Hop, Host};
use relay_proto::chunk::{AskedRange, ChunkRange};
use relay_proto::code::{FailureCode, Status};
use relay_proto::file::{
    Conditions, EntityTag, Entry, EntryKind, FileFacts, Get, Hashes, Head, List, Page, RequestedName,
    SentRange, Size, SizeAndTime, Stat, Timestamp,
};
use relay_proto::frame::{FrameError, FrameType, decode};
use relay_proto::hop::{ClientLimits, ConnectionId, Failed, Hello, Open};
use relay_proto::limits::{MAX_AGENT, MAX_MESSAGE, MAX_NAME, MAX_SIZE};
use relay_proto::text::clean;
use std::time::Duration;

/// Runs `$check::<M>($args…)` with the message type that `$frame_type` stands for.
macro_rules! for_type {
    ($frame_type:expr, $check:ident ( $($arg:expr),* )) => {
        match $frame_type {
            relay_proto::frame::FrameType::Open => $check::<relay_proto::hop::Open>($($arg),*),
            relay_proto::frame::FrameType::Hello => $check::<relay_proto::hop::Hello>($($arg),*),
            relay_proto::frame::FrameType::Failed => $check::<relay_proto::hop::Failed>($($arg),*),
            relay_proto::frame::FrameType::Get => $check::<relay_proto::file::Get>($($arg),*),
            relay_proto::frame::FrameType::Stat => $check::<relay_proto::file::Stat>($($arg),*),
            relay_proto::frame::FrameType::Hashes => $check::<relay_proto::file::Hashes>($($arg),*),
            relay_proto::frame::FrameType::List => $check::<relay_proto::file::List>($($arg),*),
            relay_proto::frame::FrameType::Head => $check::<relay_proto::file::Head>($($arg),*),
            relay_proto::frame::FrameType::Page => $check::<relay_proto::file::Page>($($arg),*),
        }
    };
}
pub(crate) use for_type;

/// A JSON text that reads as `frame_type`, with as little in it as the type allows.
pub fn smallest(frame_type: FrameType) -> &'static str {
    match frame_type {
        FrameType::Open => r#"{"hops":[],"id":"0123456789abcdef","limits":{"silence_ms":1000}}"#,
        FrameType::Hello => r#"{"agent":"a/1"}"#,
        FrameType::Failed => r#"{"code":"refused","message":""}"#,
        FrameType::Get | FrameType::Stat | FrameType::Hashes => r#"{"name":"a"}"#,
        FrameType::List => r#"{"prefix":"","recursive":false}"#,
        FrameType::Head => r#"{"status":200}"#,
        FrameType::Page => r#"{"entries":[],"unnameable":0}"#,
    }
}

/// The payload as the type's message, if it is one.
pub fn read(frame_type: FrameType, payload: &[u8]) -> Result<(), FrameError> {
    fn one<M: relay_proto::frame::Message>(payload: &[u8]) -> Result<(), FrameError> {
        decode::<M>(M::TYPE, payload).map(drop)
    }
    for_type!(frame_type, one(payload))
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        "[a-zA-Z0-9._-]{1,253}",
        any::<[u8; 4]>().prop_map(|a| std::net::Ipv4Addr::from(a).to_string()),
        any::<[u8; 16]>().prop_map(|a| std::net::Ipv6Addr::from(a).to_string()),
    ]
    .prop_filter_map("a name that ends in a number", |text| Host::try_from(text).ok())
}

pub fn hop() -> impl Strategy<Value = Hop> {
    (host(), any::<std::num::NonZeroU16>()).prop_map(|(host, port)| Hop { host, port })
}

/// Any text, cut so that it has at most `bytes` bytes.
fn text(bytes: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..40).prop_map(move |chars| {
        let mut text: String = chars.into_iter().collect();
        while text.len() > bytes {
            text.pop();
        }
        text
    })
}

fn name() -> impl Strategy<Value = RequestedName> {
    let long = "[ -~]{0,4096}";
    prop_oneof![text(MAX_NAME), long].prop_map(|text| RequestedName::try_from(text).expect("a name"))
}

fn tag() -> impl Strategy<Value = EntityTag> {
    "[!#-~]{1,64}".prop_map(|tag| EntityTag::try_from(tag).expect("a tag"))
}

fn size() -> impl Strategy<Value = Size> {
    (0..=MAX_SIZE).prop_map(|bytes| Size::try_from(bytes).expect("a size"))
}

fn time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(s, ns)| Timestamp::new(s, ns).expect("a time"))
}

fn asked() -> impl Strategy<Value = AskedRange> {
    (any::<u64>(), option::of(any::<u64>())).prop_map(|(first, end)| AskedRange { first, end })
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let same = (size(), time()).prop_map(|(size, modified)| SizeAndTime { size, modified });
    (option::of(tag()), option::of(tag()), option::of(same)).prop_map(
        |(if_match, if_none_match, unless_same)| Conditions { if_match, if_none_match, unless_same },
    )
}

pub fn open() -> impl Strategy<Value = Open> {
    (vec(hop(), 0..=64), any::<u64>(), 0..4_000_000u64).prop_map(|(hops, id, silence)| Open {
        hops,
        id: ConnectionId::new(id),
        limits: ClientLimits::new(Duration::from_millis(silence)),
    })
}

pub fn hello() -> impl Strategy<Value = Hello> {
    text(200).prop_map(|agent| Hello { agent: clean(&agent, MAX_AGENT) })
}

pub fn failed() -> impl Strategy<Value = Failed> {
    let code = (0..FailureCode::ALL.len()).prop_map(|i| FailureCode::ALL[i]);
    (code, option::of(hop()), text(2000)).prop_map(|(code, next, message)| Failed::new(code, next, &message))
}

pub fn get() -> impl Strategy<Value = Get> {
    (name(), option::of(asked()), conditions(), any::<bool>())
        .prop_map(|(name, range, conditions, anew)| Get { name, range, conditions, anew })
}

pub fn hashes() -> impl Strategy<Value = Hashes> {
    get().prop_map(|Get { name, range, conditions, .. }| Hashes { name, range, conditions })
}

pub fn stat() -> impl Strategy<Value = Stat> {
    name().prop_map(|name| Stat { name })
}

pub fn list() -> impl Strategy<Value = List> {
    (name(), option::of(name()), any::<bool>()).prop_map(|(prefix, after, recursive)| List {
        prefix,
        after,
        recursive,
    })
}

pub fn head() -> impl Strategy<Value = Head> {
    let facts =
        (size(), time(), tag(), any::<bool>()).prop_map(|(size, modified, entity_tag, executable)| {
            FileFacts { size, modified, entity_tag, executable }
        });
    let range = any::<(u64, u64)>()
        .prop_map(|(a, b)| SentRange::from(ChunkRange::new(a.min(b), a.max(b)).expect("forwards")));
    (100..600u16, option::of(facts), option::of(range), text(2000)).prop_map(
        |(status, file, range, message)| Head {
            status: Status::try_from(status).expect("a status"),
            file,
            range,
            message: clean(&message, MAX_MESSAGE),
        },
    )
}

pub fn page() -> impl Strategy<Value = Page> {
    let kind = prop_oneof![Just(EntryKind::File), Just(EntryKind::Directory)];
    let short = text(60).prop_map(|text| RequestedName::try_from(text).expect("a name"));
    let entry = (short, kind, size(), time(), any::<[bool; 3]>()).prop_map(
        |(name, kind, size, modified, [executable, linked, unreadable])| Entry {
            name,
            kind,
            size,
            modified,
            executable,
            linked,
            unreadable,
        },
    );
    (vec(entry, 0..60), option::of(name()), any::<[u64; 3]>()).prop_map(
        |(entries, next, [unnameable, links, unreadable])| Page {
            entries,
            next,
            unnameable,
            links,
            unreadable,
        },
    )
}

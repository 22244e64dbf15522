//! Every fuzz target over its seeds, and over a bounded number of random mutations of them. This finds what breaks now;
//! `fuzz/run.sh` looks for more, for as long as it is let.
//!
//! `RELAY_FUZZ_MUTATIONS` runs more or fewer of them (20,000 a target), `RELAY_FUZZ_SEED` others. A failure prints the input; it becomes a seed
//! together with its fix.

#![allow(
    clippy::expect_used,
    clippy::panic,
    unused_attributes,
    reason = "a test may stop at the first surprise, and the targets are written for libFuzzer, each a program of its own"
)]

use std::any::Any;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[path = "../../fuzz_targets/access.rs"]
mod access;
#[path = "../../fuzz_targets/allow.rs"]
mod allow;
#[path = "../../fuzz_targets/answers.rs"]
mod answers;
#[path = "../../fuzz_targets/cache_record.rs"]
mod cache_record;
#[path = "../../fuzz_targets/flags.rs"]
mod flags;
#[path = "../../fuzz_targets/frames.rs"]
mod frames;
#[path = "../../fuzz_targets/hop.rs"]
mod hop;
#[path = "../../fuzz_targets/http_conditions.rs"]
mod http_conditions;
#[path = "../../fuzz_targets/http_head.rs"]
mod http_head;
#[path = "../../fuzz_targets/http_range.rs"]
mod http_range;
#[path = "../../fuzz_targets/http_target.rs"]
mod http_target;
#[path = "../../fuzz_targets/journal.rs"]
mod journal;
#[path = "../../fuzz_targets/known.rs"]
mod known;
#[path = "../../fuzz_targets/layer.rs"]
mod layer;
#[path = "../../fuzz_targets/message.rs"]
mod message;
#[path = "../../fuzz_targets/preface.rs"]
mod preface;
#[path = "../../fuzz_targets/route.rs"]
mod route;
#[path = "../../fuzz_targets/text.rs"]
mod text;
#[path = "../../fuzz_targets/trailer.rs"]
mod trailer;

/// A target's name and its function.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 19] = [
    ("access", access::run),
    ("allow", allow::run),
    ("answers", answers::run),
    ("cache_record", cache_record::run),
    ("flags", flags::run),
    ("frames", frames::run),
    ("hop", hop::run),
    ("http_conditions", http_conditions::run),
    ("http_head", http_head::run),
    ("http_range", http_range::run),
    ("http_target", http_target::run),
    ("journal", journal::run),
    ("known", known::run),
    ("layer", layer::run),
    ("message", message::run),
    ("preface", preface::run),
    ("route", route::run),
    ("text", text::run),
    ("trailer", trailer::run),
];

/// The longest input that is made, in bytes.
const MAX_LEN: usize = 8192;

#[test]
fn every_target_stands_its_seeds_and_their_mutations() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let (mutations, seed) = (number("RELAY_FUZZ_MUTATIONS", 20_000), number("RELAY_FUZZ_SEED", 1));
    // One thread a target: they share nothing.
    std::thread::scope(|scope| {
        for (name, run) in TARGETS {
            scope.spawn(move || replay(name, run, mutations, seed));
        }
    });
}

/// No target is forgotten here.
#[test]
fn every_target_of_the_fuzz_crate_is_replayed() {
    let mut files: Vec<String> = fs::read_dir(fuzz_directory().join("fuzz_targets"))
        .expect("the targets")
        .map(|file| file.expect("a file").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, TARGETS.map(|(name, _)| name.to_owned()));
    let manifest = fs::read_to_string(fuzz_directory().join("Cargo.toml")).expect("the manifest");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no program of the fuzz crate");
    }
}

fn fuzz_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the fuzz crate's directory")
}

fn replay(name: &str, run: fn(&[u8]), mutations: u64, seed: u64) {
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    seeds.iter().for_each(|bytes| check(name, run, bytes));
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9) ^ name.len() as u64);
    let mut bytes = Vec::new();
    for turn in 0..mutations {
        // Several mutations on top of each other, then another seed.
        if turn % 8 == 0 {
            bytes.clone_from(&seeds[random.below(seeds.len())]);
        }
        mutate(&mut bytes, &seeds, &mut random);
        check(name, run, &bytes);
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(fuzz_directory().join("seeds").join(name))
        .expect("the seeds")
        .map(|file| file.expect("a file").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

fn check(name: &str, run: fn(&[u8]), bytes: &[u8]) {
    if let Err(panic) = catch_unwind(|| run(bytes)) {
        let said = said(panic.as_ref());
        panic!("{name} failed: {said}\nits input: b\"{}\"", bytes.escape_ascii());
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    const TELLING: [&[u8]; 14] = [
        b"\0",
        b"\xff",
        b"\r\n",
        b"\n",
        b"\"",
        b"{",
        b"}",
        b",",
        b"-1",
        b"18446744073709551615",
        b"\xe2\x80\xae",
        b"..",
        b"\x7f\xff\xff\xff",
        b"or\n",
    ];
    let at = random.below(bytes.len() + 1);
    let until = at + random.below(bytes.len() - at + 1);
    match random.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.bits().to_le_bytes()[0],
        2 => drop(bytes.splice(at..until, TELLING[random.below(TELLING.len())].iter().copied())),
        3 => drop(bytes.splice(at..at, TELLING[random.below(TELLING.len())].iter().copied())),
        4 => drop(bytes.drain(at..until)),
        5 => {
            let part = bytes[at..until].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, part);
        }
        6 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => bytes.truncate(at),
    }
    bytes.truncate(MAX_LEN);
}

/// `SplitMix64` (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.bits() % limit.max(1) as u64).expect("below a usize")
    }
}

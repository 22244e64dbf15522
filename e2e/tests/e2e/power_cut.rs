//! What a power cut leaves, at every instant of a download: the client's writes and syncs are recorded by strace and replayed up to
//! each point, with all, none or some of what was not synced by then, whole or torn.
//!
//! The disk that is assumed is a bad one: what was written is safe only after a sync of that file, a name only after a sync of its
//! directory, and before that any part of it may be there.

use crate::world::{MIB, World, has_strace};
use relay_client::journal::Journal;
use relay_proto::chunk::chunk_len;
use relay_proto::digest::ChunkHash;
use relay_testkit::files::sample_bytes;
use relay_testkit::process::Process;
use relay_testkit::programs::program;
use relay_testkit::proxy::{Direction, FaultProxy, Plan};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "myfile";
const CHUNKS: usize = 6;
/// Where it goes: directories that the client makes.
const PLACE: &str = "new/deep";

/// A call that changes what is on the disk. Files go by the number that they got when they were first opened.
#[derive(Debug, Clone)]
enum Call {
    Create(String),
    Write {
        file: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        len: usize,
    },
    Rename(String, String),
    /// A sync begins; what was written before is what it makes safe.
    SyncBegins(usize),
    SyncEnds(usize),
    /// The one that the files are in, or one above it.
    SyncDirectory(PathBuf),
    MakeDirectory(PathBuf),
}

/// The client under strace, over a link that makes it last several seconds.
fn record(world: &World, log: &Path) -> Vec<Call> {
    let origin = world.origin();
    let plan = Plan { down: Direction::rate(900_000), ..Plan::default() };
    let proxy = FaultProxy::start(origin.address(), plan);
    let mut command = Command::new("strace");
    command.current_dir(world.saved());
    command.args(["-f", "-qq", "-y", "-xx", "-s", "2097152", "-o"]).arg(log);
    let data = "openat,pwrite64,write,ftruncate,fdatasync,fsync";
    let names = "?rename,?renameat,?renameat2,?mkdir,?mkdirat";
    command.args(["-e", &format!("trace={data},{names}")]);
    command.arg(program("relay-client")).args([
        "--get",
        NAME,
        "--via",
        &proxy.hop(),
        "--timeout",
        "60",
        "--plain",
    ]);
    command.args(["-o", &format!("{PLACE}/{NAME}")]);
    let finished = Process::start(command).finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    calls(&fs::read_to_string(log).expect("strace's log"), &world.saved())
}

/// Reads strace's log: the calls about files that the client saved, running in `current`.
fn calls(log: &str, current: &Path) -> Vec<Call> {
    let mut reader = Reader { current: current.to_owned(), ..Reader::default() };
    let mut unfinished: HashMap<&str, &str> = HashMap::new();
    for line in log.lines() {
        let (thread, line) = line.split_once(' ').expect("a thread's number");
        let line = line.trim_start();
        if let Some(begun) = line.strip_suffix(" <unfinished ...>") {
            reader.begins(begun);
            unfinished.insert(thread, begun);
        } else if let Some((_, rest)) = line.strip_prefix("<... ").and_then(|l| l.split_once(" resumed>")) {
            let begun = unfinished.remove(thread).expect("what is resumed was begun");
            reader.ends(&format!("{begun}{rest}"));
        } else {
            reader.begins(line);
            reader.ends(line);
        }
    }
    reader.calls
}

#[derive(Default)]
struct Reader {
    current: PathBuf,
    calls: Vec<Call>,
    /// The files by their present names.
    names: HashMap<String, usize>,
    lengths: Vec<usize>,
}

impl Reader {
    /// A sync is the only call whose beginning matters.
    fn begins(&mut self, line: &str) {
        let Some((call @ ("fsync" | "fdatasync"), arguments)) = line.split_once('(') else { return };
        if let Some(file) = self.file_of(arguments) {
            self.calls.push(Call::SyncBegins(file));
        }
        let _ = call;
    }

    fn ends(&mut self, line: &str) {
        let Some((call, rest)) = line.split_once('(') else { return };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { return };
        if result.starts_with('-') {
            return;
        }
        match call {
            "openat" if arguments.contains("O_CREAT") => self.created(arguments),
            "write" | "pwrite64" => self.written(call, arguments, result),
            "ftruncate" => {
                if let Some(file) = self.file_of(arguments) {
                    let len = number(arguments.rsplit(", ").next().expect("a length"));
                    self.lengths[file] = len;
                    self.calls.push(Call::Truncate { file, len });
                }
            }
            "fsync" | "fdatasync" => match self.file_of(arguments) {
                Some(file) => self.calls.push(Call::SyncEnds(file)),
                None => {
                    let path = path_of(arguments).map(PathBuf::from);
                    self.calls
                        .extend(path.filter(|path| path.starts_with(&self.current)).map(Call::SyncDirectory));
                }
            },
            "mkdir" | "mkdirat" => {
                let path = strings(arguments).next().expect("a path");
                self.calls.push(Call::MakeDirectory(self.current.join(path)));
            }
            "rename" | "renameat" | "renameat2" => {
                let names: Vec<String> = strings(arguments).map(|path| base(&path)).collect();
                if let Some(file) = self.names.remove(&names[0]) {
                    self.names.insert(names[1].clone(), file);
                    self.calls.push(Call::Rename(names[0].clone(), names[1].clone()));
                }
            }
            _ => {}
        }
    }

    fn created(&mut self, arguments: &str) {
        let name = base(&strings(arguments).next().expect("a path"));
        if !name.starts_with(NAME) {
            return;
        }
        if let Some(file) = self.names.get(&name).copied() {
            if arguments.contains("O_TRUNC") {
                self.lengths[file] = 0;
                self.calls.push(Call::Truncate { file, len: 0 });
            }
            return;
        }
        self.names.insert(name.clone(), self.lengths.len());
        self.lengths.push(0);
        self.calls.push(Call::Create(name));
    }

    fn written(&mut self, call: &str, arguments: &str, result: &str) {
        let Some(file) = self.file_of(arguments) else { return };
        let mut bytes = unhex(arguments.split('"').nth(1).expect("what is written"));
        bytes.truncate(number(result));
        let offset = match call {
            "pwrite64" => number(arguments.rsplit(", ").next().expect("an offset")),
            // Only the journal is written without an offset, and only appended to.
            _ => self.lengths[file],
        };
        self.lengths[file] = self.lengths[file].max(offset + bytes.len());
        self.calls.push(Call::Write { file, offset, bytes });
    }

    /// Which file the first argument, a descriptor, leads to.
    fn file_of(&self, arguments: &str) -> Option<usize> {
        let path = path_of(arguments)?;
        let place = self.current.join(PLACE);
        let name = Path::new(&path).strip_prefix(place).ok()?.to_str()?;
        self.names.get(name).copied()
    }
}

/// The path behind the first descriptor: `9<\x2f…>, …`.
fn path_of(arguments: &str) -> Option<String> {
    let (_, rest) = arguments.split_once('<')?;
    let (hex, _) = rest.split_once('>')?;
    String::from_utf8(unhex(hex)).ok()
}

fn strings(arguments: &str) -> impl Iterator<Item = String> {
    arguments.split('"').skip(1).step_by(2).map(|hex| String::from_utf8(unhex(hex)).expect("a path"))
}

fn base(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit =
        |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).expect("hex");
    text.as_bytes().chunks_exact(4).map(|four| digit(four[2]) << 4 | digit(four[3])).collect()
}

fn number(text: &str) -> usize {
    let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// What a disk holds for sure, and what it may hold.
#[derive(Default, Clone)]
struct Disk {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    /// Changes of names since the directory was synced.
    pending_names: Vec<Call>,
    /// Directories whose names are not safe.
    pending_directories: Vec<PathBuf>,
}

#[derive(Default, Clone)]
struct FileState {
    safe: Vec<u8>,
    pending: Vec<Call>,
    /// How many of the pending calls a running sync covers.
    syncing: Option<usize>,
}

impl Disk {
    fn after(calls: &[Call]) -> Disk {
        let mut disk = Disk::default();
        for call in calls {
            disk.take(call);
        }
        disk
    }

    fn take(&mut self, call: &Call) {
        match call {
            Call::Create(_) => {
                self.files.push(FileState::default());
                self.pending_names.push(call.clone());
            }
            Call::Rename(..) => self.pending_names.push(call.clone()),
            Call::Write { file, .. } | Call::Truncate { file, .. } => {
                self.files[*file].pending.push(call.clone());
            }
            Call::SyncBegins(file) => self.files[*file].syncing = Some(self.files[*file].pending.len()),
            Call::SyncEnds(file) => {
                let state = &mut self.files[*file];
                let covered = state.syncing.take().expect("a sync that ends has begun");
                for call in state.pending.drain(..covered) {
                    apply(&mut state.safe, &call, None);
                }
            }
            Call::MakeDirectory(path) => self.pending_directories.push(path.clone()),
            Call::SyncDirectory(path) if !path.ends_with(PLACE) => {
                self.pending_directories.retain(|made| made.parent() != Some(path));
            }
            Call::SyncDirectory(_) => {
                let mut next = self.created();
                for call in std::mem::take(&mut self.pending_names) {
                    rename(&mut self.names, &call, &mut next);
                }
            }
        }
    }

    /// How many files were created before the pending changes of names.
    fn created(&self) -> usize {
        self.files.len() - self.pending_names.iter().filter(|call| matches!(call, Call::Create(_))).count()
    }

    /// What is found after the cut: `keep` says of each pending call what of it has reached the disk.
    fn left(&self, mut keep: impl FnMut() -> Kept) -> BTreeMap<String, Vec<u8>> {
        if !self.pending_directories.is_empty() && keep() == Kept::Nothing {
            return BTreeMap::new();
        }
        let mut names = self.names.clone();
        let mut next = self.created();
        // Names change in order, up to some point.
        for call in &self.pending_names {
            if keep() == Kept::Nothing {
                break;
            }
            rename(&mut names, call, &mut next);
        }
        let content = |file: &FileState, keep: &mut dyn FnMut() -> Kept| {
            let mut bytes = file.safe.clone();
            for call in &file.pending {
                match keep() {
                    Kept::Nothing => {}
                    Kept::All => apply(&mut bytes, call, None),
                    Kept::Half => apply(&mut bytes, call, Some(2)),
                }
            }
            bytes
        };
        names.into_iter().map(|(name, file)| (name, content(&self.files[file], &mut keep))).collect()
    }
}

/// Does a change of names; `next` is the number of the file that is created next.
fn rename(names: &mut BTreeMap<String, usize>, call: &Call, next: &mut usize) {
    match call {
        Call::Create(name) => {
            names.insert(name.clone(), *next);
            *next += 1;
        }
        Call::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        _ => {}
    }
}

/// Does a call to a file's bytes; of a write only the first `1/part`.
fn apply(content: &mut Vec<u8>, call: &Call, part: Option<usize>) {
    match call {
        Call::Write { offset, bytes, .. } => {
            let bytes = &bytes[..bytes.len() / part.unwrap_or(1)];
            if content.len() < offset + bytes.len() {
                content.resize(offset + bytes.len(), 0);
            }
            content[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Call::Truncate { len, .. } => content.resize(*len, 0),
        _ => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    Half,
    All,
}

/// The chunks that a journal says are there, each of which must be there.
fn held(left: &BTreeMap<String, Vec<u8>>, place: &Path, context: &str) -> usize {
    let Some(journal) = left.get(&format!("{NAME}.part.journal")) else { return 0 };
    fs::write(place, journal).expect("written");
    let Some(held) = Journal::read(place) else { return 0 };
    let part = left.get(&format!("{NAME}.part"));
    let part = part.unwrap_or_else(|| panic!("{context}: a journal that marks chunks, and no part file"));
    let size = held.file.size.bytes();
    for (index, hash) in &held.chunks {
        let from = usize::try_from(*index).expect("small") * MIB;
        let to = from + usize::try_from(chunk_len(size, *index)).expect("small");
        let there = part.get(from..to).map(|bytes| ChunkHash::of(bytes, *index, size));
        assert_eq!(there, Some(*hash), "{context}: chunk {index} is marked and not on the disk");
    }
    held.chunks.len()
}

#[test]
fn a_power_cut_costs_the_last_seconds_and_never_a_wrong_byte() {
    let world = World::new();
    let bytes = world.offer(NAME, CHUNKS * MIB + 17);
    if !has_strace() {
        return;
    }
    let calls = record(&world, &world.elsewhere("strace.log"));
    let dice: Vec<u8> = sample_bytes("power cut", 1 << 16);
    let mut dice = dice.iter().cycle();
    let place = world.elsewhere("journal");
    let (mut most, mut whole, mut partial) = (0, 0, Vec::new());
    // What the last journal that is surely on the disk must hold at least: the chunks that were written before the data's sync for the
    // journal before it began. (A chunk that is written while that one's sync is being asked for may wait for the next.)
    let (mut written, mut covered, mut before, mut promised) = (0, 0, 0, 0);
    for cut in 0..=calls.len() {
        if let Some(call) = cut.checked_sub(1).and_then(|last| calls.get(last)) {
            match call {
                Call::Write { file: 0, .. } => written += 1,
                Call::SyncBegins(0) => (before, covered) = (covered, written),
                Call::SyncEnds(file) if *file > 0 => promised = before,
                _ => {}
            }
        }
        let disk = Disk::after(&calls[..cut]);
        let mut mixed = || match dice.next() {
            Some(0..=84) => Kept::Nothing,
            Some(85..=149) => Kept::Half,
            _ => Kept::All,
        };
        let variants =
            [disk.left(|| Kept::Nothing), disk.left(|| Kept::All), disk.left(&mut mixed), disk.left(mixed)];
        for (variant, left) in variants.into_iter().enumerate() {
            let context = format!("cut after call {cut} of {}, variant {variant}", calls.len());
            if let Some(saved) = left.get(NAME) {
                assert!(*saved == bytes, "{context}: {} wrong bytes under the final name", saved.len());
                whole += 1;
                continue;
            }
            let held = held(&left, &place, &context);
            assert!(held >= promised, "{context}: {held} chunks are kept of {promised} promised");
            most = most.max(held);
            if held > 0 && (cut + variant) % 7 == 0 {
                partial.push((left, context));
            }
        }
    }
    // Who says that it is done has it all on the disk, down to the names of the directories.
    assert!(Disk::after(&calls).left(|| Kept::Nothing).get(NAME) == Some(&bytes), "done, and not safe");
    assert!(
        most >= CHUNKS / 2 && whole > 0,
        "{most} chunks were kept at most, {whole} states had the whole file"
    );
    assert!(partial.len() > 2, "{} states to go on from", partial.len());
    let origin = world.origin();
    fs::remove_dir_all(world.saved().join("new")).expect("removed");
    for (left, context) in partial {
        world.clear_saved();
        for (name, content) in &left {
            fs::write(world.saved().join(name), content).expect("written");
        }
        let finished = world.client(&["--get", NAME, "--via", &origin.hop()]);
        assert_eq!(finished.code, Some(0), "{context}: {}", finished.stderr);
        assert!(fs::read(world.saved().join(NAME)).expect("the file") == bytes, "{context}");
    }
}

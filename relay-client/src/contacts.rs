//! Whose key is expected at the end of each route, and what is remembered of those met for the first time.
//!
//! The file of known nodes belongs to this module; what stands in it is `relay-trust`'s business. Nothing in here dials, and no key
//! gets in but one that was proved in a pipe to that very node.

use crate::console;
use crate::failure::Failure;
use crate::show;
use relay_chain::chain::KeyMismatch;
use relay_proto::route::Route;
use relay_trust::day::Day;
use relay_trust::key::PublicKey;
use relay_trust::known::{Expectation, Known, KnownNodes, MAX_KNOWN_FILE, Standing};
use relay_trust::state_directory;
use relay_trust::tls::{self, Use};
use relay_trust::way::Way;
use rustls::ClientConfig;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The file in the state directory.
const FILE: &str = "known_nodes";

/// What somebody wants of encryption.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// None at all.
    pub plain: bool,
    /// No first contact.
    pub strict: bool,
    /// The keys that the origin may have, whatever is known.
    pub pins: Vec<PublicKey>,
}

/// What is expected of origins in this run; nothing, when it goes in the clear.
#[derive(Debug, Clone)]
pub struct Contacts(Option<Arc<Book>>);

#[derive(Debug)]
struct Book {
    /// Where known nodes are kept; none where this user has no such place.
    file: Option<PathBuf>,
    pins: Vec<PublicKey>,
    /// Why nobody may be met for the first time, if so.
    no_first_contact: Option<&'static str>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    nodes: KnownNodes,
    /// Ways of which people were told already.
    told: HashSet<Way>,
}

impl Contacts {
    /// Everything goes in the clear.
    pub const PLAIN: Contacts = Contacts(None);

    /// What is expected at the ends of these routes.
    ///
    /// # Errors
    /// Wishes that contradict each other, or a file of known nodes that cannot be read.
    pub fn of(wish: Wish, routes: &[Route]) -> Result<Contacts, Failure> {
        let Wish { plain, strict, pins } = wish;
        if plain && !pins.is_empty() {
            let text = "--pin wants the origin's key proved, and --plain does not ask for one; leave out one of them";
            return Err(Failure::Usage(text.to_owned()));
        }
        if plain {
            return Ok(Contacts::PLAIN);
        }
        let file = state_directory::of_user(|name| std::env::var_os(name)).map(|state| state.join(FILE));
        let nodes = file.as_deref().map(read).transpose()?.unwrap_or_default();
        let is_vouched_for = |route: &Route| nodes.expect(&way(route), &pins).is_vouched_for();
        let no_first_contact = match strict {
            true => Some("--strict accepts no key that is not pinned or known"),
            // Who can cut the route that is vouched for would choose the next one.
            false => routes.iter().any(is_vouched_for).then_some(
                "another route of this run has a known key, and then nobody is met for the first time; fetch once by this route \
                 alone to get to know it",
            ),
        };
        let state = Mutex::new(State { nodes, told: HashSet::new() });
        Ok(Contacts(Some(Arc::new(Book { file, pins, no_first_contact, state }))))
    }

    /// What holds for a pipe along this route; none in the clear.
    ///
    /// # Errors
    /// When the TLS library fails.
    pub fn guard(&self, route: &Route) -> Result<Option<Guard>, Failure> {
        let Some(book) = &self.0 else { return Ok(None) };
        let way = way(route);
        let expectation = book.state().nodes.expect(&way, &book.pins);
        let config = tls::client(Use::Pipe, None, expectation.for_tls())
            .map_err(|error| Failure::Usage(format!("encryption is not possible: {error}")))?;
        Ok(Some(Guard { book: Arc::clone(book), way, expectation, config }))
    }
}

impl Book {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is expected at the end of one route, for one pipe.
#[derive(Debug)]
pub struct Guard {
    book: Arc<Book>,
    way: Way,
    expectation: Expectation,
    /// This side of TLS.
    pub config: Arc<ClientConfig>,
}

impl Guard {
    /// Whether a key that was proved is believed. One that is met for the first time is remembered.
    #[must_use]
    pub fn believes(&self, key: &PublicKey) -> bool {
        match self.expectation.standing(key) {
            None => false,
            Some(Standing::FirstContact) if self.book.no_first_contact.is_some() => false,
            Some(Standing::FirstContact) => self.remember(key),
            Some(_) => true,
        }
    }

    /// A way on which another connection of this run has met somebody else meanwhile is not believed.
    fn remember(&self, key: &PublicKey) -> bool {
        let mut state = self.book.state();
        let Some(known) = state.nodes.remember(&self.way, *key, Day::of(SystemTime::now())) else {
            return state.nodes.at(&self.way).any(|known| known.key == *key);
        };
        drop(state);
        match &self.book.file {
            Some(file) => {
                if let Err(error) = append(file, &known) {
                    let path = show::path(file);
                    console::message(&format!(
                        "the key of {} is not remembered: cannot write {path}: {error}",
                        self.way
                    ));
                }
            }
            None => console::message(&format!("the key of {} is not remembered: HOME is not set", self.way)),
        }
        true
    }

    /// How a believed key stands, to be told once a run and route.
    #[must_use]
    pub fn news(&self, key: &PublicKey) -> Option<Standing> {
        let standing = self.expectation.standing(key)?;
        self.book.state().told.insert(self.way.clone()).then_some(standing)
    }

    /// Why whoever is at the end of the route is not who was expected, and what to do.
    #[must_use]
    pub fn complaint(&self, mismatch: KeyMismatch) -> String {
        let shown = match mismatch {
            KeyMismatch::NoEncryption => "it answered without encryption".to_owned(),
            KeyMismatch::Other(key) | KeyMismatch::NotBelieved(key) => format!("it proved the key {key}"),
        };
        let forget = format!(
            "ask its operator what `relay-node key` prints there. If the node has a new key: relay-client known forget '{}'",
            self.way
        );
        match (&self.expectation, mismatch) {
            (Expectation::Pinned(pins), _) => {
                format!("{shown}, but {} is pinned; ask its operator which key is right", listed(pins))
            }
            (Expectation::Known(known), _) => {
                let since = known.first().map(|known| known.since.to_string()).unwrap_or_default();
                let keys: Vec<PublicKey> = known.iter().map(|known| known.key).collect();
                format!(
                    "{shown}, but {} is known since {since}; somebody may sit in between: {forget}",
                    listed(&keys)
                )
            }
            (Expectation::Unknown, KeyMismatch::NoEncryption) => {
                format!("{shown}; --plain takes files in the clear, which every relay can read and change")
            }
            (Expectation::Unknown, _) => match self.book.no_first_contact {
                Some(why) => format!("{shown}, which is not known; {why}"),
                None => {
                    format!("{shown}, but another connection of this run met another one there; {forget}")
                }
            },
        }
    }
}

fn way(route: &Route) -> Way {
    Way::to_origin(route)
}

fn listed(keys: &[PublicKey]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// All known nodes, in their file's order.
///
/// # Errors
/// A file that cannot be read.
pub fn known() -> Result<Vec<Known>, Failure> {
    Ok(read(&place()?)?.iter().cloned().collect())
}

/// Takes out what is known of the node at the end of `way`, and returns it.
///
/// # Errors
/// A file that cannot be read or written.
pub fn forget(way: &Way) -> Result<Vec<Known>, Failure> {
    let path = place()?;
    let fail = |error| Failure::local("write", &path, error);
    let lock = locked(&path).map_err(fail)?;
    let mut nodes = read(&path)?;
    let gone = nodes.forget(way);
    if !gone.is_empty() {
        let draft = path.with_extension("new");
        fs::write(&draft, nodes.to_string()).map_err(fail)?;
        fs::rename(&draft, &path).map_err(fail)?;
    }
    drop(lock);
    Ok(gone)
}

fn place() -> Result<PathBuf, Failure> {
    let state = state_directory::of_user(|name| std::env::var_os(name));
    let no_home = || Failure::Usage("there is no place for known nodes: HOME is not set".to_owned());
    Ok(state.ok_or_else(no_home)?.join(FILE))
}

fn read(path: &Path) -> Result<KnownNodes, Failure> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(KnownNodes::default()),
        Err(error) => return Err(Failure::local("read", path, error)),
        Ok(file) => file
            .take(MAX_KNOWN_FILE as u64)
            .read_to_string(&mut text)
            .map_err(|error| Failure::local("read", path, error))?,
    };
    // A file that is half understood is of no use: the line that is not might be the one that warns.
    KnownNodes::parse(&text).map_err(|errors| {
        Failure::Usage(format!(
            "the known nodes in {} cannot be read; mend or remove the file:\n{errors}",
            show::path(path)
        ))
    })
}

/// Adds a line, unless another run has met somebody there meanwhile.
fn append(path: &Path, known: &Known) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let _lock = locked(path)?;
    let is_there = fs::read_to_string(path).ok().and_then(|text| KnownNodes::parse(&text).ok());
    if is_there.is_some_and(|nodes| nodes.at(&known.way).next().is_some()) {
        return Ok(());
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(format!("{known}\n").as_bytes())?;
    file.sync_data()
}

/// Keeps other runs from changing the file meanwhile.
fn locked(path: &Path) -> io::Result<File> {
    let lock = OpenOptions::new().create(true).append(true).open(path.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
}

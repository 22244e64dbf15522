//! The document root: the only place that opens served files, for both faces of a node.
//!
//! A name comes raw from a peer, as bytes. Nothing is decoded here: `%2e%2e` is a name of six characters. What leads outside, what
//! is no regular file, what is hidden and what does not exist is all the same [`RootError::NotFound`]; its reason is for
//! the node's own log and may never reach a peer.
//!
//! All calls block on the file system; callers use the blocking pool. No other module may open a file that a peer named.

mod desk;
mod gate;
mod hung;
mod kept;
mod list;
mod names;
mod page;
mod regular;
mod walk;

pub use crate::platform::beneath::Reach;
pub use page::{EntryKind, ListEntry, ListPage, ListQuery, MAX_LIST_PAGE, path_order};

#[cfg(any(test, not(unix)))]
use crate::platform::beneath::since_1970;
use crate::platform::beneath::{Entry, RootDirectory};
use crate::platform::failure;
use desk::Desk;
use gate::Gate;
use hung::Hung;
use kept::KeptWalks;
use regular::Regular;
use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest name that is looked up, in bytes (Linux's own limit, path_resolution(7)).
pub const MAX_NAME_BYTES: usize = 4095;
/// The endings of an unfinished download and of its journal.
const UNFINISHED: [&str; 2] = [".part", ".part.journal"];

const NO_REGULAR_FILE: &str = "is not a regular file";

/// A directory whose regular files may be read by peers, and nothing else.
#[derive(Debug)]
pub struct DocumentRoot {
    /// `None`: it holds nothing.
    directory: Option<RootDirectory>,
    /// The directory's path without links, when there is one: what [`DocumentRoot::reached`] compares with.
    path: Option<PathBuf>,
    show_hidden: bool,
    hung: Arc<Hung>,
    kept: Arc<KeptWalks>,
    desk: Arc<Desk>,
    gate: Gate,
    regular: Regular,
    looks: AtomicU64,
    reads: AtomicU64,
}

/// What listings have cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListWork {
    /// Names and directories that were looked at.
    pub looks: u64,
    /// Names that were read from directories.
    pub reads: u64,
    /// The most pages that were made at the same time.
    pub most_at_work: usize,
}

/// A regular file, open for reading, and what it was when it was opened.
#[derive(Debug)]
pub struct ServedFile {
    /// Open for reading; its position is not used, read it at offsets.
    pub file: File,
    /// As it was when the file was opened; [`ServedFile::meta_now`] asks again.
    pub meta: FileMeta,
}

/// What a name stands for.
#[derive(Debug)]
pub enum Opened {
    /// A regular file.
    File(ServedFile),
    /// A directory; its names come from [`DocumentRoot::list`].
    Directory,
}

/// What an answer says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMeta {
    /// In bytes.
    pub size: u64,
    /// Seconds since 1970 (negative before) and nanoseconds in that second.
    pub modified: (i64, u32),
    /// Tells this state of this file from every other.
    pub identity: FileIdentity,
    /// How many names the file has, so that an unlink can be told from a change; always 1 where the system does not say.
    pub links: u64,
    /// Whether anybody may execute it. Always false where the system has no such mark.
    pub executable: bool,
}

/// Two equal identities are the same file with the same content, as far as the file system can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// The file system's device number; 0 where there is none.
    pub device: u64,
    /// The file's number on that device; 0 where there is none.
    pub inode: u64,
    /// In bytes.
    pub size: u64,
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Change time, seconds and nanoseconds; the time of creation on systems without one.
    pub ctime: (i64, u32),
}

/// Why a file cannot be had. Peers see 404, 503 or 500 and nothing of the text.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// There is no such file for a peer, whatever there is on the disk.
    #[error("{reason}")]
    NotFound {
        /// For the node's own log only.
        reason: Cow<'static, str>,
    },
    /// It is there, and the node's user may not read it. To a peer the same as `NotFound`, but for a mark in a listing.
    #[error("the node's user may not read it")]
    Denied,
    /// It does not lie on the document root's own mount, where alone it was looked for.
    #[error("leads out of the document root, or onto another mount")]
    Elsewhere,
    /// Somebody holds a lease on the file, and has not given it up yet.
    #[error("another program holds a lease on it")]
    Leased,
    /// What it lies on does not answer.
    #[error("its disk does not answer")]
    Hung,
    /// More wait for the same than may, or for longer than one may.
    #[error("too much is asked for at the moment")]
    Busy,
    /// Nobody waits for it any more.
    #[error("nobody waits for it any more")]
    Abandoned,
    /// The process or the system has no descriptor left; it may be better soon.
    #[error(
        "too many open files; raise the limit of the node's process (ulimit -n) or lower --max-connections"
    )]
    TooManyFiles,
    /// The file system failed.
    #[error("the document root cannot be read: {0}")]
    Io(#[source] io::Error),
}

impl DocumentRoot {
    /// Opens the directory. With `show_hidden` names that begin with a dot and unfinished downloads are served too.
    ///
    /// # Errors
    /// When there is no such directory or it cannot be opened.
    pub fn open(directory: impl AsRef<Path>, show_hidden: bool) -> Result<Self, RootError> {
        let path = directory.as_ref();
        let directory = RootDirectory::open(path).map_err(|error| {
            let text = format!(
                "{}: {error}; name a directory that the node's user may read with --root",
                path.display()
            );
            RootError::Io(io::Error::new(error.kind(), text))
        })?;
        Ok(Self { path: std::fs::canonicalize(path).ok(), ..Self::of(Some(directory), show_hidden) })
    }

    /// The name that a name leads to when all links are followed; none when nothing is there, or it lies outside.
    ///
    /// It opens nothing. Who may change links in here between this and the opening may as well change the files.
    #[must_use]
    pub fn reached(&self, name: &str) -> Option<String> {
        self.check_name(name.as_bytes()).ok()?;
        let root = self.path.as_deref()?;
        let reached = std::fs::canonicalize(root.join(name)).ok()?;
        let components = reached.strip_prefix(root).ok()?.components();
        let names: Option<Vec<&str>> = components.map(|component| component.as_os_str().to_str()).collect();
        Some(names?.join("/"))
    }

    /// A document root without any file, for a node that only passes on.
    #[must_use]
    pub fn empty() -> Self {
        Self::of(None, false)
    }

    fn of(directory: Option<RootDirectory>, show_hidden: bool) -> Self {
        let (hung, kept) = (Arc::<Hung>::default(), Arc::<KeptWalks>::default());
        let tidied = Arc::clone(&kept);
        let desk = Arc::new(Desk::new(Arc::clone(&hung), Box::new(move || tidied.tidy())));
        let (looks, reads) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            path: None,
            directory,
            show_hidden,
            hung,
            kept,
            desk,
            gate: Gate::default(),
            regular: Regular::default(),
            looks,
            reads,
        }
    }

    /// Opens a regular file by a name as a peer sent it.
    ///
    /// # Errors
    /// See [`RootError`]; a directory is `NotFound` here.
    pub fn open_file(&self, name: impl AsRef<[u8]>, reach: Reach) -> Result<ServedFile, RootError> {
        match self.open_entry(name, reach)? {
            Opened::File(file) => Ok(file),
            Opened::Directory => Err(RootError::not_found("is a directory")),
        }
    }

    /// Opens a regular file, or says that the name is a directory. The empty name is the document root itself.
    ///
    /// # Errors
    /// See [`RootError`]; [`RootError::Elsewhere`] when the name leads further than `reach`.
    pub fn open_entry(&self, name: impl AsRef<[u8]>, reach: Reach) -> Result<Opened, RootError> {
        let name = name.as_ref();
        if name.is_empty() {
            return Ok(Opened::Directory);
        }
        self.check_name(name)?;
        let (directory, from_io) = (self.directory()?, |error| RootError::from_reach(error, reach));
        if !self.regular.knows(name) {
            let metadata = directory.metadata_beneath(name, reach).map_err(from_io)?;
            if metadata.is_dir() {
                return Ok(Opened::Directory);
            }
            if !metadata.is_file() {
                return Err(RootError::not_found(NO_REGULAR_FILE));
            }
        }
        let entry = directory.open_beneath(name, reach).map_err(from_io).and_then(opened);
        match entry {
            Ok(Opened::File(_)) => self.regular.note(name),
            _ => self.regular.forget(name),
        }
        entry
    }

    /// The same, but only as far as the system can tell from its memory: never waits for a disk, so it may be called
    /// outside the blocking pool. `None` means to ask [`DocumentRoot::open_entry`].
    #[must_use]
    pub fn open_entry_cached(&self, name: impl AsRef<[u8]>) -> Option<Result<Opened, RootError>> {
        let name = name.as_ref();
        if name.is_empty() {
            return Some(Ok(Opened::Directory));
        }
        if let Err(error) = self.check_name(name) {
            return Some(Err(error));
        }
        match self.directory() {
            Ok(directory) => self.open_cached(directory, name),
            Err(error) => Some(Err(error)),
        }
    }

    fn open_cached(&self, directory: &RootDirectory, name: &[u8]) -> Option<Result<Opened, RootError>> {
        if !self.regular.knows(name) {
            match directory.metadata_beneath_cached(name)?.map_err(RootError::from_io) {
                Ok(metadata) if metadata.is_file() => self.regular.note(name),
                Ok(metadata) if metadata.is_dir() => return Some(Ok(Opened::Directory)),
                Ok(_) => return Some(Err(RootError::not_found(NO_REGULAR_FILE))),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(directory.open_beneath_cached(name)?.map_err(RootError::from_io).and_then(opened))
    }

    /// Runs `work` about a name in the blocking pool so that whatever never answers there harms nobody else: first on the document
    /// root's own mount, and where that is [`RootError::Elsewhere`], in a turn of its own anywhere. A file under a lease is tried again
    /// for a while.
    ///
    /// # Errors
    /// What `work` says, [`RootError::Hung`] and [`RootError::Busy`].
    pub async fn patiently<T: Send + 'static>(
        self: &Arc<Self>,
        name: &[u8],
        work: impl Fn(Reach) -> Result<T, RootError> + Send + Sync + 'static,
    ) -> Result<T, RootError> {
        gate::patiently(self, name, work).await
    }

    /// One page of names, made at once.
    ///
    /// A prefix that nothing begins with, or that no name may begin with, gives an empty page.
    ///
    /// # Errors
    /// When the file system fails; what cannot be read beneath the prefix is counted instead.
    pub fn list(&self, query: ListQuery<'_>) -> Result<ListPage, RootError> {
        list::page(self, query, &mut |_| true, &|_| true)
    }

    /// The same when it is the peer's turn: pages are made by a few threads of their own, and every peer has one turn after the
    /// other. `fits` says of each entry whether the page takes it, too. May be called outside the blocking pool; dropped, it ends the work.
    ///
    /// # Errors
    /// The same, [`RootError::Busy`] when it would take too long, and [`RootError::Hung`].
    pub async fn list_in_turn(
        self: &Arc<Self>,
        query: ListQuery<'_>,
        peer: Option<IpAddr>,
        fits: impl FnMut(&ListEntry) -> bool + Send + 'static,
    ) -> Result<ListPage, RootError> {
        list::page_in_turn(self, query, peer, fits).await
    }

    /// What listings have cost so far.
    #[must_use]
    pub fn list_work(&self) -> ListWork {
        ListWork {
            looks: self.looks.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            most_at_work: self.desk.most_at_work(),
        }
    }

    fn note_work(&self, looks: usize, reads: usize) {
        self.looks.fetch_add(looks as u64, Ordering::Relaxed);
        self.reads.fetch_add(reads as u64, Ordering::Relaxed);
    }

    fn directory(&self) -> Result<&RootDirectory, RootError> {
        self.directory.as_ref().ok_or_else(|| RootError::not_found("there is no document root"))
    }

    /// Refuses every name that is not plainly the path of a file that may be shown.
    fn check_name(&self, name: &[u8]) -> Result<(), RootError> {
        if name.len() > MAX_NAME_BYTES {
            return Err(RootError::not_found("the name is too long"));
        }
        if name.contains(&b'\0') || name.contains(&b'\\') {
            return Err(RootError::not_found("the name holds a NUL or a backslash"));
        }
        for component in name.split(|&byte| byte == b'/') {
            match component {
                b"" => return Err(RootError::not_found("the name is absolute or has an empty component")),
                b"." | b".." => return Err(RootError::not_found("the name has a component of dots")),
                hidden if self.is_hidden(hidden) => return Err(RootError::not_found("is hidden")),
                _ => {}
            }
        }
        Ok(())
    }

    fn is_hidden(&self, component: &[u8]) -> bool {
        !self.show_hidden && (component.starts_with(b".") || is_unfinished(component))
    }
}

fn opened(entry: Entry) -> Result<Opened, RootError> {
    match entry {
        Entry::File(file, metadata) => Ok(Opened::File(ServedFile { file, meta: meta_of(&metadata) })),
        Entry::Directory => Ok(Opened::Directory),
        Entry::Other => Err(RootError::not_found(NO_REGULAR_FILE)),
    }
}

/// Upper case too: some file systems do not tell the cases apart.
fn is_unfinished(component: &[u8]) -> bool {
    UNFINISHED.iter().any(|ending| {
        component
            .len()
            .checked_sub(ending.len())
            .and_then(|start| component.get(start..))
            .is_some_and(|tail| tail.eq_ignore_ascii_case(ending.as_bytes()))
    })
}

impl ServedFile {
    /// What the open file is now. It differs from `meta` when the file was changed since.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn meta_now(&self) -> io::Result<FileMeta> {
        self.file.metadata().map(|metadata| meta_of(&metadata))
    }
}

impl FileMeta {
    /// A strong validator: 32 hexadecimal digits made of the identity without the device, so that it survives a restart
    /// of the machine. HTTP puts it in quotes.
    #[must_use]
    pub fn entity_tag(&self) -> String {
        let FileIdentity { device: _, inode, size, mtime, ctime } = self.identity;
        let mut hasher = blake3::Hasher::new();
        for number in [inode, size, mtime.0.cast_unsigned(), ctime.0.cast_unsigned()] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&mtime.1.to_le_bytes()).update(&ctime.1.to_le_bytes());
        let mut tag = hasher.finalize().to_hex().to_string();
        tag.truncate(32);
        tag
    }
}

impl RootError {
    fn not_found(reason: &'static str) -> Self {
        Self::NotFound { reason: reason.into() }
    }

    fn from_reach(error: io::Error, reach: Reach) -> Self {
        if reach == Reach::OwnMount && error.kind() == io::ErrorKind::CrossesDevices {
            return Self::Elsewhere;
        }
        Self::from_io(error)
    }

    fn from_io(error: io::Error) -> Self {
        match failure::absence(&error) {
            Some(reason) => Self::not_found(reason),
            None if failure::is_denied(&error) => Self::Denied,
            None if failure::is_leased(&error) => Self::Leased,
            None if failure::is_out_of_descriptors(&error) => Self::TooManyFiles,
            None => Self::Io(error),
        }
    }
}

#[cfg(unix)]
fn meta_of(metadata: &Metadata) -> FileMeta {
    use std::os::unix::fs::MetadataExt;
    let modified = (metadata.mtime(), nanoseconds(metadata.mtime_nsec()));
    FileMeta {
        size: metadata.size(),
        modified,
        identity: FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: modified,
            ctime: (metadata.ctime(), nanoseconds(metadata.ctime_nsec())),
        },
        links: metadata.nlink(),
        executable: metadata.mode() & 0o111 != 0,
    }
}

#[cfg(unix)]
fn nanoseconds(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

#[cfg(not(unix))]
fn meta_of(metadata: &Metadata) -> FileMeta {
    let modified = metadata.modified().map_or((0, 0), since_1970);
    FileMeta {
        size: metadata.len(),
        modified,
        identity: FileIdentity {
            device: 0,
            inode: 0,
            size: metadata.len(),
            mtime: modified,
            ctime: metadata.created().map_or((0, 0), since_1970),
        },
        links: 1,
        executable: false,
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;

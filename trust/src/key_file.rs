//! The file that keeps a secret key: PKCS#8 PEM that nobody but its owner may read.
//!
//! A file that others may read is refused rather than mended, because they may have read it already. Nothing in here
//! replaces a file that is there.

use crate::key::{KeyError, SecretKey};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The largest file that is read as a key, in bytes; a key takes 119.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// Reads the secret key in `path`.
///
/// # Errors
/// When it is missing, cannot be read, may be read by others, or holds no key.
pub fn read(path: &Path) -> Result<SecretKey, KeyFileError> {
    let fail = |error| KeyFileError::Io { path: path.to_owned(), doing: "read", error };
    let file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if let Some(mode) = private::too_open(&metadata) {
        return Err(KeyFileError::OthersMayRead { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(512));
    file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(fail)?;
    SecretKey::from_pem(&text).map_err(|error| KeyFileError::NoKey { path: path.to_owned(), error })
}

/// Makes a key and keeps it in `path`, which must not exist; directories on the way are made for their owner alone. When
/// this returns, the file is whole and on the disk.
///
/// # Errors
/// When `path` exists or cannot be written.
pub fn create(path: &Path) -> Result<SecretKey, KeyFileError> {
    let fail = |error| KeyFileError::Io { path: path.to_owned(), doing: "write", error };
    let refuse = |error| KeyFileError::NoKey { path: path.to_owned(), error };
    let key = SecretKey::generate().map_err(refuse)?;
    let text = key.to_pem().map_err(refuse)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    private::create_directory(directory).map_err(fail)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let number = getrandom::u64().map_err(|_| refuse(KeyError::NoRandomness))?;
    name.push(format!(".new-{number:016x}"));
    let draft = directory.join(name);
    let written = write_draft(&draft, text.as_bytes());
    let linked = written.and_then(|()| place(&draft, path, |draft, path| fs::hard_link(draft, path)));
    let _ = fs::remove_file(&draft);
    linked.and_then(|()| private::sync_directory(directory)).map_err(fail)?;
    Ok(key)
}

/// Reads the key in `path`, or makes it when nothing is there. Says which.
///
/// # Errors
/// As [`read`] and [`create`].
pub fn read_or_create(path: &Path) -> Result<(SecretKey, Origin), KeyFileError> {
    match read(path) {
        Err(error) if error.is_missing() => {}
        result => return result.map(|key| (key, Origin::Found)),
    }
    match create(path) {
        Err(error) if error.is_taken() => read(path).map(|key| (key, Origin::Found)),
        result => result.map(|key| (key, Origin::Made)),
    }
}

/// Gives the draft its name. A link, unlike a rename, never replaces: of two programs that start at once, one makes the key and
/// both use it. Where the file system has no links, looking first has to do.
fn place(draft: &Path, path: &Path, link: impl FnOnce(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
    match link(draft, path) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) =>
        {
            if path.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(draft, path)
        }
        result => result,
    }
}

/// Where a key came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    Found,
    /// It was made just now.
    Made,
}

fn write_draft(draft: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = private::create_new(draft)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Why a key file is of no use. No part of its content is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The system refused.
    #[error("cannot {doing} the key file {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was to be done: `read` or `write`.
        doing: &'static str,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Its mode lets others read it.
    #[error(
        "the key file {} may be read by others (mode {mode:04o}); if nobody has, run `chmod 600 {}`, else make a new key",
        path.display(), path.display()
    )]
    OthersMayRead {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds no key.
    #[error("the key file {}: {error}; restore it from a copy, or move it away to have a new key made", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: KeyError,
    },
}

impl KeyFileError {
    /// Whether nothing is there yet.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, KeyFileError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    fn is_taken(&self) -> bool {
        matches!(self, KeyFileError::Io { error, .. } if error.kind() == io::ErrorKind::AlreadyExists)
    }
}

/// Files and directories for their owner alone.
#[cfg(unix)]
mod private {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
    use std::path::Path;

    /// The permission bits, when they let anybody but the owner in.
    pub fn too_open(metadata: &Metadata) -> Option<u32> {
        let mode = metadata.permissions().mode() & 0o7777;
        (mode & 0o077 != 0).then_some(mode)
    }

    pub fn create_new(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    pub fn create_directory(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    pub fn sync_directory(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// Where there are no permission bits, the directory's own protection has to do.
#[cfg(not(unix))]
mod private {
    use std::fs::{self, File, Metadata, OpenOptions};
    use std::io;
    use std::path::Path;

    pub fn too_open(_metadata: &Metadata) -> Option<u32> {
        None
    }

    pub fn create_new(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    pub fn create_directory(path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    pub fn sync_directory(_path: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/relay/node.key");
        assert!(read(&path).unwrap_err().is_missing());
        let (made, origin) = read_or_create(&path).unwrap();
        assert_eq!(origin, Origin::Made);
        let (found, origin) = read_or_create(&path).unwrap();
        assert_eq!((found.public(), origin), (made.public(), Origin::Found));
        assert!(create(&path).unwrap_err().is_taken());
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1, "the draft went");
    }

    #[test]
    fn all_who_start_at_once_get_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        let starters: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                thread::spawn(move || read_or_create(&path).unwrap())
            })
            .collect();
        let keys: Vec<_> = starters.into_iter().map(|starter| starter.join().unwrap()).collect();
        assert_eq!(keys.iter().filter(|(_, origin)| *origin == Origin::Made).count(), 1);
        let kept = read(&path).unwrap().public();
        assert!(keys.iter().all(|(key, _)| key.public() == kept));
    }

    /// FAT has no links, and some containers' volumes neither.
    #[test]
    fn a_file_system_without_links_keeps_a_key_too() {
        let directory = tempfile::tempdir().unwrap();
        let (draft, path) = (directory.path().join("draft"), directory.path().join("node.key"));
        let no_links = |kind: io::ErrorKind| move |_: &Path, _: &Path| Err(io::Error::from(kind));
        fs::write(&draft, "a").unwrap();
        place(&draft, &path, no_links(io::ErrorKind::PermissionDenied)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"a");
        fs::write(&draft, "b").unwrap();
        let taken = place(&draft, &path, no_links(io::ErrorKind::Unsupported)).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        let failed = place(&draft, &path, no_links(io::ErrorKind::StorageFull)).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"a");
    }

    #[cfg(unix)]
    #[test]
    fn a_key_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/node.key");
        create(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        for open in [0o640, 0o604, 0o660, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
            let text = read(&path).unwrap_err().to_string();
            assert!(text.contains(&format!("(mode {open:04o})")), "{text}");
            assert!(text.contains("chmod 600"), "{text}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        read(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_broken_key_file_is_neither_used_nor_replaced_nor_quoted() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        for content in ["", "secret words", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let text = read_or_create(&path).unwrap_err().to_string();
            assert!(text.contains("move it away to have a new key made"), "{text}");
            assert!(!text.contains("secret words") && !text.contains("AAAA"), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}

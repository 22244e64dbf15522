//! The cache's directory at the start: is it one, does nobody else use it, and what does it hold.

use super::index::Index;
use super::{BLOCK, StoreError};
use crate::http::cache::key::KeyId;
use crate::platform::lock::Lock;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Its name stands in the directory, and its text says which format the directory has.
pub(super) const MARKER: &str = "relay-cache";
const MARKER_TEXT: &str = "relay-node cache, format 2\n";

/// What the system refused, with which file.
pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.display().to_string();
    move |source| StoreError::Io { what, path, source }
}

/// A directory that somebody named by mistake must not be swept.
pub(super) fn check_marker(dir: &Path) -> Result<(), StoreError> {
    let dir_text = || dir.display().to_string();
    match fs::read_to_string(dir.join(MARKER)) {
        Ok(text) if text == MARKER_TEXT => Ok(()),
        Ok(found) => {
            Err(StoreError::OtherFormat { dir: dir_text(), found: found.chars().take(60).collect() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut others = fs::read_dir(dir).map_err(failed("read the directory", dir))?;
            let foreign = others.any(|file| file.is_ok_and(|file| file.file_name() != "lock"));
            if foreign { Err(StoreError::NotACache { dir: dir_text() }) } else { Ok(()) }
        }
        Err(error) => Err(failed("read", &dir.join(MARKER))(error)),
    }
}

pub(super) fn write_marker(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(MARKER);
    if path.exists() {
        return Ok(());
    }
    // Under another name first would be a file that the next start takes for a foreign one.
    fs::write(&path, MARKER_TEXT).map_err(failed("write", &path))
}

/// The directories that a cache's directory holds.
pub(super) fn make_parts(dir: &Path) -> Result<(), StoreError> {
    for part in [dir.join("tmp"), dir.join("entries")] {
        fs::create_dir_all(&part).map_err(failed("make the directory", &part))?;
    }
    Ok(())
}

/// Where the system has no such lock, two processes on one cache waste each other's work but serve nothing torn: no name
/// is used for a second body.
pub(super) fn lock(dir: &Path) -> Result<Lock, StoreError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open", &path))?;
    let Some(lock) = Lock::try_on(file).map_err(failed("lock", &path))? else {
        let mut text = String::new();
        let holder = match File::open(&path).and_then(|file| file.take(32).read_to_string(&mut text)) {
            Ok(_) if !text.trim().is_empty() => format!(" (process {})", text.trim()),
            _ => String::new(),
        };
        return Err(StoreError::InUse { dir: dir.display().to_string(), holder });
    };
    let noted = lock.file().set_len(0).and_then(|()| write!(lock.file(), "{}", std::process::id()));
    noted.map_err(failed("write", &path))?;
    Ok(lock)
}

pub(super) fn sweep(dir: &Path) -> Result<(), StoreError> {
    for file in fs::read_dir(dir).map_err(failed("read the directory", dir))?.flatten() {
        let path = file.path();
        fs::remove_file(&path).map_err(failed("remove", &path))?;
    }
    Ok(())
}

/// One found entry: when it was used last, its key, its number, what it takes.
type Found = (SystemTime, KeyId, u64, u64);

pub(super) fn read_index(entries: &Path) -> Result<(Index, u64), StoreError> {
    let mut found: Vec<Found> = Vec::new();
    for dir in fs::read_dir(entries).map_err(failed("read the directory", entries))?.flatten() {
        found.extend(read_entry_dir(&dir.path())?);
    }
    found.sort_unstable();
    let mut index = Index::default();
    let last = found.iter().map(|(_, _, number, _)| *number).max().unwrap_or(0);
    for (_, id, number, size) in found {
        index.add(id, number, size, Duration::ZERO);
    }
    for rows in index.keys.values_mut() {
        rows.sort_by_key(|row| row.number);
    }
    Ok((index, last))
}

/// The whole entries of one directory; what is left of others is removed.
fn read_entry_dir(dir: &Path) -> Result<Vec<Found>, StoreError> {
    let mut records: HashMap<(KeyId, u64), (SystemTime, u64)> = HashMap::new();
    let mut bodies: HashMap<(KeyId, u64), u64> = HashMap::new();
    for file in fs::read_dir(dir).map_err(failed("read the directory", dir))?.flatten() {
        let Ok(meta) = file.metadata() else { continue };
        let name = file.file_name();
        match name.to_str().and_then(parse_name) {
            Some((name, "json")) => {
                let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                records.insert(name, (used, meta.len()));
            }
            Some((name, "body")) => drop(bodies.insert(name, meta.len())),
            _ => {}
        }
    }
    for (id, number) in bodies.keys().filter(|name| !records.contains_key(name)) {
        drop(fs::remove_file(dir.join(format!("{id}-{number:016x}.body"))));
    }
    let mut found = Vec::with_capacity(records.len());
    for ((id, number), (used, record_size)) in records {
        match bodies.get(&(id, number)) {
            Some(length) => {
                let size = (length + record_size).next_multiple_of(BLOCK) + BLOCK;
                found.push((used, id, number, size));
            }
            None => drop(fs::remove_file(dir.join(format!("{id}-{number:016x}.json")))),
        }
    }
    Ok(found)
}

fn parse_name(name: &str) -> Option<((KeyId, u64), &str)> {
    let (stem, ending) = name.split_once('.')?;
    let (id, number) = stem.split_once('-')?;
    Some(((KeyId::parse(id)?, u64::from_str_radix(number, 16).ok()?), ending))
}

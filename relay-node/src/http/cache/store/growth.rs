//! A body on its way into the store: written while it comes, an entry as soon as it is whole, on the disk a moment later.

use super::directory::failed;
use super::{BLOCK, Store, StoreError};
use crate::http::cache::entry::{Entry, Head, Record, SMALL_BODY, Stored};
use crate::http::cache::key::{Key, KeyId};
use crate::http::seals::{Sealer, Seals};
use crate::platform::positioned::write_all_at;
use bytes::Bytes;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A body on its way into the store. Dropping it throws it away.
#[derive(Debug)]
pub struct Growth {
    store: Arc<Store>,
    path: PathBuf,
    file: Arc<File>,
    number: u64,
    length: u64,
    reserved: u64,
    sealer: Sealer,
    small: Option<Vec<u8>>,
    published: Option<(Key, Arc<Entry>)>,
}

impl Growth {
    pub(super) fn new(store: &Arc<Store>) -> Result<Self, StoreError> {
        let number = store.next.fetch_add(1, Ordering::Relaxed);
        let path = store.dir.join("tmp").join(format!("{number:016x}"));
        let create = || OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                store.make_again()?;
                create()
            }
            created => created,
        };
        let file = file.map_err(failed("create", &path))?;
        Ok(Self {
            store: Arc::clone(store),
            path,
            file: Arc::new(file),
            number,
            length: 0,
            reserved: 0,
            sealer: Sealer::default(),
            small: Some(Vec::new()),
            published: None,
        })
    }

    /// How many bytes it holds.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether it is an entry already.
    pub fn is_published(&self) -> bool {
        self.published.is_some()
    }

    /// The file, for those who read it while it grows.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Adds to the end. After an error nothing of these bytes counts as written.
    pub fn write(&mut self, pieces: &[Bytes]) -> Result<(), StoreError> {
        let more: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.reserve(self.length + more)?;
        for piece in pieces {
            write_all_at(&self.file, piece, self.length).map_err(failed("write", &self.path))?;
            self.sealer.update(piece);
            if let Some(small) = &mut self.small {
                small.extend_from_slice(piece);
            }
            self.length += piece.len() as u64;
            if self.length > SMALL_BODY {
                self.small = None;
            }
        }
        Ok(())
    }

    /// Makes an entry of it that is found from now on, in place of what was stored for the same key and request fields. It
    /// outlives the process once it is also [kept](Self::keep).
    pub fn publish(&mut self, key: &Key, mut head: Head) -> Result<(), StoreError> {
        head.length = self.length;
        let small = self.small.take().map(Bytes::from);
        let (hash, body) = match small {
            Some(body) => (blake3::hash(&body), Stored::Memory(body)),
            None => self.seal()?,
        };
        let record = Record::new(&head, hash);
        self.reserve(Entry::file_length(self.length) + record.size())?;
        let entry = Arc::new(Entry::new(self.number, head, hash, record.size(), body));
        let older = self.store.rows(key);
        self.store.hot.insert(self.number, Arc::clone(&entry));
        {
            let mut index = self.store.index();
            index.reserved -= self.reserved;
            index.arriving.insert(self.number, Arc::clone(&entry));
            index.add(key.id(), self.number, self.reserved, self.store.opened.elapsed());
            if let Some(row) = index.row(key.id(), self.number) {
                row.seals = entry.in_file().map(|(_, seals)| Arc::clone(seals));
            }
            self.reserved = 0;
        }
        self.store.replace(key, &entry, older);
        self.published = Some((key.clone(), entry));
        Ok(())
    }

    /// Brings a published entry to the disk.
    pub fn keep(mut self) -> Result<(), StoreError> {
        let Some((key, entry)) = self.published.take() else { return Ok(()) };
        let (store, id) = (Arc::clone(&self.store), key.id());
        // The origin may have confirmed it meanwhile.
        let entry = store.index().arriving.get(&self.number).cloned().unwrap_or(entry);
        let record = Record::new(entry.head(), entry.hash());
        let kept = self.rename_and_record(id, &record);
        self.store.index().arriving.remove(&self.number);
        if kept.is_err() {
            store.remove_row(id, self.number);
        } else if !store.holds(id, self.number) {
            // Evicted before the files were there to be deleted.
            store.delete_files(id, self.number);
        }
        kept
    }

    /// Both, one after the other.
    #[cfg(test)]
    pub fn commit(mut self, key: &Key, head: Head) -> Result<(), StoreError> {
        self.publish(key, head)?;
        self.keep()
    }

    /// Writes the hashes of the body's pieces behind it, and returns the hash of those, and the body.
    fn seal(&mut self) -> Result<(blake3::Hash, Stored), StoreError> {
        let list = self.sealer.list();
        self.reserve(self.length + list.len() as u64)?;
        write_all_at(&self.file, &list, self.length).map_err(failed("write", &self.path))?;
        let seals = Seals::written(&list, self.length);
        Ok((blake3::hash(&list), Stored::File(self.file(), Arc::new(seals))))
    }

    fn rename_and_record(&mut self, id: KeyId, record: &Record) -> Result<(), StoreError> {
        let body = self.store.path(id, self.number, "body");
        if let Some(parent) = body.parent() {
            fs::create_dir_all(parent).map_err(failed("make the directory", parent))?;
        }
        self.file.sync_data().map_err(failed("write", &self.path))?;
        fs::rename(&self.path, &body).map_err(failed("write", &body))?;
        self.path = PathBuf::new();
        let written = self.store.write_record(&self.store.path(id, self.number, "json"), record, true);
        if written.is_err() {
            drop(fs::remove_file(&body));
        }
        written
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), StoreError> {
        let wanted = bytes.next_multiple_of(BLOCK) + BLOCK;
        if wanted > self.reserved {
            self.store.make_room(wanted - self.reserved)?;
            self.reserved = wanted;
        }
        Ok(())
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        if self.reserved > 0 {
            self.store.index().reserved -= self.reserved;
        }
        if let Some((key, _)) = self.published.take() {
            self.store.index().arriving.remove(&self.number);
            self.store.remove_row(key.id(), self.number);
        }
        if !self.path.as_os_str().is_empty() {
            drop(fs::remove_file(&self.path));
        }
    }
}

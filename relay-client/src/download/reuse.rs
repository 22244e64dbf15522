//! What of the file is here already: in a part file that an earlier run left, or under the final name as an older version.

use super::Download;
use super::End;
use super::output::Output;
use super::question::Question;
use crate::beneath::{file_time, has_other_names};
use crate::event::Event;
use crate::failure::Failure;
use crate::journal::{Entry, Journal};
use crate::part_file::{PartFile, place, sweep};
use crate::plan::Target;
use crate::scan::Scan;
use crate::show;
use filetime::FileTime;
use relay_proto::chunk::{CHUNK_LEN, chunk_len};
use relay_proto::digest::{ChunkHash, FileHash};
use relay_proto::file::{Conditions, FileFacts, Size, SizeAndTime, Timestamp};
use std::fs::{self, File};
use std::io;
use std::path::Path;

impl Download<'_> {
    /// Finds what an earlier run left.
    pub(super) async fn look_at_part(&mut self) -> Result<(), Failure> {
        let Target::File(target) = &self.plan.target else { return Ok(()) };
        let Some(part) = PartFile::find(target)? else { return Ok(()) };
        let held = Journal::read_of(&part);
        self.output = Some(Output::part(part)?);
        let Some(held) = held else { return Ok(()) };
        let found = self.scan_part(&held.file, held.chunks).await?;
        if !found.is_empty() {
            self.place(&found);
            self.version = Some(held.file);
            self.resumed = true;
        }
        Ok(())
    }

    /// The first request when no version was begun: a local copy may make the rest needless.
    pub(super) fn question_at_first(&self) -> Question {
        let local = match &self.plan.target {
            Target::File(path) => size_and_time(path),
            _ => None,
        };
        let Some(local) = local else { return Question::Whole(Conditions::default()) };
        let by_hash = self.plan.checksum || self.plan.expected.is_some();
        let conditions = Conditions { unless_same: (!by_hash).then_some(local), ..Conditions::default() };
        // A file of one chunk is fetched again sooner than it is compared.
        if by_hash || local.size.bytes() > CHUNK_LEN {
            Question::Hashes(conditions)
        } else {
            Question::Whole(conditions)
        }
    }

    /// Begins `version`, whose chunks' hashes are `wanted`, with all of it that is here; or says that the local copy is the same.
    pub(super) async fn prepare(
        &mut self,
        version: &FileFacts,
        wanted: Vec<Entry>,
    ) -> Result<Option<End>, Failure> {
        let size = version.size.bytes();
        let old = self.old_target();
        let in_target = self.scan_target(old.as_ref(), version, &wanted).await?;
        if let Some(in_target) = in_target.as_ref().filter(|found| found.len() == wanted.len()) {
            let hashes: Vec<ChunkHash> = in_target.iter().map(|(_, hash)| *hash).collect();
            let hash = FileHash::of_chunks(&hashes);
            if self.plan.expected.is_none_or(|expected| expected == hash) {
                if let Some(old) = &old {
                    renew_time(old, version.modified);
                }
                return Ok(Some(self.same("hash", Some(hash))));
            }
        }
        self.begin(version).await?;
        self.reuse(old, version, wanted, in_target).await?;
        let here = self.placed.bytes(size);
        if here > 0 {
            let (here, size) = (show::bytes(here), show::bytes(size));
            self.reporter.note(format!("{here} of {size} are here already"));
        }
        Ok(None)
    }

    /// Finds which of the wanted chunks the part file has, and copies further ones from the target's old version into it.
    async fn reuse(
        &mut self,
        old: Option<File>,
        version: &FileFacts,
        wanted: Vec<Entry>,
        in_target: Option<Vec<Entry>>,
    ) -> Result<(), Failure> {
        let in_part = self.scan_part(version, wanted.clone()).await?;
        self.place(&in_part);
        let mut wanted = in_target.unwrap_or(wanted);
        wanted.retain(|(index, _)| !self.placed.has(*index));
        let (Some(part), Some(old), Some(path)) = (self.part(), old, self.plan.target.path()) else {
            return Ok(());
        };
        let copy_to = Some(part.file()?);
        let part_path = part.path().to_owned();
        let found = self.scan(path, old, version, wanted, copy_to).await;
        self.place(&found.map_err(|e| Failure::local("write", &part_path, e))?);
        Ok(())
    }

    /// Which of the wanted chunks the target's old version has, when that can be all of them.
    async fn scan_target(
        &self,
        old: Option<&File>,
        version: &FileFacts,
        wanted: &[Entry],
    ) -> Result<Option<Vec<Entry>>, Failure> {
        let (Some(old), Some(path)) = (old, self.plan.target.path()) else { return Ok(None) };
        if old.metadata().map_or(0, |meta| meta.len()) != version.size.bytes() {
            return Ok(None);
        }
        let old = old.try_clone().map_err(|e| Failure::local("read", path, e))?;
        let found = self.scan(path, old, version, wanted.to_vec(), None).await;
        found.map(Some).map_err(|e| Failure::local("read", path, e))
    }

    async fn scan_part(&self, version: &FileFacts, wanted: Vec<Entry>) -> Result<Vec<Entry>, Failure> {
        let Some(part) = self.part() else { return Ok(Vec::new()) };
        let file = part.file()?;
        if file.metadata().map_or(0, |meta| meta.len()) == 0 {
            return Ok(Vec::new());
        }
        let found = self.scan(part.path(), file, version, wanted, None).await;
        found.map_err(|e| Failure::local("read", part.path(), e))
    }

    async fn scan(
        &self,
        path: &Path,
        file: File,
        version: &FileFacts,
        wanted: Vec<Entry>,
        copy_to: Option<File>,
    ) -> io::Result<Vec<Entry>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let file_size = version.size.bytes();
        let size = wanted.iter().map(|(index, _)| chunk_len(file_size, *index)).sum();
        self.reporter.event(&Event::Checking { path: show::path(path), size });
        Scan { file, file_size, wanted, copy_to }.run(self.reporter).await
    }

    /// The regular file that has the final name now. A link to one is not followed: what it leads to is none of this run's.
    fn old_target(&self) -> Option<File> {
        let Target::File(path) = &self.plan.target else { return None };
        let (directory, name) = place(path).ok()?;
        directory.read(name).ok()
    }

    pub(super) fn place(&mut self, found: &[Entry]) {
        let keeper = self.output.as_mut().and_then(|output| output.keeper.as_mut());
        if let Some(keeper) = keeper {
            found.iter().for_each(|entry| keeper.placed(*entry));
        }
        found.iter().for_each(|(index, hash)| self.placed.set(*index, *hash));
    }

    pub(super) fn same(&self, by: &'static str, hash: Option<FileHash>) -> End {
        if let Some(path) = self.plan.target.path() {
            if let Ok((directory, name)) = place(path) {
                sweep(&directory, &name);
            }
            let size = fs::metadata(path).map_or(0, |meta| meta.len());
            let hash = hash.map(|hash| hash.to_string());
            self.reporter.event(&Event::Same { path: show::path(path), size, by, hash });
        }
        End::Same
    }
}

/// The content is the same and its time is not: a quick look shall see that next time. Other names that the file has are somebody
/// else's, so one with several keeps its time.
fn renew_time(old: &File, modified: Timestamp) {
    if has_other_names(old) {
        return;
    }
    let _ = filetime::set_file_handle_times(old, None, Some(file_time(modified)));
}

/// What a quick look compares; none when there is no such file.
fn size_and_time(path: &Path) -> Option<SizeAndTime> {
    let meta = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
    let time = FileTime::from_last_modification_time(&meta);
    let modified = Timestamp::new(time.unix_seconds(), time.nanoseconds())?;
    Some(SizeAndTime { size: Size::try_from(meta.len()).ok()?, modified })
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn other_names_of_a_file_keep_their_time() {
        let place = tempfile::tempdir().unwrap();
        let (path, other) = (place.path().join("f"), place.path().join("other"));
        fs::write(&path, "123").unwrap();
        let old = File::open(&path).unwrap();
        let wanted = |seconds| Timestamp::new(seconds, 5).unwrap();
        let time = || size_and_time(&path).unwrap().modified;
        renew_time(&old, wanted(77));
        assert_eq!(time(), wanted(77));
        fs::hard_link(&path, other).unwrap();
        renew_time(&old, wanted(78));
        assert_eq!(time(), wanted(77));
    }
}

//! Where the chunks go, and what is remembered of it.

use super::placed::Placed;
use crate::console::{self, STANDARD_OUTPUT};
use crate::failure::{Failure, copy_of};
use crate::journal::{KeepError, Keeper};
use crate::part_file::PartFile;
use crate::plan::Target;
use crate::platform;
use crate::progress::Reporter;
use crate::show;
use crate::verify::{Settled, Sink, Unsettled};
use relay_proto::file::FileFacts;
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Where the chunks go.
pub(super) struct Output {
    pub(super) sink: Arc<Sink>,
    /// None when it is a stream.
    pub(super) keeper: Option<Keeper>,
    /// For messages.
    pub(super) path: PathBuf,
}

impl Output {
    pub(super) async fn open(target: &Target) -> Result<Output, Failure> {
        let (sink, path) = match target {
            Target::File(path) => return Output::part(PartFile::open(path)?),
            Target::StandardOutput => {
                let output = platform::standard_output().map_err(console::lost)?;
                (Sink::stream(Box::new(output)), STANDARD_OUTPUT.into())
            }
            Target::Special(path) if platform::is_null(path) => {
                let file = OpenOptions::new().write(true).open(path);
                let file = file.map_err(|e| Failure::local("write", path, e))?;
                (Sink::null(Box::new(file)), path.clone())
            }
            Target::Special(path) => {
                // A named pipe opens only once somebody reads from it, and meanwhile the run can be stopped.
                let special = path.clone();
                let file = spawn_blocking(move || OpenOptions::new().write(true).open(special)).await;
                let file = file.unwrap_or_else(|e| Err(io::Error::other(e)));
                let file = file.map_err(|e| Failure::local("write", path, e))?;
                (Sink::stream(Box::new(file)), path.clone())
            }
        };
        Ok(Output { sink: Arc::new(sink), keeper: None, path })
    }

    pub(super) fn part(part: PartFile) -> Result<Output, Failure> {
        let (sink, path) = (Sink::File(part.file()?), part.path().to_owned());
        Ok(Output { sink: Arc::new(sink), keeper: Some(Keeper::new(part)), path })
    }

    /// Puts down what became of a chunk. `Ok(false)`: it is not there and has to come again.
    pub(super) fn account(
        &mut self,
        settled: &Settled,
        placed: &mut Placed,
        fetched: &mut u64,
    ) -> Result<bool, Failure> {
        match &settled.result {
            Ok(hash) => {
                placed.set(settled.index, *hash);
                *fetched += settled.len as u64;
                if let Some(keeper) = &mut self.keeper {
                    keeper.placed((settled.index, *hash));
                }
                Ok(true)
            }
            // A chunk before it has failed, and that is what counts.
            Err(Unsettled::OutOfTurn) => Ok(true),
            Err(Unsettled::Damaged | Unsettled::OtherVersion) => Ok(false),
            Err(Unsettled::Write(error)) => Err(Failure::local("write", &self.path, copy_of(error))),
        }
    }

    pub(super) async fn keep_if_due(
        &mut self,
        version: &FileFacts,
        placed: &Placed,
        reporter: &Reporter,
    ) -> Result<(), Failure> {
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.is_due()) else { return Ok(()) };
        let kept = keeper.keep(version, || placed.entries()).await;
        kept.or_else(|error| not_kept(reporter, keeper, error))
    }
}

/// A journal that was not written is only told; lost data ends the run.
pub(super) fn not_kept(reporter: &Reporter, keeper: &Keeper, error: KeepError) -> Result<(), Failure> {
    let error = match error {
        KeepError::Data(error) => return Err(Failure::local("write", keeper.part().path(), error)),
        KeepError::Journal(error) => error,
    };
    let path = show::path(keeper.part().journal_path());
    reporter.note(format!(
        "cannot write {path}: {error}; if this run is interrupted, the next one starts afresh"
    ));
    Ok(())
}

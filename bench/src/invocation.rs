//! Programs as they are to be started. Knows neither what they are for nor where they run.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// One program with its arguments.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Its path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Whether it must end when this process is killed.
    pub ends_with_bench: bool,
    /// The file that its standard output goes to; nowhere, or into the next program, without one.
    pub stdout: Option<PathBuf>,
}

impl Invocation {
    /// A program that writes to nobody.
    pub fn new(program: PathBuf, arguments: &[&dyn AsRef<OsStr>]) -> Invocation {
        Invocation {
            program,
            arguments: arguments.iter().map(|a| a.as_ref().to_owned()).collect(),
            ends_with_bench: false,
            stdout: None,
        }
    }
}

/// Programs that run at the same time, each reading what the one before writes.
pub type Pipeline = Vec<Invocation>;

//! Standard error, where messages go, and standard output, where results and events go. A message that cannot be written is lost and
//! nothing else; a result that cannot be written is an error.

use crate::failure::Failure;
use crate::platform;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

/// What standard output is called in messages.
pub const STANDARD_OUTPUT: &str = "standard output";

/// Writes a message on standard error. Nobody is left to be told when that cannot be done.
pub fn message(message: &impl Display) {
    let _ = io::stderr().lock().write_all(format!("{message}\n").as_bytes());
}

/// Writes a line on standard output.
///
/// # Errors
/// The system's.
pub fn line(line: &impl Display) -> io::Result<()> {
    platform::standard_output()?.write_all(format!("{line}\n").as_bytes())
}

/// Writes an event or another value on standard output, as a line of JSON.
///
/// # Errors
/// The system's.
pub fn json(value: &impl serde::Serialize) -> io::Result<()> {
    line(&serde_json::to_string(value)?)
}

/// The failure of a run whose results did not get through.
#[must_use]
pub fn lost(error: io::Error) -> Failure {
    Failure::local("write", Path::new(STANDARD_OUTPUT), error)
}

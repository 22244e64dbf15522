//! `relay-client known`: the nodes whose keys are known, and taking one out.

use crate::cli::{KnownArguments, KnownCommand};
use crate::console;
use crate::contacts;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::conclude;
use relay_trust::way::Way;

/// Does what was asked.
#[must_use]
pub fn run(arguments: &KnownArguments) -> Exit {
    let done = match &arguments.command {
        None => list(),
        Some(KnownCommand::Forget { way }) => forget(way),
    };
    conclude(done, false)
}

fn list() -> Result<(), Failure> {
    for known in contacts::known()? {
        console::line(&known).map_err(console::lost)?;
    }
    Ok(())
}

fn forget(way: &str) -> Result<(), Failure> {
    let way: Way = way.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    let gone = contacts::forget(&way)?;
    if gone.is_empty() {
        let text = format!("nobody is known at {way}; `relay-client known` lists all");
        return Err(Failure::Usage(text));
    }
    for known in gone {
        let line = format!("forgot {known}; the next key that is proved there is remembered instead");
        console::line(&line).map_err(console::lost)?;
    }
    Ok(())
}

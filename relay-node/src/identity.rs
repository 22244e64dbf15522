//! The node's own key: where it is kept, and what to do when it cannot be.

use anyhow::{Context, anyhow};
use relay_trust::key::SecretKey;
use relay_trust::key_file::{self, Origin};
use relay_trust::state_directory;
use std::path::PathBuf;

/// The key's file in the state directory.
const FILE: &str = "node.key";

/// Reads the node's key from `named`, or from the state directory, and makes it there if there is none.
///
/// # Errors
/// A file that cannot be made or read, or may be read by others, and what to do about it.
pub fn read_or_create(named: Option<PathBuf>) -> anyhow::Result<SecretKey> {
    let path = match named {
        Some(path) => path,
        None => state_directory::of_service(|name| std::env::var_os(name))
            .map(|directory| directory.join(FILE))
            .ok_or_else(|| {
                anyhow!("there is no place for the node's key: name a file for it with --key FILE")
            })?,
    };
    let (key, origin) = key_file::read_or_create(&path)
        .context("the node has no key (--key FILE names another place for it)")?;
    if origin == Origin::Made {
        tracing::info!("made the node's key in {}", path.display());
    }
    Ok(key)
}

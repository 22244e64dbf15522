//! The access rules in force: read from their file, and read again when the operator says so, whole or not at all.
//!
//! What the rules mean is decided in `relay_trust::access`; here is only which of them hold now, and who is asking.

use anyhow::{Context, anyhow};
use relay_trust::access::{AccessRules, Credentials, Denial, MAX_ACCESS_FILE};
use relay_trust::key::PublicKey;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// A rules file and what it said when it was last right.
#[derive(Debug)]
pub struct Access {
    path: PathBuf,
    rules: RwLock<Arc<AccessRules>>,
}

impl Access {
    /// Reads the rules in `path`.
    ///
    /// # Errors
    /// A file that cannot be read, or everything that is wrong in it, each with line and column.
    pub fn open(path: PathBuf) -> anyhow::Result<Access> {
        let rules = RwLock::new(Arc::new(read(&path)?));
        Ok(Access { path, rules })
    }

    /// Reads the file again. When anything is wrong with it the rules before stay in force.
    ///
    /// # Errors
    /// As [`Access::open`].
    pub fn reload(&self) -> anyhow::Result<()> {
        let rules = Arc::new(read(&self.path)?);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }

    /// Where they were read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rules in force now.
    #[must_use]
    pub fn rules(&self) -> Arc<AccessRules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read(path: &Path) -> anyhow::Result<AccessRules> {
    let mut text = String::new();
    let most = MAX_ACCESS_FILE as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(most).read_to_string(&mut text));
    read.with_context(|| format!("cannot read the access rules in {}", path.display()))?;
    AccessRules::parse(&text).map_err(|errors| {
        let lines: Vec<String> = errors
            .0
            .iter()
            .map(|error| format!("{}:{}:{}: {}", path.display(), error.line, error.column, error.message))
            .collect();
        anyhow!("the access rules are wrong:\n{}", lines.join("\n"))
    })
}

/// Somebody who reads through one pipe: who he is does not change, what he may is asked anew each time.
#[derive(Debug, Clone)]
pub struct Reader {
    access: Arc<Access>,
    credentials: Credentials,
}

impl Reader {
    /// Somebody who has proved nothing yet.
    #[must_use]
    pub fn unknown(access: Arc<Access>) -> Reader {
        Reader { access, credentials: Credentials::default() }
    }

    /// The same, who has proved this key.
    #[must_use]
    pub fn with_key(self, key: Option<PublicKey>) -> Reader {
        Reader { credentials: Credentials { key, ..self.credentials }, ..self }
    }

    /// Whether he may read the file of this name, by all of its names.
    ///
    /// # Errors
    /// How he is told that he may not.
    pub fn may_read(&self, name: &str) -> Result<(), Denial> {
        let rules = self.access.rules();
        let caller = rules.caller(&self.credentials, SystemTime::now());
        if caller.may_read(name) { Ok(()) } else { Err(caller.denial()) }
    }

    /// Whether he may have a listing of the names that begin with this prefix: only where he may read everything that could be in it.
    ///
    /// # Errors
    /// How he is told that he may not.
    pub fn may_list(&self, prefix: &str) -> Result<(), Denial> {
        let directory = prefix.rfind('/').and_then(|end| prefix.get(..end)).unwrap_or_default();
        let rules = self.access.rules();
        let caller = rules.caller(&self.credentials, SystemTime::now());
        if caller.may_read_all_in(directory) { Ok(()) } else { Err(caller.denial()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYONE: &str =
        "[[who]]\nname = \"everybody\"\nanyone = true\nread = [\"public/\", \"notes.txt\"]\n";

    fn access(text: &str) -> (tempfile::TempDir, Arc<Access>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.toml");
        std::fs::write(&path, text).unwrap();
        (directory, Arc::new(Access::open(path).unwrap()))
    }

    #[test]
    fn a_broken_file_leaves_the_rules_before_in_force() {
        let (_directory, access) = access(ANYONE);
        let reader = Reader::unknown(Arc::clone(&access));
        assert_eq!(reader.may_read("public/a"), Ok(()));
        std::fs::write(access.path(), "[[who]]\nname = 1\nreed = []\n").unwrap();
        let text = access.reload().unwrap_err().to_string();
        assert!(text.contains("access.toml:2:8: ") && text.contains("access.toml:3:1: "), "{text}");
        assert_eq!(reader.may_read("public/a"), Ok(()));
        std::fs::write(access.path(), "").unwrap();
        access.reload().unwrap();
        assert_eq!(
            reader.may_read("public/a"),
            Err(Denial::Unauthorized),
            "the next question is of the new rules"
        );
        std::fs::remove_file(access.path()).unwrap();
        access.reload().unwrap_err();
    }

    #[test]
    fn a_listing_is_for_whoever_may_read_all_of_it() {
        let (_directory, access) = access(ANYONE);
        let reader = Reader::unknown(access);
        for prefix in ["public/", "public/a", "public/a/", "public/a/b"] {
            assert_eq!(reader.may_list(prefix), Ok(()), "{prefix}");
        }
        for prefix in ["", "public", "notes.txt", "/", "other/", "public/../", "publicity/"] {
            assert_eq!(reader.may_list(prefix), Err(Denial::Unauthorized), "{prefix}");
        }
    }
}

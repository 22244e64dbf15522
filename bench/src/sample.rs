//! The files that are fetched, and the place where they lie.

use std::env;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// A temporary directory in memory where there is such a place, with a directory of files to serve in it; gone when dropped.
pub struct Workspace {
    home: TempDir,
    files: PathBuf,
}

impl Workspace {
    /// An empty one.
    pub fn new() -> Result<Workspace> {
        let builder = &mut tempfile::Builder::new();
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_owned() } else { env::temp_dir() };
        remove_orphans(&parent)?;
        let prefix = format!("{PREFIX}{}-", process::id());
        let home = builder.prefix(&prefix).tempdir_in(parent).context("no temporary directory")?;
        let files = home.path().join("files");
        fs::create_dir(&files)?;
        Ok(Workspace { home, files })
    }

    /// Where everything but the served files goes.
    pub fn path(&self) -> &Path {
        self.home.path()
    }

    /// The directory of served files.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// Puts a sample of that name and size among the served files.
    pub fn add(&self, name: &str, size: u64) -> Result<PathBuf> {
        create(&self.files, name, size)
    }
}

/// How the names of workspaces begin; the process that made one follows.
const PREFIX: &str = "relay-bench-";

/// Removes the workspaces of processes that were killed, so that they do not fill the memory.
fn remove_orphans(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent)? {
        let name = entry?.file_name();
        let maker =
            name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.split_once('-')?.0.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another bench may do the same at the same time; and who cannot tidy up can measure all the same.
            let _ = fs::remove_dir_all(parent.join(name));
        }
    }
    Ok(())
}

/// Writes `size` bytes that do not compress, the same each time.
pub fn create(dir: &Path, name: &str, size: u64) -> Result<PathBuf> {
    let path = dir.join(name);
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut noise = blake3::Hasher::new().update(b"relay-bench").update(name.as_bytes()).finalize_xof();
    let (mut out, mut block, mut left) = (BufWriter::new(file), vec![0; 1 << 20], size);
    while left > 0 {
        noise.fill(&mut block);
        let take = usize::try_from(left.min(block.len() as u64))?;
        out.write_all(block.get(..take).unwrap_or_default())?;
        left -= take as u64;
    }
    out.flush().with_context(|| format!("cannot fill {}", path.display()))?;
    Ok(path)
}

/// The BLAKE3 hash of a file.
pub fn hash(path: &Path) -> Result<blake3::Hash> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let (mut hasher, mut block) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut block)?;
        let Some(bytes) = block.get(..n).filter(|b| !b.is_empty()) else { return Ok(hasher.finalize()) };
        hasher.update(bytes);
    }
}

/// An error unless both files hold the same bytes.
pub fn ensure_same(arrived: &Path, sent: &Path) -> Result<()> {
    ensure!(hash(arrived)? == hash(sent)?, "{} is not what {} is", arrived.display(), sent.display());
    Ok(())
}

/// Reads sizes like `1GiB`, `64MiB`, `4KiB`, `1000000`.
pub fn parse_size(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 =
        digits.parse().with_context(|| format!("{text:?} is no size; try 1GiB, 64MiB or 4096"))?;
    let unit = match text.get(digits.len()..).unwrap_or_default().trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        other => bail!("{other:?} is no unit of size; there are B, KiB, MiB and GiB"),
    };
    number.checked_mul(unit).with_context(|| format!("{text} is too large"))
}

/// A size for people, exact where it is a whole number of its unit.
pub fn size_text(size: u64) -> String {
    let (unit, name) = match size {
        s if s >= 1 << 30 => (1 << 30, "GiB"),
        s if s >= 1 << 20 => (1 << 20, "MiB"),
        s if s >= 1 << 10 => (1 << 10, "KiB"),
        _ => return format!("{size} B"),
    };
    if size.is_multiple_of(unit) { format!("{} {name}", size / unit) } else { format!("{size} B") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, size, shown) in
            [("1GiB", 1 << 30, "1 GiB"), ("4K", 4096, "4 KiB"), ("1000", 1000, "1000 B"), ("0", 0, "0 B")]
        {
            assert_eq!(parse_size(text).unwrap(), size);
            assert_eq!(size_text(size), shown);
        }
        for text in ["", "GiB", "1TB", "-1", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_workspaces_of_dead_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        // No process has this number (proc(5), pid_max).
        let (orphan, own) = (format!("{PREFIX}4294967295-a"), format!("{PREFIX}{}-a", process::id()));
        for name in [&orphan, &own, "relay-bench-notes", "other"] {
            fs::create_dir(parent.path().join(name)).unwrap();
            fs::write(parent.path().join(name).join("file"), "x").unwrap();
        }
        remove_orphans(parent.path()).unwrap();
        assert!(!parent.path().join(&orphan).exists());
        for name in [&own, "relay-bench-notes", "other"] {
            assert!(parent.path().join(name).join("file").exists(), "{name}");
        }
    }

    #[test]
    fn samples_have_their_size_and_are_the_same_each_time() {
        let home = Workspace::new().unwrap();
        let first = home.add("sample", (1 << 20) + 1).unwrap();
        assert_eq!(first.metadata().unwrap().len(), (1 << 20) + 1);
        let before = hash(&first).unwrap();
        assert_eq!(hash(&home.add("sample", (1 << 20) + 1).unwrap()).unwrap(), before);
        assert_ne!(hash(&home.add("other", (1 << 20) + 1).unwrap()).unwrap(), before);
    }
}

//! Files with known content. The bytes of a sample are the output of BLAKE3 for its seed, so they never repeat, and a chunk that
//! landed in the wrong place shows.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The first `len` bytes of the sample that `seed` names.
#[must_use]
pub fn sample_bytes(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Writes the sample's first `len` bytes into `path`, with the directories above it, and returns them.
///
/// # Panics
/// When the disk does not take them.
pub fn write_sample(path: &Path, seed: &str, len: usize) -> Vec<u8> {
    let bytes = sample_bytes(seed, len);
    fs::create_dir_all(path.parent().expect("a file stands in a directory")).expect("a directory");
    fs::write(path, &bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes
}

/// Makes a file of `len` zeros that takes no space where the file system can do that.
///
/// # Panics
/// When the disk does not take it.
pub fn write_sparse(path: &Path, len: u64) {
    let file = File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.set_len(len).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// The file's BLAKE3 hash in hex, as `b3sum` prints it.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn b3_of_file(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return hasher.finalize().to_hex().to_string(),
            Ok(n) => hasher.update(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
    }
}

/// The names in a directory, sorted.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sub/sample");
        let bytes = write_sample(&path, "seed", 100_000);
        assert_eq!(fs::read(&path).expect("the file"), bytes);
        assert_eq!(b3_of_file(&path), blake3::hash(&bytes).to_hex().to_string());
        assert_eq!(sample_bytes("seed", 10), bytes[..10]);
        assert_ne!(sample_bytes("other", 10), bytes[..10]);
        write_sparse(&directory.path().join("sub/zeros"), 5 << 30);
        assert_eq!(fs::metadata(directory.path().join("sub/zeros")).expect("facts").len(), 5 << 30);
        assert_eq!(names_in(&directory.path().join("sub")), ["sample", "zeros"]);
    }
}

//! A lock on a file that ends with the process, however that ends.

use std::fs::File;
use std::io;

/// A lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// `None`: somebody else holds it.
    #[cfg(unix)]
    pub(crate) fn try_on(file: File) -> io::Result<Option<Self>> {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Elsewhere nothing is locked: who calls this must lose no more than work by it.
    #[cfg(not(unix))]
    pub(crate) fn try_on(file: File) -> io::Result<Option<Self>> {
        Ok(Some(Self(file)))
    }

    /// What is locked.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

/// Closing is not enough: a process that is just being started still has a copy of the descriptor, and would hold the lock.
#[cfg(unix)]
impl Drop for Lock {
    fn drop(&mut self) {
        // What cannot be let go here goes with the last copy.
        let _ = rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_does_not_hold_it() {
        let path = std::env::temp_dir().join(format!("relay-lock-{}", std::process::id()));
        let open = || File::options().create(true).append(true).open(&path).unwrap();
        let lock = Lock::try_on(open()).unwrap().expect("nobody has it");
        let copy = lock.file().try_clone().unwrap();
        assert!(Lock::try_on(open()).unwrap().is_none());
        drop(lock);
        assert!(Lock::try_on(open()).unwrap().is_some());
        drop(copy);
        std::fs::remove_file(path).unwrap();
    }
}

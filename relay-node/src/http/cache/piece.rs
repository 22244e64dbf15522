//! Reads a piece of a body's file without holding up a worker thread: what the system has in memory at once, the rest on
//! the blocking pool.

use crate::platform::positioned::{read_at, read_at_once};
use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// How many bytes are read at once; what a reader that does not read holds in memory.
pub const PIECE: usize = 64 * 1024;

/// Reads up to `most` bytes (at most [`PIECE`]) at `offset`. Nothing at the file's end.
pub async fn read_piece(file: &Arc<File>, offset: u64, most: u64) -> io::Result<Bytes> {
    let length = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
    let mut buffer = BytesMut::zeroed(length);
    let read = match read_at_once(file, &mut buffer, offset) {
        Some(read) => read,
        None => {
            let file = Arc::clone(file);
            let job = tokio::task::spawn_blocking(move || {
                let read = read_at(&file, &mut buffer, offset);
                (buffer, read)
            });
            let (returned, read) = job.await.map_err(io::Error::other)?;
            buffer = returned;
            read?
        }
    };
    buffer.truncate(read);
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[tokio::test]
    async fn pieces_end_where_the_file_ends() {
        let path = std::env::temp_dir().join(format!("relay-piece-{}", std::process::id()));
        let mut file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(&vec![7; PIECE + 5]).unwrap();
        let file = Arc::new(file);
        assert_eq!(read_piece(&file, 0, u64::MAX).await.unwrap().len(), PIECE);
        assert_eq!(read_piece(&file, PIECE as u64, 100).await.unwrap().len(), 5);
        assert_eq!(read_piece(&file, 3, 4).await.unwrap(), vec![7; 4]);
        assert!(read_piece(&file, 1 << 40, 4).await.unwrap().is_empty());
    }
}

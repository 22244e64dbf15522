//! Hashes of a file's pieces, so that bytes that come from another life of the process are looked at before any is sent.
//!
//! A body is sealed while it is written, one BLAKE3 hash for each [`PIECE`]. Whoever opens it later checks a piece when it
//! is wanted for the first time, and pays for no more than is asked for. A piece that was checked once, or was written by this
//! process, is sent as it is, unless it passes through memory anyway; whether it is right still, is looked at now and then.

use crate::platform::positioned::read_up_to;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes under one hash.
pub const PIECE: u64 = 1024 * 1024;

/// Bytes of one hash.
const HASH: usize = 32;

/// Hashes what is written, in order.
#[derive(Debug, Default)]
pub struct Sealer {
    piece: blake3::Hasher,
    hashed: u64,
    done: Vec<u8>,
}

/// The hashes of a whole body, and what was found out with them.
#[derive(Debug)]
pub struct Seals {
    length: u64,
    pieces: Vec<Piece>,
    broken: AtomicBool,
}

#[derive(Debug)]
struct Piece {
    hash: [u8; HASH],
    good: AtomicBool,
}

impl Sealer {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(PIECE - self.hashed % PIECE).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.piece.update(now);
            self.hashed += now.len() as u64;
            if self.hashed.is_multiple_of(PIECE) {
                self.done.extend_from_slice(self.piece.finalize().as_bytes());
                self.piece.reset();
            }
            bytes = rest;
        }
    }

    /// One hash behind the other, as [`Seals::read`] reads them.
    pub fn list(&self) -> Vec<u8> {
        let mut list = self.done.clone();
        if !self.hashed.is_multiple_of(PIECE) {
            list.extend_from_slice(self.piece.finalize().as_bytes());
        }
        list
    }
}

impl Seals {
    /// How many bytes the hashes of a body of `length` bytes take.
    pub fn size(length: u64) -> u64 {
        length.div_ceil(PIECE).saturating_mul(HASH as u64)
    }

    /// Reads the list that stands behind the `length` bytes of a body; `expected` is the list's own hash.
    ///
    /// # Errors
    /// The system's, and a list that is not the expected one.
    pub fn read(file: &File, length: u64, expected: blake3::Hash) -> io::Result<Self> {
        // The file is at least as long: no claimed length makes this larger than what is there.
        let size = Self::size(length).min(file.metadata()?.len());
        let mut list = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        let read = read_up_to(file, &mut list, length)?;
        if read < list.len() || blake3::hash(&list) != expected {
            return Err(damaged("the hashes of its pieces are not those that were noted"));
        }
        Ok(Self::of(&list, length, false))
    }

    /// Those of a body that was written just now; `list` is what [`Sealer::list`] gave.
    pub fn written(list: &[u8], length: u64) -> Self {
        Self::of(list, length, true)
    }

    fn of(list: &[u8], length: u64, are_good: bool) -> Self {
        let (hashes, _) = list.as_chunks::<HASH>();
        let pieces =
            hashes.iter().map(|hash| Piece { hash: *hash, good: AtomicBool::new(are_good) }).collect();
        Self { length, pieces, broken: AtomicBool::new(false) }
    }

    /// How long the body is.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether every byte of the range was found right before.
    pub fn is_checked(&self, range: &Range<u64>) -> bool {
        self.touched(range).all(|(_, piece)| piece.good.load(Ordering::Acquire))
    }

    /// Whether a piece was found wrong.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Reads and hashes the pieces around a range that were not checked yet. Blocks.
    ///
    /// # Errors
    /// The system's, and `InvalidData` when the bytes are not those that were sealed.
    pub fn check(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        let mut buffer = Vec::new();
        for (start, piece) in self.touched(&range) {
            if piece.good.load(Ordering::Acquire) {
                continue;
            }
            self.read_whole(file, (start, piece), &mut buffer)?;
        }
        Ok(())
    }

    /// Reads and hashes the piece around a place, whether it was found right before or not. Blocks.
    ///
    /// # Errors
    /// As of [`Seals::check`].
    pub fn check_again(&self, file: &File, place: u64) -> io::Result<()> {
        let mut buffer = Vec::new();
        let range = place..place.saturating_add(1);
        self.touched(&range).try_for_each(|piece| self.read_whole(file, piece, &mut buffer))
    }

    /// The bytes of a range that lies within one piece, hashed just now. Blocks.
    ///
    /// # Errors
    /// As of [`Seals::check`], and a range that does not lie so.
    pub fn read_checked(&self, file: &File, range: Range<u64>) -> io::Result<Bytes> {
        let mut buffer = Vec::new();
        let mut pieces = self.touched(&range);
        let (Some((start, piece)), None) = (pieces.next(), pieces.next()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.read_whole(file, (start, piece), &mut buffer)?;
        let place = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
        let wanted = place(range.start)..place(range.end);
        if wanted.end > buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Bytes::from(buffer).slice(wanted))
    }

    fn read_whole(&self, file: &File, (start, piece): (u64, &Piece), buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.resize(usize::try_from(PIECE.min(self.length - start)).unwrap_or(0), 0);
        let read = read_up_to(file, buffer, start)?;
        if read < buffer.len() || *blake3::hash(buffer).as_bytes() != piece.hash {
            self.broken.store(true, Ordering::Release);
            return Err(damaged("its body is not what was stored"));
        }
        piece.good.store(true, Ordering::Release);
        Ok(())
    }

    /// The pieces that hold bytes of the range, with their beginnings.
    fn touched(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &Piece)> {
        let (first, end) = (range.start / PIECE, range.end.min(self.length).div_ceil(PIECE));
        let all = (0..).zip(&self.pieces).map(|(number, piece): (u64, _)| (number * PIECE, piece));
        let skip = usize::try_from(first).unwrap_or(usize::MAX);
        all.skip(skip).take(usize::try_from(end.saturating_sub(first)).unwrap_or(usize::MAX))
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::positioned::write_all_at;

    fn sealed(body: &[u8]) -> (File, Sealer) {
        let file = tempfile::tempfile().unwrap();
        let mut sealer = Sealer::default();
        // In steps that fit no border.
        for step in body.chunks(333_333) {
            sealer.update(step);
        }
        write_all_at(&file, body, 0).unwrap();
        write_all_at(&file, &sealer.list(), body.len() as u64).unwrap();
        (file, sealer)
    }

    #[test]
    fn each_piece_has_its_hash() {
        for length in [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let body: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
            let (file, sealer) = sealed(&body);
            let list: Vec<u8> =
                body.chunks(PIECE as usize).flat_map(|piece| *blake3::hash(piece).as_bytes()).collect();
            assert_eq!((sealer.list(), Seals::size(length)), (list.clone(), list.len() as u64), "{length}");
            let seals = Seals::read(&file, length, blake3::hash(&list)).unwrap();
            assert!(!seals.is_checked(&(0..1)));
            seals.check(&file, 0..length).unwrap();
            assert!(seals.is_checked(&(0..length)) && !seals.is_broken());
        }
        assert!(Sealer::default().list().is_empty());
    }

    #[test]
    fn only_what_is_wanted_is_looked_at() {
        let body = vec![7; 3 * PIECE as usize + 5];
        let (file, sealer) = sealed(&body);
        let seals = Seals::read(&file, body.len() as u64, blake3::hash(&sealer.list())).unwrap();
        write_all_at(&file, b"x", PIECE + 9).unwrap();
        seals.check(&file, 10..20).unwrap();
        seals.check(&file, 2 * PIECE..4 * PIECE).unwrap();
        assert!(seals.is_checked(&(3 * PIECE..u64::MAX)) && !seals.is_broken());
        let error = seals.check(&file, PIECE - 1..PIECE + 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(seals.is_broken() && !seals.is_checked(&(PIECE..PIECE + 1)));
    }

    #[test]
    fn what_was_right_once_is_looked_at_again_on_its_way_through_memory() {
        let body: Vec<u8> = (0..2 * PIECE + 5).map(|place| (place % 251) as u8).collect();
        let (file, sealer) = sealed(&body);
        let seals = Seals::written(&sealer.list(), body.len() as u64);
        assert!(seals.is_checked(&(0..u64::MAX)));
        for range in [0..PIECE, PIECE - 3..PIECE, PIECE + 7..PIECE + 9, 2 * PIECE..2 * PIECE + 5] {
            let got = seals.read_checked(&file, range.clone()).unwrap();
            assert!(got == body[range.start as usize..range.end as usize], "{range:?}");
        }
        for range in [PIECE - 1..PIECE + 1, 2 * PIECE..2 * PIECE + 6, 9 * PIECE..9 * PIECE + 1] {
            assert!(seals.read_checked(&file, range.clone()).is_err(), "{range:?}");
        }
        write_all_at(&file, b"x", PIECE + 9).unwrap();
        seals.check(&file, 0..3 * PIECE).unwrap();
        seals.check_again(&file, 0).unwrap();
        assert!(seals.read_checked(&file, 0..9).is_ok() && !seals.is_broken());
        assert!(seals.read_checked(&file, 2 * PIECE - 2..2 * PIECE).is_err() && seals.is_broken());
        assert!(seals.check_again(&file, PIECE).is_err());
    }

    #[test]
    fn a_list_that_was_damaged_is_refused() {
        let (file, sealer) = sealed(&[7; 100]);
        let list = blake3::hash(&sealer.list());
        assert!(Seals::read(&file, 100, list).is_ok());
        for (length, expected) in [(99, list), (100, blake3::hash(b"")), (1 << 62, list)] {
            assert!(Seals::read(&file, length, expected).is_err(), "{length}");
        }
        file.set_len(131).unwrap();
        assert!(Seals::read(&file, 100, list).is_err());
    }
}

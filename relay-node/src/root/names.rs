//! Names of one directory in order, packed into two pieces of memory, as many of the first as fit.

use crate::platform::beneath::NameKind;

/// The first names of a directory, in byte order; each is taken once.
#[derive(Debug, Default)]
pub(super) struct Names {
    text: Vec<u8>,
    names: Vec<Name>,
    /// How many were taken.
    taken: usize,
    /// Whether the directory has further names behind the last one here.
    is_cut: bool,
}

#[derive(Debug, Clone, Copy)]
struct Name {
    start: u32,
    len: u16,
    kind: NameKind,
}

/// Gathers the smallest of many names, however they come, in memory of at most three times what is kept.
#[derive(Debug)]
pub(super) struct Gathering {
    names: Names,
    /// The most bytes that are kept.
    most: usize,
    /// No name from this one on is kept any more.
    end: Option<Vec<u8>>,
}

impl Names {
    /// The next name.
    pub(super) fn peek(&self) -> Option<(&[u8], NameKind)> {
        self.names.get(self.taken).map(|name| (self.text_of(*name), name.kind))
    }

    /// Takes the next name.
    pub(super) fn advance(&mut self) {
        self.taken += 1;
    }

    /// Whether the directory has more than these.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The last of them.
    pub(super) fn last(&self) -> Option<&[u8]> {
        self.names.last().map(|name| self.text_of(*name))
    }

    /// What they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + self.names.len() * size_of::<Name>()
    }

    /// Gives the later half of those that were not taken yet back to the directory; false when there are too few.
    pub(super) fn halve(&mut self) -> bool {
        let left = self.names.len().saturating_sub(self.taken);
        if left < 2 {
            return false;
        }
        self.names.drain(..self.taken);
        self.taken = 0;
        self.keep(left.div_ceil(2));
        true
    }

    fn text_of(&self, name: Name) -> &[u8] {
        let start = name.start as usize;
        self.text.get(start..start + usize::from(name.len)).unwrap_or_default()
    }

    fn add(&mut self, text: &[u8], kind: NameKind) {
        let (Ok(start), Ok(len)) = (u32::try_from(self.text.len()), u16::try_from(text.len())) else {
            return;
        };
        self.text.extend_from_slice(text);
        self.names.push(Name { start, len, kind });
    }

    fn sort(&mut self) {
        let mut names = std::mem::take(&mut self.names);
        names.sort_unstable_by(|left, right| self.text_of(*left).cmp(self.text_of(*right)));
        // A directory that changes while it is read may show a name twice.
        names.dedup_by(|left, right| self.text_of(*left) == self.text_of(*right));
        self.names = names;
    }

    /// Keeps the first `count`, in memory that fits them.
    fn keep(&mut self, count: usize) {
        let mut kept = Names { is_cut: self.is_cut || count < self.names.len(), ..Names::default() };
        kept.names.reserve_exact(count.min(self.names.len()));
        kept.text.reserve_exact(self.names.iter().take(count).map(|name| usize::from(name.len)).sum());
        for name in self.names.iter().take(count) {
            kept.add(self.text_of(*name), name.kind);
        }
        *self = kept;
    }

    /// How many of the first fit into so many bytes; one at least.
    fn fitting(&self, most: usize) -> usize {
        let mut bytes = 0;
        let fits = |name: &&Name| {
            bytes += size_of::<Name>() + usize::from(name.len);
            bytes <= most
        };
        self.names.iter().take_while(fits).count().max(1)
    }
}

impl Gathering {
    /// Will keep at most `most` bytes.
    pub(super) fn new(most: usize) -> Gathering {
        Gathering { names: Names::default(), most, end: None }
    }

    /// One more name.
    pub(super) fn add(&mut self, name: &[u8], kind: NameKind) {
        if self.end.as_deref().is_some_and(|end| name >= end) {
            return;
        }
        self.names.add(name, kind);
        if self.names.bytes() > 2 * self.most {
            self.shrink();
        }
    }

    /// The smallest of the names, in order.
    pub(super) fn finish(mut self) -> Names {
        self.shrink();
        self.names
    }

    fn shrink(&mut self) {
        self.names.sort();
        self.names.keep(self.names.fitting(self.most));
        if self.names.is_cut() {
            self.end = self.names.last().map(<[u8]>::to_vec);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(most: usize, names: &[&str]) -> Names {
        let mut gathering = Gathering::new(most);
        names.iter().for_each(|name| gathering.add(name.as_bytes(), NameKind::File));
        gathering.finish()
    }

    fn rest(mut names: Names) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some((name, _)) = names.peek() {
            rest.push(String::from_utf8(name.to_vec()).unwrap());
            names.advance();
        }
        rest
    }

    #[test]
    fn the_smallest_are_kept_in_order_whatever_the_order_they_come_in() {
        let all: Vec<String> = (0..1_000).map(|number| format!("{:03}", number * 7 % 1_000)).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        for room in [0, 1, 10, 11, 12, 500, 1_000, 2_000] {
            let names = gathered(room * 11, &all);
            let kept = room.clamp(1, 1_000);
            assert_eq!((names.is_cut(), names.bytes()), (kept < 1_000, kept * 11), "{room}");
            let expected: Vec<String> = (0..kept).map(|number| format!("{number:03}")).collect();
            assert_eq!(rest(names), expected, "{room}");
        }
        let names = gathered(100, &[]);
        assert!(!names.is_cut() && names.peek().is_none() && names.last().is_none());
    }

    #[test]
    fn a_name_that_comes_twice_is_there_once() {
        assert_eq!(rest(gathered(1_000, &["b", "a", "b", "a"])), ["a", "b"]);
    }

    #[test]
    fn half_of_what_was_not_taken_goes_back() {
        let mut names = gathered(1_000, &["a", "b", "c", "d", "e"]);
        names.advance();
        assert!(names.halve() && names.is_cut());
        assert_eq!(names.last(), Some(&b"c"[..]));
        assert!(names.halve());
        assert!(!names.halve());
        assert_eq!(rest(names), ["b"]);
    }
}

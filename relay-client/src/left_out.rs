//! What an origin has and does not give, as its listings tell it.

use relay_proto::file::Page;
use std::fmt;

/// Counts of what is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Names that cannot be asked for: not UTF-8, or too long.
    pub unnameable: u64,
    /// Directories, and whatever else, that the origin cannot read.
    pub unreadable: u64,
    /// Links that lead nowhere, or out of what is offered.
    pub links: u64,
    /// Links to directories, which are not followed. Each is named.
    pub linked_directories: u64,
}

impl LeftOut {
    /// Adds what a page counts.
    pub fn add(&mut self, page: &Page) {
        self.unnameable = self.unnameable.saturating_add(page.unnameable);
        self.unreadable = self.unreadable.saturating_add(page.unreadable);
        self.links = self.links.saturating_add(page.links);
    }

    /// All links.
    #[must_use]
    pub fn all_links(&self) -> u64 {
        self.links.saturating_add(self.linked_directories)
    }

    /// Everything.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.unnameable.saturating_add(self.unreadable).saturating_add(self.all_links())
    }

    /// Whether something is missing that may have been wanted. A link that leads nowhere is no such thing, and one that leads out of what is
    /// offered was not meant to be followed.
    #[must_use]
    pub fn is_a_loss(&self) -> bool {
        self.unnameable > 0 || self.unreadable > 0 || self.linked_directories > 0
    }
}

/// For people: what is a loss, behind something else that was counted; nothing when nothing is.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeftOut { unnameable, unreadable, linked_directories, .. } = self;
        if *unnameable > 0 {
            write!(f, ", {unnameable} more cannot be offered (their names are not UTF-8 or too long)")?;
        }
        if *unreadable > 0 {
            write!(f, ", {unreadable} more the origin cannot read")?;
        }
        if *linked_directories > 0 {
            write!(f, ", {linked_directories} links to directories were not followed")?;
        }
        Ok(())
    }
}

//! Which cells are measured, in which order, and which are not.

use super::Options;
use crate::chain::Sink;
use crate::peers::Variant;
use crate::sample;

/// A client of `ssh -J` starts a process for each jump; more of them than this would measure the machine's limits.
const MOST_SSH: usize = 64;

/// How many times the time of another one a cell of one client and the largest file gets: its fetches take longest.
const LARGE: u32 = 4;

/// A cell before it is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) size: u64,
    pub(super) relays: usize,
    pub(super) clients: usize,
    pub(super) sink: Sink,
    /// How many times the time of a small cell it gets.
    pub(super) weight: u32,
}

impl Place {
    /// For people.
    pub(super) fn text(&self) -> String {
        let Place { size, relays, clients, sink, .. } = *self;
        let sink = format!("{sink:?}").to_lowercase();
        format!("{relays} relays, {clients} clients, {}, to {sink}", sample::size_text(size))
    }

    /// Whether it can use the same processes.
    pub(super) fn shares_chains(&self, other: &Place) -> bool {
        (self.size, self.relays) == (other.size, other.relays)
    }

    /// Why a variant has no part in it, if so; an empty reason goes without saying.
    pub(super) fn leaves_out(&self, variant: Variant) -> Option<&'static str> {
        match variant {
            // Without relays it is this project itself, and those are what HAProxy's is: curl and nginx.
            Variant::BareRelays if self.relays == 0 => Some(""),
            Variant::NginxStream | Variant::Socat if self.relays == 0 => Some(""),
            // To nowhere it would hash in a process beside it, which nobody does.
            Variant::HaproxyB3sum if self.sink == Sink::Null => Some(""),
            Variant::Ssh if self.clients * (self.relays + 1) > MOST_SSH => Some("too many processes of ssh"),
            _ => None,
        }
    }
}

/// All cells in the order in which they are measured, and those that are too large.
///
/// One client comes before many, and of one client large files and then the smallest ones: what all else is compared with is there
/// first. Many clients come in the order of their number.
pub(super) fn plan(options: &Options) -> (Vec<Place>, Vec<String>) {
    let few = options.clients.iter().min().copied().unwrap_or(1);
    let largest = options.sizes.iter().max().copied().unwrap_or(0);
    let least = options.sizes.iter().min().copied().unwrap_or(0);
    let (mut places, mut left_out) = (Vec::new(), Vec::new());
    for &size in &options.sizes {
        for &clients in &options.clients {
            if size.saturating_mul(clients as u64) > options.budget.max(size) {
                let size = sample::size_text(size);
                left_out.push(format!("{clients} clients, {size}: more than --budget in one go"));
                continue;
            }
            for (&relays, &sink) in
                options.relays.iter().flat_map(|r| options.sinks.iter().map(move |s| (r, s)))
            {
                if sink == Sink::Null || (clients == few && size == largest) {
                    let weight = if clients == few && size == largest { LARGE } else { 1 };
                    places.push(Place { size, relays, clients, sink, weight });
                }
            }
        }
    }
    let rank = |p: &Place| match (p.clients == few, p.size) {
        (true, size) if size == largest => 0,
        (true, size) if size == least => 1,
        (true, _) => 2,
        (false, _) => 3,
    };
    places.sort_by_key(|p| (rank(p), p.size, p.relays, p.clients, p.sink == Sink::File));
    (places, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn large_files_of_one_client_come_first_for_every_number_of_relays() {
        let typed = ["grid", "--relays", "0,3", "--clients", "1,16", "--sizes", "1KiB,1MiB,256MiB"];
        let (places, left_out) = plan(&Typed::parse_from(typed).options);
        let first: Vec<(usize, Sink)> = places.iter().take(4).map(|p| (p.relays, p.sink)).collect();
        assert_eq!(first, [(0, Sink::Null), (0, Sink::File), (3, Sink::Null), (3, Sink::File)]);
        assert!(places.iter().take(4).all(|p| p.clients == 1 && p.size == 256 << 20));
        // Two relays × (one client × three sizes and a file, 16 clients × two sizes).
        assert_eq!(places.len(), 2 * (4 + 2));
        assert!(
            matches!(left_out.as_slice(), [one] if one.starts_with("16 clients, 256 MiB")),
            "{left_out:?}"
        );
        assert!(places.iter().skip(4).take(2).all(|p| p.clients == 1 && p.size == 1024));
    }

    #[test]
    fn a_variant_is_left_out_where_it_means_nothing() {
        let place = Place { size: 1, relays: 0, clients: 1, sink: Sink::Null, weight: 1 };
        let few = |place: Place| {
            [Variant::Relay, Variant::BareRelays, Variant::Socat, Variant::HaproxyB3sum, Variant::Ssh]
                .map(|variant| place.leaves_out(variant).is_none())
        };
        assert_eq!(few(place), [true, false, false, false, true]);
        assert_eq!(few(Place { relays: 1, sink: Sink::File, ..place }), [true; 5]);
        assert_eq!(few(Place { relays: 3, clients: 16, ..place }), [true, true, true, false, true]);
        assert_eq!(few(Place { relays: 3, clients: 17, ..place }), [true, true, true, false, false]);
    }
}

//! The grid in tables and in words.

use std::fmt::Write as _;

use super::Options;
use super::cell::{Cell, Figure};
use crate::peers::Variant;
use crate::report::{median, spread, table};
use crate::sample;
use crate::stats::Spread;

/// All of it: the cells, who wins where, and how far from the bound this project is.
pub(super) fn text(options: &Options, cells: &[Cell]) -> String {
    format!(
        "medians [quartiles] of at most {} rounds, * of a warm-up alone; CPU in seconds a GB (10^9 bytes), relay CPU of one relay\n\n{}\n{}\n{}",
        options.rounds,
        all(cells),
        winners(cells),
        to_the_bound(cells)
    )
}

fn all(cells: &[Cell]) -> String {
    let head = [
        "",
        "relays",
        "clients",
        "size",
        "to",
        "MB/s",
        "this project ÷ it",
        "files/s",
        "relay CPU",
        "machine CPU",
        "relay peak MiB",
        "first byte ms",
    ];
    let rows: Vec<Vec<String>> = cells
        .iter()
        .map(|cell| {
            let of = |f: Figure| Spread::of(cell.rounds.iter().map(f));
            vec![
                format!("{}{}", cell.name, if cell.is_warm_up { "*" } else { "" }),
                cell.relays.to_string(),
                cell.clients.to_string(),
                sample::size_text(cell.size),
                format!("{:?}", cell.sink).to_lowercase(),
                spread(of(|r| r.megabytes_a_second), if cell.size < 1 << 20 { 2 } else { 0 }),
                spread(cell.ratio, 2),
                median(of(|r| r.files_a_second), 1),
                median(of(|r| r.relay_cpu), 3),
                median(of(|r| r.machine_cpu), 2),
                median(of(|r| r.relay_peak), 0),
                median(of(|r| r.first_byte), 1),
            ]
        })
        .collect();
    table(&head, &rows)
}

/// Every cell in which a peer is faster than this project, in words.
fn winners(cells: &[Cell]) -> String {
    let mut text = String::new();
    let (mut places, mut lost) = (0, 0);
    for place in by_place(cells) {
        let won: Vec<String> =
            place.iter().filter_map(|cell| Some(beaten_by(cell, cell.ratio?))).flatten().collect();
        places += usize::from(place.iter().any(|cell| cell.variant.is_peer() && cell.ratio.is_some()));
        if !won.is_empty() {
            lost += 1;
            let _ = writeln!(text, "  {}: {}", place_text(place), won.join("; "));
        }
    }
    match lost {
        0 => format!("No peer is faster than this project in any of {places} cells.\n"),
        _ => format!("In {lost} of {places} cells a peer is faster than this project:\n{text}"),
    }
}

fn beaten_by(cell: &Cell, ratio: Spread) -> Option<String> {
    let verifies = if cell.variant.verifies() { "verifies" } else { "verifies nothing" };
    (cell.variant.is_peer() && ratio.median < 1.0).then(|| {
        format!(
            "{} by {:.2} [{:.2}–{:.2}], {verifies}",
            cell.name,
            ratio.median.recip(),
            ratio.high.recip(),
            ratio.low.recip()
        )
    })
}

/// How much of the bound's throughput this project has in each cell, and what its relays cost beside bare ones.
fn to_the_bound(cells: &[Cell]) -> String {
    let rows: Vec<Vec<String>> = by_place(cells)
        .into_iter()
        .filter_map(|place| {
            let of = |variant| place.iter().find(|cell| cell.variant == variant);
            let (bound, bare) = (of(Variant::Bound), of(Variant::BareRelays));
            (bound.is_some() || bare.is_some()).then(|| {
                vec![
                    place_text(place),
                    spread(bound.and_then(|cell| cell.ratio), 2),
                    spread(bare.and_then(|cell| cell.ratio), 2),
                    spread(bare.and_then(|cell| cell.relay_cpu_ratio), 2),
                ]
            })
        })
        .collect();
    let head = ["this project ÷", "bound, throughput", "bare relays, throughput", "bare relays, relay CPU"];
    table(&head, &rows)
}

/// The variants of each cell of the grid, which were measured one behind the other.
fn by_place(cells: &[Cell]) -> Vec<&[Cell]> {
    let place = |cell: &Cell| (cell.size, cell.relays, cell.clients, cell.sink);
    cells.chunk_by(|a, b| place(a) == place(b)).collect()
}

fn place_text(place: &[Cell]) -> String {
    place.first().map_or_else(String::new, |cell| {
        let sink = format!("{:?}", cell.sink).to_lowercase();
        format!(
            "{} relays, {} clients, {}, to {sink}",
            cell.relays,
            cell.clients,
            sample::size_text(cell.size)
        )
    })
}

//! The grid's charts: how figures grow along one axis while the others are held.

use anyhow::Result;

use super::Options;
use super::cell::{Cell, Figure};
use crate::chain::Sink;
use crate::chart::{self, Scale};
use crate::sample;
use crate::stats::Spread;

/// Along each axis that has more than one place, the others held: how much, how dear, how soon.
pub(super) fn draw(options: &Options, cells: &[Cell]) -> Result<()> {
    let largest = options.sizes.iter().max().copied().unwrap_or(0);
    let least = options.sizes.iter().min().copied().unwrap_or(0);
    let few = options.clients.iter().min().copied().unwrap_or(1);
    // The number of relays that the other charts hold: 3 where that is measured.
    let some =
        options.relays.iter().copied().find(|&r| r == 3).or(options.relays.last().copied()).unwrap_or(0);
    let out = &options.output;
    let by_relays = |name: &str, title: &str, unit: &str, size: u64, sink: Sink, figure: Figure| {
        let chosen = |c: &Cell| c.size == size && c.clients == few && c.sink == sink;
        let title = format!("{title}; {}, {few} client(s)", sample::size_text(size));
        out.chart(name, &drawing(cells, chosen, &title, "relays", unit, |c| c.relays as u64, figure))
    };
    if options.relays.len() > 1 {
        for (name, title, sink) in [
            ("grid-relays", "Throughput to nowhere and the number of relays", Sink::Null),
            ("grid-relays-file", "Throughput to a file and the number of relays", Sink::File),
        ] {
            if options.sinks.contains(&sink) {
                by_relays(name, title, "MB/s; more is better", largest, sink, |r| r.megabytes_a_second)?;
            }
        }
        let sink = options.sinks.first().copied().unwrap_or(Sink::Null);
        by_relays("grid-relay-cpu", "CPU of a relay", "seconds a GB; less is better", largest, sink, |r| {
            r.relay_cpu
        })?;
        by_relays(
            "grid-first-byte",
            "Time to the first byte",
            "milliseconds; less is better",
            least,
            sink,
            |r| r.first_byte,
        )?;
        by_relays(
            "grid-files",
            "Small files, one after the other",
            "files a second; more is better",
            least,
            sink,
            |r| r.files_a_second,
        )?;
    }
    if options.clients.len() > 1 {
        // Large files do not fit the time with many clients; the largest that were fetched by the most tell more.
        let most_clients = |size: u64| {
            let of_size = |c: &&Cell| c.size == size && c.relays == some && c.sink == Sink::Null;
            cells.iter().filter(of_size).map(|c| c.clients).max()
        };
        let common =
            options.sizes.iter().copied().max_by_key(|&size| (most_clients(size), size)).unwrap_or(0);
        for (name, size, unit, figure) in [
            (
                "grid-clients",
                common,
                "MB/s, all together; more is better",
                (|r| r.megabytes_a_second) as Figure,
            ),
            ("grid-clients-files", least, "files a second, all together; more is better", |r| {
                r.files_a_second
            }),
        ] {
            let chosen = |c: &Cell| c.size == size && c.relays == some && c.sink == Sink::Null;
            let title = format!("Clients at once; {}, {some} relays", sample::size_text(size));
            out.chart(
                name,
                &drawing(cells, chosen, &title, "clients at once", unit, |c| c.clients as u64, figure),
            )?;
        }
    }
    if options.sizes.len() > 2 {
        let chosen = |c: &Cell| c.clients == few && c.relays == some && c.sink == Sink::Null;
        let title = format!("Throughput and the file's size; {some} relays, {few} client(s)");
        let unit = "MB/s; more is better";
        out.chart(
            "grid-sizes",
            &drawing(cells, chosen, &title, BYTES, unit, |c| c.size, |r| r.megabytes_a_second),
        )?;
    }
    Ok(())
}

/// The unit of an axis of sizes.
const BYTES: &str = "bytes";

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a size before")]
fn size(bytes: f64) -> String {
    sample::size_text(bytes as u64)
}

/// A line a variant over the chosen cells.
#[allow(clippy::cast_precision_loss, reason = "a chart is no finer than an f64")]
fn drawing(
    cells: &[Cell],
    is_chosen: impl Fn(&Cell) -> bool,
    title: &str,
    x_unit: &str,
    y_unit: &str,
    x: impl Fn(&Cell) -> u64,
    figure: Figure,
) -> String {
    // In every chart a variant has the same place, and so its colour.
    let mut lines: Vec<chart::Line> = Vec::new();
    for cell in cells {
        let point = || Some((x(cell) as f64, Spread::of(cell.rounds.iter().map(figure))?.median));
        let point = is_chosen(cell).then(point).flatten();
        match lines.iter_mut().find(|(name, _)| name == cell.name) {
            Some((_, points)) => points.extend(point),
            None => lines.push((cell.name.to_owned(), Vec::from_iter(point))),
        }
    }
    // Times differ by factors of hundreds, throughput does not.
    let scale = if y_unit.starts_with("milliseconds") { Scale::Decades } else { Scale::Even };
    let x_text = if x_unit == BYTES { size } else { chart::number };
    chart::lines(title, x_unit, x_text, y_unit, scale, &lines)
}

//! The matrix as a table, a line a case as it comes, and charts.

use std::time::Duration;

use super::{Fetched, Outcome, Row};
use crate::chart;
use crate::peers::Variant;
use crate::report::table;

/// A row as it has been measured.
pub(super) fn line(row: &Row) -> String {
    let each: Vec<String> = row.fetched.iter().map(|f| format!("{} {}", f.peer, rate(&f.result))).collect();
    each.join(", ")
}

/// All rows, and why some have no figure.
pub(super) fn text(rows: &[Row], limit: Duration) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let peers: Vec<&str> = first.fetched.iter().map(|f| f.peer).collect();
    let mut head = vec!["ms", "loss %", "Mbit/s", "congestion"];
    head.extend(&peers);
    head.extend(["÷ ssh", "÷ best peer", "CPU %"]);
    let cells = rows.iter().map(|row| {
        let case = &row.case;
        let mut cells = vec![
            case.delay.to_string(),
            case.loss.to_string(),
            case.rate.to_string(),
            case.congestion.clone(),
        ];
        cells.extend(row.fetched.iter().map(|f| rate(&f.result)));
        cells.extend([ratio(row.rate_of(Variant::Ssh), row), ratio(row.best_peer(), row)]);
        cells.push(format!("{:.0}", row.most_busy * 100.0));
        cells
    });
    let mut text = format!(
        "three links in each case; delay one way and loss each way of each link; Mbit/s of one fetch. ~: stopped after {} s, its \
         rate until then. ÷: this project over it. CPU: of the machine, at most; near 100 it is the machine that limits\n\n{}",
        limit.as_secs_f64(),
        table(&head, &cells.collect::<Vec<_>>())
    );
    for row in rows {
        for Fetched { peer, result } in &row.fetched {
            if let Outcome::Failed { why } = result {
                text += &format!("failed: {}, {peer}: {why}\n", row.case.text());
            }
        }
    }
    text
}

fn rate(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Whole { mbit_a_second, .. } => format!("{mbit_a_second:.1}"),
        Outcome::Stopped { mbit_a_second, .. } => format!("~{mbit_a_second:.1}"),
        Outcome::Failed { .. } => "failed".to_owned(),
    }
}

fn ratio(other: Option<f64>, row: &Row) -> String {
    match (row.rate_of(Variant::Relay), other) {
        (Some(mine), Some(other)) if other > 0.0 => format!("{:.2}", mine / other),
        _ => "–".to_owned(),
    }
}

impl Row {
    fn rate_of(&self, variant: Variant) -> Option<f64> {
        self.fetched.iter().find(|f| f.peer == variant.name())?.result.rate()
    }

    fn best_peer(&self) -> Option<f64> {
        let peers = self.fetched.iter().filter(|f| f.peer != Variant::Relay.name());
        peers.filter_map(|f| f.result.rate()).max_by(f64::total_cmp)
    }
}

/// The share of the link's rate that each peer brought, a row a case.
#[allow(clippy::cast_precision_loss, reason = "rates are small numbers")]
pub(super) fn drawing(rows: &[Row], congestion: &str) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.case.congestion == congestion).collect();
    let names: Vec<&str> =
        rows.first().map(|r| r.fetched.iter().map(|f| f.peer).collect()).unwrap_or_default();
    let dots: Vec<chart::Dots> = rows
        .iter()
        .map(|row| {
            let share = |f: &Fetched| f.result.rate().map(|rate| 100.0 * rate / row.case.rate as f64);
            let name = format!("{} ms, {}%, {} Mbit/s", row.case.delay, row.case.loss, row.case.rate);
            (name, row.fetched.iter().map(share).collect())
        })
        .collect();
    let title = format!("Three links, congestion control {congestion}: what each peer gets out of them");
    chart::dots(&title, "% of the link's rate; delay one way, loss and rate of each link", &names, &dots)
}

#[cfg(test)]
mod tests {
    use super::super::Case;
    use super::*;

    fn row(of_each: &[(Variant, Outcome)]) -> Row {
        let case = Case { delay: 15, loss: 0.2, rate: 100, congestion: "bbr".to_owned() };
        let fetched = of_each.iter().map(|(v, o)| Fetched { peer: v.name(), result: o.clone() });
        Row { case, fetched: fetched.collect(), most_busy: 0.5 }
    }

    #[test]
    fn a_stopped_fetch_counts_and_is_marked_and_a_failed_one_is_told() {
        let row = row(&[
            (Variant::Relay, Outcome::Whole { seconds: 5.0, mbit_a_second: 90.0 }),
            (Variant::Ssh, Outcome::Stopped { seconds: 10.0, mbit_a_second: 30.0 }),
            (Variant::Socat, Outcome::Whole { seconds: 4.0, mbit_a_second: 95.0 }),
            (Variant::Aria2, Outcome::Failed { why: "no route".to_owned() }),
        ]);
        let text = text(&[row], Duration::from_secs(10));
        assert!(text.contains(" 90.0  "), "{text}");
        assert!(
            text.contains(" ~30.0  ") && text.contains("  3.00  ") && text.contains("  0.95  "),
            "{text}"
        );
        assert!(
            text.contains("failed: 15 ms, 0.2% loss, 100 Mbit/s, bbr, socat, aria2 ×16: no route"),
            "{text}"
        );
    }
}

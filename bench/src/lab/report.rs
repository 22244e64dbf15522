//! What the lab's cases have in common when they are told.

use anyhow::Result;
use serde::Serialize;

use crate::fetch::Sample;
use crate::peers::Variant;
use crate::report::{median, spread, table};
use crate::stats::Spread;

/// All fetches of one peer in one case.
#[derive(Debug, Serialize)]
pub struct Series {
    pub variant: Variant,
    pub name: &'static str,
    pub congestion: String,
    pub samples: Vec<Sample>,
    pub failures: Vec<String>,
}

impl Series {
    /// None yet.
    pub fn new(variant: Variant, name: &'static str, congestion: &str) -> Series {
        Series { variant, name, congestion: congestion.to_owned(), samples: Vec::new(), failures: Vec::new() }
    }

    /// One more, or why there is none.
    pub fn take(&mut self, result: Result<Sample>) {
        match result {
            Ok(sample) => self.samples.push(sample),
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }
}

/// A fetch in a few words.
pub fn told(result: &Result<Sample>) -> String {
    match result {
        Ok(sample) => format!("{:.0} Mbit/s", sample.megabytes_a_second * 8.0),
        Err(error) => format!("failed: {error:#}"),
    }
}

/// A table of them.
pub fn text(series: &[Series]) -> String {
    let rows: Vec<Vec<String>> = series
        .iter()
        .map(|s| {
            let of = |f: fn(&Sample) -> f64| Spread::of(s.samples.iter().map(f));
            vec![
                s.name.to_owned(),
                s.congestion.clone(),
                spread(of(|s| s.megabytes_a_second * 8.0), 1),
                spread(of(|s| s.seconds), 1),
                median(of(|s| s.relay_cpu), 2),
                s.failures.len().to_string(),
            ]
        })
        .collect();
    table(&["", "congestion", "Mbit/s", "seconds", "relay CPU s/GB", "failed"], &rows)
}

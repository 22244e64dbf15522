//! How results leave: a table for people, JSON for programs, a chart.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::machine::Machine;
use crate::stats::Spread;

/// Where results go.
#[derive(Args, Clone, Debug)]
pub struct Output {
    /// Directory for the JSON results and the charts
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// What every results file holds.
#[derive(Serialize)]
struct Results<'a, T> {
    command: String,
    machine: &'a Machine,
    missing: &'a [String],
    results: &'a T,
}

impl Output {
    /// Writes `NAME.json`, with the machine, the command and what was missing beside the results.
    pub fn json<T: Serialize>(
        &self,
        name: &str,
        machine: &Machine,
        missing: &[String],
        results: &T,
    ) -> Result<()> {
        let command = command_line();
        let text = serde_json::to_string_pretty(&Results { command, machine, missing, results })?;
        self.write(&format!("{name}.json"), &text)
    }

    /// Writes a chart.
    pub fn chart(&self, name: &str, svg: &str) -> Result<()> {
        self.write(&format!("{name}.svg"), svg)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.out.join(name);
        fs::create_dir_all(&self.out).with_context(|| format!("cannot create {}", self.out.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("written: {}", path.display());
        Ok(())
    }
}

/// The command as it was typed, without the place where the program lies.
pub fn command_line() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(first) = words.first_mut() {
        *first = Path::new(first).file_name().unwrap_or_default().to_string_lossy().into_owned();
    }
    words.join(" ")
}

/// A table with columns as wide as they need to be: the first to the left, the others to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
        cells.chain(head.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(|&h| h.to_owned()).collect();
    let rule = widths.iter().map(|&w| "-".repeat(w)).collect();
    let mut text = String::new();
    for row in [&head, &rule].into_iter().chain(rows) {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let cell = if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            text += &cell;
        }
        text = text.trim_end().to_owned() + "\n";
    }
    text
}

/// `median [quartile – quartile]`, or a dash.
pub fn spread(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(
        || "–".to_owned(),
        |s| format!("{:.decimals$} [{:.decimals$}–{:.decimals$}]", s.median, s.low, s.high),
    )
}

/// The median alone, or a dash.
pub fn median(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |s| format!("{:.decimals$}", s.median))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let text =
            table(&["name", "MB/s"], &[vec!["a".into(), "1".into()], vec!["longer".into(), "12345".into()]]);
        assert_eq!(text, "name     MB/s\n------  -----\na           1\nlonger  12345\n");
    }
}

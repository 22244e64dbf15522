//! `relay-bench tree`: many small files through a chain, beside one client for each of them and beside rsync through as many jumps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::fetch::timed;
use crate::machine::Machine;
use crate::peers::{Chain, Variant, installed, own};
use crate::report::{Output, spread, table};
use crate::sample::{self, Workspace};
use crate::stats::Spread;

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Relays, or jumps, between the client and the origin
    #[arg(long, default_value_t = 3)]
    relays: usize,
    /// How many files the tree has
    #[arg(long, default_value_t = 10_000)]
    files: usize,
    /// Size of each file
    #[arg(long, default_value = "4KiB", value_parser = sample::parse_size)]
    size: u64,
    /// Of how many files each is fetched by a client of its own; the time is scaled to all of them
    #[arg(long, default_value_t = 500)]
    each: usize,
    /// Rounds; one more comes before them as a warm-up
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the files go; a directory on the disk that is to be measured
    #[arg(long)]
    into: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Files in one directory of the tree.
const A_DIRECTORY: usize = 100;

#[derive(Debug, Serialize)]
struct Times {
    name: &'static str,
    /// Seconds for all files.
    seconds: Vec<f64>,
    /// How many times as long as the tree, round by round.
    ratio: Option<Spread>,
}

/// A way to fetch the tree.
#[derive(Clone, Copy)]
enum Way {
    Tree,
    Rerun,
    Each,
    Rsync,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Tree, "this project"),
    (Way::Rerun, "this project, nothing to fetch"),
    (Way::Each, "a client for each file"),
    (Way::Rsync, "rsync -a -e 'ssh -J …'"),
];

/// Runs it and reports.
pub fn run(options: &Options) -> Result<()> {
    let programs = ["ssh", "sshd", "rsync"];
    let machine = Machine::describe(&programs);
    let home = Workspace::new()?;
    let tree = home.files().join("tree");
    let names = create(&tree, options)?;
    // What a chain serves is the directory of a file.
    let (beside, inside) = (home.files().join("beside"), tree.join("beside"));
    fs::write(&beside, "x")?;
    let relay = Chain::start(Variant::Relay, options.relays, &beside, home.path())?;
    let missing: Vec<String> =
        Variant::Ssh.missing().into_iter().chain(installed("rsync").err().map(|e| e.to_string())).collect();
    let ssh = if missing.is_empty() {
        Some(Chain::start(Variant::Ssh, options.relays, &inside, home.path())?)
    } else {
        None
    };
    let place = tempfile::tempdir_in(options.into.as_deref().unwrap_or(home.path()))
        .context("no place for the files")?;
    let bench =
        Bench { options, tree: &tree, names: &names, relay: &relay, ssh: ssh.as_ref(), place: place.path() };
    let results = bench.measure()?;
    println!("{}", machine.text());
    println!(
        "{} files of {} through {} relays into {}, {} rounds, taking turns; seconds\n",
        options.files,
        sample::size_text(options.size),
        options.relays,
        if options.into.is_some() { "a directory on disk" } else { "memory" },
        options.rounds
    );
    println!("{}", text(&results));
    missing.iter().for_each(|reason| println!("left out: {reason}"));
    options.output.json("tree", &machine, &missing, &results)
}

/// Makes the tree and returns the names of its files.
fn create(tree: &Path, options: &Options) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for number in 0..options.files {
        let directory = format!("{:04}", number / A_DIRECTORY);
        if number % A_DIRECTORY == 0 {
            fs::create_dir_all(tree.join(&directory))?;
        }
        let name = format!("{directory}/{number:06}");
        sample::create(&tree.join(&directory), &format!("{number:06}"), options.size)?;
        names.push(name);
    }
    Ok(names)
}

struct Bench<'a> {
    options: &'a Options,
    tree: &'a Path,
    names: &'a [String],
    relay: &'a Chain,
    ssh: Option<&'a Chain>,
    place: &'a Path,
}

impl Bench<'_> {
    fn measure(&self) -> Result<Vec<Times>> {
        let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); WAYS.len()];
        for round in 0..=self.options.rounds {
            let out = self.place.join(format!("round-{round}"));
            fs::create_dir(&out)?;
            for ((way, _), seconds) in WAYS.iter().zip(&mut seconds) {
                let Some(took) = self.once(*way, &out)? else { continue };
                if round > 0 {
                    seconds.push(took);
                }
            }
            fs::remove_dir_all(&out)?;
        }
        let tree = seconds.first().cloned().unwrap_or_default();
        let times = |((_, name), seconds): (&(Way, &'static str), Vec<f64>)| Times {
            name,
            ratio: Spread::of_ratios(&seconds, &tree),
            seconds,
        };
        Ok(WAYS.iter().zip(seconds).map(times).collect())
    }

    /// Seconds that all files take in this way.
    fn once(&self, way: Way, out: &Path) -> Result<Option<f64>> {
        Ok(match way {
            Way::Tree | Way::Rerun => {
                let mut client = self.client()?;
                client.args(["--get", "tree/", "-o"]).arg(out.join("tree"));
                let took = timed(client)?;
                self.check(&out.join("tree"))?;
                Some(took)
            }
            Way::Each => {
                let (mut sum, each) = (0.0, self.options.each.min(self.names.len()).max(1));
                fs::create_dir(out.join("each"))?;
                for name in self.names.iter().take(each) {
                    let mut client = self.client()?;
                    client.args(["--get", &format!("tree/{name}"), "-o"]).arg(out.join("each/"));
                    sum += timed(client)?;
                }
                Some(sum * self.names.len() as f64 / each as f64)
            }
            Way::Rsync => {
                let Some(ssh) = self.ssh else { return Ok(None) };
                let mut rsync = Command::new(installed("rsync")?);
                rsync.arg("-a").arg("-e").arg(ssh.ssh_command()?);
                rsync
                    .arg(format!("{}:{}/", ssh.origin.address().ip(), self.tree.display()))
                    .arg(out.join("rsync"));
                let took = timed(rsync)?;
                self.check(&out.join("rsync"))?;
                Some(took)
            }
        })
    }

    fn client(&self) -> Result<Command> {
        let mut client = Command::new(own("relay-client")?);
        client.args(["--quiet", "--plain"]);
        for hop in self.relay.hops() {
            client.args(["--via", &hop.to_string()]);
        }
        Ok(client)
    }

    /// Every file must have come, and the last one must be what was sent.
    fn check(&self, got: &Path) -> Result<()> {
        let mut count = 0;
        for directory in fs::read_dir(got)? {
            count += fs::read_dir(directory?.path())?.count();
        }
        ensure!(count == self.names.len(), "{count} of {} files came", self.names.len());
        let last = self.names.last().context("no files")?;
        ensure!(fs::read(got.join(last))? == fs::read(self.tree.join(last))?, "{last} is not what was sent");
        Ok(())
    }
}

fn text(results: &[Times]) -> String {
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|t| {
            vec![t.name.to_owned(), spread(Spread::of(t.seconds.iter().copied()), 2), spread(t.ratio, 2)]
        })
        .collect();
    table(&["", "seconds", "÷ this project"], &rows)
}

//! `relay-bench resume`: a file of which nearly all is here already, beside fetching as little afresh and hashing the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::Args;
use relay_client::beneath::Directory;
use relay_client::journal::{Entry, Journal};
use relay_client::unfinished::Names;
use relay_proto::chunk::{CHUNK_LEN, chunk_count, chunk_len};
use relay_proto::digest::ChunkHash;
use relay_proto::file::FileFacts;
use serde::Serialize;

use crate::direct;
use crate::fetch::timed;
use crate::machine::Machine;
use crate::peers::{Chain, Variant, installed, own};
use crate::report::{Output, spread, table};
use crate::sample::{self, Workspace};
use crate::stats::Spread;

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Relays between the client and the origin
    #[arg(long, default_value_t = 3)]
    relays: usize,
    /// Size of the file
    #[arg(long, default_value = "1GiB", value_parser = sample::parse_size)]
    size: u64,
    /// How much of it is here already, in percent
    #[arg(long, default_value_t = 99)]
    held: u64,
    /// Rounds; one more comes before them as a warm-up
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Results {
    /// Seconds of the run that goes on.
    resume: Vec<f64>,
    /// Seconds of fetching as much as is missing.
    rest: Vec<f64>,
    /// Seconds that b3sum takes over what is here.
    hash: Vec<f64>,
    /// The first over the sum of the others, round by round.
    ratio: Option<Spread>,
}

/// Runs it and reports.
pub fn run(options: &Options) -> Result<()> {
    let b3sum = installed("b3sum")?;
    let machine = Machine::describe(&["b3sum"]);
    let home = Workspace::new()?;
    let file = home.add("sample", options.size)?;
    let held = chunk_count(options.size) * options.held / 100;
    home.add("rest", options.size - held * CHUNK_LEN)?;
    let begun = home.path().join("begun");
    copy_head(&file, &begun, held * CHUNK_LEN)?;
    let chain = Chain::start(Variant::Relay, options.relays, &file, home.path())?;
    let runtime = direct::runtime()?;
    let facts = runtime.block_on(direct::facts(&direct::route("sample", chain.hops())?))?;
    let bench = Bench {
        chain: &chain,
        b3sum,
        place: home.path(),
        begun: &begun,
        entries: entries(&file, held)?,
        facts,
    };
    let mut results = Results { resume: Vec::new(), rest: Vec::new(), hash: Vec::new(), ratio: None };
    for round in 0..=options.rounds {
        let (resume, rest, hash) = (bench.resume(&file)?, bench.fetch("rest")?, bench.hash()?);
        if round > 0 {
            results.resume.push(resume);
            results.rest.push(rest);
            results.hash.push(hash);
        }
    }
    let bases: Vec<f64> = results.rest.iter().zip(&results.hash).map(|(rest, hash)| rest + hash).collect();
    results.ratio = Spread::of_ratios(&results.resume, &bases);
    println!("{}", machine.text());
    println!(
        "{} through {} relays, {}% of it here, {} rounds; seconds\n",
        sample::size_text(options.size),
        options.relays,
        options.held,
        options.rounds
    );
    let row =
        |name: &str, seconds: &[f64]| vec![name.to_owned(), spread(Spread::of(seconds.iter().copied()), 3)];
    let rows = [
        row("going on", &results.resume),
        row("fetching the rest alone", &results.rest),
        row("b3sum over what is here", &results.hash),
        vec!["going on / (rest + b3sum)".to_owned(), spread(results.ratio, 2)],
    ];
    println!("{}", table(&["", "seconds"], &rows));
    options.output.json("resume", &machine, &[], &results)
}

struct Bench<'a> {
    chain: &'a Chain,
    b3sum: PathBuf,
    place: &'a Path,
    /// The file's beginning, as an interrupted run leaves it.
    begun: &'a Path,
    entries: Vec<Entry>,
    facts: FileFacts,
}

impl Bench<'_> {
    fn resume(&self, file: &Path) -> Result<f64> {
        let saved = self.place.join("saved");
        let _ = fs::remove_dir_all(&saved);
        fs::create_dir(&saved)?;
        fs::copy(self.begun, saved.join("sample.part"))?;
        let [names, _] = Names::of("sample".as_ref());
        Journal::create(&Directory::open(&saved)?, &names, &self.facts, &self.entries)?;
        let took = self.fetch("sample")?;
        sample::ensure_same(&saved.join("sample"), file)?;
        Ok(took)
    }

    fn fetch(&self, name: &str) -> Result<f64> {
        let saved = self.place.join("saved").join(name);
        if saved.exists() {
            fs::remove_file(&saved)?;
        }
        let mut client = Command::new(own("relay-client")?);
        client.arg("--plain");
        client.args(["--quiet", "--get", name, "-o"]).arg(&saved);
        for hop in self.chain.hops() {
            client.args(["--via", &hop.to_string()]);
        }
        timed(client)
    }

    fn hash(&self) -> Result<f64> {
        let mut command = Command::new(&self.b3sum);
        command.arg(self.begun);
        timed(command)
    }
}

fn copy_head(from: &Path, to: &Path, len: u64) -> Result<()> {
    use std::io::Read;
    let mut from = fs::File::open(from)?.take(len);
    std::io::copy(&mut from, &mut fs::File::create(to)?)?;
    Ok(())
}

fn entries(file: &Path, count: u64) -> Result<Vec<Entry>> {
    use std::io::Read;
    let size = file.metadata()?.len();
    let (mut file, mut entries) = (fs::File::open(file)?, Vec::new());
    for index in 0..count {
        let mut bytes = vec![0; usize::try_from(chunk_len(size, index))?];
        file.read_exact(&mut bytes)?;
        entries.push((index, ChunkHash::of(&bytes, index, size)));
    }
    Ok(entries)
}

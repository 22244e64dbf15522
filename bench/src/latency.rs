//! `relay-bench latency`: a small file through a chain, from connect to verified bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::chain::available;
use crate::direct;
use crate::fetch;
use crate::machine::Machine;
use crate::peers::{Chain, Variant};
use crate::report::{Output, table};
use crate::sample::{self, Workspace};
use crate::stats::Spread;

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Relays between the client and the origin
    #[arg(long, default_value_t = 3)]
    relays: usize,
    /// Size of the file
    #[arg(long, default_value = "1KiB", value_parser = sample::parse_size)]
    size: u64,
    /// Fetches that count, of each kind; a tenth as many come before them as a warm-up
    #[arg(long, default_value_t = 300)]
    fetches: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Times {
    name: String,
    /// Milliseconds.
    spread: Spread,
}

/// Runs it and reports.
pub fn run(options: &Options) -> Result<()> {
    let wanted = [Variant::Relay, Variant::Bound, Variant::Haproxy];
    let (present, missing) = available(&wanted);
    let programs: Vec<&str> = present.iter().flat_map(|v| v.programs()).copied().collect();
    let machine = Machine::describe(&programs);
    let home = Workspace::new()?;
    let file = home.add("small", options.size)?;
    let chains = present
        .iter()
        .map(|&v| Chain::start(v, options.relays, &file, home.path()))
        .collect::<Result<Vec<Chain>>>()?;
    let results = measure(options, &chains, &file)?;
    println!("{}", machine.text());
    println!(
        "{} through {} relays, {} fetches of each kind, taking turns; milliseconds\n",
        sample::size_text(options.size),
        options.relays,
        options.fetches
    );
    println!("{}", text(&results));
    missing.iter().for_each(|reason| println!("left out: {reason}"));
    options.output.json("latency", &machine, &missing, &results)
}

fn measure(options: &Options, chains: &[Chain], file: &Path) -> Result<Vec<Times>> {
    let runtime = direct::runtime()?;
    let mut kinds: Vec<(String, Vec<f64>)> = Vec::new();
    let warm_up = options.fetches / 10;
    for turn in 0..options.fetches + warm_up {
        for chain in chains {
            for (way, in_process) in [("from connect", true), ("whole process", false)] {
                let started = Instant::now();
                if in_process {
                    within(chain, file, &runtime, options.size)?;
                } else {
                    fetch::run(&chain.fetch(file, Path::new("/dev/null"))?)?;
                }
                let millis = started.elapsed().as_secs_f64() * 1e3;
                if turn >= warm_up {
                    push(&mut kinds, &format!("{}, {way}", chain.variant.name()), millis);
                }
            }
        }
    }
    Ok(kinds
        .into_iter()
        .filter_map(|(name, times)| Some(Times { name, spread: Spread::of(times)? }))
        .collect())
}

fn push(kinds: &mut Vec<(String, Vec<f64>)>, name: &str, millis: f64) {
    match kinds.iter_mut().find(|(n, _)| n == name) {
        Some((_, times)) => times.push(millis),
        None => kinds.push((name.to_owned(), vec![millis])),
    }
}

/// One fetch by this process, from connect to the last byte, which is verified where the chain lets it be.
fn within(chain: &Chain, file: &Path, runtime: &tokio::runtime::Runtime, size: u64) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let came = match chain.variant {
        Variant::Relay => runtime.block_on(direct::fetch(&direct::route(&name, chain.hops())?))?,
        Variant::Bound => from_bound(chain.entry())?,
        _ => by_http(chain.entry(), &name)?,
    };
    ensure!(came == size, "{}: {came} of {size} bytes came", chain.variant.name());
    Ok(())
}

fn from_bound(entry: SocketAddr) -> Result<u64> {
    let mut stream = TcpStream::connect(entry)?;
    stream.write_all(&[1])?;
    let mut size = [0; 8];
    stream.read_exact(&mut size)?;
    let mut body = vec![0; usize::try_from(u64::from_be_bytes(size))?];
    stream.read_exact(&mut body)?;
    std::hint::black_box(blake3::hash(&body));
    Ok(u64::from_be_bytes(size))
}

/// A bare HTTP/1.1 request whose answer ends with its connection.
fn by_http(entry: SocketAddr, name: &str) -> Result<u64> {
    let mut stream = TcpStream::connect(entry)?;
    stream.set_nodelay(true)?;
    write!(stream, "GET /{name} HTTP/1.1\r\nHost: {entry}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let body = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| answer.len() - at - 4);
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{entry} did not answer 200");
    Ok(body as u64)
}

fn text(results: &[Times]) -> String {
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|t| {
            let ms = |v: f64| format!("{v:.2}");
            let s = &t.spread;
            vec![t.name.clone(), ms(s.median), ms(s.low), ms(s.high), ms(s.min), ms(s.max)]
        })
        .collect();
    table(&["", "median", "quarter below", "quarter above", "least", "most"], &rows)
}

//! `relay-bench http`: the HTTP face beside nginx and Squid: small files over connections kept alive by wrk, a large one by
//! curl. First files out of the document root, then hits of a cache. All write an access log.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::daemon::{Daemon, settle};
use crate::machine::Machine;
use crate::peers::installed;
use crate::report::{Output, spread, table};
use crate::sample::{self, Workspace};
use crate::stats::Spread;
use crate::web_servers::{self, Named};

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Rounds that count; one more comes before them as a warm-up
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Connections that wrk keeps open
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds of a round of wrk
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Size of the large file that is served
    #[arg(long, default_value = "1GiB", value_parser = sample::parse_size)]
    size: u64,
    /// Size of the large file that is cached; curl fetches it again and again over one connection
    #[arg(long, default_value = "100MiB", value_parser = sample::parse_size)]
    cached_size: u64,
    /// Fetches of the cached file in a round
    #[arg(long, default_value_t = 10)]
    cached_fetches: usize,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["files", "cache"])]
    only: Vec<Part>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// Files out of a directory
    Files,
    /// Hits of a cache
    Cache,
}

#[derive(Debug, Serialize)]
struct Series {
    server: &'static str,
    small_requests_a_second: Vec<f64>,
    /// CPU seconds of the server for 100,000 small requests.
    small_cpu: Vec<f64>,
    large_megabytes_a_second: Vec<f64>,
    /// CPU seconds of the server a GB.
    large_cpu: Vec<f64>,
}

#[derive(Debug, Default, Serialize)]
struct Results {
    files: Vec<Series>,
    cache: Vec<Series>,
}

/// The large file of one part.
struct Large {
    name: &'static str,
    size: u64,
    fetches: usize,
}

/// Runs it and reports.
pub fn run(options: &Options) -> Result<()> {
    let machine = Machine::describe(&["nginx", "squid", "wrk", "curl"]);
    println!("{}", machine.text());
    let home = Workspace::new()?;
    home.add("small", 1024)?;
    let mut results = Results::default();
    println!("1 KiB by wrk over {} connections; {} rounds\n", options.connections, options.rounds);
    if options.only.contains(&Part::Files) {
        home.add("large", options.size)?;
        let large = Large { name: "large", size: options.size, fetches: 1 };
        results.files = compare(options, &web_servers::of_files(home.files(), home.path())?, &large)?;
        println!("Files; the large one has {}\n\n{}", sample::size_text(options.size), text(&results.files));
    }
    if options.only.contains(&Part::Cache) {
        home.add("cached", options.cached_size)?;
        let large = Large { name: "cached", size: options.cached_size, fetches: options.cached_fetches };
        let origin = web_servers::origin(home.files(), home.path())?;
        let caches = web_servers::caches(origin.address(), home.path())?;
        for (name, cache) in &caches {
            web_servers::warm(name, cache, "small")?;
            web_servers::warm(name, cache, large.name)?;
        }
        // From here on nobody can fetch anything anew.
        drop(origin);
        results.cache = compare(options, &caches, &large)?;
        println!(
            "Cache hits; the large file has {}, {} fetches over one connection\n\n{}",
            sample::size_text(options.cached_size),
            options.cached_fetches,
            text(&results.cache)
        );
    }
    options.output.json("http", &machine, &[], &results)
}

/// All servers in turn, round after round.
fn compare(options: &Options, servers: &[Named], file: &Large) -> Result<Vec<Series>> {
    let mut series: Vec<Series> = servers.iter().map(|(server, _)| Series::new(server)).collect();
    for round in 0..=options.rounds {
        for turn in 0..servers.len() {
            let i = (turn + round) % servers.len();
            let (Some((_, server)), Some(series)) = (servers.get(i), series.get_mut(i)) else { continue };
            let (small, large) = (small(options, server)?, large(file, server)?);
            if round > 0 {
                series.add(small, large);
            }
        }
    }
    Ok(series)
}

impl Series {
    fn new(server: &'static str) -> Series {
        Series {
            server,
            small_requests_a_second: Vec::new(),
            small_cpu: Vec::new(),
            large_megabytes_a_second: Vec::new(),
            large_cpu: Vec::new(),
        }
    }

    fn add(&mut self, small: (f64, f64), large: (f64, f64)) {
        self.small_requests_a_second.push(small.0);
        self.small_cpu.push(small.1);
        self.large_megabytes_a_second.push(large.0);
        self.large_cpu.push(large.1);
    }
}

/// Requests a second of the small file, and the server's CPU seconds for 100,000 of them.
fn small(options: &Options, server: &Daemon) -> Result<(f64, f64)> {
    let before = server.cpu()?;
    let output = Command::new(installed("wrk")?)
        .args(["-t", "1", "-c", &options.connections.to_string(), "-d", &format!("{}s", options.seconds)])
        .arg(format!("http://{}/small", server.address()))
        .output()
        .context("cannot start wrk")?;
    settle(&[server])?;
    let cpu = (server.cpu()? - before).as_secs_f64();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "wrk met errors: {said}");
    let count = number_before(&said, " requests in ").context("wrk did not say how many requests it made")?;
    let rate = number_after(&said, "Requests/sec:").context("wrk did not say its rate")?;
    Ok((rate, cpu / count * 1e5))
}

/// MB/s of the large file, and the server's CPU seconds a GB.
#[allow(clippy::cast_precision_loss, reason = "sizes below 2^53 are exact in an f64")]
fn large(file: &Large, server: &Daemon) -> Result<(f64, f64)> {
    let before = server.cpu()?;
    let started = Instant::now();
    let mut curl = Command::new(installed("curl")?);
    curl.args(["-sS", "--fail"]).stdin(Stdio::null());
    for _ in 0..file.fetches {
        curl.args(["-o", "/dev/null"]).arg(format!("http://{}/{}", server.address(), file.name));
    }
    let status = curl.status().context("cannot start curl")?;
    let elapsed: Duration = started.elapsed();
    ensure!(status.success(), "curl ended with {status}");
    settle(&[server])?;
    let gigabytes = file.size as f64 * file.fetches as f64 / 1e9;
    Ok((gigabytes * 1e3 / elapsed.as_secs_f64(), (server.cpu()? - before).as_secs_f64() / gigabytes))
}

fn number_before(text: &str, label: &str) -> Option<f64> {
    text.split_once(label)?.0.split_whitespace().last()?.parse().ok()
}

fn number_after(text: &str, label: &str) -> Option<f64> {
    text.split_once(label)?.1.split_whitespace().next()?.parse().ok()
}

fn text(series: &[Series]) -> String {
    let of = |values: &[f64], decimals| spread(Spread::of(values.iter().copied()), decimals);
    let mine = series.first();
    let rows: Vec<Vec<String>> = series
        .iter()
        .map(|s| {
            let ratio =
                |f: fn(&Series) -> &Vec<f64>| spread(mine.and_then(|m| Spread::of_ratios(f(m), f(s))), 2);
            vec![
                s.server.to_owned(),
                of(&s.small_requests_a_second, 0),
                ratio(|s| &s.small_requests_a_second),
                of(&s.small_cpu, 2),
                of(&s.large_megabytes_a_second, 0),
                ratio(|s| &s.large_megabytes_a_second),
                of(&s.large_cpu, 3),
            ]
        })
        .collect();
    table(
        &[
            "",
            "1 KiB requests/s",
            "this project ÷ it",
            "CPU s/100,000",
            "large MB/s",
            "this project ÷ it",
            "CPU s/GB",
        ],
        &rows,
    )
}

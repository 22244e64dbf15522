//! `relay-bench http`: the HTTP face beside nginx, with one worker a core each: small files over connections kept alive by
//! wrk, a large one by curl. Both write an access log.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::daemon::{Daemon, settle};
use crate::machine::Machine;
use crate::peers::{http_block, installed, nginx, relay_node};
use crate::report::{Output, spread, table};
use crate::sample;
use crate::site::Site;
use crate::stats::Spread;

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
    /// Size of the large file
    #[arg(long, default_value = "1GiB", value_parser = sample::parse_size)]
    size: u64,
    #[command(flatten)]
    output: Output,
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

/// Runs it and reports.
pub fn run(options: &Options) -> Result<()> {
    let machine = Machine::describe(&["nginx", "wrk", "curl"]);
    let home = sample::workspace()?;
    let files = home.path().join("files");
    std::fs::create_dir(&files)?;
    sample::create(&files, "small", 1024)?;
    sample::create(&files, "large", options.size)?;
    let servers = [
        ("this project", relay_node(&files, &home.path().join("node.log"))?),
        ("nginx", logging_nginx(&files, home.path())?),
    ];
    let mut series: Vec<Series> = servers.iter().map(|(server, _)| Series::new(server)).collect();
    for round in 0..=options.rounds {
        for turn in 0..servers.len() {
            let i = (turn + round) % servers.len();
            let (Some((_, server)), Some(series)) = (servers.get(i), series.get_mut(i)) else { continue };
            let (small, large) = (small(options, server)?, large(options, server)?);
            if round > 0 {
                series.add(small, large);
            }
        }
    }
    println!("{}", machine.text());
    println!(
        "1 KiB by wrk over {} connections; {} by curl; {} rounds\n",
        options.connections,
        sample::size_text(options.size),
        options.rounds
    );
    println!("{}", text(&series));
    options.output.json("http", &machine, &[], &series)
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

fn logging_nginx(files: &Path, home: &Path) -> Result<Daemon> {
    let site = Site::loopback();
    let address = site.free_address()?;
    let server = format!(
        "access_log {}/nginx-access.log;\n  server {{\n    listen {address} backlog=4096;\n    root {};\n  }}",
        home.display(),
        files.display()
    );
    let block = http_block(&server).replace("access_log off;", "");
    nginx(&site, "", &block, address, &home.join("nginx"))
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
fn large(options: &Options, server: &Daemon) -> Result<(f64, f64)> {
    let before = server.cpu()?;
    let started = Instant::now();
    let status = Command::new(installed("curl")?)
        .args(["-sS", "--fail", "-o", "/dev/null"])
        .arg(format!("http://{}/large", server.address()))
        .stdin(Stdio::null())
        .status()
        .context("cannot start curl")?;
    let elapsed: Duration = started.elapsed();
    ensure!(status.success(), "curl ended with {status}");
    settle(&[server])?;
    let gigabytes = options.size as f64 / 1e9;
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

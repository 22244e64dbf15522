//! `relay-bench lab`: chains over wide-area links, hosts being network namespaces in a line.
//!
//! ```text
//! client  --link 1--  relay 1  --link 2--  relay 2  …  --link n--  origin
//! ```
//!
//! | room | what belongs in it |
//! | --- | --- |
//! | `namespace`, `hosts`, `link` | the network: hosts, links between them, what links do to packets |
//! | `line`, `two_routes`, `matrix` | the cases |
//! | `report` | their tables |

use anyhow::{Result, ensure};
use clap::Args;

use crate::peers::Variant;
use crate::report::Output;
use crate::sample;

mod hosts;
mod line;
mod link;
mod matrix;
mod namespace;
mod report;
mod two_routes;

use hosts::{Cut, Network};

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// One-way delay of each link in milliseconds; as many links as there are numbers [default: 15,15,15]
    #[arg(long, value_delimiter = ',')]
    delays: Vec<u64>,
    /// Rate of each link in Mbit/s, one for all or one for each [default: 200]
    #[arg(long, value_delimiter = ',')]
    rates: Vec<u64>,
    /// Packets lost at random on each link, in percent, each way [default: 0.2]
    #[arg(long, value_delimiter = ',')]
    loss: Vec<f64>,
    /// Bytes that may wait before a link; without it the bandwidth-delay product of the whole path at its rate
    #[arg(long, value_parser = sample::parse_size)]
    queue: Option<u64>,
    /// Congestion control of the hosts, one run with each
    #[arg(long, value_delimiter = ',', default_values_t = ["bbr".to_owned(), "reno".to_owned()])]
    congestion: Vec<String>,
    /// Cut this link (from 1) in each fetch
    #[arg(long)]
    cut: Option<usize>,
    /// When to cut it, in seconds from the start of a fetch
    #[arg(long, default_value_t = 1.0)]
    cut_after: f64,
    /// For how long, in seconds
    #[arg(long, default_value_t = 2.0)]
    cut_for: f64,
    /// Size of the file
    #[arg(long, default_value = "64MiB", value_parser = sample::parse_size)]
    size: u64,
    /// Rounds that count; none comes before them as a warm-up unless --warm-up
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Fetch once before the rounds
    #[arg(long)]
    warm_up: bool,
    /// Where the randomness of the losses starts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What to run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Variant::Relay, Variant::Ssh, Variant::Socat, Variant::Aria2])]
    peers: Vec<Variant>,
    /// Instead of a line of hosts: two routes to one origin, each alone and both in one route file. The first two delays and
    /// rates are those of the routes, for both of their links; --cut cuts the first link of route 1 or 2
    #[arg(long)]
    two_routes: bool,
    /// One table of many cases: three equal links with each of --delays (5,15,50), --loss (0,0.2,1), --rates (20,100,500) and
    /// --congestion, one fetch of each peer in each case
    #[arg(long, conflicts_with_all = ["two_routes", "cut", "cut_after", "cut_for", "size", "rounds", "warm_up"])]
    matrix: bool,
    /// With --matrix: seconds after which a fetch is stopped. The file is as large as a link brings in half of them
    #[arg(long, default_value_t = 10.0, requires = "matrix")]
    limit: f64,
    /// With --matrix: how long all of it may take, in minutes. Cases for which no time is left are named
    #[arg(long, default_value_t = 60.0, requires = "matrix")]
    minutes: f64,
    /// A further option for relay-client (again and again), like --client-option=--connections=16
    #[arg(long, allow_hyphen_values = true)]
    client_option: Vec<String>,
    #[command(flatten)]
    output: Output,
}

/// Runs it and reports; without root it says so and does nothing.
pub fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: the lab makes network namespaces and TUN devices, which needs root");
        return Ok(());
    }
    match options {
        Options { matrix: true, .. } => matrix::run(options),
        Options { two_routes: true, .. } => two_routes::run(options),
        _ => line::run(options),
    }
}

/// What was typed, or the default.
fn given<'a, T>(typed: &'a [T], default: &'a [T]) -> &'a [T] {
    if typed.is_empty() { default } else { typed }
}

impl Options {
    fn delays(&self) -> &[u64] {
        given(&self.delays, &[15, 15, 15])
    }

    fn rates(&self) -> &[u64] {
        given(&self.rates, &[200])
    }

    fn loss(&self) -> Result<f64> {
        ensure!(self.loss.len() < 2, "all links lose alike; several values of --loss are for --matrix");
        Ok(self.loss.first().copied().unwrap_or(0.2))
    }

    fn network<'a>(&self, round_trip: u64, congestion: &'a str) -> Result<Network<'a>> {
        Ok(Network { loss: self.loss()?, queue: self.queue, round_trip, seed: self.seed, congestion })
    }

    /// The cut of a link; of two routes the first links are numbers 1 and 3.
    fn cut(&self) -> Option<Cut> {
        let link = self.cut.map(|n| if self.two_routes { (2 * n).saturating_sub(1) } else { n })?;
        Some(Cut { link, after: self.cut_after, length: self.cut_for })
    }

    /// A case in one line.
    fn case(&self) -> Result<String> {
        let cut = self.cut.map_or_else(String::new, |link| {
            format!(", link {link} cut after {} s for {} s", self.cut_after, self.cut_for)
        });
        Ok(format!(
            "{} over {} links of {:?} ms one way, {:?} Mbit/s, {}% loss each way{cut}; seed {}; queue {}\n",
            sample::size_text(self.size),
            self.delays().len(),
            self.delays(),
            self.rates(),
            self.loss()?,
            self.seed,
            self.queue.map_or_else(|| "of the path's bandwidth-delay product".to_owned(), sample::size_text),
        ))
    }
}

//! `relay-client trace`: each hop of a route, its address, version and time, and where and why the route ends.

use crate::cli::TraceArguments;
use crate::event::{Begun, Event};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::plan::{congestion, silence};
use crate::progress::{conclude, print_json};
use crate::route_source;
use crate::show;
use crate::stop::{Stop, Until};
use relay_chain::chain::{Step, Walk, random_id, walk};
use relay_proto::hop::ConnectionId;
use relay_proto::route::Route;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Walks the route and shows every step.
pub async fn run(arguments: &TraceArguments, stop: &Stop) -> Exit {
    conclude(trace(arguments, stop).await, arguments.json)
}

async fn trace(arguments: &TraceArguments, stop: &Stop) -> Result<(), Failure> {
    // Only the hops count; a name is needed to make a route of them.
    let route = route_source::read(&arguments.route, Some("-"))?;
    let silence = silence(arguments.time.timeout)?;
    let congestion = congestion(arguments.network.congestion)?;
    let id = random_id().map_err(|e| Failure::local("read", Path::new("the system's random numbers"), e))?;
    let mut view = View { route: &route, json: arguments.json, address: None };
    view.begin(id);
    let plan = Walk { route: &route, id, silence, first_requests: &[], congestion };
    let walked = Until::new(stop, arguments.time.deadline)
        .bound(async { walk(&plan, |step| view.step(step)).await.map_err(Failure::Walk) })
        .await;
    let pipe = walked.inspect_err(|failure| view.end(failure))?;
    if !arguments.json {
        let hops = route.hops().len();
        say(&format!("the chain stands: {hops} {} in {}", plural(hops), show::milliseconds(pipe.after)));
    }
    Ok(())
}

fn plural(hops: usize) -> &'static str {
    if hops == 1 { "hop" } else { "hops" }
}

/// A line of the result. Nobody is left to be told when standard output is gone.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

struct View<'a> {
    route: &'a Route,
    json: bool,
    address: Option<SocketAddr>,
}

impl View<'_> {
    fn begin(&self, id: ConnectionId) {
        let hops = self.route.hops().len();
        let last = self.route.hop(hops);
        if self.json {
            print_json(&Event::step(None, Begun::Dialling(id), self.route));
        } else {
            say(&format!("to {last}, {hops} {}, connection {id}", plural(hops)));
        }
    }

    fn step(&mut self, step: Step) {
        if self.json {
            print_json(&Event::step(None, Begun::Step(step), self.route));
            return;
        }
        match step {
            Step::Connected { address, .. } => self.address = Some(address),
            Step::Hello { position, agent, after } => self.hop(position, &agent, after),
        }
    }

    fn hop(&self, position: usize, agent: &str, after: Duration) {
        let hop = self.route.hop(position);
        // Only the first hop is dialled from here; the others' addresses are known to the hops before them.
        let address = self.address.filter(|_| position == 1 && hop.host.ip().is_none());
        let address = address.map(|address| format!(" [{address}]")).unwrap_or_default();
        say(&format!("{position:>3}  {hop}{address}  {agent}  {}", show::milliseconds(after)));
    }

    fn end(&self, failure: &Failure) {
        if let (Failure::Walk(error), false) = (failure, self.json) {
            say(&format!("{:>3}  {}  {}", error.position, error.hop, error.code));
        }
    }
}

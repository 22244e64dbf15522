//! `relay-client trace`: each hop of a route, its address, version and time, and where and why the route ends.

use crate::cli::TraceArguments;
use crate::console;
use crate::event::{Begun, Event};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::plan::{network, silence};
use crate::progress::conclude;
use crate::route_source;
use crate::session::build;
use crate::show;
use crate::stop::{Stop, Until};
use relay_chain::chain::Step;
use relay_proto::hop::ConnectionId;
use relay_proto::route::Route;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Walks the route and shows every step.
pub async fn run(arguments: &TraceArguments, stop: &Stop) -> Exit {
    conclude(trace(arguments, stop).await, arguments.json)
}

async fn trace(arguments: &TraceArguments, stop: &Stop) -> Result<(), Failure> {
    // Only the hops count; a name is needed to make a route of them.
    let route = route_source::read(&arguments.route, Some("-"))?;
    let silence = silence(arguments.time.timeout)?;
    let network = network(&arguments.network, &arguments.trust, std::slice::from_ref(&route))?;
    let mut view = View { route: &route, json: arguments.json, address: None, lost: None };
    let walked = Until::new(stop, arguments.time.deadline)
        .bound(build(&route, silence, &network, &[], |step| view.step(step)))
        .await;
    let pipe = walked.inspect_err(|failure| view.end(failure))?;
    if !arguments.json {
        let hops = route.hops().len();
        let after = show::milliseconds(pipe.after);
        view.say(&format!("the chain stands: {hops} {} in {after}", plural(hops)));
    }
    view.lost.map_or(Ok(()), |error| Err(console::lost(error)))
}

fn plural(hops: usize) -> &'static str {
    if hops == 1 { "hop" } else { "hops" }
}

struct View<'a> {
    route: &'a Route,
    json: bool,
    address: Option<SocketAddr>,
    /// Why a line did not get through.
    lost: Option<io::Error>,
}

impl View<'_> {
    fn say(&mut self, line: &str) {
        if let Err(error) = console::line(&line) {
            self.lost.get_or_insert(error);
        }
    }

    fn tell(&mut self, begun: Begun) {
        if let Err(error) = console::json(&Event::step(None, begun, self.route)) {
            self.lost.get_or_insert(error);
        }
    }

    fn begin(&mut self, id: ConnectionId) {
        let hops = self.route.hops().len();
        let last = self.route.hop(hops);
        self.say(&format!("to {last}, {hops} {}, connection {id}", plural(hops)));
    }

    fn step(&mut self, begun: Begun) {
        if self.json {
            return self.tell(begun);
        }
        match begun {
            Begun::Dialling(id) => self.begin(id),
            Begun::Step(Step::Connected { address, .. }) => self.address = Some(address),
            Begun::Step(Step::Hello { position, agent, after }) => self.hop(position, &agent, after),
            Begun::Encrypted { key, standing } => {
                self.say(&format!("     {}", show::encrypted(&key, standing)));
            }
        }
    }

    fn hop(&mut self, position: usize, agent: &str, after: Duration) {
        let hop = self.route.hop(position);
        // Only the first hop is dialled from here; the others' addresses are known to the hops before them.
        let address = self.address.filter(|_| position == 1 && hop.host.ip().is_none());
        let address = address.map(|address| format!(" [{address}]")).unwrap_or_default();
        self.say(&format!("{position:>3}  {hop}{address}  {agent}  {}", show::milliseconds(after)));
    }

    fn end(&mut self, failure: &Failure) {
        if let (Failure::Walk(error), false) = (failure, self.json) {
            self.say(&format!("{:>3}  {}  {}", error.position, error.hop, error.code));
        }
    }
}

//! What people and programs see of a run: bars on a terminal, plain lines elsewhere, JSON events, or only errors.

use crate::cli::ShowArguments;
use crate::console;
use crate::event::{Begun, Event, RouteEnd, RouteShare};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::show;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use relay_proto::route::Route;
use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Tells what happens to whoever watches.
pub struct Reporter {
    view: View,
    begun: Instant,
    /// Bytes that are here.
    position: AtomicU64,
    /// When the next progress line is due, in milliseconds since `begun`.
    due: AtomicU64,
    transfer: Mutex<Transfer>,
    /// Each route's part, where there are several routes or connections.
    shares: Mutex<Shares>,
    /// Why an event did not reach the program that reads them.
    lost: Mutex<Option<io::Error>>,
}

#[derive(Default)]
struct Shares {
    now: Vec<RouteShare>,
    /// What they were when the display showed them last, and when that was.
    shown: Vec<RouteShare>,
    at: Option<Instant>,
}

/// The transfer that is under way.
#[derive(Clone, Copy)]
struct Transfer {
    size: u64,
    have: u64,
    since: Instant,
}

enum View {
    Quiet,
    Lines,
    Json,
    Bars(Bars),
    Within(Box<dyn Fn(Seen<'_>) + Send + Sync>),
}

/// What a reporter within another one passes on.
pub enum Seen<'a> {
    /// Something happened.
    Event(&'a Event),
    /// So many bytes came, or were looked at.
    Bytes(u64),
    /// So many of them came to nothing.
    TakenBack(u64),
}

/// Milliseconds between two progress lines for people.
const LINES_EVERY: u64 = 5_000;
/// Milliseconds between two progress events for programs.
const JSON_EVERY: u64 = 500;

impl Reporter {
    /// What the arguments and the terminal ask for.
    #[must_use]
    pub fn new(show: &ShowArguments) -> Reporter {
        let view = if show.json {
            View::Json
        } else if show.quiet {
            View::Quiet
        } else if io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") {
            View::Bars(Bars::new())
        } else {
            View::Lines
        };
        Reporter::with(view)
    }

    /// Says nothing.
    #[must_use]
    pub fn silent() -> Reporter {
        Reporter::with(View::Quiet)
    }

    /// Shows nothing itself: all that happens is told to `seen`, which belongs to a larger whole.
    #[must_use]
    pub fn within(seen: impl Fn(Seen<'_>) + Send + Sync + 'static) -> Reporter {
        Reporter::with(View::Within(Box::new(seen)))
    }

    /// Whether programs read it, and so want every single event.
    #[must_use]
    pub fn is_for_programs(&self) -> bool {
        matches!(self.view, View::Json)
    }

    /// Whether somebody waits for the next progress event; told once an interval.
    pub fn is_due(&self) -> bool {
        let every = match &self.view {
            View::Quiet | View::Within(_) => return false,
            View::Bars(_) => return true,
            View::Lines => LINES_EVERY,
            View::Json => JSON_EVERY,
        };
        let now = self.now();
        let is_due = now >= self.due.load(Ordering::Relaxed);
        if is_due {
            self.due.store(now + every, Ordering::Relaxed);
        }
        is_due
    }

    fn with(view: View) -> Reporter {
        let begun = Instant::now();
        let transfer = Mutex::new(Transfer { size: 0, have: 0, since: begun });
        Reporter {
            view,
            begun,
            position: AtomicU64::new(0),
            due: AtomicU64::new(0),
            transfer,
            shares: Mutex::default(),
            lost: Mutex::default(),
        }
    }

    /// Since the run began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Something happened.
    pub fn event(&self, event: &Event) {
        match event {
            Event::File { size, have, .. } => self.begin(*size, *have),
            Event::Checking { size, .. } => self.begin(*size, 0),
            _ => {}
        }
        match &self.view {
            // Of a directory this is an error like others, but not the last word.
            View::Quiet if matches!(event, Event::FileFailed { .. }) => {
                sentence(event).into_iter().for_each(|line| console::message(&format!("error: {line}")));
            }
            View::Quiet => {}
            View::Json => self.json(event),
            View::Lines => {
                if let Some(line) = sentence(event) {
                    console::message(&line);
                }
            }
            View::Bars(bars) => bars.event(event),
            View::Within(seen) => seen(Seen::Event(event)),
        }
    }

    /// A line for people, a `note` for programs.
    pub fn note(&self, message: String) {
        self.event(&Event::Note { message });
    }

    /// Bytes of the file came.
    pub fn bytes(&self, count: u64) {
        let position = self.position.fetch_add(count, Ordering::Relaxed) + count;
        match &self.view {
            View::Quiet => {}
            View::Within(seen) => seen(Seen::Bytes(count)),
            View::Bars(bars) => bars.bar.set_position(position),
            View::Lines => self.line_if_due(position, LINES_EVERY),
            View::Json => self.line_if_due(position, JSON_EVERY),
        }
    }

    /// Bytes that were counted came to nothing.
    pub fn take_back(&self, count: u64) {
        if count == 0 {
            return;
        }
        let position = self.position.fetch_sub(count, Ordering::Relaxed).saturating_sub(count);
        match &self.view {
            View::Bars(bars) => bars.bar.set_position(position),
            View::Within(seen) => seen(Seen::TakenBack(count)),
            _ => {}
        }
    }

    /// How far a chain is built; `label`: that of which route, from 1, if there are several.
    pub fn step(&self, label: Option<usize>, begun: Begun, route: &Route) {
        self.event(&Event::step(label, begun, route));
    }

    /// One route failed and the others go on; it is tried again after `pause`, if at all. `label`: which one, from 1. A lonely
    /// route has none, and its failure is told in other ways.
    pub fn route_lost(&self, label: Option<usize>, failure: &Failure, pause: Option<Duration>) {
        let Some(route) = label else { return };
        self.event(&Event::RouteLost {
            route,
            reason: failure.to_string(),
            kind: failure.exit().word(),
            position: failure.position(),
            pause: pause.map(|pause| pause.as_secs_f64()),
        });
    }

    /// What each route has brought by now.
    pub fn routes(&self, now: Vec<RouteShare>) {
        let Ok(mut shares) = self.shares.lock() else { return };
        shares.now = now;
        let View::Bars(bars) = &self.view else { return };
        match shares.at.map(|at| at.elapsed()) {
            Some(since) if since < SHARES_EVERY => return,
            Some(since) => bars.routes(shares_line(&shares.now, &shares.shown, since)),
            // There is no rate yet.
            None => {}
        }
        shares.shown = shares.now.clone();
        shares.at = Some(Instant::now());
    }

    /// The exit code of the run, which ended like this; a failure is said in every view. An event that did not reach the program
    /// that reads them is one as well.
    pub fn conclude(&self, ended: Result<(), Failure>) -> Exit {
        let lost = self.lost.lock().map(|mut lost| lost.take()).unwrap_or_default();
        let ended = ended.and_then(|()| lost.map_or(Ok(()), |error| Err(console::lost(error))));
        let Err(failure) = ended else { return Exit::Success };
        if let View::Bars(bars) = &self.view {
            bars.clear();
        }
        if matches!(self.view, View::Json) {
            self.json(&Event::failed(&failure));
        }
        print_failure(&failure);
        failure.exit()
    }

    fn json(&self, event: &Event) {
        let Err(error) = console::json(event) else { return };
        if let Ok(mut lost) = self.lost.lock() {
            lost.get_or_insert(error);
        }
    }

    fn begin(&self, size: u64, have: u64) {
        self.position.store(have, Ordering::Relaxed);
        self.due.store(self.now() + LINES_EVERY.min(JSON_EVERY), Ordering::Relaxed);
        if let Ok(mut transfer) = self.transfer.lock() {
            *transfer = Transfer { size, have, since: Instant::now() };
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn line_if_due(&self, position: u64, every: u64) {
        let now = self.now();
        if now < self.due.load(Ordering::Relaxed) {
            return;
        }
        self.due.store(now + every, Ordering::Relaxed);
        let Ok(transfer) = self.transfer.lock().map(|transfer| *transfer) else { return };
        let seconds = transfer.since.elapsed().as_secs_f64().max(1e-3);
        let rate = (position.saturating_sub(transfer.have) as f64 / seconds) as u64;
        let routes = self.shares.lock().map(|shares| shares.now.clone()).unwrap_or_default();
        self.event(&Event::Progress { bytes: position, size: transfer.size, rate, routes });
    }
}

/// Says on standard error why a run failed. A route's error brings its own frame.
pub fn print_failure(failure: &Failure) {
    match failure {
        Failure::Route(rendered) => console::message(rendered),
        failure => console::message(&format!("error: {failure}")),
    }
}

/// The exit code of a command that ended like this; a failure is told to people, and with `json` to programs.
pub fn conclude(result: Result<(), Failure>, json: bool) -> Exit {
    let Err(failure) = result else { return Exit::Success };
    if json {
        // That standard output is gone may be what the failure is about.
        let _ = console::json(&Event::failed(&failure));
    }
    print_failure(&failure);
    failure.exit()
}

/// An event in words; none for those that only a moving display needs.
fn sentence(event: &Event) -> Option<String> {
    Some(match event {
        Event::Dialling { .. } => return None,
        Event::Connected { .. } => return None,
        Event::Hello { route, position, hop, agent, ms, .. } => {
            let ms = show::milliseconds(from_ms(*ms));
            format!("{}hop {position} ({hop}): {agent}, {ms}", route_label(*route))
        }
        Event::Encrypted { route, text, .. } => format!("{}{text}", route_label(*route)),
        Event::File { name, size, have: 0 } => format!("{name}: {}", show::bytes(*size)),
        Event::File { name, size, have } => {
            format!("{name}: {}, of which {} are here already", show::bytes(*size), show::bytes(*have))
        }
        Event::Progress { bytes, size, rate, routes } => {
            let mut line = progress_line(*bytes, *size, *rate);
            if !routes.is_empty() {
                line = format!("{line} ({})", shares_line(routes, &[], Duration::ZERO));
            }
            line
        }
        Event::RouteLost { route, reason, pause, .. } => {
            let then = match pause {
                Some(pause) => {
                    let pause = Duration::try_from_secs_f64(*pause).unwrap_or_default();
                    format!("trying it again in {}", humantime::format_duration(pause))
                }
                None => "it is not used any more".to_owned(),
            };
            format!("route {route}: {reason}; {then}")
        }
        Event::Checking { path, size } => format!("checking {} of {path}", show::bytes(*size)),
        Event::Retry { reason, number, of, pause, .. } => {
            let pause = Duration::try_from_secs_f64(*pause).unwrap_or_default();
            format!("{reason}\ntrying again in {} ({number} of {of})", humantime::format_duration(pause))
        }
        Event::Note { message } => message.clone(),
        Event::Same { path, by, hash, .. } => {
            let hash = hash.as_ref().map(|hash| format!("\n{hash}")).unwrap_or_default();
            format!("{path} is the same as the origin's (by {by}); nothing to fetch{hash}")
        }
        Event::Done { path, size, fetched, replaced, seconds, hash, routes } => {
            let to = path.as_deref().unwrap_or("standard output");
            let fetched_note = if fetched == size {
                String::new()
            } else {
                format!(", {} of them fetched", show::bytes(*fetched))
            };
            let routes: String = routes.iter().map(route_end).collect();
            let place = if *replaced { ", in place of an older file" } else { "" };
            let (size, pace) = (show::bytes(*size), pace(*fetched, *seconds));
            format!("{to}: {size}{fetched_note}, verified{place}{pace}{routes}\n{hash}")
        }
        Event::Tree { .. } | Event::FileDone { .. } | Event::FileSame { .. } => return None,
        Event::Listed { files, size } => format!("{}, {}", counted(*files, "file"), show::bytes(*size)),
        Event::TreeProgress { files, of, bytes, size, rate } => {
            format!("{files} of {} done, {}", counted(*of, "file"), progress_line(*bytes, *size, *rate))
        }
        Event::FileFailed { path, message, .. } => format!("{path}: {message}"),
        Event::TreeDone { .. } => return tree_summary(event),
        Event::Failed { message, .. } => message.clone(),
    })
}

/// What became of a directory. Counts of nothing are left out.
fn tree_summary(event: &Event) -> Option<String> {
    let Event::TreeDone {
        path,
        files,
        fetched,
        replaced,
        same,
        failed,
        unnameable,
        unreadable,
        links,
        left,
        bytes,
        seconds,
    } = event
    else {
        return None;
    };
    let mut parts = Vec::new();
    if *fetched > 0 {
        let replaced =
            if *replaced == 0 { String::new() } else { format!(" ({replaced} in place of older ones)") };
        parts.push(format!("{fetched} fetched ({}) and verified{replaced}", show::bytes(*bytes)));
    }
    let others = [
        (same, "the same"),
        (failed, "failed"),
        (unnameable, "not nameable"),
        (unreadable, "not readable"),
        (links, "links left out"),
        (left, "not tried"),
    ];
    parts.extend(
        others.iter().filter(|(count, _)| **count > 0).map(|(count, what)| format!("{count} {what}")),
    );
    let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    Some(format!("{path}: {}{parts}{}", counted(*files, "file"), pace(*bytes, *seconds)))
}

/// Less than this says nothing of how fast anything is.
const TELLING: Duration = Duration::from_millis(100);

/// How long it took, and how fast the bytes came; nothing where that tells nothing.
fn pace(bytes: u64, seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    if duration < TELLING {
        return String::new();
    }
    let rate = if bytes == 0 { String::new() } else { format!(" ({})", show::rate(bytes, duration)) };
    format!(", in {}{rate}", show::seconds(duration))
}

fn route_label(route: Option<usize>) -> String {
    route.map(|route| format!("route {route}, ")).unwrap_or_default()
}

/// A route's line in the summary.
fn route_end(end: &RouteEnd) -> String {
    let failure = end.failure.as_ref().map(|failure| format!("; {failure}")).unwrap_or_default();
    format!("\n  route {}: {}{failure}", end.route, show::bytes(end.bytes))
}

/// Each route's share of what came in this run, and its rate since it was shown last.
fn shares_line(now: &[RouteShare], shown: &[RouteShare], since: Duration) -> String {
    let all: u64 = now.iter().map(|share| share.bytes).sum();
    let one = |share: &RouteShare| {
        let percent = share.bytes.saturating_mul(100).checked_div(all).unwrap_or(0);
        let before = shown.iter().find(|before| before.route == share.route).map_or(0, |before| before.bytes);
        let rate = if since.is_zero() {
            String::new()
        } else {
            format!(", {}", show::rate(share.bytes.saturating_sub(before), since))
        };
        let connections = match share.connections {
            1 => String::new(),
            0 => ", down".to_owned(),
            count => format!(", {count} connections"),
        };
        format!("route {}: {percent}%{rate}{connections}", share.route)
    };
    now.iter().map(one).collect::<Vec<_>>().join(" · ")
}

/// How often the routes' shares and rates are shown anew on a terminal.
const SHARES_EVERY: Duration = Duration::from_millis(900);

/// A count and its word.
fn counted(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

fn from_ms(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default()
}

fn progress_line(bytes: u64, size: u64, rate: u64) -> String {
    let percent = bytes.saturating_mul(100).checked_div(size).unwrap_or(100);
    let left = size.saturating_sub(bytes).checked_div(rate).map(Duration::from_secs);
    let left = left.map(|left| format!(", {} left", humantime::format_duration(left))).unwrap_or_default();
    format!("{} of {} ({percent}%), {}/s{left}", show::bytes(bytes), show::bytes(size), show::bytes(rate))
}

/// The moving display: a line that tells what is awaited, then a bar.
struct Bars {
    all: MultiProgress,
    bar: ProgressBar,
    /// Each route's share and rate, below the bar.
    routes: ProgressBar,
    /// The directory that is fetched, as it is shown, when one is.
    tree: Mutex<Option<String>>,
    /// Whether the bar counts that directory's bytes now, and does not tell of hops.
    counts: AtomicBool,
}

/// How often the moving display is drawn anew when nothing happens.
const TICK: Duration = Duration::from_millis(100);

impl Bars {
    fn new() -> Bars {
        let all = MultiProgress::new();
        let bar = all.add(ProgressBar::new_spinner());
        let routes = ProgressBar::hidden().with_style(style("  {msg}"));
        Bars { all, bar, routes, tree: Mutex::new(None), counts: AtomicBool::new(false) }
    }

    fn routes(&self, line: String) {
        if line.is_empty() {
            return;
        }
        if self.routes.is_hidden() {
            self.all.insert_after(&self.bar, self.routes.clone());
        }
        self.routes.set_message(line);
    }

    fn event(&self, event: &Event) {
        match event {
            // What other routes do is told above the bar, which shows the first one's steps until the file comes.
            Event::Dialling { .. } | Event::Connected { .. } if self.is_underway() => {}
            Event::Hello { .. } if self.is_underway() => self.line(event),
            Event::Encrypted { .. } => self.line(event),
            Event::Dialling { hops, hop, .. } => {
                self.spin();
                self.bar.enable_steady_tick(TICK);
                self.bar.set_message(format!("hop 1 of {hops} ({hop}) …"));
            }
            Event::Connected { hop, address, .. } => {
                self.bar.set_message(format!("hop 1 ({hop}): connected to {address}, awaiting its hello …"));
            }
            Event::Hello { position, next, .. } => {
                self.line(event);
                self.bar.set_message(match next {
                    Some(next) => format!("hop {} ({next}) …", position + 1),
                    None => "awaiting the file …".to_owned(),
                });
            }
            Event::File { name, size, have } => self.bytes(name.clone(), *size, *have),
            Event::Checking { path, size } => self.bytes(format!("checking {path}"), *size, 0),
            Event::Progress { .. }
            | Event::FileDone { .. }
            | Event::FileSame { .. }
            | Event::Listed { .. } => {}
            Event::Tree { name, .. } => self.tree(name),
            Event::TreeProgress { files, of, bytes, size, .. } => {
                self.tree_progress((*files, *of), (*bytes, *size));
            }
            Event::Retry { pause, .. } => {
                self.line(event);
                self.spin();
                self.bar.unset_length();
                self.routes.set_message("");
                self.bar.set_message(format!("waiting {pause} s …"));
            }
            Event::Note { .. }
            | Event::Failed { .. }
            | Event::RouteLost { .. }
            | Event::FileFailed { .. } => self.line(event),
            Event::Same { .. } | Event::Done { .. } | Event::TreeDone { .. } => {
                self.clear();
                self.line(event);
            }
        }
    }

    fn spin(&self) {
        self.counts.store(false, Ordering::Relaxed);
        self.bar.set_style(style("{spinner} {msg}"));
    }

    /// A directory is fetched: one bar over all of its files.
    fn tree(&self, name: &str) {
        if let Ok(mut tree) = self.tree.lock() {
            *tree = Some(name.to_owned());
        }
    }

    fn tree_progress(&self, files: (u64, u64), bytes: (u64, u64)) {
        let Ok(Some(name)) = self.tree.lock().map(|tree| tree.clone()) else { return };
        if !self.counts.swap(true, Ordering::Relaxed) {
            self.bar.set_style(style(
                "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left",
            ));
            self.bar.set_position(bytes.0);
            self.bar.reset_eta();
        }
        self.bar.set_message(format!("{name} {}/{} files", files.0, files.1));
        self.bar.set_length(bytes.1);
        self.bar.set_position(bytes.0);
    }

    /// The bar over the bytes of a file.
    fn bytes(&self, name: String, size: u64, have: u64) {
        self.bar.set_style(style(
            "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left",
        ));
        self.bar.set_message(name);
        self.bar.set_length(size);
        self.bar.set_position(have);
        self.bar.reset_eta();
        self.bar.enable_steady_tick(TICK);
    }

    /// Whether bytes come already.
    fn is_underway(&self) -> bool {
        self.bar.length().is_some()
    }

    /// A line that stays, above the moving ones.
    fn line(&self, event: &Event) {
        if let Some(line) = sentence(event) {
            let _ = self.all.println(line);
        }
    }

    fn clear(&self) {
        self.routes.finish_and_clear();
        self.bar.finish_and_clear();
    }
}

/// A display's template; a mistake in one is found by the test below.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_tell_nothing_are_left_out() {
        assert_eq!(pace(5, 0.03), "");
        assert_eq!(pace(0, 2.0), ", in 2.0 s");
        assert_eq!(pace(4 << 20, 2.0), ", in 2.0 s (2.00 MiB/s)");
    }

    #[test]
    fn progress_lines() {
        assert_eq!(progress_line(0, 0, 0), "0 B of 0 B (100%), 0 B/s");
        assert_eq!(
            progress_line(1 << 20, 4 << 20, 1 << 19),
            "1.00 MiB of 4.00 MiB (25%), 512.00 KiB/s, 6s left"
        );
    }
}

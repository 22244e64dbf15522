//! The real cache beside the [model](super::cache_model): random requests, answers, times, aborts, joins, and an origin that
//! breaks off. Whoever gets what the model forbids, or bytes of it that are not those asked for, is a failure.
//!
//! `RELAY_CACHE_MODEL_SEEDS=500` plays more of them, `RELAY_CACHE_MODEL_SEED=17` the one that a failure printed.

use super::cache_model::{Answered, Asked, Changed, forbids};
use super::proxy_front::{Front, Setup};
use super::raw_http::{Answer, PATIENCE, get, lines, read_answer};
use super::scripted_upstream::{Seen, Upstream};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

const SEEDS: u64 = 40;
const STEPS: usize = 60;
const MOST_AT_ONCE: usize = 10;
const CONTROLS: [&str; 10] = [
    "",
    "max-age=60",
    "max-age=60",
    "public, max-age=60",
    "max-age=0, s-maxage=20",
    "max-age=5, stale-while-revalidate=20",
    "max-age=0, must-revalidate",
    "public, no-cache",
    "no-store",
    "private, max-age=60",
];
const VARIES: [Option<&str>; 4] =
    [Some("accept-language"), Some("cookie"), Some("x-forwarded-for"), Some("*")];

/// What has happened somewhere.
enum Event {
    /// The upstream is asked, and waits to be told what to say, piece by piece.
    Asked(Seen, Sender<Vec<u8>>),
    /// A client has its answer, unless it is gone.
    Answered(usize, Option<Answer>),
}

/// A request that the upstream holds.
struct Held {
    seen: Seen,
    id: usize,
    /// When it was seen to be there.
    step: usize,
    clock: u64,
    say: Sender<Vec<u8>>,
    /// What is still to be said of an answer that has begun.
    rest: Option<Vec<u8>>,
}

/// The stage of all plays.
struct Stage {
    front: Front,
    events: Receiver<Event>,
    tell: Sender<Event>,
    clock: u64,
    step: usize,
    ids: usize,
}

/// A play with one seed.
struct Play<'a> {
    stage: &'a mut Stage,
    random: Random,
    prefix: String,
    asked: HashMap<usize, Asked>,
    sent: HashMap<usize, Sent>,
    /// Those who wait for their answers.
    clients: BTreeMap<usize, TcpStream>,
    held: Vec<Held>,
    answers: HashMap<usize, Answered>,
    changes: Vec<Changed>,
    /// When the origin answered a POST.
    posts: HashMap<usize, usize>,
    /// Requests that the origin did not answer, and answers that it did not end.
    failed: Vec<usize>,
    broken: Vec<usize>,
    wrong: Vec<String>,
}

/// A request as its client sends it.
struct Sent {
    method: &'static str,
    range: Option<Range<usize>>,
    /// What the client has already.
    has: Option<usize>,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % end
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// An answer's number stands in its fields, and in its body that of the answer which brought the body.
fn body(number: usize) -> String {
    format!("answer {number} ").repeat(200)
}

impl Stage {
    fn new() -> Self {
        let (tell, events) = channel();
        let asked = Mutex::new(tell.clone());
        let upstream = Upstream::start(move |seen, stream| {
            let (say, said) = channel();
            drop(asked.lock().unwrap().send(Event::Asked(seen.clone(), say)));
            for piece in said {
                // Whoever asked may be gone.
                drop(stream.write_all(&piece));
            }
        });
        Self { front: Setup::caching(upstream.address).start(), events, tell, clock: 0, step: 0, ids: 0 }
    }
}

impl Play<'_> {
    fn run(mut self) -> Vec<String> {
        for _ in 0..STEPS {
            match self.random.below(20) {
                0..=8 if self.clients.len() < MOST_AT_ONCE => self.ask(),
                9..=13 => self.answer(),
                14..=16 => self.finish(),
                17 => self.abort(),
                18 => {
                    let time = self.random.one_of(&[1, 9, 30, 61]);
                    self.stage.clock += time;
                    self.stage.front.later(Duration::from_secs(time));
                }
                _ => {}
            }
            self.look();
        }
        while !self.clients.is_empty() {
            self.answer();
            self.finish();
            if self.held.is_empty() && !self.clients.is_empty() {
                match self.stage.events.recv_timeout(PATIENCE) {
                    Ok(event) => self.note(event),
                    Err(_) => {
                        self.wrong.push(format!("no answer to {:?}", self.clients.keys()));
                        break;
                    }
                }
            }
            self.look();
        }
        self.wrong
    }

    /// Lets the cache come to what was sent to it, and sees what has happened.
    fn look(&mut self) {
        let probe = format!("{}/probe", self.prefix);
        assert_eq!(get(self.stage.front.address, &probe, &["Cache-Control: only-if-cached"]).status, 504);
        self.stage.step += 1;
        while let Ok(event) = self.stage.events.try_recv() {
            self.note(event);
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Asked(seen, say) => {
                let id = seen.field("x-id").unwrap().parse().unwrap();
                // The rest are from the play before.
                if self.asked.contains_key(&id) {
                    let (step, clock) = (self.stage.step, self.stage.clock);
                    self.held.push(Held { seen, id, step, clock, say, rest: None });
                }
            }
            Event::Answered(id, answer) => {
                if self.clients.remove(&id).is_some() {
                    self.judge(id, answer);
                }
            }
        }
    }

    fn ask(&mut self) {
        let id = self.stage.ids;
        self.stage.ids += 1;
        let address = Ipv4Addr::new(127, 0, 0, self.random.one_of(&[1, 1, 2]));
        let path = format!("{}/{}", self.prefix, self.random.below(3));
        let method = ["POST", "HEAD", "GET"][self.random.below(12).min(2)];
        let range = self.random.once_in(5).then(|| 100..self.random.one_of(&[101, 1000, 9000]));
        let latest =
            self.answers.iter().filter(|(_, answer)| answer.to.path == path).map(|(number, _)| *number).max();
        let has = latest.filter(|_| self.random.once_in(5));
        let mut fields = BTreeMap::from([("x-forwarded-for".to_owned(), address.to_string())]);
        let mut head =
            vec![format!("{method} {path} HTTP/1.1"), "Host: node.test".to_owned(), format!("X-Id: {id}")];
        let mut say = |name: &str, value: &str, goes_on: bool| {
            head.push(format!("{name}: {value}"));
            if goes_on {
                fields.insert(name.to_ascii_lowercase(), value.to_owned());
            }
        };
        let stays_here = self.random.once_in(4);
        if self.random.once_in(2) {
            say("Accept-Language", self.random.one_of(&["de", "en"]), !stays_here);
        }
        if self.random.once_in(2) {
            say("Cookie", self.random.one_of(&["alice", "bob"]), true);
        }
        if self.random.once_in(4) {
            say("Authorization", "Basic eA==", true);
        }
        if self.random.once_in(4) {
            say(
                "Cache-Control",
                self.random.one_of(&["no-cache", "max-age=0", "max-age=10", "no-store"]),
                true,
            );
        }
        if let Some(range) = &range {
            say("Range", &format!("bytes={}-{}", range.start, range.end - 1), false);
        }
        if let Some(has) = has {
            say("If-None-Match", &format!("\"{has}\""), false);
        }
        say("Connection", if stays_here { "close, Accept-Language" } else { "close" }, false);
        if method == "POST" {
            say("Content-Length", "0", false);
        }
        let asked = Asked { id, path, fields, clock: self.stage.clock, step: self.stage.step };
        self.asked.insert(id, asked);
        self.sent.insert(id, Sent { method, range, has });
        let stream = connect_from(address, self.stage.front.address);
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        (&stream).write_all(lines(&head).as_bytes()).unwrap();
        let (mut reader, tell) = (stream.try_clone().unwrap(), self.stage.tell.clone());
        self.clients.insert(id, stream);
        thread::spawn(move || {
            let mut bytes = Vec::new();
            drop(reader.read_to_end(&mut bytes));
            let answer = (!bytes.is_empty()).then(|| read_answer(&mut bytes.as_slice(), method == "HEAD"));
            drop(tell.send(Event::Answered(id, answer)));
        });
    }

    /// The origin begins to answer one of the requests that it holds, and perhaps says all.
    fn answer(&mut self) {
        let waiting: Vec<usize> =
            (0..self.held.len()).filter(|place| self.held[*place].rest.is_none()).collect();
        if waiting.is_empty() {
            return;
        }
        let mut held = self.held.remove(self.random.one_of(&waiting));
        if self.random.once_in(12) {
            // It breaks off without a word.
            return self.failed.push(held.id);
        }
        let (number, answered) = self.answered(&held);
        let method = held.seen.line.split(' ').next().unwrap();
        let text = said(number, &answered, method, self.random.once_in(4));
        let (now, rest) = match self.random.below(3) {
            0 => text.split_at(text.len() - text.len() / 4),
            1 => text.split_at(text.find("\r\n\r\n").unwrap() + 4),
            _ => (text.as_str(), ""),
        };
        self.answers.insert(number, answered);
        drop(held.say.send(now.into()));
        if !rest.is_empty() {
            held.rest = Some(rest.into());
            self.held.push(held);
        }
    }

    /// Decides what the origin says.
    fn answered(&mut self, held: &Held) -> (usize, Answered) {
        let asked = self.asked[&held.id].clone();
        // The model must not be wrong about what the origin sees.
        for (name, value) in &asked.fields {
            assert_eq!(held.seen.field(name), Some(value.as_str()), "{name} as forwarded");
        }
        if self.sent[&held.id].method == "POST" {
            self.posts.insert(held.id, self.stage.step);
        }
        let tag = held.seen.field("if-none-match").map(|tag| tag.trim_matches('"').parse().unwrap());
        let confirms: Option<usize> = tag.filter(|_| !self.random.once_in(3));
        let vary = if self.random.once_in(3) { self.random.one_of(&VARIES) } else { None };
        // A 304 that says nothing of it leaves what was said before, and which that was hangs on what is stored.
        let control = if confirms.is_some() { &CONTROLS[1..] } else { &CONTROLS };
        let answered = Answered {
            to: asked,
            control: self.random.one_of(control),
            // A 304 does not say that what was chosen was chosen by something else.
            vary: confirms.map_or(vary, |known| self.answers[&known].vary),
            sets_cookie: self.random.once_in(8),
            confirms,
            asked: held.step,
            arrived: None,
            sent: held.clock,
            clock: self.stage.clock,
        };
        (held.seen.number, answered)
    }

    /// An answer that has begun ends, or breaks off.
    fn finish(&mut self) {
        let Some(place) = self.held.iter().position(|held| held.rest.is_some()) else { return };
        let held = self.held.remove(place);
        if self.random.once_in(6) {
            // Perhaps in its head, and then it is none.
            self.failed.push(held.id);
            self.broken.push(held.seen.number);
        } else {
            drop(held.say.send(held.rest.unwrap()));
        }
    }

    /// A client goes as the clients of a process do that ends with its work undone.
    fn abort(&mut self) {
        let there: Vec<usize> = self.clients.keys().copied().collect();
        if !there.is_empty()
            && let Some(stream) = self.clients.remove(&self.random.one_of(&there))
        {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            // Its reader wakes up, too.
            drop(stream.shutdown(Shutdown::Read));
        }
    }

    fn judge(&mut self, id: usize, answer: Option<Answer>) {
        let asked = self.asked[&id].clone();
        let why = match &answer {
            None => Some("no answer".to_owned()),
            Some(answer) if answer.status == 502 && self.failed.contains(&id) => None,
            Some(answer) => self.objection(&asked, answer),
        };
        if let Some(why) = why {
            let number = answer.as_ref().and_then(|answer| number(answer, "x-answer"));
            let what = number.map(|number| (number, &self.answers[&number]));
            let status = answer.map(|answer| (answer.status, answer.cache_status()));
            self.wrong.push(format!("{why}: {asked:?} got {status:?} {what:?}"));
        }
    }

    fn objection(&mut self, asked: &Asked, answer: &Answer) -> Option<String> {
        let (Some(number), Some(tag)) = (number(answer, "x-answer"), number(answer, "etag")) else {
            return Some("not an answer of the origin".to_owned());
        };
        if let Some(why) = self.wrong_bytes(&self.sent[&asked.id], answer, number, tag) {
            return Some(why);
        }
        if let Some(answered) = self.posts.get(&asked.id) {
            let change = Changed { path: asked.path.clone(), answered: *answered, known: self.stage.step };
            self.changes.push(change);
        }
        let given = self.answers.get_mut(&number)?;
        if given.to.id == asked.id {
            given.arrived = answer.whole.then_some(self.stage.step);
            return None;
        }
        let mut own = self.answers.values().filter(|own| own.to.id == asked.id);
        if own.any(|own| own.confirms == Some(tag)) {
            return None;
        }
        let all: Vec<Answered> = self.answers.values().cloned().collect();
        forbids(&self.answers[&number], asked, &all, &self.changes)
    }

    /// What is wrong with an answer's bytes, if they are not those of answer `tag`, or of the part that was asked for.
    fn wrong_bytes(&self, sent: &Sent, answer: &Answer, number: usize, tag: usize) -> Option<String> {
        let all = body(tag);
        let part = sent.range.as_ref().map(|range| &all[range.start..range.end.min(all.len())]);
        let expected = match (answer.status, sent.method, part) {
            (304, _, _) if sent.has == Some(tag) => "",
            (200, "POST" | "HEAD", _) => "",
            (200, _, _) => all.as_str(),
            (206, "GET", Some(part)) => part,
            _ => return Some(format!("status {}", answer.status)),
        };
        let is_broken = self.broken.contains(&number) || self.broken.contains(&tag);
        let is_right = match answer.whole {
            true => answer.text() == expected,
            false => is_broken && expected.starts_with(&answer.text()),
        };
        (!is_right).then(|| format!("{} of {} bytes", answer.body.len(), expected.len()))
    }
}

fn said(number: usize, answer: &Answered, method: &str, is_chunked: bool) -> String {
    let mut head = format!("X-Answer: {number}\r\nConnection: close\r\n");
    head.push_str(&format!("ETag: \"{}\"\r\n", answer.confirms.unwrap_or(number)));
    if !answer.control.is_empty() {
        head.push_str(&format!("Cache-Control: {}\r\n", answer.control));
    }
    if let Some(vary) = answer.vary {
        head.push_str(&format!("Vary: {vary}\r\n"));
    }
    if answer.sets_cookie {
        head.push_str(&format!("Set-Cookie: id={}\r\n", answer.to.id));
    }
    let body = if method == "POST" { String::new() } else { body(number) };
    let length = body.len();
    match answer.confirms {
        Some(_) => format!("HTTP/1.1 304 Not Modified\r\n{head}\r\n"),
        None if method == "HEAD" => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{head}\r\n"),
        None if is_chunked && method == "GET" => {
            let chunk = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{head}\r\n{chunk}")
        }
        None => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{head}\r\n{body}"),
    }
}

fn number(answer: &Answer, field: &str) -> Option<usize> {
    answer.field(field)?.trim_matches('"').parse().ok()
}

fn connect_from(address: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(2 * PATIENCE)).unwrap();
    socket.into()
}

fn play(stage: &mut Stage, seed: u64) -> Vec<String> {
    let play = Play {
        stage,
        random: Random(seed),
        prefix: format!("/{seed}"),
        asked: HashMap::new(),
        sent: HashMap::new(),
        clients: BTreeMap::new(),
        held: Vec::new(),
        answers: HashMap::new(),
        changes: Vec::new(),
        posts: HashMap::new(),
        failed: Vec::new(),
        broken: Vec::new(),
        wrong: Vec::new(),
    };
    play.run()
}

#[test]
fn nobody_gets_what_the_model_forbids() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seeds = match number("RELAY_CACHE_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RELAY_CACHE_MODEL_SEEDS").unwrap_or(SEEDS),
    };
    let mut stage = Stage::new();
    let mut wrong = Vec::new();
    for seed in seeds {
        wrong.extend(play(&mut stage, seed).into_iter().map(|what| format!("seed {seed}: {what}")));
    }
    assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
}

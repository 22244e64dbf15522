//! A proxy between any two hops that injects faults: at exact bytes, in each direction on its own.
//!
//! It runs on a thread of its own, so a test that blocks does not stop it. It knows nothing of what it carries. What it
//! does to a connection is its [`Plan`], chosen by the connection's number when it is accepted.

use crate::LIMIT;
use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// What happens to one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To the bytes towards the target, which is the origin's side.
    pub up: Direction,
    /// To the bytes from the target, towards the client.
    pub down: Direction,
}

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Direction {
    /// Every byte arrives so much later.
    pub delay: Duration,
    /// So many bytes a second, and no more. None: as fast as they come.
    pub rate: Option<u32>,
    /// Bytes go one at a time, with so much time between them. None: in the pieces they came in.
    pub drip: Option<Duration>,
    /// What happens once so many bytes have passed; in order of the bytes.
    pub faults: Vec<(u64, Fault)>,
}

/// What happens when a certain number of bytes has passed, and before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes any more in this direction, until [`FaultProxy::resume`]. Nothing is closed.
    Stall,
    /// Both sides are reset (RST, by `SO_LINGER` 0).
    Reset,
    /// Both sides are closed.
    Cut,
    /// The receiver sees the end of this direction; the sender's further bytes vanish, and the other direction goes on.
    HalfClose,
    /// This bit, 0 to 7, of the next byte is flipped.
    FlipBit(u8),
}

impl Plan {
    /// Nothing happens: bytes pass.
    #[must_use]
    pub fn pass() -> Plan {
        Plan::default()
    }

    /// One fault towards the target.
    #[must_use]
    pub fn up(at: u64, fault: Fault) -> Plan {
        Plan { up: Direction::fault(at, fault), down: Direction::default() }
    }

    /// One fault towards the client.
    #[must_use]
    pub fn down(at: u64, fault: Fault) -> Plan {
        Plan { up: Direction::default(), down: Direction::fault(at, fault) }
    }
}

impl Direction {
    /// One fault.
    #[must_use]
    pub fn fault(at: u64, fault: Fault) -> Direction {
        Direction { faults: vec![(at, fault)], ..Direction::default() }
    }

    /// Every byte later.
    #[must_use]
    pub fn delay(delay: Duration) -> Direction {
        Direction { delay, ..Direction::default() }
    }

    /// No more than so many bytes a second.
    #[must_use]
    pub fn rate(bytes_per_second: u32) -> Direction {
        Direction { rate: Some(bytes_per_second), ..Direction::default() }
    }

    /// One byte at a time.
    #[must_use]
    pub fn drip(pause: Duration) -> Direction {
        Direction { drip: Some(pause), ..Direction::default() }
    }
}

/// What has happened to one connection so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes that passed towards the target.
    pub up: u64,
    /// Bytes that passed towards the client.
    pub down: u64,
    /// Whether a direction stalls now.
    pub stalled: bool,
    /// Whether both its sides are closed.
    pub ended: bool,
}

/// A running proxy. It resets what it carries and stops when this is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    orders: watch::Sender<Orders>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the test tells all connections.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    resumed: bool,
    /// How many times all connections have been reset.
    resets: u32,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    more: Condvar,
}

impl FaultProxy {
    /// Starts a proxy in front of `target` that does the same to every connection.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start(target: SocketAddr, plan: Plan) -> FaultProxy {
        FaultProxy::start_with(target, move |_| plan.clone())
    }

    /// The same with a plan for each connection, by its number from 0.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start_with(target: SocketAddr, plan: impl Fn(usize) -> Plan + Send + 'static) -> FaultProxy {
        let shared = Arc::new(Shared::default());
        let (orders, listens) = watch::channel(Orders::default());
        let (tell, told) = oneshot::channel();
        let for_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                tell.send(listener.local_addr().expect("an address")).expect("the test waits for it");
                serve(&listener, target, plan, &for_thread, listens).await;
            });
        });
        let address = told.blocking_recv().expect("the proxy listens");
        FaultProxy { address, shared, orders, thread: Some(thread) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a hop.
    #[must_use]
    pub fn hop(&self) -> String {
        self.address.to_string()
    }

    /// What has happened so far, a connection an item, in the order of their beginning.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().clone()
    }

    /// Lets every stalled direction go on, now and in future.
    pub fn resume(&self) {
        self.orders.send_modify(|orders| orders.resumed = true);
    }

    /// Resets every connection that there is now.
    pub fn reset_all(&self) {
        self.orders.send_modify(|orders| orders.resets += 1);
    }

    /// Waits until `is_so` holds for what has happened.
    ///
    /// # Panics
    /// When that is not so within [`LIMIT`]; `what` says what did not come.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&[Seen]) -> bool) {
        let deadline = std::time::Instant::now() + LIMIT;
        let mut seen = self.shared.lock();
        while !is_so(&seen) {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            assert!(!left.is_zero(), "no {what}: {seen:?}");
            seen = self.shared.more.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until some connection stalls.
    ///
    /// # Panics
    /// When none does within [`LIMIT`].
    pub fn wait_for_stall(&self) {
        self.wait_for("stall", |seen| seen.iter().any(|connection| connection.stalled));
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.orders.send_modify(|orders| orders.stopped = true);
        if let Some(thread) = self.thread.take() {
            // Its panic has failed the test by now, or the test is over.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        // A test that failed while it looked does not matter here.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> usize {
        let mut seen = self.lock();
        seen.push(Seen::default());
        self.more.notify_all();
        seen.len() - 1
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock()[index]);
        self.more.notify_all();
    }
}

async fn serve(
    listener: &TcpListener,
    target: SocketAddr,
    plan: impl Fn(usize) -> Plan,
    shared: &Arc<Shared>,
    mut orders: watch::Receiver<Orders>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = orders.wait_for(|orders| orders.stopped) => return,
        };
        let Ok((near, _)) = accepted else { continue };
        // Before the connection is seen, so that a reset that is ordered once it is seen reaches it.
        let resets = orders.borrow().resets;
        let index = shared.begin();
        let (plan, shared, orders) = (plan(index), Arc::clone(shared), orders.clone());
        tokio::spawn(async move {
            carry(near, target, plan, Account { shared: &shared, index, resets }, orders).await;
            shared.update(index, |seen| seen.ended = true);
        });
    }
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its FIN has been passed on; the other direction goes on.
    Passed,
    Reset,
    Cut,
}

/// Where one connection counts.
#[derive(Clone, Copy)]
struct Account<'a> {
    shared: &'a Shared,
    index: usize,
    /// How many resets had been ordered before it came.
    resets: u32,
}

async fn carry(
    mut near: TcpStream,
    target: SocketAddr,
    plan: Plan,
    account: Account<'_>,
    mut orders: watch::Receiver<Orders>,
) {
    let Ok(mut far) = TcpStream::connect(target).await else {
        reset(&near);
        return;
    };
    // Faults at exact bytes need bytes to go when they come.
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let resets = account.resets;
    let end = {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let up = pass(near_read, far_write, plan.up, Count { account, is_up: true }, orders.clone());
        let down = pass(far_read, near_write, plan.down, Count { account, is_up: false }, orders.clone());
        tokio::select! {
            end = both(up, down) => end,
            _ = orders.wait_for(|orders| orders.stopped || orders.resets > resets) => End::Reset,
        }
    };
    if end == End::Reset {
        reset(&near);
        reset(&far);
    }
}

/// Makes the close of a socket a reset.
fn reset(stream: &TcpStream) {
    // A socket that takes no option is gone already.
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Ends when both directions have passed their FIN, or at the first that ends otherwise.
async fn both(up: impl Future<Output = End>, down: impl Future<Output = End>) -> End {
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (first, is_up) = tokio::select! {
        end = &mut up => (end, true),
        end = &mut down => (end, false),
    };
    match first {
        End::Passed if is_up => down.await,
        End::Passed => up.await,
        other => other,
    }
}

/// Where one direction counts.
#[derive(Clone, Copy)]
struct Count<'a> {
    account: Account<'a>,
    is_up: bool,
}

impl Count<'_> {
    fn passed(self, bytes: u64) {
        self.account.shared.update(self.account.index, |seen| {
            *(if self.is_up { &mut seen.up } else { &mut seen.down }) += bytes;
        });
    }

    fn stalled(self, stalled: bool) {
        self.account.shared.update(self.account.index, |seen| seen.stalled = stalled);
    }
}

/// What was read, and when it is due.
enum Piece {
    Bytes(Instant, Vec<u8>),
    End(Instant, End),
}

/// Pieces that may be under way within the proxy; more makes the sender wait.
const QUEUE: usize = 64;
/// Bytes of a piece, at most.
const PIECE: usize = 16 * 1024;

async fn pass<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    from: R,
    to: W,
    direction: Direction,
    count: Count<'_>,
    orders: watch::Receiver<Orders>,
) -> End {
    let (queue, pieces) = mpsc::channel(QUEUE);
    tokio::select! {
        end = write_pieces(pieces, Writer { to, direction: &direction, position: 0, orders, count }) => end,
        () = read_pieces(from, queue, direction.delay) => End::Cut,
    }
}

/// Reads to the end; never returns.
async fn read_pieces<R: AsyncRead + Unpin>(mut from: R, queue: mpsc::Sender<Piece>, delay: Duration) {
    loop {
        let mut bytes = vec![0; PIECE];
        let read = from.read(&mut bytes).await;
        let due = Instant::now() + delay;
        let piece = match read {
            Ok(0) => Piece::End(due, End::Passed),
            Ok(n) => {
                bytes.truncate(n);
                Piece::Bytes(due, bytes)
            }
            Err(_) => Piece::End(due, End::Reset),
        };
        let is_end = matches!(piece, Piece::End(..));
        if queue.send(piece).await.is_err() || is_end {
            return pending().await;
        }
    }
}

async fn write_pieces<W: AsyncWrite + Unpin>(
    mut pieces: mpsc::Receiver<Piece>,
    mut writer: Writer<'_, W>,
) -> End {
    let mut faults: VecDeque<(u64, Fault)> = writer.direction.faults.iter().copied().collect();
    if let Some(end) = writer.act(&mut faults, &mut []).await {
        return writer.end(end, &mut pieces).await;
    }
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Bytes(due, mut bytes) => {
                tokio::time::sleep_until(due).await;
                if let Some(end) = writer.write(&mut bytes, &mut faults).await {
                    return writer.end(end, &mut pieces).await;
                }
            }
            Piece::End(due, end) => {
                tokio::time::sleep_until(due).await;
                if end == End::Passed {
                    // A peer that is gone needs no FIN.
                    let _ = writer.to.shutdown().await;
                }
                return end;
            }
        }
    }
    End::Cut
}

/// Why a writer stops before its pieces do.
enum Stop {
    HalfClose,
    End(End),
}

struct Writer<'a, W> {
    to: W,
    direction: &'a Direction,
    position: u64,
    orders: watch::Receiver<Orders>,
    count: Count<'a>,
}

impl<W: AsyncWrite + Unpin> Writer<'_, W> {
    /// Writes a piece in parts that end where a fault is.
    async fn write(&mut self, bytes: &mut [u8], faults: &mut VecDeque<(u64, Fault)>) -> Option<Stop> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(stop) = self.act(faults, rest).await {
                return Some(stop);
            }
            let part = self.part_len(rest.len(), faults);
            let (now, later) = rest.split_at_mut(part);
            if self.to.write_all(now).await.is_err() {
                return Some(Stop::End(End::Reset));
            }
            self.position += part as u64;
            self.count.passed(part as u64);
            self.pause(part).await;
            rest = later;
        }
        // A fault behind the last byte must not wait for the next one.
        if faults.front().is_some_and(|(_, fault)| !matches!(fault, Fault::FlipBit(_))) {
            return self.act(faults, &mut []).await;
        }
        None
    }

    /// Does all faults that are due at this byte; `next` are the bytes that follow, if they are there.
    async fn act(&mut self, faults: &mut VecDeque<(u64, Fault)>, next: &mut [u8]) -> Option<Stop> {
        while let Some((_, fault)) = faults.front().copied().filter(|(at, _)| *at <= self.position) {
            if let (Fault::FlipBit(_), true) = (fault, next.is_empty()) {
                return None;
            }
            faults.pop_front();
            match fault {
                Fault::FlipBit(bit) => {
                    if let Some(byte) = next.first_mut() {
                        *byte ^= 1 << (bit & 7);
                    }
                }
                Fault::Stall => {
                    self.count.stalled(true);
                    // The test's end ends the wait as well.
                    drop(self.orders.wait_for(|orders| orders.resumed).await);
                    self.count.stalled(false);
                }
                Fault::Reset => return Some(Stop::End(End::Reset)),
                Fault::Cut => return Some(Stop::End(End::Cut)),
                Fault::HalfClose => return Some(Stop::HalfClose),
            }
        }
        None
    }

    fn part_len(&self, len: usize, faults: &VecDeque<(u64, Fault)>) -> usize {
        let to_fault = faults.front().map_or(u64::MAX, |(at, _)| at.saturating_sub(self.position).max(1));
        // A limited rate goes in parts of a fiftieth of a second.
        let by_rate = self.direction.rate.map_or(usize::MAX, |rate| (rate as usize / 50).max(1));
        let by_drip = if self.direction.drip.is_some() { 1 } else { usize::MAX };
        len.min(usize::try_from(to_fault).unwrap_or(usize::MAX)).min(by_rate).min(by_drip)
    }

    async fn pause(&self, part: usize) {
        if let Some(rate) = self.direction.rate {
            tokio::time::sleep(Duration::from_secs_f64(part as f64 / f64::from(rate.max(1)))).await;
        }
        if let Some(pause) = self.direction.drip {
            tokio::time::sleep(pause).await;
        }
    }

    async fn end(&mut self, stop: Stop, pieces: &mut mpsc::Receiver<Piece>) -> End {
        match stop {
            Stop::End(end) => end,
            Stop::HalfClose => {
                let _: io::Result<()> = self.to.shutdown().await;
                loop {
                    match pieces.recv().await {
                        Some(Piece::Bytes(..)) => {}
                        Some(Piece::End(_, end)) => return end,
                        None => return End::Cut,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::Shutdown;

    /// Both ends of a connection through a proxy: the client's and the target's.
    fn through(plan: Plan) -> (FaultProxy, std::net::TcpStream, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = FaultProxy::start(listener.local_addr().expect("an address"), plan);
        let client = std::net::TcpStream::connect(proxy.address()).expect("connected");
        let (target, _) = listener.accept().expect("accepted");
        for stream in [&client, &target] {
            stream.set_read_timeout(Some(LIMIT)).expect("a limit");
            stream.set_nodelay(true).expect("no delay");
        }
        (proxy, client, target)
    }

    fn read_all(mut stream: &std::net::TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
        let mut bytes = Vec::new();
        let error = stream.read_to_end(&mut bytes).err().map(|e| e.kind());
        (bytes, error)
    }

    #[test]
    fn passes_both_ways_and_half_closes() {
        let (_proxy, mut client, mut target) = through(Plan::pass());
        let big = crate::files::sample_bytes("up", 3_000_000);
        let sent = big.clone();
        let mut up = client.try_clone().expect("a clone");
        let writer = thread::spawn(move || {
            up.write_all(&sent).expect("written");
            up.shutdown(Shutdown::Write).expect("shut down");
        });
        assert_eq!(read_all(&target), (big, None));
        writer.join().expect("no panic");
        target.write_all(b"still open").expect("the other direction goes on");
        drop(target);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "still open");
    }

    #[test]
    fn flips_one_bit() {
        let (_proxy, mut client, target) = through(Plan::up(2, Fault::FlipBit(0)));
        for byte in b"aaaa" {
            client.write_all(&[*byte]).expect("written");
        }
        drop(client);
        assert_eq!(read_all(&target), (b"aa`a".to_vec(), None));
    }

    #[test]
    fn cuts_behind_exact_bytes() {
        for at in [0, 1, 9, 10] {
            let (proxy, client, mut target) = through(Plan::down(at, Fault::Cut));
            // At 0 the proxy may have closed before this is written.
            let _ = target.write_all(b"0123456789");
            let (bytes, _) = read_all(&client);
            assert_eq!(bytes, b"0123456789"[..usize::try_from(at).expect("small")]);
            proxy.wait_for("end", |seen| seen[0].ended && seen[0].down == at);
        }
    }

    #[test]
    fn resets_both_sides() {
        let (_proxy, mut client, target) = through(Plan::up(3, Fault::Reset));
        client.write_all(b"abc").expect("written");
        assert_eq!(read_all(&client).1, Some(ErrorKind::ConnectionReset));
        assert_eq!(read_all(&target).1, Some(ErrorKind::ConnectionReset));
    }

    #[test]
    fn passes_a_reset_on() {
        let (_proxy, client, target) = through(Plan::pass());
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("an option");
        drop(client);
        assert_eq!(read_all(&target).1, Some(ErrorKind::ConnectionReset));
    }

    #[test]
    fn half_closes_one_direction() {
        let (_proxy, mut client, mut target) = through(Plan::up(2, Fault::HalfClose));
        client.write_all(b"abcd").expect("written");
        assert_eq!(read_all(&target), (b"ab".to_vec(), None));
        target.write_all(b"answer").expect("the other direction goes on");
        client.write_all(b"vanishes").expect("the sender does not notice");
        drop(target);
        let mut answer = [0; 6];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"answer");
    }

    #[test]
    fn stalls_until_told_otherwise() {
        let (proxy, mut client, mut target) = through(Plan::up(2, Fault::Stall));
        client.write_all(b"abcd").expect("written");
        proxy.wait_for_stall();
        assert_eq!(proxy.seen(), [Seen { up: 2, down: 0, stalled: true, ended: false }]);
        proxy.resume();
        let mut all = [0; 4];
        target.read_exact(&mut all).expect("the rest");
        assert_eq!(&all, b"abcd");
    }

    #[test]
    fn drips_delays_and_limits() {
        // Nothing here asserts how long it took: that the bytes arrive is what a test can know.
        for direction in [
            Direction::drip(Duration::from_millis(1)),
            Direction::delay(Duration::from_millis(20)),
            Direction::rate(20_000),
        ] {
            let (_proxy, mut client, target) = through(Plan { up: direction.clone(), ..Plan::default() });
            client.write_all(&[7; 100]).expect("written");
            drop(client);
            assert_eq!(read_all(&target), (vec![7; 100], None), "{direction:?}");
        }
    }

    #[test]
    fn resets_when_told() {
        let (proxy, client, target) = through(Plan::pass());
        proxy.wait_for("connection", |seen| !seen.is_empty());
        proxy.reset_all();
        assert_eq!(read_all(&client).1, Some(ErrorKind::ConnectionReset));
        assert_eq!(read_all(&target).1, Some(ErrorKind::ConnectionReset));
    }

    #[test]
    fn a_plan_for_each_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("an address");
        let proxy =
            FaultProxy::start_with(target, |n| if n == 0 { Plan::up(0, Fault::Reset) } else { Plan::pass() });
        let first = std::net::TcpStream::connect(proxy.address()).expect("connected");
        first.set_read_timeout(Some(LIMIT)).expect("a limit");
        assert!(read_all(&first).1.is_some());
        let mut second = std::net::TcpStream::connect(proxy.address()).expect("connected");
        second.write_all(b"x").expect("written");
        drop(second);
        let received =
            (0..2).map(|_| read_all(&listener.accept().expect("accepted").0).0).collect::<Vec<_>>();
        assert_eq!(received, [b"".to_vec(), b"x".to_vec()]);
    }

    #[test]
    fn a_target_that_refuses() {
        let target = crate::nobody::Nobody::new();
        let proxy = FaultProxy::start(target.address(), Plan::pass());
        let client = std::net::TcpStream::connect(proxy.address()).expect("connected");
        client.set_read_timeout(Some(LIMIT)).expect("a limit");
        assert_eq!(read_all(&client).1, Some(ErrorKind::ConnectionReset));
    }
}

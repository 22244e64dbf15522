//! Connected sockets, and a reader that is slow but not gone. Async, for tests of one function; `unsent` and `advance` are given,
//! so that nothing here depends on what is tested.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

/// How often a limit's span is looked at by whoever waits for a reader.
const LOOKS: u32 = 4;

/// Two connected sockets of this machine. The first one's buffer is small, so that what it reads counts at once.
///
/// # Panics
/// When this machine has no loopback.
pub async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let near = TcpSocket::new_v4().expect("a socket");
    near.set_recv_buffer_size(64 * 1024).expect("a socket's buffer");
    let near = near.connect(listener.local_addr().expect("an address")).await.expect("a listener");
    (near, listener.accept().await.expect("a connection").0)
}

/// A slow reader: takes so little that the writer never becomes writable.
pub struct SlowReader<'a, Advance> {
    /// What the wait that is tested allows, by the paused clock.
    pub limit: Duration,
    /// How many bytes the writer's peer has not taken.
    pub unsent: &'a dyn Fn() -> Option<u64>,
    /// Turns the paused clock on.
    pub advance: Advance,
    /// The reader's socket.
    pub reader: &'a TcpStream,
}

impl<Advance: AsyncFn(Duration)> SlowReader<'_, Advance> {
    /// Reads slowly for many times the limit, and then nothing: `wait`, which the writer blocks, must outlast the first and
    /// end with the second.
    ///
    /// # Panics
    /// When it does not.
    pub async fn outlasted_by<T>(&self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        tokio::select! {
            biased;
            _ = &mut wait => panic!("a reader that reads was taken for idle"),
            () = self.read_slowly() => {}
        }
        let start = Instant::now();
        let result = wait.await;
        assert!(start.elapsed() <= self.limit * 2, "{:?}", start.elapsed());
        result
    }

    async fn read_slowly(&self) {
        let mut before = self.full().await;
        for _ in 0..3 * LOOKS {
            // As little as makes the kernel take the next bytes over.
            while (self.unsent)().is_none_or(|now| now == before) {
                let _ = self.reader.try_read(&mut [0; 4096]);
                tokio::task::yield_now().await;
            }
            before = (self.unsent)().unwrap_or_default();
            (self.advance)(self.limit / LOOKS).await;
        }
    }

    /// Waits until the writer's buffer takes no more, and returns how much its peer has not taken.
    async fn full(&self) -> u64 {
        let mut last = (0, 0);
        // The same for a thousand turns: who fills it has had its turns.
        while last.1 < 1000 || last.0 == 0 {
            tokio::task::yield_now().await;
            let now = (self.unsent)().expect("a system that tells");
            last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        }
        last.0
    }
}

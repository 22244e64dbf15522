//! When nothing moves: the wait behind every idle and no-progress limit of the relay face.

use std::time::Duration;
use tokio::time::sleep;

/// How often a limit's span is looked at.
const LOOKS: u32 = 4;

/// Returns when `state` has been the same for `limit`, or up to a quarter more. It wakes a few times in that span, whatever
/// moves, so that moving costs nothing.
pub(crate) async fn idle_for<T: PartialEq>(limit: Duration, state: impl Fn() -> T) {
    let mut last = None;
    let mut unchanged = 0;
    while unchanged < LOOKS {
        sleep(limit / LOOKS).await;
        let now = Some(state());
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::platform::unsent::unsent_bytes;
    use std::future::Future;
    use std::pin::pin;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::time::{Instant, advance};

    #[tokio::test(start_paused = true)]
    async fn ends_only_after_the_limit_without_a_change() {
        let limit = Duration::from_secs(4);
        let start = Instant::now();
        idle_for(limit, || start.elapsed().as_secs().min(20)).await;
        assert_eq!(start.elapsed().as_secs(), 24);
    }

    /// Two connected sockets of this machine. The first one's buffer is small, so that what it reads counts at once.
    pub(crate) async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpSocket::new_v4().unwrap();
        near.set_recv_buffer_size(64 * 1024).unwrap();
        let near = near.connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// Lets `reader` take so little that `writer` never becomes writable, for many times `limit` of the paused clock, and then
    /// nothing: `wait`, which `writer` blocks, must outlast the first and end with the second.
    pub(crate) async fn outlasts_a_slow_reader<T>(
        wait: impl Future<Output = T>,
        limit: Duration,
        writer: &TcpStream,
        reader: &TcpStream,
    ) -> T {
        let mut wait = pin!(wait);
        let slowly = async {
            let mut before = full(writer).await;
            for _ in 0..3 * LOOKS {
                // As little as makes the kernel take the next bytes over.
                while unsent_bytes(writer).is_none_or(|now| now == before) {
                    let _ = reader.try_read(&mut [0; 4096]);
                    tokio::task::yield_now().await;
                }
                before = unsent_bytes(writer).unwrap();
                advance(limit / LOOKS).await;
            }
        };
        tokio::select! {
            biased;
            _ = &mut wait => panic!("a reader that reads was taken for idle"),
            () = slowly => {}
        }
        let start = Instant::now();
        let result = wait.await;
        assert!(start.elapsed() <= limit * 2, "{:?}", start.elapsed());
        result
    }

    /// Waits until the socket's buffer takes no more, and returns how much its peer has not taken.
    async fn full(writer: &TcpStream) -> u64 {
        let mut last = (0, 0);
        // The same for a thousand turns: who fills it has had its turns.
        while last.1 < 1000 || last.0 == 0 {
            tokio::task::yield_now().await;
            let now = unsent_bytes(writer).unwrap();
            last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        }
        last.0
    }
}

//! A listener that is no node, as a web, mail or database server, and remembers every byte that it received.

use crate::LIMIT;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// What a listener does with each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Reads and never says a word.
    Silent,
    /// Says this before anything came, as mail servers do.
    Greet(Vec<u8>),
    /// Says this once the first bytes came, as web servers do.
    Reply(Vec<u8>),
    /// Closes at once.
    Close,
}

/// A connection as the listener saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    /// Every byte that came.
    pub bytes: Vec<u8>,
    /// Whether the other side has ended, by FIN or by a reset.
    pub ended: bool,
}

/// A listener on a free port of 127.0.0.1. It stops when this is dropped.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    connections: Mutex<Vec<Received>>,
    more: Condvar,
    stopped: std::sync::atomic::AtomicBool,
}

impl Recorder {
    /// Starts to listen.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn start(behaviour: Behaviour) -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (shared, behaviour) = (Arc::clone(&accepting), behaviour.clone());
                thread::spawn(move || shared.serve(stream, &behaviour));
            }
        });
        Recorder { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connections so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.lock().clone()
    }

    /// Waits until there was a connection and all of them have ended, so that nothing more can come, and returns them.
    ///
    /// # Panics
    /// When that does not happen within [`LIMIT`].
    #[must_use]
    pub fn wait_for_end(&self) -> Vec<Received> {
        let deadline = Instant::now() + LIMIT;
        let mut connections = self.shared.lock();
        while connections.is_empty() || connections.iter().any(|connection| !connection.ended) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "connections that do not end: {connections:?}");
            connections =
                self.shared.more.wait_timeout(connections, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        connections.clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.stopped.store(true, std::sync::atomic::Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Received>> {
        // A test that failed while it looked does not matter here.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream, behaviour: &Behaviour) {
        let index = {
            let mut connections = self.lock();
            connections.push(Received::default());
            connections.len() - 1
        };
        self.more.notify_all();
        match behaviour {
            // The other side may be gone already.
            Behaviour::Greet(bytes) => drop(stream.write_all(bytes)),
            Behaviour::Close => drop(stream.shutdown(Shutdown::Both)),
            Behaviour::Silent | Behaviour::Reply(_) => {}
        }
        let mut piece = [0; 4096];
        let mut replied = false;
        while let Ok(n @ 1..) = stream.read(&mut piece) {
            self.lock()[index].bytes.extend_from_slice(&piece[..n]);
            self.more.notify_all();
            if let (Behaviour::Reply(bytes), false) = (behaviour, replied) {
                drop(stream.write_all(bytes));
                replied = true;
            }
        }
        self.lock()[index].ended = true;
        self.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_and_answers() {
        let recorder = Recorder::start(Behaviour::Reply(b"pong".to_vec()));
        let mut stream = TcpStream::connect(recorder.address()).expect("connected");
        stream.write_all(b"ping").expect("written");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"pong");
        drop(stream);
        assert_eq!(recorder.wait_for_end(), [Received { bytes: b"ping".to_vec(), ended: true }]);
    }

    #[test]
    fn greets() {
        let recorder = Recorder::start(Behaviour::Greet(b"220 mail".to_vec()));
        let mut stream = TcpStream::connect(recorder.address()).expect("connected");
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).expect("a greeting");
        assert_eq!(&greeting, b"220 mail");
    }
}

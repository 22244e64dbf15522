//! A peer of a node that says exactly what a test wants, byte by byte.

use relay_proto::address::Hop;
use relay_proto::frame::{FrameType, Message, Preface, decode, encode};
use relay_proto::hop::{ClientLimits, ConnectionId, Open};
use relay_proto::limits::PREFACE_LEN;
use relay_testkit::LIMIT;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One connection, from either side.
pub struct Raw(pub TcpStream);

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Orderly,
    Reset,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Raw {
        Raw::of(TcpStream::connect(address).expect("the node accepts"))
    }

    pub fn of(stream: TcpStream) -> Raw {
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.set_nodelay(true).expect("no delay");
        Raw(stream)
    }

    /// Connects to a node and opens a pipe through it to `hops`.
    pub fn open(address: SocketAddr, hops: &[SocketAddr]) -> Raw {
        let mut raw = Raw::connect(address);
        raw.say(&open(hops));
        raw
    }

    pub fn say<M: Message>(&mut self, message: &M) {
        self.write(&encode(message).expect("a frame"));
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the peer takes it");
    }

    pub fn end_writing(&self) {
        self.0.shutdown(Shutdown::Write).expect("shut down");
    }

    /// Makes the close of this side a reset, and closes it.
    pub fn reset(self) {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO)).expect("an option");
    }

    /// The next frame, which must be an `M`.
    pub fn hear<M: Message>(&mut self) -> M {
        let (frame_type, payload) = self.hear_any();
        let text = String::from_utf8_lossy(&payload).into_owned();
        decode(frame_type, &payload).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// The next frame, whatever it is: its type and its payload.
    pub fn hear_any(&mut self) -> (FrameType, Vec<u8>) {
        let preface: [u8; PREFACE_LEN] = self.read(PREFACE_LEN).try_into().expect("nine bytes");
        let preface = Preface::decode(&preface).expect("a preface");
        (preface.frame_type, self.read(preface.payload_len))
    }

    pub fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).expect("the bytes come");
        bytes
    }

    /// Everything up to the end, and how that was.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => (bytes, End::Orderly),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, End::Reset),
            Err(error) => panic!("neither an end nor a reset: {error}, after {bytes:?}"),
        }
    }
}

/// Each connection has an id of its own: a node takes only a few with the same one.
static NEXT_ID: AtomicU64 = AtomicU64::new(0x0123_4567_89ab_cdef);

/// An `open` for these hops.
pub fn open(hops: &[SocketAddr]) -> Open {
    let hop = |address: &SocketAddr| Hop::new(&address.ip().to_string(), address.port()).expect("a hop");
    Open {
        hops: hops.iter().map(hop).collect(),
        id: ConnectionId::new(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
        limits: ClientLimits::new(Duration::from_secs(10)),
    }
}

/// A place where the test itself plays the next hop.
pub struct Stage(TcpListener);

impl Stage {
    pub fn new() -> Stage {
        Stage(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// The next connection.
    pub fn accept(&self) -> Raw {
        Raw::of(self.0.accept().expect("a connection").0)
    }
}

//! An address where nobody listens.

use std::net::SocketAddr;

/// Holds a port of this machine without listening on it, so that connects are refused and nobody else is given the port.
pub struct Nobody {
    socket: socket2::Socket,
}

impl Nobody {
    /// A port that was free.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it takes something of the system")]
    pub fn new() -> Nobody {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        Nobody { socket }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address")
    }

    /// The same as a hop.
    #[must_use]
    pub fn hop(&self) -> String {
        self.address().to_string()
    }
}

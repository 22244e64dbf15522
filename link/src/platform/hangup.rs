//! A connection that breaks while nobody reads from it or writes to it.

use tokio::net::TcpStream;

/// Waits until the connection is broken, whoever else may wait for its bytes or for room in it.
#[cfg(all(target_os = "linux", not(relay_plain)))]
pub(crate) async fn broken(socket: &TcpStream) {
    // It fails only where the runtime ends.
    let _ = socket.ready(tokio::io::Interest::ERROR).await;
}

/// Never returns: this system tells of a broken connection only whoever reads or writes.
#[cfg(not(all(target_os = "linux", not(relay_plain))))]
pub(crate) async fn broken(_: &TcpStream) {
    std::future::pending::<()>().await;
}

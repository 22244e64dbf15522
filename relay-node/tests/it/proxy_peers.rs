//! Behind real servers of others, where they are installed.

use super::proxy_front::Setup;
use super::raw_http::{PATIENCE, get};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Server {
    child: Child,
    address: SocketAddr,
    _place: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn files(dir: &Path) -> Vec<u8> {
    let body: Vec<u8> = (0..2_000_000_u32).map(|place| (place % 251) as u8).collect();
    let mut file = std::fs::File::create(dir.join("file.bin")).unwrap();
    file.write_all(&body).unwrap();
    // Old enough to be fresh for a while by its date alone.
    let old = std::time::SystemTime::now() - Duration::from_secs(100 * 24 * 3600);
    file.set_modified(old).unwrap();
    body
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// `None` where the program is not installed; one that is must start.
fn started(mut command: Command, address: SocketAddr, place: TempDir) -> Option<Server> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    if spawned.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return None;
    }
    let mut server = Server { child: spawned.unwrap(), address, _place: place };
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        let ended = server.child.try_wait().unwrap();
        assert!(ended.is_none(), "{command:?} ended: {ended:?}");
        assert!(began.elapsed() < PATIENCE, "{command:?} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(server)
}

fn python(place: TempDir) -> Option<Server> {
    let address = free_port();
    let mut command = Command::new("python3");
    command
        .args(["-m", "http.server", "--bind", "127.0.0.1", &address.port().to_string()])
        .current_dir(place.path());
    started(command, address, place)
}

fn nginx(place: TempDir) -> Option<Server> {
    let address = free_port();
    let dir = place.path().display();
    // One process, so that killing it leaves no worker behind.
    let config = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error;\n{user}\
         events {{ worker_connections 64; }}\nhttp {{ access_log off;\n\
         client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;\n\
         server {{ listen {address}; root {dir}; }} }}\n",
        user = if is_root() { "user root;\n" } else { "" },
    );
    std::fs::write(place.path().join("nginx.conf"), config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(place.path().join("nginx.conf")).arg("-p").arg(place.path());
    started(command, address, place)
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    })
}

fn check(name: &str, start: fn(TempDir) -> Option<Server>) {
    let place = TempDir::new().unwrap();
    let body = files(place.path());
    let Some(server) = start(place) else {
        eprintln!("SKIPPED a test behind {name}: it is not installed");
        return;
    };
    let front = Setup::caching(server.address).start();
    let first = get(front.address, "/file.bin", &[]);
    assert!(first.status == 200 && first.whole && first.body == body, "{name}");
    let second = get(front.address, "/file.bin", &[]);
    assert!(second.is_hit() && second.body == body, "{name}: {}", second.cache_status());
    let part = get(front.address, "/file.bin", &["Range: bytes=1000000-1000009"]);
    assert_eq!((part.status, part.body.as_slice()), (206, &body[1_000_000..1_000_010]), "{name}");
    // A day later it is asked whether the file is still the same.
    front.later(Duration::from_secs(3 * 24 * 3600));
    let confirmed = get(front.address, "/file.bin", &[]);
    assert!(confirmed.body == body, "{name}");
    assert!(
        confirmed.cache_status().contains("fwd=stale; fwd-status=304"),
        "{name}: {}",
        confirmed.cache_status()
    );
    assert_eq!(get(front.address, "/missing", &[]).status, 404, "{name}");
}

#[test]
fn pythons_http_server() {
    check("Python's http.server", python);
}

#[test]
fn nginx_as_upstream() {
    check("nginx", nginx);
}

//! Behind real servers of others, where they are installed.

use super::proxy_front::Setup;
use super::raw_http::{PATIENCE, get};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Waits until it listens; false when it ends instead.
    fn comes_to_listen(&mut self) -> bool {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "nobody comes to listen at {}", self.address);
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
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

/// How often a server is started: somebody else may take its port first.
const TRIES: usize = 5;

/// A port that was free a moment ago. It lies below those that a system hands out, so that no other test gets it meanwhile.
fn free_port() -> SocketAddr {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let mut addresses = (0..100).map(|_| {
        let number = std::process::id().wrapping_mul(31).wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        SocketAddr::from(([127, 0, 0, 1], 20_000 + (number % 12_000) as u16))
    });
    addresses.find(|address| TcpListener::bind(address).is_ok()).expect("a free port")
}

/// `None` where the program is not installed; one that is must start.
fn started(command: impl Fn(SocketAddr) -> Command) -> Option<Server> {
    for _ in 0..TRIES {
        let address = free_port();
        let mut command = command(address);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        if spawned.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return None;
        }
        let mut server = Server { child: spawned.unwrap(), address };
        if server.comes_to_listen() {
            return Some(server);
        }
        eprintln!("{command:?} ended before it listened");
    }
    panic!("it ended {TRIES} times before it listened");
}

fn python(place: &Path) -> Option<Server> {
    started(|address| {
        let mut command = Command::new("python3");
        command
            .args(["-m", "http.server", "--bind", "127.0.0.1", &address.port().to_string()])
            .current_dir(place);
        command
    })
}

fn nginx(place: &Path) -> Option<Server> {
    started(|address| {
        std::fs::write(place.join("nginx.conf"), nginx_config(place, address)).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(place.join("nginx.conf")).arg("-p").arg(place);
        command
    })
}

fn nginx_config(place: &Path, address: SocketAddr) -> String {
    let dir = place.display();
    // One process, so that killing it leaves no worker behind.
    format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error;\n{user}\
         events {{ worker_connections 64; }}\nhttp {{ access_log off;\n\
         client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;\n\
         server {{ listen {address}; root {dir}; }} }}\n",
        user = if is_root() { "user root;\n" } else { "" },
    )
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    })
}

fn check(name: &str, start: fn(&Path) -> Option<Server>) {
    let place = TempDir::new().unwrap();
    let body = files(place.path());
    let Some(server) = start(place.path()) else {
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

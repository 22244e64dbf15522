//! Web servers and caching proxies to measure: this project's HTTP face, nginx and Squid, each on loopback with an access
//! log that is written as its requests come.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::daemon::Daemon;
use crate::peers::{http_block, installed, nginx, own, relay_node};
use crate::site::Site;

/// How much the caches may keep on the disk, in MiB.
const CACHE_MIB: u64 = 4096;

/// A server that stands, under the name that tables show.
pub type Named = (&'static str, Daemon);

/// Those that serve the files of a directory; `work` is for their logs.
pub fn of_files(files: &Path, work: &Path) -> Result<Vec<Named>> {
    Ok(vec![
        ("this project", relay_node(files, &work.join("node.log"))?),
        ("nginx", logging_nginx(&format!("root {};", files.display()), "", &work.join("nginx"))?),
    ])
}

/// Where the caches fetch from: an nginx that lets everything be kept for an hour.
pub fn origin(files: &Path, work: &Path) -> Result<Daemon> {
    let site = Site::loopback();
    let address = site.free_address()?;
    let server = format!("server {{ listen {address}; root {}; expires 1h; }}", files.display());
    nginx(&site, "", &http_block(&server), address, &work.join("nginx-upstream"))
}

/// The caching proxies in front of `origin`.
pub fn caches(origin: SocketAddr, work: &Path) -> Result<Vec<Named>> {
    Ok(vec![
        ("this project", caching_node(origin, work)?),
        ("nginx proxy_cache", caching_nginx(origin, work)?),
        ("Squid", squid(origin, work)?),
    ])
}

fn caching_node(origin: SocketAddr, work: &Path) -> Result<Daemon> {
    let mut command = Command::new(own("relay-node")?);
    command.args(["--listen", "127.0.0.1:0", "--upstream", &format!("http://{origin}")]);
    command
        .arg("--cache-dir")
        .arg(work.join("node-cache"))
        .args(["--cache-size", &format!("{CACHE_MIB}MiB")]);
    command.arg("--root").arg(work);
    Daemon::start_announcing("relay-node", command, &work.join("caching-node.log"))
}

fn caching_nginx(origin: SocketAddr, work: &Path) -> Result<Daemon> {
    let home = work.join("nginx-cache");
    let before = format!(
        "proxy_cache_path {}/store levels=1:2 keys_zone=store:10m max_size={CACHE_MIB}m inactive=1d use_temp_path=off;\n  \
         upstream origin {{ server {origin}; keepalive 16; }}",
        home.display()
    );
    let location = "location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                    proxy_cache store; add_header X-Cache $upstream_cache_status; }";
    logging_nginx(location, &before, &home)
}

/// `inner` goes into the server, `before` before it.
fn logging_nginx(inner: &str, before: &str, home: &Path) -> Result<Daemon> {
    let site = Site::loopback();
    let address = site.free_address()?;
    let server = format!(
        "access_log {}/access.log;\n  {before}\n  server {{\n    listen {address} backlog=4096;\n    {inner}\n  }}",
        home.display()
    );
    let block = http_block(&server).replace("access_log off;", "");
    nginx(&site, "", &block, address, home)
}

/// Squid as an accelerator. It has one process for everything unless its disk store is a shared one; it is set up here
/// with its usual store, threads for the disk included.
fn squid(origin: SocketAddr, work: &Path) -> Result<Daemon> {
    let site = Site::loopback();
    let (address, home) = (site.free_address()?, work.join("squid"));
    fs::create_dir_all(home.join("store"))?;
    let config = home.join("squid.conf");
    fs::write(
        &config,
        format!(
            "http_port {address} accel defaultsite={origin} no-vhost\n\
             cache_peer {} parent {} 0 no-query no-digest originserver\n\
             http_access allow all\ncache_mem 256 MB\nmaximum_object_size 2 GB\n\
             cache_dir aufs {home}/store {CACHE_MIB} 16 256\naccess_log stdio:{home}/access.log\n\
             cache_log {home}/cache.log\ncache_store_log none\npid_filename none\npinger_enable off\n\
             coredump_dir {home}\nshutdown_lifetime 1 second\nvisible_hostname localhost\n",
            origin.ip(),
            origin.port(),
            home = home.display()
        ),
    )?;
    if rustix::process::geteuid().is_root() {
        // Started by root it becomes the user of its Debian package, who must come to its files.
        let owned = Command::new("chown").args(["-R", "proxy:proxy"]).arg(&home).status()?;
        ensure!(owned.success(), "cannot give {} to the user proxy, as whom Squid runs", home.display());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(work, mode)?;
    }
    let program = installed("squid")?;
    let made = Command::new(&program).args(["-N", "-z", "-f"]).arg(&config).stderr(Stdio::null()).status()?;
    ensure!(made.success(), "Squid could not prepare its store: {made}; see {}/cache.log", home.display());
    let mut command = Command::new(program);
    command.args(["-N", "-f"]).arg(&config);
    Daemon::start_on("squid", address, command, &home.join("said.log"))
}

/// Fetches a file until it is answered from the cache.
pub fn warm(name: &str, server: &Daemon, file: &str) -> Result<()> {
    for _ in 0..5 {
        let answer = Command::new(installed("curl")?)
            .args(["-sS", "--fail", "-D", "-", "-o", "/dev/null"])
            .arg(format!("http://{}/{file}", server.address()))
            .output()
            .context("cannot start curl")?;
        let head = String::from_utf8_lossy(&answer.stdout).to_ascii_lowercase();
        let tells = |field: &str| head.lines().any(|line| line.contains(field) && line.contains("hit"));
        if tells("cache-status:") || tells("x-cache:") {
            return Ok(());
        }
    }
    anyhow::bail!("{name} does not answer {file} from its cache")
}

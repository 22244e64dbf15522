//! Chains to measure: this project, the bound, and what people build such chains of today.
//!
//! Each peer is set up as its own documentation says for speed, in a temporary directory, on loopback, with
//! the same file behind it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::daemon::Daemon;
use crate::invocation::{Invocation, Pipeline};
use crate::machine;
use crate::site::Site;

/// What the chain is made of.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// relay-client and relay-node
    Relay,
    /// Bare splice loops, a bare sendfile, the same hashing
    Bound,
    /// This project's client and origin over the bound's relays: what relays cost between the same neighbours
    BareRelays,
    /// The bound without its hashing
    BoundUnhashed,
    /// HAProxy in TCP mode with splicing, nginx behind it, curl before it
    Haproxy,
    /// The same, and then b3sum over what arrived
    HaproxyB3sum,
    /// nginx's stream module, nginx behind it, curl before it
    NginxStream,
    /// socat, nginx behind it, curl before it
    Socat,
    /// socat, nginx behind it, aria2 before it with 16 connections
    Aria2,
    /// `ssh -J … cat`
    Ssh,
}

impl Variant {
    /// How a chain of so many relays is called: without any, those of web servers are the same.
    pub fn name_with(self, relays: usize) -> &'static str {
        match (self, relays) {
            (Variant::Haproxy | Variant::NginxStream | Variant::Socat, 0) => "nginx, curl",
            (Variant::HaproxyB3sum, 0) => "nginx, curl, b3sum",
            _ => self.name(),
        }
    }

    /// How tables and charts call it.
    pub fn name(self) -> &'static str {
        match self {
            Variant::Relay => "this project",
            Variant::Bound => "bound",
            Variant::BareRelays => "this project, bare relays",
            Variant::BoundUnhashed => "bound, unhashed",
            Variant::Haproxy => "HAProxy, curl",
            Variant::HaproxyB3sum => "HAProxy, curl, b3sum",
            Variant::NginxStream => "nginx stream, curl",
            Variant::Socat => "socat, curl",
            Variant::Aria2 => "socat, aria2 ×16",
            Variant::Ssh => "ssh -J cat",
        }
    }

    /// Whether what arrives has been checked against what was sent, beyond TCP's checksum.
    pub fn verifies(self) -> bool {
        matches!(self, Variant::Relay | Variant::Bound | Variant::BareRelays | Variant::Ssh)
    }

    /// Whether it is neither this project nor a part of the ground that this is measured against.
    pub fn is_peer(self) -> bool {
        !matches!(self, Variant::Relay | Variant::BareRelays | Variant::Bound | Variant::BoundUnhashed)
    }

    /// The programs that it needs.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Variant::Relay | Variant::Bound | Variant::BareRelays | Variant::BoundUnhashed => &[],
            Variant::Haproxy => &["haproxy", "nginx", "curl"],
            Variant::HaproxyB3sum => &["haproxy", "nginx", "curl", "b3sum"],
            Variant::NginxStream => &["nginx", "curl"],
            Variant::Socat => &["socat", "nginx", "curl"],
            Variant::Aria2 => &["socat", "nginx", "aria2c"],
            Variant::Ssh => &["ssh", "sshd", "ssh-keygen"],
        }
    }

    /// Why it cannot run here, if it cannot.
    pub fn missing(self) -> Option<String> {
        let gone: Vec<String> = self
            .programs()
            .iter()
            .filter(|p| machine::find(p).is_none())
            .map(|p| format!("{p} is not installed (Debian: apt install {})", machine::package_of(p)))
            .collect();
        if !gone.is_empty() {
            return Some(gone.join("; "));
        }
        match self {
            Variant::Relay | Variant::BareRelays => {
                own("relay-node").and(own("relay-client")).err().map(|e| e.to_string())
            }
            Variant::NginxStream if !Path::new(NGINX_STREAM).exists() => {
                Some(format!("{NGINX_STREAM} is not there (Debian: apt install libnginx-mod-stream)"))
            }
            _ => None,
        }
    }
}

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A chain that stands: relays in front of an origin that has the files of one directory.
#[derive(Debug)]
pub struct Chain {
    /// What it is made of.
    pub variant: Variant,
    /// The relays, the one nearest to the client first.
    pub relays: Vec<Daemon>,
    /// What has the files.
    pub origin: Daemon,
    /// Where the client runs.
    client: Site,
    /// What this project's client is given besides.
    pub client_options: Vec<String>,
    work: PathBuf,
}

impl Chain {
    /// Starts everything on loopback in `work`, with `file` (a path into the directory of files) behind `relays` relays.
    pub fn start(variant: Variant, relays: usize, file: &Path, work: &Path) -> Result<Chain> {
        Chain::start_at(variant, &vec![Site::loopback(); relays + 1], Site::loopback(), file, work)
    }

    /// The same with a site for every relay, the one nearest to the client first, and one for the origin at the end.
    pub fn start_at(
        variant: Variant,
        sites: &[Site],
        client: Site,
        file: &Path,
        work: &Path,
    ) -> Result<Chain> {
        if let Some(reason) = variant.missing() {
            bail!("{}: {reason}", variant.name());
        }
        let (last, before) = sites.split_last().context("a chain needs an origin")?;
        let work = work.join(format!("{variant:?}-{}", before.len()).to_lowercase());
        fs::create_dir_all(&work)?;
        let files = file.parent().context("the file has no directory")?;
        let origin = match variant {
            Variant::Relay | Variant::BareRelays => relay_node_at(last, files, &work.join("origin.log"))?,
            Variant::Bound | Variant::BoundUnhashed => bound_origin(last, file, &work.join("origin.log"))?,
            Variant::Ssh => sshd(last, &work, "origin")?,
            _ => nginx_files(last, files, &work)?,
        };
        let mut chain =
            Chain { variant, relays: Vec::new(), origin, client, client_options: Vec::new(), work };
        for (i, site) in before.iter().enumerate().rev() {
            let relay = chain.start_relay(site, i)?;
            chain.relays.insert(0, relay);
        }
        Ok(chain)
    }

    fn start_relay(&self, site: &Site, i: usize) -> Result<Daemon> {
        let next = self.entry();
        let log = self.work.join(format!("relay-{i}.log"));
        match self.variant {
            Variant::Relay => relay_node_at(site, &self.work, &log),
            Variant::Bound | Variant::BareRelays | Variant::BoundUnhashed => bound_relay(site, next, &log),
            Variant::Haproxy | Variant::HaproxyB3sum => haproxy(site, next, &self.work, i),
            Variant::NginxStream => nginx_stream(site, next, &self.work, i),
            Variant::Socat | Variant::Aria2 => socat(site, next, &log),
            Variant::Ssh => sshd(site, &self.work, &format!("relay-{i}")),
        }
    }

    /// Where a client enters.
    pub fn entry(&self) -> SocketAddr {
        self.relays.first().unwrap_or(&self.origin).address()
    }

    /// Every address on the way, the origin's last.
    pub fn hops(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.relays.iter().chain([&self.origin]).map(Daemon::address)
    }

    /// All processes that serve.
    pub fn daemons(&self) -> Vec<&Daemon> {
        self.relays.iter().chain([&self.origin]).collect()
    }

    /// An error when one of its processes has ended.
    pub fn check(&mut self) -> Result<()> {
        self.relays.iter_mut().chain([&mut self.origin]).try_for_each(Daemon::check)
    }

    /// What a user of this chain types to get `file` into `out`: steps one after the other.
    pub fn fetch(&self, file: &Path, out: &Path) -> Result<Vec<Pipeline>> {
        let mut steps = self.steps(file, out)?;
        for invocation in steps.iter_mut().flatten() {
            self.client.enclose(invocation);
        }
        Ok(steps)
    }

    fn steps(&self, file: &Path, out: &Path) -> Result<Vec<Pipeline>> {
        let name = file.file_name().context("the file has no name")?.to_string_lossy().into_owned();
        let entry = self.entry();
        Ok(match self.variant {
            Variant::Relay => vec![vec![relay_client(&name, self.hops(), &self.client_options, out)?]],
            Variant::BareRelays => {
                vec![vec![relay_client(&name, [entry].into_iter(), &self.client_options, out)?]]
            }
            Variant::Bound => vec![vec![bound_sink(entry, out, true)?]],
            Variant::BoundUnhashed => vec![vec![bound_sink(entry, out, false)?]],
            Variant::Ssh => vec![vec![self.ssh_cat(file, out)?]],
            Variant::Aria2 => vec![vec![aria2(entry, &name, out)?]],
            Variant::HaproxyB3sum => curl_then_b3sum(entry, &name, out)?,
            _ => vec![vec![curl(entry, &name, out)?]],
        })
    }

    /// The command that programs which run over SSH use to get to the origin.
    pub fn ssh_command(&self) -> Result<String> {
        let jumps: Vec<String> = self.relays.iter().map(|r| r.address().to_string()).collect();
        let (ssh, config) = (installed("ssh")?, self.work.join("ssh_config"));
        let port = self.origin.address().port();
        Ok(format!("{} -F {} -J {} -p {port}", ssh.display(), config.display(), jumps.join(",")))
    }

    fn ssh_cat(&self, file: &Path, out: &Path) -> Result<Invocation> {
        let jumps: Vec<String> = self.relays.iter().map(|r| r.address().to_string()).collect();
        let port = self.origin.address().port().to_string();
        let mut ssh =
            Invocation::new(installed("ssh")?, &[&"-F", &self.work.join("ssh_config"), &"-p", &port]);
        if !jumps.is_empty() {
            ssh.arguments.extend(["-J".into(), jumps.join(",").into()]);
        }
        ssh.arguments.extend([
            self.origin.address().ip().to_string().into(),
            format!("cat '{}'", file.display()).into(),
        ]);
        ssh.stdout = Some(out.to_owned());
        Ok(ssh)
    }
}

/// A binary of this project, from the directory that this one lies in.
pub fn own(name: &str) -> Result<PathBuf> {
    let here = env::current_exe().context("cannot tell where this program lies")?;
    let path = here.with_file_name(name);
    ensure!(path.is_file(), "{} is not there: cargo build --release --workspace", path.display());
    Ok(path)
}

/// An installed program.
pub fn installed(name: &str) -> Result<PathBuf> {
    machine::find(name).with_context(|| {
        format!("{name} is not installed (Debian: apt install {})", machine::package_of(name))
    })
}

/// A node of this project on loopback that serves `root` and relays to loopback.
pub fn relay_node(root: &Path, log: &Path) -> Result<Daemon> {
    relay_node_at(&Site::loopback(), root, log)
}

/// The same with more options.
pub fn relay_node_with(root: &Path, log: &Path, options: &[&str]) -> Result<Daemon> {
    let mut command = relay_node_command(&Site::loopback(), root)?;
    command.args(options);
    Daemon::start_announcing("relay-node", command, log)
}

fn relay_node_at(site: &Site, root: &Path, log: &Path) -> Result<Daemon> {
    Daemon::start_announcing("relay-node", relay_node_command(site, root)?, log)
}

/// A node that listens on chosen addresses.
pub fn relay_node_on(site: &Site, addresses: &[SocketAddr], root: &Path, log: &Path) -> Result<Daemon> {
    Daemon::start_announcing("relay-node", relay_node_listening(site, addresses, root)?, log)
}

/// What starts a node.
pub fn relay_node_command(site: &Site, root: &Path) -> Result<Command> {
    relay_node_listening(site, &[SocketAddr::new(site.ip(), 0)], root)
}

fn relay_node_listening(site: &Site, addresses: &[SocketAddr], root: &Path) -> Result<Command> {
    let mut command = site.command(&own("relay-node")?);
    for address in addresses {
        command.arg("--listen").arg(address.to_string());
    }
    command.arg("--root").arg(root);
    command.args(["--allow-next", site.neighbours()]);
    Ok(command)
}

/// What fetches `name` over the hops, the origin being the last.
fn relay_client(
    name: &str,
    hops: impl Iterator<Item = SocketAddr>,
    options: &[String],
    out: &Path,
) -> Result<Invocation> {
    let mut client = Invocation::new(own("relay-client")?, &[&"--get", &name, &"--quiet", &"--plain"]);
    for hop in hops {
        client.arguments.extend(["--via".into(), hop.to_string().into()]);
    }
    client.arguments.extend(options.iter().map(OsString::from));
    client.arguments.extend(["-o".into(), out.into()]);
    Ok(client)
}

fn bound(site: &Site, part: &str) -> Result<Command> {
    let mut command = site.command(&env::current_exe()?);
    command.args(["bound", part, "--listen", &site.ip().to_string()]);
    Ok(command)
}

fn bound_relay(site: &Site, next: SocketAddr, log: &Path) -> Result<Daemon> {
    let mut command = bound(site, "relay")?;
    command.arg(next.to_string());
    Daemon::start_announcing("the bound's relay", command, log)
}

fn bound_origin(site: &Site, file: &Path, log: &Path) -> Result<Daemon> {
    let mut command = bound(site, "origin")?;
    command.arg(file);
    Daemon::start_announcing("the bound's origin", command, log)
}

fn bound_sink(entry: SocketAddr, out: &Path, hash: bool) -> Result<Invocation> {
    let mut sink = Invocation::new(env::current_exe()?, &[&"bound", &"sink", &entry.to_string(), &out]);
    if !hash {
        sink.arguments.push("--no-hash".into());
    }
    Ok(sink)
}

fn curl(entry: SocketAddr, name: &str, out: &Path) -> Result<Invocation> {
    let url = format!("http://{entry}/{name}");
    Ok(Invocation::new(installed("curl")?, &[&"-sS", &"--fail", &"-m", &"300", &"-o", &out, &url]))
}

fn aria2(entry: SocketAddr, name: &str, out: &Path) -> Result<Invocation> {
    let (dir, file) = (out.parent().unwrap_or(Path::new("/")), out.file_name().unwrap_or_default());
    let mut aria2 = Invocation::new(installed("aria2c")?, &[&"-q", &"-x16", &"-s16", &"-k1M", &"--no-conf"]);
    aria2.arguments.extend(["--file-allocation=none".into(), "--allow-overwrite=true".into()]);
    aria2.arguments.extend(["-d".into(), dir.into(), "-o".into(), file.into()]);
    aria2.arguments.push(format!("http://{entry}/{name}").into());
    Ok(aria2)
}

fn curl_then_b3sum(entry: SocketAddr, name: &str, out: &Path) -> Result<Vec<Pipeline>> {
    let b3sum = installed("b3sum")?;
    if out == Path::new("/dev/null") {
        // Nothing is left to read afterwards, so it has to be hashed on the way.
        let curl = curl(entry, name, Path::new("-"))?;
        return Ok(vec![vec![curl, Invocation::new(b3sum, &[])]]);
    }
    Ok(vec![vec![curl(entry, name, out)?], vec![Invocation::new(b3sum, &[&out])]])
}

fn haproxy(site: &Site, next: SocketAddr, work: &Path, i: usize) -> Result<Daemon> {
    let (address, config) = (site.free_address()?, work.join(format!("haproxy-{i}.cfg")));
    fs::write(
        &config,
        format!(
            "global\n  maxconn 6000\n\
             defaults\n  mode tcp\n  option splice-response\n  backlog 4096\n  timeout connect 10s\n  \
             timeout client 5m\n  timeout server 5m\n\
             frontend in\n  bind {address}\n  default_backend out\n\
             backend out\n  server next {next}\n"
        ),
    )?;
    let mut command = site.command(&installed("haproxy")?);
    command.args(["-db", "-f"]).arg(config);
    Daemon::start_on("haproxy", address, command, &work.join(format!("haproxy-{i}.log")))
}

fn socat(site: &Site, next: SocketAddr, log: &Path) -> Result<Daemon> {
    let address = site.free_address()?;
    let mut command = site.command(&installed("socat")?);
    let listen = format!("TCP-LISTEN:{},bind={},reuseaddr,fork,backlog=4096", address.port(), address.ip());
    // Its children would outlive a killed bench for as long as TCP tries.
    command.args(["-b", "65536", "-T", "120"]).arg(listen).arg(format!("TCP:{next}"));
    Daemon::start_on("socat", address, command, log)
}

fn nginx_stream(site: &Site, next: SocketAddr, work: &Path, i: usize) -> Result<Daemon> {
    let address = site.free_address()?;
    let block = format!(
        "stream {{\n  server {{\n    listen {address} backlog=4096;\n    proxy_pass {next};\n    \
         proxy_buffer_size 64k;\n    tcp_nodelay on;\n  }}\n}}\n"
    );
    nginx(
        site,
        &format!("load_module {NGINX_STREAM};"),
        &block,
        address,
        &work.join(format!("nginx-relay-{i}")),
    )
}

fn nginx_files(site: &Site, root: &Path, work: &Path) -> Result<Daemon> {
    let address = site.free_address()?;
    let server = format!("server {{\n    listen {address} backlog=4096;\n    root {};\n  }}", root.display());
    nginx(site, "", &http_block(&server), address, &work.join("nginx-origin"))
}

/// The `http` block around some servers, set for static files.
pub fn http_block(servers: &str) -> String {
    format!(
        "http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 1000000000;\n  \
         open_file_cache max=1000;\n  default_type application/octet-stream;\n  {servers}\n}}\n"
    )
}

/// Runs nginx in `home` with one worker a core; `top` and `block` go into its configuration.
pub fn nginx(site: &Site, top: &str, block: &str, address: SocketAddr, home: &Path) -> Result<Daemon> {
    fs::create_dir_all(home)?;
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        temporary += &format!("{kind}_temp_path {}/{kind};\n  ", home.display());
    }
    let block = block.replacen("http {\n", &format!("http {{\n  {temporary}\n"), 1);
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = home.join("nginx.conf");
    fs::write(
        &config,
        format!(
            "daemon off;\n{user}\n{top}\nworker_processes auto;\nworker_rlimit_nofile 20000;\n\
             pid {0}/nginx.pid;\nerror_log {0}/error.log;\nevents {{ worker_connections 9000; }}\n{block}",
            home.display()
        ),
    )?;
    let mut command = site.command(&installed("nginx")?);
    command.arg("-p").arg(home).arg("-c").arg(&config).arg("-e").arg(home.join("error.log"));
    Daemon::start_on("nginx", address, command, &home.join("said.log"))
}

/// An SSH server with throwaway keys, which lets in only the key that it makes itself.
fn sshd(site: &Site, work: &Path, name: &str) -> Result<Daemon> {
    let keys = ssh_keys(work)?;
    let address = site.free_address()?;
    let config = work.join(format!("{name}.sshd_config"));
    // A bash that sees SHLVL below 2 would run the user's .bashrc first, which is not what is to be measured.
    fs::write(
        &config,
        format!(
            "Port {}\nListenAddress {}\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/user.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nMaxStartups 1000\nMaxSessions 1000\nUseDNS no\nLogLevel ERROR\n\
             SetEnv SHLVL=2\n\
             ClientAliveInterval 30\n",
            address.port(),
            address.ip(),
            keys = keys.display(),
        ),
    )?;
    if rustix::process::geteuid().is_root() {
        // sshd insists on this directory when it runs as root (sshd(8), FILES); its service would make it.
        fs::create_dir_all("/run/sshd")
            .context("cannot create /run/sshd, which sshd needs when root runs it")?;
    }
    let mut command = site.command(&installed("sshd")?);
    command.args(["-D", "-e", "-f"]).arg(&config);
    Daemon::start_on("sshd", address, command, &work.join(format!("{name}.log")))
}

fn ssh_keys(work: &Path) -> Result<PathBuf> {
    let keys = work.join("keys");
    if keys.exists() {
        return Ok(keys);
    }
    fs::create_dir(&keys)?;
    for name in ["host", "user"] {
        let mut keygen = Command::new(installed("ssh-keygen")?);
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(keys.join(name));
        ensure!(keygen.status()?.success(), "ssh-keygen could not make a key in {}", keys.display());
    }
    let config = format!(
        "Host *\n  IdentityFile {}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile /dev/null\n  \
         GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking no\n  LogLevel ERROR\n",
        keys.display()
    );
    fs::write(work.join("ssh_config"), config)?;
    Ok(keys)
}

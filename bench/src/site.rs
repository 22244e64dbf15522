//! Where a process runs: on loopback, or in a network namespace of the lab.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

use crate::invocation::Invocation;

/// The first port that is used in a namespace, where nobody else takes any.
const FIRST_PORT: u16 = 9000;

static NEXT_PORT: AtomicU16 = AtomicU16::new(FIRST_PORT);

/// A place for processes.
#[derive(Clone, Debug)]
pub struct Site {
    ip: IpAddr,
    namespace: Option<PathBuf>,
}

impl Site {
    /// This machine's loopback.
    pub fn loopback() -> Site {
        Site { ip: Ipv4Addr::LOCALHOST.into(), namespace: None }
    }

    /// The network namespace that is bound to a path, listening on one of its addresses.
    pub fn in_namespace(path: PathBuf, ip: Ipv4Addr) -> Site {
        Site { ip: ip.into(), namespace: Some(path) }
    }

    /// The address to listen on.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// A pattern of the addresses that a relay here must be able to reach.
    pub fn neighbours(&self) -> &'static str {
        if self.namespace.is_some() { "10.0.0.0/8" } else { "127.0.0.1" }
    }

    /// An address with a port that nobody listened on a moment ago.
    pub fn free_address(&self) -> Result<SocketAddr> {
        if self.namespace.is_some() {
            return Ok((self.ip, NEXT_PORT.fetch_add(1, Ordering::Relaxed)).into());
        }
        let listener = TcpListener::bind((self.ip, 0)).context("no free port on loopback")?;
        Ok(listener.local_addr()?)
    }

    /// A command that will run here.
    pub fn command(&self, program: &Path) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(net(namespace)).arg(program);
        command
    }

    /// Lets a program run here.
    pub fn enclose(&self, invocation: &mut Invocation) {
        if let Some(namespace) = &self.namespace {
            // Its links go with this process, and without them it would try again for long.
            invocation.ends_with_bench = true;
            let program = std::mem::replace(&mut invocation.program, "nsenter".into());
            invocation.arguments.splice(0..0, [net(namespace), program.into_os_string()]);
        }
    }
}

fn net(namespace: &Path) -> OsString {
    let mut option = OsString::from("--net=");
    option.push(namespace);
    option
}

//! A network namespace without a name. It is gone with the last process and descriptor that is in it, so that nothing stays
//! behind however the lab ends, SIGKILL included.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::platform;

/// A namespace that lives as long as this, or a process in it.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// An empty one.
    pub fn new() -> Result<Namespace> {
        // A thread of its own: only it changes over, and it ends at once.
        let made = thread::spawn(|| {
            platform::unshare_network()?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.join().map_err(|_| anyhow!("the thread that makes a namespace ended badly"))?;
        file.map(Namespace).context("cannot make a network namespace")
    }

    /// Where other programs find it while this process lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Does something in there, in a thread that ends with it.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let moved = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter a network namespace")?;
            work()
        };
        thread::scope(|scope| scope.spawn(moved).join())
            .map_err(|_| anyhow!("a thread within a network namespace ended badly"))?
    }

    /// Runs ip(8) in there.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        let ip = || {
            Command::new("ip")
                .args(arguments)
                .output()
                .context("cannot start ip (Debian: apt install iproute2)")
        };
        let output = self.within(ip)?;
        if !output.status.success() {
            bail!("ip {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

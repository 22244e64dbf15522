//! What an attack needs to be there before it begins: files, a mount that hangs, a next hop and a name server that say nothing.
//!
//! Mounts are made in a mount namespace of this process's own, so that they go with it, whatever happens.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use socket2::{Domain, Socket, Type};

use super::Attack;
use crate::platform;

/// Below the document root: what attacks ask for.
pub const LISTED: &str = "listed";
/// Where the name server is that says nothing.
const NAME_SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 53), 53);

/// What was made for one attack; dropped, it is as if nothing had been.
#[derive(Default)]
pub struct Ground {
    _hung: Option<Hung>,
    names: Option<SilentNames>,
    silent: Option<Socket>,
}

impl Ground {
    /// Makes what the attack asks for.
    pub fn lay(attack: Attack, root: &Path, work: &Path) -> Result<Ground> {
        let directory = root.join(LISTED);
        fs::create_dir(&directory)?;
        let mut ground = Ground::default();
        match attack {
            Attack::Lists => {
                for number in 0..10_000 {
                    fs::write(directory.join(format!("file-{number:05}")), "")?;
                }
            }
            Attack::DeadLinks => {
                for number in 0..100_000 {
                    symlink("nowhere", directory.join(format!("link-{number:06}")))?;
                }
            }
            Attack::Nested => nest(directory)?,
            Attack::HungMount => ground._hung = Some(Hung::mount(directory)?),
            Attack::DeadNames => ground.names = Some(SilentNames::serve(work)?),
            Attack::FinReset | Attack::FinSilence => ground.silent = Some(silent_hop()?),
            Attack::StalledLog | Attack::LongNames => {}
        }
        Ok(ground)
    }

    /// The next hop that accepts and says nothing.
    pub fn silent_hop(&self) -> Result<Option<SocketAddr>> {
        let Some(socket) = &self.silent else { return Ok(None) };
        Ok(socket.local_addr()?.as_socket())
    }

    /// How often the name server was asked.
    pub fn questions(&self) -> Option<usize> {
        Some(self.names.as_ref()?.questions())
    }
}

/// Gives this process mounts of its own, which root alone may.
pub fn part_from_other_mounts() -> Result<()> {
    platform::unshare_mounts().context("cannot have mounts of its own")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

fn nest(mut here: PathBuf) -> Result<()> {
    for _ in 0..60 {
        for number in 0..1_000 {
            fs::write(here.join(format!("{number:04}-{}", "x".repeat(200))), "")?;
        }
        here.push("next");
        fs::create_dir(&here)?;
    }
    Ok(())
}

/// A socket whose connections the kernel accepts and nobody ever looks at.
fn silent_hop() -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    Ok(socket)
}

/// A FUSE file system whose server answers the first question, without which there is no mount, and no other one.
struct Hung {
    place: PathBuf,
    /// Once it is closed the kernel answers whoever waits.
    device: File,
}

impl Hung {
    fn mount(place: PathBuf) -> Result<Hung> {
        let device = File::options().read(true).write(true).open("/dev/fuse").context("no /dev/fuse")?;
        let options = CString::new(format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd()))?;
        mount("relay-bench", &place, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
            .context("cannot mount")?;
        let mut hung = Hung { place, device };
        hung.answer_init()?;
        Ok(hung)
    }

    /// Reads FUSE_INIT and answers it: `fuse_in_header` and `fuse_init_out` of linux/fuse.h, version 7.31.
    fn answer_init(&mut self) -> Result<()> {
        // The kernel gives nothing to a reader with less room than this.
        let mut question = [0; 1 << 16];
        let read = self.device.read(&mut question)?;
        let opcode = question.get(4..8).filter(|_| read >= 40);
        ensure!(opcode == Some(&26_u32.to_ne_bytes()), "the kernel asked something else than FUSE_INIT");
        let mut answer = Vec::new();
        // Length, no error, and which question this answers.
        answer.extend(80_u32.to_ne_bytes());
        answer.extend(0_u32.to_ne_bytes());
        answer.extend(question.get(8..16).unwrap_or_default());
        // major, minor, max_readahead, flags, max_background and congestion_threshold, max_write; the rest is zero.
        for field in [7_u32, 31, 1 << 16, 0, 0, 1 << 16] {
            answer.extend(field.to_ne_bytes());
        }
        answer.resize(80, 0);
        self.device.write_all(&answer).context("the kernel refused the answer to FUSE_INIT")
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // At the latest the mount goes with this process.
        let _ = unmount(&self.place, UnmountFlags::DETACH);
    }
}

/// A name server that takes questions and never answers, and is the only one that this process and its children know.
struct SilentNames {
    socket: UdpSocket,
}

impl SilentNames {
    fn serve(work: &Path) -> Result<SilentNames> {
        let socket = UdpSocket::bind(NAME_SERVER).context("cannot be a name server")?;
        socket.set_nonblocking(true)?;
        let file = work.join("resolv.conf");
        fs::write(&file, format!("nameserver {}\n", NAME_SERVER.0))?;
        mount_bind(&file, "/etc/resolv.conf").context("cannot mount over /etc/resolv.conf")?;
        Ok(SilentNames { socket })
    }

    fn questions(&self) -> usize {
        std::iter::from_fn(|| self.socket.recv(&mut [0; 512]).ok()).count()
    }
}

impl Drop for SilentNames {
    fn drop(&mut self) {
        let _ = unmount("/etc/resolv.conf", UnmountFlags::DETACH);
    }
}

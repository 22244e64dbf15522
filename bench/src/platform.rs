//! The kernel's calls that no safe wrapper offers. The only unsafe code of the bench is in here.
#![allow(
    unsafe_code,
    reason = "wait4, CPU clocks of others, pre_exec, unshare and the TUN ioctl have no safe form; each block says why it is sound"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

/// What a child used until it ended, its own children that it waited for included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// The most memory that it ever held in RAM, in KiB.
    pub peak_kib: u64,
    /// Whether it exited with status 0.
    pub success: bool,
}

/// Waits for a child and returns what it used, exact to the microsecond where `/proc` counts in ticks.
pub fn wait_with_usage(child: &Child) -> io::Result<Usage> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: rusage is plain integers, for which all zeroes is a value.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals of the right types, and the call keeps neither.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut used) };
        if waited == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let peak_kib = u64::try_from(used.ru_maxrss).unwrap_or(0);
    Ok(Usage { cpu: time_of(used.ru_utime) + time_of(used.ru_stime), peak_kib, success: status == 0 })
}

/// CPU time so far of a process's threads, those that have ended included; none when it has ended.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: the pointer is to a live local of the right type, which the call fills and does not keep.
    if unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } != 0 {
        return None;
    }
    // SAFETY: the same.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

fn time_of(time: libc::timeval) -> Duration {
    let micros = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_usec);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Lets the kernel end the child when this process dies without having ended it.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one system call and allocates nothing, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
            Ok(())
        });
    }
}

/// Gives this thread a network of its own, with nothing in it.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: only sharing of descriptor tables is dangerous between threads, and that is left as it is.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?)
}

/// Gives this thread, and what it starts from now on, mounts of its own.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: as above.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?)
}

/// Makes a TUN device of that name in this thread's network namespace; it lives as long as the file is open. Each read
/// and write is one IP packet.
pub fn open_tun(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain integers and a union of such, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero and ends the name.
    for (to, &from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.as_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and the request is a live ifreq as this call wants it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}

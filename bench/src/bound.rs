//! The bound: the least work with which the same file could come through the same chain.
//!
//! Relays are blocking splice loops with a thread a direction, the origin is a bare `sendfile`, and the sink receives
//! a chunk, hashes it and writes it, as the client must. There is no protocol, no limit, no log and no answer to a
//! failure in here, and none may be added: whatever this costs, every real chain costs at least that.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, pipe, splice};

/// What the client hashes at once: a chunk of the file layer.
pub const CHUNK: usize = 1 << 20;

/// As much as one `sendfile` call may move; Linux stops there by itself (sendfile(2), NOTES).
const SENDFILE_MAX: u64 = 0x7fff_f000;

/// The parts of the bound, each a process of its own so that its CPU time can be told apart.
#[derive(Subcommand, Debug)]
pub enum Part {
    /// Pass every connection on to one address by splice
    Relay(RelayArgs),
    /// Send one file to everybody who connects
    Origin(OriginArgs),
    /// Receive one file, hash its chunks, write it
    Sink(SinkArgs),
}

/// A splicing relay.
#[derive(Args, Debug)]
pub struct RelayArgs {
    /// Where the connections go
    next: SocketAddr,
    /// The address to listen on, on a free port
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Bytes of the pipe between the two sockets
    #[arg(long, default_value_t = 1 << 20)]
    pipe: usize,
    /// Move the bytes through a buffer of the process instead of a pipe of the kernel
    #[arg(long)]
    copy: bool,
}

/// A bare origin.
#[derive(Args, Debug)]
pub struct OriginArgs {
    /// The file to send
    file: PathBuf,
    /// The address to listen on, on a free port
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
}

/// A hashing sink.
#[derive(Args, Debug)]
pub struct SinkArgs {
    /// Where to fetch from
    from: SocketAddr,
    /// The file to write, or `/dev/null`
    out: PathBuf,
    /// Leave the hashing out
    #[arg(long)]
    no_hash: bool,
    /// Bytes asked for in one `recv`
    #[arg(long, default_value_t = CHUNK)]
    read: usize,
}

/// Runs one part until it is ended (relay, origin) or done (sink).
pub fn run(part: &Part) -> Result<()> {
    match part {
        Part::Relay(args) => relay(args),
        Part::Origin(args) => origin(args),
        Part::Sink(args) => sink(args),
    }
}

fn relay(args: &RelayArgs) -> Result<()> {
    let (next, pipe_size, copy) = (args.next, args.pipe, args.copy);
    for_each_connection(args.listen, move |caller| {
        let onward = TcpStream::connect(next).with_context(|| format!("cannot connect to {next}"))?;
        onward.set_nodelay(true)?;
        let (caller_back, onward_back) = (caller.try_clone()?, onward.try_clone()?);
        let back = thread::spawn(move || pass(&onward_back, &caller_back, pipe_size, copy));
        pass(&caller, &onward, pipe_size, copy)?;
        back.join().map_err(|_| anyhow::anyhow!("the thread of the other direction ended badly"))?
    })
}

fn pass(from: &TcpStream, to: &TcpStream, pipe_size: usize, copy: bool) -> Result<()> {
    let moved = if copy { pass_by_copy(from, to, pipe_size) } else { pass_by_splice(from, to, pipe_size) };
    moved?;
    // The other side may be gone already; then there is nobody left to tell.
    let _ = to.shutdown(Shutdown::Write);
    Ok(())
}

fn pass_by_splice(from: &TcpStream, to: &TcpStream, pipe_size: usize) -> Result<()> {
    let (outlet, inlet) = pipe()?;
    let held = fcntl_setpipe_size(&inlet, pipe_size)?;
    loop {
        let mut waiting = splice(from, None, &inlet, None, held, SpliceFlags::MOVE)?;
        if waiting == 0 {
            return Ok(());
        }
        while waiting > 0 {
            waiting -= splice(&outlet, None, to, None, waiting, SpliceFlags::MOVE)?;
        }
    }
}

fn pass_by_copy(mut from: &TcpStream, mut to: &TcpStream, size: usize) -> Result<()> {
    let mut buffer = vec![0; size];
    loop {
        let n = from.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..n).filter(|b| !b.is_empty()) else { return Ok(()) };
        to.write_all(bytes)?;
    }
}

fn origin(args: &OriginArgs) -> Result<()> {
    let path = args.file.clone();
    for_each_connection(args.listen, move |mut caller| {
        // One byte asks for the file, so that the chain stands before the file starts to flow.
        caller.read_exact(&mut [0])?;
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let size = file.metadata()?.len();
        caller.write_all(&size.to_be_bytes())?;
        let mut offset = 0;
        while offset < size {
            let piece = usize::try_from((size - offset).min(SENDFILE_MAX))?;
            // `offset` is moved by the call.
            if rustix::fs::sendfile(&caller, &file, Some(&mut offset), piece)? == 0 {
                bail!("{} became shorter while it was sent", path.display());
            }
        }
        Ok(())
    })
}

fn sink(args: &SinkArgs) -> Result<()> {
    let mut from =
        TcpStream::connect(args.from).with_context(|| format!("cannot connect to {}", args.from))?;
    from.set_nodelay(true)?;
    let mut out = File::create(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    from.write_all(&[1])?;
    let mut size = [0; 8];
    from.read_exact(&mut size)?;
    let mut left = u64::from_be_bytes(size);
    let mut chunk = vec![0; CHUNK];
    // Folding the values keeps the hashing from being optimised away.
    let mut folded = [0u8; 32];
    while left > 0 {
        let take = usize::try_from(left.min(CHUNK as u64))?;
        let Some(bytes) = chunk.get_mut(..take) else { bail!("a chunk is longer than its buffer") };
        receive(&mut from, bytes, args.read)?;
        if !args.no_hash {
            for (sum, byte) in folded.iter_mut().zip(blake3::hash(bytes).as_bytes()) {
                *sum ^= byte;
            }
        }
        out.write_all(bytes)?;
        left -= take as u64;
    }
    println!("{}", blake3::Hash::from_bytes(folded).to_hex());
    Ok(())
}

fn receive(from: &mut TcpStream, chunk: &mut [u8], read: usize) -> Result<()> {
    let mut rest = chunk;
    while !rest.is_empty() {
        let ask = rest.len().min(read.max(1));
        let n = from.read(rest.get_mut(..ask).unwrap_or_default())?;
        if n == 0 {
            bail!("the stream ended {} bytes before its chunk", rest.len());
        }
        rest = rest.get_mut(n..).unwrap_or_default();
    }
    Ok(())
}

/// Listens on a free port, says which, and gives every connection a thread.
fn for_each_connection<F>(address: IpAddr, serve: F) -> Result<()>
where
    F: Fn(TcpStream) -> Result<()> + Clone + Send + 'static,
{
    let listener = TcpListener::bind((address, 0)).with_context(|| format!("cannot listen on {address}"))?;
    println!("listening on {}", listener.local_addr()?);
    for caller in listener.incoming() {
        let caller = caller?;
        caller.set_nodelay(true)?;
        let serve = serve.clone();
        thread::spawn(move || {
            if let Err(error) = serve(caller) {
                eprintln!("connection ended: {error:#}");
            }
        });
    }
    Ok(())
}

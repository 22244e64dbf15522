//! When something runs out, every program says so clearly, loses nothing, and goes on as soon as there is some again: descriptors,
//! pipes, room on a disk, a place that may be written.
//!
//! Shortages are made for single processes and without privileges: limits by the shell's `ulimit`, small and read-only file
//! systems in a mount namespace of the process's own (unshare(1)). Where the system grants no such namespace a test says
//! that it was skipped.

use crate::raw::Raw;
use crate::world::{MIB, World, hops, some_chunks};
use relay_proto::code::FailureCode;
use relay_proto::frame::FrameType;
use relay_proto::hop::Failed;
use relay_testkit::files::{b3_of_file, names_in};
use relay_testkit::node::Node;
use relay_testkit::process::{Finished, Process, Signal};
use relay_testkit::programs::program;
use relay_testkit::proxy::{Direction, Fault, FaultProxy, Plan};
use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The exit code for everything that is this machine's.
const LOCAL: i32 = 8;

/// `command` behind a shell that runs `script` first. The script ends with `exec "$@"`, or uses `"$@"` in another way.
fn after(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    with_surroundings(shell, command)
}

/// The same in a mount namespace of its own, where the script may mount.
fn after_in_namespace(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("unshare");
    shell.args(["-Urm", "sh", "-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    with_surroundings(shell, command)
}

fn with_surroundings(mut shell: Command, command: &Command) -> Command {
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Whether a process may have a mount namespace of its own here.
fn has_namespaces() -> bool {
    let tried = Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let granted = tried.as_ref().is_ok_and(|output| output.status.success());
    if !granted {
        eprintln!("skipped: this system gives a process no mount namespace of its own ({tried:?})");
    }
    granted
}

fn node_command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("relay-node"));
    command.args(["--listen", "127.0.0.1:0", "--root"]).arg(root).args(arguments);
    command
}

fn client_command(world: &World, file: &str, hops: &[String], arguments: &[&str]) -> Command {
    let mut command = world.client_command();
    command.args(["--get", file, "--retries", "0"]).args(arguments);
    for hop in hops {
        command.args(["--via", hop]);
    }
    command
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

#[test]
fn too_few_descriptors_to_begin_with() {
    let world = World::new();
    world.offer("myfile", 1000);
    let origin = world.origin();
    // Every number, for each ends in another place.
    for limit in [8, 9, 12, 31] {
        let script = format!("ulimit -n {limit}; exec \"$@\"");
        let node = Process::start(after(&script, &node_command(&world.served(), &[]))).finish();
        assert_eq!(node.code, Some(1), "{limit}: {}", node.stderr);
        let client = Process::start(after(&script, &client_command(&world, "myfile", &[origin.hop()], &[])));
        let client = client.finish();
        assert_eq!(client.code, Some(LOCAL), "{limit}: {}", client.stderr);
        for said in [node.stderr, client.stderr] {
            assert!(
                said.contains(&format!("open only {limit} files")) && said.contains("ulimit -n"),
                "{said}"
            );
        }
    }
    let enough = Process::start(after("ulimit -n 32; exec \"$@\"", &node_command(&world.served(), &[])));
    let node = Node::from_process(enough);
    let command = client_command(&world, "myfile", &[node.hop()], &[]);
    let client = Process::start(after("ulimit -n 32; exec \"$@\"", &command)).finish();
    world.check_saved(&client, "myfile", &fs::read(world.served().join("myfile")).expect("the sample"));
}

/// A node takes connections until descriptors run low, tells the others that it is busy, keeps its promises to those it took, and
/// takes new ones as soon as there is room.
#[test]
fn a_node_that_runs_out_of_descriptors_goes_on() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(8));
    let origin = world.origin();
    let command = node_command(&world.served(), &[]);
    let node = Node::from_process(Process::start(after("ulimit -n 48; exec \"$@\"", &command)));
    let proxy = FaultProxy::start(node.address(), Plan::down(3_000_000, Fault::Stall));
    let begun = world.start_fetch("myfile", &[proxy.hop(), origin.hop()], &["--timeout", "60"]);
    proxy.wait_for_stall();

    let (mut held, mut busy) = (Vec::new(), None);
    while busy.is_none() && held.len() < 100 {
        let mut raw = Raw::open(node.address(), &[]);
        let (kind, payload) = raw.hear_any();
        match kind {
            FrameType::Hello => held.push(raw),
            _ => busy = Some(relay_proto::frame::decode::<Failed>(kind, &payload).expect("a failed")),
        }
    }
    let busy = busy.expect("the node says that it is full, long before 100");
    assert_eq!(busy.code, FailureCode::Busy);
    assert!(held.len() > 10, "{} connections are few for 48 descriptors", held.len());
    node.wait_for_log("too few descriptors");
    // HTTP hears it, too, and a flood of others neither ends the node nor fills its log.
    let mut raw = Raw::connect(node.address());
    raw.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(raw.rest().0.starts_with(b"HTTP/1.1 503 "));
    let flood: Vec<Raw> = (0..100).map(|_| Raw::connect(node.address())).collect();
    drop(flood);
    // What was begun before ends well.
    proxy.resume();
    world.check_saved(&begun.finish(), "myfile", &bytes);
    world.clear_saved();

    drop(held);
    let fetched = (0..300).map(|_| world.fetch("myfile", &[node.hop(), origin.hop()], &[]));
    let fetched = fetched.into_iter().find(|finished| finished.code == Some(0)).expect("room");
    world.check_saved(&fetched, "myfile", &bytes);
    let told = node.process().text().matches("too few descriptors are left").count();
    assert!(told <= 10, "the log was told {told} times");
}

/// How many pipes a process holds.
fn pipes_of(node: &Node) -> usize {
    let fds = fs::read_dir(format!("/proc/{}/fd", node.process().pid())).expect("its descriptors");
    fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}

/// A user's pipes may hold only so much together (pipe(7), `pipe-user-pages-soft`); then relays copy.
#[test]
fn without_pipes_bytes_are_copied() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(8));
    let origin = world.origin();
    // Whoever may raise limits is not held to this one, so the relay gives that privilege up.
    let relay = if can_exceed_pipe_quota() {
        if !has_namespaces() {
            return;
        }
        let command = node_command(&world.saved(), &[]);
        Node::from_process(Process::start(after_in_namespace("exec \"$@\"", &command)))
    } else {
        world.relay()
    };
    let pipes_while_stalled = || {
        let before = pipes_of(&relay);
        let proxy = FaultProxy::start(relay.address(), Plan::down(5_000_000, Fault::Stall));
        let client = world.start_fetch("myfile", &[proxy.hop(), origin.hop()], &["--timeout", "60"]);
        proxy.wait_for_stall();
        let during = pipes_of(&relay);
        proxy.resume();
        world.check_saved(&client.finish(), "myfile", &bytes);
        world.clear_saved();
        (before, during)
    };
    // A program of this user that ends meanwhile gives its pages back, and a pipe may be had after all.
    let is_refused = (0..5).any(|_| {
        let _taken = take_all_pipe_pages();
        let (before, during) = pipes_while_stalled();
        before == during
    });
    assert!(is_refused, "a pipe was had beyond the quota");
    let (before, during) = pipes_while_stalled();
    assert!(during > before, "with the quota free again there is a pipe");
}

/// Whether this process is above the quota of pipes: `CAP_SYS_RESOURCE` is the 24th capability, `CAP_SYS_ADMIN` the 21st.
fn can_exceed_pipe_quota() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("proc(5)");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
    let capabilities = u64::from_str_radix(line.trim(), 16).expect("a number");
    capabilities & (1 << 24 | 1 << 21) != 0
}

/// What a new pipe has while there is quota (pipe(7)). Bytes.
const SMALLEST_PIPE: usize = 64 * 1024;

/// Holds pipes until this user's quota is used up.
fn take_all_pipe_pages() -> Vec<(std::io::PipeReader, std::io::PipeWriter)> {
    let quota = fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").expect("proc(5)");
    let pages: usize = quota.trim().parse().expect("a number");
    let (mut left, mut taken) = (pages * 4096, Vec::new());
    while left > 0 {
        let pipe = std::io::pipe().expect("a pipe");
        // Large ones, so that few descriptors do; without quota a pipe stays as small as it is.
        let size = fcntl_setpipe_size(&pipe.1, 1 << 20).or_else(|_| fcntl_getpipe_size(&pipe.1));
        let size = size.expect("its size");
        taken.push(pipe);
        if size < SMALLEST_PIPE {
            break;
        }
        left = left.saturating_sub(size);
    }
    taken
}

/// A disk without room for the file is known at the start; with room again the same command goes on.
#[test]
fn a_full_disk_at_the_client_and_then_a_larger_one() {
    if !has_namespaces() {
        return;
    }
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(8));
    let nodes = world.chain(1);
    let (disk, kept) = (world.elsewhere("disk"), world.elsewhere("kept"));
    fs::create_dir(&disk).expect("a directory");
    let script = format!(
        "mount -t tmpfs -o size=4m none {disk} && cd {disk} || exit 99
         \"$@\"; echo \"first: $?\"; ls
         mount -o remount,size=64m {disk} || exit 99
         \"$@\" || exit $?
         ls; cp myfile {kept}",
        disk = quoted(&disk),
        kept = quoted(&kept)
    );
    let command = client_command(&world, "myfile", &hops(&nodes), &[]);
    let finished = Process::start(after_in_namespace(&script, &command)).finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let out = finished.stdout_text();
    assert!(out.contains("first: 8"), "{out}");
    assert!(
        finished.stderr.contains("No space left") && finished.stderr.contains("make room"),
        "{}",
        finished.stderr
    );
    assert!(fs::read(&kept).expect("the file") == bytes, "another file");
    assert!(
        !out.lines().skip_while(|line| !line.starts_with("first")).any(|line| line == "myfile.part.journal")
    );
}

/// A journal that cannot be written is told, and the file arrives.
#[test]
fn a_journal_that_cannot_be_written() {
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(8));
    let nodes = world.chain(1);
    fs::create_dir(world.saved().join("myfile.part.journal")).expect("something in its place");
    // Slow enough for several attempts to write a journal, of which there is one a second.
    let slow = Plan { down: Direction::rate(2_000_000), ..Plan::pass() };
    let proxy = FaultProxy::start(nodes[0].address(), slow);
    let command = client_command(&world, "myfile", &[proxy.hop(), nodes[1].hop()], &["--connections", "1"]);
    let finished = Process::start(command).finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("the next one starts afresh"), "{}", finished.stderr);
    assert!(fs::read(world.saved().join("myfile")).expect("the file") == bytes, "another file");
    assert_eq!(names_in(&world.saved()), ["myfile", "myfile.part.journal"], "litter");
}

/// A node whose small disk the test can fill and empty.
struct SmallDisk {
    node: Node,
    filler: PathBuf,
}

impl SmallDisk {
    /// A node with `--cache-dir` and `--log-dir` on a disk of one MiB, in front of `upstream`.
    fn start(world: &World, upstream: SocketAddr, with_log: bool) -> SmallDisk {
        let disk = world.elsewhere("disk");
        fs::create_dir_all(&disk).expect("a directory");
        let (cache, log) = (disk.join("cache"), disk.join("log"));
        let upstream = format!("http://{upstream}");
        let mut arguments = vec!["--upstream", &upstream, "--cache-dir", cache.to_str().expect("UTF-8")];
        if with_log {
            arguments.extend(["--log-dir", log.to_str().expect("UTF-8")]);
        }
        let script = format!("mount -t tmpfs -o size=1m none {} && exec \"$@\"", quoted(&disk));
        let command = node_command(&world.saved(), &arguments);
        let node = Node::from_process(Process::start(after_in_namespace(&script, &command)));
        // The node's own view of the file system.
        let inside = format!("/proc/{}/root{}", node.process().pid(), disk.display());
        SmallDisk { node, filler: Path::new(&inside).join("filler") }
    }

    fn fill(&self) {
        let mut filler = File::create(&self.filler).expect("a file");
        while filler.write_all(&[1; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(&self.filler).expect("removed");
    }

    /// An HTTP answer: its head, and its body.
    fn get(&self, name: &str) -> (String, Vec<u8>) {
        http_get(self.node.address(), name)
    }

    /// What the logs say.
    fn logs(&self) -> String {
        let directory = self.filler.with_file_name("log");
        let files = fs::read_dir(directory).expect("the log directory");
        files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok()).collect()
    }
}

/// An HTTP answer: its head, and its body.
pub fn http_get(address: SocketAddr, name: &str) -> (String, Vec<u8>) {
    let mut raw = Raw::connect(address);
    raw.write(format!("GET /{name} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes());
    let (answer, _) = raw.rest();
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a head");
    (String::from_utf8_lossy(&answer[..head]).into_owned(), answer[head + 4..].to_vec())
}

#[test]
fn a_full_disk_under_the_cache() {
    if !has_namespaces() {
        return;
    }
    let world = World::new();
    let (small, large) = (world.offer("small", 10_000), world.offer("large", 3 * MIB));
    let origin = world.origin();
    let disk = SmallDisk::start(&world, origin.address(), false);
    disk.fill();
    for (name, bytes) in [("small", &small), ("large", &large), ("small", &small)] {
        let (head, body) = disk.get(name);
        assert!(head.starts_with("HTTP/1.1 200 ") && body == *bytes, "{name}: {head}, {} bytes", body.len());
        disk.node.wait_for_log(&format!("/{name} ;host:"));
    }
    assert!(disk.node.process().text().contains("the cache cannot keep a response"), "nothing was said");
    // With room again responses are kept, and what does not fit at all is still passed on.
    disk.empty();
    let (_, body) = disk.get("small");
    assert!(body == small);
    let (head, body) = disk.get("small");
    assert!(body == small && (head.contains("hit") || head.contains("fwd-status=304")), "{head}");
    assert!(disk.get("large").1 == large);
}

#[test]
fn a_full_disk_under_the_logs() {
    if !has_namespaces() {
        return;
    }
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(3));
    let origin = world.origin();
    let disk = SmallDisk::start(&world, origin.address(), true);
    disk.fill();
    for _ in 0..3 {
        let finished = world.fetch("myfile", &[disk.node.hop(), origin.hop()], &[]);
        world.check_saved(&finished, "myfile", &bytes);
        world.clear_saved();
        assert!(disk.get("myfile").1 == bytes);
    }
    disk.empty();
    // Lines that found no room are lost; later ones are written again.
    let written = (0..300).any(|_| {
        disk.get("after");
        disk.logs().contains("GET /after ")
    });
    assert!(written, "no log line after there was room again:\n{}", disk.logs());
}

#[test]
fn nothing_needs_to_be_writable_for_serving() {
    if !has_namespaces() {
        return;
    }
    let world = World::new();
    let bytes = world.offer("myfile", some_chunks(3));
    let served = world.served();
    // First the directory of the files, then everything.
    let script = format!(
        "mount --bind {served} {served} && mount -o remount,bind,ro {served} && mount -o remount,bind,ro / || exit 99
         touch {served}/x 2>/dev/null && exit 98
         exec \"$@\"",
        served = quoted(&served)
    );
    let start = |arguments: &[&str]| {
        Node::from_process(Process::start(after_in_namespace(&script, &node_command(&served, arguments))))
    };
    let nodes = [start(&[]), start(&[])];
    let hash = b3_of_file(&served.join("myfile"));
    let finished = world.fetch("myfile", &hops(&nodes), &["--expect", &format!("b3:{hash}")]);
    world.check_saved(&finished, "myfile", &bytes);
    assert!(http_get(nodes[0].address(), "myfile").1 == bytes);
}

/// A place that must be writable and is not: said at once, with what to do.
#[test]
fn a_read_only_place_for_a_download_a_cache_or_logs() {
    if !has_namespaces() {
        return;
    }
    let world = World::new();
    world.offer("myfile", some_chunks(3));
    let nodes = world.chain(1);
    let place = world.elsewhere("place");
    fs::create_dir(&place).expect("a directory");
    let script = format!(
        "mount --bind {place} {place} && mount -o remount,bind,ro {place} && cd {place} || exit 99
         exec \"$@\"",
        place = quoted(&place)
    );
    let run =
        |command: &Command| -> Finished { Process::start(after_in_namespace(&script, command)).finish() };
    let client = run(&client_command(&world, "myfile", &hops(&nodes), &[]));
    assert_eq!(client.code, Some(LOCAL), "{}", client.stderr);
    assert!(
        client.stderr.contains("myfile.part") && client.stderr.contains("save elsewhere with -o"),
        "{}",
        client.stderr
    );
    let upstream = format!("http://{}", nodes[1].address());
    for (arguments, named) in [
        (["--upstream", &upstream, "--cache-dir", "cache"].as_slice(), "cache"),
        (&["--log-dir", "log"], "--log-dir"),
    ] {
        let node = run(&node_command(&world.served(), arguments));
        assert_eq!(node.code, Some(1), "{arguments:?}: {}", node.stderr);
        assert!(
            node.stderr.contains("ead-only file system") && node.stderr.contains(named),
            "{}",
            node.stderr
        );
    }
}

/// A node whose every message goes to a full disk, and what it does: it serves, tells its status to nobody, and ends in order.
#[cfg(target_os = "linux")]
#[test]
fn messages_to_a_full_disk_are_lost_and_nothing_else() {
    let world = World::new();
    let bytes = world.offer("a", 100_000);
    let node = program("relay-node");
    // Where it listens cannot be read anywhere, so it gets a port that was free; somebody else may be quicker.
    let (mut process, hop) = (0..5)
        .find_map(|_| {
            let free =
                std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port");
            let mut command = Command::new("sh");
            command.args(["-c", "exec \"$0\" --listen \"$1\" --root \"$2\" >/dev/full 2>&1"]);
            command.arg(&node).arg(free.to_string()).arg(world.served());
            let mut process = Process::start(command);
            while std::net::TcpStream::connect(free).is_err() {
                if !process.is_running() {
                    return None;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Some((process, free.to_string()))
        })
        .expect("it dies at its start");
    for _ in 0..2 {
        let finished = world.fetch("a", std::slice::from_ref(&hop), &[]);
        world.check_saved(&finished, "a", &bytes);
        world.clear_saved();
        process.signal(Signal::User1);
    }
    assert!(process.is_running());
    process.signal(Signal::Terminate);
    assert_eq!(process.finish().code, Some(0));
}

//! Pipes that carry bytes from socket to socket inside the kernel (splice(2)).

#[cfg(any(not(target_os = "linux"), relay_plain))]
pub use fallback::Pipe;
#[cfg(all(target_os = "linux", not(relay_plain)))]
pub use linux::Pipe;

#[cfg(all(target_os = "linux", not(relay_plain)))]
mod linux {
    use crate::platform::descriptors::{Purpose, is_scarce};
    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// How much the first pipes hold, and how many those are. Fewer, larger pieces cost less all the way through TCP; this is
    /// as much as an unprivileged user's pipe may hold (pipe(7), `pipe-max-size`). All pipes of one such user may hold 64 MiB
    /// together (`pipe-user-pages-soft`), so the further ones are smaller: there are room and quota for about 400 transfers at
    /// once before bytes are copied.
    const LARGE: usize = 1024 * 1024;
    const MOST_LARGE: usize = 16;
    /// How much each further pipe holds.
    const SMALL: usize = 128 * 1024;
    /// A pipe that is smaller costs more system calls than it saves copies; born so when the quota is gone.
    const SMALLEST: usize = 64 * 1024;
    /// Large pipes, in use or idle.
    static LARGE_ONES: AtomicUsize = AtomicUsize::new(0);
    static IDLE: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());

    /// A pipe of at least 64 KiB, and how many bytes are in it.
    #[derive(Debug)]
    pub struct Pipe {
        reader: OwnedFd,
        writer: OwnedFd,
        capacity: usize,
        held: usize,
        is_large: bool,
    }

    impl Pipe {
        /// An empty pipe, or `None` when the system has none to give: then the bytes are to be copied.
        pub fn take() -> Option<Pipe> {
            let idle = IDLE.lock().ok().and_then(|mut pipes| pipes.pop());
            idle.or_else(|| Pipe::make().ok().filter(|pipe| pipe.capacity >= SMALLEST))
        }

        /// How many pipes wait for the next transfer.
        pub fn idle() -> usize {
            IDLE.lock().map_or(0, |pipes| pipes.len())
        }

        fn make() -> rustix::io::Result<Pipe> {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            if is_scarce(&writer, Purpose::Convenience) {
                return Err(rustix::io::Errno::MFILE);
            }
            let one_more = |large: usize| (large < MOST_LARGE).then_some(large + 1);
            let is_large = LARGE_ONES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
            let mut pipe = Pipe { reader, writer, capacity: 0, held: 0, is_large };
            pipe.capacity = match fcntl_setpipe_size(&pipe.writer, if is_large { LARGE } else { SMALL }) {
                Ok(capacity) => capacity,
                Err(_) => fcntl_getpipe_size(&pipe.writer)?,
            };
            Ok(pipe)
        }

        /// Bytes that went in and have not come out.
        pub fn held(&self) -> usize {
            self.held
        }

        /// Moves what the socket has into the pipe, as far as there is room. Only with an empty pipe is 0 surely the socket's
        /// end, and does "would block" tell that the socket has nothing.
        pub fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            let room = self.capacity.saturating_sub(self.held);
            let moved = splice(socket, None, &self.writer, None, room, flags)?;
            self.held += moved;
            Ok(moved)
        }

        /// Moves what the pipe holds, or a part of it, into the socket.
        pub fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            let moved = splice(&self.reader, None, socket, None, self.held, flags)?;
            self.held -= moved.min(self.held);
            Ok(moved)
        }

        /// Gives an empty pipe to the next transfer; one that holds a stranger's bytes is closed, and so is a small one, for
        /// it would keep a transfer slow for which there is a large one.
        pub fn give_back(self) {
            if self.held == 0
                && self.capacity >= LARGE
                && let Ok(mut pipes) = IDLE.lock()
            {
                pipes.push(self);
            }
        }
    }

    impl Drop for Pipe {
        fn drop(&mut self) {
            if self.is_large {
                LARGE_ONES.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::io::{Read, Write};
        use std::net::{TcpListener, TcpStream};

        #[test]
        fn bytes_pass_and_an_emptied_pipe_serves_again() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let connect = || {
                let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (near, listener.accept().unwrap().0)
            };
            let ((mut source, from), (to, mut sink)) = (connect(), connect());
            let mut pipe = Pipe::take().unwrap();
            assert!(pipe.capacity >= SMALLEST);
            source.write_all(b"through the kernel").unwrap();
            while pipe.held() == 0 {
                match pipe.fill(&from) {
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                    Ok(moved) => assert!(moved > 0),
                }
            }
            while pipe.held() > 0 {
                pipe.drain(&to).unwrap();
            }
            pipe.give_back();
            let mut got = [0; 18];
            sink.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"through the kernel");
        }
    }
}

/// Systems without splice: there is never a pipe, so the bytes are copied.
#[cfg(any(not(target_os = "linux"), relay_plain, test))]
#[cfg_attr(
    all(target_os = "linux", not(relay_plain)),
    allow(dead_code, reason = "only its `take` is tested where splice is")
)]
mod fallback {
    use std::convert::Infallible;
    use std::io;

    /// A pipe of the kernel, which there is none of.
    #[derive(Debug)]
    pub struct Pipe(Infallible);

    impl Pipe {
        /// Always none.
        pub fn take() -> Option<Pipe> {
            None
        }

        /// How many wait to be used again: none.
        pub fn idle() -> usize {
            0
        }

        /// How many bytes it holds.
        pub fn held(&self) -> usize {
            match self.0 {}
        }

        /// Takes bytes from a socket.
        ///
        /// # Errors
        /// Never: there is no pipe to call it on.
        pub fn fill<S>(&mut self, _socket: S) -> io::Result<usize> {
            match self.0 {}
        }

        /// Gives bytes to a socket.
        ///
        /// # Errors
        /// Never: there is no pipe to call it on.
        pub fn drain<S>(&mut self, _socket: S) -> io::Result<usize> {
            match self.0 {}
        }

        /// Keeps it for the next one.
        pub fn give_back(self) {
            match self.0 {}
        }
    }

    #[cfg(test)]
    #[test]
    fn there_is_never_a_pipe() {
        assert!(Pipe::take().is_none());
    }
}

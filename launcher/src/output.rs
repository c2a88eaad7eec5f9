//! Forwarding what ranks print: whole lines, one write each, never two ranks' bytes in one line.
//!
//! Relies on: the ranks' standard output and error being pipes whose read ends it owns.
//! Promises: the bytes of a rank keep their order; a line is written at once and whole up to
//! [`LINE_BYTES`]; a partial last line is kept and written at the end; when the reader of our own
//! output goes away, the ranks see it as they would without a launcher (their pipe closes).
//! It runs in a thread of its own, so a slow reader never delays the supervision of the ranks.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::Timespec;

/// A longer line is written in pieces of this size: a bound on memory per rank.
const LINE_BYTES: usize = 256 << 10;
/// Read at once: the default capacity of a pipe.
const READ_BYTES: usize = 64 << 10;
/// Reads per pipe after that: the largest pipe a user may have (1 MiB).
const DRAIN_READS: usize = 16;
/// After the ranks have ended, their children may still hold the pipes: wait this long for them.
const LINGER: Duration = Duration::from_millis(100);

/// Where one of the two output streams of a job goes.
#[derive(Default)]
pub enum Sink {
    /// To the launcher's own stream.
    #[default]
    Inherit,
    /// Into the [`Outcome`](crate::Outcome).
    Capture,
    /// Nowhere.
    Null,
    /// To a writer.
    Writer(Box<dyn Write + Send>),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Sink::Inherit => "Inherit",
            Sink::Capture => "Capture",
            Sink::Null => "Null",
            Sink::Writer(_) => "Writer",
        })
    }
}

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Out = 0,
    Err = 1,
}

/// An open sink.
struct Target {
    writer: Option<Box<dyn Write + Send>>,
    captured: Vec<u8>,
    capture: bool,
    broken: bool,
}

impl Target {
    fn new(sink: Sink, own: impl Write + Send + 'static) -> Target {
        let capture = matches!(sink, Sink::Capture);
        let writer: Option<Box<dyn Write + Send>> = match sink {
            Sink::Inherit => Some(Box::new(own)),
            Sink::Writer(writer) => Some(writer),
            Sink::Capture | Sink::Null => None,
        };
        Target {
            writer,
            captured: Vec::new(),
            capture,
            broken: false,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.capture {
            self.captured.extend_from_slice(bytes);
        }
        if let Some(writer) = &mut self.writer {
            // Our reader has gone: the ranks shall see it too, see `Forwarder::read`.
            self.broken = writer
                .write_all(bytes)
                .and_then(|()| writer.flush())
                .is_err();
        }
    }
}

/// Cuts one rank's bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    tag: String,
    partial: Vec<u8>,
    /// The partial line has been begun in the sink (a piece of a very long line).
    begun: bool,
}

impl Lines {
    /// Takes `bytes`, gives the text to write now.
    fn push(&mut self, bytes: &[u8], whole: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + self.partial.len());
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.emit(&mut out);
                self.begun = false;
            } else if !whole || self.partial.len() >= LINE_BYTES {
                self.emit(&mut out);
                self.begun = true;
            }
        }
        out
    }

    fn emit(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            out.extend_from_slice(self.tag.as_bytes());
        }
        out.append(&mut self.partial);
    }

    /// The partial last line, completed so that the next rank's text begins on its own line.
    fn finish(&mut self, whole: bool) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.partial.is_empty() {
            self.emit(&mut out);
        } else if !self.begun {
            return out;
        }
        if whole {
            out.push(b'\n');
        }
        self.begun = false;
        out
    }
}

struct Stream {
    channel: Channel,
    pipe: Option<OwnedFd>,
    lines: Lines,
}

struct Forwarder {
    streams: Vec<Stream>,
    targets: [Target; 2],
    /// Lines are kept whole (and completed); false for a job of one untagged rank: verbatim.
    whole: bool,
    stop: Arc<OwnedFd>,
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Output {
    thread: JoinHandle<[Vec<u8>; 2]>,
    stop: Arc<OwnedFd>,
    done: Arc<OwnedFd>,
}

/// One rank's output pipe.
pub(crate) struct Pipe {
    pub(crate) rank: u32,
    pub(crate) channel: Channel,
    pub(crate) read: OwnedFd,
}

impl Output {
    /// Starts forwarding; `tag` puts `[rank] ` before each line.
    pub(crate) fn start(
        pipes: Vec<Pipe>,
        stdout: Sink,
        stderr: Sink,
        tag: bool,
    ) -> io::Result<Output> {
        let ranks = pipes
            .iter()
            .map(|pipe| pipe.rank)
            .max()
            .map_or(0, |rank| rank + 1);
        let width = ranks.saturating_sub(1).to_string().len();
        let streams = pipes.into_iter().map(|pipe| {
            rustix::io::ioctl_fionbio(&pipe.read, true)?;
            let tag = if tag {
                format!("[{:width$}] ", pipe.rank)
            } else {
                String::new()
            };
            let lines = Lines {
                tag,
                ..Lines::default()
            };
            Ok(Stream {
                channel: pipe.channel,
                pipe: Some(pipe.read),
                lines,
            })
        });
        let streams = streams.collect::<io::Result<Vec<_>>>()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let done = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let targets = [
            Target::new(stdout, io::stdout()),
            Target::new(stderr, io::stderr()),
        ];
        let forwarder = Forwarder {
            streams,
            targets,
            whole: ranks > 1 || tag,
            stop: stop.clone(),
        };
        let finished = done.clone();
        let thread = std::thread::Builder::new()
            .name("windlass-output".into())
            .spawn(move || {
                let captured = forwarder.run();
                raise(&finished);
                captured
            })?;
        Ok(Output { thread, stop, done })
    }

    /// Says that the ranks have ended: what is in the pipes is still forwarded, then it ends.
    pub(crate) fn ranks_ended(&self) {
        raise(&self.stop);
    }

    /// Readable when the thread has ended.
    pub(crate) fn done(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }

    /// What was captured. Waits for the thread.
    pub(crate) fn join(self) -> [Vec<u8>; 2] {
        self.thread.join().unwrap_or_default()
    }
}

/// Makes an eventfd readable.
pub(crate) fn raise(fd: &OwnedFd) {
    // Fails only when the counter is at its maximum, and then it is readable already.
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

/// A poll time-out.
pub(crate) fn timespec(wait: Duration) -> Timespec {
    // Round up: a time-out of 0.4 ms must not become a busy loop of zero waits.
    let wait = wait.max(Duration::from_millis(1));
    Timespec {
        tv_sec: wait.as_secs() as _,
        tv_nsec: wait.subsec_nanos() as _,
    }
}

impl Forwarder {
    fn run(mut self) -> [Vec<u8>; 2] {
        let mut buffer = vec![0; READ_BYTES];
        let mut until: Option<Instant> = None;
        while self.streams.iter().any(|stream| stream.pipe.is_some()) {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                self.drain(&mut buffer);
                break;
            }
            let (ready, stopped) = self.wait(left, until.is_none());
            if stopped {
                until = Some(Instant::now() + LINGER);
            }
            for index in ready {
                self.read(index, &mut buffer);
            }
        }
        for index in 0..self.streams.len() {
            let text = self.streams[index].lines.finish(self.whole);
            self.write(index, &text);
        }
        self.targets.map(|target| target.captured)
    }

    /// Indices of the streams that can be read, and whether the ranks have ended.
    fn wait(&self, left: Option<Duration>, watch_stop: bool) -> (Vec<usize>, bool) {
        let mut index = Vec::new();
        let mut fds = Vec::new();
        for (i, stream) in self.streams.iter().enumerate() {
            if let Some(pipe) = &stream.pipe {
                index.push(i);
                fds.push(PollFd::new(pipe, PollFlags::IN));
            }
        }
        if watch_stop {
            fds.push(PollFd::new(&*self.stop, PollFlags::IN));
        }
        // EINTR and the like: look again.
        if poll(&mut fds, left.map(timespec).as_ref()).is_err() {
            return (Vec::new(), false);
        }
        let stopped = watch_stop && fds.last().is_some_and(|fd| !fd.revents().is_empty());
        let ready = index
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty());
        (ready.map(|(i, _)| i).collect(), stopped)
    }

    /// Reads what lies in the pipes and no more: somebody may go on writing for ever.
    fn drain(&mut self, buffer: &mut [u8]) {
        for _ in 0..DRAIN_READS {
            let (ready, _) = self.wait(Some(Duration::ZERO), false);
            if ready.is_empty() {
                return;
            }
            for index in ready {
                self.read(index, buffer);
            }
        }
    }

    fn read(&mut self, index: usize, buffer: &mut [u8]) {
        let stream = &mut self.streams[index];
        let Some(pipe) = &stream.pipe else { return };
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => self.close(index),
            Ok(n) => {
                let text = stream.lines.push(&buffer[..n], self.whole);
                self.write(index, &text);
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.close(index),
        }
    }

    /// A stream's end: its partial line is complete now.
    fn close(&mut self, index: usize) {
        self.streams[index].pipe = None;
        let text = self.streams[index].lines.finish(self.whole);
        self.write(index, &text);
    }

    fn write(&mut self, index: usize, text: &[u8]) {
        let channel = self.streams[index].channel;
        let target = &mut self.targets[channel as usize];
        if text.is_empty() || target.broken {
            return;
        }
        target.put(text);
        if target.broken {
            // As if the ranks wrote there themselves: their next write meets a closed pipe.
            for stream in self
                .streams
                .iter_mut()
                .filter(|stream| stream.channel == channel)
            {
                stream.pipe = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(tag: &str) -> Lines {
        Lines {
            tag: tag.into(),
            ..Lines::default()
        }
    }

    #[test]
    fn partial_lines_are_kept_until_whole() {
        let mut lines = lines("[1] ");
        assert_eq!(lines.push(b"ab", true), b"");
        assert_eq!(lines.push(b"c\nde\nf", true), b"[1] abc\n[1] de\n");
        assert_eq!(lines.push(b"g", true), b"");
        assert_eq!(lines.finish(true), b"[1] fg\n");
        assert_eq!(lines.finish(true), b"");
    }

    #[test]
    fn verbatim_for_a_single_rank() {
        let mut lines = lines("");
        assert_eq!(lines.push(b"50 %\r", false), b"50 %\r");
        assert_eq!(lines.push(b"x", false), b"x");
        assert_eq!(lines.finish(false), b"");
    }

    #[test]
    fn a_line_without_end_is_written_in_pieces_tagged_once() {
        let mut lines = lines("[0] ");
        let long = vec![b'x'; LINE_BYTES];
        assert_eq!(lines.push(&long, true).len(), LINE_BYTES + 4);
        assert_eq!(lines.push(b"y", true), b"");
        assert_eq!(lines.push(b"z\n", true), b"yz\n");
        assert_eq!(lines.push(b"w\n", true), b"[0] w\n");
        assert_eq!(lines.push(&long, true).len(), LINE_BYTES + 4);
        assert_eq!(lines.finish(true), b"\n");
    }

    #[test]
    fn the_partial_last_line_reaches_the_sink_and_streams_stay_apart() {
        let (out_read, out_write) = rustix::pipe::pipe().unwrap();
        let (err_read, err_write) = rustix::pipe::pipe().unwrap();
        let pipes = vec![
            Pipe {
                rank: 0,
                channel: Channel::Out,
                read: out_read,
            },
            Pipe {
                rank: 1,
                channel: Channel::Err,
                read: err_read,
            },
        ];
        let output = Output::start(pipes, Sink::Capture, Sink::Capture, true).unwrap();
        rustix::io::write(&out_write, b"one\ntwo").unwrap();
        rustix::io::write(&err_write, b"three\n").unwrap();
        // A child of a rank may hold the pipe for ever: the end must not wait for it.
        drop(out_write);
        output.ranks_ended();
        let [out, err] = output.join();
        drop(err_write);
        assert_eq!(out, b"[0] one\n[0] two\n");
        assert_eq!(err, b"[1] three\n");
    }

    #[test]
    fn when_our_reader_goes_the_ranks_see_a_closed_pipe() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (read, write) = rustix::pipe::pipe().unwrap();
        let pipes = vec![Pipe {
            rank: 0,
            channel: Channel::Out,
            read,
        }];
        let output = Output::start(pipes, Sink::Writer(Box::new(Gone)), Sink::Null, false).unwrap();
        rustix::io::write(&write, b"x\n").unwrap();
        output.join();
        // Rust's runtime ignores SIGPIPE, so the closed pipe is an error here.
        assert_eq!(
            rustix::io::write(&write, b"y\n"),
            Err(rustix::io::Errno::PIPE)
        );
    }
}

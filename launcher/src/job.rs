//! The job builder: says what to run and where, runs it, gives the [`Outcome`].
//!
//! Relies on: [`place`](crate::place) and [`life`](crate::life). Promises: one thread starts all ranks and lives until they are gone;
//! nothing of the job is left when [`Running::wait`] returns or the handle is dropped.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Signal, pidfd_send_signal};

use crate::ending::Outcome;
use crate::environment;
use crate::error::{Error, Result};
use crate::life::supervise;
use crate::output::{Sink, raise};
use crate::place::{Map, PlaceSpec, Plan, Wish, plan};
use crate::spawn::Signals;
use crate::topology::Bind;

/// A job to be run. See the crate page for an example.
#[derive(Debug)]
#[must_use = "a job does nothing until it is run"]
pub struct Job {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) wish: Wish,
    pub(crate) place: Option<String>,
    pub(crate) bind: Bind,
    pub(crate) report_bindings: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) tag: bool,
    pub(crate) stdin: bool,
    pub(crate) stdout: Sink,
    pub(crate) stderr: Sink,
    pub(crate) notices: bool,
    pub(crate) signals: Option<Signals>,
    pub(crate) directory: Option<PathBuf>,
}

impl Job {
    /// A job of one rank of `program`: a path, or a name to be found in `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Job {
        Job {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            wish: Wish::default(),
            place: None,
            bind: Bind::None,
            report_bindings: false,
            timeout: None,
            tag: false,
            stdin: false,
            stdout: Sink::Inherit,
            stderr: Sink::Inherit,
            notices: false,
            signals: None,
            directory: None,
        }
    }

    /// Another program, with everything else as it is.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Job {
        self.program = program.into();
        self
    }

    /// One more argument of the program.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Job {
        self.args.push(arg.into());
        self
    }

    /// More arguments of the program.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Job {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Number of ranks. Default: what the counts of the placement say; one per place of a placement
    /// without counts; one per node without a placement.
    pub fn ranks(mut self, ranks: u32) -> Job {
        self.wish.ranks = Some(ranks);
        self
    }

    /// At least so many ranks where neither a number of them nor counts are given.
    pub fn at_least(mut self, ranks: u32) -> Job {
        self.wish.at_least = ranks;
        self
    }

    /// Number of logical nodes. Default: 1.
    pub fn nodes(mut self, nodes: u32) -> Job {
        self.wish.nodes = Some(nodes);
        self
    }

    /// VEs of each node. Default: as many as the placement names.
    pub fn ves(mut self, ves: u32) -> Job {
        self.wish.ves = Some(ves);
        self
    }

    /// Where the ranks of each node live, in the language of [`place`](crate::place).
    pub fn place(mut self, list: impl Into<String>) -> Job {
        self.place = Some(list.into());
        self
    }

    /// How ranks are dealt. Default: over nodes packed, over the VEs of a node cyclic.
    pub fn map(mut self, map: Map) -> Job {
        self.wish.map = Some(map);
        self
    }

    /// Sets a variable for every rank.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Job {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Ends the job after `limit`, with exit code 124.
    pub fn timeout(mut self, limit: Duration) -> Job {
        self.timeout = Some(limit);
        self
    }

    /// Puts `[rank] ` before every line.
    pub fn tag(mut self, tag: bool) -> Job {
        self.tag = tag;
        self
    }

    /// Binds ranks to cores or NUMA nodes.
    pub fn bind(mut self, bind: Bind) -> Job {
        self.bind = bind;
        self
    }

    /// Prints where each rank is bound to standard error.
    pub fn report_bindings(mut self, report: bool) -> Job {
        self.report_bindings = report;
        self
    }

    /// Gives the launcher's standard input to rank 0, unless it is a terminal (ranks are
    /// background groups and would be stopped). All others, and by default all, read nothing.
    pub fn stdin(mut self, inherit: bool) -> Job {
        self.stdin = inherit;
        self
    }

    /// Where standard output goes.
    pub fn stdout(mut self, sink: Sink) -> Job {
        self.stdout = sink;
        self
    }

    /// Where standard error goes.
    pub fn stderr(mut self, sink: Sink) -> Job {
        self.stderr = sink;
        self
    }

    /// Captures both streams into the [`Outcome`].
    pub fn capture(self) -> Job {
        self.stdout(Sink::Capture).stderr(Sink::Capture)
    }

    /// Prints what the launcher has to say to standard error when it happens, besides returning it.
    pub fn notices(mut self, notices: bool) -> Job {
        self.notices = notices;
        self
    }

    /// Forwards these signals to the ranks.
    pub fn signals(mut self, signals: Signals) -> Job {
        self.signals = Some(signals);
        self
    }

    /// Working directory of the ranks.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Job {
        self.directory = Some(directory.into());
        self
    }

    /// Where every rank would live: nothing is started.
    pub fn plan(&self) -> Result<Plan> {
        let place = self
            .place
            .as_deref()
            .map(str::parse::<PlaceSpec>)
            .transpose()?;
        Ok(plan(&Wish {
            place,
            ..self.wish.clone()
        })?)
    }

    /// Runs the job to its end.
    ///
    /// Errors: only when it could not be run; a job that failed is an [`Outcome`].
    pub fn run(self) -> Result<Outcome> {
        self.spawn()?.wait()
    }

    /// Starts the job and returns when every rank has been started.
    pub fn spawn(mut self) -> Result<Running> {
        let plan = self.plan()?;
        self.program = find_program(&self.program)?;
        let profile = environment::profile(&self.env)?;
        let cancel = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(Error::system("eventfd"))?);
        let (ready, started) = channel();
        let stop = cancel.clone();
        // This thread is the parent of all ranks: they get SIGKILL when it ends.
        let body = move || supervise(self, plan, profile, &stop, &ready);
        let thread = std::thread::Builder::new()
            .name("windlass-job".into())
            .spawn(body);
        let thread = thread.map_err(|source| Error::System {
            what: "starting a thread",
            source,
        })?;
        match started.recv() {
            Ok(ranks) => Ok(Running {
                ranks,
                cancel,
                thread: Some(thread),
            }),
            // The thread has ended without starting all ranks: it says why.
            Err(_) => Err(join(thread).map_or_else(
                |error| error,
                |_| Error::Report("the job ended before it had started".into()),
            )),
        }
    }
}

/// A running job. Dropped without [`Running::wait`], it is ended.
#[derive(Debug)]
pub struct Running {
    ranks: Vec<(i32, OwnedFd)>,
    cancel: Arc<OwnedFd>,
    thread: Option<JoinHandle<Result<Outcome>>>,
}

impl Running {
    /// Process of each rank.
    pub fn pids(&self) -> Vec<i32> {
        self.ranks.iter().map(|(pid, _)| *pid).collect()
    }

    /// Sends a signal to one rank's process: by descriptor, so never to another one.
    ///
    /// Errors: no such rank or signal, or the process has ended.
    pub fn kill(&self, rank: u32, signal: i32) -> std::io::Result<()> {
        let (_, pidfd) = self
            .ranks
            .get(rank as usize)
            .ok_or(std::io::ErrorKind::NotFound)?;
        let signal = Signal::from_named_raw(signal).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(pidfd_send_signal(pidfd, signal)?)
    }

    /// Ends the job as SIGTERM to the launcher would.
    pub fn end(&self) {
        raise(&self.cancel);
    }

    /// Waits for the job's end.
    pub fn wait(mut self) -> Result<Outcome> {
        let thread = self.thread.take().expect("waited for once");
        join(thread)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            raise(&self.cancel);
            let _ = thread.join();
        }
    }
}

fn join(thread: JoinHandle<Result<Outcome>>) -> Result<Outcome> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The program as a path that can be executed.
fn find_program(program: &Path) -> Result<PathBuf> {
    let executable = |path: &Path| {
        let found = std::fs::metadata(path)
            .ok()
            .filter(|found| found.is_file())?;
        Some(found.permissions().mode() & 0o111 != 0)
    };
    if program.as_os_str().is_empty() {
        return Err(Error::NoProgram(program.to_owned()));
    }
    if program.components().count() > 1 || program.is_absolute() || has_slash(program.as_os_str()) {
        return match executable(program) {
            None => Err(Error::NoProgram(program.to_owned())),
            Some(false) => Err(Error::NotExecutable(program.to_owned())),
            // Absolute, because a rank may be given another working directory.
            Some(true) => Ok(std::path::absolute(program).unwrap_or_else(|_| program.to_owned())),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|dir| dir.join(program));
    let found = candidates.find(|path| executable(path) == Some(true));
    found.ok_or_else(|| match executable(program) {
        Some(true) => Error::NotInPath(program.to_owned()),
        Some(false) => Error::NotExecutable(program.to_owned()),
        None => Error::NoProgram(program.to_owned()),
    })
}

fn has_slash(name: &OsStr) -> bool {
    name.as_encoded_bytes().contains(&b'/')
}

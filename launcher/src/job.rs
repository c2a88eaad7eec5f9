//! The job builder: says what to run and where, runs it, gives the [`Outcome`].
//!
//! Relies on: [`place`](crate::place), [`nodes`](crate::nodes), [`spawn`](crate::spawn) and
//! [`wait`](crate::wait). Promises: one thread starts all ranks and lives until they are gone;
//! nothing of the job is left when [`Running::wait`] returns or the handle is dropped.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use windlass_node::Event;
use windlass_ve::Profile;

use crate::ending::{Cause, Outcome, exit_code};
use crate::error::{Error, Result};
use crate::nodes::Nodes;
use crate::output::{Channel, Output, Pipe, Sink, raise};
use crate::place::{Map, PlaceSpec, Plan, Wish, plan};
use crate::spawn::{Signals, Started, start};
use crate::topology::{Bind, Binding, Topology};
use crate::wait::{Inbox, Supervisor};
use crate::{clean, environment};

/// A job to be run. See the crate page for an example.
#[derive(Debug)]
#[must_use = "a job does nothing until it is run"]
pub struct Job {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    wish: Wish,
    place: Option<String>,
    bind: Bind,
    report_bindings: bool,
    timeout: Option<Duration>,
    tag: bool,
    stdin: bool,
    stdout: Sink,
    stderr: Sink,
    notices: bool,
    signals: Option<Signals>,
    directory: Option<PathBuf>,
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

    /// Number of ranks. Default: what the counts of the placement say, else one per node.
    pub fn ranks(mut self, ranks: u32) -> Job {
        self.wish.ranks = Some(ranks);
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

/// The whole life of a job, in the one thread that forks its ranks.
fn supervise(
    mut job: Job,
    plan: Plan,
    profile: Profile,
    cancel: &OwnedFd,
    ready: &Sender<Vec<(i32, OwnedFd)>>,
) -> Result<Outcome> {
    let bindings = bindings(&job, &plan);
    let (nodes, events) = Nodes::start(&plan, profile)?;
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let wake = wake.map_err(Error::system("eventfd"))?;
    let inbox = Arc::new(Inbox {
        events: Mutex::new(VecDeque::new()),
        wake,
    });
    let forwarder = forward(events, inbox.clone())?;

    let signals = job.signals.take();
    let mut supervisor = Supervisor::new(
        &nodes,
        inbox,
        signals.as_ref(),
        cancel.as_fd(),
        job.timeout,
        job.notices,
    );
    let started = start_ranks(&mut job, &plan, &nodes, &bindings, &mut supervisor);
    let started = started.and_then(|(handles, pipes)| {
        let (stdout, stderr) = (
            std::mem::take(&mut job.stdout),
            std::mem::take(&mut job.stderr),
        );
        let output = Output::start(pipes, stdout, stderr, job.tag);
        let output = output.map_err(|source| Error::System {
            what: "forwarding output",
            source,
        })?;
        Ok((handles, output))
    });
    let (handles, output) = started.inspect_err(|_| supervisor.abandon())?;
    // The receiver waits for this message, or its owner has gone: then nobody asks for the handles.
    let _ = ready.send(handles);

    let verdict = supervisor.run();
    output.ranks_ended();
    wait_for_output(&output, signals.as_ref());
    let pids: BTreeSet<i32> = verdict.ranks.iter().map(|rank| rank.pid).collect();
    clean::segments(&pids);
    supervisor.reap();
    let finished = crate::wait::readable(output.done());
    drop(supervisor);
    drop(nodes);
    // The services held the senders: the forwarder ends now.
    let _ = forwarder.join();
    let [stdout, stderr] = if finished {
        output.join()
    } else {
        Default::default()
    };
    let exit_code = exit_code(verdict.cause, &verdict.ranks);
    let (cause, ranks, message) = (verdict.cause, verdict.ranks, verdict.message);
    Ok(Outcome {
        exit_code,
        cause,
        ranks,
        message,
        stdout,
        stderr,
    })
}

type Handles = Vec<(i32, OwnedFd)>;

/// Starts every rank and hands it to the supervisor; gives their handles and output pipes.
fn start_ranks(
    job: &mut Job,
    plan: &Plan,
    nodes: &Nodes,
    bindings: &[Option<Binding>],
    supervisor: &mut Supervisor<'_>,
) -> Result<(Handles, Vec<Pipe>)> {
    let (mut handles, mut pipes) = (Vec::new(), Vec::new());
    for seat in &plan.seats {
        let rank = seat.rank;
        let failed = |source| Error::Start { rank, source };
        let mut command = Command::new(&job.program);
        command
            .args(&job.args)
            .envs(job.env.iter().map(|(k, v)| (k, v)));
        for name in environment::GIVEN {
            command.env_remove(name);
        }
        command
            .env("WINDLASS_RANK", rank.to_string())
            .env("WINDLASS_SIZE", plan.seats.len().to_string())
            .env("WINDLASS_NODE", nodes.socket(rank))
            .stdin(stdin_of(job, rank))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(directory) = &job.directory {
            command.current_dir(directory);
        }
        let cpus = bindings
            .get(rank as usize)
            .and_then(Option::as_ref)
            .map(|b| b.cpus.mask());
        let mut started: Started = start(command, nodes.secret(), cpus).map_err(failed)?;
        let (out, err) = (started.child.stdout.take(), started.child.stderr.take());
        pipes.extend(out.map(|fd| Pipe {
            rank,
            channel: Channel::Out,
            read: fd.into(),
        }));
        pipes.extend(err.map(|fd| Pipe {
            rank,
            channel: Channel::Err,
            read: fd.into(),
        }));
        let pidfd = started.pidfd.try_clone();
        let pid = Pid::as_raw_nonzero(started.pid).get();
        supervisor.add(*seat, started);
        handles.push((pid, pidfd.map_err(failed)?));
    }
    Ok((handles, pipes))
}

fn stdin_of(job: &Job, rank: u32) -> Stdio {
    let usable = job.stdin && rank == 0 && !rustix::termios::isatty(rustix::stdio::stdin());
    if usable {
        Stdio::inherit()
    } else {
        Stdio::null()
    }
}

/// Moves events from the services' channel to the inbox, waking the supervisor.
fn forward(events: Receiver<Event>, inbox: Arc<Inbox>) -> Result<JoinHandle<()>> {
    let body = move || {
        for event in events {
            inbox
                .events
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .push_back(event);
            raise(&inbox.wake);
        }
    };
    let thread = std::thread::Builder::new()
        .name("windlass-events".into())
        .spawn(body);
    thread.map_err(|source| Error::System {
        what: "starting a thread",
        source,
    })
}

/// Waits until the ranks' output is written; a signal ends the waiting, for a reader that is stuck.
fn wait_for_output(output: &Output, signals: Option<&Signals>) {
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(output.done(), PollFlags::IN)];
        if let Some(signals) = signals {
            fds.push(PollFd::new(signals.fd(), PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// The binding of each rank, reported if asked for, and the one warning about too few cores.
fn bindings(job: &Job, plan: &Plan) -> Vec<Option<Binding>> {
    let topology = Topology::discover();
    let (ranks, cores) = (plan.seats.len(), topology.cpus().len());
    if job.notices && topology.real && ranks > cores {
        eprintln!(
            "windlass: warning: {ranks} ranks share {cores} processor(s); waiting ranks yield, \
             so the job is right but slower"
        );
    }
    let mut bindings = topology.bind(job.bind, ranks as u32);
    if job.report_bindings {
        for (seat, binding) in plan.seats.iter().zip(&bindings) {
            let place = format!("rank {} (node {}, {})", seat.rank, seat.node, seat.place);
            match binding {
                Some(Binding { cpus, name }) => {
                    eprintln!("windlass: {place}: {name}, processors {cpus}")
                }
                None => eprintln!(
                    "windlass: {place}: not bound, processors {}",
                    topology.cpus()
                ),
            }
        }
    }
    if !topology.real {
        if job.bind != Bind::None {
            eprintln!(
                "windlass: warning: the topology is {}, not this machine: ranks are not bound",
                topology.source
            );
        }
        bindings.fill(None);
    }
    bindings
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
    let candidates = std::env::split_paths(&path).map(|dir| dir.join(program));
    let found = candidates
        .filter(|path| executable(path) == Some(true))
        .next();
    found.ok_or_else(|| Error::NoProgram(program.to_owned()))
}

fn has_slash(name: &OsStr) -> bool {
    name.as_encoded_bytes().contains(&b'/')
}

/// For callers that want the cause in words.
impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Failure => f.write_str("a rank failed"),
            Cause::Abort { rank, code } => write!(f, "rank {rank} aborted with code {code}"),
            Cause::TimedOut => f.write_str("time-out"),
            Cause::Interrupted { signal } => {
                write!(f, "interrupted by {}", crate::ending::signal_name(*signal))
            }
            Cause::Service => f.write_str("a node service failed"),
        }
    }
}

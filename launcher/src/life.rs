//! The life of a job, in the one thread that forks its ranks: start the nodes, start the ranks,
//! supervise, forward, clean.
//!
//! Relies on: [`nodes`](crate::nodes), [`spawn`](crate::spawn), [`wait`](crate::wait),
//! [`output`](crate::output). Promises: nothing of the job is left when [`supervise`] returns.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::{Pid, Rlimit};
use windlass_node::Event;
use windlass_ve::Profile;

use crate::ending::{Outcome, count, exit_code};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::nodes::Nodes;
use crate::output::{Channel, Output, Pipe, Sink, raise};
use crate::place::{Place, Plan};
use crate::spawn::{Signals, Started, room_for, start};
use crate::topology::{Bind, Binding, Topology};
use crate::wait::{Inbox, Supervisor};
use crate::{clean, environment};

/// The whole life of a job, in the one thread that forks its ranks.
pub(crate) fn supervise(
    mut job: Job,
    plan: Plan,
    profile: Profile,
    cancel: &OwnedFd,
    ready: &Sender<Vec<(i32, OwnedFd)>>,
) -> Result<Outcome> {
    let bindings = bindings(&job, &plan);
    let files = room_for((plan.seats.len() + windlass_node::MAX_VISITORS) as u64);
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
    let started = start_ranks(&mut job, &plan, &nodes, (&bindings, files), &mut supervisor);
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
    Ok(Outcome {
        exit_code: exit_code(verdict.cause, &verdict.ranks),
        cause: verdict.cause,
        ranks: verdict.ranks,
        message: verdict.message,
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
    (bindings, files): (&[Option<Binding>], Rlimit),
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
            .stderr(stderr_of(job, rank));
        // Whatever the user's environment says: programs for the VE ask it where they are (ve-memory 12).
        if let Place::Ve(number) = seat.place {
            command.env("VE_NODE_NUMBER", number.to_string());
        }
        if let Some(directory) = &job.directory {
            command.current_dir(directory);
        }
        let cpus = bindings
            .get(rank as usize)
            .and_then(Option::as_ref)
            .map(|b| b.cpus.mask());
        let mut started: Started = start(command, nodes.secret(), cpus, files).map_err(failed)?;
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

/// A terminal goes to rank 0 itself, so that a program can show its progress there.
fn stderr_of(job: &Job, rank: u32) -> Stdio {
    let terminal = rank == 0
        && !job.tag
        && matches!(job.stderr, Sink::Inherit)
        && rustix::termios::isatty(rustix::stdio::stderr());
    if terminal {
        Stdio::inherit()
    } else {
        Stdio::piped()
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
            "windlass: warning: {ranks} ranks share {}; waiting ranks yield, \
             so the job is right but slower",
            count(cores, "processor")
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

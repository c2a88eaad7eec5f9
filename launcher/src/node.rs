//! `windlass node`: the nodes of programs that were started without the launcher, C programs above all.
//!
//! Relies on: the node crate. A named or private node is a process of its own that serves until its last user has ended; its
//! first user starts it in the background (`windlass_node::enter`), or a person in the foreground. Promises: the service of the
//! background holds nothing of its starter: no descriptor, no terminal, no directory, no parent that would have to reap it.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use clap::{ArgGroup, Args};
use rustix::event::{PollFd, PollFlags, poll};
use windlass_node::{
    Address, Door, Event, FAILED, Fault, NodeKind, NodeName, READY, Service, Status,
};
use windlass_node::{MAX_VISITORS, StopReport, Watcher};
use windlass_ve::{MAX_VES, Profile};

use crate::command::{print, with_sources};
use crate::environment;
use crate::error::{Error, Result};
use crate::spawn::{Signals, keep_nothing, room_for};

/// How long a service waits for its first user.
const FIRST_USER: Duration = Duration::from_secs(10);

/// Shown below the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  WINDLASS_NODE_NAME=lab ./a & WINDLASS_NODE_NAME=lab ./b   two programs on one node
  windlass node --name lab --ves 2 --profile ve3    keep it until Ctrl-C
  windlass node --list --json                       all, with free memory and table entries
  windlass node --stop-ve lab:0                     what a reset of card 0 does
  windlass node --stop lab                          the same for all cards, and the end

A node admits every user unless its NAME begins with own-: then each user has one.
NAME may also be the socket of a private or job node, as --list shows it.";
const USAGE: &str = "\
windlass node --name <NAME> [--ves <V>] [--profile <NAME>] [--linger <S>]
       windlass node --list [--json]
       windlass node --stop <NAME>
       windlass node --stop-ve <NAME:VE>";

/// Options about a node that is there already.
const OF_ANOTHER: [&str; 4] = ["list", "stop", "stop_ve", "fault"];

/// `windlass node`.
#[derive(Debug, Args)]
#[command(override_usage = USAGE, arg_required_else_help = true, group(ArgGroup::new("what").args(["name", "list", "stop", "stop_ve", "fault", "private"])))]
pub struct Node {
    /// Keep the node of this name: 1 to 32 of a-z, 0-9 and -
    #[arg(long, value_name = "NAME")]
    name: Option<NodeName>,
    /// Emulated Vector Engines of the node, 0 to 8 [default: WINDLASS_VES, else 8]
    #[arg(long, value_name = "V", value_parser = number_of_ves, requires = "name", conflicts_with_all = OF_ANOTHER)]
    ves: Option<u32>,
    /// Their generation: ve1, ve1:10 (with 10 cores) or ve3, and /128M behind it for a small BAR0 window [default: WINDLASS_VE_PROFILE, else ve1]
    #[arg(long, value_name = "NAME", requires = "name", conflicts_with_all = OF_ANOTHER)]
    profile: Option<Profile>,
    /// End so many seconds after the last user has ended [default: stay until stopped]
    #[arg(long, value_name = "S", value_parser = crate::cli::seconds, requires = "name", conflicts_with_all = OF_ANOTHER)]
    linger: Option<Duration>,
    /// List the named nodes of this machine, and this user's private and job nodes
    #[arg(long)]
    list: bool,
    /// Print JSON
    #[arg(long, requires = "list")]
    json: bool,
    /// Stop VEOS of all VEs of a node, as a shutdown does, and end it. Processes on them and attached to them get SIGKILL
    #[arg(long, value_name = "NAME")]
    stop: Option<Which>,
    /// Stop VEOS of one VE
    #[arg(long, value_name = "NAME:VE", value_parser = node_and_ve)]
    stop_ve: Option<(Which, u32)>,
    /// Break what no program can break, for tests: ived=absent, unreachable or connected; swapped, resident, doubled, counted,
    /// forgotten, halted or running=PID
    #[arg(long, hide = true, value_name = "NAME:WHAT", value_parser = node_and_fault)]
    fault: Option<(Which, Fault)>,
    /// Keep a node for this user's processes that are told its socket.
    #[arg(long, hide = true)]
    private: bool,
    /// Start the service as a process of its own and say its line.
    #[arg(long, hide = true)]
    background: bool,
    /// That process: end with the last user, say the line; a named node's listener is standard input.
    #[arg(long, hide = true)]
    report: bool,
}

/// Does what the options say.
pub(crate) fn execute(node: &Node) -> Result<i32> {
    if node.list {
        return list(node.json);
    }
    if let Some(which) = &node.stop {
        return ended(&which.ask(Watcher::stop)?);
    }
    if let Some((which, ve)) = &node.stop_ve {
        return ended(&which.ask(|watcher| watcher.stop_ve(*ve))?);
    }
    if let Some((which, fault)) = &node.fault {
        return which.ask(|watcher| watcher.fault(*fault)).map(|()| 0);
    }
    if node.background {
        return background(node);
    }
    match serve(node) {
        Err(error) if node.report => {
            say(&format!(
                "{FAILED}{}",
                with_sources(&error).replace('\n', " ")
            ));
            Err(error)
        }
        other => other,
    }
}

/// A node that is there: its name, or its socket as `--list` shows it.
#[derive(Clone, Debug)]
struct Which {
    text: String,
    address: Address,
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let address = if text.contains('/') {
            Address::Path(text.into())
        } else {
            let name = text.parse().map_err(|_| {
                let names = NodeName::ACCEPTED;
                format!("give the name of a node, {names}, or its socket as `windlass node --list` shows it")
            })?;
            Address::Named(name)
        };
        let text = text.to_owned();
        Ok(Self { text, address })
    }
}

impl Which {
    fn ask<T>(
        &self,
        question: impl FnOnce(&Watcher) -> std::result::Result<T, windlass_node::Error>,
    ) -> Result<T> {
        let answer = Watcher::look(&self.address).and_then(|watcher| question(&watcher));
        answer.map_err(failed(&self.text))
    }
}

fn node_and_ve(text: &str) -> std::result::Result<(Which, u32), String> {
    let parts = text.rsplit_once(':').and_then(|(node, ve)| {
        let ve = ve.parse().ok()?;
        Some((node.parse().ok()?, ve))
    });
    parts.ok_or_else(|| "give the node and the number of a VE, as in lab:0".into())
}

fn node_and_fault(text: &str) -> std::result::Result<(Which, Fault), String> {
    let (node, fault) = text.rsplit_once(':').unwrap_or((text, ""));
    let fault = fault.parse();
    let fault = fault.map_err(|error: windlass_node::Error| error.to_string())?;
    Ok((node.parse()?, fault))
}

fn number_of_ves(text: &str) -> std::result::Result<u32, String> {
    let ves = text.parse().ok().filter(|ves| *ves <= MAX_VES);
    ves.ok_or_else(|| crate::cli::NUMBER_OF_VES.into())
}

fn failed(name: &str) -> impl Fn(windlass_node::Error) -> Error {
    let name = name.to_owned();
    move |error| match error {
        windlass_node::Error::Path { .. } => Error::Report(format!(
            "no node {name} is there; `windlass node --list` shows those that are"
        )),
        error => Error::Report(format!("node {name}: {}", with_sources(&error))),
    }
}

/// Starts the service as a process whose parent ends at once.
fn background(node: &Node) -> Result<i32> {
    keep_nothing();
    let system = |what: &'static str| move |source| Error::System { what, source };
    let exe = std::env::current_exe().map_err(system("finding this program"))?;
    let mut command = Command::new(exe);
    command.args(["node", "--report"]);
    match &node.name {
        Some(name) => command.args(["--name", &name.to_string()]),
        None => command.arg("--private"),
    };
    command.stdout(Stdio::piped());
    let mut child = command.spawn().map_err(system("starting the service"))?;
    let mut line = String::new();
    if let Some(pipe) = child.stdout.take() {
        let read = BufReader::new(pipe).read_line(&mut line);
        read.map_err(system("reading the service's line"))?;
    }
    print(&line)
}

/// The VEs: by the options, else by the environment of this process, which is that of the first user.
fn cards(node: &Node) -> Result<(u32, Profile)> {
    let given = environment::profile(&[])?;
    let profile = Profile {
        errno: given.errno,
        ..node.profile.unwrap_or(given)
    };
    let ves = match node.ves {
        Some(ves) => ves,
        None => environment::ves()?.unwrap_or(MAX_VES),
    };
    Ok((ves, profile))
}

/// What the service's host hears.
enum Heard {
    Event(Event),
    Signal,
}

/// Serves in this process until the node is over.
fn serve(node: &Node) -> Result<i32> {
    // Before the first thread: a blocked mask reaches only threads started later.
    let signals = Signals::take().map_err(|source| Error::System {
        what: "taking signals",
        source,
    })?;
    let system = |what: &'static str| {
        move |errno: rustix::io::Errno| Error::System {
            what,
            source: errno.into(),
        }
    };
    let (ves, profile) = cards(node)?;
    let door = match &node.name {
        None => Door::Private(windlass_node::base_dir()),
        Some(name) if node.report => Door::Named(name.clone(), listener_of_stdin()?),
        Some(name) => {
            let bound = name.bind().map_err(failed(&name.to_string()))?;
            let listener = bound.ok_or_else(|| {
                Error::Report(format!(
                    "a node named {name} is there already; see `windlass node --list`"
                ))
            })?;
            Door::Named(name.clone(), listener)
        }
    };
    if node.report {
        // A signal of its starter's terminal is not for it.
        rustix::process::setsid().map_err(system("setsid"))?;
    }
    // Inherited from whichever program came first.
    room_for(MAX_VISITORS as u64);
    let swept = windlass_node::sweep(&windlass_node::base_dir());
    tracing::debug!(?swept, "swept what dead services left");
    let (sender, events) = channel();
    let service = Service::open(ves, profile, door, sender)
        .map_err(|error| Error::Report(with_sources(&error)))?;
    let path = service.socket_path().display().to_string();
    if node.report {
        say(&format!("{READY}{path}"));
    } else {
        let which = node.name.as_ref().map_or(path, NodeName::to_string);
        eprintln!(
            "windlass: node {which} with {ves} VEs; Ctrl-C stops it, its VEs and who uses them"
        );
    }
    let heard = listen(signals, events)?;
    let linger = if node.report {
        Some(Duration::ZERO)
    } else {
        node.linger
    };
    if attend(&service, &heard, linger) {
        service.stop_veos();
    }
    service.stop();
    Ok(0)
}

/// Signals and events in one queue. Both threads last as long as the process.
fn listen(signals: Signals, events: Receiver<Event>) -> Result<Receiver<Heard>> {
    let (sender, heard) = channel();
    let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let builder = std::thread::Builder::new()
            .name(name.into())
            .stack_size(128 * 1024);
        builder
            .spawn(work)
            .map(drop)
            .map_err(|source| Error::System {
                what: "starting a thread",
                source,
            })
    };
    let to = sender.clone();
    let forward = move || {
        events
            .into_iter()
            .for_each(|event| drop(to.send(Heard::Event(event))))
    };
    thread("node-events", Box::new(forward))?;
    let wait = move || {
        loop {
            let mut fds = [PollFd::new(signals.fd(), PollFlags::IN)];
            if poll(&mut fds, None).is_ok() && signals.next().is_some() {
                let _ = sender.send(Heard::Signal);
            }
        }
    };
    thread("node-signals", Box::new(wait))?;
    Ok(heard)
}

/// Waits for the node's end; true where a signal asked for it.
fn attend(service: &Service, heard: &Receiver<Heard>, linger: Option<Duration>) -> bool {
    let mut here = 0u32;
    let mut patience = linger.map(|linger| linger.max(FIRST_USER));
    loop {
        let next = match patience {
            Some(limit) if here == 0 => match heard.recv_timeout(limit) {
                Err(RecvTimeoutError::Timeout) if service.close_if_empty() => return false,
                // Somebody is still being answered.
                Err(RecvTimeoutError::Timeout) => {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                other => other.ok(),
            },
            _ => heard.recv().ok(),
        };
        match next {
            Some(Heard::Event(Event::Entered { .. })) => {
                here += 1;
                patience = linger;
            }
            Some(Heard::Event(Event::Left { .. })) => here = here.saturating_sub(1),
            Some(Heard::Event(Event::Stop)) | None => return false,
            Some(Heard::Event(_)) => {}
            Some(Heard::Signal) => return true,
        }
    }
}

/// The listener that the first user bound; standard input is nothing afterwards.
fn listener_of_stdin() -> Result<UnixListener> {
    let system = |source| Error::System {
        what: "taking the listener from standard input",
        source,
    };
    let listener: OwnedFd = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(system)?;
    let null = std::fs::File::open("/dev/null").map_err(system)?;
    rustix::stdio::dup2_stdin(&null).map_err(|errno| system(errno.into()))?;
    Ok(UnixListener::from(listener))
}

/// The line for the starter, and no more: a reader that has gone needs none.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn ended(report: &StopReport) -> Result<i32> {
    let list = |pids: &[i32]| match pids {
        [] => "no process".to_owned(),
        _ => pids
            .iter()
            .map(i32::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut text = format!("killed: {}\n", list(&report.killed));
    if !report.spared.is_empty() {
        text += &format!(
            "not killed, for they belong to other users than the node; their connections are closed: {}\n",
            list(&report.spared)
        );
    }
    print(&text)
}

/// A node as `--list --json` prints it.
#[derive(serde::Serialize)]
struct Listed {
    address: String,
    #[serde(flatten)]
    status: Status,
}

fn list(json: bool) -> Result<i32> {
    let mut listed = Vec::new();
    let mut strange = Vec::new();
    for address in Address::all() {
        match Watcher::look(&address).and_then(|watcher| watcher.status()) {
            Ok(status) => listed.push(Listed {
                address: address.to_string(),
                status,
            }),
            // What a dead service left, or one that is just ending.
            Err(windlass_node::Error::Path { .. } | windlass_node::Error::Gone) => {}
            Err(error) => strange.push(format!("{address}: {}", with_sources(&error))),
        }
    }
    if json {
        let text =
            serde_json::to_string_pretty(&listed).map_err(|e| Error::Report(e.to_string()))?;
        return print(&(text + "\n"));
    }
    let mut text = String::new();
    for Listed { address, status } in &listed {
        text += &described(address, status);
    }
    if listed.is_empty() {
        text += "no nodes\n";
    }
    for line in strange {
        text += &format!("{line}\n");
    }
    print(&text)
}

fn described(address: &str, status: &Status) -> String {
    let what = match &status.kind {
        NodeKind::Named(name) => name.clone(),
        NodeKind::Private => format!("private {address}"),
        NodeKind::Job(job) => format!("job {job} {address}"),
    };
    let Status {
        pid,
        uid,
        profile,
        errno,
        ranks,
        visitors,
        ..
    } = status;
    let mut text = format!(
        "{what}: user {uid}, service {pid}, {profile}, errno as {errno}, {ranks} ranks, {visitors} other processes\n"
    );
    for (number, ve) in status.ves.iter().enumerate() {
        text += &format!(
            "  ve{number}{}: {} processes, free: {} MiB, {} PCIATB slots, {} DMAATB directories\n",
            if ve.running { "" } else { " (stopped)" },
            ve.processes,
            ve.free_bytes >> 20,
            ve.free_pciatb_slots,
            ve.free_dmaatb_directories
        );
    }
    text
}

//! A program that uses a VE node without being a Rust rank: the test binary itself, told what to do line by line.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use windlass_node::{Address, Entered, NodeName, Status, Watcher, enter, visit};
use windlass_ve::{Mode, PageSize, Process, Segment, VeMemory, Vehva, Vemva};

use super::{race, until};

/// Set in the program: this process is not the test itself.
pub const ROLE: &str = "NODE_USER";
/// Its value after an exec.
const AGAIN: &str = "again";
/// Before a folder, what the owner does and what the attacher does: the program is a rank that needs no orders.
pub const PAIR: &str = "pair ";
/// Bytes of an area.
pub const SIZE: u64 = 64 << 20;

/// A program on a node; killed and reaped on drop.
pub struct User {
    pub child: Child,
    orders: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

/// A command that is still running; ended on drop.
pub struct Kept(pub Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a program is started.
pub struct Start<'a> {
    home: &'a Path,
    env: Vec<(&'static str, String)>,
    program: Option<PathBuf>,
    uid: Option<u32>,
}

impl<'a> Start<'a> {
    pub fn new(home: &'a Path) -> Self {
        Self {
            home,
            env: Vec::new(),
            program: None,
            uid: None,
        }
    }

    pub fn env(mut self, name: &'static str, value: impl ToString) -> Self {
        self.env.push((name, value.to_string()));
        self
    }

    pub fn named(self, name: &NodeName) -> Self {
        self.env("WINDLASS_NODE_NAME", name)
    }

    /// As another user, who must be able to reach the program.
    pub fn user(mut self, uid: u32, program: &Path) -> Self {
        self.uid = Some(uid);
        self.program = Some(program.to_owned());
        self
    }

    pub fn go(self) -> User {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new(self.program.unwrap_or(own));
        command
            .args(["role", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .env("RUST_BACKTRACE", "0")
            .env("XDG_RUNTIME_DIR", self.home)
            .env("WINDLASS_LAUNCHER", env!("CARGO_BIN_EXE_windlass"))
            .envs(self.env)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        let mut child = command.spawn().unwrap();
        User {
            orders: child.stdin.take(),
            lines: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// The same, and it enters a VE of its node.
    #[track_caller]
    pub fn enter(self, ve: u32) -> User {
        let mut user = self.go();
        user.enter(ve);
        user
    }
}

impl User {
    #[track_caller]
    pub fn enter(&mut self, ve: u32) {
        let answer = self.ask(&format!("enter {ve}"));
        assert!(answer.starts_with("entered"), "{answer}");
    }

    /// Gives an order, waits for the answer.
    pub fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.hear()
    }

    pub fn tell(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    /// The next answer, after the test harness's own lines.
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, text)) = line.split_once('@') {
                return text.trim().to_owned();
            }
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Lets it end by itself.
    pub fn end(mut self) {
        self.orders = None;
        assert!(self.child.wait().unwrap().success());
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program holds.
#[derive(Default)]
struct Held {
    // Before the connection: memory goes first.
    remote: Option<(Vehva, Vehva, windlass_mem::SharedBytes)>,
    near: Option<VeMemory>,
    segment: Option<(windlass_mem::SharedBytes, Segment)>,
    /// What a race is about needs memory that is there before.
    ready: Option<Vemva>,
    process: Option<Arc<Process>>,
    entered: Option<Entered>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Plays the program where this process is it; nothing in the test itself. Called by a test named `role`.
pub fn play() {
    let Some(role) = std::env::var_os(ROLE) else {
        return;
    };
    if role == AGAIN {
        println!("@again");
        std::io::stdout().flush().unwrap();
    }
    if let Some(words) = role.to_str().and_then(|role| role.strip_prefix(PAIR)) {
        let words: Vec<&str> = words.split(' ').collect();
        pair(Path::new(words[0]), words[1], words[2]);
    }
    let mut held = Held::default();
    for order in std::io::stdin().lock().lines() {
        let order = order.unwrap();
        let words: Vec<&str> = order.split(' ').collect();
        let answer = held.obey(&words).unwrap_or_else(|error| error);
        println!("@{answer}");
        std::io::stdout().flush().unwrap();
    }
    if let Some(entered) = &held.entered {
        entered.goodbye();
    }
    std::process::exit(0);
}

/// Rank 0 owns an area and says where it is by a file, rank 1 attaches it; then both do their part over and over.
fn pair(folder: &Path, owners: &str, attachers: &str) -> ! {
    let mut held = Held::default();
    let place = folder.join("area");
    let answer = held.enter("enter", "0").unwrap();
    let (what, area) = if answer.contains("Some(0) Some(0)") {
        let vemva = held.obey(&["open"]).unwrap();
        let area = format!("{} {vemva}", std::process::id());
        std::fs::write(folder.join("made"), &area).unwrap();
        std::fs::rename(folder.join("made"), &place).unwrap();
        until("the attacher has it", || folder.join("attached").exists());
        (owners, area)
    } else {
        until("the owner has its area", || place.exists());
        let area = std::fs::read_to_string(&place).unwrap();
        let words: Vec<&str> = ["read"].into_iter().chain(area.split(' ')).collect();
        assert_eq!(held.obey(&words).unwrap(), "from the owner");
        std::fs::write(folder.join("attached"), "").unwrap();
        (attachers, area)
    };
    let words: Vec<&str> = ["loop", what].into_iter().chain(area.split(' ')).collect();
    held.obey(&words).unwrap();
    held.thread.take().unwrap().join().unwrap();
    unreachable!("it was never told to stop")
}

pub fn said(error: windlass_ve::Error) -> String {
    match error {
        windlass_ve::Error::Refused { errno, .. } => errno.to_string(),
        other => other.to_string(),
    }
}

impl Held {
    fn obey(&mut self, words: &[&str]) -> Result<String, String> {
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let area = |at: usize| (number(at) as i32, Vemva::new(number(at + 1)));
        match words[0] {
            "enter" | "visit" => self.enter(words[0], words[1]),
            // Another program in the same process: itself, that knows nothing of before.
            "exec" => {
                let own = std::env::current_exe().unwrap();
                Err(Command::new(own)
                    .args(std::env::args_os().skip(1))
                    .env(ROLE, AGAIN)
                    .exec()
                    .to_string())
            }
            // As a stranger, who waits for a word.
            "knock" => {
                let at = SocketAddr::from_abstract_name(words[1]).unwrap();
                let mut socket = UnixStream::connect_addr(&at).map_err(|e| e.to_string())?;
                let mut said = Vec::new();
                let _ = socket.read_to_end(&mut said);
                Ok(format!("{} bytes", said.len()))
            }
            "become" => Err(Command::new("/bin/true").exec().to_string()),
            "open" => {
                let process = self.process();
                let memory = process.alloc(SIZE as usize, PageSize::M64).map_err(said)?;
                process
                    .veshm_open(memory.vemva, SIZE, 0, Mode::PCI)
                    .map_err(said)?;
                memory.bytes.write(0, b"from the owner").unwrap();
                Ok(memory.vemva.raw().to_string())
            }
            // An area that is registered for this process too: what it reads back passes through its own entries.
            "keep" => {
                let process = self.process();
                let memory = process.alloc(SIZE as usize, PageSize::M64).map_err(said)?;
                process
                    .veshm_open(memory.vemva, SIZE, 0, Mode::PCI)
                    .map_err(said)?;
                memory.bytes.write(0, b"from the owner").unwrap();
                let vehva = process.register(memory.vemva, SIZE).map_err(said)?;
                let copy = memory.bytes.slice(4096, 4096).unwrap();
                self.remote = Some((vehva, Vehva::new(vehva.raw() + 4096), copy));
                Ok(memory.vemva.raw().to_string())
            }
            "ready" => {
                let memory = self.process().alloc(SIZE as usize, PageSize::M64);
                self.ready = Some(memory.map_err(said)?.vemva);
                Ok("ready".into())
            }
            "race" => race::race(self.process(), self.ready.unwrap(), &words[1..]),
            "read" => {
                let (pid, vemva) = area(1);
                let process = self.process();
                let remote = process
                    .attach_vehva(pid, vemva, SIZE, Mode::PCI)
                    .map_err(said)?;
                let own = process.alloc(SIZE as usize, PageSize::M64).map_err(said)?;
                let local = process.register(own.vemva, SIZE).map_err(said)?;
                self.remote = Some((remote, local, own.bytes));
                self.peek()
            }
            "peek" => self.peek(),
            // The same memory as an area that only its own VE sees.
            "none" => {
                let vemva = Vemva::new(number(1));
                let done = self.process().veshm_open(vemva, SIZE, 0, Mode::NONE);
                done.map(|()| "opened".into()).map_err(said)
            }
            // On the owner's VE: mapped.
            "near" => {
                let (pid, vemva) = area(1);
                let memory = self.process().attach_vemva(pid, vemva, SIZE, Mode::PCI);
                self.near = Some(memory.map_err(said)?);
                Ok(self.look())
            }
            "look" => Ok(self.look()),
            "attach-near" => {
                let (pid, vemva) = area(1);
                let done = turn("near", self.process(), pid, vemva, None);
                done.map(|()| "attached".into()).map_err(said)
            }
            // A segment of huge pages of its own, held as one that other programs know.
            "segment" => {
                let made = windlass_mem::sysv::create(2 << 20, true);
                let (id, bytes) = made.map_err(|error| error.to_string())?;
                let segment = self.process().vh_shmat(id, 0).map_err(said)?;
                self.segment = Some((bytes, segment));
                Ok(id.to_string())
            }
            "attach" => {
                let (pid, vemva) = area(1);
                let remote = self.process().attach_vehva(pid, vemva, SIZE, Mode::PCI);
                remote.map(|vehva| vehva.raw().to_string()).map_err(said)
            }
            "detach" => {
                let done = self.process().detach_vehva(Vehva::new(number(1)));
                done.map(|()| "detached".into()).map_err(said)
            }
            "loop" => {
                let what = words[1].to_owned();
                let (pid, vemva) = if words.len() > 2 {
                    area(2)
                } else {
                    (0, Vemva::new(0))
                };
                let (process, stop) = (Arc::clone(self.process()), Arc::clone(&self.stop));
                let remote = self
                    .remote
                    .as_ref()
                    .map(|(remote, local, _)| (*remote, *local));
                self.thread = Some(std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        // Refusals are part of the game; what must hold is asked afterwards.
                        let _ = turn(&what, &process, pid, vemva, remote);
                    }
                }));
                Ok("looping".into())
            }
            "stop" => {
                self.stop.store(true, Ordering::Relaxed);
                let thread = self.thread.take().unwrap();
                Ok(thread.join().map_or("it panicked", |()| "stopped").into())
            }
            other => Err(format!("no order {other}")),
        }
    }

    fn enter(&mut self, how: &str, ve: &str) -> Result<String, String> {
        let ve = (ve != "vh").then(|| ve.parse().unwrap());
        let entered = if how == "enter" { enter(ve) } else { visit(ve) };
        let entered = entered.map_err(|error| error.to_string())?;
        let process = Process::join(Arc::clone(&entered.control)).map_err(said)?;
        let (rank, ve) = (entered.rank, process.ve());
        let socket = entered.variable().map(|(_, path)| path).unwrap_or_default();
        self.entered = Some(entered);
        self.process = Some(Arc::new(process));
        Ok(format!("entered {rank:?} {ve:?} {}", socket.display()))
    }

    /// What stands in the area that is attached, by DMA.
    fn peek(&self) -> Result<String, String> {
        let (remote, local, bytes) = self.remote.as_ref().unwrap();
        let fault = self.process().dma().post_wait(*local, *remote, 16);
        if !fault.is_none() {
            return Err(format!("{fault:?}"));
        }
        let mut text = [0; 14];
        bytes.read(0, &mut text).unwrap();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// What stands in the area that is mapped.
    fn look(&self) -> String {
        let mut text = [0; 14];
        let near = self.near.as_ref().unwrap();
        near.bytes.read(0, &mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn process(&self) -> &Arc<Process> {
        self.process.as_ref().unwrap()
    }
}

/// One turn of what a program does over and over until it is stopped or killed.
fn turn(
    what: &str,
    process: &Process,
    pid: i32,
    vemva: Vemva,
    remote: Option<(Vehva, Vehva)>,
) -> Result<(), windlass_ve::Error> {
    match what {
        "open" => {
            let memory = process.alloc(SIZE as usize, PageSize::M64)?;
            process.veshm_open(memory.vemva, SIZE, 0, Mode::PCI)?;
            process.veshm_close(memory.vemva, SIZE, 0, Mode::PCI)?;
            process.free(memory.vemva)
        }
        "register" => {
            let memory = process.alloc(2 << 20, PageSize::M2)?;
            let vehva = process.register(memory.vemva, 2 << 20)?;
            process.unregister(vehva)?;
            process.free(memory.vemva)
        }
        "attach" => {
            let vehva = process.attach_vehva(pid, vemva, SIZE, Mode::PCI)?;
            process.detach_vehva(vehva)
        }
        "near" => {
            let memory = process.attach_vemva(pid, vemva, SIZE, Mode::NONE)?;
            let mut text = [0; 14];
            memory.bytes.read(0, &mut text).unwrap();
            assert_eq!(&text, b"from the owner");
            process.detach_vemva(memory.vemva)
        }
        "detach" => {
            let vehva = process.attach_vehva(pid, vemva, SIZE, Mode::PCI)?;
            process.attach_vehva(pid, vemva, SIZE, Mode::PCI)?;
            process.detach_vehva(vehva)?;
            process.detach_vehva(vehva)
        }
        "dma" => {
            let (remote, local) = remote.unwrap();
            let fault = process.dma().post_wait(local, remote, 4 << 20);
            assert!(fault.is_none(), "{fault:?}");
            Ok(())
        }
        "close" => {
            process.veshm_close(vemva, SIZE, 0, Mode::PCI)?;
            process.veshm_open(vemva, SIZE, 0, Mode::PCI)
        }
        "nothing" => {
            std::thread::sleep(std::time::Duration::from_millis(1));
            Ok(())
        }
        other => panic!("no turn {other}"),
    }
}

pub fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A name that no other test has.
pub fn name(what: &str) -> NodeName {
    format!("{what}-{}", std::process::id()).parse().unwrap()
}

pub fn status(address: &Address) -> Option<Status> {
    Watcher::look(address)
        .and_then(|watcher| watcher.status())
        .ok()
}

pub fn status_of(name: &NodeName) -> Status {
    status(&Address::Named(name.clone())).expect("the node is there")
}

pub fn until_gone(name: &NodeName) {
    until("the name is free", || {
        !Address::all().contains(&Address::Named(name.clone()))
    });
}

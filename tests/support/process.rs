//! Processes as /proc shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock, which all processes of a machine share.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Ends this process as `kill -9` does: nothing of it runs any more.
pub fn die() -> ! {
    println!("DEATH={}", now_ns());
    kill_process(rustix::process::getpid(), Signal::KILL).expect("a process may kill itself");
    // The signal is on its way to one of this process's threads.
    loop {
        std::thread::park();
    }
}

/// Ends this process by SIGKILL after a while, whatever it is doing then.
pub fn die_after(delay: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(delay);
        die()
    });
}

/// Sends a signal; a process that is gone is fine.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends processes that a test started and that did not end by themselves.
pub fn kill_all(pids: &[i32]) {
    for &pid in pids {
        signal(pid, Signal::KILL);
    }
}

/// Living processes of this user whose environment at their start had `name=value`.
pub fn carrying(name: &str, value: &str) -> Vec<i32> {
    let wanted = format!("{name}={value}").into_bytes();
    let me = std::process::id() as i32;
    let pids = numbers(Path::new("/proc"));
    let carries = |pid: &i32| {
        // Unreadable: of another user, or gone. A zombie's is empty.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        *pid != me
            && environment
                .split(|&byte| byte == 0)
                .any(|entry| entry == wanted)
    };
    pids.into_iter().filter(carries).collect()
}

/// Processes that this one has started and not waited for.
pub fn children(pid: i32) -> Vec<i32> {
    let tasks = numbers(Path::new(&format!("/proc/{pid}/task")));
    let started = tasks.into_iter().flat_map(|task| {
        let list = fs::read_to_string(format!("/proc/{pid}/task/{task}/children"));
        let list = list.unwrap_or_default();
        list.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    started.filter_map(|pid| pid.parse().ok()).collect()
}

/// A variable of another process's environment at its start.
pub fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{name}=");
    let entry = environment
        .split(|&b| b == 0)
        .find(|e| e.starts_with(prefix.as_bytes()))?;
    Some(String::from_utf8_lossy(&entry[prefix.len()..]).into_owned())
}

/// Entries of a directory that are numbers.
fn numbers(dir: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Open descriptors of this process: number and what it is.
pub fn descriptors() -> Vec<(i32, PathBuf)> {
    let dir = Path::new("/proc/self/fd");
    let links = numbers(dir).into_iter();
    // The descriptor of the listing itself is gone by now.
    links
        .filter_map(|fd| Some((fd, fs::read_link(dir.join(fd.to_string())).ok()?)))
        .collect()
}

/// TCP ports of IPv4 on which a process listens, in whatever network namespace it is.
pub fn listening(pid: i32) -> Vec<u16> {
    let dir = PathBuf::from(format!("/proc/{pid}/fd"));
    let sockets: Vec<String> = numbers(&dir)
        .into_iter()
        .filter_map(|fd| fs::read_link(dir.join(fd.to_string())).ok())
        .filter_map(|link| {
            let link = link
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?
                .to_owned();
            Some(link)
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let port = |line: &str| {
        // sl local_address rem_address st ... inode; state 0A is LISTEN (proc(5)).
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let listens = *state == "0A" && sockets.iter().any(|socket| socket == inode);
        let (_, port) = local.split_once(':')?;
        listens
            .then(|| u16::from_str_radix(port, 16).ok())
            .flatten()
    };
    table.lines().filter_map(port).collect()
}

/// Where the threads of processes are: what the kernel says, and stacks where gdb is installed.
pub fn stacks(pids: &[i32]) -> String {
    let mut text = String::new();
    for pid in pids {
        text.push_str(&format!("process {pid}:\n"));
        for thread in numbers(Path::new(&format!("/proc/{pid}/task"))) {
            let read = |file: &str| {
                let path = format!("/proc/{pid}/task/{thread}/{file}");
                fs::read_to_string(path)
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            };
            let state = read("stat")
                .rsplit(") ")
                .next()
                .unwrap_or_default()
                .chars()
                .next();
            let state = state.unwrap_or('?');
            let (name, place, call) = (read("comm"), read("wchan"), read("syscall"));
            text.push_str(&format!("  {thread} {name}: {state} {place} [{call}]\n"));
        }
        let gdb = Command::new("gdb")
            .args([
                "-p",
                &pid.to_string(),
                "-batch",
                "-ex",
                "thread apply all backtrace 24",
            ])
            .output();
        if let Ok(output) = gdb {
            text.push_str(&String::from_utf8_lossy(&output.stdout));
        }
    }
    text
}

/// Waits until `done`, at most `limit`; of a while in which this machine does not run this process little is counted. Gives how
/// long it took, `None` for too long.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> Option<Duration> {
    const STEP: Duration = Duration::from_millis(2);
    let begin = Instant::now();
    let mut counted = Duration::ZERO;
    loop {
        let step = Instant::now();
        if done() {
            return Some(begin.elapsed());
        }
        if counted > limit {
            return None;
        }
        std::thread::sleep(STEP);
        counted += step.elapsed().min(50 * STEP);
    }
}

/// Measures how long this machine keeps processes from running that want to.
pub struct Stalls {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Stalls {
    /// From now on.
    pub fn watch() -> Stalls {
        const NAP: Duration = Duration::from_millis(10);
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut stalled = Duration::ZERO;
            while !seen.load(Ordering::Relaxed) {
                let begin = Instant::now();
                std::thread::sleep(NAP);
                let late = begin.elapsed() - NAP;
                // A scheduler's turn is none.
                stalled += if late > 2 * NAP { late } else { Duration::ZERO };
            }
            stalled
        });
        Stalls { over, thread }
    }

    /// Until now.
    pub fn end(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only sleeps")
    }
}

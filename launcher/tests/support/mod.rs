//! What the launcher's tests share: a rank program inside the test binary, watchdog, leak checks.
#![allow(dead_code)] // Each test binary uses its part.

pub mod race;
pub mod user;

use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use windlass_launcher::{Job, Outcome, Running};
use windlass_node::{Client, control};

/// A hang is a failure (reliability section 2): the whole test program ends, and with it its ranks.
const LIMIT: Duration = Duration::from_secs(300);
/// How long something that must happen is waited for before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Names what a rank does; unset: this process is the test itself.
const ROLE: &str = "LAUNCHER_TEST_ROLE";

/// Ends the process if it is not dropped in time.
pub struct Watchdog(#[allow(dead_code)] Sender<()>);

pub fn watchdog() -> Watchdog {
    let (sender, receiver) = channel::<()>();
    std::thread::spawn(move || {
        if receiver.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("watchdog: a test has hung");
            std::process::abort();
        }
    });
    Watchdog(sender)
}

/// A job whose ranks are this test binary in the given role; `test` is the name of the test
/// function that calls [`play`].
pub fn role(name: &str) -> Job {
    let exe = std::env::current_exe().unwrap();
    Job::new(exe)
        .args(["--exact", "rank_program", "--nocapture"])
        .env(ROLE, name)
        .capture()
}

/// A shell script as a job.
pub fn shell(script: &str) -> Job {
    Job::new("/bin/sh").args(["-c", script]).capture()
}

/// In a rank: plays the role and ends. In the test itself: nothing.
pub fn play() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let rank: u32 = std::env::var("WINDLASS_RANK").unwrap().parse().unwrap();
    let socket = PathBuf::from(std::env::var_os("WINDLASS_NODE").unwrap());
    println!("socket {}", socket.display());
    if role == "never-joins" {
        exit(0);
    }
    let (client, welcome) = Client::join(&socket, rank).unwrap();
    let control = control::Control::open(&welcome.control).unwrap();
    println!("joined");
    match role.as_str() {
        "well" => {
            client.goodbye().unwrap();
            exit(0);
        }
        "unended-1" if rank == 1 => exit(0),
        "abort-2" if rank == 2 => {
            client.abort(42, "the answer is wrong").unwrap();
            exit(1);
        }
        "abort-then-exit-0" if rank == 0 => {
            client.abort(7, "enough").unwrap();
            exit(0);
        }
        "fence-then-die-1" if rank == 1 => {
            let local = welcome
                .members
                .iter()
                .filter(|m| m.node == welcome.node && m.rank < rank)
                .count();
            control
                .word(control::status(local as u32))
                .store(FENCE, std::sync::atomic::Ordering::Relaxed);
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
        "die-1-others-react" if rank == 1 => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
        "die-1-others-react" => {
            while control.trouble().is_none() {
                std::hint::spin_loop();
            }
            exit(2);
        }
        "leaves-segment" => {
            // Created and not yet marked for removal: the instant a kill may hit.
            const CREATE: i32 = 0o1000 | 0o600;
            let id = windlass_mem::sysv::find(0, 4096, CREATE).unwrap();
            println!("segment {id}");
            exit(9);
        }
        "status-then-end" => {
            client.goodbye().unwrap();
            exit(7);
        }
        _ => {}
    }
    println!("waiting");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The status code of a fence, as ranks write it.
const FENCE: u64 = windlass_runtime::Call::Fence as u64;

/// Nothing of the job is left: no process, no socket or directory of a node.
pub fn assert_gone(outcome: &Outcome) {
    for rank in &outcome.ranks {
        assert!(
            !alive(rank.pid),
            "rank {} (pid {}) is still there",
            rank.rank,
            rank.pid
        );
    }
    for line in outcome.stdout_text().lines() {
        if let Some((_, socket)) = line.split_once("socket ") {
            let socket = Path::new(socket);
            assert!(!socket.exists(), "{} is left", socket.display());
            assert!(
                !socket.parent().unwrap().exists(),
                "{} is left",
                socket.display()
            );
        }
    }
}

/// There is such a process, and it is not a zombie.
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !matches!(stat.rsplit(')').next().map(str::trim_start), Some(rest) if rest.starts_with('Z')))
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every rank of the job is this process's program by now, and past its first instructions.
pub fn until_running(job: &Running) {
    until("the ranks run", || job.pids().iter().all(|&pid| alive(pid)));
    std::thread::sleep(Duration::from_millis(200));
}

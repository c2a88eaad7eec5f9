//! What attaching and detaching one VESHM area costs: time, and how often the sleeping service is woken.
//!
//! `cargo bench -p windlass-node`. The service, with one thread for each connection, is in this process, the attacher on its
//! main thread; the owner is another process. A wake-up is a voluntary context switch of the connection's thread (proc(5)).
//! Exits with 1 where a round wakes the service more than [`MOST`] times.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use windlass_node::{Address, Door, Service, Visitor};
use windlass_ve::{Mode, PageSize, Process, Profile, Vemva};

/// Wake-ups of one attach and detach at most (issue 4).
const MOST: f64 = 4.0;
const ROUNDS: u32 = 2_000;
const SIZE: u64 = 64 << 20;
/// The first argument of the owner; its socket follows.
const OWNER: &str = "--owner";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == OWNER) {
        own(&args[at + 1]);
        return ExitCode::SUCCESS;
    }
    let (events, _heard) = channel();
    let base = tempfile::tempdir().expect("a directory");
    let door = Door::Private(base.path().to_owned());
    let service = Service::open(2, Profile::VE1, door, events).expect("a service");
    let socket = service.socket_path().display().to_string();
    let own = std::env::current_exe().expect("this program");
    let mut owner = Command::new(own)
        .args([OWNER, &socket])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the owner");
    let mut line = String::new();
    let said = BufReader::new(owner.stdout.take().expect("a pipe")).read_line(&mut line);
    said.expect("the owner's line");
    let vemva = Vemva::new(line.trim().parse().expect("an address"));
    let pid = owner.id() as i32;

    let mut worst = 0.0f64;
    println!("attach and detach of one area, {ROUNDS} rounds");
    println!("{:<24} {:>10} {:>10}", "", "us", "wake-ups");
    for (name, ve) in [("VEHVA, from another VE", 1), ("VEMVA, on the same VE", 0)] {
        let (time_us, wakes) = measure(&socket, ve, pid, vemva);
        println!("{name:<24} {time_us:>10.1} {wakes:>10.2}");
        worst = worst.max(wakes);
    }
    drop(owner.stdin.take());
    owner.wait().expect("the owner ends");
    service.stop();
    if worst > MOST {
        println!("more than {MOST} wake-ups");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Another process's area on VE 0.
fn own(socket: &str) {
    let visitor = Visitor::enter(&Address::Path(socket.into()), Some(0)).expect("the node");
    let process = Process::join(Arc::new(visitor)).expect("a process");
    let memory = process.alloc(SIZE as usize, PageSize::M64).expect("memory");
    process
        .veshm_open(memory.vemva, SIZE, 0, Mode::PCI)
        .expect("an area");
    println!("{}", memory.vemva.raw());
    std::io::stdout().flush().expect("a reader");
    // Ends with the benchmark.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Microseconds and wake-ups of one round.
fn measure(socket: &str, ve: u32, pid: i32, vemva: Vemva) -> (f64, f64) {
    let visitor = Visitor::enter(&Address::Path(socket.into()), Some(ve)).expect("the node");
    let visitor = Arc::new(visitor);
    let process = Process::join(Arc::clone(&visitor) as _).expect("a process");
    let round = || {
        if ve == 0 {
            let memory = process
                .attach_vemva(pid, vemva, SIZE, Mode::PCI)
                .expect("the area");
            process.detach_vemva(memory.vemva).expect("attached");
        } else {
            let vehva = process
                .attach_vehva(pid, vemva, SIZE, Mode::PCI)
                .expect("the area");
            process.detach_vehva(vehva).expect("attached");
        }
    };
    round(); // The memory file comes with the first one.
    let (wakes, begun) = (service_wakes(), Instant::now());
    for _ in 0..ROUNDS {
        round();
    }
    let time_us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    let wakes = (service_wakes() - wakes) as f64 / f64::from(ROUNDS);
    (time_us, wakes)
}

/// How often the threads of connections have slept so far.
fn service_wakes() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
    let wakes = tasks.flatten().filter_map(|task| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let switches = status
            .lines()
            .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?;
        (name.trim() == "node-rank").then(|| switches.trim().parse::<u64>().ok())?
    });
    wakes.sum()
}

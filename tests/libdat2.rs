//! `WINDLASS_DAT`: a provider that stock libdat2 loads carries what udapl does. The provider is our own plug-in, since there is
//! no other that works without its hardware.
//!
//! Skipped where libdat2 is not installed.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::libdat2::{self, NAME};
use support::{Done, Spec, cc, with_world};
use windlass::{Rank, World};
use windlass_native::dat2::{
    Adapter, Atomic, Capacity, Completion, Endpoint, Error, Event, INLINE_BYTES, Library, Phase,
    Queue, Registration, Request, SONAME, Triplet,
};

/// Which body a process of these tests is to run.
const BODY: &str = "WLTEST_LIBDAT2";

/// For the stranger: where ranks listen.
const PORTS: &str = "WLTEST_PORTS";
/// For the ranks: a file that is there when they are to end.
const STOP: &str = "WLTEST_STOP";

fn skipped(test: &str) -> bool {
    let reason = libdat2::missing();
    if let Some(reason) = &reason {
        eprintln!("{test}: skipped: {reason}");
    }
    reason.is_some()
}

/// Not a test of its own: the process of the tests below, since libdat2 reads its file once.
#[test]
fn libdat2_program() {
    match std::env::var(BODY).as_deref() {
        Err(_) => {}
        Ok("pair") => pair(),
        Ok("refused") => refused(),
        Ok("stranger") => stranger(),
        Ok(other) => panic!("no body {other}"),
    }
}

fn command(body: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a process knows its program"));
    command.args(["--exact", "libdat2_program", "--nocapture"]);
    command.env(BODY, body).env("DAT_OVERRIDE", libdat2::conf());
    command
}

#[track_caller]
fn run(body: &str) {
    let ended = cc::run(command(body));
    ended.succeeded();
    assert!(ended.stdout.contains("1 passed"), "{ended:#?}");
}

fn refused() {
    let library = Library::load(SONAME).expect("it is there");
    let open = |name: &str| Adapter::open(&library, name).map(drop);
    let unknown = open("nobody").expect_err("no line has it");
    assert!(
        matches!(&unknown, Error::Unknown { there, .. } if there.iter().any(|it| it == NAME)),
        "{unknown:?}"
    );
    let text = unknown.to_string();
    assert!(
        text.contains("DAT_OVERRIDE") && text.contains(NAME),
        "{text}"
    );
    assert!(matches!(open("a\0b"), Err(Error::Unknown { .. })));
    assert!(matches!(open(&"a".repeat(300)), Err(Error::Unknown { .. })));
    let absent = open(libdat2::ABSENT).expect_err("its library is not there");
    assert!(matches!(absent, Error::Absent { .. }), "{absent:?}");
    let lacking = Library::load("/does/not/exist.so").expect_err("it is not there");
    assert!(lacking.to_string().contains("install it"), "{lacking}");
    let other = Library::load("libm.so.6").expect_err("another library altogether");
    assert!(matches!(other, Error::Symbol { .. }), "{other:?}");
    open(NAME).expect("ours is there");
    open(NAME).expect("and can be opened again");
}

#[test]
fn an_adapter_that_cannot_be_used_says_what_would_help() {
    if !skipped("an_adapter_that_cannot_be_used_says_what_would_help") {
        run("refused");
    }
}

/// Both ends of a connection of one adapter with itself.
struct Pair {
    adapter: std::sync::Arc<Adapter>,
    queues: [std::sync::Arc<Queue>; 2],
    ends: Vec<Endpoint>,
}

const CAPACITY: Capacity = Capacity {
    requests: 64,
    receives: 4,
};

/// The next event; the descriptor is what it is waited by.
fn next(adapter: &Adapter, queue: &Queue) -> Event {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        adapter.rearm();
        if let Some(event) = queue.dequeue() {
            return event;
        }
        assert!(Instant::now() < until, "no event comes");
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            adapter.fd(),
            rustix::event::PollFlags::IN,
        )];
        let _ = rustix::event::poll(&mut fds, None);
    }
}

fn done(event: Event) -> Completion {
    match event {
        Event::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

fn request(event: Event) -> Request {
    match event {
        Event::Request(request) => request,
        other => panic!("{other:?}"),
    }
}

fn number(event: &Event) -> u32 {
    match event {
        Event::Connection { number, .. } => *number,
        other => panic!("{other:?}"),
    }
}

impl Pair {
    fn new() -> Pair {
        let library = Library::load(SONAME).expect("it is there");
        let adapter = Adapter::open(&library, NAME).expect("it is in the file");
        assert_eq!(adapter.about().provider, "windlass");
        let listening = Queue::new(&adapter, true).expect("a queue");
        let asking = Queue::new(&adapter, false).expect("a queue");
        let ask = Endpoint::new(&asking, CAPACITY).expect("an endpoint");
        let answer = Endpoint::new(&listening, CAPACITY).expect("an endpoint");
        let address = adapter.about().address.expect("it has one");
        let qualifier = listening.qualifier().expect("it listens");
        ask.connect(address, qualifier, b"hello").expect("asked");
        let request = request(next(&adapter, &listening));
        assert!(request.private_data().starts_with(b"hello"));
        request.accept(&answer).expect("accepted");
        for queue in [&listening, &asking] {
            assert_eq!(number(&next(&adapter, queue)), 0x4001);
        }
        assert_eq!(ask.phase(), Phase::Connected);
        Pair {
            adapter,
            queues: [asking, listening],
            ends: vec![ask, answer],
        }
    }

    fn memory(&self, len: usize, peers: bool) -> Registration {
        let (bytes, _loan) = windlass_mem::lend(vec![0u64; len / 8]);
        Registration::new(&self.adapter, &bytes, peers).expect("registered")
    }

    fn next(&self, end: usize) -> Event {
        next(&self.adapter, &self.queues[end])
    }
}

fn remote(registration: &Registration, offset: u64, len: u32) -> Triplet {
    Triplet {
        context: registration.rmr_context(),
        ..registration.segment(offset, len)
    }
}

fn pair() {
    let pair = Pair::new();
    let (ask, answer) = (&pair.ends[0], &pair.ends[1]);
    let (here, there) = (pair.memory(8192, false), pair.memory(8192, true));
    here.bytes().write(0, &[7; 4096]).expect("inside");
    // A write, a quiet write of a copy, and a read complete in order; the quiet one says nothing.
    ask.post_write(here.segment(0, 4096), remote(&there, 0, 4096), 1)
        .expect("posted");
    ask.write_copy(&[9; 100], remote(&there, 5000, 100), 2, true)
        .expect("posted");
    ask.post_read(here.segment(4096, 4096), remote(&there, 4096, 4096), 3)
        .expect("posted");
    for cookie in [1, 3] {
        let done = done(pair.next(0));
        assert_eq!((done.cookie, done.status), (cookie, 0));
    }
    assert_eq!(ask.counts(), (3, 3));
    let mut seen = [0; 4096];
    there.bytes().read(0, &mut seen).expect("inside");
    assert_eq!(seen, [7; 4096]);
    here.bytes().read(4096, &mut seen).expect("inside");
    let nines = seen.iter().filter(|&&byte| byte == 9).count();
    assert_eq!((nines, seen[5000 - 4096]), (100, 9));
    // A message, into a receive that names its place.
    answer.post_recv(there.segment(0, 64), 77).expect("posted");
    ask.send_copy(b"a message", 4, true).expect("posted");
    let message = done(pair.next(1));
    assert_eq!(
        (message.cookie, message.len, message.is_receive),
        (77, 9, true)
    );
    let mut words = [0; 9];
    there.bytes().read(0, &mut words).expect("inside");
    assert_eq!(&words, b"a message");
    local_faults(&pair, &here, &there);
    atomics(&pair, &here, &there);
    // More copies than there are places for: each is given back by what is over.
    for turn in 0..1000u32 {
        let to = remote(&there, 0, 8);
        while let Err(full) = ask.write_copy(&u64::from(turn).to_ne_bytes(), to, 5, true) {
            assert!(matches!(full, Error::Full), "{full}");
        }
    }
    refused_by_the_peer(&pair, &here, &there);
}

/// Where the adapter says that it has them: the old value comes back, and the new one is there.
fn atomics(pair: &Pair, here: &Registration, there: &Registration) {
    assert_eq!(pair.adapter.about().atomics, [true; 2]);
    there
        .bytes()
        .write(64, &40u64.to_ne_bytes())
        .expect("inside");
    let swap = |compare, swap| Atomic::CompareSwap { compare, swap };
    let steps = [
        (Atomic::FetchAdd(2), 40, 42),
        (swap(41, 7), 42, 42),
        (swap(42, 7), 42, 7),
    ];
    for (atomic, old, new) in steps {
        let ask = &pair.ends[0];
        ask.post_atomic(atomic, here.segment(0, 8), remote(there, 64, 8), 8)
            .expect("posted");
        let done = done(pair.next(0));
        assert_eq!((done.cookie, done.status), (8, 0), "{atomic:?}");
        let word = |memory: &Registration, at| {
            let mut word = [0; 8];
            memory.bytes().read(at, &mut word).expect("inside");
            u64::from_ne_bytes(word)
        };
        assert_eq!((word(here, 0), word(there, 64)), (old, new), "{atomic:?}");
    }
}

/// What is refused before anything is posted, and leaves the connection as it is.
fn local_faults(pair: &Pair, here: &Registration, there: &Registration) {
    let ask = &pair.ends[0];
    let to = remote(there, 0, 16);
    let unknown = Triplet {
        context: 0xdead_beef,
        ..here.segment(0, 16)
    };
    let mut outside = [
        here.segment(8192, 1),
        here.segment(8190, 16),
        here.segment(u64::MAX, 16),
        unknown,
    ]
    .into_iter();
    assert!(outside.all(|local| matches!(ask.post_write(local, to, 9), Err(Error::Unregistered))));
    let long = ask.send_copy(&[0; INLINE_BYTES + 1], 9, true);
    assert!(matches!(long, Err(Error::TooLong(_))));
    assert_eq!(ask.phase(), Phase::Connected);
}

/// A refused write, the flushed one behind it, and then the end of the connection: in this order on the asking side.
fn refused_by_the_peer(pair: &Pair, here: &Registration, there: &Registration) {
    let ask = &pair.ends[0];
    let outside = remote(there, 8190, 16);
    ask.post_write(here.segment(0, 16), outside, 20)
        .expect("the peer judges it");
    // Maybe it is known already that the connection has ended.
    let behind = ask.post_write(here.segment(0, 16), remote(there, 0, 16), 21);
    let refused = done(pair.next(0));
    assert_eq!((refused.cookie, refused.status), (20, 6));
    if behind.is_ok() {
        let flushed = done(pair.next(0));
        assert_eq!((flushed.cookie, flushed.status), (21, 1));
    }
    let ended = number(&pair.next(0));
    assert!(matches!(ended, 0x4005 | 0x4006), "{ended:#x}");
    assert_eq!(ask.phase(), Phase::Ended);
    let (posted, completed) = ask.counts();
    assert!(completed < posted, "a failure leaves them apart");
}

#[test]
fn two_ends_of_one_adapter() {
    if !skipped("two_ends_of_one_adapter") {
        run("pair");
    }
}

/// Asks each of these places for a connection, with wrong codes and with none.
fn stranger() {
    let library = Library::load(SONAME).expect("it is there");
    let adapter = Adapter::open(&library, NAME).expect("it is in the file");
    let queue = Queue::new(&adapter, false).expect("a queue");
    let address = adapter.about().address.expect("it has one");
    let ports = std::env::var(PORTS).expect("ports are given");
    let ports = ports.split(',').map(|port| port.parse().expect("a port"));
    let (mut rejected, mut asked) = (0, 0);
    for port in ports {
        for proof in [&[][..], &[1, 0, 0], &[0; 36], &[7; 40]] {
            let endpoint = Endpoint::new(&queue, CAPACITY).expect("an endpoint");
            endpoint.connect(address, port, proof).expect("asked");
            let number = number(&next(&adapter, &queue));
            assert_ne!(number, 0x4001, "{port} lets a stranger in");
            asked += 1;
            rejected += u32::from(number == 0x4002);
        }
    }
    assert!(rejected >= 8, "{rejected} of {asked} were refused by ranks");
}

/// Whoever reaches the adapter may ask for a connection; who does not know the job's secret gets none, and the job goes on.
#[test]
fn a_stranger_gets_no_connection() {
    const TEST: &str = "a_stranger_gets_no_connection";
    if skipped(TEST) {
        return;
    }
    let base = support::RuntimeDir::new();
    let stop = std::env::var_os(STOP).map_or(base.path().join("stop"), Into::into);
    let spec = Spec::new(TEST).nodes(2).place("vh:1").libdat2();
    let spec = spec.env(STOP, stop.to_string_lossy());
    let body = |world: &World| -> Done {
        let mut window = world.allocate::<u64>(1)?;
        let epoch = window.lock_all()?;
        let other = Rank(1 - world.rank().0);
        let mut count = 0u64;
        while !stop.exists() {
            epoch.fetch_and_op(1, other, 0, windlass::Op::Sum)?;
            count += 1;
        }
        world.barrier()?;
        let mut theirs = [0];
        epoch.get(&mut theirs, other, 0)?;
        assert_eq!(theirs, [count]);
        Ok(())
    };
    spec.run_during(
        || with_world(body),
        |running| {
            let mut ports = Vec::new();
            let found = support::process::wait_until(Duration::from_secs(120), || {
                let pids = running.pids();
                let each = pids.iter().map(|&pid| support::process::listening(pid));
                let each: Vec<Vec<u16>> = each.collect();
                ports = each.concat();
                // The adapter's own, and the service point.
                each.len() == 2 && each.iter().all(|ports| ports.len() >= 2)
            });
            assert!(found.is_some(), "no rank listens");
            let words: Vec<String> = ports.iter().map(u16::to_string).collect();
            // Beside the job, so under its watch for what is left.
            let ended = command("stranger").env(PORTS, words.join(",")).output();
            std::fs::write(&stop, "").expect("a folder of ours");
            let ended = ended.expect("it can be started");
            let said = String::from_utf8_lossy(&ended.stdout);
            assert!(
                ended.status.success() && said.contains("1 passed"),
                "{ended:?}"
            );
        },
        support::Report::succeeded,
    );
}

/// The job ends with an error that says which names there are.
#[test]
fn a_job_with_an_unknown_adapter_is_told_those_there_are() {
    const TEST: &str = "a_job_with_an_unknown_adapter_is_told_those_there_are";
    if skipped(TEST) {
        return;
    }
    let spec = Spec::new(TEST).place("vh:2").libdat2();
    let spec = spec.env("WINDLASS_DAT", "nobody");
    spec.run(
        || with_world(|_| Ok(())),
        |report| {
            assert_ne!(report.outcome.exit_code, 0, "{}", report.text());
            let said = report.text();
            for words in ["nobody", "WINDLASS_DAT", NAME] {
                assert!(said.contains(words), "no {words}: {said}");
            }
        },
    );
}

/// Everything that is posted towards a rank that dies ends with the loss of that rank.
#[test]
fn all_that_is_pending_is_told_of_a_loss() {
    const TEST: &str = "all_that_is_pending_is_told_of_a_loss";
    if skipped(TEST) {
        return;
    }
    let spec = Spec::new(TEST).nodes(2).place("vh:1").libdat2();
    spec.stubborn().run(
        || with_world(pending),
        |report| {
            let told = report.outcome.stdout_text();
            assert!(told.contains("TOLD=true"), "{}", report.text());
        },
    );
}

fn pending(world: &World) -> Done {
    const EACH: usize = 16;
    let mut window = world.allocate::<u64>(1 << 20)?;
    let epoch = window.lock_all()?;
    epoch.put(&[1], Rank(1), 0)?;
    epoch.flush(Rank(1))?;
    world.barrier()?;
    if world.rank() == Rank(1) {
        std::thread::sleep(Duration::from_millis(20));
        std::process::abort();
    }
    let mut gets = Vec::new();
    let mut lost = 0;
    let mut other = 0;
    let mut count = |error: windlass::Error| match error {
        windlass::Error::PeerLost { rank: 1, .. } => lost += 1,
        error => {
            println!("{error:?}");
            other += 1;
        }
    };
    // Until the first says so, there is always something on its way.
    while gets.len() < 4000 {
        let mut failed = false;
        for _ in 0..EACH {
            match epoch.rget(world.buffer(1 << 14)?, Rank(1), 0) {
                Ok(request) => gets.push(request),
                Err(error) => {
                    count(error);
                    failed = true;
                }
            }
        }
        if failed {
            break;
        }
        while gets.len() > 4 * EACH {
            if let Err(error) = gets.remove(0).wait() {
                count(error);
                failed = true;
            }
        }
        if failed {
            break;
        }
    }
    for request in gets {
        if let Err(error) = request.wait() {
            count(error);
        }
    }
    println!("TOLD={} {lost} {other}", lost > 0 && other == 0);
    // Whoever left now would be what the launcher blames.
    std::thread::sleep(Duration::from_secs(100));
    Ok(())
}

/// `windlass info` and `explain` say which adapter is used.
#[test]
fn the_commands_say_which_adapter_is_used() {
    const TEST: &str = "the_commands_say_which_adapter_is_used";
    if skipped(TEST) {
        return;
    }
    cc::package("windlass-launcher");
    let conf = libdat2::conf();
    let say = |words: &[&str], adapter: Option<&str>| {
        let mut command = Command::new(cc::profile().join("windlass"));
        command.args(words).env("DAT_OVERRIDE", Path::new(&conf));
        command.env_remove("WINDLASS_DAT");
        command.envs(adapter.map(|name| ("WINDLASS_DAT", name)));
        let ended = cc::run(command);
        ended.succeeded();
        ended.stdout
    };
    let told = say(&["info"], Some(NAME));
    assert!(
        told.contains("used for udapl: adapter windlass-lo at 127.0.0.1"),
        "{told}"
    );
    let told = say(&["info"], Some("nobody"));
    assert!(told.contains("knows no adapter"), "{told}");
    let told = say(&["info"], None);
    assert!(told.contains("not used; adapters that"), "{told}");
    let words = ["explain", "-n", "2", "--nodes", "2"];
    let told = say(&words, Some(NAME));
    assert!(
        told.contains("udapl goes by the adapter windlass-lo of libdat2"),
        "{told}"
    );
    assert!(!say(&words, None).contains("libdat2 ("));
}

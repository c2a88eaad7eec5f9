//! Strangers at the ports of a job that works, and a rank that asks its peers for what it may not have (reliability.md S2,
//! S3, S5): the job ends well, with right results, says nothing, and needs no more memory than without them.
//!
//! `WLTEST_CONNECTIONS` and `WLTEST_MESSAGES` are how many connections and mutated messages there are.

mod support;

use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::data::Random;
use support::process::{listening, stacks, wait_until};
use support::{Done, Report, RuntimeDir, Spec};
use windlass::Rank;
use windlass_dat::{
    Config, ConnectionKind, DtoOperation, Ep, EpAttr, EpState, Evd, EvdFlags, Event, Flags, Ia,
    Lmr, Privileges, Pz, Region, VaType,
};
use windlass_wire::{Secret, auth};

/// Connections of the flood where nothing else is said.
const CONNECTIONS: usize = 10_000;
/// Mutated messages where nothing else is said.
const MESSAGES: usize = 10_000;
/// Connections of the flood that are open at once, at most.
const OPEN: usize = 200;
/// Slow senders at each port, and how often they say a byte.
const SLOW: usize = 8;
const PAUSE: Duration = Duration::from_secs(1);
/// What the memory of a rank may grow by, in KiB.
const GROWTH_KIB: u64 = 8192;
/// The longest that a job may take here.
const LIMIT: Duration = Duration::from_secs(240);
/// The folder for marks between the ranks and the test.
const MARKS: &str = "WLTEST_MARKS";

fn wanted(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |n| n.parse().expect("a number"))
}

/// A line of a process's status, in KiB.
fn memory_kib(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|n| n.parse().ok()).expect("a number")
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Works until `stop` is there; counts the turns while `begin` is.
fn work(marks: &Path) -> Done {
    support::with_world(|world| {
        let mut during = 0;
        let stop = || marks.join("stop").exists();
        support::work::until(world, stop, |turn| {
            during += u64::from(marks.join("begin").exists());
            if turn == 100 {
                fs::write(marks.join(format!("works{}", world.rank().0)), [])?;
            }
            Ok(())
        })?;
        println!("DURING{}={during}", world.rank().0);
        Ok(())
    })
}

/// Runs `attack` on the ports of a job of two nodes while it works.
fn under_attack(test: &'static str, attack: fn(&[u16])) {
    let base = RuntimeDir::new();
    let marks = std::env::var(MARKS).map_or(base.path().to_owned(), PathBuf::from);
    let spec = Spec::new(test).nodes(2).place("vh:1").limit(LIMIT);
    let spec = spec
        .env(MARKS, marks.to_string_lossy())
        .env("WINDLASS_LOG", "info,windlass_runtime=warn,windlass=warn");
    let during = |running: &windlass_launcher::Running| {
        let pids = running.pids();
        let work = |rank: usize| marks.join(format!("works{rank}")).exists();
        let ready = wait_until(LIMIT, || (0..pids.len()).all(work));
        let stop = || fs::write(marks.join("stop"), []).expect("a folder of ours");
        if ready.is_none() {
            stop();
            panic!("the job does not begin: {}", stacks(&pids));
        }
        let mut ports = listening(std::process::id() as i32);
        ports.extend(pids.iter().flat_map(|&pid| listening(pid)));
        assert!(ports.len() >= pids.len(), "{ports:?}");
        let before: Vec<_> = pids.iter().map(|&pid| descriptors(pid)).collect();
        let memory: Vec<_> = pids.iter().map(|&pid| memory_kib(pid, "VmHWM")).collect();
        fs::write(marks.join("begin"), []).expect("a folder of ours");
        let begin = Instant::now();
        let attacked = std::panic::catch_unwind(|| attack(&ports));
        let took = begin.elapsed();
        let settled = wait_until(LIMIT, || {
            let mut now = pids.iter().map(|&pid| descriptors(pid));
            before.iter().all(|before| now.next() <= Some(*before))
        });
        let grown = pids.iter().zip(&memory);
        let grown = grown.map(|(&pid, before)| memory_kib(pid, "VmHWM") - before);
        let grown: Vec<u64> = grown.collect();
        stop();
        if let Err(panic) = attacked {
            std::panic::resume_unwind(panic);
        }
        println!("{test}: {took:?}; memory of the ranks {memory:?} KiB, then {grown:?} KiB more");
        assert!(settled.is_some(), "connections of strangers stay open");
        assert!(grown.iter().all(|&kib| kib < GROWTH_KIB), "{grown:?} KiB");
    };
    spec.run_during(
        || work(&marks),
        during,
        |report| {
            report.succeeded();
            assert_eq!(report.outcome.stderr_text(), "", "something alarming");
            for rank in 0..2 {
                let turns = report.value(&format!("DURING{rank}"));
                let turns: u64 = turns.and_then(|n| n.parse().ok()).unwrap_or_default();
                println!("{test}: rank {rank} made {turns} turns meanwhile");
                assert!(turns > 0, "the job stood still");
            }
        },
    );
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let stream = stream.unwrap_or_else(|error| panic!("port {port}: {error}"));
    let limit = Some(LIMIT);
    stream.set_read_timeout(limit).expect("not zero");
    stream
}

/// Closing sends a reset instead of an end.
fn reset(stream: &TcpStream) {
    let zero = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(stream, zero).expect("a TCP socket lingers");
}

/// A challenge, if the other end had room for a stranger more.
fn challenge(stream: &mut TcpStream, hello: &[u8]) -> Option<[u8; auth::CHALLENGE]> {
    let mut challenge = [0; auth::CHALLENGE];
    stream.write_all(hello).ok()?;
    stream.read_exact(&mut challenge).ok()?;
    Some(challenge)
}

/// Says `proof` and what would follow it; there is no answer but the end.
fn is_refused(mut stream: TcpStream, proof: &[u8], what: &str) {
    let _ = stream.write_all(&[proof, &[0; 64]].concat());
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("{what}: the connection stays open");
        }
        _ => assert!(answer.is_empty(), "{what}: {answer:?}"),
    }
}

/// Hand-shakes without the secret: wrong, replayed, reflected, passed on. `false`: the other end had no room.
fn shake_hands(port: u16, other: u16, replayed: &mut Vec<[u8; auth::PROOF]>) -> bool {
    let (initiator, hello) = auth::Initiator::new(&Secret::random());
    let tries = [(); 4].map(|()| {
        let mut stream = connect(port);
        let challenge = challenge(&mut stream, &hello);
        challenge.map(|challenge| (stream, challenge))
    });
    let [Some(wrong), Some(reflected), Some(again), Some(passed_on)] = tries else {
        return false;
    };
    // The same greeting never gets the same answer: nothing recorded fits later.
    assert!(wrong.1 != reflected.1 && wrong.1 != again.1 && again.1 != passed_on.1);
    assert!(initiator.on_challenge(wrong.1).is_err(), "a foreign secret");
    is_refused(wrong.0, &[7; auth::PROOF], "a wrong proof");
    let code = |challenge: &[u8; auth::CHALLENGE]| {
        let code = challenge.last_chunk::<{ auth::PROOF }>();
        *code.expect("a challenge ends with one")
    };
    is_refused(reflected.0, &code(&reflected.1), "a reflected code");
    for old in replayed.drain(..) {
        let mut stream = connect(port);
        if challenge(&mut stream, &hello).is_some() {
            is_refused(stream, &old, "a replayed code");
        }
    }
    replayed.push(code(&again.1));
    drop(again);
    // What another rank of the job says to the same greeting.
    let mut stream = connect(other);
    if let Some(challenge) = challenge(&mut stream, &hello) {
        is_refused(passed_on.0, &code(&challenge), "another rank's code");
    }
    true
}

#[test]
fn floods_of_strangers() {
    under_attack("floods_of_strangers", |ports| {
        let wanted = wanted("WLTEST_CONNECTIONS", CONNECTIONS);
        let mut random = Random::new(11);
        let mut open = VecDeque::new();
        let (_, hello) = auth::Initiator::new(&Secret::random());
        for number in 0..wanted {
            let mut stream = connect(ports[number % ports.len()]);
            let len = random.below(300);
            // Any of these may be refused in the middle.
            let _ = match random.below(8) {
                0 | 1 => stream.write_all(&random.bytes(len)),
                2 => stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
                3 => stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                4 => stream.write_all(&hello[..len % hello.len()]),
                5 => stream.write_all(&hello),
                _ => Ok(()),
            };
            match random.below(3) {
                0 => reset(&stream),
                1 => drop(stream),
                _ => open.push_back(stream),
            }
            if open.len() > OPEN {
                open.pop_front();
            }
        }
    });
}

#[test]
fn strangers_who_know_the_hand_shake_and_not_the_secret() {
    under_attack(
        "strangers_who_know_the_hand_shake_and_not_the_secret",
        |ports| {
            let mut replayed = Vec::new();
            let rounds = (0..100).flat_map(|_| 0..ports.len());
            let done = rounds.filter(|&at| {
                let other = ports[(at + 1) % ports.len()];
                shake_hands(ports[at], other, &mut replayed)
            });
            let done = done.count();
            println!("{done} rounds of hand-shakes");
            assert!(done > 0, "nobody had room");
        },
    );
}

#[test]
fn strangers_who_say_a_byte_a_second() {
    under_attack("strangers_who_say_a_byte_a_second", |ports| {
        let (_, hello) = auth::Initiator::new(&Secret::random());
        let slow = ports.iter().flat_map(|&port| (0..SLOW).map(move |_| port));
        let mut slow: Vec<_> = slow.map(connect).collect();
        let count = slow.len();
        for (said, byte) in hello.iter().enumerate() {
            // A reset is seen at the second write after it.
            slow.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
            if slow.is_empty() {
                println!("{count} slow senders were closed after {said} bytes");
                return;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("{} are still served", slow.len());
    });
}

/// Elements of each window of the hostile rank's victim.
const ELEMENTS: usize = 8192;
/// What nobody may change holds this.
const KEPT: u64 = 0x4b45_5054_4b45_5054;
/// Where the hostile rank may write, in elements: the edges of the window are to stay as they are.
const FREE: std::ops::Range<usize> = 2048..6144;
/// The elements that tell the hostile rank where to go: an address, a port.
const TOLD: [usize; 2] = [0, 1];
/// Bytes of operands in a message at most.
const OPERANDS: usize = 4096;
/// Bytes of the fields of a message.
const FIELDS: usize = 32;

/// The secret of the job, which is in the pipe that each rank inherits; it stays there.
fn secret() -> Result<Secret, support::Failure> {
    let life = std::env::var("WINDLASS_LIFE_FD")?;
    let life = fs::File::open(format!("/proc/self/fd/{life}"))?;
    let (from, to) = rustix::pipe::pipe()?;
    rustix::pipe::tee(&life, &to, 32, rustix::pipe::SpliceFlags::empty())?;
    drop(to);
    let mut bytes = [0; 32];
    fs::File::from(from).read_exact(&mut bytes)?;
    Ok(Secret::from_bytes(bytes))
}

/// A message to the helper of a rank.
#[derive(Clone, Debug)]
struct Message {
    ticket: u64,
    verb: u8,
    kind: u8,
    op: u8,
    fetch: u8,
    context: u32,
    address: u64,
    len: u32,
    guard: u32,
    operands: Vec<u8>,
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.ticket.to_le_bytes().to_vec();
        bytes.extend([self.verb, self.kind, self.op, self.fetch]);
        bytes.extend(self.context.to_le_bytes());
        bytes.extend(self.address.to_le_bytes());
        bytes.extend(self.len.to_le_bytes());
        bytes.extend(self.guard.to_le_bytes());
        bytes.extend(&self.operands);
        bytes
    }

    /// A read of so many bytes.
    fn read(context: u32, address: u64, len: u32) -> Message {
        Message {
            ticket: 1,
            verb: 0,
            kind: 1, // u8
            op: 13,  // NoOp
            fetch: 1,
            context,
            address,
            len,
            guard: 0,
            operands: Vec::new(),
        }
    }

    /// Any within the free range, or beyond all memory.
    fn any(context: u32, base: u64, random: &mut Random) -> Message {
        let sizes = [
            1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 8, 16, 1, 4, 8, 1, 8, 16, 16, 8, 8, 32, 8, 16,
        ];
        let kind = random.below(sizes.len());
        let size: usize = sizes[kind];
        let bytes = FREE.len() * 8;
        let most = if random.one_in(10) { OPERANDS } else { 64 };
        let swap = random.one_in(4);
        let count = if swap {
            1
        } else {
            1 + random.below(most / size)
        };
        let len = count * size;
        let offset = random.below((bytes - len) / size) * size;
        Message {
            ticket: random.bits(),
            verb: u8::from(swap),
            kind: kind as u8,
            op: random.below(14) as u8,
            fetch: random.below(2) as u8,
            context,
            address: base + (FREE.start * 8 + offset) as u64,
            len: len as u32,
            guard: random.below(8) as u32,
            operands: random.bytes(if swap { 2 * len } else { len }),
        }
    }

    /// Changes something, but never so that it names other memory that the victim has.
    fn mutate(&mut self, random: &mut Random) {
        let any = random.bits();
        match random.below(10) {
            0 => self.verb = any as u8,
            1 => self.kind = any as u8,
            2 => self.op = any as u8,
            3 => self.context ^= 1 << random.below(32),
            4 => self.context = *random.pick(&[0, 1, u32::MAX, any as u32]),
            5 => {
                let len = u64::from(self.len);
                let far = [
                    u64::MAX,
                    u64::MAX - len,
                    u64::MAX - len + 1,
                    1 << 63,
                    1 << 50,
                ];
                self.address = *random.pick(&far);
            }
            6 => self.len = *random.pick(&[0, self.len + 1, 4097, 1 << 31, u32::MAX]),
            7 => self.guard = *random.pick(&[u32::MAX, 1 << 20, any as u32]),
            8 => self
                .operands
                .truncate(random.below(self.operands.len() + 1)),
            _ => {
                let len = random.below(OPERANDS);
                let longer = random.bytes(len);
                self.operands.extend(longer);
            }
        }
    }
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Done,
    Access,
    Refused,
    /// The connection ended.
    Ended,
}

/// The hostile rank's own adapter, and its connection to the service of its victim.
struct Hostile {
    _ia: std::sync::Arc<Ia>,
    pz: Pz,
    evd: Evd,
    _inbox: Lmr,
    segment: windlass_dat::LocalSegment,
    bytes: windlass_mem::SharedBytes,
    to: SocketAddr,
    ep: Option<Ep>,
}

impl Hostile {
    fn new(secret: Secret, port: u16) -> Result<Hostile, support::Failure> {
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let ia = Ia::open(Config { secret, bind })?;
        let pz = Pz::create(&ia);
        let evd = Evd::create(&ia, 1000, EvdFlags::ALL)?;
        let (bytes, _loan) = windlass_mem::lend(vec![0u8; 2 * OPERANDS]);
        let region = Region::Virtual(bytes.clone());
        let inbox = Lmr::create(region, &pz, Privileges::ALL, VaType::Virtual)?;
        Ok(Hostile {
            segment: inbox.segment(0, 2 * OPERANDS as u32),
            _inbox: inbox,
            to: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            ep: None,
            _ia: ia,
            pz,
            evd,
            bytes,
        })
    }

    fn event(&self) -> Result<Event, support::Failure> {
        let event = self.evd.wait(Some(LIMIT), 1);
        Ok(event.map_err(|why| format!("the victim hangs: {why}"))?.0)
    }

    fn ep(&mut self) -> Result<&Ep, support::Failure> {
        if self.ep.is_none() {
            let evd = Some(&self.evd);
            let ep = Ep::create(&self.pz, evd, evd, evd, EpAttr::default())?;
            ep.connect(self.to, 1, None, &[])?;
            loop {
                match self.event()? {
                    Event::Connection {
                        kind: ConnectionKind::Established,
                        ..
                    } => break,
                    Event::Connection { kind, ep: of, .. } if of == ep.id() => {
                        return Err(format!("no connection: {kind:?}").into());
                    }
                    _ => {} // of the one before
                }
            }
            self.ep = Some(ep);
        }
        Ok(self.ep.as_ref().expect("it is there now"))
    }

    /// Sends bytes and waits for what becomes of them; the result is in the answer's rest.
    fn ask(&mut self, message: &[u8]) -> Result<(Answer, Vec<u8>), support::Failure> {
        let segment = self.segment;
        let ep = self.ep()?;
        ep.post_recv(&[segment], 0, Flags::DEFAULT)?;
        ep.post_send_inline(message, 1, Flags::SUPPRESS)?;
        let id = ep.id();
        loop {
            match self.event()? {
                Event::Dto(done) if done.ep == id && done.operation == DtoOperation::Receive => {
                    if self
                        .ep
                        .as_ref()
                        .is_some_and(|ep| ep.state() != EpState::Connected)
                    {
                        continue; // the end of the connection follows
                    }
                    let mut reply = vec![0; done.length as usize];
                    self.bytes.read(0, &mut reply)?;
                    assert!(reply.len() >= 9, "{reply:?}");
                    assert_eq!(reply[..8], message[..8], "the ticket comes back");
                    let answer = match reply[8] {
                        0 => Answer::Done,
                        1 => Answer::Access,
                        2 => Answer::Refused,
                        other => return Err(format!("outcome {other}").into()),
                    };
                    return Ok((answer, reply.split_off(9)));
                }
                Event::Connection { ep, .. } if ep == id => {
                    self.ep = None;
                    return Ok((Answer::Ended, Vec::new()));
                }
                _ => {}
            }
        }
    }
}

/// The hostile rank: finds the memory, then asks for everything.
fn attack(secret: Secret, told: [u64; 2], native: bool) -> Done {
    let mut random = Random::new(23);
    let mut hostile = Hostile::new(secret, told[1] as u16)?;
    // What a descriptor says, which no program is shown: contexts are small numbers.
    let mut found = None;
    for index in 0..64u32 {
        let context = index << 8 | u32::from(!native);
        // The window on a VE lies somewhere in its area.
        let places = if native { 0..64 } else { 0..1 };
        for place in places {
            let address = told[0] + place * OPERANDS as u64;
            let (answer, old) = hostile.ask(&Message::read(context, address, 4096).encode())?;
            if answer != Answer::Done {
                break;
            }
            let words = old
                .chunks_exact(8)
                .map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
            let words: Vec<u64> = words.collect();
            let here = words.windows(2).position(|two| two == told && told[1] != 0);
            if let Some(at) = here {
                found.get_or_insert((context, address + 8 * at as u64));
            }
        }
    }
    let (context, base) = found.ok_or("the window was not found")?;
    let mut answers = std::collections::BTreeMap::new();
    let wanted = wanted("WLTEST_MESSAGES", MESSAGES);
    let begin = Instant::now();
    for _ in 0..wanted {
        let mut message = Message::any(context, base, &mut random);
        let fine = !random.one_in(2);
        if !fine {
            message.mutate(&mut random);
        }
        let mut bytes = message.encode();
        if random.one_in(50) {
            bytes.truncate(random.below(bytes.len()));
        }
        let (answer, result) = hostile.ask(&bytes)?;
        *answers.entry(answer).or_insert(0) += 1;
        let whole = bytes.len() >= FIELDS;
        let elsewhere = message.context != context || message.address > 1 << 49;
        if whole && elsewhere && answer == Answer::Done {
            return Err(format!("{message:?}: {answer:?}").into());
        }
        if !whole && answer != Answer::Ended {
            return Err(format!("a truncated message: {answer:?}").into());
        }
        if !matches!(answer, Answer::Done) && result.iter().any(|&byte| byte != 0) {
            return Err(format!("{message:?}: {answer:?} with {result:?}").into());
        }
    }
    println!("{wanted} messages in {:?}: {answers:?}", begin.elapsed());
    for answer in [Answer::Done, Answer::Access, Answer::Refused, Answer::Ended] {
        assert!(answers.contains_key(&answer), "no {answer:?}");
    }
    Ok(())
}

/// Jobs whose rank 1 is hostile; more messages may take longer.
fn hostile_spec(test: &'static str) -> Spec {
    let more = wanted("WLTEST_MESSAGES", MESSAGES) as u64 / 1000;
    let limit = LIMIT + Duration::from_secs(more);
    let spec = Spec::new(test).nodes(2).limit(limit);
    spec.env("WINDLASS_LOG", "warn")
}

/// Rank 0 has windows, and rank 1 is hostile.
fn hostile_rank(native: bool) -> Done {
    let secret = secret()?;
    support::with_world(|world| {
        let kept = world.allocate::<u64>(ELEMENTS)?;
        kept.local().write(0, &[KEPT; ELEMENTS])?;
        let mut window = world.allocate::<u64>(ELEMENTS)?;
        let behind = world.allocate::<u64>(ELEMENTS)?;
        behind.local().write(0, &[KEPT; ELEMENTS])?;
        window.local().write(0, &[KEPT; ELEMENTS])?;
        let me = std::process::id() as i32;
        let ports = listening(me);
        let address = window.lock_local()?.as_ptr().addr() as u64;
        // On a VE addresses count from the area's begin; the number makes the window known there.
        let mine = [if native { 0 } else { address }, u64::from(ports[0])];
        window.local().write(TOLD[0], &mine)?;
        window.fence()?.end()?;
        let mut told = [0; 2];
        let epoch = window.lock_all()?;
        epoch.get(&mut told, Rank(0), TOLD[0])?;
        epoch.end()?;
        let before = memory_kib(me, "VmHWM");
        world.barrier()?;
        if world.rank() == Rank(1) {
            attack(secret, told, native)?;
        }
        world.barrier()?;
        let grown = memory_kib(me, "VmHWM") - before;
        println!("GROWN{}={grown}", world.rank().0);
        if world.rank() == Rank(0) {
            assert!(grown < GROWTH_KIB, "{grown} KiB more");
            for whole in [&kept, &behind] {
                assert!(whole.local().to_vec() == [KEPT; ELEMENTS], "another window");
            }
            let seen = window.local().to_vec();
            assert_eq!(seen[..2], mine);
            let edges = [&seen[2..FREE.start], &seen[FREE.end..]];
            assert!(
                edges
                    .iter()
                    .all(|edge| edge.iter().all(|&word| word == KEPT))
            );
        }
        world.barrier()?; // nobody writes before rank 0 has looked
        // The service is as good as before.
        let epoch = window.lock_all()?;
        epoch.put(&[1u64], Rank(0), ELEMENTS - 1 - world.rank().0 as usize)?;
        epoch.end()?;
        for left in [kept, window, behind] {
            left.free()?;
        }
        Ok(())
    })
}

fn succeeded_quietly(report: &Report) {
    report.succeeded();
    let said = report.outcome.stderr_text();
    assert!(said.is_empty(), "{said}");
    println!("{}", report.outcome.stdout_text());
}

#[test]
fn a_rank_that_sends_mutated_messages() {
    let spec = hostile_spec("a_rank_that_sends_mutated_messages").place("vh:1");
    spec.run(|| hostile_rank(false), succeeded_quietly);
}

/// The memory is on a VE that no adapter knows: the helper alone reaches it.
#[test]
fn a_rank_that_sends_mutated_messages_to_a_ve() {
    let spec = hostile_spec("a_rank_that_sends_mutated_messages_to_a_ve");
    let spec = spec.ves(1).place("ve0:1").native();
    spec.run(|| hostile_rank(true), succeeded_quietly);
}

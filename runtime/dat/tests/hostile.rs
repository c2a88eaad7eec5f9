//! A peer that knows the job's secret and asks for what it may not have: mutated requests on established connections,
//! each judged by the rules of udapl.md section 5 as written down here once more (reliability.md S5).
//!
//! `WLTEST_REQUESTS` is how many; a million take a minute or two in a release build.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use support::*;
use windlass_dat::*;
use windlass_mem::SharedBytes;
use windlass_wire::auth;

/// Requests where nothing else is said.
const REQUESTS: usize = 60_000;
/// Requests of one connection at most.
const BATCH: usize = 40;
/// One request in so many is mutated.
const MUTATED: usize = 4;
/// Payload of one frame at most, as the protocol has it.
const CHUNK: usize = 128 * 1024;
/// Bytes of guards between places, and of most places.
const PAGE: usize = 4096;
/// The place for long transfers.
const LARGE: usize = 300_000;
/// What is nobody's holds this.
const GUARD: u8 = 0xA5;
/// Receives of each connection, and their bytes.
const RECEIVES: usize = 2;
const INBOX: usize = 64;
/// What memory may grow by, once everything is warm.
const GROWTH_KIB: u64 = 4096;

const READ: Privileges = Privileges::REMOTE_READ;
const WRITE: Privileges = Privileges::REMOTE_WRITE;
const ATOMIC: Privileges = Privileges::REMOTE_ATOMIC;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Memory that a context names, as the rules see it.
#[derive(Clone, Copy)]
struct Place {
    context: u32,
    /// In the arena.
    at: usize,
    len: usize,
    /// What an address counts from.
    base: u64,
    /// Rights of a peer on the connections under test; none for another zone, another endpoint, or what is freed.
    rights: Privileges,
    /// A window that a message may end.
    ends: bool,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    credits: u16,
    len: u32,
    context: u32,
    ack: u32,
    address: u64,
}

impl Frame {
    fn new(kind: u8, len: u32, context: u32, address: u64) -> Frame {
        Frame {
            kind,
            flags: 0,
            credits: 0,
            len,
            context,
            ack: 0,
            address,
        }
    }

    fn encode(&self, to: &mut Vec<u8>) {
        to.extend([self.kind, self.flags]);
        to.extend(self.credits.to_le_bytes());
        to.extend(self.len.to_le_bytes());
        to.extend(self.context.to_le_bytes());
        to.extend(self.ack.to_le_bytes());
        to.extend(self.address.to_le_bytes());
    }
}

/// What has to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Carried out at this place of the arena.
    At(usize),
    /// Of no bytes: carried out, whatever it names.
    Empty,
    /// No request.
    Nothing,
    /// Refused: the peer is told this status, and nothing else.
    Fault(DtoStatus),
    /// The connection ends without a word.
    Broken,
    /// It ends as the peer wishes.
    Left,
}

/// The target: an arena with places and guards between them.
struct Target {
    pair: Pair,
    arena: SharedBytes,
    places: Vec<Place>,
    inbox: (usize, Lmr),
    lmrs: Vec<Lmr>,
    rmr: Rmr,
    window: usize,
    standing: (Ep, Ep),
    _other: (Pz, Rmr),
    /// What the arena must hold.
    model: Vec<u8>,
    secret: Secret,
}

impl Target {
    fn new() -> Target {
        let secret = Secret::random();
        let pair = Pair {
            a: Side::new(&secret),
            b: Side::new(&secret),
        };
        let standing = pair.connect();
        let len = 20 * PAGE + LARGE;
        let (arena, _loan) = windlass_mem::lend(vec![0u64; len.div_ceil(8)]);
        arena.fill(0, arena.len(), GUARD).unwrap();
        let model = vec![GUARD; arena.len()];
        let other = Pz::create(&pair.b.ia);
        let all = Privileges::ALL | ATOMIC;
        let none = Privileges::NONE;
        let local = Privileges::LOCAL_READ | Privileges::LOCAL_WRITE;
        // Neither begins nor ends at a page.
        let odd = |page: usize| (page * PAGE + 3, PAGE - 10);
        let (mut places, mut lmrs) = (Vec::new(), Vec::new());
        let mut add = |(at, len), pz: &Pz, given: Privileges, rights, va_type| {
            let bytes = arena.slice(at, len).unwrap();
            let lmr = Lmr::create(Region::Virtual(bytes), pz, given, va_type).unwrap();
            places.push(Place {
                context: lmr.context(),
                at,
                len,
                base: lmr.address(),
                rights,
                ends: false,
            });
            lmrs.push(lmr);
        };
        let pz = &pair.b.pz;
        let va = VaType::Virtual;
        add(odd(1), pz, all, READ | WRITE | ATOMIC, va);
        add(odd(3), pz, all, READ | WRITE | ATOMIC, VaType::ZeroBased);
        add(odd(5), pz, local | READ, READ, va);
        add(odd(7), pz, local | WRITE, WRITE, va);
        add(odd(9), pz, local, none, va);
        add(odd(11), &other, all, none, va);
        add(odd(13), pz, all, none, va); // to be freed
        add((18 * PAGE + 5, LARGE), pz, all, READ | WRITE | ATOMIC, va);
        lmrs[6].free().unwrap();
        let window = places.len();
        let rmr = Rmr::create(pz, RmrScope::Pz).unwrap();
        let elsewhere = Rmr::create(pz, RmrScope::Ep).unwrap();
        let inbox_at = 16 * PAGE + 1;
        let inbox = arena.slice(inbox_at, RECEIVES * INBOX).unwrap();
        let inbox = Lmr::create(Region::Virtual(inbox), pz, local, va).unwrap();
        let mut target = Target {
            places,
            inbox: (inbox_at, inbox),
            lmrs,
            rmr,
            window,
            standing,
            _other: (other, elsewhere),
            model,
            secret,
            arena,
            pair,
        };
        let place = target.bind(READ | WRITE);
        target.places.push(place);
        // A window of another connection alone.
        let context = target.bind_rmr(&target._other.1, READ | WRITE);
        target.places.push(Place {
            context,
            rights: none,
            ends: false,
            ..place
        });
        target
    }

    fn bind_rmr(&self, rmr: &Rmr, rights: Privileges) -> u32 {
        let lmr = &self.lmrs[0];
        let segment = lmr.segment(1000, 500);
        let ep = &self.standing.1;
        let va = VaType::Virtual;
        let context = rmr.bind(lmr, segment, rights, va, ep, 0, Flags::DEFAULT);
        let event = self.pair.event(&self.pair.b);
        assert!(
            matches!(
                event,
                Event::Bind {
                    status: DtoStatus::Success,
                    ..
                }
            ),
            "{event:?}"
        );
        context.unwrap()
    }

    /// Binds the window anew, as a place.
    fn bind(&self, rights: Privileges) -> Place {
        let region = self.places[0];
        Place {
            context: self.bind_rmr(&self.rmr, rights),
            at: region.at + 1000,
            len: 500,
            base: region.base + 1000,
            rights,
            ends: true,
        }
    }

    /// udapl.md section 5, rules 1 to 5.
    fn check(&self, frame: &Frame, len: u32, right: Privileges) -> Verdict {
        let fault = Verdict::Fault(DtoStatus::RemoteAccess);
        if len == 0 {
            return Verdict::Empty;
        }
        let mut places = self.places.iter();
        let Some(place) = places.find(|place| place.context == frame.context) else {
            return fault;
        };
        let offset = i128::from(frame.address) - i128::from(place.base);
        let inside = offset >= 0 && offset + i128::from(len) <= place.len as i128;
        if place.rights.contains(right) && inside {
            Verdict::At(place.at + offset as usize)
        } else {
            fault
        }
    }

    /// What becomes of a frame on a connection that has `receives` left.
    fn judge(&self, frame: &Frame, receives: usize) -> Verdict {
        let empty = frame.len == 0;
        if frame.ack != 0 && (1..=15).contains(&frame.kind) {
            return Verdict::Broken; // this side was sent nothing
        }
        match (frame.kind, frame.flags) {
            (4, 0) => self.check(frame, frame.len, WRITE),
            (5, 0) => self.check(frame, frame.len, READ),
            (6, 0) if receives == 0 => Verdict::Broken,
            (6, 0) if frame.len as usize > INBOX => Verdict::Fault(DtoStatus::RemoteResponder),
            (6, 0) => {
                let window = |place: &Place| place.ends && place.context == frame.context;
                if frame.context != 0 && !self.places.iter().any(window) {
                    return Verdict::Fault(DtoStatus::RemoteAccess);
                }
                Verdict::At(self.inbox.0 + (RECEIVES - receives) * INBOX)
            }
            (10, 0 | 1) if frame.len == 16 => match self.check(frame, 8, ATOMIC) {
                Verdict::At(at) => {
                    let real = (self.arena.addr() + at) as u64;
                    if frame.address.is_multiple_of(8) && real.is_multiple_of(8) {
                        Verdict::At(at)
                    } else {
                        Verdict::Fault(DtoStatus::RemoteResponder)
                    }
                }
                refused => refused,
            },
            (12, 0) if empty => Verdict::Nothing,
            (14, 0) if empty => Verdict::Left,
            _ => Verdict::Broken,
        }
    }

    /// A request that is fine.
    fn request(&self, random: &mut Random) -> Frame {
        let place = match random.below(200) {
            0 => self.places[7],
            n => self.places[[0, 0, 1, 2, 3, self.window][n % 6]],
        };
        let mut kinds = vec![6, 12];
        for (right, kind) in [(WRITE, 4), (READ, 5), (ATOMIC, 10)] {
            if place.rights.contains(right) {
                kinds.extend([kind; 4]);
            }
        }
        let kind = random.pick(&kinds);
        let most = match random.below(8) {
            0 => place.len,
            _ if place.len == LARGE => place.len,
            _ => 64,
        };
        let len = 1 + random.below(most.min(place.len));
        let offset = random.below(place.len - len + 1) as u64;
        match kind {
            6 => Frame::new(6, random.below(INBOX + 1) as u32, 0, random.bits()),
            12 => Frame::new(12, 0, 0, 0),
            10 => {
                // Aligned at once in the arena and as it is named, where both can be.
                let address = (place.base + offset.min(place.len as u64 - 16)).next_multiple_of(8);
                let mut frame = Frame::new(10, 16, place.context, address);
                frame.flags = random.below(2) as u8;
                frame
            }
            kind => Frame::new(kind, len as u32, place.context, place.base + offset),
        }
    }

    /// Changes a field or two.
    fn mutate(&self, frame: &mut Frame, random: &mut Random) {
        for _ in 0..1 + random.below(2) {
            let place = random.pick(&self.places);
            let near = random.below(3) as u64;
            let any = random.bits();
            let len = u64::from(frame.len);
            match random.below(9) {
                0 => frame.kind = random.bits() as u8 % 18,
                1 => frame.flags = random.pick(&[1, 2, 6, 7, 255]),
                2 => frame.ack = random.pick(&[1, u32::MAX, any as u32]),
                3 => {
                    let left = place.len as u32;
                    let any = any as u32;
                    let all = [0, 1, left, left + 1, 1 << 31, u32::MAX, any, 8, 16, 257];
                    frame.len = random.pick(&all);
                }
                4 => {
                    let bit = 1 << random.below(32);
                    let all = [0, frame.context ^ bit, any as u32, u32::MAX];
                    frame.context = random.pick(&all);
                }
                5 | 6 => frame.context = place.context,
                7 => {
                    let end = place.base + place.len as u64;
                    let all = [
                        place.base.wrapping_sub(1 + near),
                        end - near,
                        end.wrapping_sub(len).wrapping_add(near),
                        u64::MAX - near,
                        u64::MAX.wrapping_sub(len).wrapping_add(near),
                        near,
                        any,
                        frame.address ^ 1 << (any % 64),
                    ];
                    frame.address = random.pick(&all);
                }
                _ => frame.credits = any as u16,
            }
        }
    }
}

/// One connection, from the peer's side.
struct Session<'a> {
    target: &'a mut Target,
    random: &'a mut Random,
    bytes: Vec<u8>,
    /// Answers due, in order: where the bytes were read, and what was there; of an atomic nothing but the value.
    answers: Vec<(usize, Option<usize>, Vec<u8>)>,
    /// What was stored after how many answers.
    stores: Vec<(usize, usize, Vec<u8>)>,
    handled: u32,
    receives: usize,
    rebind: bool,
    has_read: bool,
}

/// How a session is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Fault(DtoStatus),
    Broken,
    Left,
    /// The peer closes in the middle of a request, or after the last.
    Cut,
    Whole,
}

impl Session<'_> {
    fn store(&mut self, at: usize, bytes: Vec<u8>) {
        self.target.model[at..at + bytes.len()].copy_from_slice(&bytes);
        self.stores.push((self.answers.len(), at, bytes));
    }

    /// One frame with what belongs to it. Gives how the session ends, if it does.
    fn add(&mut self, frame: &Frame, cut: bool) -> Option<Ending> {
        let begin = self.bytes.len();
        frame.encode(&mut self.bytes);
        let verdict = self.target.judge(frame, self.receives);
        if cut && self.random.below(2) == 0 {
            // Not even a header.
            self.bytes.truncate(begin + self.random.below(24));
            return Some(Ending::Cut);
        }
        let len = frame.len as usize;
        match verdict {
            Verdict::Fault(status) => {
                if frame.kind == 6 && status == DtoStatus::RemoteResponder {
                    self.receives -= 1; // told as LOCAL_LENGTH
                }
                // What follows is thrown away, payload or not.
                let more = self.random.below(300).max(16);
                self.bytes.resize(self.bytes.len() + more, 7);
                Some(Ending::Fault(status))
            }
            Verdict::Broken => {
                // An atomic is looked at with its operands.
                let operands = if frame.kind == 10 { 16 } else { 0 };
                self.bytes.resize(self.bytes.len() + operands, 7);
                Some(Ending::Broken)
            }
            Verdict::Left => Some(Ending::Left),
            Verdict::Nothing => None,
            Verdict::Empty => {
                if frame.kind == 5 {
                    self.answers.push((self.stores.len(), Some(0), Vec::new()));
                }
                self.handled += 1;
                None
            }
            Verdict::At(at) => match frame.kind {
                4 | 6 => self.payload(frame, at, len, cut),
                5 => {
                    let there = self.target.model[at..at + len].to_vec();
                    self.answers.push((self.stores.len(), Some(at), there));
                    self.has_read = true;
                    self.handled += 1;
                    None
                }
                _ => {
                    let operands: Vec<u8> = (0..16).map(|_| self.random.bits() as u8).collect();
                    self.bytes.extend(&operands);
                    if cut {
                        self.bytes.truncate(self.bytes.len() - 1);
                        return Some(Ending::Cut);
                    }
                    self.atomic(frame, at, &operands);
                    None
                }
            },
        }
    }

    fn atomic(&mut self, frame: &Frame, at: usize, operands: &[u8]) {
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes[..8].try_into().unwrap());
        let before = word(&self.target.model[at..]);
        let after = match frame.flags {
            0 => before.wrapping_add(word(operands)),
            _ if before == word(operands) => word(&operands[8..]),
            _ => before,
        };
        let old = before.to_ne_bytes().to_vec();
        self.answers.push((self.stores.len(), None, old));
        self.store(at, after.to_ne_bytes().to_vec());
        self.handled += 1;
    }

    fn payload(&mut self, frame: &Frame, at: usize, len: usize, cut: bool) -> Option<Ending> {
        let fill = self.random.bits();
        let data: Vec<u8> = (0..len).map(|i| (fill >> (i % 57)) as u8).collect();
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(CHUNK);
            if done > 0 {
                // In between something else may come, which breaks it, or more than was announced.
                let more = match self.random.below(6) {
                    0 => Frame::new(8, (len - done + 1).min(CHUNK + 1) as u32, 0, 0),
                    1 => Frame::new(self.random.pick(&[4, 5, 6, 10]), 16, 0, 0),
                    _ => Frame::new(8, piece as u32, 0, 0),
                };
                more.encode(&mut self.bytes);
                if more.kind != 8 || more.len as usize > piece {
                    self.bytes.extend([0; 16]);
                    self.store(at, data[..done].to_vec());
                    return Some(Ending::Broken);
                }
            }
            let sent = if cut { self.random.below(piece) } else { piece };
            self.bytes.extend(&data[done..done + sent]);
            done += sent;
            if cut {
                self.store(at, data[..done].to_vec());
                return Some(Ending::Cut);
            }
        }
        self.store(at, data);
        if frame.kind == 6 {
            self.receives -= 1;
            self.rebind |= frame.context != 0;
            if frame.context != 0 {
                self.target.places[self.target.window].ends = false;
                self.target.places[self.target.window].rights = Privileges::NONE;
            }
        }
        self.handled += 1;
        None
    }

    /// Sends everything, takes what comes, until the target ends the connection. Gives what it said.
    fn talk(&mut self, stream: &mut TcpStream, ending: Ending) -> Vec<u8> {
        let (mut sent, mut got) = (0, Vec::new());
        let mut closing = false;
        let begin = Instant::now();
        let mut chunk = vec![0; 64 * 1024];
        for turn in 1.. {
            if sent < self.bytes.len() {
                match stream.write(&self.bytes[sent..]) {
                    Ok(more) => sent += more,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => sent = self.bytes.len(), // it is closed already
                }
            }
            self.target.pair.b.ia.step();
            loop {
                match stream.read(&mut chunk) {
                    Ok(0) => return got,
                    Ok(more) => got.extend_from_slice(&chunk[..more]),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return got, // reset: it did not read all
                }
            }
            let all = ending != Ending::Whole || self.is_answered(&got);
            if sent == self.bytes.len() && all && !closing {
                closing = matches!(ending, Ending::Whole | Ending::Cut);
                if closing {
                    let _ = stream.shutdown(Shutdown::Write);
                }
            }
            let late = turn % 1000 == 0 && begin.elapsed() > WATCHDOG;
            assert!(!late, "{ending:?}: the target hangs");
        }
        got
    }

    /// Is the last request acknowledged?
    fn is_answered(&self, got: &[u8]) -> bool {
        let mut at = 0;
        let mut acked = 0;
        while got.len() >= at + 24 {
            acked = u32::from_le_bytes(got[at + 12..at + 16].try_into().unwrap());
            let len = u32::from_le_bytes(got[at + 4..at + 8].try_into().unwrap()) as usize;
            at += 24 + len.min(CHUNK);
        }
        at == got.len() && acked == self.handled
    }

    /// What the target said: the answers in order and nothing else; in the end a fault, if one is due.
    fn check_said(&self, got: &[u8], ending: Ending) {
        let mut rest = got;
        let mut due = self.answers.iter().enumerate();
        let mut fault = None;
        let mut left: Option<(usize, Vec<u8>)> = None;
        while let Some((head, more)) = rest.split_first_chunk::<24>() {
            let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            let (len, ack) = (number(4) as usize, number(12));
            assert!(ack <= self.handled && fault.is_none(), "{head:?}");
            let payload = match head[0] {
                7 | 9 => len.min(CHUNK),
                _ => 0,
            };
            if more.len() < payload {
                break; // it was cut
            }
            let (payload, more) = more.split_at(payload);
            match head[0] {
                2 => assert_eq!(rest.len(), got.len(), "accepted once"),
                12 => {}
                7 | 11 => {
                    let (index, (_, at, bytes)) = due.next().expect("an answer that is due");
                    assert_eq!(head[0] == 11, at.is_none());
                    if head[0] == 11 {
                        assert_eq!(head[16..24], bytes[..], "an atomic's value");
                    } else {
                        assert_eq!(len, bytes.len());
                        self.check_read(index, 0, payload);
                        left = (len > payload.len()).then(|| (index, payload.to_vec()));
                    }
                }
                9 => {
                    let (index, mut before) = left.take().expect("an answer goes on");
                    self.check_read(index, before.len(), payload);
                    before.extend_from_slice(payload);
                    let all = self.answers[index].2.len();
                    assert!(before.len() <= all);
                    left = (before.len() < all).then_some((index, before));
                }
                13 => {
                    assert_eq!(
                        (len, ack),
                        (0, self.handled),
                        "what was done before the fault"
                    );
                    // Nothing tells the causes apart.
                    assert!(head[8..12].iter().chain(&head[16..]).all(|byte| *byte == 0));
                    fault = Some(head[1]);
                }
                other => panic!("a frame of kind {other}: {head:?}"),
            }
            rest = more;
        }
        match ending {
            Ending::Fault(status) => assert_eq!(fault, Some(status as u8)),
            _ => assert_eq!(fault, None, "{ending:?}"),
        }
        if matches!(ending, Ending::Fault(_) | Ending::Whole) {
            assert!(due.next().is_none() && left.is_none() && rest.is_empty());
        }
    }

    /// Bytes of an answer: what was there when it was asked for, or what was stored there later (rule 5 of section 4.7).
    fn check_read(&self, index: usize, from: usize, payload: &[u8]) {
        let (stores, at, bytes) = &self.answers[index];
        let wanted = &bytes[from..from + payload.len()];
        if payload == wanted {
            return;
        }
        let start = at.expect("a read") + from;
        for (i, (byte, wanted)) in payload.iter().zip(wanted).enumerate() {
            let later = |(_, at, bytes): &(usize, usize, Vec<u8>)| {
                let inside = (start + i).checked_sub(*at);
                inside.and_then(|i| bytes.get(i)) == Some(byte)
            };
            let fine = byte == wanted || self.stores[*stores..].iter().any(later);
            assert!(fine, "byte {} of the arena was never {byte}", start + i);
        }
    }

    /// The endpoint's events: every receive comes back once, then the end.
    fn check_events(&self, ending: Ending) {
        let evd = &self.target.pair.b.evd;
        let (mut done, mut others, mut ends) = (0, 0, Vec::new());
        while let Some(event) = evd.dequeue() {
            match event {
                Event::Dto(completion) if completion.status == DtoStatus::Success => done += 1,
                Event::Dto(_) => others += 1,
                Event::Connection { kind, .. } => ends.push(kind),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(done + others, RECEIVES);
        let too_long = ending == Ending::Fault(DtoStatus::RemoteResponder);
        assert!(done == RECEIVES - self.receives || too_long && done < RECEIVES);
        let last = match ending {
            Ending::Fault(_) | Ending::Left => ConnectionKind::Disconnected,
            Ending::Broken | Ending::Cut | Ending::Whole => ConnectionKind::Broken,
        };
        assert_eq!(ends, [ConnectionKind::Established, last], "{ending:?}");
    }
}

impl Target {
    /// Proves itself, and is accepted.
    fn enter(&self) -> (TcpStream, Ep) {
        let mut stream = TcpStream::connect(self.pair.b.ia.local_addr()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        let (initiator, hello) = auth::Initiator::new(&self.secret);
        stream.write_all(&hello).unwrap();
        let mut challenge = [0; auth::CHALLENGE];
        self.until(|| stream.read_exact(&mut challenge).ok());
        let mut bytes = initiator.on_challenge(challenge).unwrap().to_vec();
        let protocol = u32::from_le_bytes(*b"WDA\x02");
        Frame::new(1, 0, protocol, 7).encode(&mut bytes);
        stream.write_all(&bytes).unwrap();
        let Event::ConnectionRequest(cr) = self.until(|| self.pair.b.evd.dequeue()) else {
            panic!("no connection request");
        };
        let ep = self.pair.b.ep();
        for number in 0..RECEIVES {
            let segment = self.inbox.1.segment((number * INBOX) as u64, INBOX as u32);
            ep.post_recv(&[segment], 0, Flags::DEFAULT).unwrap();
        }
        cr.accept(&ep, &[]).unwrap();
        (stream, ep)
    }

    fn until<T>(&self, mut done: impl FnMut() -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            self.pair.b.ia.step();
            if let Some(value) = done() {
                return value;
            }
            assert!(begin.elapsed() < WATCHDOG, "the target hangs");
        }
    }

    /// One connection; gives how many requests it had, and how it ended.
    fn session(&mut self, random: &mut Random) -> (usize, Ending) {
        let (mut stream, ep) = self.enter();
        let mut session = Session {
            target: self,
            random,
            bytes: Vec::new(),
            answers: Vec::new(),
            stores: Vec::new(),
            handled: 0,
            receives: RECEIVES,
            rebind: false,
            has_read: false,
        };
        Frame::new(12, 0, 0, 0).encode(&mut session.bytes); // what establishes
        let (mut count, mut ending) = (0, None);
        let most = 1 + session.random.below(BATCH);
        while count < most && ending.is_none() {
            count += 1;
            let mut frame = session.target.request(session.random);
            let mut cut = false;
            if session.random.below(MUTATED) == 0 {
                cut = session.random.below(8) == 0;
                if !cut {
                    session.target.mutate(&mut frame, session.random);
                }
            }
            // A message without a fence may end a window before an earlier read of it is answered (rule 5).
            if frame.kind == 6 && session.has_read {
                frame.context = 0;
            }
            ending = session.add(&frame, cut);
        }
        let ending = ending.unwrap_or(Ending::Whole);
        let got = session.talk(&mut stream, ending);
        session.check_said(&got, ending);
        drop(stream);
        session
            .target
            .until(|| (ep.state() == EpState::Disconnected).then_some(()));
        session.check_events(ending);
        let rebind = session.rebind;
        let large = session.bytes.len() > 3 * PAGE;
        self.check_memory(large);
        if rebind {
            self.places[self.window] = self.bind(READ | WRITE);
        }
        (count, ending)
    }

    /// Everything holds what it must: places and guards.
    fn check_memory(&self, whole: bool) {
        let len = if whole { self.arena.len() } else { 18 * PAGE };
        let mut seen = vec![0; len];
        self.arena.read(0, &mut seen).unwrap();
        if seen != self.model[..len] {
            let at = seen.iter().zip(&self.model).position(|(a, b)| a != b);
            panic!("byte {at:?} of the arena is not what it must be");
        }
    }
}

/// A line of /proc/self/status, in KiB.
fn memory_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn mutated_requests_are_carried_out_or_refused_as_documented() {
    let wanted = std::env::var("WLTEST_REQUESTS").map_or(REQUESTS, |n| n.parse().unwrap());
    let mut target = Target::new();
    let mut random = Random(5);
    let begin = Instant::now();
    let (mut requests, mut sessions) = (0, 0);
    let mut warm = None;
    let mut endings = std::collections::BTreeMap::new();
    while requests < wanted {
        let (count, ending) = target.session(&mut random);
        requests += count;
        sessions += 1;
        *endings.entry(format!("{ending:?}")).or_insert(0) += 1;
        if requests > wanted / 4 && warm.is_none() {
            warm = Some(memory_kib("VmHWM"));
        }
    }
    target.check_memory(true);
    let warm = warm.expect("the first quarter is behind us");
    let grown = memory_kib("VmHWM") - warm;
    println!(
        "{requests} requests on {sessions} connections in {:?}: {endings:?}; memory {warm} KiB, then {grown} KiB more",
        begin.elapsed()
    );
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    for ending in [
        "Broken",
        "Cut",
        "Fault(RemoteAccess)",
        "Fault(RemoteResponder)",
        "Left",
        "Whole",
    ] {
        assert!(endings.contains_key(ending), "{ending} never came about");
    }
}

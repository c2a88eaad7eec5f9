//! Random and mutated bytes at the service's socket, from visitors of a node, about its VEs and its segments: whatever they say, the worst they do is end
//! their own connection. What they were given returns, and the service neither grows nor loses its other users.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use windlass_node::wire::{self, Fault, Greeting, Reply, Request, Token};
use windlass_node::{Address, Door, Service, Status, Watcher};
use windlass_ve::{Area, Damage, Mode, PageMode, PageSize, Profile, Ticket, Vehva, Vemva};
use windlass_wire::frame;

/// Messages sent.
const CASES: u32 = 100_000;
/// A hang is a failure.
const LIMIT: Duration = Duration::from_secs(240);
/// The service may keep so many bytes more after all of them than after the first tenth.
const GROWTH_BYTES: u64 = 16 << 20;

fn watchdog() -> std::sync::mpsc::Sender<()> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        if receiver.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("watchdog: a test has hung");
            std::process::abort();
        }
    });
    sender
}

/// Numbers that are the same in every run (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A number as requests have them: small, round, huge, or any.
    fn number(&mut self) -> u64 {
        match self.below(5) {
            0 => self.next() % 8,
            1 => (self.next() % 64) << 21,
            2 => (self.next() % 64) << 26,
            3 => u64::MAX - self.next() % 8,
            _ => self.next(),
        }
    }

    fn area(&mut self) -> Area {
        Area {
            vemva: Vemva::new(self.number()),
            size: self.number(),
            syncnum: self.number() as i32,
            mode: self.mode(),
        }
    }

    fn mode(&mut self) -> Mode {
        let flags = [0x1, 0x2, 0x4, 0x10, 0x20, 0x1000, 0x2000, 0x4000, 0x8000];
        let chosen = (0..2).fold(0, |mode, _| mode | flags[self.below(flags.len())]);
        Mode::new(if self.below(8) == 0 {
            self.next() as i64
        } else {
            chosen
        })
    }

    fn page(&mut self) -> PageSize {
        [PageSize::M2, PageSize::M64, PageSize::M256][self.below(3)]
    }

    fn ve_request(&mut self) -> windlass_ve::Request {
        use windlass_ve::Request as Ve;
        let vemva = Vemva::new(self.number());
        let (ticket, pid) = (Ticket(self.next() % 64), self.number() as i32);
        let pid = if self.below(2) == 0 {
            std::process::id() as i32
        } else {
            pid
        };
        match self.below(17) {
            0 => Ve::Hello,
            1 => Ve::Linked { page: self.page() },
            2 => Ve::Thread {
                begins: self.below(2) == 0,
            },
            3 => Ve::Dmades {
                mapped: self.below(2) == 0,
            },
            4 => Ve::Memory {
                ve: self.number() as u32,
            },
            5 | 6 => Ve::Allocate {
                len: self.number(),
                page: self.page(),
            },
            7 | 8 => Ve::Bind { ticket, vemva },
            9 => Ve::Release { ticket },
            10 => Ve::Free {
                vemva,
                len: self.number(),
            },
            11 => Ve::Protect {
                vemva,
                len: self.number(),
                writable: self.below(2) == 0,
            },
            12 => Ve::Open(self.area()),
            13 => Ve::Attach {
                pid,
                area: self.area(),
            },
            14 => match self.below(2) {
                0 => Ve::Close(self.area()),
                _ => Ve::Detach {
                    address: self.number(),
                    mode: self.mode(),
                },
            },
            15 => match self.below(3) {
                0 => Ve::PageMode {
                    mode: PageMode(self.number() as i64),
                    pid,
                    address: self.number(),
                },
                1 => Ve::SegmentDetach {
                    vehva: Vehva::new(self.number()),
                },
                _ => Ve::SegmentAttach {
                    shmid: self.number() as i32,
                    len: self.number(),
                    writable: self.below(2) == 0,
                    huge: self.below(2) == 0,
                },
            },
            _ => Ve::Veo {
                pid,
                vemva,
                len: self.number(),
            },
        }
    }

    fn damage(&mut self) -> Damage {
        match self.below(5) {
            0 => Damage::SwappedOut,
            1 => Damage::SwappedIn,
            2 => Damage::Doubled,
            3 => Damage::Counted,
            _ => Damage::Forgotten,
        }
    }

    fn rsm_request(&mut self) -> windlass_rsm::Request {
        use windlass_rsm::{Access, AccessEntry, Door, Key, Request as Rsm, Target};
        // Names count from 1, so that some are real.
        let (export, connection) = (self.next() % 32, self.next() % 32);
        let (id, once) = (self.number() as u32, self.below(2) == 0);
        let permission = self.next() as u32 & 0o1777;
        let entry = AccessEntry {
            node: self.number() as u32,
            permission,
        };
        let access = match self.below(2) {
            0 => Access::Every(permission),
            _ => Access::Listed(vec![entry; self.below(300)]),
        };
        match self.below(11) {
            0 => Rsm::Info,
            1 => Rsm::Create { cluster: once },
            2 => Rsm::Destroy { export },
            3 => Rsm::Publish {
                export,
                id,
                access,
                door: once.then(|| Door {
                    at: ([127, 0, 0, 1], self.next() as u16).into(),
                    secret: Key::from_bytes([7; 32]),
                }),
            },
            4 => Rsm::Unpublish { export },
            5 => Rsm::Republish { export, access },
            6 => Rsm::Rebind { export },
            7 => Rsm::Connect {
                cluster: once,
                node: self.number() as u32,
                id,
                permission,
            },
            8 => match self.below(2) {
                0 => Rsm::Reopen { connection },
                _ => Rsm::Disconnect { connection },
            },
            9 => {
                let to = match self.below(2) {
                    0 => Target::Importers(export),
                    _ => Target::Exporter(connection),
                };
                Rsm::Post { to, once }
            }
            _ => Rsm::Network,
        }
    }

    /// A well-formed request with any values.
    fn request(&mut self) -> Request {
        match self.below(30) {
            0 => Request::Abort {
                code: self.next() as i32,
                message: "x".repeat(self.below(2000)),
            },
            1 => Request::Deposit,
            2 => Request::Withdraw {
                token: Token([self.next() as u8; 16]),
            },
            3 => Request::GatherPart {
                round: self.number(),
                rank: self.number() as u32,
                blob: vec![7; self.below(9000)],
            },
            4 => Request::GatherCollect {
                round: self.number(),
                have: self.number() as u32,
            },
            5 => Request::Status,
            6 => Request::StopVe {
                ve: self.number() as u32,
            },
            7 => Request::Stop,
            8 => Request::Fault(Fault::Process(self.number() as i32, self.damage())),
            9..=14 => Request::Rsm(self.rsm_request()),
            _ => Request::Ve(self.ve_request()),
        }
    }

    /// The bytes of one message: right, mutated inside its frame, or no message at all; and whether a whole frame is sure.
    fn message(&mut self) -> (Vec<u8>, bool) {
        let mut body = wire::encode(&self.request(), 0).unwrap();
        match self.below(50) {
            0..=39 => (frame(&body), true),
            40..=44 => {
                for _ in 0..=self.below(3) {
                    let at = self.below(body.len());
                    body[at] = self.next() as u8;
                }
                (frame(&body), true)
            }
            45 => {
                body.truncate(1 + self.below(body.len()));
                (frame(&body), true)
            }
            46 => {
                body.extend((0..self.below(200)).map(|_| 0xAA));
                (frame(&body), true)
            }
            // The frame itself.
            47 => {
                let mut bytes = frame(&body);
                let at = self.below(bytes.len());
                bytes[at] ^= 1 << self.below(8);
                (bytes, false)
            }
            _ => (
                (0..self.below(300)).map(|_| self.next() as u8).collect(),
                false,
            ),
        }
    }
}

/// A raw connection that was admitted; `None` where the greeting, mutated at times, was not taken.
fn enter(service: &Service, chance: &mut Chance) -> Option<UnixStream> {
    let mut socket = UnixStream::connect(service.socket_path()).unwrap();
    socket.set_read_timeout(Some(LIMIT / 4)).unwrap();
    let greeting = Greeting::Visitor(Some(chance.below(2) as u32));
    let mut body = wire::encode_greeting(&greeting);
    if chance.below(8) == 0 {
        let at = chance.below(body.len());
        body[at] = chance.next() as u8;
    }
    socket.write_all(&frame(&body)).ok()?;
    matches!(answer(&mut socket)?, Reply::Admitted).then_some(socket)
}

/// The answer, if one came before the connection's end or in time.
fn answer(socket: &mut UnixStream) -> Option<Reply> {
    let body = windlass_wire::read_frame(socket, wire::MAX_MESSAGE).ok()??;
    Some(wire::decode(&body).expect("the service speaks well").1)
}

fn resident_bytes() -> u64 {
    let mut text = String::new();
    let mut file = std::fs::File::open("/proc/self/statm").unwrap();
    file.read_to_string(&mut text).unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_hundred_thousand_messages_of_visitors_harm_nobody() {
    let _watchdog = watchdog();
    let base = tempfile::tempdir().unwrap();
    let (events, _heard) = channel();
    let door = Door::Private(base.path().to_owned());
    let service = Service::open(2, Profile::VE1, door, events).unwrap();
    let watcher = Watcher::look(&Address::Path(service.socket_path().to_owned())).unwrap();
    let before: Status = watcher.status().unwrap();
    let mut chance = Chance(4);
    let (mut sent, mut answered, mut entered) = (0u32, 0u32, 0u32);
    let mut early = None;
    while sent < CASES {
        let Some(mut socket) = enter(&service, &mut chance) else {
            sent += 1;
            continue;
        };
        entered += 1;
        for _ in 0..chance.below(200) {
            sent += 1;
            let (message, whole) = chance.message();
            if message.is_empty() {
                continue;
            }
            let sent = socket.write_all(&message);
            if !whole {
                // What waits for more bytes is told that there are none.
                let _ = socket.shutdown(std::net::Shutdown::Write);
            }
            if sent.is_err() || answer(&mut socket).is_none() {
                break;
            }
            answered += 1;
        }
        if sent > CASES / 10 && early.is_none() {
            early = Some((resident_bytes(), open_files()));
        }
    }
    eprintln!("{sent} messages on {entered} connections, {answered} answered");
    assert!(answered > CASES / 2, "most were understood: {answered}");
    let begun = Instant::now();
    while watcher.status().unwrap() != before {
        assert!(begun.elapsed() < LIMIT / 4, "{:?}", watcher.status());
        std::thread::sleep(Duration::from_millis(5));
    }
    let (memory, files) = early.unwrap();
    assert!(resident_bytes() < memory + GROWTH_BYTES, "memory grows");
    assert!(open_files() <= files, "descriptors are left");
    drop(watcher);
    service.stop();
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

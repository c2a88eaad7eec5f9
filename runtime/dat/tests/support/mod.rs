//! Two adapters in one process, stepped by hand.
#![allow(dead_code, reason = "each test program uses its part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_dat::*;
use windlass_mem::SharedBytes;

/// Limit of every wait here: a hang is a failure.
pub const WATCHDOG: Duration = Duration::from_secs(120);

pub fn memory(len: usize) -> SharedBytes {
    windlass_mem::lend(vec![0u8; len]).0
}

pub fn adapter(secret: &Secret) -> Arc<Ia> {
    let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Ia::open(Config {
        secret: secret.clone(),
        bind,
    })
    .unwrap()
}

/// One side: an adapter with one dispatcher for all its events.
pub struct Side {
    pub ia: Arc<Ia>,
    pub pz: Pz,
    pub evd: Evd,
    pub psp: Psp,
}

impl Side {
    pub fn new(secret: &Secret) -> Self {
        let ia = adapter(secret);
        let pz = Pz::create(&ia);
        let evd = Evd::create(&ia, 100_000, EvdFlags::ALL).unwrap();
        let psp = Psp::create(&evd, &ia, 7).unwrap();
        Self { ia, pz, evd, psp }
    }

    pub fn ep(&self) -> Ep {
        self.ep_in(&self.pz)
    }

    pub fn ep_in(&self, pz: &Pz) -> Ep {
        let evd = Some(&self.evd);
        let attr = EpAttr {
            max_request_dtos: 20_000,
            unsignalled: true,
            ..EpAttr::default()
        };
        Ep::create(pz, evd, evd, evd, attr).unwrap()
    }

    /// Registers `len` zeroed bytes.
    pub fn region(&self, len: usize, privileges: Privileges) -> (SharedBytes, Lmr) {
        let bytes = memory(len);
        let lmr = Lmr::create(
            Region::Virtual(bytes.clone()),
            &self.pz,
            privileges,
            VaType::Virtual,
        )
        .unwrap();
        (bytes, lmr)
    }
}

pub struct Pair {
    pub a: Side,
    pub b: Side,
}

pub fn remote(lmr: &Lmr, offset: u64, len: u32) -> RemoteSegment {
    RemoteSegment {
        context: lmr.rmr_context(),
        address: lmr.address().wrapping_add(offset),
        len,
    }
}

impl Pair {
    pub fn new() -> Self {
        let secret = Secret::random();
        Self {
            a: Side::new(&secret),
            b: Side::new(&secret),
        }
    }

    pub fn step(&self) -> bool {
        self.a.ia.step() | self.b.ia.step()
    }

    pub fn until<T>(&self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            self.step();
            if let Some(value) = done() {
                return value;
            }
            assert!(start.elapsed() < WATCHDOG, "waited too long for {what}");
        }
    }

    pub fn event(&self, side: &Side) -> Event {
        self.until("an event", || side.evd.dequeue())
    }

    pub fn dto(&self, side: &Side) -> DtoCompletion {
        match self.event(side) {
            Event::Dto(completion) => completion,
            other => panic!("{other:?} instead of a completion"),
        }
    }

    pub fn connection(&self, side: &Side) -> ConnectionKind {
        match self.event(side) {
            Event::Connection { kind, .. } => kind,
            other => panic!("{other:?} instead of a connection event"),
        }
    }

    /// An endpoint of `a` connected to one of `b`.
    pub fn connect(&self) -> (Ep, Ep) {
        self.connect_eps(self.a.ep(), self.b.ep())
    }

    pub fn connect_eps(&self, a: Ep, b: Ep) -> (Ep, Ep) {
        a.connect(self.b.ia.local_addr(), 7, Some(WATCHDOG), b"hello")
            .unwrap();
        let Event::ConnectionRequest(cr) = self.event(&self.b) else {
            panic!("no request")
        };
        assert_eq!(cr.private_data(), b"hello");
        cr.accept(&b, b"welcome").unwrap();
        match self.event(&self.a) {
            Event::Connection {
                kind,
                ep,
                private_data,
            } => {
                assert_eq!(kind, ConnectionKind::Established);
                assert_eq!(ep, a.id());
                assert_eq!(&*private_data, b"welcome");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(self.connection(&self.b), ConnectionKind::Established);
        assert_eq!(a.state(), EpState::Connected);
        assert_eq!(b.state(), EpState::Connected);
        (a, b)
    }
}

pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

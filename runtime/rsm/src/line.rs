//! An importer's connection to the exporter of another node's segment: RDMA reads and writes, carried out by the exporter's process.
//!
//! It is made at the first transfer, and anew when the exporter has ended it, as it does when the segment's memory moves or more come
//! to it than it lets in: then what was not answered is done again, which harms nothing, since whoever has ended a connection has said
//! what is done and does nothing more of it. An exporter that does not know the key any more has ended the segment; of one that is
//! not there the services say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use windlass_dat::{
    ConnectionKind, DtoStatus, Ep, EpAttr, EpState, Evd, EvdFlags, Event, Flags, Ia, Lmr,
    LocalSegment, Privileges, Pz, Region, RemoteSegment, Type, VaType,
};
use windlass_mem::SharedBytes;

use crate::code::Code;
use crate::gate::SERVICE;
use crate::pass::Pass;
use crate::transfer::Way;

/// Requests on their way at most.
const DEPTH: usize = 128;
/// The longest, whose length has 32 bits.
const LONGEST: usize = 1 << 30;
/// How long a caller looks before it sleeps; and how long it sleeps before it looks at the counters.
const SPIN: Duration = Duration::from_micros(50);
const SLEEP: Duration = Duration::from_millis(10);
/// How long it sleeps where nobody can wake it.
const BLIND: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};
/// How long it is tried to come to an exporter that lives and does not let in; one that is stopped is waited for.
const CONNECT_TIME: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// Refusals in a row of one transfer: a memory that moves faster is out of reach.
const REFUSALS: usize = 256;

/// The way to a segment of another node.
#[derive(Debug)]
pub(crate) struct Line {
    pass: Pass,
    /// The exporter has gone. It never comes back.
    lost: AtomicBool,
    live: Mutex<Option<Live>>,
}

/// One transfer.
pub(crate) struct Job<'a> {
    pub(crate) way: Way,
    /// First byte in the segment.
    pub(crate) at: usize,
    pub(crate) local: &'a SharedBytes,
}

/// Why a transfer is not done.
enum End {
    /// The exporter has ended the connection, and may let in again.
    Ended,
    /// The exporter has gone, or the segment.
    Lost,
    /// This process lacks something.
    Lacking,
}

impl From<windlass_dat::Error> for End {
    fn from(error: windlass_dat::Error) -> Self {
        match error.kind {
            Type::InvalidState => Self::Ended,
            _ => {
                tracing::debug!(%error, "a segment of another node is out of reach");
                Self::Lacking
            }
        }
    }
}

impl Line {
    pub(crate) fn new(pass: Pass) -> Self {
        Self {
            pass,
            lost: AtomicBool::new(false),
            live: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Ends the connection.
    pub(crate) fn hang_up(&self) {
        let live = self.live.lock().take();
        drop(live);
    }

    /// Carries out a transfer; `over` says that the segment has ended. What was written is in the exporter's memory when this
    /// returns.
    ///
    /// # Errors
    /// [`Code::ConnAborted`]; [`Code::InsufficientResources`]; [`Code::BarrierFailure`]: the segment's memory moves all the time.
    pub(crate) fn carry(
        &self,
        ia: &Arc<Ia>,
        over: &dyn Fn() -> bool,
        job: &Job<'_>,
    ) -> Result<(), Code> {
        let mut live = self.live.lock();
        for _ in 0..REFUSALS {
            if over() {
                return Err(Code::ConnAborted);
            }
            // What has come since the last transfer, an end above all.
            while ia.step() {}
            let usable = live.take().filter(Live::is_connected);
            let ready = usable.map_or_else(|| self.connect(ia, over), Ok);
            let done = ready.and_then(|ready| ready.run(ia, over, job).map(|()| ready));
            match done {
                Ok(ready) => {
                    *live = Some(ready);
                    return Ok(());
                }
                Err(End::Ended) => {}
                Err(End::Lacking) => return Err(Code::InsufficientResources),
                Err(End::Lost) => {
                    self.lost.store(true, Ordering::Release);
                    return Err(Code::ConnAborted);
                }
            }
        }
        Err(Code::BarrierFailure)
    }

    fn connect(&self, ia: &Arc<Ia>, over: &dyn Fn() -> bool) -> Result<Live, End> {
        let until = Instant::now() + CONNECT_TIME;
        loop {
            let mut live = Live::new(ia)?;
            let key = self.pass.key.bytes();
            live.ep.connect(self.pass.at, SERVICE, None, key)?;
            let kind = loop {
                if let Event::Connection {
                    kind, private_data, ..
                } = live.next(ia, over)?
                {
                    if kind == ConnectionKind::Established {
                        let context = private_data.first_chunk().ok_or(End::Lost)?;
                        live.context = u32::from_le_bytes(*context);
                        return Ok(live);
                    }
                    break kind;
                }
            };
            // Without a room for this key the segment has ended. An exporter that is not there has gone, as the services will
            // say, or has no room for anybody: many come to it at once.
            if kind == ConnectionKind::PeerRejected || over() {
                return Err(End::Lost);
            }
            if Instant::now() >= until {
                return Err(End::Lacking);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// A connection.
struct Live {
    ep: Ep,
    evd: Evd,
    pz: Pz,
    /// What the exporter calls its memory.
    context: u32,
}

impl Live {
    fn new(ia: &Arc<Ia>) -> Result<Self, End> {
        let pz = Pz::create(ia);
        let flags = EvdFlags::DTO | EvdFlags::CONNECTION;
        let evd = Evd::create(ia, 2 * DEPTH, flags)?;
        let attr = EpAttr {
            max_request_dtos: DEPTH,
            max_recv_dtos: 0,
            ..EpAttr::default()
        };
        let ep = Ep::create(&pz, None, Some(&evd), Some(&evd), attr)?;
        Ok(Self {
            ep,
            evd,
            pz,
            context: 0,
        })
    }

    fn is_connected(&self) -> bool {
        self.ep.state() == EpState::Connected
    }

    fn run(&self, ia: &Arc<Ia>, over: &dyn Fn() -> bool, job: &Job<'_>) -> Result<(), End> {
        let rights = match job.way {
            Way::Get => Privileges::LOCAL_READ | Privileges::LOCAL_WRITE,
            Way::Put => Privileges::LOCAL_READ,
        };
        // Freed before this returns: nothing of a transfer that failed touches the caller's memory afterwards.
        let region = Region::Virtual(job.local.clone());
        let lmr = Lmr::create(region, &self.pz, rights, VaType::ZeroBased)?;
        let len = job.local.len();
        let (mut posted, mut on_way) = (0, 0);
        while posted < len || on_way > 0 {
            while posted < len && on_way < DEPTH {
                let part = LONGEST.min(len - posted);
                self.post(&lmr, job, posted, part)?;
                posted += part;
                on_way += 1;
            }
            match self.next(ia, over)? {
                Event::Dto(done) if done.status == DtoStatus::Success => on_way -= 1,
                Event::Dto(done) => return Err(self.why(done.status)),
                Event::Connection { kind, .. } => return Err(ended(kind)),
                _ => {}
            }
        }
        Ok(())
    }

    fn post(&self, lmr: &Lmr, job: &Job<'_>, from: usize, len: usize) -> Result<(), End> {
        let len = len as u32;
        let local = [LocalSegment {
            context: lmr.context(),
            address: from as u64,
            len,
        }];
        let remote = RemoteSegment {
            context: self.context,
            address: (job.at + from) as u64,
            len,
        };
        match job.way {
            Way::Get => self.ep.post_rdma_read(&local, 0, remote, Flags::DEFAULT)?,
            Way::Put => self.ep.post_rdma_write(&local, 0, remote, Flags::DEFAULT)?,
        }
        Ok(())
    }

    /// Why the connection has ended with which a request failed.
    fn why(&self, status: DtoStatus) -> End {
        if status == DtoStatus::RemoteAccess {
            return End::Ended;
        }
        loop {
            match self.evd.dequeue() {
                Some(Event::Connection { kind, .. }) => return ended(kind),
                Some(Event::Dto(done)) if done.status == DtoStatus::RemoteAccess => {
                    return End::Ended;
                }
                Some(_) => {}
                None => return End::Lost,
            }
        }
    }

    /// The next event, or the end of the segment.
    fn next(&self, ia: &Arc<Ia>, over: &dyn Fn() -> bool) -> Result<Event, End> {
        let begun = Instant::now();
        loop {
            ia.step();
            if let Some(event) = self.evd.dequeue() {
                return Ok(event);
            }
            if begun.elapsed() < SPIN {
                std::hint::spin_loop();
                continue;
            }
            if over() {
                return Err(End::Lost);
            }
            match self.evd.wait(Some(SLEEP), 1) {
                Ok((event, _)) => return Ok(event),
                Err(error) if error.kind == Type::TimeoutExpired => {}
                // No descriptor is left for a bell: another thread that takes the event in cannot say so.
                Err(error) if error.kind == Type::InsufficientResources => {
                    let _ = poll(&mut [PollFd::new(&**ia, PollFlags::IN)], Some(&BLIND));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whoever has said goodbye may let in again; without it nobody knows what is done.
fn ended(kind: ConnectionKind) -> End {
    match kind {
        ConnectionKind::Disconnected => End::Ended,
        _ => End::Lost,
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("ep", &self.ep).finish()
    }
}

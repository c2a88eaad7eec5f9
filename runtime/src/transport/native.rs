//! VE memory of a card, by libveo (`WINDLASS_VE=native`): ranks run on the host, their windows lie on a VE.
//!
//! No address space of the host has that memory, and libveo reaches only processes that this one made (ve-memory 12). So a
//! rank that lives on a VE makes a process there, whose memory its windows are, and opens it as VESHM. Whoever reaches it makes
//! a process of its own on the same VE, once, attaches the memory there at a VEMVA (ve-memory 5.2), and reads and writes by
//! VEO transfers, which need nobody's help. The rank itself does so by its first process. Updates are made where the memory
//! is: by the rank or its helper thread, in turns; who is on another node gets there by them alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use windlass_mem::{SharedBytes, sync};
use windlass_native::veo::{Area, Mapped, Memory, Opened, Process, Registration, Veo};
use windlass_native::{Error, Result};
use windlass_wire::{Put, Take};

use crate::completion::Queue;
use crate::mechanism::{
    Accepted, Completion, Cost, Engine, Export, Fault, Limits, Mechanism, MechanismId, Peer,
    PostError, Reason, RemoteRange, Transfer, Verb,
};
use crate::progress::Health;
use crate::region::{Backing, Segment};
use crate::route::{Posted, Route};
use crate::transport::Context;
use crate::update::{self, Refused, Unit};

/// VESHM is whole pages (ve-memory 1: 64 MiB by default).
pub(crate) const PAGE_BYTES: usize = 64 << 20;

/// Zeros are written in pieces of so many bytes.
const ZEROS_BYTES: usize = 1 << 20;

/// The longest update of a rank's own memory, in bytes.
const UPDATE_BYTES: usize = 1 << 16;

/// The library, and this process's processes on VEs: one on each, made when it is first needed.
pub struct Native {
    veo: Arc<Veo>,
    processes: Mutex<BTreeMap<u32, Arc<Process>>>,
}

impl Native {
    /// Loads the library that the environment names.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) fn load() -> Result<Arc<Native>> {
        Ok(Arc::new(Native {
            veo: Veo::load_named()?,
            processes: Mutex::default(),
        }))
    }

    /// This process's process on that VE.
    ///
    /// # Errors
    /// There is no such VE, or it takes no process more.
    pub(crate) fn process(&self, ve: u32) -> Result<Arc<Process>> {
        let mut processes = self.processes.lock();
        if let Some(process) = processes.get(&ve) {
            return Ok(Arc::clone(process));
        }
        let process = self.veo.create(Some(ve))?;
        processes.insert(ve, Arc::clone(&process));
        Ok(process)
    }

    /// Memory of that VE, whole pages. It holds what it held before.
    ///
    /// # Errors
    /// The VE has no memory left.
    pub(crate) fn allocate(&self, ve: u32, len: usize) -> Result<NativeMemory> {
        let memory = self.process(ve)?.alloc(len)?;
        Ok(NativeMemory {
            ve,
            memory,
            turn: AtomicU64::new(0),
        })
    }
}

/// VE memory of this rank.
pub struct NativeMemory {
    ve: u32,
    memory: Arc<Memory>,
    /// 0, or somebody updates elements.
    turn: AtomicU64,
}

impl NativeMemory {
    /// Bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.memory.len()
    }

    /// Makes a range zero.
    pub(crate) fn clear(&self, offset: usize, len: usize) -> Result<()> {
        let zeros = vec![0; ZEROS_BYTES.min(len)];
        let ends = offset + len;
        let mut pieces = (offset..ends).step_by(ZEROS_BYTES);
        pieces.try_for_each(|at| self.memory.write(at, &zeros[..ZEROS_BYTES.min(ends - at)]))
    }

    /// Runs `update` on a copy of a range, whose address is aligned as the range's, and writes back what it changes. One at a
    /// time: that is what makes updates atomic to each other.
    pub(crate) fn change(
        &self,
        offset: usize,
        len: usize,
        update: impl FnOnce(&SharedBytes, usize, Unit<'_>) -> std::result::Result<(), Refused>,
    ) -> Result<std::result::Result<(), Refused>> {
        let held = sync::hold(&self.turn, true, || Ok::<(), Error>(()))?;
        let mut old = vec![0; len];
        self.memory.read(offset, &mut old)?;
        let before = offset % size_of::<u64>();
        let words = vec![0u64; (before + len).div_ceil(size_of::<u64>())];
        let (copy, _loan) = windlass_mem::lend(words);
        let mut new = vec![0; len];
        let changed = copy.write(before, &old).map_err(Refused::from);
        let changed = changed
            .and_then(|()| update(&copy, before, Unit::Held(&held)))
            .and_then(|()| copy.read(before, &mut new).map_err(Refused::from));
        // What stays as it is, is not written: a plain store of the rank itself may have come between.
        if changed.is_ok() && new != old {
            self.memory.write(offset, &new)?;
        }
        Ok(changed)
    }

    /// Replaces a range, in turn with the updates.
    pub(crate) fn replace(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let _held = sync::hold(&self.turn, true, || Ok::<(), Error>(()))?;
        self.memory.write(offset, bytes)
    }

    /// The way of rank `rank`, whose memory it is.
    pub(crate) fn route(self: &Arc<Self>, rank: u32, health: &Arc<Health>) -> Route {
        let engine = Arc::new(Own {
            memory: Arc::clone(self),
            done: Mutex::default(),
        });
        let queue = Queue::new(MechanismId::Loopback, engine, Arc::clone(health));
        let remote = RemoteRange::new(0, self.len() as u64, 0);
        Route::Posted(Posted::new(Arc::new(queue), rank, remote))
    }
}

/// VEO transfers to VE memory of the ranks of this node.
pub struct NativeVeo {
    rank: u32,
    node: u32,
    native: Arc<Native>,
    health: Arc<Health>,
}

impl NativeVeo {
    /// The mechanism of this rank.
    pub fn new(context: &Context, native: &Arc<Native>) -> NativeVeo {
        NativeVeo {
            rank: context.rank,
            node: context.node,
            native: Arc::clone(native),
            health: Arc::clone(&context.health),
        }
    }
}

/// What a descriptor says, as an allegation; libveo checks it.
fn told(descriptor: &[u8]) -> std::result::Result<(u32, Area), Reason> {
    let malformed = |e| Reason::from_error("the descriptor is malformed", &e);
    let mut take = Take::new(descriptor);
    let ve = take.u32().map_err(malformed)?;
    let pid = take.u32().map_err(malformed)?.cast_signed();
    let vemva = take.u64().map_err(malformed)?;
    let len = take.u64().map_err(malformed)?;
    take.finish().map_err(malformed)?;
    let len = usize::try_from(len);
    let area = Area {
        pid,
        vemva,
        len: len.map_err(|e| Reason::from_error("the descriptor's length", &e))?,
        registration: Registration::OwnVe,
    };
    Ok((ve, area))
}

/// An open area. The memory outlives it.
struct Exported {
    _opened: Opened,
}

impl Mechanism for NativeVeo {
    fn id(&self) -> MechanismId {
        MechanismId::Veo
    }

    fn probe(&self) -> std::result::Result<(), Reason> {
        Ok(())
    }

    fn export(&self, segment: &Segment) -> std::result::Result<Export, Reason> {
        let Backing::Native(memory) = &segment.backing else {
            return Err(Reason::new("this memory is not VE memory"));
        };
        let opened = memory.memory.open(Registration::OwnVe);
        let opened = opened.map_err(|e| Reason::from_error("the area cannot be opened", &e))?;
        let area = opened.area();
        let mut put = Put::new();
        put.u32(memory.ve)
            .u32(area.pid.cast_unsigned())
            .u64(area.vemva)
            .u64(area.len as u64);
        Ok(Export {
            descriptor: put.into_vec(),
            guard: Box::new(Exported { _opened: opened }),
        })
    }

    fn reach(&self, peer: &Peer, descriptor: &[u8]) -> std::result::Result<Cost, Reason> {
        told(descriptor)?;
        if peer.rank == self.rank {
            return Err(Reason::new(
                "a process cannot attach its own area (ve-memory 5.2)",
            ));
        }
        if peer.node != self.node {
            return Err(Reason::new(format!("the peer is on node {}", peer.node)));
        }
        Ok(Cost::DEVICE)
    }

    fn attach(&self, peer: &Peer, descriptor: &[u8]) -> std::result::Result<Route, Reason> {
        let (ve, area) = told(descriptor)?;
        let process = self.native.process(ve);
        let process = process
            .map_err(|e| Reason::from_error(&format!("no process can be made on VE {ve}"), &e))?;
        let memory = process.attach_vemva(&area);
        let memory =
            memory.map_err(|e| Reason::from_error("the VE memory cannot be attached", &e))?;
        let engine = Arc::new(Attached { memory });
        let queue = Queue::new(MechanismId::Veo, engine, Arc::clone(&self.health));
        let remote = RemoteRange::new(0, area.len as u64, 0);
        let queue = Arc::new(queue);
        Ok(Route::Posted(Posted::new(queue, peer.rank, remote)))
    }
}

fn failed(error: &dyn std::error::Error) -> PostError {
    let Reason(text) = Reason::from_error("VE memory", error);
    PostError::Fault(Fault::Other(text.into_owned()))
}

/// A transfer within `post`, by a VE's process.
fn transfer(
    memory: &windlass_native::veo::Bytes,
    remote: RemoteRange,
    verb: Verb<'_>,
) -> std::result::Result<Accepted, PostError> {
    let at = usize::try_from(remote.base).map_err(|e| failed(&e))?;
    let done = match verb {
        Verb::Write(src) => memory.write(at, src),
        Verb::Read(dst) => memory.read(at, dst),
        _ => {
            let text = "VEO transfers only read and write".to_owned();
            return Err(PostError::Fault(Fault::Other(text)));
        }
    };
    done.map(|()| Accepted::Done).map_err(|e| failed(&e))
}

/// Another rank's memory. An address is an offset in it.
struct Attached {
    memory: Mapped,
}

impl Engine for Attached {
    fn limits(&self) -> Limits {
        Limits::IMMEDIATE
    }

    fn sees(&self, _local: &SharedBytes) -> bool {
        false
    }

    fn post(
        &self,
        Transfer { remote, verb, .. }: Transfer<'_>,
    ) -> std::result::Result<Accepted, PostError> {
        transfer(&self.memory, remote, verb)
    }

    fn poll(&self) -> Option<Completion> {
        None
    }

    fn idle(&self, _at_most: Duration) {
        // Nothing is ever outstanding.
    }
}

/// This rank's own memory. An address is an offset in it.
struct Own {
    memory: Arc<NativeMemory>,
    /// Updates that were made, whose old values somebody waits for.
    done: Mutex<VecDeque<Completion>>,
}

impl Own {
    fn update(&self, transfer: &Transfer<'_>) -> std::result::Result<Vec<u8>, PostError> {
        let at = usize::try_from(transfer.remote.base).map_err(|e| failed(&e))?;
        let len = transfer.remote.len as usize;
        let mut old = Vec::new();
        let changed = match transfer.verb {
            Verb::Update {
                kind,
                op,
                operand,
                fetch,
            } => {
                old.resize(if fetch { len } else { 0 }, 0);
                let fetched = fetch.then_some(&mut old[..]);
                self.memory.change(at, len, |bytes, at, unit| {
                    update::apply(bytes, at, kind, op, operand, fetched, unit)
                })
            }
            Verb::CompareSwap {
                kind,
                compare,
                swap,
            } => {
                old.resize(len, 0);
                self.memory.change(at, len, |bytes, at, unit| {
                    update::compare_swap(bytes, at, kind, compare, swap, &mut old, unit)
                })
            }
            _ => return Err(PostError::Fault(Fault::Other("not an update".into()))),
        };
        match changed {
            Ok(Ok(())) => Ok(old),
            Ok(Err(why)) => Err(PostError::Fault(Fault::Other(why.to_string()))),
            Err(why) => Err(failed(&why)),
        }
    }
}

impl Engine for Own {
    fn limits(&self) -> Limits {
        Limits {
            update_bytes: UPDATE_BYTES,
            ..Limits::IMMEDIATE
        }
    }

    fn sees(&self, _local: &SharedBytes) -> bool {
        false
    }

    fn post(&self, posted: Transfer<'_>) -> std::result::Result<Accepted, PostError> {
        if matches!(posted.verb, Verb::Update { .. } | Verb::CompareSwap { .. }) {
            let old = self.update(&posted)?;
            if old.is_empty() {
                return Ok(Accepted::Done);
            }
            let (ticket, result) = (posted.ticket, Ok(old));
            self.done.lock().push_back(Completion { ticket, result });
            return Ok(Accepted::Pending);
        }
        transfer(&self.memory.memory, posted.remote, posted.verb)
    }

    fn poll(&self) -> Option<Completion> {
        self.done.lock().pop_front()
    }

    fn idle(&self, _at_most: Duration) {
        // Nothing is ever outstanding.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_an_allegation() {
        let mut put = Put::new();
        put.u32(1)
            .u32((-7i32).cast_unsigned())
            .u64(5 << 26)
            .u64(1 << 26);
        let whole = put.into_vec();
        let (ve, area) = told(&whole).expect("its own");
        assert_eq!(
            (ve, area.pid, area.vemva, area.len),
            (1, -7, 5 << 26, 1 << 26)
        );
        for len in 0..whole.len() {
            assert!(told(&whole[..len]).is_err(), "{len} bytes");
        }
        assert!(told(&[whole.as_slice(), &[0]].concat()).is_err());
    }
}

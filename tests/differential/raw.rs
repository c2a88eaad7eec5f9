//! Programs by `windlass::raw::Window`: pointers, displacement units, layouts of numbered types.
#![allow(unsafe_code)]

use windlass::raw::{self, Assertions, At};
use windlass::{Buffer, Hints, LockKind, Op, Rank, World};

use super::address::{Whole, one};
use super::back::{Access, Body, Ended, Own, Window};
use super::model::Work;
use super::program::{Flush, Form, Memory, Part, Place, Program, What};
use crate::support::{Done, Failure};

/// Bytes before and behind lent memory, and what is in them.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0x5a;

/// Bytes of memory that devices may reach.
const SCRATCH_BYTES: usize = 1 << 14;

const NONE: Assertions = Assertions::NONE;

/// Memory of the program, in which a window is made.
struct Lent {
    block: *mut [u8],
    /// Where in the block the part begins.
    at: usize,
    bytes: usize,
}

impl Lent {
    fn new(part: &Part) -> Lent {
        let block = vec![GUARD_BYTE; part.bytes + part.skew + 3 * GUARD].into_boxed_slice();
        let first = block.as_ptr().addr() + GUARD;
        let at = first.next_multiple_of(64) - block.as_ptr().addr() + part.skew;
        let mut block = block;
        block[at..at + part.bytes].fill(0);
        Lent {
            block: Box::into_raw(block),
            at,
            bytes: part.bytes,
        }
    }

    fn base(&self) -> *mut u8 {
        self.block.cast::<u8>().wrapping_add(self.at)
    }

    /// The memory, once no window is over it.
    fn back(self) -> Result<Vec<u8>, Failure> {
        // SAFETY: made by `Box::into_raw` and taken back once, because `self` ends here; the
        // window that was over it is freed.
        let block = unsafe { Box::from_raw(self.block) };
        let (front, rest) = block.split_at(self.at);
        let (part, behind) = rest.split_at(self.bytes);
        if front.iter().chain(behind).any(|&byte| byte != GUARD_BYTE) {
            return Err("bytes beside the lent memory were written".into());
        }
        Ok(part.to_vec())
    }
}

struct Raw<'p> {
    world: World,
    window: raw::Window,
    lent: Option<Lent>,
    part: &'p Part,
    memory: Memory,
    /// What is added to displacements, by target.
    bases: Vec<i64>,
    /// Memory that devices may reach, for some of the buffers, and its address.
    _scratch: Buffer<u8>,
    scratch: *mut u8,
}

/// The window of a program.
pub fn window<'p>(
    world: &World,
    program: &'p Program,
) -> Result<Box<dyn Window<'p> + 'p>, Failure> {
    let part = &program.parts[world.rank().0 as usize];
    let (hints, unit) = (Hints::new(), part.unit as u64);
    let own = matches!(program.memory, Memory::Lent | Memory::Attached);
    let lent = own.then(|| Lent::new(part));
    let mut bases = vec![0; program.ranks()];
    let window = match (program.memory, &lent) {
        (Memory::Lent, Some(lent)) => {
            let base = if part.bytes == 0 {
                std::ptr::null_mut()
            } else {
                lent.base()
            };
            // SAFETY: the block lives until `free`, or for ever, and is not looked at before.
            unsafe { raw::Window::create(world, base, part.bytes, unit, &hints) }?
        }
        (Memory::Attached, Some(lent)) => {
            let window = raw::Window::create_dynamic(world, &hints)?;
            let mut from = 0;
            for &end in &part.pieces {
                // SAFETY: as above; the pieces do not overlap.
                unsafe { window.attach(lent.base().wrapping_add(from), end - from) }?;
                from = end;
            }
            bases = addresses(world, lent.base().expose_provenance() as u64)?;
            window
        }
        (Memory::Shared, _) => raw::Window::allocate_shared(world, part.bytes, unit, &hints)?,
        _ => raw::Window::allocate(world, part.bytes, unit, &hints)?,
    };
    let (world, memory) = (world.clone(), program.memory);
    let mut scratch = world.buffer::<u8>(SCRATCH_BYTES)?;
    Ok(Box::new(Raw {
        world,
        window,
        lent,
        part,
        memory,
        bases,
        scratch: scratch.as_mut_ptr(),
        _scratch: scratch,
    }))
}

/// The address of every rank.
fn addresses(world: &World, mine: u64) -> windlass::Result<Vec<i64>> {
    let mut all = world.allocate::<u64>(1)?;
    all.local().store(0, mine);
    let epoch = all.fence()?;
    let mut found = vec![0; world.size() as usize];
    for (target, found) in world.ranks().zip(&mut found) {
        epoch.get(std::slice::from_mut(found), target, 0)?;
    }
    epoch.end()?;
    all.free()?;
    Ok(found.into_iter().map(|address| address as i64).collect())
}

/// A step whose buffers are in use.
struct Begun<'p> {
    request: Option<raw::Request>,
    work: Work<'p>,
    /// Where its result is, if that is in the scratch memory.
    scratch: Option<*const u8>,
}

/// An epoch of a raw window.
struct Open<'w, 'p> {
    window: &'w raw::Window,
    bases: &'w [i64],
    scratch: *mut u8,
    /// How much of it is in use.
    used: usize,
    running: Vec<Begun<'p>>,
    finished: Vec<Work<'p>>,
}

impl<'w, 'p> Open<'w, 'p> {
    fn of(raw: &'w Raw<'p>) -> Open<'w, 'p> {
        Open {
            scratch: raw.scratch,
            used: 0,
            window: &raw.window,
            bases: &raw.bases,
            running: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// The buffers of a step, and whether they are in the scratch memory.
    fn buffers(&mut self, work: &mut Work<'p>) -> (*mut u8, *mut u8, bool) {
        let (sent, got) = (work.operand.len(), work.result.len());
        let fits = self.used + sent + got <= SCRATCH_BYTES;
        if !work.step.number.is_multiple_of(2) || !fits {
            return (work.operand.as_mut_ptr(), work.result.as_mut_ptr(), false);
        }
        let operand = self.scratch.wrapping_add(self.used);
        let result = operand.wrapping_add(sent);
        self.used += sent + got;
        // SAFETY: both lie in the scratch memory behind what is in use of it.
        unsafe {
            operand.copy_from_nonoverlapping(work.operand.as_ptr(), sent);
            result.copy_from_nonoverlapping(work.result.as_ptr(), got);
        }
        (operand, result, true)
    }

    fn begin(
        &self,
        work: &Work<'p>,
        (operand, result): (*mut u8, *mut u8),
    ) -> windlass::Result<Option<raw::Request>> {
        let step = work.step;
        let rank = Some(Rank(step.target as u32));
        let Place {
            disp,
            count,
            ref expr,
        } = step.place;
        let disp = disp.saturating_add(self.bases[step.target]);
        let buffer = if step.what == What::Get {
            result
        } else {
            operand
        };
        let mut here = Whole::new(buffer, &step.side);
        // The same layout on both sides, where it is the same.
        let there = match *expr == step.side.expr && !step.side.bottom {
            true => here.layout.clone(),
            false => expr.layout(&one),
        };
        let at = At {
            rank,
            disp,
            count,
            layout: &there,
        };
        if step.reads_only() && step.what != What::Get {
            // The origin is not looked at (mpi-rma 3).
            (here.address, here.count) = (std::ptr::null_mut(), 0);
        }
        let results = step.result.as_ref().map(|side| Whole::new(result, side));
        let (window, asked) = (self.window, step.form == Form::Request);
        // SAFETY: the layouts touch only bytes of the buffers, which live with `work` or in the
        // scratch memory; nobody looks at them before the operation is complete.
        unsafe {
            match (step.what, &results) {
                (What::Put, _) if asked => return window.rput(here.source(), at).map(Some),
                (What::Put, _) => window.put(here.source(), at)?,
                (What::Get, _) if asked => return window.rget(here.data(), at).map(Some),
                (What::Get, _) => window.get(here.data(), at)?,
                (What::Accumulate(op), _) if asked => {
                    return window.raccumulate(here.source(), at, op).map(Some);
                }
                (What::Accumulate(op), _) => window.accumulate(here.source(), at, op)?,
                (What::GetAccumulate(op), Some(results)) if asked => {
                    let request = window.rget_accumulate(here.source(), results.data(), at, op);
                    return request.map(Some);
                }
                (What::GetAccumulate(op), Some(results)) => {
                    window.get_accumulate(here.source(), results.data(), at, op)?;
                }
                (What::FetchAndOp(op), _) => {
                    let origin = here.address.cast_const();
                    window.fetch_and_op(origin, result, &there, (rank, disp), op)?;
                }
                (What::CompareAndSwap { .. }, _) => {
                    let (new, compare) = (here.address.cast_const(), work.compare.as_ptr());
                    window.compare_and_swap(new, compare, result, &there, (rank, disp))?;
                }
                (What::UpdateLocked(op), _) => self.locked(work, at, op)?,
                (What::Store | What::GetAccumulate(_), _) => unreachable!("not drawn so"),
            }
        }
        Ok(None)
    }

    fn locked(&self, work: &Work<'p>, at: At<'_>, op: Op) -> windlass::Result<()> {
        let step = work.step;
        let mut present = work.operand.clone();
        let buffer = Whole::new(present.as_mut_ptr(), &step.side);
        // SAFETY: the layout touches only bytes of the buffer, which is not looked at before the
        // flush.
        unsafe { self.window.get(buffer.data(), at) }?;
        self.window.flush(at.rank)?;
        let (base, size) = (step.side.base as i64, step.elem.size());
        for (place, elem) in step.side.map(false).places {
            let at = (base + place) as usize;
            elem.combine(
                op,
                &mut present[at..at + size],
                &work.operand[at..at + size],
            );
        }
        let buffer = Whole::new(present.as_mut_ptr(), &step.side);
        // SAFETY: as above.
        unsafe { self.window.put(buffer.source(), at) }?;
        self.window.flush(at.rank)
    }

    /// Takes the steps that are complete out of those that run.
    fn ended(&mut self, is_complete: impl Fn(&Begun<'p>) -> bool) -> windlass::Result<()> {
        for mut begun in std::mem::take(&mut self.running) {
            if !is_complete(&begun) {
                self.running.push(begun);
                continue;
            }
            // Completion by a flush does not free a request.
            if let Some(mut request) = begun.request.take() {
                // Not the same half as the one with buffers in the scratch memory.
                let asking = (begun.work.step.number / 2).is_multiple_of(2);
                while asking && !request.test()? {}
                request.wait()?;
            }
            let result = &mut begun.work.result;
            if let Some(scratch) = begun.scratch {
                // SAFETY: so many bytes were laid aside there, and the step that used them is over.
                unsafe {
                    result
                        .as_mut_ptr()
                        .copy_from_nonoverlapping(scratch, result.len())
                };
            }
            self.finished.push(begun.work);
        }
        if self.running.is_empty() {
            self.used = 0;
        }
        Ok(())
    }

    /// After the epoch.
    fn all(mut self) -> Ended<'p> {
        self.ended(|_| true)?;
        Ok(self.finished)
    }
}

impl<'p> Access<'p> for Open<'_, 'p> {
    fn run(&mut self, mut work: Work<'p>) -> windlass::Result<()> {
        let (operand, result, in_scratch) = self.buffers(&mut work);
        let request = self.begin(&work, (operand, result))?;
        let scratch = in_scratch.then_some(result.cast_const());
        self.running.push(Begun {
            request,
            work,
            scratch,
        });
        Ok(())
    }

    fn flush(&mut self, flush: Flush, target: Rank) -> windlass::Result<()> {
        let (window, rank) = (self.window, Some(target));
        match flush {
            Flush::One => window.flush(rank)?,
            Flush::All => window.flush_all()?,
            Flush::Local => {
                window.flush_local(rank)?;
                self.ended(|begun| begun.work.step.target == target.0 as usize)?;
                window.flush_local_all()?;
                window.sync();
                window.flush(rank)?;
            }
        }
        let all = flush == Flush::All;
        self.ended(|begun| all || begun.work.step.target == target.0 as usize)
    }

    fn complete(&mut self) -> windlass::Result<()> {
        // Other steps have buffers in use until the epoch is over.
        self.ended(|begun| begun.request.is_some())
    }

    fn finished(&mut self) -> Vec<Work<'p>> {
        std::mem::take(&mut self.finished)
    }
}

impl<'p> Window<'p> for Raw<'p> {
    fn fence(&mut self, asserting: bool, body: &mut Body<'_, 'p>) -> Ended<'p> {
        let with = |assertion| if asserting { assertion } else { NONE };
        self.window.fence(with(Assertions::NOPRECEDE))?;
        let mut open = Open::of(self);
        body(&mut open)?;
        self.window.fence(with(Assertions::NOSUCCEED))?;
        open.all()
    }

    fn pscw(
        &mut self,
        (access, exposed): (&[Rank], &[Rank]),
        asserting: bool,
        body: &mut Body<'_, 'p>,
    ) -> Ended<'p> {
        let all = self.window.group();
        let assertions = if asserting { Assertions::NOCHECK } else { NONE };
        self.window.post(&all.incl(exposed)?, assertions)?;
        if asserting {
            self.world.barrier()?;
        }
        self.window.start(&all.incl(access)?, assertions)?;
        let mut open = Open::of(self);
        body(&mut open)?;
        self.window.complete()?;
        let ended = open.all();
        if asserting {
            while !self.window.test()? {}
        } else {
            self.window.wait()?;
        }
        ended
    }

    fn lock_all(&mut self, asserting: bool, body: &mut Body<'_, 'p>) -> Ended<'p> {
        self.window
            .lock_all(if asserting { Assertions::NOCHECK } else { NONE })?;
        let mut open = Open::of(self);
        body(&mut open)?;
        self.window.unlock_all()?;
        open.all()
    }

    fn locks(&mut self, locks: &[(Rank, LockKind)], body: &mut Body<'_, 'p>) -> Ended<'p> {
        for &(target, kind) in locks {
            self.window.lock(kind, Some(target), NONE)?;
        }
        let mut open = Open::of(self);
        body(&mut open)?;
        for &(target, _) in locks {
            self.window.unlock(Some(target))?;
        }
        open.all()
    }

    fn own(&mut self, body: &mut Own<'_>) -> Done {
        let me = Some(self.world.rank());
        self.window.lock(LockKind::Exclusive, me, NONE)?;
        let base = self.lent.as_ref().map_or(self.window.base(), Lent::base);
        let mut own = vec![0; self.part.bytes];
        // SAFETY: the part has so many bytes, and under the exclusive lock nobody else accesses it.
        unsafe { base.copy_to_nonoverlapping(own.as_mut_ptr(), own.len()) };
        let before = own.clone();
        let done = body(&mut own);
        if own != before {
            // SAFETY: as above.
            unsafe { base.copy_from_nonoverlapping(own.as_ptr(), own.len()) };
        }
        self.window.unlock(me)?;
        done
    }

    fn notified(&mut self, counts: &[(u32, u64)]) -> Done {
        match counts {
            [] => Ok(()),
            _ => Err("no notifications are drawn for raw windows".into()),
        }
    }

    fn free(self: Box<Self>) -> Result<Option<Vec<u8>>, Failure> {
        if self.memory == Memory::Attached
            && let (Some(lent), [_, _, ..]) = (&self.lent, &self.part.pieces[..])
        {
            // What is still attached goes with the window.
            self.window.detach(lent.base())?;
        }
        self.window.free().map_err(|(error, _)| error)?;
        self.lent.map(Lent::back).transpose()
    }
}

//! An open epoch of a `windlass::Window<T>`: its guard has the operations.

use std::ops::{Deref, DerefMut};

use windlass::{
    Buffer, Element, Epoch, Fenced, Kind, Layout, LocalView, LockedAll, LockedOne, Op, Rank,
    Request, Started, Test, World,
};

use super::back::Access;
use super::expr::Expr;
use super::model::Work;
use super::program::{Flush, Form, Step, What};
use super::typed::{Cell, one};

pub fn layout(count: u64, expr: &Expr) -> Layout {
    let layout = expr.layout(&one);
    match count {
        1 => layout,
        _ => layout.contiguous(count).expect("it fits in a buffer"),
    }
}

/// Values of the origin: in memory that devices may reach, or in any other.
enum Values<T: Cell> {
    Registered(Buffer<T>),
    Heap(Vec<T>),
}

impl<T: Cell> Values<T> {
    fn new(world: &World, step: &Step, bytes: &[u8]) -> windlass::Result<Values<T>> {
        if !step.number.is_multiple_of(2) {
            return Ok(Values::Heap(bytemuck::pod_collect_to_vec(bytes)));
        }
        Ok(Values::Registered(registered(world, bytes)?))
    }
}

impl<T: Cell> Deref for Values<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Values::Registered(buffer) => buffer,
            Values::Heap(memory) => memory,
        }
    }
}

impl<T: Cell> DerefMut for Values<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Values::Registered(buffer) => buffer,
            Values::Heap(memory) => memory,
        }
    }
}

fn registered<T: Cell>(world: &World, bytes: &[u8]) -> windlass::Result<Buffer<T>> {
    let mut buffer = world.buffer::<T>(bytes.len().div_ceil(size_of::<T>()))?;
    bytemuck::cast_slice_mut(&mut buffer)[..bytes.len()].copy_from_slice(bytes);
    Ok(buffer)
}

pub fn bytes<T: Element>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// An operation that runs, with its buffers.
pub enum Running<T: Cell> {
    One(Request<Buffer<T>>),
    Two(Request<(Buffer<T>, Buffer<T>)>),
}

/// Kinds of epoch, of which passive ones have requests and flushes.
pub trait Requests: Kind + Sized {
    fn begin<T: Cell>(
        _: &Epoch<'_, T, Self>,
        _: &Step,
        _: (Buffer<T>, Buffer<T>),
    ) -> windlass::Result<Running<T>> {
        unreachable!("not drawn for active epochs")
    }

    fn flush<T: Cell>(_: &Epoch<'_, T, Self>, _: Flush, _: Rank) -> windlass::Result<()> {
        unreachable!("active epochs are not flushed")
    }
}

impl Requests for Fenced {}
impl Requests for Started {}

macro_rules! passive {
    ($($kind:ty),+) => {$(
        impl Requests for $kind {
            fn begin<T: Cell>(
                epoch: &Epoch<'_, T, Self>,
                step: &Step,
                (sent, got): (Buffer<T>, Buffer<T>),
            ) -> windlass::Result<Running<T>> {
                let (target, disp) = (Rank(step.target as u32), step.place.disp as usize);
                Ok(match step.what {
                    What::Put => Running::One(epoch.rput(sent, target, disp)?),
                    What::Get => Running::One(epoch.rget(got, target, disp)?),
                    What::Accumulate(op) => {
                        Running::One(epoch.raccumulate(sent, target, disp, op)?)
                    }
                    What::GetAccumulate(op) => {
                        Running::Two(epoch.rget_accumulate(sent, got, target, disp, op)?)
                    }
                    what => unreachable!("there is no request of {what:?}"),
                })
            }

            fn flush<T: Cell>(
                epoch: &Epoch<'_, T, Self>,
                flush: Flush,
                target: Rank,
            ) -> windlass::Result<()> {
                match flush {
                    Flush::One => epoch.flush(target),
                    Flush::All => epoch.flush_all(),
                    Flush::Local => {
                        epoch.flush_local(target)?;
                        epoch.flush_local_all()?;
                        epoch.sync();
                        epoch.flush(target)
                    }
                }
            }
        }
    )+};
}

passive!(LockedOne, LockedAll);

/// Waits for a request, or asks until it is complete.
fn completed<B: Send + 'static>(mut request: Request<B>, asking: bool) -> windlass::Result<B> {
    if !asking {
        return request.wait();
    }
    loop {
        match request.test()? {
            Test::Complete(buffer) => return Ok(buffer),
            Test::Running(same) => request = same,
        }
    }
}

/// An epoch of a typed window.
pub struct Open<'e, 'w, 'p, T: Cell, K: Kind> {
    world: &'e World,
    epoch: &'e Epoch<'w, T, K>,
    running: Vec<(Running<T>, Work<'p>)>,
    finished: Vec<Work<'p>>,
}

impl<'e, 'w, 'p, T: Cell, K: Requests> Open<'e, 'w, 'p, T, K> {
    pub fn new(world: &'e World, epoch: &'e Epoch<'w, T, K>) -> Self {
        Open {
            world,
            epoch,
            running: Vec::new(),
            finished: Vec::new(),
        }
    }

    fn request(&mut self, work: Work<'p>) -> windlass::Result<()> {
        let buffer = |bytes: &[u8]| registered::<T>(self.world, bytes);
        let buffers = (buffer(&work.operand)?, buffer(&work.result)?);
        let begun = K::begin(self.epoch, work.step, buffers)?;
        self.running.push((begun, work));
        Ok(())
    }

    fn values(&self, step: &Step, bytes: &[u8]) -> windlass::Result<Values<T>> {
        Values::new(self.world, step, bytes)
    }

    /// A part that this process loads from and stores to.
    fn view(&self, target: Rank) -> windlass::Result<LocalView<'_, T>> {
        if target == self.world.rank() {
            return Ok(self.epoch.local());
        }
        let view = self.epoch.shared(target)?;
        Ok(view.expect("the parts of a shared window are mapped"))
    }

    fn put(&self, work: &Work<'p>) -> windlass::Result<()> {
        let (step, epoch) = (work.step, self.epoch);
        let (target, disp) = (Rank(step.target as u32), step.place.disp as usize);
        let src = self.values(step, &work.operand)?;
        match step.form {
            Form::Notify(id) => epoch.put_notify(&src, target, disp, id),
            Form::Direct => self.view(target)?.write(disp, &src),
            _ if step.is_plain() => epoch.put(&src, target, disp),
            _ => {
                let here = layout(step.side.count, &step.side.expr);
                let there = layout(step.place.count, &step.place.expr);
                epoch.put_layout(&src, &here, target, disp, &there)
            }
        }
    }

    /// The buffer for what is read.
    fn get(&self, work: &Work<'p>) -> windlass::Result<Vec<u8>> {
        let (step, epoch) = (work.step, self.epoch);
        let (target, disp) = (Rank(step.target as u32), step.place.disp as usize);
        let mut dst = self.values(step, &work.result)?;
        if step.form == Form::Direct {
            self.view(target)?.read(disp, &mut dst)?;
        } else if step.is_plain() {
            epoch.get(&mut dst, target, disp)?;
        } else {
            let here = layout(step.side.count, &step.side.expr);
            let there = layout(step.place.count, &step.place.expr);
            epoch.get_layout(&mut dst, &here, target, disp, &there)?;
        }
        Ok(bytes(&dst))
    }

    /// An accumulate, and the old values where the step has a buffer for them.
    fn update(&self, work: &Work<'p>, op: Op) -> windlass::Result<Vec<u8>> {
        let (step, epoch) = (work.step, self.epoch);
        let (target, disp) = (Rank(step.target as u32), step.place.disp as usize);
        let src = self.values(step, &work.operand)?;
        let mut old = self.values(step, &work.result)?;
        let there = layout(step.place.count, &step.place.expr);
        let here = layout(step.side.count, &step.side.expr);
        match &step.result {
            None if step.is_plain() => epoch.accumulate(&src, target, disp, op)?,
            None => epoch.accumulate_layout(&src, &here, target, disp, &there, op)?,
            Some(_) if step.is_plain() => {
                epoch.get_accumulate(&src, &mut old, target, disp, op)?;
            }
            Some(result) => {
                let results = layout(result.count, &result.expr);
                let (from, to) = ((&src[..], &here), (&mut old[..], &results));
                epoch.get_accumulate_layout(from, to, target, disp, &there, op)?;
            }
        }
        Ok(bytes(&old))
    }

    fn locked(&self, work: &Work<'p>, op: Op) -> windlass::Result<()> {
        let (step, epoch) = (work.step, self.epoch);
        let (target, disp) = (Rank(step.target as u32), step.place.disp as usize);
        let mut present = self.values(step, &work.operand)?;
        epoch.get(&mut present, target, disp)?;
        let mut new = bytes(&present);
        let size = size_of::<T>();
        for (t, o) in new.chunks_mut(size).zip(work.operand.chunks(size)) {
            step.elem.combine(op, t, o);
        }
        epoch.put(&self.values(step, &new)?, target, disp)
    }
}

impl<'p, T: Cell, K: Requests> Access<'p> for Open<'_, '_, 'p, T, K> {
    fn run(&mut self, mut work: Work<'p>) -> windlass::Result<()> {
        let step = work.step;
        if step.form == Form::Request {
            return self.request(work);
        }
        let (target, disp) = (Rank(step.target as u32), step.place.disp as usize);
        let first = |bytes: &[u8]| bytemuck::pod_read_unaligned::<T>(bytes);
        match step.what {
            What::Store => unreachable!("stores are no operations"),
            What::Put => self.put(&work)?,
            What::Get => work.result = self.get(&work)?,
            What::FetchAndOp(op) => {
                let old = self
                    .epoch
                    .fetch_and_op(first(&work.operand), target, disp, op)?;
                for &(at, len) in step.elem.value() {
                    work.result[at..at + len].copy_from_slice(&bytes(&[old])[at..at + len]);
                }
            }
            What::CompareAndSwap { .. } => {
                let values = (first(&work.compare), first(&work.operand));
                work.result = bytes(&[T::swap(self.epoch, values, (target, disp))?]);
            }
            What::UpdateLocked(op) => self.locked(&work, op)?,
            What::Accumulate(op) | What::GetAccumulate(op) => {
                work.result = self.update(&work, op)?;
            }
        }
        self.finished.push(work);
        Ok(())
    }

    fn scope(&mut self, mut works: Vec<Work<'p>>) -> windlass::Result<()> {
        let buffer = |work: &Work<'p>| match work.step.what {
            What::Put => self.values(work.step, &work.operand),
            _ => self.values(work.step, &work.result),
        };
        let buffers: windlass::Result<Vec<Values<T>>> = works.iter().map(buffer).collect();
        let mut buffers = buffers?;
        let begun = self.epoch.scope(|scope| {
            works
                .iter()
                .zip(&mut buffers)
                .try_for_each(|(work, buffer)| {
                    let step = work.step;
                    let (target, disp) = (Rank(step.target as u32), step.place.disp as usize);
                    match step.what {
                        What::Put => scope.put(buffer, target, disp),
                        _ => scope.get(buffer, target, disp),
                    }
                })
        })?;
        begun?;
        for (work, buffer) in works.iter_mut().zip(&buffers) {
            if work.step.what == What::Get {
                work.result = bytes(buffer);
            }
        }
        self.finished.append(&mut works);
        Ok(())
    }

    fn flush(&mut self, flush: Flush, target: Rank) -> windlass::Result<()> {
        K::flush(self.epoch, flush, target)
    }

    fn complete(&mut self) -> windlass::Result<()> {
        for (running, mut work) in self.running.drain(..) {
            let asking = work.step.number.is_multiple_of(2);
            let got = match running {
                Running::One(request) => completed(request, asking)?,
                Running::Two(request) => completed(request, asking)?.1,
            };
            if !work.result.is_empty() {
                work.result = bytes(&got);
            }
            self.finished.push(work);
        }
        Ok(())
    }

    fn finished(&mut self) -> Vec<Work<'p>> {
        std::mem::take(&mut self.finished)
    }
}

/// Several locks.
pub struct Several<'e, 'w, 'p, T: Cell>(pub Vec<(Rank, Open<'e, 'w, 'p, T, LockedOne>)>);

impl<'p, T: Cell> Several<'_, '_, 'p, T> {
    fn of(&mut self, target: Rank) -> &mut dyn Access<'p> {
        let mut open = self.0.iter_mut();
        let found = open.find(|open| open.0 == target);
        &mut found.expect("the targets of all steps are locked").1
    }
}

impl<'p, T: Cell> Access<'p> for Several<'_, '_, 'p, T> {
    fn run(&mut self, work: Work<'p>) -> windlass::Result<()> {
        self.of(Rank(work.step.target as u32)).run(work)
    }

    fn scope(&mut self, mut works: Vec<Work<'p>>) -> windlass::Result<()> {
        // A scope belongs to one epoch.
        while let Some(first) = works.first() {
            let target = first.step.target;
            let end = works.iter().position(|work| work.step.target != target);
            let rest = works.split_off(end.unwrap_or(works.len()));
            self.of(Rank(target as u32)).scope(works)?;
            works = rest;
        }
        Ok(())
    }

    fn flush(&mut self, flush: Flush, target: Rank) -> windlass::Result<()> {
        self.of(target).flush(flush, target)
    }

    fn complete(&mut self) -> windlass::Result<()> {
        self.0.iter_mut().try_for_each(|(_, open)| open.complete())
    }

    fn finished(&mut self) -> Vec<Work<'p>> {
        self.0
            .iter_mut()
            .flat_map(|(_, open)| open.finished())
            .collect()
    }
}

//! Operations on borrowed memory: with layouts, and overlapped in a scope.
//!
//! A request that borrowed its buffer would be unsound, because nothing forces its destructor to
//! run. A *scope* is sound, as [`std::thread::scope`] is: it completes what was begun in it before
//! it returns, also while unwinding. Where that cannot be done (a transfer whose end is never
//! seen) the process ends before the borrow does.

use std::cell::RefCell;
use std::marker::PhantomData;

use windlass_runtime::{Pending, Route};

use crate::core::Status;
use crate::derived::{Side, There};
use crate::dynamic::Found;
use crate::element::{Element, Reducible};
use crate::epoch::{Epoch, Kind};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::layout::Layout;
use crate::op::Op;
use crate::raw::Borrowed;
use crate::world::Rank;

impl<T: Element, K: Kind> Epoch<'_, T, K> {
    /// The other side of a transfer with a layout; its range is checked with the transfer.
    #[track_caller]
    fn there<'a>(
        &'a self,
        call: &'static str,
        target: Rank,
        disp: usize,
        layout: &'a Layout,
    ) -> Result<There<'a>> {
        // The rank and the epoch; nothing is touched yet.
        let reach = self.way(call, target, 0, 0)?.reach;
        Ok(There {
            target,
            reach: Found::Part(reach),
            disp: disp as i128 * size_of::<T>() as i128,
            data: self.core.times(call, layout, 1)?,
        })
    }

    #[track_caller]
    fn side<'a>(
        &self,
        call: &'static str,
        what: &'static str,
        memory: &Borrowed<'_>,
        layout: &'a Layout,
    ) -> Result<Side<'a>> {
        Ok(Side {
            what,
            bytes: memory.bytes().clone(),
            origin: 0,
            data: self.core.times(call, layout, 1)?,
        })
    }

    /// Waits for all that a transfer with a layout left running; the first failure wins.
    #[track_caller]
    fn finish(&self, call: &'static str, target: Rank, running: Vec<Pending>) -> Result<()> {
        let mut first = Ok(());
        for pending in running {
            first = first.and(pending.wait());
        }
        self.core.sent(call, target, first)
    }

    /// [`put`](Self::put) with a layout on both sides: the data that `src_layout` finds in `src`
    /// go, in the order of its type map, to where `layout` says, counted from element `disp` of
    /// `target` on. Either may have gaps; their signatures must fit (mpi-rma 3). `src` is free on
    /// return.
    ///
    /// # Errors
    /// [`Error::BadRank`], [`Error::Range`], [`Error::Buffer`] for a layout that leaves `src`,
    /// [`Error::Type`]: nothing moved. [`Error::Transfer`], [`Error::PeerLost`].
    #[track_caller]
    pub fn put_layout(
        &self,
        src: &[T],
        src_layout: &Layout,
        target: Rank,
        disp: usize,
        layout: &Layout,
    ) -> Result<()> {
        let there = self.there("put_layout", target, disp, layout)?;
        let memory = Borrowed::source(src);
        let from = self.side("put_layout", "source", &memory, src_layout)?;
        let running = self.core.put_derived("put_layout", &from, &there)?;
        drop(from);
        self.finish("put_layout", target, running)
    }

    /// [`get`](Self::get) with a layout on both sides: what `layout` finds at `target`, counted
    /// from element `disp` on, comes to where `dst_layout` says in `dst`; what lies between stays
    /// as it is. Complete on return.
    ///
    /// # Errors
    /// As [`put_layout`](Self::put_layout).
    #[track_caller]
    pub fn get_layout(
        &self,
        dst: &mut [T],
        dst_layout: &Layout,
        target: Rank,
        disp: usize,
        layout: &Layout,
    ) -> Result<()> {
        let there = self.there("get_layout", target, disp, layout)?;
        let memory = Borrowed::sink(dst);
        let to = self.side("get_layout", "destination", &memory, dst_layout)?;
        let running = self.core.get_derived("get_layout", &to, &there)?;
        drop(to);
        self.finish("get_layout", target, running)
    }

    /// Overlaps transfers: puts and gets begun through the [`Scope`] borrow their buffers and run
    /// at once; all are locally complete when this returns.
    ///
    /// ```
    /// # fn main() -> windlass::Result<()> {
    /// # let world = windlass::init()?;
    /// # let me = world.rank();
    /// # let mut win = world.allocate::<f64>(64)?;
    /// let epoch = win.fence()?;
    /// let (mut left, mut right) = ([0.0; 8], [0.0; 8]);
    /// epoch.scope(|s| {
    ///     s.get(&mut left, me, 0)?;
    ///     s.get(&mut right, me, 56)
    /// })??; // complete: both may be used again
    /// epoch.end()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first transfer that failed after it was begun; what `body` answers is lost then.
    #[track_caller]
    pub fn scope<'env, R>(
        &self,
        body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env, T, K>) -> R,
    ) -> Result<R> {
        let scope = Scope {
            epoch: self,
            begun: RefCell::default(),
            env: PhantomData,
        };
        let answer = body(&scope);
        let begun = scope.begun.take();
        let mut first = Ok(());
        for Begun {
            target,
            running,
            memory,
        } in begun
        {
            first = first.and(self.finish("scope", target, running));
            drop(memory);
        }
        first.map(|()| answer)
    }
}

impl<T: Reducible, K: Kind> Epoch<'_, T, K> {
    /// [`accumulate`](Self::accumulate) with a layout on both sides, of elements `T`.
    ///
    /// # Errors
    /// As [`put_layout`](Self::put_layout) and [`accumulate`](Self::accumulate).
    #[track_caller]
    pub fn accumulate_layout(
        &self,
        src: &[T],
        src_layout: &Layout,
        target: Rank,
        disp: usize,
        layout: &Layout,
        op: Op,
    ) -> Result<()> {
        let call = "accumulate_layout";
        let there = self.there(call, target, disp, layout)?;
        let Some(kind) = self.core.kind_of(call, layout)? else {
            return Ok(());
        };
        let memory = Borrowed::source(src);
        let from = self.side(call, "source", &memory, src_layout)?;
        self.core
            .update_derived(call, (kind, op), Some(&from), None, &there)
    }

    /// [`get_accumulate`](Self::get_accumulate) with layouts, of elements `T`; `src` is not looked
    /// at for [`Op::NoOp`].
    ///
    /// # Errors
    /// As [`accumulate_layout`](Self::accumulate_layout).
    #[track_caller]
    pub fn get_accumulate_layout(
        &self,
        (src, src_layout): (&[T], &Layout),
        (result, result_layout): (&mut [T], &Layout),
        target: Rank,
        disp: usize,
        layout: &Layout,
        op: Op,
    ) -> Result<()> {
        let call = "get_accumulate_layout";
        let there = self.there(call, target, disp, layout)?;
        let Some(kind) = self.core.kind_of(call, layout)? else {
            return Ok(());
        };
        let (source, sink) = (Borrowed::source(src), Borrowed::sink(result));
        let from = match op {
            Op::NoOp => None,
            _ => Some(self.side(call, "source", &source, src_layout)?),
        };
        let to = self.side(call, "result", &sink, result_layout)?;
        self.core
            .update_derived(call, (kind, op), from.as_ref(), Some(&to), &there)
    }
}

/// A transfer begun in a scope, and the memory it borrows.
struct Begun<'env> {
    target: Rank,
    // Dropped before the memory: what a transfer keeps goes with its completion.
    running: Vec<Pending>,
    memory: Borrowed<'env>,
}

/// Begins transfers that are complete when [`Epoch::scope`] returns.
pub struct Scope<'scope, 'env: 'scope, T: Element, K: Kind> {
    epoch: &'scope Epoch<'scope, T, K>,
    begun: RefCell<Vec<Begun<'env>>>,
    env: PhantomData<&'env mut &'env ()>,
}

impl<'env, T: Element, K: Kind> Scope<'_, 'env, T, K> {
    fn keep(&self, target: Rank, pending: Pending, memory: Borrowed<'env>) {
        if !pending.is_over() {
            self.begun.borrow_mut().push(Begun {
                target,
                running: vec![pending],
                memory,
            });
        }
    }

    /// Begins a [`put`](Epoch::put) of `src`, which stays borrowed until the scope ends.
    ///
    /// # Errors
    /// As [`Epoch::put`].
    #[track_caller]
    pub fn put(&self, src: &'env [T], target: Rank, disp: usize) -> Result<()> {
        let core = self.epoch.core;
        let way = self.epoch.way("put", target, disp, src.len())?;
        let Route::Posted(posted) = &way.reach.route else {
            return self.epoch.put(src, target, disp);
        };
        core.enter(Status::Put);
        let memory = Borrowed::source(src);
        let begun = posted.start_put(way.offset as u64, memory.bytes());
        let pending = core.sent("put", target, begun)?;
        self.keep(target, pending, memory);
        Ok(())
    }

    /// Begins a [`get`](Epoch::get) into `dst`, which stays borrowed until the scope ends.
    ///
    /// # Errors
    /// As [`Epoch::get`].
    #[track_caller]
    pub fn get(&self, dst: &'env mut [T], target: Rank, disp: usize) -> Result<()> {
        let core = self.epoch.core;
        let way = self.epoch.way("get", target, disp, dst.len())?;
        let Route::Posted(posted) = &way.reach.route else {
            return self.epoch.get(dst, target, disp);
        };
        core.enter(Status::Get);
        let memory = Borrowed::sink(dst);
        let begun = posted.start_get(way.offset as u64, memory.bytes());
        let pending = core.sent("get", target, begun)?;
        self.keep(target, pending, memory);
        Ok(())
    }
}

impl<T: Element, K: Kind> Drop for Scope<'_, '_, T, K> {
    /// Completes what is still running when the body unwinds.
    fn drop(&mut self) {
        for Begun {
            running, memory, ..
        } in self.begun.take()
        {
            for pending in running {
                if let Err(error) = pending.wait() {
                    tracing::warn!("a transfer of a scope failed while unwinding: {error}");
                }
            }
            drop(memory);
        }
    }
}

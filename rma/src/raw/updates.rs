//! The accumulate family, from addresses.

use windlass_runtime::update;

use super::operations::{At, Data, Kind, Request, plain, request, side};
use super::window::Window;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::op::Op;
use crate::world::Rank;

impl Window {
    /// Both forms of the accumulate family that take many elements.
    #[track_caller]
    unsafe fn update(
        &self,
        kind: Kind,
        origin: Data<'_, *const u8>,
        result: Option<Data<'_, *mut u8>>,
        target: At<'_>,
        op: Op,
    ) -> Result<()> {
        let core = &self.core;
        // Elements are updated whole, with the padding that some have.
        let (ours, results, theirs) = (
            origin.layout.with_padding(),
            result.map(|result| result.layout.with_padding()),
            target.layout.with_padding(),
        );
        let target = At {
            layout: &theirs,
            ..target
        };
        let Some(there) = self.there(kind, target)? else {
            return Ok(());
        };
        let Some(element) = core.kind_of(kind.name, &theirs)? else {
            return Ok(());
        };
        let reads = matches!(op, Op::NoOp);
        let operand = if reads {
            None
        } else {
            let data = Data {
                layout: &ours,
                ..origin.written()
            };
            // SAFETY: the caller's promise; the padding of elements is part of their buffers.
            Some(unsafe { side(core, kind.name, "origin buffer", data) }?)
        };
        let result = match (result, &results) {
            (Some(result), Some(layout)) => {
                let data = Data { layout, ..result };
                // SAFETY: the caller's promise; as above.
                Some(unsafe { side(core, kind.name, "result buffer", data) }?)
            }
            _ => None,
        };
        core.update_derived(
            kind.name,
            (element, op),
            operand.as_ref(),
            result.as_ref(),
            &there,
        )?;
        core.epochs.operated();
        Ok(())
    }

    /// `MPI_Accumulate`. The layouts are of elements of one predefined type, the same on both
    /// sides.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::Operator`] for an operator that the type does not take,
    /// [`Error::Count`] for different numbers of elements.
    ///
    /// # Safety
    /// As [`put`](Self::put).
    #[track_caller]
    pub unsafe fn accumulate(
        &self,
        origin: Data<'_, *const u8>,
        target: At<'_>,
        op: Op,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.update(plain("accumulate"), origin, None, target, op) }
    }

    /// `MPI_Raccumulate`: only in a passive-target epoch.
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate).
    ///
    /// # Safety
    /// As [`put`](Self::put).
    #[track_caller]
    pub unsafe fn raccumulate(
        &self,
        origin: Data<'_, *const u8>,
        target: At<'_>,
        op: Op,
    ) -> Result<Request> {
        let kind = request("raccumulate");
        // SAFETY: the caller's promise.
        unsafe { self.update(kind, origin, None, target, op) }?;
        // Operands are copied out before the call returns.
        Ok(self.begun(kind, target.rank, Vec::new()))
    }

    /// `MPI_Get_accumulate`; `origin` is not looked at for [`Op::NoOp`].
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate).
    ///
    /// # Safety
    /// As [`put`](Self::put) for `origin`, as [`get`](Self::get) for `result`; they do not overlap.
    #[track_caller]
    pub unsafe fn get_accumulate(
        &self,
        origin: Data<'_, *const u8>,
        result: Data<'_, *mut u8>,
        target: At<'_>,
        op: Op,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.update(plain("get_accumulate"), origin, Some(result), target, op) }
    }

    /// `MPI_Rget_accumulate`: only in a passive-target epoch.
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate).
    ///
    /// # Safety
    /// As [`get_accumulate`](Self::get_accumulate).
    #[track_caller]
    pub unsafe fn rget_accumulate(
        &self,
        origin: Data<'_, *const u8>,
        result: Data<'_, *mut u8>,
        target: At<'_>,
        op: Op,
    ) -> Result<Request> {
        let kind = request("rget_accumulate");
        // SAFETY: the caller's promise.
        unsafe { self.update(kind, origin, Some(result), target, op) }?;
        // Results have arrived before the call returns.
        Ok(self.begun(kind, target.rank, Vec::new()))
    }

    /// A layout that is one element of a predefined type, as fetch_and_op and compare_and_swap
    /// take it.
    #[track_caller]
    fn one_element(&self, call: &'static str, element: &Layout) -> Result<update::Kind> {
        let kind = self.core.kind_of(call, element)?;
        if let Some(kind) = kind
            && element.elements() == 1
            && element.with_padding().is_dense()
        {
            return Ok(kind);
        }
        Err(Error::Type {
            what: format!("{element} is not one element of a predefined type"),
            at: Box::new(self.core.site(call)),
        })
    }

    /// `MPI_Fetch_and_op` on one element of a predefined type; `origin` is not looked at for
    /// [`Op::NoOp`].
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate); [`Error::Type`] for a derived layout.
    ///
    /// # Safety
    /// As [`get_accumulate`](Self::get_accumulate), for one element each.
    #[track_caller]
    pub unsafe fn fetch_and_op(
        &self,
        origin: *const u8,
        result: *mut u8,
        element: &Layout,
        (rank, disp): (Option<Rank>, i64),
        op: Op,
    ) -> Result<()> {
        self.one_element("fetch_and_op", element)?;
        let count = 1;
        let layout = element;
        let target = At {
            rank,
            disp,
            count,
            layout,
        };
        let (address, count) = (origin, 1);
        let origin = Data {
            address,
            count,
            layout,
        };
        let result = Data {
            address: result,
            count,
            layout,
        };
        // SAFETY: the caller's promise.
        unsafe { self.update(plain("fetch_and_op"), origin, Some(result), target, op) }
    }

    /// `MPI_Compare_and_swap` on one element: integers, logicals and bytes.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`Error::Type`] for other elements.
    ///
    /// # Safety
    /// As [`put`](Self::put) for `origin` and `compare`, as [`get`](Self::get) for `result`, for one
    /// element each; they do not overlap.
    #[track_caller]
    pub unsafe fn compare_and_swap(
        &self,
        origin: *const u8,
        compare: *const u8,
        result: *mut u8,
        element: &Layout,
        (rank, disp): (Option<Rank>, i64),
    ) -> Result<()> {
        let name = "compare_and_swap";
        let core = &self.core;
        let kind = self.one_element(name, element)?;
        if !kind.is_comparable() {
            return Err(Error::Type {
                what: format!("{element} elements are not compared: their bits say too much"),
                at: Box::new(core.site(name)),
            });
        }
        let target = At {
            rank,
            disp,
            count: 1,
            layout: element,
        };
        let Some(there) = self.there(plain(name), target)? else {
            return Ok(());
        };
        core.check_there(name, &there)?;
        let mut sides = Vec::with_capacity(3);
        for (what, address) in [
            ("origin buffer", origin.cast_mut()),
            ("compare buffer", compare.cast_mut()),
            ("result buffer", result),
        ] {
            let data = Data {
                address,
                count: 1,
                layout: element,
            };
            // SAFETY: the caller's promise.
            sides.push(unsafe { side(core, name, what, data) }?.bytes);
        }
        let size = kind.size();
        let (mut new, mut old, mut seen) = ([0; 8], [0; 8], [0; 8]);
        let read = sides[0].read(0, &mut new[..size]);
        // One element each: in bounds by construction.
        let _ = read.and(sides[1].read(0, &mut old[..size]));
        let (compare, new) = (&old[..size], &new[..size]);
        let at = (there.target, &*there.reach, there.disp as usize);
        core.compare_swap_at(name, at, kind, (compare, new), &mut seen[..size])?;
        let _ = sides[2].write(0, &seen[..size]);
        core.epochs.operated();
        Ok(())
    }
}

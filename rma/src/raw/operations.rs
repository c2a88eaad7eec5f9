//! Put, get, the accumulate family and their requests, from addresses.

use std::ptr::NonNull;
use std::sync::Arc;

use windlass_mem::{SharedBytes, sync};
use windlass_runtime::{Pending, Route};

use super::Window;
use crate::core::{Core, Reach};
use crate::derived::{Side, There};
use crate::dynamic::Found;
use crate::error::{Error, Result, Site};
use crate::layout::Layout;
use crate::state::Call;
use crate::world::{Rank, World};

/// `count` of a layout at an address of this process: MPI's (address, count, datatype).
///
/// `A` is `*const u8` for what is read, `*mut u8` for what is written. The address may be null
/// where the layout touches nothing, or has absolute addresses (`MPI_BOTTOM`).
#[derive(Debug, Clone, Copy)]
pub struct Data<'a, A> {
    /// The address of the layout's offset 0.
    pub address: A,
    /// How many.
    pub count: u64,
    /// Of what.
    pub layout: &'a Layout,
}

/// `count` of a layout in the part of a rank: MPI's (rank, displacement, count, datatype).
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// The target; `None` is `MPI_PROC_NULL`: nothing is done, successfully.
    pub rank: Option<Rank>,
    /// Where the layout's offset 0 lies, in the target's displacement units; in a dynamic window
    /// the absolute address there.
    pub disp: i64,
    /// How many.
    pub count: u64,
    /// Of what.
    pub layout: &'a Layout,
}

/// What a call is, for its checks.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) request: bool,
}

pub(super) const fn plain(name: &'static str) -> Kind {
    Kind {
        name,
        request: false,
    }
}

pub(super) const fn request(name: &'static str) -> Kind {
    Kind {
        name,
        request: true,
    }
}

/// An operation that has begun. Complete means locally complete (mpi-rma 3): the origin buffer may
/// be reused, or the result is there.
///
/// It may outlive the epoch and the window. Dropping it (`MPI_Request_free`) leaves the operation
/// running: the buffer is in use until a flush or the end of the epoch.
#[must_use = "the operation is complete only after `wait` or a successful `test`"]
pub struct Request {
    running: Vec<Pending>,
    target: u32,
    call: &'static str,
    window: Option<Arc<str>>,
    world: World,
}

impl Request {
    #[track_caller]
    fn failed(&self, source: windlass_runtime::Error) -> Error {
        let at = Site {
            call: self.call,
            rank: Some(self.world.rank().0),
            window: self.window.clone(),
            location: std::panic::Location::caller(),
        };
        Error::from_transfer(source, self.target, at)
    }

    /// Is the operation locally complete? Never waits.
    ///
    /// # Errors
    /// [`Error::Transfer`], [`Error::PeerLost`]: it is over.
    #[track_caller]
    pub fn test(&mut self) -> Result<bool> {
        while let Some(pending) = self.running.last_mut() {
            match pending.test() {
                Ok(true) => drop(self.running.pop()),
                Ok(false) => return Ok(false),
                Err(error) => {
                    self.running.clear();
                    return Err(self.failed(error));
                }
            }
        }
        Ok(true)
    }

    /// Waits until the operation is locally complete.
    ///
    /// # Errors
    /// As [`test`](Self::test).
    #[track_caller]
    pub fn wait(mut self) -> Result<()> {
        while let Some(pending) = self.running.pop() {
            if let Err(error) = pending.wait() {
                return Err(self.failed(error));
            }
        }
        Ok(())
    }
}

/// This process's memory under a layout, as one side of a transfer.
///
/// # Safety
/// The bytes that the layout touches obey the rules of the module as long as the side and what is
/// begun with it use them.
#[track_caller]
pub(super) unsafe fn side<'a>(
    core: &Core,
    call: &'static str,
    what: &'static str,
    data: Data<'a, *mut u8>,
) -> Result<Side<'a>> {
    let counted = core.times(call, data.layout, data.count)?;
    let Some(touched) = data.layout.bounds(data.count) else {
        return Ok(Side {
            what,
            bytes: SharedBytes::empty(),
            origin: 0,
            data: counted,
        });
    };
    let len = (touched.end - touched.start) as usize;
    // The address with which a null base and an absolute layout come is the layout's.
    let first = if data.address.is_null() {
        std::ptr::with_exposed_provenance_mut(touched.start as usize)
    } else {
        data.address.wrapping_offset(touched.start as isize)
    };
    match NonNull::new(first) {
        Some(first) => Ok(Side {
            what,
            // SAFETY: the caller's promise: these bytes are the ones that the layout touches, up
            // to its gaps, which are never accessed.
            bytes: unsafe { windlass_mem::borrow(first, len) },
            origin: -touched.start,
            data: counted,
        }),
        None => Err(Error::Buffer {
            what,
            first: touched.start,
            end: touched.end,
            len: 0,
            at: Box::new(core.site(call)),
        }),
    }
}

impl<'a> Data<'a, *const u8> {
    pub(super) fn written(self) -> Data<'a, *mut u8> {
        Data {
            address: self.address.cast_mut(),
            count: self.count,
            layout: self.layout,
        }
    }
}

/// Bytes of equally many of one dense layout on both sides, or `None` for everything else.
#[inline(always)]
fn dense(count: u64, layout: &Layout, at: &At<'_>) -> Option<usize> {
    if count == at.count && layout.is_dense() && layout.is_same(at.layout) {
        count.checked_mul(layout.size())?.try_into().ok()
    } else {
        None
    }
}

impl Window {
    /// Byte `disp` of the target, if an operation of `len` bytes may go there.
    #[inline(always)]
    fn quick(&self, at: &At<'_>, len: usize) -> Option<(&Reach, usize)> {
        let rank = at.rank?;
        let reach = self.core.reach.get(rank.0 as usize)?;
        if !self.core.epochs.may_operate(rank) {
            return None;
        }
        let disp = u64::try_from(at.disp).ok()?.checked_mul(reach.disp_unit)?;
        let end = disp.checked_add(len as u64)?;
        if end > reach.bytes {
            return None;
        }
        Some((reach, disp as usize))
    }

    /// The target's side, checked but for its range; `None` for `MPI_PROC_NULL`.
    #[track_caller]
    pub(super) fn there<'a>(&'a self, kind: Kind, at: At<'a>) -> Result<Option<There<'a>>> {
        let core = &self.core;
        let Some(target) = at.rank else {
            return Ok(None);
        };
        let Some(reach) = core.reach.get(target.0 as usize) else {
            return Err(core.bad_rank(kind.name, target));
        };
        let call = if kind.request {
            Call::Request
        } else {
            Call::Operation
        };
        core.allowed(kind.name, call, Some(target))?;
        let data = core.times(kind.name, at.layout, at.count)?;
        if core.dynamic.is_none() {
            return Ok(Some(There {
                target,
                reach: Found::Part(reach),
                disp: i128::from(at.disp) * i128::from(reach.disp_unit),
                data,
            }));
        }
        // The displacement is an address, as large as it may be.
        let address = i128::from(at.disp as u64);
        let Some(touched) = at.layout.bounds(at.count) else {
            return Ok(Some(There {
                target,
                reach: Found::Part(reach),
                disp: 0,
                data,
            }));
        };
        let (first, end) = (address + touched.start, address + touched.end);
        let (region, offset) = core.region_of(kind.name, target, first, end)?;
        Ok(Some(There {
            target,
            reach: Found::Region(region),
            disp: i128::from(offset) - touched.start,
            data,
        }))
    }

    pub(super) fn begun(&self, kind: Kind, target: Option<Rank>, running: Vec<Pending>) -> Request {
        Request {
            running,
            target: target.map_or(0, |rank| rank.0),
            call: kind.name,
            window: Some(Arc::clone(&self.core.name)),
            world: self.core.world.clone(),
        }
    }

    #[inline(never)]
    #[track_caller]
    unsafe fn put_slowly(
        &self,
        kind: Kind,
        origin: Data<'_, *const u8>,
        target: At<'_>,
    ) -> Result<Vec<Pending>> {
        let Some(there) = self.there(kind, target)? else {
            return Ok(Vec::new());
        };
        // SAFETY: the caller's promise.
        let from = unsafe { side(&self.core, kind.name, "origin buffer", origin.written()) }?;
        let running = self.core.put_derived(kind.name, &from, &there)?;
        self.core.epochs.operated();
        Ok(running)
    }

    #[inline(never)]
    #[track_caller]
    unsafe fn get_slowly(
        &self,
        kind: Kind,
        origin: Data<'_, *mut u8>,
        target: At<'_>,
    ) -> Result<Vec<Pending>> {
        let Some(there) = self.there(kind, target)? else {
            return Ok(Vec::new());
        };
        // SAFETY: the caller's promise.
        let to = unsafe { side(&self.core, kind.name, "origin buffer", origin) }?;
        let running = self.core.get_derived(kind.name, &to, &there)?;
        self.core.epochs.operated();
        Ok(running)
    }

    /// `MPI_Put`.
    ///
    /// # Errors
    /// [`Error::BadRank`], [`Error::Epoch`], [`Error::Range`], [`Error::Type`],
    /// [`Error::Buffer`] for a null address, [`Error::Layout`]: no effect. [`Error::Transfer`],
    /// [`Error::PeerLost`].
    ///
    /// # Safety
    /// `origin` is an origin buffer under the rules of the module.
    #[inline]
    #[track_caller]
    pub unsafe fn put(&self, origin: Data<'_, *const u8>, target: At<'_>) -> Result<()> {
        if let Some(len) = dense(origin.count, origin.layout, &target)
            && let Some((reach, offset)) = self.quick(&target, len)
            && let Route::Mapped(part) = &reach.route
            && !origin.address.is_null()
            // SAFETY: `len` bytes from the address on are what the layout touches.
            && unsafe { part.write_from(offset, origin.address, len) }.is_ok()
        {
            self.core.epochs.operated();
            sync::stored();
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.put_slowly(plain("put"), origin, target) }.map(drop)
    }

    /// `MPI_Rput`: only in a passive-target epoch.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Safety
    /// As [`put`](Self::put).
    #[track_caller]
    pub unsafe fn rput(&self, origin: Data<'_, *const u8>, target: At<'_>) -> Result<Request> {
        let kind = request("rput");
        // SAFETY: the caller's promise.
        let running = unsafe { self.put_slowly(kind, origin, target) }?;
        Ok(self.begun(kind, target.rank, running))
    }

    /// `MPI_Get`.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Safety
    /// `origin` is a result buffer under the rules of the module.
    #[inline]
    #[track_caller]
    pub unsafe fn get(&self, origin: Data<'_, *mut u8>, target: At<'_>) -> Result<()> {
        if let Some(len) = dense(origin.count, origin.layout, &target)
            && let Some((reach, offset)) = self.quick(&target, len)
            && let Route::Mapped(part) = &reach.route
            && !origin.address.is_null()
        {
            sync::pay();
            // SAFETY: `len` bytes from the address on are what the layout touches.
            if unsafe { part.read_to(offset, origin.address, len) }.is_ok() {
                self.core.epochs.operated();
                return Ok(());
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.get_slowly(plain("get"), origin, target) }.map(drop)
    }

    /// `MPI_Rget`: only in a passive-target epoch.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Safety
    /// As [`get`](Self::get).
    #[track_caller]
    pub unsafe fn rget(&self, origin: Data<'_, *mut u8>, target: At<'_>) -> Result<Request> {
        let kind = request("rget");
        // SAFETY: the caller's promise.
        let running = unsafe { self.get_slowly(kind, origin, target) }?;
        Ok(self.begun(kind, target.rank, running))
    }
}

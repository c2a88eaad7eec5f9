//! Remote memory regions: windows onto a region that come and go in the order of an endpoint's requests (udapl.md
//! section 4.4).
//!
//! A bind is posted like a transfer, starts when everything before it on its endpoint has completed, and nothing after
//! it starts earlier. It gives the window a new context; the one before is dead from then on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::ep::Ep;
use crate::ia::{Ia, Inner};
use crate::lmr::{Lmr, LmrTable};
use crate::model::{
    ConnectionKind, DtoStatus, EpState, Flags, LocalSegment, Privileges, RemoteSegment, VaType,
};
use crate::pz::Pz;
use crate::request::{Request, Source, Verb};
use crate::ret::{Error, Result, Subtype};
use crate::slab::{Id, Slab};
use crate::window::Window;

/// Name of a window within its adapter, as events carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RmrId(pub(crate) Id);

/// Where a window may be used (DAT_RMR_SCOPE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RmrScope {
    /// Over the endpoint it is bound on.
    Ep,
    /// Over every endpoint of its zone.
    Pz,
}

/// What a window is bound to (`dat_rmr_query`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RmrState {
    /// Where it may be used.
    pub scope: RmrScope,
    /// Context of the last bind that has completed; 0 while unbound.
    pub context: u32,
    /// The part of the region.
    pub segment: LocalSegment,
    /// What peers may do.
    pub privileges: Privileges,
    /// How they count addresses.
    pub va_type: VaType,
}

/// One RMR of the table.
pub(crate) struct RmrEntry {
    pz: Id,
    state: RmrState,
}

/// A bind that waits for its turn.
#[derive(Clone, Copy)]
pub(crate) struct Bind {
    pub(crate) rmr: RmrId,
    /// The new context, without rights until then; 0 to unbind.
    pub(crate) context: u32,
    lmr: u32,
    segment: LocalSegment,
    privileges: Privileges,
    va_type: VaType,
}

fn get(rmrs: &Slab<RmrEntry>, id: Id) -> Result<&RmrEntry> {
    rmrs.get(id).ok_or(Error::handle(Subtype::Rmr))
}

/// A remote memory region. Dropping it frees it.
pub struct Rmr {
    ia: Arc<Ia>,
    id: Id,
}

impl std::fmt::Debug for Rmr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rmr").field(&self.id.index).finish()
    }
}

impl Rmr {
    /// `dat_rmr_create` and `dat_rmr_create_for_ep`: an unbound window.
    ///
    /// # Errors
    /// INVALID_HANDLE (PZ).
    pub fn create(pz: &Pz, scope: RmrScope) -> Result<Self> {
        let ia = pz.ia().clone();
        let mut inner = ia.lock();
        if inner.pzs.get(pz.id()).is_none() {
            return Err(Error::handle(Subtype::Pz));
        }
        let id = inner.rmrs.insert(RmrEntry {
            pz: pz.id(),
            state: RmrState {
                scope,
                context: 0,
                segment: LocalSegment::default(),
                privileges: Privileges::NONE,
                va_type: VaType::Virtual,
            },
        });
        inner.hold_pz(pz.id());
        drop(inner);
        Ok(Self { ia, id })
    }

    /// How events name this window.
    pub fn name(&self) -> RmrId {
        RmrId(self.id)
    }

    /// `dat_rmr_bind`: peers may use `segment` of the region with these rights once the bind has completed; a segment of
    /// no bytes unbinds. Answers the new context, or 0.
    ///
    /// # Errors
    /// The table of udapl.md section 4.4; the endpoint stays usable.
    #[allow(clippy::too_many_arguments, reason = "those of dat_rmr_bind")]
    pub fn bind(
        &self,
        lmr: &Lmr,
        segment: LocalSegment,
        privileges: Privileges,
        va_type: VaType,
        ep: &Ep,
        cookie: u64,
        flags: Flags,
    ) -> Result<u32> {
        let mut guard = self.ia.lock();
        let inner = &mut *guard;
        let pz = get(&inner.rmrs, self.id)?.pz;
        let lmr = lmr.of(&self.ia, &inner.lmrs)?;
        let ep_id = ep.table_id(&self.ia).ok_or(Error::handle(Subtype::Ep))?;
        let ep = inner.eps.get_mut(ep_id);
        let ep = ep.ok_or(Error::handle(Subtype::Ep))?;
        let state = ep.state();
        if !matches!(state, EpState::Connected | EpState::Disconnected) {
            return Err(Error::state(state.subtype()));
        }
        let rights = privileges.of_peers();
        inner.lmrs.check_bind(lmr, &segment, [pz, ep.pz], rights)?;
        if flags.contains(Flags::UNSIGNALLED) && !ep.attr.unsignalled {
            return Err(Error::arg(Subtype::Arg8));
        }
        if ep.requests.len() >= ep.attr.max_request_dtos {
            return Err(Error::resources(Subtype::Memory));
        }
        let live = state == EpState::Connected && segment.len > 0;
        let context = if live { inner.lmrs.reserve(pz)? } else { 0 };
        ep.binds.push_back(Bind {
            rmr: RmrId(self.id),
            context,
            lmr,
            segment,
            privileges: rights,
            va_type,
        });
        ep.requests.push_back(Request {
            cookie,
            verb: Verb::Bind,
            flags,
            len: 0,
            remote: RemoteSegment::default(),
            source: Source::Inline(Box::default()),
            done: 0,
            started: false,
        });
        ep.seen.posted.fetch_add(1, Ordering::Relaxed);
        if state == EpState::Disconnected {
            ep.complete(&mut inner.evds, DtoStatus::Flushed);
        } else if let Some(id) = ep.link {
            if let Some(Some(link)) = inner.links.get_mut(id) {
                link.binds = true;
            }
            inner.push_link(id);
        }
        Ok(context)
    }

    /// `dat_rmr_query`.
    ///
    /// # Errors
    /// INVALID_HANDLE (RMR).
    pub fn query(&self) -> Result<RmrState> {
        Ok(get(&self.ia.lock().rmrs, self.id)?.state)
    }

    /// `dat_rmr_free`: unbinds it at once. A bind that is still posted will fail.
    ///
    /// # Errors
    /// INVALID_HANDLE (RMR).
    pub fn free(&self) -> Result<()> {
        let mut inner = self.ia.lock();
        let rmr = inner.rmrs.remove(self.id);
        let rmr = rmr.ok_or(Error::handle(Subtype::Rmr))?;
        let window = inner.lmrs.unbind(rmr.state.context);
        inner.release_pz(rmr.pz);
        drop(inner); // the memory itself may be unmapped with the window: not under the lock
        drop(window);
        Ok(())
    }
}

impl Drop for Rmr {
    fn drop(&mut self) {
        let _ = self.free(); // already freed is fine
    }
}

impl Inner {
    /// Carries out the binds of an endpoint whose turn has come.
    pub(crate) fn run_binds(&mut self, link: Id, ep_id: Id) {
        loop {
            let Some(ep) = self.eps.get(ep_id) else {
                return;
            };
            let turn = ep
                .requests
                .front()
                .is_some_and(|front| front.verb == Verb::Bind);
            let Some(bind) = ep.binds.front().copied().filter(|_| turn) else {
                return;
            };
            let done = self.apply(&bind, ep_id);
            if done.is_none() {
                self.take_down(
                    link,
                    Some(DtoStatus::RmrOperationFailed),
                    ConnectionKind::Broken,
                );
                self.say_bye(link);
                return;
            }
            if let Some(ep) = self.eps.get_mut(ep_id) {
                ep.complete(&mut self.evds, DtoStatus::Success);
            }
        }
    }

    /// Binds or unbinds; nothing if window or region are gone.
    fn apply(&mut self, bind: &Bind, ep: Id) -> Option<()> {
        let rmr = self.rmrs.get_mut(bind.rmr.0)?;
        let mut new = RmrState {
            scope: rmr.state.scope,
            context: 0,
            segment: bind.segment,
            privileges: bind.privileges,
            va_type: bind.va_type,
        };
        if bind.context == 0 {
            new.segment = LocalSegment::default();
            new.privileges = Privileges::NONE;
        } else {
            let window = Window {
                lmr: bind.lmr,
                only_ep: (new.scope == RmrScope::Ep).then_some(ep),
            };
            self.lmrs.activate(
                bind.context,
                window,
                &bind.segment,
                bind.privileges,
                bind.va_type,
            )?;
            new.context = bind.context;
        }
        let old = std::mem::replace(&mut rmr.state, new);
        self.lmrs.unbind(old.context);
        Some(())
    }
}

/// The contexts of binds that will not be carried out.
pub(crate) fn give_up(binds: impl IntoIterator<Item = Bind>, lmrs: &mut LmrTable) {
    for bind in binds {
        lmrs.unbind(bind.context);
    }
}

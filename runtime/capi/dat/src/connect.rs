//! Endpoints: connect, disconnect, reset (section 4.6).

use std::ffi::c_void;
use std::net::SocketAddr;

use windlass_abi::dat::{self, ConnQual, Count, Return, Timeout};
use windlass_dat::{CloseFlags, Error, Subtype, port_of};

use crate::address;
use crate::edge::{NOT_SUPPORTED, bytes, edge};
use crate::ep::EpObject;
use crate::evd::timeout;
use crate::handle;

pub(crate) unsafe extern "C" fn ep_connect(
    ep: dat::Handle,
    to: *const c_void,
    qualifier: ConnQual,
    micros: Timeout,
    size: Count,
    data: *const c_void,
    qos: u32,
    flags: u32,
) -> Return {
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        // SAFETY: null or a socket address of the caller.
        let ip = unsafe { address::ip(to, Subtype::Arg2) }?;
        // SAFETY: null or `size` bytes of the caller.
        let data = unsafe { bytes(size, data, Subtype::Arg6, Subtype::Arg5) }?;
        if qos != 0 || flags != 0 {
            return Err(NOT_SUPPORTED);
        }
        let to = SocketAddr::new(ip, port_of(qualifier));
        held.ep.connect(to, qualifier, timeout(micros), &data)
    })
}

pub(crate) unsafe extern "C" fn ep_dup_connect(
    ep: dat::Handle,
    like: dat::Handle,
    micros: Timeout,
    size: Count,
    data: *const c_void,
    qos: u32,
) -> Return {
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        let like = handle::get::<EpObject>(like)?;
        let (peer, _, qualifier) = like.ep.connection()?;
        let state = like.ep.state();
        // Only the side that connected knows where its peer listens.
        let peer = peer.filter(|_| state == windlass_dat::EpState::Connected && qualifier > 0);
        let peer = peer.ok_or(Error::state(state.subtype()))?;
        if timeout(micros).is_some_and(|time| time.is_zero()) {
            return Err(Error::arg(Subtype::Arg3));
        }
        // SAFETY: null or `size` bytes of the caller.
        let data = unsafe { bytes(size, data, Subtype::Arg5, Subtype::Arg4) }?;
        if qos != 0 {
            return Err(NOT_SUPPORTED);
        }
        held.ep.connect(peer, qualifier, timeout(micros), &data)
    })
}

/// Common service points are not offered: nothing to connect to.
pub(crate) unsafe extern "C" fn ep_common_connect(
    ep: dat::Handle,
    _: *const c_void,
    _: Timeout,
    _: Count,
    _: *const c_void,
) -> Return {
    edge(|| handle::get::<EpObject>(ep).and(Err(NOT_SUPPORTED)))
}

pub(crate) unsafe extern "C" fn ep_disconnect(ep: dat::Handle, flags: u32) -> Return {
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        let flags = match flags {
            dat::CLOSE_ABRUPT => CloseFlags::Abrupt,
            dat::CLOSE_GRACEFUL => CloseFlags::Graceful,
            _ => return Err(Error::arg(Subtype::Arg2)),
        };
        held.ep.disconnect(flags)
    })
}

pub(crate) unsafe extern "C" fn ep_reset(ep: dat::Handle) -> Return {
    edge(|| handle::get::<EpObject>(ep)?.ep.reset())
}

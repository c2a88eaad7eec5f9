//! Data transfers (section 4.7).

use windlass_abi::dat::{self, Context, Count, Return, Triplet};
use windlass_dat::{Ep, Flags, LocalSegment, Result, Subtype};

use crate::edge::{edge, flags, load, local, remote, segments};
use crate::ep::EpObject;
use crate::handle;

/// What is posted with segments, a cookie and flags alone.
///
/// # Safety
/// `iov` is null or `count` triplets.
unsafe fn message(
    ep: dat::Handle,
    count: Count,
    iov: *const Triplet,
    bits: u32,
    post: impl FnOnce(&Ep, &[LocalSegment], Flags) -> Result<()>,
) -> Return {
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        // SAFETY: the caller's promise.
        let iov = unsafe { segments(count, iov) }?;
        post(&held.ep, &iov, flags(bits, Subtype::Arg5)?)
    })
}

pub(crate) unsafe extern "C" fn ep_post_send(
    ep: dat::Handle,
    count: Count,
    iov: *const Triplet,
    cookie: Context,
    bits: u32,
) -> Return {
    // SAFETY: null or `count` triplets of the caller.
    unsafe {
        message(ep, count, iov, bits, |ep, iov, flags| {
            ep.post_send(iov, cookie, flags)
        })
    }
}

pub(crate) unsafe extern "C" fn ep_post_recv(
    ep: dat::Handle,
    count: Count,
    iov: *const Triplet,
    cookie: Context,
    bits: u32,
) -> Return {
    // SAFETY: null or `count` triplets of the caller.
    unsafe {
        message(ep, count, iov, bits, |ep, iov, flags| {
            ep.post_recv(iov, cookie, flags)
        })
    }
}

pub(crate) unsafe extern "C" fn ep_post_rdma_read(
    ep: dat::Handle,
    count: Count,
    iov: *const Triplet,
    cookie: Context,
    from: *const Triplet,
    bits: u32,
) -> Return {
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        // SAFETY: null or `count` triplets of the caller.
        let iov = unsafe { segments(count, iov) }?;
        // SAFETY: a triplet of the caller, or null, which is refused.
        let from = remote(&unsafe { load(from, Subtype::Arg5) }?);
        let flags = flags(bits, Subtype::Arg6)?;
        held.ep.post_rdma_read(&iov, cookie, from, flags)
    })
}

pub(crate) unsafe extern "C" fn ep_post_rdma_write(
    ep: dat::Handle,
    count: Count,
    iov: *const Triplet,
    cookie: Context,
    to: *const Triplet,
    bits: u32,
) -> Return {
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        // SAFETY: null or `count` triplets of the caller.
        let iov = unsafe { segments(count, iov) }?;
        // SAFETY: a triplet of the caller, or null, which is refused.
        let to = remote(&unsafe { load(to, Subtype::Arg5) }?);
        let flags = flags(bits, Subtype::Arg6)?;
        held.ep.post_rdma_write(&iov, cookie, to, flags)
    })
}

pub(crate) unsafe extern "C" fn ep_post_rdma_read_to_rmr(
    ep: dat::Handle,
    to: *const Triplet,
    cookie: Context,
    from: *const Triplet,
    bits: u32,
) -> Return {
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        // SAFETY: triplets of the caller, or null, which is refused.
        let (to, from) = unsafe { (load(to, Subtype::Arg2)?, load(from, Subtype::Arg4)?) };
        let flags = flags(bits, Subtype::Arg5)?;
        held.ep
            .post_rdma_read_to_rmr(local(&to), cookie, remote(&from), flags)
    })
}

pub(crate) unsafe extern "C" fn ep_post_send_with_invalidate(
    ep: dat::Handle,
    count: Count,
    iov: *const Triplet,
    cookie: Context,
    bits: u32,
    invalidate: dat::Boolean,
    context: u32,
) -> Return {
    // SAFETY: null or `count` triplets of the caller.
    unsafe {
        message(ep, count, iov, bits, |ep, iov, flags| match invalidate {
            0 => ep.post_send(iov, cookie, flags),
            _ => ep.post_send_with_invalidate(iov, cookie, flags, context),
        })
    }
}

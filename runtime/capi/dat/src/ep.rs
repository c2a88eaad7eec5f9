//! Endpoints: create, query, modify, free (section 4.6).

use parking_lot::Mutex;
use windlass_abi::dat::{self, Comm, Count, EpAttr, EpParam, Return, ep_field};
use windlass_dat::{DTOS_MAX, Ep, EpChange, Error, IOV_MAX, Pz, Result, Subtype};

use crate::address::SockAddr;
use crate::attributes::{EPS_MAX, MESSAGE_MAX, READS_MAX};
use crate::edge::{NOT_SUPPORTED, edge, load, required, store, to_count};
use crate::evd::EvdObject;
use crate::handle::{self, Handle, Held};
use crate::ia::IaObject;
use crate::registry::consumers;
use crate::srq::SrqObject;

/// Requests and receives of an endpoint that was made without attributes.
const DTOS_DEFAULT: i32 = 256;
/// `DAT_COMPLETION_FLAGS`.
const SUPPRESS: u32 = 0x01;
const UNSIGNALLED: u32 = 0x04;
const EVD_THRESHOLD: u32 = 0x10;
const KNOWN_FLAGS: u32 = 0x1f;

/// What an endpoint refers to.
#[derive(Clone, Copy)]
struct Parts {
    pz: Handle,
    recv: Handle,
    request: Handle,
    connect: Handle,
    srq: Handle,
    attr: Attr,
}

/// Attributes without the pointers that nobody reads.
#[derive(Clone, Copy)]
struct Attr(EpAttr);

// SAFETY: the two pointers are null (`Attr::checked`).
unsafe impl Send for Attr {}

/// An endpoint and what it was made with.
pub(crate) struct EpObject {
    pub(crate) ep: Ep,
    parts: Mutex<Parts>,
    /// Of its last connection event; C has its address.
    pub(crate) private_data: Mutex<Box<[u8]>>,
    /// The peer's address, at a place that C may keep.
    peer: Box<Mutex<SockAddr>>,
}

impl Attr {
    /// What an endpoint gets that was created without attributes.
    fn default_for(recv: bool, request: bool) -> Self {
        let dtos = |wanted| if wanted { DTOS_DEFAULT } else { 0 };
        Self(EpAttr {
            service_type: 0,
            max_message_size: MESSAGE_MAX,
            max_rdma_size: MESSAGE_MAX,
            qos: 0,
            recv_completion_flags: 0,
            request_completion_flags: UNSIGNALLED,
            max_recv_dtos: dtos(recv),
            max_request_dtos: dtos(request),
            max_recv_iov: to_count(IOV_MAX),
            max_request_iov: to_count(IOV_MAX),
            max_rdma_read_in: READS_MAX,
            max_rdma_read_out: READS_MAX,
            srq_soft_hw: -1,
            max_rdma_read_iov: to_count(IOV_MAX),
            max_rdma_write_iov: to_count(IOV_MAX),
            ep_transport_specific_count: 0,
            ep_transport_specific: std::ptr::null_mut(),
            ep_provider_specific_count: 0,
            ep_provider_specific: std::ptr::null_mut(),
        })
    }

    /// The consumer's attributes, if they are within the adapter's limits.
    fn checked(mut attr: EpAttr, argument: Subtype) -> Result<Self> {
        let wrong = Error::arg(argument);
        let iovs = [
            attr.max_recv_iov,
            attr.max_request_iov,
            attr.max_rdma_read_iov,
            attr.max_rdma_write_iov,
        ];
        let within = |value: Count, limit: usize| usize::try_from(value).is_ok_and(|n| n <= limit);
        let reads = [attr.max_rdma_read_in, attr.max_rdma_read_out];
        let flags = attr.recv_completion_flags | attr.request_completion_flags;
        let fits = iovs.into_iter().all(|count| within(count, IOV_MAX))
            && reads
                .into_iter()
                .all(|count| within(count, READS_MAX as usize))
            && within(attr.max_recv_dtos, DTOS_MAX)
            && within(attr.max_request_dtos, DTOS_MAX)
            && flags & !KNOWN_FLAGS == 0
            && attr.recv_completion_flags & SUPPRESS == 0
            && attr.service_type == 0;
        if !fits {
            return Err(wrong);
        }
        if attr.qos != 0 {
            return Err(NOT_SUPPORTED);
        }
        attr.ep_transport_specific_count = 0;
        attr.ep_transport_specific = std::ptr::null_mut();
        attr.ep_provider_specific_count = 0;
        attr.ep_provider_specific = std::ptr::null_mut();
        Ok(Self(attr))
    }

    fn ours(&self) -> windlass_dat::EpAttr {
        windlass_dat::EpAttr {
            max_request_dtos: self.0.max_request_dtos.unsigned_abs() as usize,
            max_recv_dtos: self.0.max_recv_dtos.unsigned_abs() as usize,
            unsignalled: self.0.request_completion_flags & UNSIGNALLED != 0,
            evd_threshold: self.0.recv_completion_flags & EVD_THRESHOLD != 0,
        }
    }
}

impl EpObject {
    fn add(ia: &Held<IaObject>, ep: Ep, parts: Parts) -> Handle {
        let id = ep.id();
        let object = EpObject {
            ep,
            parts: Mutex::new(parts),
            private_data: Mutex::default(),
            peer: Box::new(Mutex::new(SockAddr::none())),
        };
        let handle = handle::add(ia, object);
        ia.eps.set(id, handle);
        handle
    }

    /// The handle of an endpoint that came with a connection request.
    pub(crate) fn add_made(ia: &Held<IaObject>, ep: Ep) -> Result<Handle> {
        ia.counts.add(dat::HANDLE_TYPE_EP, EPS_MAX, Subtype::Tep)?;
        let parts = Parts {
            pz: Handle::NULL,
            recv: Handle::NULL,
            request: Handle::NULL,
            connect: Handle::NULL,
            srq: Handle::NULL,
            attr: Attr::default_for(true, true),
        };
        Ok(Self::add(ia, ep, parts))
    }
}

impl Held<EpObject> {
    /// Forgets the handle of an endpoint that is freed, or that was made for a request which has ended.
    pub(crate) fn forget_if_gone(&self, handle: impl Into<Handle>) -> Result<()> {
        if self.ep.is_gone() && handle::remove(handle).is_some() {
            let ia = handle::get::<IaObject>(self.ia())?;
            ia.eps.remove(self.ep.id());
            ia.counts.remove(dat::HANDLE_TYPE_EP);
        }
        Ok(())
    }
}

/// The three dispatchers of an endpoint.
struct Evds([Option<Held<EvdObject>>; 3]);

impl Evds {
    fn get(ia: &Held<IaObject>, [recv, request, connect]: [Handle; 3]) -> Result<Self> {
        Ok(Self([
            handle::near(recv, ia, Subtype::EvdRecv)?,
            handle::near(request, ia, Subtype::EvdRequest)?,
            handle::near(connect, ia, Subtype::EvdConn)?,
        ]))
    }

    fn ours(&self) -> [Option<&windlass_dat::Evd>; 3] {
        self.0
            .each_ref()
            .map(|evd| evd.as_ref().map(|evd| &evd.evd))
    }
}

/// # Safety
/// `attr` is null or attributes of the caller, `place` null or writable.
#[allow(
    clippy::too_many_arguments,
    reason = "those of the two C functions, and where each reports its own"
)]
unsafe fn create(
    ia: dat::Handle,
    pz: dat::Handle,
    [recv, request, connect]: [dat::Handle; 3],
    srq: Option<dat::Handle>,
    attr: *const EpAttr,
    place: *mut dat::Handle,
    [attr_argument, place_argument]: [Subtype; 2],
) -> Result<()> {
    let ia = handle::get::<IaObject>(ia)?;
    let zone = handle::given::<Pz>(pz, ia.ia(), Subtype::Pz)?;
    let (recv, request, connect) = (recv.into(), request.into(), connect.into());
    let evds = Evds::get(&ia, [recv, request, connect])?;
    let queue = match srq {
        Some(srq) => Some(handle::get_of::<SrqObject>(srq, ia.ia())?),
        None => None,
    };
    required(place, place_argument)?;
    let [recv_evd, request_evd, connect_evd] = evds.ours();
    let attr = if attr.is_null() {
        Attr::default_for(recv_evd.is_some(), request_evd.is_some())
    } else {
        // SAFETY: not null, so attributes of the caller.
        Attr::checked(unsafe { load(attr, attr_argument) }?, attr_argument)?
    };
    ia.counts.add(dat::HANDLE_TYPE_EP, EPS_MAX, Subtype::Tep)?;
    let ours = attr.ours();
    let made = match (&zone, &queue) {
        (Some(zone), None) => Ep::create(zone, recv_evd, request_evd, connect_evd, ours),
        (None, None) => Ep::create_without_pz(&ia.ia, recv_evd, request_evd, connect_evd, ours),
        (Some(zone), Some(queue)) => {
            let queue = &queue.srq;
            Ep::create_with_srq(zone, recv_evd, request_evd, connect_evd, queue, ours)
        }
        (None, Some(_)) => Err(Error::handle(Subtype::Pz)),
    };
    let ep = made.map_err(|error| {
        ia.counts.remove(dat::HANDLE_TYPE_EP);
        match error {
            wrong if wrong == Error::arg(Subtype::Arg6) => Error::arg(attr_argument),
            other => other,
        }
    })?;
    let parts = Parts {
        pz: pz.into(),
        recv,
        request,
        connect,
        srq: srq.map_or(Handle::NULL, Handle::from),
        attr,
    };
    let handle = EpObject::add(&ia, ep, parts);
    // SAFETY: a place of the caller, not null.
    unsafe { store(place, handle.to_c()) };
    Ok(())
}

pub(crate) unsafe extern "C" fn ep_create(
    ia: dat::Handle,
    pz: dat::Handle,
    recv: dat::Handle,
    request: dat::Handle,
    connect: dat::Handle,
    attr: *const EpAttr,
    place: *mut dat::Handle,
) -> Return {
    let arguments = [Subtype::Arg6, Subtype::Arg7];
    let evds = [recv, request, connect];
    // SAFETY: the caller's pointers.
    edge(|| unsafe { create(ia, pz, evds, None, attr, place, arguments) })
}

pub(crate) unsafe extern "C" fn ep_create_with_srq(
    ia: dat::Handle,
    pz: dat::Handle,
    recv: dat::Handle,
    request: dat::Handle,
    connect: dat::Handle,
    srq: dat::Handle,
    attr: *const EpAttr,
    place: *mut dat::Handle,
) -> Return {
    let arguments = [Subtype::Arg7, Subtype::Arg8];
    let evds = [recv, request, connect];
    // SAFETY: the caller's pointers.
    edge(|| unsafe { create(ia, pz, evds, Some(srq), attr, place, arguments) })
}

pub(crate) unsafe extern "C" fn ep_query(
    ep: dat::Handle,
    mask: u64,
    place: *mut EpParam,
) -> Return {
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        if mask & !ep_field::ALL != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        required(place, Subtype::Arg3)?;
        let ia = handle::get::<IaObject>(held.ia())?;
        let (peer, local_port, remote_port) = held.ep.connection()?;
        if let Some(peer) = peer {
            *held.peer.lock() = SockAddr::new(peer);
        }
        let parts = *held.parts.lock();
        let param = EpParam {
            ia_handle: consumers(held.ia()),
            ep_state: held.ep.state() as u32,
            comm: Comm::default(),
            local_ia_address_ptr: ia.address(),
            local_port_qual: local_port,
            remote_ia_address_ptr: if peer.is_some() {
                held.peer.data_ptr().cast()
            } else {
                std::ptr::null_mut()
            },
            remote_port_qual: remote_port,
            pz_handle: parts.pz.to_c(),
            recv_evd_handle: parts.recv.to_c(),
            request_evd_handle: parts.request.to_c(),
            connect_evd_handle: parts.connect.to_c(),
            srq_handle: parts.srq.to_c(),
            ep_attr: parts.attr.0,
        };
        // SAFETY: a place of the caller, not null.
        unsafe { store(place, param) };
        Ok(())
    })
}

/// The attributes with those fields replaced that the mask names.
fn merged(mut attr: EpAttr, mask: u64, new: &EpAttr) -> EpAttr {
    macro_rules! take {
        ($($bit:ident: $field:ident),* $(,)?) => {
            $(if mask & ep_field::$bit != 0 {
                attr.$field = new.$field;
            })*
        };
    }
    take! {
        SERVICE_TYPE: service_type,
        MAX_MESSAGE_SIZE: max_message_size,
        MAX_RDMA_SIZE: max_rdma_size,
        QOS: qos,
        RECV_COMPLETION_FLAGS: recv_completion_flags,
        REQUEST_COMPLETION_FLAGS: request_completion_flags,
        MAX_RECV_DTOS: max_recv_dtos,
        MAX_REQUEST_DTOS: max_request_dtos,
        MAX_RECV_IOV: max_recv_iov,
        MAX_REQUEST_IOV: max_request_iov,
        MAX_RDMA_READ_IN: max_rdma_read_in,
        MAX_RDMA_READ_OUT: max_rdma_read_out,
        SRQ_SOFT_HW: srq_soft_hw,
        MAX_RDMA_READ_IOV: max_rdma_read_iov,
        MAX_RDMA_WRITE_IOV: max_rdma_write_iov,
    }
    attr
}

pub(crate) unsafe extern "C" fn ep_modify(
    ep: dat::Handle,
    mask: u64,
    param: *const EpParam,
) -> Return {
    /// What is the endpoint's for life, or not ours to set.
    const FIXED: u64 = ep_field::IA_HANDLE
        | ep_field::EP_STATE
        | ep_field::COMM
        | ep_field::LOCAL_IA_ADDRESS
        | ep_field::LOCAL_PORT_QUAL
        | ep_field::REMOTE_IA_ADDRESS
        | ep_field::REMOTE_PORT_QUAL
        | ep_field::SRQ_HANDLE
        | ep_field::SERVICE_TYPE;
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        if mask & !(ep_field::ALL & !FIXED) != 0 {
            return Err(Error::arg(Subtype::Arg2));
        }
        // SAFETY: parameters of the caller, or null, which is refused.
        let param = unsafe { load(param, Subtype::Arg3) }?;
        let mut parts = held.parts.lock();
        let named = |bit: u64, handle: dat::Handle| {
            let named = mask & bit != 0;
            if named {
                Handle::from(handle)
            } else {
                Handle::NULL
            }
        };
        let ia = handle::get::<IaObject>(held.ia())?;
        let pz = named(ep_field::PZ_HANDLE, param.pz_handle);
        let zone = handle::given::<Pz>(pz, ia.ia(), Subtype::Pz)?;
        let recv = named(ep_field::RECV_EVD_HANDLE, param.recv_evd_handle);
        let request = named(ep_field::REQUEST_EVD_HANDLE, param.request_evd_handle);
        let connect = named(ep_field::CONNECT_EVD_HANDLE, param.connect_evd_handle);
        let evds = Evds::get(&ia, [recv, request, connect])?;
        let [recv_evd, request_evd, connect_evd] = evds.ours();
        let attr = merged(parts.attr.0, mask, &param.ep_attr);
        let attr = Attr::checked(attr, Subtype::Arg3)?;
        held.ep.modify(EpChange {
            pz: zone.as_deref(),
            recv: recv_evd,
            request: request_evd,
            connect: connect_evd,
            attr: Some(attr.ours()),
        })?;
        parts.attr = attr;
        let parts = &mut *parts;
        let changes = [
            (&mut parts.pz, pz),
            (&mut parts.recv, recv),
            (&mut parts.request, request),
            (&mut parts.connect, connect),
        ];
        for (place, new) in changes {
            if new != Handle::NULL {
                *place = new;
            }
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn ep_get_status(
    ep: dat::Handle,
    state: *mut u32,
    recv_idle: *mut dat::Boolean,
    request_idle: *mut dat::Boolean,
) -> Return {
    edge(|| {
        let (now, no_recv, no_request) = handle::get::<EpObject>(ep)?.ep.status()?;
        // SAFETY: each is null or a place of the caller.
        unsafe {
            store(state, now as u32);
            store(recv_idle, no_recv.into());
            store(request_idle, no_request.into());
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn ep_recv_query(
    ep: dat::Handle,
    allocated: *mut Count,
    span: *mut Count,
) -> Return {
    edge(|| {
        let receives = to_count(handle::get::<EpObject>(ep)?.ep.receives()?);
        // SAFETY: each is null or a place of the caller.
        unsafe {
            store(allocated, receives);
            store(span, receives);
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn ep_set_watermark(ep: dat::Handle, _: Count, _: Count) -> Return {
    edge(|| handle::get::<EpObject>(ep).and(Err(NOT_SUPPORTED)))
}

pub(crate) unsafe extern "C" fn ep_free(ep: dat::Handle) -> Return {
    edge(|| {
        let held = handle::get::<EpObject>(ep)?;
        let freed = held.ep.free();
        held.forget_if_gone(ep)?;
        freed
    })
}

//! This process on one network of libfabric: its address, its peers, its transfers.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::sync::Arc;

use windlass_abi::ofi::{
    FI_COMPLETION, FI_CQ_FORMAT_CONTEXT, FI_DELIVERY_COMPLETE, FI_EAVAIL, FI_ENABLE, FI_GETWAIT,
    FI_MR_ALLOCATED, FI_RECV, FI_SEND, FI_WAIT_FD, fi_av_attr, fi_cq_attr, fi_cq_err_entry,
    fi_msg_rma, fi_rma_iov, fid, fid_av, fid_cq, fid_domain, fid_ep, fid_fabric, iovec,
};
use windlass_mem::SharedBytes;

use crate::ofi::{Error, Failure, Library, Registration, Result};
use crate::ofi_info::Info;
use crate::ofi_slots::{Name, Slots};

/// Transfers under way at most; each has a place in the completion queue.
const DEPTH_MAX: usize = 4096;

/// Completions taken in one call.
const BATCH: usize = 32;

/// Room for an address of any form; unused bytes are zero.
const ADDRESS_BYTES: usize = 256;

/// An error entry, with room for fields that later versions append.
#[repr(C)]
struct ErrorEntry {
    entry: fi_cq_err_entry,
    _later: [u64; 8],
}

/// A peer, as this endpoint names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerId(u64);

/// Bytes of a peer's registration.
#[derive(Debug, Clone, Copy)]
pub struct Remote {
    /// Whose.
    pub peer: PeerId,
    /// The first byte as the peer's registration names it.
    pub address: u64,
    /// Its key.
    pub key: u64,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// To the peer; complete when the bytes are in its memory.
    Write,
    /// From the peer.
    Read,
}

/// What became of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// Its end will be among the [`completions`](Endpoint::completions).
    Taken,
    /// As many are under way as the endpoint takes.
    Full,
    /// The library does not take it now: no connection yet or any more, or no room towards that peer.
    NotNow,
}

/// A transfer that has ended.
#[derive(Debug)]
pub struct Done {
    /// What it was posted with.
    pub name: Name,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
}

/// This process on one network.
pub struct Endpoint {
    info: Info,
    provider: String,
    fabric: *mut fid_fabric,
    domain: *mut fid_domain,
    vector: *mut fid_av,
    queue: *mut fid_cq,
    endpoint: *mut fid_ep,
    /// The queue's; closed with it.
    descriptor: RawFd,
    address: Vec<u8>,
    /// Freed last: the library writes into them until its objects are closed.
    slots: Slots,
}

// SAFETY: the library was asked for FI_THREAD_SAFE, and the objects do not change until they are closed.
unsafe impl Send for Endpoint {}
// SAFETY: as above.
unsafe impl Sync for Endpoint {}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({})", self.provider)
    }
}

impl Endpoint {
    /// Opens the best network at that address of this host, or the best of that provider.
    ///
    /// # Errors
    /// [`Error::Provider`], [`Error::NoProvider`]; [`Error::Unfit`] for one whose completions cannot be slept on; what a call
    /// answers.
    pub fn open(
        library: &Arc<Library>,
        provider: Option<&str>,
        local: IpAddr,
    ) -> Result<Arc<Endpoint>> {
        let info = Info::best(library, provider, local)?;
        let provider = info.provider();
        let depth = info.transmit().size.clamp(1, DEPTH_MAX);
        // Closes what is open already where the next step fails.
        let mut this = Endpoint {
            info,
            provider,
            fabric: ptr::null_mut(),
            domain: ptr::null_mut(),
            vector: ptr::null_mut(),
            queue: ptr::null_mut(),
            endpoint: ptr::null_mut(),
            descriptor: -1,
            address: Vec::new(),
            slots: Slots::new(depth),
        };
        this.open_objects()?;
        this.enable()?;
        Ok(Arc::new(this))
    }

    fn open_objects(&mut self) -> Result<()> {
        let library = Arc::clone(self.info.library());
        let (info, none) = (self.info.as_ptr(), ptr::null_mut());
        let mut vector = fi_av_attr {
            r#type: self.info.domain().av_type,
            rx_ctx_bits: 0,
            count: 0,
            ep_per_node: 0,
            name: ptr::null(),
            map_addr: none,
            flags: 0,
        };
        let mut queue = fi_cq_attr {
            size: self.slots.depth(),
            flags: 0,
            format: FI_CQ_FORMAT_CONTEXT,
            wait_obj: FI_WAIT_FD,
            signaling_vector: 0,
            wait_cond: 0,
            wait_set: none,
        };
        // SAFETY: each call gets the library's own answer, an open object, attributes of its type and a place for its result;
        // a table is read from an object that was just opened.
        unsafe {
            let fabric = (*info).fabric_attr;
            let code = (library.fabric)(fabric, &raw mut self.fabric, none);
            library.check("fi_fabric", code)?;
            let open = (*(*self.fabric).ops).domain;
            let code = open(self.fabric, info, &raw mut self.domain, none);
            library.check("fi_domain", code)?;
            let ops = &*(*self.domain).ops;
            let code = (ops.av_open)(self.domain, &raw mut vector, &raw mut self.vector, none);
            library.check("fi_av_open", code)?;
            let code = (ops.cq_open)(self.domain, &raw mut queue, &raw mut self.queue, none);
            let opened = library.check("fi_cq_open", code);
            opened.map_err(|error| self.sleepless(&error))?;
            let code = (ops.endpoint)(self.domain, info, &raw mut self.endpoint, none);
            library.check("fi_endpoint", code)
        }
    }

    fn sleepless(&self, error: &Error) -> Error {
        Error::Unfit {
            provider: self.provider.clone(),
            what: format!("gives no descriptor to wait for transfers on ({error})"),
        }
    }

    fn enable(&mut self) -> Result<()> {
        let library = Arc::clone(self.info.library());
        let fid = self.fid();
        let mut address = [0u8; ADDRESS_BYTES];
        let mut len = address.len();
        // SAFETY: open objects; bound before the endpoint is enabled, asked for its name after; places of the types that the
        // commands fill.
        unsafe {
            let ops = &*(*self.endpoint).fid.ops;
            let code = (ops.bind)(fid, self.vector.cast(), 0);
            library.check("fi_ep_bind (addresses)", code)?;
            let code = (ops.bind)(fid, self.queue.cast(), FI_SEND | FI_RECV);
            library.check("fi_ep_bind (completions)", code)?;
            let code = (ops.control)(fid, FI_ENABLE, ptr::null_mut());
            library.check("fi_enable", code)?;
            let control = (*(*self.queue).fid.ops).control;
            let place: *mut RawFd = &raw mut self.descriptor;
            let code = control(self.queue.cast(), FI_GETWAIT, place.cast());
            let waits = library.check("fi_control (FI_GETWAIT)", code);
            waits.map_err(|error| self.sleepless(&error))?;
            let name = (*(*self.endpoint).cm).getname;
            let code = name(fid, address.as_mut_ptr().cast(), &raw mut len);
            library.check("fi_getname", code)?;
        }
        self.address = address[..len.min(ADDRESS_BYTES)].to_vec();
        Ok(())
    }

    pub(crate) fn library(&self) -> &Library {
        self.info.library()
    }

    pub(crate) fn domain(&self) -> *mut fid_domain {
        self.domain
    }

    pub(crate) fn fid(&self) -> *mut fid {
        self.endpoint.cast()
    }

    pub(crate) fn mr_mode(&self) -> c_int {
        self.info.domain().mr_mode
    }

    pub(crate) fn key_bytes(&self) -> usize {
        self.info.domain().mr_key_size
    }

    /// Its provider's name.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// What two endpoints must have in common: protocol, its version, form of addresses.
    pub fn protocol(&self) -> [u32; 3] {
        let endpoint = self.info.endpoint();
        [
            endpoint.protocol,
            endpoint.protocol_version,
            self.info.format(),
        ]
    }

    /// Its address, for peers.
    pub fn address(&self) -> &[u8] {
        &self.address
    }

    /// The longest transfer in bytes.
    pub fn max_bytes(&self) -> usize {
        self.info.endpoint().max_msg_size
    }

    /// Do all pages of memory have to be there before it is registered?
    pub fn wants_pages(&self) -> bool {
        self.mr_mode() & FI_MR_ALLOCATED != 0
    }

    /// Readable when [`completions`](Self::completions) may have something to do, if [`may_sleep`](Self::may_sleep) was asked.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the queue's own, open as long as the queue, which `self` closes.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }

    /// Names a peer by the address that its endpoint told. `None` for one that cannot be of this network.
    pub fn insert(&self, address: &[u8]) -> Option<PeerId> {
        // The library reads as many bytes as the form of its own addresses has, whatever the peer has sent.
        if address.len() != self.address.len() {
            return None;
        }
        let mut room = [0u8; ADDRESS_BYTES];
        room[..address.len()].copy_from_slice(address);
        let mut peer = u64::MAX;
        // SAFETY: an open vector, an address with as much room behind it as any form needs, and a place for the answer.
        let inserted = unsafe {
            let insert = (*(*self.vector).ops).insert;
            let (address, answer) = (room.as_ptr().cast(), &raw mut peer);
            insert(self.vector, address, 1, answer, 0, ptr::null_mut())
        };
        (inserted == 1 && peer != u64::MAX).then_some(PeerId(peer))
    }

    /// Begins a transfer between all of `local`, part of `within`, and a peer's bytes. Where it is not taken: take
    /// completions, try again.
    ///
    /// # Errors
    /// [`Error::Unregistered`]; [`Error::Call`].
    pub fn post(
        &self,
        verb: Verb,
        local: &SharedBytes,
        within: &Arc<Registration>,
        remote: Remote,
        name: Name,
    ) -> Result<Posted> {
        if within.bytes().contains(local).is_none() {
            return Err(Error::Unregistered);
        }
        let Some(slot) = self.slots.take(name, local, within) else {
            return Ok(Posted::Full);
        };
        let piece = iovec {
            iov_base: local.as_ptr().cast(),
            iov_len: local.len(),
        };
        let there = fi_rma_iov {
            addr: remote.address,
            len: local.len(),
            key: remote.key,
        };
        let mut descriptor = within.descriptor();
        let message = fi_msg_rma {
            msg_iov: &raw const piece,
            desc: &raw mut descriptor,
            iov_count: 1,
            addr: remote.peer.0,
            rma_iov: &raw const there,
            rma_iov_count: 1,
            context: slot.cast(),
            data: 0,
        };
        // SAFETY: an open endpoint; the message is read within the call; memory, registration and context stay until the
        // completion is taken: the slot holds them.
        let code = unsafe {
            let ops = &*(*self.endpoint).rma;
            match verb {
                Verb::Write => {
                    let flags = FI_COMPLETION | FI_DELIVERY_COMPLETE;
                    (ops.writemsg)(self.endpoint, &raw const message, flags)
                }
                Verb::Read => (ops.readmsg)(self.endpoint, &raw const message, FI_COMPLETION),
            }
        };
        let code = c_int::try_from(code).unwrap_or(c_int::MIN);
        if code == 0 {
            return Ok(Posted::Taken);
        }
        // SAFETY: just taken, and not the library's.
        unsafe { self.slots.give_back(slot) };
        if code == -libc::EAGAIN {
            return Ok(Posted::NotNow);
        }
        let call = match verb {
            Verb::Write => "fi_writemsg",
            Verb::Read => "fi_readmsg",
        };
        self.library().check(call, code).map(|()| Posted::NotNow)
    }

    /// Transfers that have not ended.
    pub fn outstanding(&self) -> usize {
        self.slots.used()
    }

    /// Lets the library move data, also for peers, and gives what has ended. `true` if anything had.
    pub fn completions(&self, mut ended: impl FnMut(Done)) -> bool {
        let mut any = false;
        loop {
            let mut contexts = [ptr::null_mut::<c_void>(); BATCH];
            // SAFETY: an open queue of contexts, and room for so many.
            let count = unsafe {
                let read = (*(*self.queue).ops).read;
                read(self.queue, contexts.as_mut_ptr().cast(), BATCH)
            };
            let done = usize::try_from(count).unwrap_or(0).min(BATCH);
            for slot in &contexts[..done] {
                any = true;
                // SAFETY: the context of a transfer that the library has done with.
                let name = unsafe { self.slots.give_back(slot.cast()) };
                let failure = None;
                ended(Done { name, failure });
            }
            if count == -(FI_EAVAIL as isize) {
                match self.failed() {
                    Some(done) => {
                        any = true;
                        ended(done);
                    }
                    None => return any,
                }
            } else if done < BATCH {
                return any;
            }
        }
    }

    /// The next transfer that failed.
    fn failed(&self) -> Option<Done> {
        // SAFETY: numbers and null pointers: all zeroes is a value.
        let mut error: ErrorEntry = unsafe { std::mem::zeroed() };
        // SAFETY: an open queue, and an entry with more room than any version writes; no buffer for the provider's own data.
        let count = unsafe {
            let read = (*(*self.queue).ops).readerr;
            read(self.queue, &raw mut error.entry, 0)
        };
        let entry = &error.entry;
        if count < 1 || entry.op_context.is_null() {
            return None;
        }
        let code = entry.err.saturating_abs();
        // SAFETY: the context of a transfer that the library has done with.
        let name = unsafe { self.slots.give_back(entry.op_context.cast()) };
        let failure = Some(self.library().failure("the transfer", code));
        Some(Done { name, failure })
    }

    /// May a thread sleep on [`fd`](Self::fd)? If not, take completions first.
    pub fn may_sleep(&self) -> bool {
        let mut fids = [self.queue.cast::<fid>()];
        // SAFETY: an open fabric and a list of one of its queues.
        let code = unsafe {
            let trywait = (*(*self.fabric).ops).trywait;
            trywait(self.fabric, fids.as_mut_ptr(), 1)
        };
        code == 0
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let objects: [*mut fid; 5] = [
            self.endpoint.cast(),
            self.queue.cast(),
            self.vector.cast(),
            self.domain.cast(),
            self.fabric.cast(),
        ];
        for object in objects.into_iter().filter(|object| !object.is_null()) {
            // SAFETY: open, closed once, after all that hangs on it: registrations hold this endpoint.
            unsafe { ((*(*object).ops).close)(object) };
        }
    }
}

//! An adapter that is open, what it says of itself, and the thread that hears of its events.
#![allow(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use windlass_abi::dat::consumer::{
    ATOMICS, IA_FIELD_ALL, PROVIDER_FIELD_ALL, VERSION, evd_flag, event_number, kind,
};
use windlass_abi::dat::{
    self, CLOSE_ABRUPT, EventData, Handle, IaAttr, NamedAttr, ProviderAttr, ProxyAgent, SUCCESS,
    TYPE_MASK,
};

use crate::dat2::{Error, Library, Result, text};
use crate::dat2_address::address;
use crate::dat2_endpoint::Wire;
use crate::dat2_queue::Event;

/// Events that the asynchronous dispatcher holds at least.
const ASYNC_EVENTS: i32 = 16;

/// The longest sleep of the thread that hears of events: it ends at the latest after so many microseconds.
const SLEEP_US: u32 = 1_000_000;

/// A handle. It is used through the library alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw(pub(crate) Handle);

// SAFETY: a handle is a number to this process; who may call with it when is the adapter's turn.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

/// What an adapter says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Its name in `dat.conf`.
    pub name: String,
    /// The provider's name.
    pub provider: String,
    /// The adapter's own.
    pub adapter: String,
    /// Its address, where it has one.
    pub address: Option<IpAddr>,
    /// The provider has 64-bit fetch-and-add, compare-and-swap (udapl 8).
    pub atomics: [bool; 2],
    /// The longest RDMA transfer in bytes.
    pub rdma_bytes: usize,
    /// Requests and receives of one endpoint at most.
    pub(crate) dtos: usize,
    /// Events that a dispatcher holds at most.
    pub(crate) events: usize,
    /// Reads of one endpoint that are under way at most, in and out.
    pub(crate) reads: [i32; 2],
    pub(crate) message_bytes: u32,
}

/// Everything that is changed one at a time.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Start and length of what is registered, by local context.
    pub(crate) regions: HashMap<u32, (u64, u64)>,
    /// Endpoints by number. None is used twice: late events of one that is gone mean nothing.
    pub(crate) wires: HashMap<u32, Wire>,
    pub(crate) wires_made: u32,
    /// What queues have ready.
    pub(crate) ready: HashMap<u32, VecDeque<Event>>,
    pub(crate) queues_made: u32,
}

/// One name of `dat.conf`, opened, with a protection zone.
#[derive(Debug)]
pub struct Adapter {
    library: Arc<Library>,
    about: About,
    ia: Raw,
    pz: Raw,
    cno: Raw,
    /// Takes the event that ends the watcher.
    bell: Raw,
    state: Mutex<State>,
    signal: Arc<Signal>,
    watcher: Option<JoinHandle<()>>,
}

impl Adapter {
    /// Opens the adapter of that name.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Absent`], [`Error::Version`], [`Error::Unfit`], [`Error::Call`]: each says what would help.
    pub fn open(library: &Arc<Library>, name: &str) -> Result<Arc<Adapter>> {
        let ia = open(library, name)?;
        match Adapter::with(library, ia, name) {
            Ok(adapter) => Ok(Arc::new(adapter)),
            Err(error) => {
                // SAFETY: opened above; what was made in it goes with it.
                unsafe { (library.ia_close)(ia.0, CLOSE_ABRUPT) };
                Err(error)
            }
        }
    }

    fn with(library: &Arc<Library>, ia: Raw, name: &str) -> Result<Adapter> {
        let about = about(library, ia, name)?;
        let mut pz = std::ptr::null_mut();
        // SAFETY: an open IA and a place for the answer.
        library.check("dat_pz_create", unsafe {
            (library.pz_create)(ia.0, &raw mut pz)
        })?;
        let nobody = ProxyAgent {
            instance_data: std::ptr::null_mut(),
            proxy_agent_func: None,
        };
        let mut cno = std::ptr::null_mut();
        // SAFETY: an open IA and a place for the answer.
        library.check("dat_cno_create", unsafe {
            (library.cno_create)(ia.0, nobody, &raw mut cno)
        })?;
        let cno = Raw(cno);
        let bell = dispatcher(library, ia, cno, 1, evd_flag::SOFTWARE)?;
        let signal = Arc::new(Signal::new()?);
        let (watched, told) = (Arc::clone(library), Arc::clone(&signal));
        let thread = std::thread::Builder::new().name("windlass-dat2".into());
        let watcher = thread.spawn(move || watch(&watched, cno, &told));
        let unfit = |e: std::io::Error| unfit(name, format!("gets no thread: {e}"));
        Ok(Adapter {
            library: Arc::clone(library),
            about,
            ia,
            pz: Raw(pz),
            cno,
            bell,
            state: Mutex::default(),
            signal,
            watcher: Some(watcher.map_err(unfit)?),
        })
    }

    /// What it says of itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Readable when there may be events that nobody has taken: then [`rearm`](Self::rearm), take events, sleep again.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.signal.fd.as_fd()
    }

    /// From here on [`fd`](Self::fd) tells of events that are not taken.
    pub fn rearm(&self) {
        self.signal.clear();
    }

    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    pub(crate) fn ia(&self) -> Handle {
        self.ia.0
    }

    pub(crate) fn pz(&self) -> Handle {
        self.pz.0
    }

    /// The turn to call, and what the turns change.
    pub(crate) fn turn(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A dispatcher whose events trigger the CNO. The caller has the turn.
    pub(crate) fn dispatcher(&self, events: usize, flags: u32) -> Result<Raw> {
        dispatcher(&self.library, self.ia, self.cno, events, flags)
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        self.signal.end();
        let event = dat::Event {
            event_number: event_number::SOFTWARE,
            evd_handle: self.bell.0,
            event_data: EventData {
                software: std::ptr::null_mut(),
            },
            event_extension_data: [0; 8],
        };
        // SAFETY: an open dispatcher and an event, which is copied. If it fails, the thread ends when it wakes.
        unsafe { (self.library.evd_post_se)(self.bell.0, &raw const event) };
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        // SAFETY: nobody else has this value; each was made once and goes once, users before what they use.
        unsafe {
            (self.library.evd_free)(self.bell.0);
            (self.library.cno_free)(self.cno.0);
            (self.library.pz_free)(self.pz.0);
            (self.library.ia_close)(self.ia.0, CLOSE_ABRUPT);
        }
    }
}

fn unfit(name: &str, what: impl Into<String>) -> Error {
    Error::Unfit {
        name: name.to_owned(),
        what: what.into(),
    }
}

/// Opens the name as lines of `dat.conf` have it: most say that they are not thread-safe, and the two are different names.
fn open(library: &Library, name: &str) -> Result<Raw> {
    let unknown = || Error::Unknown {
        name: name.to_owned(),
        there: (library.names().into_iter())
            .map(|(name, _)| name)
            .collect(),
    };
    let c_name = CString::new(name).map_err(|_| unknown())?;
    if name.len() >= dat::NAME_MAX {
        return Err(unknown());
    }
    let mut code = SUCCESS;
    for thread_safe in [0, 1] {
        let (mut events, mut ia) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: a C string shorter than the longest name and places for the answers; a null dispatcher asks for one.
        code = unsafe {
            (library.ia_openv)(
                c_name.as_ptr(),
                ASYNC_EVENTS,
                &raw mut events,
                &raw mut ia,
                VERSION.0,
                VERSION.1,
                thread_safe,
            )
        };
        if code == SUCCESS {
            return Ok(Raw(ia));
        }
        if code & TYPE_MASK != kind::PROVIDER_NOT_FOUND {
            break;
        }
    }
    if code & TYPE_MASK != kind::PROVIDER_NOT_FOUND {
        return Err(Error::Call(library.failure("dat_ia_open", code)));
    }
    let found = library.names().into_iter().find(|(there, _)| there == name);
    Err(match found {
        None => unknown(),
        Some((name, found)) if found != VERSION => Error::Version { name, found },
        Some((name, _)) => Error::Absent { name },
    })
}

fn about(library: &Library, ia: Raw, name: &str) -> Result<About> {
    let mut attr = MaybeUninit::<IaAttr>::zeroed();
    let mut provider = MaybeUninit::<ProviderAttr>::zeroed();
    // SAFETY: an open IA and places for the answers; the dispatcher is not asked for.
    library.check("dat_ia_query", unsafe {
        (library.ia_query)(
            ia.0,
            std::ptr::null_mut(),
            IA_FIELD_ALL,
            attr.as_mut_ptr(),
            PROVIDER_FIELD_ALL,
            provider.as_mut_ptr(),
        )
    })?;
    // SAFETY: plain data, for which zeros are valid, and answered.
    let (attr, provider) = unsafe { (attr.assume_init(), provider.assume_init()) };
    let found = (provider.dapl_version_major, provider.dapl_version_minor);
    if found.0 < VERSION.0 {
        let name = name.to_owned();
        return Err(Error::Version { name, found });
    }
    let count = |count: i32| usize::try_from(count).unwrap_or(0);
    // SAFETY: as many attributes as are said, of this query.
    let named = unsafe {
        named(
            provider.provider_specific_attr,
            provider.num_provider_specific_attr,
        )
    };
    let about = About {
        name: name.to_owned(),
        provider: text(&provider.provider_name),
        adapter: text(&attr.adapter_name),
        // SAFETY: null, or a socket address of the provider.
        address: unsafe { address(attr.ia_address_ptr) },
        atomics: ATOMICS.map(|name| named.iter().any(|there| there == name)),
        rdma_bytes: attr.max_rdma_size as usize,
        dtos: count(attr.max_dto_per_ep),
        events: count(attr.max_evd_qlen),
        reads: [attr.max_rdma_read_per_ep_in, attr.max_rdma_read_per_ep_out],
        message_bytes: attr.max_message_size,
    };
    if about.reads.iter().any(|&reads| reads < 1) {
        return Err(unfit(name, "has no RDMA reads: gets need them"));
    }
    Ok(about)
}

/// The names of attributes whose value is not "FALSE".
///
/// # Safety
/// `list` is null or has `count` attributes, of C strings or null.
unsafe fn named(list: *const NamedAttr, count: i32) -> Vec<String> {
    let count = usize::try_from(count).unwrap_or(0);
    if list.is_null() {
        return Vec::new();
    }
    let all = (0..count).map(|index| {
        // SAFETY: one of the `count` there are.
        let attr = unsafe { *list.add(index) };
        let text = |text: *const c_char| {
            if text.is_null() {
                return String::new();
            }
            // SAFETY: not null: a C string.
            unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned()
        };
        (text(attr.name), text(attr.value))
    });
    let there = all.filter(|(_, value)| !value.eq_ignore_ascii_case("false"));
    there.map(|(name, _)| name).collect()
}

fn dispatcher(library: &Library, ia: Raw, cno: Raw, events: usize, flags: u32) -> Result<Raw> {
    let events = i32::try_from(events).unwrap_or(i32::MAX);
    let mut evd = std::ptr::null_mut();
    // SAFETY: open handles and a place for the answer.
    library.check("dat_evd_create", unsafe {
        (library.evd_create)(ia.0, events, cno.0, flags, &raw mut evd)
    })?;
    Ok(Raw(evd))
}

/// Hears of events until the adapter goes.
fn watch(library: &Library, cno: Raw, signal: &Signal) {
    while !signal.is_over() {
        let mut evd = std::ptr::null_mut();
        // SAFETY: the CNO is open until this thread has ended.
        let code = unsafe { (library.cno_wait)(cno.0, SLEEP_US, &raw mut evd) };
        match code & TYPE_MASK {
            SUCCESS => signal.set_and_wait(),
            kind::QUEUE_EMPTY | kind::TIMEOUT_EXPIRED => {}
            // Nothing that a provider may say here helps; a look now and then does.
            _ => {
                std::thread::sleep(Duration::from_millis(1));
                signal.set_and_wait();
            }
        }
    }
}

/// A descriptor that is readable from [`set_and_wait`](Self::set_and_wait) to [`clear`](Self::clear).
#[derive(Debug)]
struct Signal {
    fd: OwnedFd,
    is_set: AtomicBool,
    over: AtomicBool,
    turn: Mutex<()>,
    cleared: Condvar,
}

impl Signal {
    fn new() -> Result<Signal> {
        // SAFETY: takes numbers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return Err(unfit("", format!("gets no descriptor: {error}")));
        }
        Ok(Signal {
            // SAFETY: just opened, and nobody else's.
            fd: unsafe { OwnedFd::from_raw_fd(fd) },
            is_set: AtomicBool::new(false),
            over: AtomicBool::new(false),
            turn: Mutex::default(),
            cleared: Condvar::default(),
        })
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn set_and_wait(&self) {
        let mut turn = self.turn.lock();
        let one = 1u64;
        // SAFETY: an open descriptor and 8 bytes.
        unsafe { libc::write(self.fd.as_raw_fd(), (&raw const one).cast(), 8) };
        self.is_set.store(true, Ordering::SeqCst);
        while self.is_set.load(Ordering::SeqCst) && !self.is_over() {
            self.cleared.wait(&mut turn);
        }
    }

    fn clear(&self) {
        if !self.is_set.load(Ordering::SeqCst) {
            return;
        }
        let _turn = self.turn.lock();
        let mut count = 0u64;
        // SAFETY: an open descriptor and room for 8 bytes.
        unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
        self.is_set.store(false, Ordering::SeqCst);
        self.cleared.notify_all();
    }

    fn end(&self) {
        let _turn = self.turn.lock();
        self.over.store(true, Ordering::Release);
        self.cleared.notify_all();
    }
}

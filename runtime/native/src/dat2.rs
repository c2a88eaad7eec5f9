//! libdat2.so.2: uDAPL over the providers that `dat.conf` names (udapl 1, 4).
//!
//! A [`Library`] is loaded once; an [`Adapter`] is one of the names of `dat.conf`, opened with one protection zone. Memory is
//! registered, by a [`Registration`] that holds it; an [`Endpoint`] is one reliable connection; its events come from the [`Queue`]
//! it was made with. What stock providers lack is made up here: copies of small messages, events without an outcome left out,
//! messages that overtake the news of their connection, an end that overtakes what it ended.
//!
//! **Only what every provider has** is used (udapl 1.3): memory of type virtual, RDMA writes and reads, sends and receives.
//! The 64-bit atomics of the InfiniBand extension are offered where the adapter says that it has them ([`About`]): they are atomic
//! to each other, and to the CPU's on adapters alone that promise it (udapl 8).
//!
//! **Sleeping.** Every event triggers a consumer notification object, on which a thread waits by `dat_cno_wait`: stock providers
//! call an agent once only, and none has the object with a descriptor. The thread makes [`Adapter::fd`] readable and then waits
//! for [`Adapter::rearm`], so that an application that polls pays nothing for it.
//!
//! **Thread safety.** Everything is `Send + Sync`. Providers say that they are not thread-safe: calls are made one at a time, but
//! for the thread in `dat_cno_wait`, which could not be woken otherwise.
//!
//! **Order of cleanup.** Registrations, queues and endpoints hold their adapter, endpoints their queue. The library stays loaded.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char};
use std::sync::Arc;

use windlass_abi::dat::consumer::{
    Close, CnoCreate, CnoWait, CrAccept, CrReject, EpConnect, EpCreate, EvdCreate, EvdDequeue,
    EvdPost, ExtensionOp, IaOpenv, IaQuery, ListProviders, LmrCreate, PspCreate, PspCreateAny,
    StrError, kind,
};
use windlass_abi::dat::{
    CrParam, Create, NAME_MAX, OfHandle, Post, PostRdma, ProviderInfo, Query, Return, TYPE_MASK,
};

use crate::linker::{self, Handle};

pub use crate::dat2_adapter::{About, Adapter};
pub use crate::dat2_atomics::Atomic;
pub use crate::dat2_endpoint::{Capacity, Endpoint, INLINE_BYTES, Phase};
pub use crate::dat2_memory::Registration;
pub use crate::dat2_queue::{Completion, Event, Queue, Request};
pub use windlass_abi::dat::{SONAME, Triplet};

/// Result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Why libdat2 cannot be used, or what it or a provider answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library is not there, or cannot be loaded.
    #[error("{name} cannot be loaded ({text}); install it (Debian: libdat2-2)")]
    Load {
        /// File or soname.
        name: String,
        /// What the linker says.
        text: String,
    },
    /// The library lacks a function.
    #[error("{library} has no {symbol}: install libdat2 2.0 or later")]
    Symbol {
        /// File or soname.
        library: String,
        /// The function.
        symbol: &'static str,
    },
    /// No line of `dat.conf` has that name.
    #[error("libdat2 knows no adapter {name:?}; {} has: {}", conf(), list(there))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        there: Vec<String>,
    },
    /// The line is there, but its provider does not come.
    #[error(
        "the provider of {name:?} does not start: see that {} names its library and parameters rightly",
        conf()
    )]
    Absent {
        /// What was asked for.
        name: String,
    },
    /// The provider is of another version.
    #[error(
        "the provider of {name:?} is of version {}.{}, and 2.0 is needed: install a later one", found.0, found.1
    )]
    Version {
        /// What was asked for.
        name: String,
        /// Major and minor.
        found: (u32, u32),
    },
    /// The adapter lacks something that is needed.
    #[error("the adapter {name:?} {what}")]
    Unfit {
        /// Which.
        name: String,
        /// What it lacks.
        what: String,
    },
    /// A call failed.
    #[error("{0}")]
    Call(Failure),
    /// No room now: take events, try again.
    #[error("no room for a further request now")]
    Full,
    /// Memory that is not registered.
    #[error("the local memory is not registered")]
    Unregistered,
    /// The adapter has no such extension.
    #[error("the adapter has no 64-bit {0}")]
    NoAtomic(&'static str),
    /// More than [`INLINE_BYTES`].
    #[error("{0} bytes are too many for a message")]
    TooLong(usize),
}

/// Where libdat2 looks names up.
fn conf() -> String {
    match std::env::var("DAT_OVERRIDE") {
        Ok(path) => format!("{path} (DAT_OVERRIDE)"),
        Err(_) => "/etc/dat.conf".into(),
    }
}

/// Names that are told; Debian's own `dat.conf` has 62.
const SHOWN: usize = 6;

fn list(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        names if names.len() <= SHOWN => names.join(", "),
        names => {
            let (first, more) = names.split_at(SHOWN);
            format!("{} and {} more", first.join(", "), more.len())
        }
    }
}

/// A call that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {text} ({code:#010x})")]
pub struct Failure {
    /// The function.
    pub call: &'static str,
    /// The `DAT_RETURN`.
    pub code: u32,
    /// Type and subtype by their names.
    pub text: String,
}

impl Failure {
    /// The type of the refusal (udapl 2.1).
    pub fn kind(&self) -> u32 {
        self.code & TYPE_MASK
    }

    /// Is it that the endpoint is in another state?
    pub fn is_state(&self) -> bool {
        self.kind() == kind::INVALID_STATE
    }
}

/// # Safety
/// `F` is the type of a pointer to the function `symbol`.
unsafe fn find<F: Copy>(library: &str, handle: Handle, symbol: &'static CStr) -> Result<F> {
    // SAFETY: the caller's promise.
    let found = unsafe { handle.find(symbol, None) };
    found.ok_or_else(|| Error::Symbol {
        library: library.to_owned(),
        symbol: symbol.to_str().unwrap_or_default(),
    })
}

macro_rules! functions {
    ($($field:ident: $type:ty = $symbol:literal;)*) => {
        /// The functions of libdat2 that this crate calls.
        #[derive(Debug)]
        pub struct Library { $( pub(crate) $field: $type, )* }

        impl Library {
            /// # Safety
            /// The handle is of an open libdat2.so.2.
            unsafe fn find(name: &str, handle: Handle) -> Result<Self> {
                // SAFETY: each type is that of its function (udapl 4; `windlass-abi` states it).
                unsafe { Ok(Self { $( $field: find(name, handle, $symbol)?, )* }) }
            }
        }
    };
}

functions! {
    ia_openv: IaOpenv = c"dat_ia_openv";
    ia_query: IaQuery = c"dat_ia_query";
    ia_close: Close = c"dat_ia_close";
    list_providers: ListProviders = c"dat_registry_list_providers";
    strerror: StrError = c"dat_strerror";
    pz_create: Create = c"dat_pz_create";
    pz_free: OfHandle = c"dat_pz_free";
    lmr_create: LmrCreate = c"dat_lmr_create";
    lmr_free: OfHandle = c"dat_lmr_free";
    cno_create: CnoCreate = c"dat_cno_create";
    cno_wait: CnoWait = c"dat_cno_wait";
    cno_free: OfHandle = c"dat_cno_free";
    evd_create: EvdCreate = c"dat_evd_create";
    evd_post_se: EvdPost = c"dat_evd_post_se";
    evd_dequeue: EvdDequeue = c"dat_evd_dequeue";
    evd_free: OfHandle = c"dat_evd_free";
    psp_create: PspCreate = c"dat_psp_create";
    psp_create_any: PspCreateAny = c"dat_psp_create_any";
    psp_free: OfHandle = c"dat_psp_free";
    cr_query: Query<CrParam> = c"dat_cr_query";
    cr_accept: CrAccept = c"dat_cr_accept";
    cr_reject: CrReject = c"dat_cr_reject";
    ep_create: EpCreate = c"dat_ep_create";
    ep_connect: EpConnect = c"dat_ep_connect";
    ep_disconnect: Close = c"dat_ep_disconnect";
    ep_free: OfHandle = c"dat_ep_free";
    post_send: Post = c"dat_ep_post_send";
    post_recv: Post = c"dat_ep_post_recv";
    post_read: PostRdma = c"dat_ep_post_rdma_read";
    post_write: PostRdma = c"dat_ep_post_rdma_write";
    extension: ExtensionOp = c"dat_extension_op";
}

impl Library {
    /// Loads the library by its path or soname.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::Symbol`].
    pub fn load(file: impl AsRef<OsStr>) -> Result<Arc<Library>> {
        let name = file.as_ref().to_string_lossy().into_owned();
        // Providers find libdat2's functions among the global ones (udapl 1).
        let handle = linker::open(file.as_ref(), libc::RTLD_GLOBAL);
        let handle = handle.map_err(|text| Error::Load {
            name: name.clone(),
            text,
        })?;
        // SAFETY: a libdat2 by its name and its functions' names.
        unsafe { Library::find(&name, handle) }.map(Arc::new)
    }

    /// The names of `dat.conf`, with the versions of their providers.
    pub fn names(&self) -> Vec<(String, (u32, u32))> {
        /// More than any file has.
        const ROOM: usize = 256;
        let none = ProviderInfo {
            ia_name: [0; NAME_MAX],
            dapl_version_major: 0,
            dapl_version_minor: 0,
            is_thread_safe: 0,
        };
        let mut infos = vec![none; ROOM];
        let mut places: Vec<*mut ProviderInfo> = infos.iter_mut().map(std::ptr::from_mut).collect();
        let mut count = 0;
        // SAFETY: a place for the count and as many places as are said, each with room for an answer.
        unsafe { (self.list_providers)(ROOM as i32, &raw mut count, places.as_mut_ptr()) };
        let count = usize::try_from(count).unwrap_or(0).min(ROOM);
        let told = |info: &ProviderInfo| {
            let version = (info.dapl_version_major, info.dapl_version_minor);
            (text(&info.ia_name), version)
        };
        infos[..count].iter().map(told).collect()
    }

    /// What a code means, by the header's names.
    pub(crate) fn failure(&self, call: &'static str, code: Return) -> Failure {
        let (mut major, mut minor) = (std::ptr::null(), std::ptr::null());
        // SAFETY: a number and two places.
        unsafe { (self.strerror)(code, &raw mut major, &raw mut minor) };
        let name = |text: *const c_char| {
            if text.is_null() {
                return String::new();
            }
            // SAFETY: not null: a C string that stays.
            unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned()
        };
        let text = format!("{} {}", name(major), name(minor));
        let text = text.trim().to_owned();
        Failure { call, code, text }
    }

    /// A call's answer.
    pub(crate) fn check(&self, call: &'static str, code: Return) -> Result<()> {
        match code {
            windlass_abi::dat::SUCCESS => Ok(()),
            code => Err(Error::Call(self.failure(call, code))),
        }
    }
}

/// The text in an array that may lack its end.
pub(crate) fn text(name: &[c_char]) -> String {
    let bytes: Vec<u8> = (name.iter().take_while(|&&c| c != 0))
        .map(|&c| c.cast_unsigned())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

//! What to ask of libfabric's providers, and what they answer.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::net::IpAddr;
use std::ptr;
use std::sync::Arc;

use windlass_abi::ofi::{
    FI_CONTEXT, FI_CONTEXT2, FI_DELIVERY_COMPLETE, FI_EP_RDM, FI_LOCAL_COMM, FI_MR_ALLOCATED,
    FI_MR_ENDPOINT, FI_MR_LOCAL, FI_MR_PROV_KEY, FI_MR_VIRT_ADDR, FI_PROGRESS_AUTO,
    FI_PROGRESS_MANUAL, FI_REMOTE_COMM, FI_RMA, FI_SOURCE, FI_THREAD_SAFE, fi_domain_attr,
    fi_ep_attr, fi_fabric_attr, fi_info, fi_tx_attr, fi_version,
};

use crate::ofi::{Error, Library, Result};
use crate::ofi_signals::Signals;

/// The version whose behaviour is asked for: the first in which address and key modes are as they are today.
const API: u32 = fi_version(1, 9);

/// How the name of a provider ends that makes datagrams without connections of connected endpoints.
const LAYERED: &str = ";ofi_rxm";

/// A list of answers, or the wish itself; freed when dropped. The first entry is the best.
#[derive(Debug)]
pub(crate) struct Info {
    library: Arc<Library>,
    first: *mut fi_info,
}

// SAFETY: the list is plain memory of the library, owned here alone.
unsafe impl Send for Info {}
// SAFETY: through `&Info` it is only read, by us and by the library's open calls.
unsafe impl Sync for Info {}

impl Drop for Info {
    fn drop(&mut self) {
        // SAFETY: what `fi_getinfo` or `fi_dupinfo` gave, freed once.
        unsafe { (self.library.freeinfo)(self.first) };
    }
}

/// The name of a provider in an answer.
///
/// # Safety
/// `info` is an entry of a list that lives.
unsafe fn name_of(info: *const fi_info) -> String {
    // SAFETY: entries have attributes or null there, and a name or null in them.
    unsafe {
        let attr: *const fi_fabric_attr = (*info).fabric_attr;
        if attr.is_null() || (*attr).prov_name.is_null() {
            return String::new();
        }
        CStr::from_ptr((*attr).prov_name)
            .to_string_lossy()
            .into_owned()
    }
}

impl Info {
    /// The best network for reliable one-sided transfers at that address of this host; of that provider, if one is named.
    ///
    /// # Errors
    /// [`Error::Provider`] with what there is; [`Error::NoProvider`].
    pub(crate) fn best(
        library: &Arc<Library>,
        provider: Option<&str>,
        local: IpAddr,
    ) -> Result<Info> {
        let _signals = Signals::keep(); // providers may be libraries of their own
        let node = CString::new(local.to_string()).unwrap_or_default();
        let asked = |name, progress| Self::asked(library, name, progress, &node);
        match (asked(provider, FI_PROGRESS_MANUAL), provider) {
            // Its connections do not show on the descriptor that the helper sleeps on: a thread of the library's own makes them.
            (Ok(info), _) if info.provider().ends_with(LAYERED) => {
                asked(Some(&info.provider()), FI_PROGRESS_AUTO)
            }
            (Ok(info), _) => Ok(info),
            (Err(why), None) => Err(Error::NoProvider(why.to_string())),
            (Err(_), Some(name)) => Err(Error::Provider {
                name: name.to_owned(),
                there: asked(None, FI_PROGRESS_MANUAL)
                    .map(|all| all.names())
                    .unwrap_or_default(),
            }),
        }
    }

    /// All that serve, best first. Networks without such addresses are asked once more.
    fn asked(
        library: &Arc<Library>,
        provider: Option<&str>,
        progress: c_int,
        node: &CStr,
    ) -> Result<Info> {
        let hints = Self::hints(library, provider, progress)?;
        hints.answer(Some(node)).or_else(|_| hints.answer(None))
    }

    /// The names of all that serve at that address of this host, best first.
    pub(crate) fn providers(library: &Arc<Library>, local: IpAddr) -> Result<Vec<String>> {
        let _signals = Signals::keep();
        let node = CString::new(local.to_string()).unwrap_or_default();
        Self::asked(library, None, FI_PROGRESS_MANUAL, &node).map(|all| all.names())
    }

    /// What is asked for. Of the modes of registration, all that [`Endpoint`](crate::ofi::Endpoint) can do.
    fn hints(library: &Arc<Library>, provider: Option<&str>, progress: c_int) -> Result<Info> {
        // SAFETY: `fi_dupinfo` of null gives an empty wish with all attributes (`fi_allocinfo`).
        let first = unsafe { (library.dupinfo)(ptr::null()) };
        if first.is_null() {
            return Err(Error::NoProvider("no memory".into()));
        }
        let info = Info {
            library: Arc::clone(library),
            first,
        };
        // SAFETY: just made, ours alone; the attributes exist in an empty wish, and the name is freed with it by `free`.
        unsafe {
            (*first).caps = FI_RMA | FI_LOCAL_COMM | FI_REMOTE_COMM;
            (*first).mode = FI_CONTEXT | FI_CONTEXT2;
            (*(*first).ep_attr).r#type = FI_EP_RDM;
            (*(*first).tx_attr).op_flags = FI_DELIVERY_COMPLETE;
            let domain = (*first).domain_attr;
            (*domain).threading = FI_THREAD_SAFE;
            (*domain).control_progress = progress;
            (*domain).data_progress = progress;
            (*domain).mr_mode =
                FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;
            if let Some(name) = provider {
                let name = CString::new(name).unwrap_or_default();
                (*(*first).fabric_attr).prov_name = libc::strdup(name.as_ptr());
            }
        }
        Ok(info)
    }

    /// Who can do what these hints ask, with that local address.
    fn answer(&self, node: Option<&CStr>) -> Result<Info> {
        let mut first = ptr::null_mut();
        let (node, flags) = match node {
            Some(node) => (node.as_ptr(), FI_SOURCE),
            None => (ptr::null::<c_char>(), 0),
        };
        // SAFETY: C strings or null, a wish, and a place for the answer.
        let code = unsafe {
            (self.library.getinfo)(API, node, ptr::null(), flags, self.first, &raw mut first)
        };
        self.library.check("fi_getinfo", code)?;
        Ok(Info {
            library: Arc::clone(&self.library),
            first,
        })
    }

    /// The names of all providers in the list, once each; of one that a layer of the library's own completes, without the layer.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut at = self.first;
        while !at.is_null() {
            // SAFETY: an entry of our list.
            let (name, next) = unsafe { (name_of(at), (*at).next) };
            let plain = name.split(';').next().unwrap_or_default();
            if !names.iter().any(|it| it == plain) {
                names.push(plain.to_owned());
            }
            at = next;
        }
        names
    }

    /// The provider of the best entry.
    pub(crate) fn provider(&self) -> String {
        // SAFETY: the first entry of our list, which is not empty.
        unsafe { name_of(self.first) }
    }

    /// The best entry, for the library's open calls.
    pub(crate) fn as_ptr(&self) -> *mut fi_info {
        self.first
    }

    pub(crate) fn library(&self) -> &Arc<Library> {
        &self.library
    }

    pub(crate) fn domain(&self) -> &fi_domain_attr {
        // SAFETY: answers have these attributes.
        unsafe { &*(*self.first).domain_attr }
    }

    pub(crate) fn endpoint(&self) -> &fi_ep_attr {
        // SAFETY: answers have these attributes.
        unsafe { &*(*self.first).ep_attr }
    }

    pub(crate) fn transmit(&self) -> &fi_tx_attr {
        // SAFETY: answers have these attributes.
        unsafe { &*(*self.first).tx_attr }
    }

    /// The form of addresses.
    pub(crate) fn format(&self) -> u32 {
        // SAFETY: the first entry of our list.
        unsafe { (*self.first).addr_format }
    }
}

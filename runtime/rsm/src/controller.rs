//! The controller: a process's way to the segments of its node (rsm 5.1). There is the single-node one, `loopback`.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::code::Code;
use crate::request::{Body, Control, Gone, Request};
use crate::slots::Counters;

/// Its name.
pub const LOOPBACK: &str = "loopback";
/// Bytes of a controller's name at most, with the zero behind it.
pub const MAX_NAME: usize = 256;

/// Whether a controller of the name is ours; `None` means the single-node one.
///
/// # Errors
/// [`Code::CtlrNotPresent`].
pub fn check_name(name: Option<&[u8]>) -> Result<(), Code> {
    match name {
        None => Ok(()),
        Some(name) if name.eq_ignore_ascii_case(LOOPBACK.as_bytes()) => Ok(()),
        Some(_) => Err(Code::CtlrNotPresent),
    }
}

/// What a controller can do (rsm 1). 0: no fixed limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Bits of the sizes of single accesses: 1 for 1 byte, 2 for 2, 4 for 4, 8 for 8.
    pub direct_access_sizes: u32,
    /// The same for atomic updates.
    pub atomic_sizes: u32,
    /// Bytes of a page.
    pub page_size: usize,
    /// Bytes of an export segment at most, and of all.
    pub max_export_segment_size: usize,
    /// Export segments at most.
    pub max_export_segments: usize,
    /// Bytes that one mapping has at most, and all.
    pub max_import_map_size: usize,
    /// Connections at most.
    pub max_import_segments: usize,
}

/// User addresses, of which each half is the other's limit.
const MAX_MAP: usize = 1 << 46;

/// A process's way to the segments of its node.
pub struct Controller {
    control: Arc<dyn Control>,
    node: u32,
    counters: Counters,
}

impl Controller {
    /// Begins.
    ///
    /// # Errors
    /// [`Code::CtlrNotPresent`]: the node's service does not answer; [`Code::InsufficientResources`], [`Code::InsufficientMem`].
    pub fn open(control: Arc<dyn Control>) -> Result<Arc<Self>, Code> {
        let (body, files) = ask(&*control, Request::Info, &[], Code::CtlrNotPresent)?;
        let Body::Info { node, uid } = body else {
            return Err(Code::InternalError);
        };
        let counters = Counters::open(only(files)?, uid)?;
        Ok(Arc::new(Self {
            control,
            node,
            counters,
        }))
    }

    /// Number of this node.
    pub fn node(&self) -> u32 {
        self.node
    }

    /// What it can do.
    ///
    /// # Errors
    /// [`Code::CtlrNotPresent`]: the node's service has gone.
    pub fn attributes(&self) -> Result<Attributes, Code> {
        self.ask(Request::Info, &[], Code::CtlrNotPresent)?;
        Ok(Attributes {
            direct_access_sizes: 0xF,
            atomic_sizes: 0xC,
            page_size: rustix::param::page_size(),
            max_export_segment_size: 0,
            max_export_segments: 0,
            max_import_map_size: MAX_MAP,
            max_import_segments: crate::service::MAX_OF_PROCESS,
        })
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Asks the service; `gone` where it does not answer.
    pub(crate) fn ask(
        &self,
        request: Request,
        files: &[BorrowedFd<'_>],
        gone: Code,
    ) -> Result<(Body, Vec<OwnedFd>), Code> {
        ask(&*self.control, request, files, gone)
    }
}

fn ask(
    control: &dyn Control,
    request: Request,
    files: &[BorrowedFd<'_>],
    gone: Code,
) -> Result<(Body, Vec<OwnedFd>), Code> {
    match control.call(request, files) {
        Ok((Ok(body), files)) => Ok((body, files)),
        Ok((Err(code), _)) => Err(code),
        Err(Gone) => Err(gone),
    }
}

/// The one file; it is not there where this process has no descriptor to spare.
pub(crate) fn only(mut files: Vec<OwnedFd>) -> Result<OwnedFd, Code> {
    files.pop().ok_or(Code::InsufficientResources)
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

//! VE memory at the process: allocated, mapped, freed (ve-memory.md section 2.4). The service's part is in `memory.rs`.

use std::sync::Arc;

use windlass_mem::map::keep_from_children;
use windlass_mem::{MemFile, Piece, SharedBytes, map_pieces};

use crate::addr::{PageSize, Vemva};
use crate::errno::Errno;
use crate::error::Error;
use crate::process::{Process, Result, State, VeMemory};
use crate::request::{Body, Frames, Request};

impl Process {
    /// The memory of this process's user on a VE, asked for the first time only.
    pub(crate) fn memory_file(
        &self,
        state: &mut State,
        call: &'static str,
        ve: u32,
    ) -> Result<Arc<MemFile>> {
        if let Some(file) = state.files.get(&ve) {
            return Ok(Arc::clone(file));
        }
        let (body, files) = self.call(call, Request::Memory { ve })?;
        let Body::Memory { owner, .. } = body else {
            return Err(Error::Protocol { call });
        };
        let fd = files.into_iter().next().ok_or(Error::Protocol { call })?;
        let file =
            MemFile::from_fd_of(fd, owner).map_err(|source| Error::Memory { call, source })?;
        let file = Arc::new(file);
        state.files.insert(ve, Arc::clone(&file));
        Ok(file)
    }

    /// Maps frames into this process, at a multiple of `align`.
    pub(crate) fn map(
        &self,
        state: &mut State,
        call: &'static str,
        frames: &Frames,
        align: PageSize,
    ) -> Result<SharedBytes> {
        let file = self.memory_file(state, call, frames.ve)?;
        let mut pieces = Vec::with_capacity(frames.runs.len());
        for run in &frames.runs {
            let len = usize::try_from(run.len).map_err(|_| Error::Protocol { call })?;
            pieces.push(Piece {
                file: &file,
                offset: run.offset.raw(),
                len,
            });
        }
        let align = usize::try_from(align.bytes()).map_err(|_| Error::Protocol { call })?;
        map_pieces(&pieces, align).map_err(|source| Error::Memory { call, source })
    }

    /// Maps frames into VEMVA and enters them there; forked children inherit them, or not.
    pub(crate) fn bind(
        &self,
        state: &mut State,
        call: &'static str,
        body: &Body,
        inherited: bool,
    ) -> Result<VeMemory> {
        let Body::Frames { ticket, frames } = body else {
            return Err(Error::Protocol { call });
        };
        let ticket = *ticket;
        let mapped = self.map(state, call, frames, frames.page);
        let bytes = match mapped.and_then(|bytes| to_children(call, bytes, inherited)) {
            Ok(bytes) => bytes,
            Err(error) => {
                // Nothing to do if this fails too: the service drops the ticket with the process.
                let _ = self.call(call, Request::Release { ticket });
                return Err(error);
            }
        };
        let vemva = Vemva::new(bytes.addr() as u64);
        match self.call(call, Request::Bind { ticket, vemva })?.0 {
            Body::Bound { vemva: bound } if bound == vemva => {
                let memory = VeMemory {
                    vemva,
                    bytes,
                    page: frames.page,
                };
                state.memory.insert(vemva, memory.clone());
                Ok(memory)
            }
            Body::Bound { vemva: earlier } => state
                .memory
                .get(&earlier)
                .cloned()
                .ok_or(Error::Protocol { call }),
            _ => Err(Error::Protocol { call }),
        }
    }

    /// VE memory of `len` bytes, rounded up to whole pages of 2 or 64 MiB, zeroed and naturally aligned. VE processes only.
    pub fn alloc(&self, len: usize, page: PageSize) -> Result<VeMemory> {
        let call = "VE memory allocation";
        let mut state = self.state();
        let request = Request::Allocate {
            len: len as u64,
            page,
        };
        let (body, _) = self.call(call, request)?;
        self.bind(&mut state, call, &body, true)
    }

    /// Unmaps memory of [`Process::alloc`]: whole allocations, by their start. Frames that are still registered or exported stay.
    pub fn free(&self, vemva: Vemva) -> Result<()> {
        let call = "VE memory release";
        let mut state = self.state();
        let unknown = Error::refused(call, Errno::Einval);
        let len = state
            .memory
            .get(&vemva)
            .map(|memory| memory.bytes.len() as u64)
            .ok_or(unknown)?;
        self.call(call, Request::Free { vemva, len })?;
        state.memory.remove(&vemva);
        Ok(())
    }
}

/// A forked child has no attachments: an access there ends it (section 6).
fn to_children(call: &'static str, bytes: SharedBytes, inherited: bool) -> Result<SharedBytes> {
    if !inherited {
        keep_from_children(&bytes).map_err(|source| Error::Memory { call, source })?;
    }
    Ok(bytes)
}

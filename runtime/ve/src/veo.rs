//! Privileged transfers of a VH process (VEO, ve-memory.md section 12): `veo_write_mem` and `veo_read_mem`.
//!
//! They need no registration at the VE process and have no alignment rules. A window holds references to the frames, so
//! that memory which its owner frees meanwhile goes to nobody else before the window is dropped.

use std::fmt;
use std::sync::Arc;

use windlass_mem::{SharedBytes, sync};

use crate::process::Control;
use crate::request::{Request, Ticket};

/// Returns the ticket when the last clone goes.
struct Lease {
    control: Arc<dyn Control>,
    ticket: Ticket,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // If the service is gone, so are its frames' counts.
        let _ = self.control.call(Request::Release {
            ticket: self.ticket,
        });
    }
}

/// A window on the memory of a VE process.
#[derive(Clone)]
pub struct VeoMemory {
    // The bytes go before the lease: frames are released when this process has let go of them.
    bytes: SharedBytes,
    _lease: Arc<Lease>,
}

impl fmt::Debug for VeoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VeoMemory")
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl VeoMemory {
    /// An empty window that owns its ticket.
    pub(crate) fn new(control: Arc<dyn Control>, ticket: Ticket) -> Self {
        Self {
            bytes: SharedBytes::empty(),
            _lease: Arc::new(Lease { control, ticket }),
        }
    }

    pub(crate) fn over(self, bytes: SharedBytes) -> Self {
        Self { bytes, ..self }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True for a window of no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// `veo_write_mem`: complete in VE memory on return. Refused whole if it is outside of the window.
    pub fn write_mem(&self, offset: usize, src: &[u8]) -> Result<(), windlass_mem::Error> {
        self.bytes.write(offset, src)?;
        // Complete now: a later load by this thread must not be satisfied before it.
        sync::owe();
        Ok(())
    }

    /// `veo_read_mem`: complete on return. Refused whole if it is outside of the window.
    pub fn read_mem(&self, offset: usize, dst: &mut [u8]) -> Result<(), windlass_mem::Error> {
        sync::pay();
        self.bytes.read(offset, dst)
    }

    /// As [`VeoMemory::write_mem`], from memory that others may change.
    pub fn write_from(&self, offset: usize, src: &SharedBytes) -> Result<(), windlass_mem::Error> {
        self.bytes.copy(offset, src, 0, src.len())?;
        sync::owe();
        Ok(())
    }

    /// As [`VeoMemory::read_mem`], into memory that others may change.
    pub fn read_into(&self, offset: usize, dst: &SharedBytes) -> Result<(), windlass_mem::Error> {
        sync::pay();
        dst.copy(0, &self.bytes, offset, dst.len())
    }
}

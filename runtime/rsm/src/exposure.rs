//! The memory of an export segment, and how others get it: in a file, in place of the program's own pages.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use windlass_mem::reback::place::Movable;
use windlass_mem::view::{Rights, View};
use windlass_mem::{MemFile, SharedBytes};

use crate::code::Code;

/// What a segment is made of.
#[derive(Debug)]
pub(crate) enum Memory {
    /// The program's own pages.
    Own(Movable),
    /// A file, whose seals are final unless it is to be read alone.
    File(Arc<MemFile>),
}

impl Memory {
    pub(crate) fn check(&self) -> windlass_mem::Result<()> {
        match self {
            Self::Own(memory) => memory.check(),
            Self::File(_) => Ok(()),
        }
    }

    pub(crate) fn take_back(&self) -> windlass_mem::Result<()> {
        match self {
            Self::Own(memory) => memory.take_back(),
            Self::File(_) => Ok(()),
        }
    }

    /// For others, in a file.
    pub(crate) fn expose(&self, read_only: bool) -> Result<Exposed, Code> {
        match self {
            Self::Own(memory) => expose(memory, read_only),
            Self::File(file) => {
                let lacking = |error| Code::of(&error, Code::InsufficientResources);
                if read_only {
                    file.seal(true).map_err(lacking)?;
                }
                let read = file.read_only().map_err(lacking)?;
                let write = (!read_only).then(|| Arc::clone(file));
                Ok(Exposed { read, write })
            }
        }
    }
}

/// Memory in a file, and its descriptors for others.
pub(crate) struct Exposed {
    read: OwnedFd,
    write: Option<Arc<MemFile>>,
}

impl Exposed {
    pub(crate) fn files(&self) -> Vec<BorrowedFd<'_>> {
        let write = self.write.as_deref().map(MemFile::as_fd);
        std::iter::once(self.read.as_fd()).chain(write).collect()
    }

    /// The whole of it, mapped once more, as importers have it.
    pub(crate) fn map(&self) -> Result<SharedBytes, Code> {
        let lacking = |error| Code::of(&error, Code::InsufficientResources);
        let read;
        let (file, rights) = match &self.write {
            Some(file) => (&**file, Rights::ReadWrite),
            None => {
                let fd = self.read.try_clone();
                let fd = fd.map_err(|_| Code::InsufficientResources)?;
                read = MemFile::from_fd(fd).map_err(lacking)?;
                (&read, Rights::Read)
            }
        };
        let len = usize::try_from(file.len()).map_err(|_| Code::InsufficientMem)?;
        let view = View::new(Some(file), 0, len, rights, None).map_err(lacking)?;
        Ok(view.bytes())
    }
}

/// Moves memory to a new file.
pub(crate) fn expose(memory: &Movable, read_only: bool) -> Result<Exposed, Code> {
    let lacking = |error| Code::of(&error, Code::InsufficientResources);
    // What an earlier end of the segment could not make private.
    memory.take_back().map_err(lacking)?;
    let file = MemFile::create_unsealed("windlass-rsm", memory.len() as u64).map_err(lacking)?;
    let file = Arc::new(file);
    memory.place(&file).map_err(lacking)?;
    let sealed = file.seal(read_only).and_then(|()| file.read_only());
    match sealed {
        Ok(read) => Ok(Exposed {
            read,
            write: (!read_only).then_some(file),
        }),
        Err(error) => {
            // Nobody has the file: it is private all the same.
            let _ = memory.take_back();
            Err(lacking(error))
        }
    }
}

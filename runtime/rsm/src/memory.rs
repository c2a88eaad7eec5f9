//! The memory of a published segment at the service: its files.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use windlass_mem::MemFile;

use crate::access::PERM_WRITE;
use crate::code::Code;

/// The files of a segment's memory.
pub(crate) struct Memory {
    pub(crate) len: u64,
    read: Arc<OwnedFd>,
    write: Option<Arc<OwnedFd>>,
}

impl Memory {
    /// Accepts what a process of user `uid` sent.
    pub(crate) fn accept(mut files: Vec<OwnedFd>, uid: u32) -> Result<Self, Code> {
        let write = match files.len() {
            1 => None,
            2 => files.pop(),
            // The kernel could not install them here.
            _ => return Err(Code::InsufficientResources),
        };
        let read = files.pop().ok_or(Code::InsufficientResources)?;
        let check = |fd: OwnedFd| {
            let id = rustix::fs::fstat(&fd).map_err(|_| Code::BadArgsErrors)?;
            let file = MemFile::from_fd_of(fd, uid).map_err(|_| Code::BadArgsErrors)?;
            Ok(((id.st_dev, id.st_ino), file))
        };
        let (id, read) = check(read)?;
        let len = read.len();
        let write = match write.map(check).transpose()? {
            Some((other, _)) if other != id => return Err(Code::BadArgsErrors),
            Some((_, file)) => Some(Arc::new(file.into_fd())),
            None => None,
        };
        Ok(Self {
            len,
            read: Arc::new(read.into_fd()),
            write,
        })
    }

    /// The file for a connection of these rights.
    pub(crate) fn with(&self, rights: u32) -> Result<Option<Arc<OwnedFd>>, Code> {
        if rights & PERM_WRITE != 0 {
            // Root may write where the list gives nobody the right, but not what is sealed.
            let file = self.write.as_ref().ok_or(Code::PermDenied)?;
            return Ok(Some(Arc::clone(file)));
        }
        Ok((rights != 0).then(|| Arc::clone(&self.read)))
    }
}

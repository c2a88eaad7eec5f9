//! Host memory: System V segments and memory files (ve-memory 7).
//!
//! Host processes map it: the arena, and lent memory that was re-backed by a file (measured-designs 1). A VE process reaches a System V segment on huge pages through its DMAATB, posted to its DMA
//! engine. A segment travels as its id, a file by a token of the node service; a received id is attached first, then compared with what
//! the peer told, because ids are reused.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use windlass_mem::{MemFile, SharedBytes, sysv};
use windlass_node::{Client, Token};
use windlass_wire::{Put, Take};

use crate::huge::Small;
use crate::mechanism::{Cost, Export, Mechanism, MechanismId, Peer, Place, Reason, RemoteRange};
use crate::region::{Backing, Segment};
use crate::route::{Posted, Route};
use crate::transport::Context;
use crate::transport::vedma::VeDma;

/// Host memory.
pub struct Vhshm {
    rank: u32,
    node: u32,
    place: Place,
    client: Arc<Client>,
    dma: Arc<VeDma>,
    /// Token of the file that has this process's lent memory, deposited once.
    lent: Mutex<Option<Token>>,
    /// Such files of peers, one for each.
    files: Mutex<HashMap<Token, LentFile>>,
}

/// The file of a peer's lent memory.
struct LentFile {
    file: MemFile,
    /// Parts of it that were mapped last: offset and bytes. Memory that is lent again has its place there still, and what its
    /// owner took back takes no room in the file.
    mapped: VecDeque<(u64, SharedBytes)>,
}

/// Parts of a peer's lent memory that stay mapped after their windows.
const MAPPED_MAX: usize = 16;

impl LentFile {
    /// `len` bytes, whole pages, at `offset`.
    fn map(&mut self, offset: u64, len: usize) -> windlass_mem::Result<SharedBytes> {
        let mut known = self.mapped.iter();
        if let Some((_, bytes)) = known.find(|(at, bytes)| (*at, bytes.len()) == (offset, len)) {
            return Ok(bytes.clone());
        }
        let bytes = self.file.map(offset, len)?;
        if self.mapped.len() == MAPPED_MAX {
            self.mapped.pop_front();
        }
        self.mapped.push_back((offset, bytes.clone()));
        Ok(bytes)
    }
}

const SYSV: u8 = 1;
const HUGE: u8 = 2;
const FILE: u8 = 3;
const LENT: u8 = 4;

/// What a descriptor says, as an allegation.
struct Told {
    len: u64,
    what: What,
}

enum What {
    Sysv {
        shmid: i32,
        small: Option<Small>,
    },
    File {
        token: Token,
        small: Small,
    },
    /// Re-backed memory: bytes of a file from `offset` on.
    Lent {
        token: Token,
        offset: u64,
    },
}

impl What {
    /// A VE reaches nothing else (ve-memory 7.2).
    fn on_huge_pages(&self) -> Result<(), Reason> {
        let why = match self {
            What::Sysv { small: None, .. } => return Ok(()),
            What::Sysv {
                small: Some(small), ..
            }
            | What::File { small, .. } => small.why(),
            What::Lent { .. } => {
                "it is lent, on the pages that its owner has; allocate the window instead".into()
            }
        };
        Err(Reason::new(format!(
            "a VE reaches huge pages only, and the peer's memory is not on them: {why}"
        )))
    }
}

/// A deposited file, forgotten by the node service on drop.
struct Deposited {
    client: Arc<Client>,
    token: Token,
}

impl Drop for Deposited {
    fn drop(&mut self) {
        // At the end of the job the service may be gone, and the deposit with it.
        if let Err(error) = self.client.revoke(self.token) {
            tracing::debug!(%error, "revoking a deposited file");
        }
    }
}

impl Vhshm {
    /// The mechanism of this rank.
    pub fn new(context: &Context, dma: &Arc<VeDma>) -> Vhshm {
        Vhshm {
            rank: context.rank,
            node: context.node,
            place: context.place,
            client: Arc::clone(&context.client),
            dma: Arc::clone(dma),
            lent: Mutex::new(None),
            files: Mutex::default(),
        }
    }

    fn told(descriptor: &[u8]) -> Result<Told, Reason> {
        let malformed = |e| Reason::from_error("the descriptor is malformed", &e);
        let mut take = Take::new(descriptor);
        let kind = take.u8().map_err(malformed)?;
        let len = take.u64().map_err(malformed)?;
        let what = match kind {
            HUGE => What::Sysv {
                shmid: i32::from_le_bytes(take.array().map_err(malformed)?),
                small: None,
            },
            SYSV => What::Sysv {
                shmid: i32::from_le_bytes(take.array().map_err(malformed)?),
                small: Some(Small::take(&mut take).map_err(malformed)?),
            },
            FILE => What::File {
                token: Token(take.array().map_err(malformed)?),
                small: Small::take(&mut take).map_err(malformed)?,
            },
            LENT => What::Lent {
                token: Token(take.array().map_err(malformed)?),
                offset: take.u64().map_err(malformed)?,
            },
            _ => {
                return Err(Reason::new(format!(
                    "the descriptor names memory of kind {kind}"
                )));
            }
        };
        take.finish().map_err(malformed)?;
        Ok(Told { len, what })
    }

    /// Is an attached segment the one the peer meant?
    fn check(peer: &Peer, shmid: i32, len: u64) -> Result<usize, Reason> {
        let stat = sysv::stat(shmid).map_err(|e| Reason::from_error("the segment is gone", &e))?;
        if stat.cpid != peer.pid || stat.uid != rustix::process::geteuid().as_raw() {
            return Err(Reason::new(format!(
                "segment {shmid} is not the peer's any more"
            )));
        }
        usize::try_from(len)
            .ok()
            .filter(|len| *len <= stat.size)
            .ok_or_else(|| {
                Reason::new(format!(
                    "segment {shmid} has {} bytes, not {len}",
                    stat.size
                ))
            })
    }

    fn map_sysv(peer: &Peer, shmid: i32, len: u64) -> Result<SharedBytes, Reason> {
        let bytes = sysv::attach(shmid, false)
            .map_err(|e| Reason::from_error("the segment cannot be attached", &e))?;
        let len = Self::check(peer, shmid, len)?;
        bytes
            .slice(0, len)
            .map_err(|e| Reason::from_error("the segment is short", &e))
    }

    fn withdraw(&self, token: Token) -> Result<MemFile, Reason> {
        let fd = self.client.withdraw(token);
        let fd = fd.map_err(|e| Reason::from_error("the file cannot be had", &e))?;
        MemFile::from_fd(fd).map_err(|e| Reason::from_error("the file", &e))
    }

    fn map_file(&self, token: Token, len: u64) -> Result<SharedBytes, Reason> {
        let file = self.withdraw(token)?;
        let len = usize::try_from(len).map_err(|e| Reason::from_error("the file's length", &e))?;
        file.map(0, len)
            .map_err(|e| Reason::from_error("the file cannot be mapped", &e))
    }

    /// Maps the pages around `len` bytes at `offset`: they may begin and end inside of one.
    fn map_lent(&self, token: Token, offset: u64, len: u64) -> Result<SharedBytes, Reason> {
        let refused = |e| Reason::from_error("the lent memory cannot be mapped", &e);
        let skip = offset % rustix::param::page_size() as u64;
        let all = len
            .checked_add(skip)
            .and_then(|all| usize::try_from(all).ok());
        let all = all.ok_or_else(|| Reason::new("the lent memory is larger than any can be"))?;
        let mut files = self.files.lock();
        let file = match files.entry(token) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(LentFile {
                file: self.withdraw(token)?,
                mapped: VecDeque::new(),
            }),
        };
        let pages = file.map(offset - skip, all).map_err(refused)?;
        let (skip, len) = (skip as usize, all - skip as usize);
        pages.slice(skip, len).map_err(refused)
    }

    /// The token of the file that has this process's lent memory.
    fn deposit_lent(&self, file: &MemFile) -> Result<Token, Reason> {
        let mut lent = self.lent.lock();
        if let Some(token) = *lent {
            return Ok(token);
        }
        let token = self.client.deposit(file);
        let token = token.map_err(|e| Reason::from_error("the file cannot be deposited", &e))?;
        *lent = Some(token);
        Ok(token)
    }

    /// For a VE: the segment in the DMAATB.
    fn post_to(&self, peer: &Peer, shmid: i32, len: u64) -> Result<Route, Reason> {
        let process = self.dma.process()?;
        let queue = self.dma.queue(MechanismId::Vhshm)?;
        let segment = process
            .vh_shmat(shmid, 0)
            .map_err(|e| Reason::from_error("the segment cannot be attached from the VE", &e))?;
        if let Err(reason) = Self::check(peer, shmid, len) {
            // Whatever the detach says, the reason stands.
            let _ = process.vh_shmdt(segment.address);
            return Err(reason);
        }
        let remote = RemoteRange::new(segment.vehva.raw(), len, 0);
        Ok(Route::Posted(Posted::new(queue, peer.rank, remote)))
    }
}

/// Why nobody can map lent memory.
pub(super) fn unmapped(error: &windlass_mem::Error) -> Reason {
    match error {
        windlass_mem::Error::Unmovable { .. } => Reason::new(format!("lent memory is {error}")),
        other => Reason::from_error("lent memory is not re-backed", other),
    }
}

impl Mechanism for Vhshm {
    fn id(&self) -> MechanismId {
        MechanismId::Vhshm
    }

    fn probe(&self) -> Result<(), Reason> {
        Ok(())
    }

    fn export(&self, segment: &Segment) -> Result<Export, Reason> {
        let len = segment.bytes.len() as u64;
        let mut put = Put::new();
        let guard: Box<dyn Send + Sync> = match &segment.backing {
            Backing::Sysv { shmid, small } => {
                put.u8(if small.is_some() { SYSV } else { HUGE })
                    .u64(len)
                    .raw(&shmid.to_le_bytes());
                if let Some(small) = small {
                    small.put(&mut put);
                }
                Box::new(())
            }
            Backing::File {
                read_only: true, ..
            } => {
                return Err(Reason::new(
                    "peers only read this memory, and rsm seals it against their writing",
                ));
            }
            Backing::File { file, small, .. } => {
                let token = self.client.deposit(file);
                let token =
                    token.map_err(|e| Reason::from_error("the file cannot be deposited", &e))?;
                put.u8(FILE).u64(len).raw(&token.0);
                small.put(&mut put);
                Box::new(Deposited {
                    client: Arc::clone(&self.client),
                    token,
                })
            }
            Backing::Ve { .. } | Backing::Native(_) => {
                return Err(Reason::new("this memory is VE memory"));
            }
            Backing::Lent(lease) => {
                let (file, offset) = match lease.file() {
                    Ok(file) => file,
                    Err(error) => return Err(unmapped(&error)),
                };
                let token = self.deposit_lent(file)?;
                put.u8(LENT).u64(len).raw(&token.0).u64(offset);
                Box::new(())
            }
        };
        Ok(Export {
            descriptor: put.into_vec(),
            guard,
        })
    }

    fn reach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Cost, Reason> {
        let told = Self::told(descriptor)?;
        if peer.rank == self.rank {
            return Err(Reason::new("own memory is reached directly"));
        }
        if peer.node != self.node {
            return Err(Reason::new(format!("the peer is on node {}", peer.node)));
        }
        match self.place {
            Place::Vh => Ok(Cost::MAPPED),
            Place::Ve(_) => told.what.on_huge_pages().map(|()| Cost::DEVICE),
        }
    }

    fn attach(&self, peer: &Peer, descriptor: &[u8]) -> Result<Route, Reason> {
        let Told { len, what } = Self::told(descriptor)?;
        match (self.place, what) {
            (Place::Ve(_), What::Sysv { shmid, .. }) => self.post_to(peer, shmid, len),
            (Place::Ve(_), What::File { .. } | What::Lent { .. }) => {
                Err(Reason::new("a VE cannot reach a file"))
            }
            (Place::Vh, What::Sysv { shmid, .. }) => {
                Self::map_sysv(peer, shmid, len).map(Route::Mapped)
            }
            (Place::Vh, What::File { token, .. }) => self.map_file(token, len).map(Route::Mapped),
            (Place::Vh, What::Lent { token, offset }) => {
                self.map_lent(token, offset, len).map(Route::Mapped)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// What a VE says of a descriptor that has these bytes after kind and length.
    fn refusal(kind: u8, rest: impl FnOnce(&mut Put)) -> Option<String> {
        let mut put = Put::new();
        put.u8(kind).u64(4096);
        rest(&mut put);
        let told = Vhshm::told(&put.into_vec()).expect("it is well formed");
        told.what
            .on_huge_pages()
            .err()
            .map(|reason| reason.0.into_owned())
    }

    #[test]
    fn a_ve_says_why_memory_is_not_on_huge_pages() {
        let shmid = 7i32.to_le_bytes();
        let small = |errno: Errno| Small::Refused {
            errno: errno.raw_os_error(),
            needed: 1,
            free: 1,
        };
        assert_eq!(
            refusal(HUGE, |put| {
                put.raw(&shmid);
            }),
            None
        );
        for (errno, setting, other) in [
            (Errno::NOMEM, "vm.nr_hugepages", "vm.hugetlb_shm_group"),
            (Errno::PERM, "vm.hugetlb_shm_group", "vm.nr_hugepages"),
        ] {
            let of_segment = refusal(SYSV, |put| small(errno).put(put.raw(&shmid)));
            let of_file = refusal(FILE, |put| small(errno).put(put.raw(&[1; 16])));
            assert_eq!(of_segment, of_file);
            let text = of_segment.expect("it is refused");
            assert!(text.contains(setting) && !text.contains(other), "{text}");
        }
        let lent = refusal(LENT, |put| {
            put.raw(&[1; 16]).u64(0);
        });
        let text = lent.expect("it is refused");
        assert!(text.contains("lent") && !text.contains("vm."), "{text}");
    }
}

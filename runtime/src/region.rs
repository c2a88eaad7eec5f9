//! What a window exposes: a range of the arena, or memory that the caller lends.
//!
//! A [`Segment`] is what mechanisms export, once; a [`Region`] is a range of one. The arena's
//! segments live as long as the job, a lent one as long as its region.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use windlass_mem::reback::{How, Lease};
use windlass_mem::{MemFile, SharedBytes};
use windlass_ve::Vemva;

use crate::arena::Ranges;
use crate::huge::Small;
use crate::mechanism::{Export, MechanismId, Peer, Place, Reason};
use crate::transport::native::NativeMemory;

/// What a segment is made of; mechanisms decide by it whether they can export it.
pub enum Backing {
    /// A System V segment of this process, marked for removal, attachable by id.
    Sysv {
        /// Its id.
        shmid: i32,
        /// Why it is not on huge pages, as VEs need it (ve-memory 7.2); `None`: it is.
        small: Option<Small>,
    },
    /// A memory file, handed over by the node service.
    File {
        /// The file.
        file: MemFile,
        /// Why it is no segment of huge pages.
        small: Small,
        /// Peers may read it, and nobody gives them more.
        read_only: bool,
    },
    /// Memory of the VE this process runs on.
    Ve {
        /// Where the VE process sees it.
        vemva: Vemva,
    },
    /// Memory of a real VE, which no address of this process leads to.
    Native(Arc<NativeMemory>),
    /// The caller's own memory. Others can map it where its pages could be moved into a file.
    Lent(Lease),
}

/// How rank `mine` of `peers` lends memory, who may do it as `wanted`: moving it is for others that could map it.
pub(crate) fn lending(
    wanted: How,
    forced: Option<&[MechanismId]>,
    peers: &[Peer],
    mine: u32,
) -> How {
    let maps = |id| matches!(id, &MechanismId::Vhshm | &MechanismId::Rsm);
    let mapped = forced.is_none_or(|forced| forced.iter().any(maps));
    let Some(me) = peers.iter().find(|peer| peer.rank == mine) else {
        return wanted;
    };
    let mut near = peers
        .iter()
        .filter(|peer| peer.rank != mine && peer.node == me.node);
    match wanted {
        How::Never(_) => wanted,
        _ if !mapped => How::Never("WINDLASS_ROUTE does not name who could map it"),
        _ if me.place != Place::Vh => How::Never("its rank does not live on the host"),
        _ if !near.any(|peer| peer.place == Place::Vh) => {
            How::Never("no other rank of this node lives on the host")
        }
        _ => wanted,
    }
}

/// Does the user allow only mechanisms that take host memory in files?
pub(crate) fn in_files(forced: Option<&[MechanismId]>) -> bool {
    forced.is_some_and(|forced| {
        forced.contains(&MechanismId::Rsm) && !forced.contains(&MechanismId::Vhshm)
    })
}

/// Memory exported as one piece.
pub struct Segment {
    /// Unique in this rank, never reused.
    pub id: u32,
    /// The memory itself; empty where no address leads to it.
    pub bytes: SharedBytes,
    /// What it is made of.
    pub backing: Backing,
    /// The job's synchronisation words: updates from other nodes wake sleepers there.
    pub wakes: bool,
    /// Which ranks of the job have seen the offers, a bit each.
    known: Mutex<Vec<u64>>,
    /// Exported once, however many teams it is told to.
    offers: OnceLock<Vec<(MechanismId, Result<Export, Reason>)>>,
    pub(crate) ranges: Mutex<Ranges>,
}

impl Segment {
    /// A segment that nobody has exported yet.
    pub fn new(id: u32, bytes: SharedBytes, backing: Backing, wakes: bool) -> Segment {
        let ranges = match &backing {
            // A VE's memory holds what it held before.
            Backing::Native(memory) => Ranges::used(memory.len()),
            _ => Ranges::new(bytes.len()),
        };
        Segment {
            id,
            bytes,
            backing,
            wakes,
            known: Mutex::default(),
            offers: OnceLock::new(),
            ranges: Mutex::new(ranges),
        }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match &self.backing {
            Backing::Native(memory) => memory.len(),
            _ => self.bytes.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Do all these ranks know this segment's offers?
    pub(crate) fn is_known_to(&self, ranks: &[u32]) -> bool {
        let known = self.known.lock();
        let knows = |rank: u32| {
            let word = known.get(rank as usize / 64).copied();
            word.unwrap_or(0) >> (rank % 64) & 1 == 1
        };
        ranks.iter().all(|&rank| knows(rank))
    }

    /// These ranks have reached it.
    pub(crate) fn set_known_to(&self, ranks: &[u32]) {
        let mut known = self.known.lock();
        for &rank in ranks {
            let index = rank as usize / 64;
            if known.len() <= index {
                known.resize(index + 1, 0);
            }
            known[index] |= 1 << (rank % 64);
        }
    }

    /// Exports it by `export`, once.
    pub(crate) fn export(
        &self,
        export: impl FnOnce() -> Vec<(MechanismId, Result<Export, Reason>)>,
    ) {
        self.offers.get_or_init(export);
    }

    /// The exports as peers get them.
    pub(crate) fn descriptors(&self) -> Vec<(MechanismId, Result<Vec<u8>, Reason>)> {
        let offers = self.offers.get().map_or(&[][..], Vec::as_slice);
        offers
            .iter()
            .map(|(id, offer)| {
                let descriptor = match offer {
                    Ok(export) => Ok(export.descriptor.clone()),
                    Err(reason) => Err(reason.clone()),
                };
                (*id, descriptor)
            })
            .collect()
    }
}

/// A range of a segment, returned to it on drop.
pub struct Region {
    segment: Arc<Segment>,
    bytes: SharedBytes,
    len: usize,
    offset: usize,
    /// What the arena set aside: the length in whole cache lines.
    reserved: usize,
    lent: bool,
}

impl Region {
    pub(crate) fn of_arena(
        segment: Arc<Segment>,
        offset: usize,
        reserved: usize,
        len: usize,
    ) -> Result<Region, windlass_mem::Error> {
        let bytes = match &segment.backing {
            Backing::Native(_) => SharedBytes::empty(),
            _ => segment.bytes.slice(offset, len)?,
        };
        Ok(Region {
            segment,
            bytes,
            len,
            offset,
            reserved,
            lent: false,
        })
    }

    pub(crate) fn of_loan(segment: Arc<Segment>) -> Region {
        Region {
            bytes: segment.bytes.clone(),
            len: segment.bytes.len(),
            segment,
            offset: 0,
            reserved: 0,
            lent: true,
        }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its memory; empty where no address of this process leads to it.
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// The segment it is part of.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Offset of its first byte in the segment.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Memory of the caller rather than of the arena?
    pub fn is_lent(&self) -> bool {
        self.lent
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if !self.lent {
            self.segment
                .ranges
                .lock()
                .give_back(self.offset, self.reserved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_known_to_whom_it_was_told() {
        let (bytes, _loan) = windlass_mem::lend(vec![0u64; 8]);
        let lease = Lease::new(bytes.clone(), How::Never("a test has no peers"));
        let segment = Segment::new(1, bytes, Backing::Lent(lease), false);
        assert!(segment.is_known_to(&[]) && !segment.is_known_to(&[0]));
        segment.set_known_to(&[200, 3]);
        assert!(segment.is_known_to(&[3, 200]));
        assert!(!segment.is_known_to(&[3, 200, 4]) && !segment.is_known_to(&[201]));
        segment.set_known_to(&[4]);
        assert!(segment.is_known_to(&[4, 200]));
    }

    #[test]
    fn the_arena_lies_in_files_where_only_rsm_is_named() {
        use MechanismId::{Rsm, Udapl, Vhshm};
        let cases: [(Option<&[MechanismId]>, bool); 4] = [
            (None, false),
            (Some(&[Rsm, Udapl]), true),
            (Some(&[Rsm, Vhshm]), false),
            (Some(&[Udapl]), false),
        ];
        for (forced, files) in cases {
            assert_eq!(in_files(forced), files, "{forced:?}");
        }
    }

    #[test]
    fn memory_is_moved_only_for_peers_that_could_map_it() {
        let peer = |rank, node, place| Peer {
            rank,
            node,
            place,
            local: rank,
            pid: 1,
            start_time: 1,
            cards: Vec::new(),
        };
        let (vh, ve) = (Place::Vh, Place::Ve(0));
        let pair = [peer(0, 0, vh), peer(1, 0, vh)];
        let how = |forced, peers: &[Peer]| lending(How::Pages, forced, peers, 0);
        assert_eq!(how(None, &pair), How::Pages);
        assert_eq!(how(Some(&[MechanismId::Vhshm]), &pair), How::Pages);
        assert_eq!(how(Some(&[MechanismId::Rsm]), &pair), How::Pages);
        for (forced, peers) in [
            (
                Some(&[MechanismId::Cma, MechanismId::Udapl][..]),
                pair.clone(),
            ),
            (None, [peer(0, 0, vh), peer(1, 1, vh)]),
            (None, [peer(0, 0, vh), peer(1, 0, ve)]),
            (None, [peer(0, 0, ve), peer(1, 0, vh)]),
        ] {
            assert!(
                matches!(how(forced, &peers), How::Never(_)),
                "{forced:?} {peers:?}"
            );
        }
        assert!(matches!(how(None, &pair[..1]), How::Never(_)));
        let never = How::Never("somebody says so");
        assert_eq!(lending(never, None, &pair, 0), never);
        assert_eq!(lending(How::WholePages, None, &pair, 1), How::WholePages);
    }
}

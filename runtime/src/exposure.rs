//! A window's memory with a route to every rank: what a negotiation ends in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use windlass_mem::{SharedBytes, SharedWord};

use crate::call::Call;
use crate::error::Result;
use crate::exchange::{Context, Topic};
use crate::guard::Guard;
use crate::job::Job;
use crate::negotiate::Explained;
use crate::region::Region;
use crate::route::Route;
use crate::team::{Members, Team};
use crate::word::{Word, WordName};

/// A rank's part of a window as this rank reaches it.
pub struct Target {
    /// Its size.
    pub extent_bytes: u64,
    /// What that rank noted at creation.
    pub note: Box<[u8]>,
    /// The way of its data.
    pub route: Route,
    /// The way of updates, all atomic to each other.
    pub updates: Route,
    /// Why this way.
    pub why: Arc<Explained>,
    pub(crate) segment: u32,
    pub(crate) lent: bool,
}

/// A window's memory with a route to every rank of its team.
///
/// Dropping it never waits: it marks this rank as departed, and the others' next synchronisation
/// says so. [`free`](Self::free) is the collective end.
pub struct Exposure {
    /// Every rank's part, by team rank.
    pub targets: Box<[Target]>,
    /// Its number in this process: whose failures these are.
    number: u32,
    words: Context,
    /// This rank's part.
    bytes: SharedBytes,
    /// The memory that this rank brought, if any.
    region: Option<Region>,
    freed: bool,
    team: Arc<Team>,
}

/// The number of the next exposure; 0 stands for none.
static NUMBERS: AtomicU32 = AtomicU32::new(1);

impl Exposure {
    /// Without targets yet. Where this rank fails to find its own, the others learn that it departs.
    pub(crate) fn new(
        team: &Arc<Team>,
        words: Context,
        bytes: SharedBytes,
        region: Option<Region>,
    ) -> Exposure {
        Exposure {
            targets: Box::default(),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            words,
            bytes,
            region,
            freed: false,
            team: Arc::clone(team),
        }
    }

    /// This rank's memory.
    #[inline]
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// The job.
    #[inline]
    pub fn job(&self) -> &Arc<Job> {
        self.team.job()
    }

    /// The ranks of the window.
    pub fn team(&self) -> &Arc<Team> {
        &self.team
    }

    /// A barrier of the window's ranks, in which all have to `say` the same.
    ///
    /// # Errors
    /// [`Error::Disagree`](crate::Error::Disagree) on all ranks where they do not; [`Error::Departed`](crate::Error::Departed); a lost peer.
    #[inline]
    pub fn barrier(&self, say: bool) -> Result<()> {
        let Members { group, .. } = self.team.members();
        self.job().exchange.barrier(group, &self.words, say)
    }

    /// Every rank's bytes, by rank, on the window's own words: no collective call of the team is
    /// disturbed. Collective.
    ///
    /// # Errors
    /// As [`Team::all_gather`].
    pub fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let Members { group, .. } = self.team.members();
        let job = self.job();
        job.enter(Call::Barrier);
        let told = (job.exchange).all_gather(group, &self.words, Topic::Bytes, bytes);
        job.enter(Call::Compute);
        told
    }

    /// Is everybody still there, for a loop of tests that must end?
    ///
    /// # Errors
    /// A lost or departed peer.
    pub fn check(&self) -> Result<()> {
        self.job().exchange.check_context(&self.words)
    }

    /// One of the window's synchronisation words.
    ///
    /// # Errors
    /// [`Error::PeerLost`](crate::Error::PeerLost).
    #[inline(always)]
    pub fn word(&self, name: WordName) -> Result<Word<'_>> {
        let Members { group, .. } = self.team.members();
        self.job().exchange.word(group, &self.words, name)
    }

    /// One of these words to keep, if it lies in this node's own segment: for fast paths that change
    /// it by one CPU atomic and do not wait.
    pub fn word_here(&self, name: WordName) -> Option<SharedWord> {
        let Members { group, .. } = self.team.members();
        self.job().exchange.word_here(group, &self.words, name)
    }

    /// The guard of a rank's wide elements, if it lies in this node's own segment: for those whom
    /// [`Target::updates`] is mapped to.
    pub fn guard(&self, rank: u32) -> Option<Guard<'_>> {
        let Members { group, .. } = self.team.members();
        self.job().exchange.guard(group, &self.words, rank)
    }

    /// A way of updates of a rank's memory, with that guard for its wide elements.
    pub fn guarded(&self, rank: u32, updates: Route) -> Route {
        let Members { group, .. } = self.team.members();
        self.own(updates.guarded(self.words.id(group, rank)))
    }

    /// A way to a rank's memory as this window's: the failures on it are told to no other.
    pub fn own(&self, route: Route) -> Route {
        route.of_window(self.number)
    }

    /// Waits until everything this rank posted to any target is complete there.
    ///
    /// # Errors
    /// The first failure; the other targets are flushed all the same.
    pub fn flush_all(&self) -> Result<()> {
        let mut first = Ok(());
        for target in &self.targets {
            let flushed = target.flush();
            if first.is_ok() {
                first = flushed;
            }
        }
        first
    }

    /// Marks this rank as departed from the window of that name. Never waits.
    pub fn depart(&self, name: &str) {
        let Members { group, .. } = self.team.members();
        self.job().exchange.desert(group, &self.words, name);
    }

    /// The collective end: returns the region, if this rank brought one, after all ranks have
    /// stopped using it.
    ///
    /// # Errors
    /// [`Error::Departed`](crate::Error::Departed); a lost peer; a transfer that failed.
    pub fn free(mut self) -> Result<Option<Region>> {
        let job = Arc::clone(self.job());
        job.enter(Call::Free);
        let ended = self.flush_all().and_then(|()| self.barrier(false));
        job.enter(Call::Compute);
        ended?;
        self.freed = true;
        let Members { group, .. } = self.team.members();
        job.exchange.close(group, &self.words);
        Ok(self.region.take())
    }
}

impl Target {
    /// Completes what was posted to this target.
    ///
    /// # Errors
    /// The first transfer that failed.
    pub fn flush(&self) -> Result<()> {
        if let Route::Posted(posted) = &self.route {
            posted.flush()?;
        }
        if let Route::Posted(posted) = &self.updates {
            posted.flush()?;
        }
        Ok(())
    }
}

impl Drop for Exposure {
    fn drop(&mut self) {
        if !self.freed {
            self.depart("");
            // Peers may still write there: the memory is never used again (architecture 6).
            std::mem::forget(self.region.take());
        }
        // Segments lent for this window end with it; the arena's stay attached.
        let lent = self.team.ranks().iter().zip(&self.targets);
        let keys = lent
            .filter(|(_, target)| target.lent)
            .map(|(&rank, target)| (rank, target.segment));
        self.job().negotiator.forget(keys);
    }
}

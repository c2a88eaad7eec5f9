//! What an interface of the library must offer to run programs.

use windlass::{LockKind, Rank};

use super::model::Work;
use super::program::Flush;
use crate::support::{Done, Failure};

/// An open epoch.
pub trait Access<'p> {
    /// Begins a step, or does it. A refused one has no effect.
    fn run(&mut self, work: Work<'p>) -> windlass::Result<()>;

    /// Several, in one scope.
    fn scope(&mut self, works: Vec<Work<'p>>) -> windlass::Result<()> {
        works.into_iter().try_for_each(|work| self.run(work))
    }

    fn flush(&mut self, flush: Flush, target: Rank) -> windlass::Result<()>;

    /// Waits for requests.
    fn complete(&mut self) -> windlass::Result<()>;

    /// The steps that are complete since the last call.
    fn finished(&mut self) -> Vec<Work<'p>>;
}

/// What is done in an epoch.
pub type Body<'a, 'p> = dyn FnMut(&mut dyn Access<'p>) -> Done + 'a;

/// The steps that were complete only when their epoch ended.
pub type Ended<'p> = Result<Vec<Work<'p>>, Failure>;

/// What is done with a rank's own part.
pub type Own<'a> = dyn FnMut(&mut [u8]) -> Done + 'a;

/// A window.
pub trait Window<'p> {
    fn fence(&mut self, asserting: bool, body: &mut Body<'_, 'p>) -> Ended<'p>;

    /// Exposed to the second group of ranks, with access to the first.
    fn pscw(
        &mut self,
        groups: (&[Rank], &[Rank]),
        asserting: bool,
        body: &mut Body<'_, 'p>,
    ) -> Ended<'p>;

    fn lock_all(&mut self, asserting: bool, body: &mut Body<'_, 'p>) -> Ended<'p>;

    /// Several locks at once.
    fn locks(&mut self, locks: &[(Rank, LockKind)], body: &mut Body<'_, 'p>) -> Ended<'p>;

    /// Exclusively this rank's.
    fn own(&mut self, body: &mut Own<'_>) -> Done;

    /// Takes so many notifications under each id; there must be no more.
    fn notified(&mut self, counts: &[(u32, u64)]) -> Done;

    /// Collective end; what was lent, if anything was.
    fn free(self: Box<Self>) -> Result<Option<Vec<u8>>, Failure>;
}

//! The job as a program sees it: who am I, who else is there, and memory to share.

use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_mem::Lend;
use windlass_runtime as runtime;
use windlass_runtime::{Exposure, Job, Team};

use crate::element::{self, Element};
use crate::error::{Error, Result, Site};
use crate::group::Group;
use crate::hints::Hints;
use crate::refuse::creation_error;
use crate::request::{Buffer, Orphan};
use crate::window::Window;

/// A process of the job, by its number from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u32);

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// This process's membership of its job, or of a part of it. Cloning is cheap and shares it.
///
/// [`init`] answers the world of all ranks; [`split`](Self::split),
/// [`split_by_node`](Self::split_by_node) and [`subset`](Self::subset) make worlds of some of
/// them, which have ranks, barriers and windows of their own. Errors of a lost or departed peer
/// name its rank in the job.
///
/// [`end`](Self::end) is the collective end. When the last clone is dropped (windows and requests
/// hold one each), the rank leaves without waiting for anybody.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
    part: Arc<Part>,
}

/// The ranks of one world.
struct Part {
    team: Arc<Team>,
    group: Group,
    /// What tells this world's windows from those of others: empty for the whole job.
    label: String,
    /// Windows made so far: the same number on every rank, because creation is collective.
    windows: AtomicU32,
    /// Worlds split off so far.
    parts: AtomicU32,
}

impl Part {
    fn new(team: Arc<Team>, me: u32, label: String) -> Arc<Part> {
        Arc::new(Part {
            group: Group::new(team.ranks(), me),
            team,
            label,
            windows: AtomicU32::new(0),
            parts: AtomicU32::new(0),
        })
    }
}

struct Inner {
    job: Arc<Job>,
    ended: AtomicBool,
    /// Transfers that were dropped while they ran.
    orphans: Mutex<Vec<Orphan>>,
    /// Windows that were dropped and not freed: peers may still reach their memory.
    graves: Mutex<Vec<Exposure>>,
}

/// Joins the job: the one a launcher started this process in, or a job of one rank.
///
/// # Errors
/// [`Error::Job`]: on a second call in one process (keep the first [`World`] and clone it), for an
/// environment variable that is not understood, or if the job's node cannot be joined.
#[track_caller]
pub fn init() -> Result<World> {
    match Job::init() {
        Ok(job) => Ok(World {
            part: Part::new(job.team(), job.rank(), String::new()),
            inner: Arc::new(Inner {
                job,
                ended: AtomicBool::new(false),
                orphans: Mutex::default(),
                graves: Mutex::default(),
            }),
        }),
        Err(source) => Err(Error::Job {
            at: Box::new(Site {
                call: "init",
                rank: None,
                window: None,
                location: Location::caller(),
            }),
            source: Box::new(source),
        }),
    }
}

impl World {
    /// This process.
    #[inline]
    pub fn rank(&self) -> Rank {
        Rank(self.part.team.rank())
    }

    /// How many ranks the world has.
    #[inline]
    pub fn size(&self) -> u32 {
        self.part.team.size()
    }

    /// All ranks, in order.
    pub fn ranks(&self) -> impl DoubleEndedIterator<Item = Rank> + use<> {
        (0..self.size()).map(Rank)
    }

    /// The logical node that `rank` lives on: ranks of one node may share memory.
    ///
    /// # Errors
    /// [`Error::BadRank`].
    #[track_caller]
    pub fn node_of(&self, rank: Rank) -> Result<u32> {
        let peer = self.part.team.job_rank(rank.0);
        match peer.and_then(|peer| self.inner.job.peer(peer)) {
            Some(peer) => Ok(peer.node),
            None => Err(Error::BadRank {
                target: rank.0,
                size: self.size(),
                at: Box::new(self.site("node_of")),
            }),
        }
    }

    /// The ranks of this world, in order.
    pub fn group(&self) -> Group {
        self.all().clone()
    }

    pub(crate) fn all(&self) -> &Group {
        &self.part.group
    }

    #[track_caller]
    fn made(
        &self,
        call: &'static str,
        team: runtime::Result<Option<Arc<Team>>>,
    ) -> Result<Option<World>> {
        // Every rank counts, also one that is not in the new world.
        let number = self.part.parts.fetch_add(1, Ordering::Relaxed);
        match team {
            Ok(team) => Ok(team.map(|team| World {
                part: Part::new(
                    team,
                    self.inner.job.rank(),
                    format!("{} of part {number}", self.part.label),
                ),
                inner: Arc::clone(&self.inner),
            })),
            Err(source) => Err(Error::from_job(source, self.site(call))),
        }
    }

    /// Worlds of the ranks that give the same `color`, in order of `key`, equal ones in order of
    /// their ranks here (`MPI_Comm_split`). Collective over this world; a rank without a color
    /// gets none.
    ///
    /// # Errors
    /// [`Error::Departed`], [`Error::PeerLost`], [`Error::Job`] if no more worlds can be made.
    #[track_caller]
    pub fn split(&self, color: Option<u32>, key: i64) -> Result<Option<World>> {
        self.not_ended("split")?;
        self.made("split", self.part.team.split(color, key))
    }

    /// Worlds of the ranks of one logical node, which may share memory
    /// (`MPI_Comm_split_type` with `MPI_COMM_TYPE_SHARED`). Collective over this world.
    ///
    /// # Errors
    /// As [`split`](Self::split).
    #[track_caller]
    pub fn split_by_node(&self) -> Result<World> {
        let call = "split_by_node";
        self.not_ended(call)?;
        let node = self.node_of(self.rank())?;
        match self.made(call, self.part.team.split(Some(node), 0))? {
            Some(world) => Ok(world),
            None => unreachable!("a rank with a color is in the world of that color"),
        }
    }

    /// A world of the ranks of `group`, in its order, each of which gives the same group
    /// (`MPI_Comm_create`). Collective over this world: the others give an empty group, or the
    /// same one, and get none.
    ///
    /// # Errors
    /// [`Error::Group`] for a rank that is not in this world, before anything is collective; as
    /// [`split`](Self::split); [`Error::Disagree`] where members give different groups.
    #[track_caller]
    pub fn subset(&self, group: &Group) -> Result<Option<World>> {
        let call = "subset";
        self.not_ended(call)?;
        let mut ranks = Vec::with_capacity(group.size() as usize);
        for rank in group.ranks() {
            match group.translate(rank, &self.part.group) {
                Some(rank) => ranks.push(rank.0),
                None => {
                    return Err(Error::Group {
                        rank: rank.0,
                        size: group.size(),
                        why: "is not in this world",
                        at: Box::new(self.site(call)),
                    });
                }
            }
        }
        self.made(call, self.part.team.subset(&ranks))
    }

    /// A window of `len` zeroed elements on this rank. Collective; `len` may differ per rank.
    ///
    /// # Errors
    /// On all ranks alike: [`Error::NoMemory`], [`Error::Unreachable`], [`Error::Element`],
    /// [`Error::Job`] (which names the rank where it failed first), [`Error::Departed`].
    #[track_caller]
    pub fn allocate<T: Element>(&self, len: usize) -> Result<Window<T>> {
        self.allocate_with(len, &Hints::new())
    }

    /// [`allocate`](Self::allocate) with hints.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    #[track_caller]
    pub fn allocate_with<T: Element>(&self, len: usize, hints: &Hints) -> Result<Window<T>> {
        const { element::check::<T>() };
        self.not_ended("allocate")?;
        Window::allocated(self, len, hints)
    }

    /// A window over memory of the caller (a vector, a boxed slice, a static slice), who gets it
    /// back from [`Window::free`]. Collective; lengths may differ per rank.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate); the memory is dropped then.
    #[track_caller]
    pub fn create<T: Element, M: Lend<T> + Sync>(&self, memory: M) -> Result<Window<T, M>> {
        self.create_with(memory, &Hints::new())
    }

    /// [`create`](Self::create) with hints.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    #[track_caller]
    pub fn create_with<T: Element, M: Lend<T> + Sync>(
        &self,
        memory: M,
        hints: &Hints,
    ) -> Result<Window<T, M>> {
        const { element::check::<T>() };
        self.not_ended("create")?;
        Window::created(self, memory, hints)
    }

    /// `len` zeroed elements of registered memory for `rput` and `rget`. Local.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    #[track_caller]
    pub fn buffer<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        const { element::check::<T>() };
        self.not_ended("buffer")?;
        self.sweep();
        match self
            .inner
            .job
            .allocate(len.saturating_mul(size_of::<T>()), 1)
        {
            Ok(region) => Ok(Buffer::new(region)),
            Err(source) => Err(creation_error(source, self.site("buffer"))),
        }
    }

    /// Waits until all ranks have come here. Collective. Completes no operation of any window.
    ///
    /// # Errors
    /// [`Error::Departed`], [`Error::PeerLost`].
    #[track_caller]
    pub fn barrier(&self) -> Result<()> {
        self.not_ended("barrier")?;
        match self.part.team.barrier() {
            Ok(()) => Ok(()),
            Err(source) => Err(Error::from_job(source, self.site("barrier"))),
        }
    }

    /// The collective end: free the windows first. Waits for all ranks. The end of the world that
    /// [`init`] answered is that of the job; a part of it ends alone.
    ///
    /// # Errors
    /// [`Error::Departed`], [`Error::PeerLost`]; the job has ended for this rank all the same.
    #[track_caller]
    pub fn end(self) -> Result<()> {
        if self.size() < self.inner.job.size() || !self.part.label.is_empty() {
            return self.barrier();
        }
        if self.inner.ended.swap(true, Ordering::SeqCst) {
            return Err(self.has_ended("end"));
        }
        self.sweep();
        match self.inner.job.end() {
            Ok(()) => Ok(()),
            Err(source) => Err(Error::from_job(source, self.site("end"))),
        }
    }

    /// Ends the whole job at once, on all ranks, with an exit code and a message.
    pub fn abort(&self, code: i32, message: &str) -> ! {
        self.inner.job.abort(code, message)
    }

    /// The rank in the job of one of this world's ranks.
    pub(crate) fn job_rank(&self, rank: Rank) -> u32 {
        self.part.team.ranks()[rank.0 as usize]
    }

    #[inline(always)]
    pub(crate) fn team(&self) -> &Arc<Team> {
        &self.part.team
    }

    #[inline(always)]
    pub(crate) fn job(&self) -> &Arc<Job> {
        &self.inner.job
    }

    #[cold]
    #[track_caller]
    pub(crate) fn site(&self, call: &'static str) -> Site {
        Site {
            call,
            rank: Some(self.rank().0),
            window: None,
            location: Location::caller(),
        }
    }

    #[track_caller]
    pub(crate) fn not_ended(&self, call: &'static str) -> Result<()> {
        if self.inner.ended.load(Ordering::SeqCst) {
            return Err(self.has_ended(call));
        }
        Ok(())
    }

    #[cold]
    #[track_caller]
    fn has_ended(&self, call: &'static str) -> Error {
        Error::Ended {
            at: Box::new(self.site(call)),
        }
    }

    /// The name of a window that has just been made.
    pub(crate) fn name_window(&self) -> String {
        let number = self.part.windows.fetch_add(1, Ordering::Relaxed);
        format!("window {number}{}", self.part.label)
    }

    /// Keeps the memory of a dropped request until its transfer is over.
    pub(crate) fn adopt(&self, mut orphan: Orphan) {
        if !orphan.is_over() {
            let mut orphans = self
                .inner
                .orphans
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            orphans.push(orphan);
        }
    }

    /// Lets go of orphans whose transfer is over.
    fn sweep(&self) {
        let mut orphans = self
            .inner
            .orphans
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        orphans.retain_mut(|orphan| !orphan.is_over());
    }

    /// Keeps the memory of a window that was dropped: its ranges of the arena are not used again.
    pub(crate) fn bury(&self, exposure: Exposure) {
        let mut graves = self
            .inner
            .graves
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        graves.push(exposure);
    }
}

impl Drop for Inner {
    /// A transfer that still runs keeps its memory for ever: nothing may be freed under it.
    fn drop(&mut self) {
        let orphans = self
            .orphans
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        orphans.retain_mut(|orphan| !orphan.is_over());
        for orphan in orphans.drain(..) {
            std::mem::forget(orphan);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "World(rank {} of {}{})",
            self.rank(),
            self.size(),
            self.part.label
        )
    }
}

//! Simulated ranks: threads of which exactly one runs, whose turn it is in virtual time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use windlass::inside::{LockWord, LockWords, Name, PscwWords};
use windlass_runtime::POSTED_BITS;
use windlass_runtime::exchange::simulate::{Line, Net, ask_again};

use crate::machine::{Change, Count, Effect, Machine, Model, Place};

/// Of a rank's thread: it does little more than the algorithms.
const STACK_BYTES: usize = 256 << 10;
/// What a rank does between two tries: twenty polls.
const PAUSE_PS: u64 = 100_000;

#[derive(Default)]
struct Turn {
    thread: OnceLock<Thread>,
    given: AtomicBool,
}

/// All ranks of a job, and their machine.
pub(crate) struct Job {
    machine: Mutex<Machine>,
    turns: Box<[Turn]>,
}

/// How a job went.
#[derive(Debug, PartialEq)]
pub(crate) struct Ran {
    /// When each rank began and ended, picoseconds.
    pub(crate) spans: Vec<(u64, u64)>,
    pub(crate) counts: Vec<Count>,
    /// Of words and areas, of each rank.
    pub(crate) shared_bytes: u64,
}

impl Job {
    /// Runs `body` as each of the ranks.
    pub(crate) fn run(
        model: Model,
        ranks: u32,
        seed: u64,
        body: impl Fn(&Rank<'_>) + Sync,
    ) -> std::io::Result<Ran> {
        let job = Job {
            machine: Mutex::new(Machine::new(model, ranks, seed)),
            turns: (0..ranks).map(|_| Turn::default()).collect(),
        };
        let spans = std::thread::scope(|scope| {
            let (job, body) = (&job, &body);
            let one = |me| {
                let name = format!("rank {me}");
                let thread = std::thread::Builder::new()
                    .name(name)
                    .stack_size(STACK_BYTES);
                thread.spawn_scoped(scope, move || job.live(me, model, body))
            };
            let threads = (0..ranks).map(one).collect::<std::io::Result<Vec<_>>>();
            let threads = threads.inspect_err(|_| {
                // Those that are there wait for a turn that never comes.
                eprintln!(
                    "windlass-simulate: this system refuses so many threads: use fewer ranks"
                );
                std::process::exit(1);
            })?;
            for (turn, thread) in job.turns.iter().zip(&threads) {
                let _ = turn.thread.set(thread.thread().clone());
            }
            job.pass_on(job.lock(), None);
            let ended = threads.into_iter().map(|thread| thread.join());
            Ok::<_, std::io::Error>(ended.map(|span| span.unwrap_or_default()).collect())
        })?;
        let machine = job.machine.into_inner().unwrap_or_else(|e| e.into_inner());
        Ok(Ran {
            spans,
            shared_bytes: machine.shared_bytes(),
            counts: machine.counts.into_vec(),
        })
    }

    /// A rank's thread: when it began and ended.
    fn live(&self, me: u32, model: Model, body: &(impl Fn(&Rank<'_>) + Sync)) -> (u64, u64) {
        let _end = EndOnPanic;
        self.wait_turn(me);
        let begun = self.lock().now;
        let rank = Rank {
            job: self,
            me,
            node: me / model.per_node,
            model,
            now: Cell::new(begun),
            chunk: RefCell::default(),
        };
        body(&rank);
        let ended = rank.now.get();
        let mut machine = self.lock();
        machine.running -= 1;
        self.pass_on(machine, None);
        (begun, ended)
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn wait_turn(&self, me: u32) {
        let turn = &self.turns[me as usize];
        while !turn.given.swap(false, Ordering::Acquire) {
            std::thread::park();
        }
    }

    /// Gives the turn to whoever is resumed next. `true`: that is `me`.
    fn pass_on(&self, mut machine: MutexGuard<'_, Machine>, me: Option<u32>) -> bool {
        match machine.next() {
            Some(next) if Some(next) == me => return true,
            Some(next) => {
                drop(machine);
                let turn = &self.turns[next as usize];
                turn.given.store(true, Ordering::Release);
                if let Some(thread) = turn.thread.get() {
                    thread.unpark();
                }
            }
            None if machine.running == 0 => {}
            None => {
                eprintln!("windlass-simulate: {}", machine.stuck());
                std::process::exit(1);
            }
        }
        false
    }
}

/// The other ranks would wait for ever.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::exit(1);
        }
    }
}

/// What a rank read last of an area: its parity, where that begins, itself.
type Chunk = (u32, usize, Arc<[u8]>);

/// One rank, as its algorithms see the machine.
pub(crate) struct Rank<'a> {
    job: &'a Job,
    pub(crate) me: u32,
    node: u32,
    model: Model,
    now: Cell<u64>,
    chunk: RefCell<Option<Chunk>>,
}

impl Rank<'_> {
    /// The machine when everything has happened up to this rank's time.
    fn machine(&self) -> MutexGuard<'_, Machine> {
        let mut machine = self.job.lock();
        if machine.is_quiet(self.now.get()) {
            return machine;
        }
        machine.resume(self.me, self.now.get());
        self.sleep(machine)
    }

    /// The machine when this rank is resumed.
    fn sleep<'m>(&'m self, machine: MutexGuard<'m, Machine>) -> MutexGuard<'m, Machine> {
        if !self.job.pass_on(machine, Some(self.me)) {
            self.job.wait_turn(self.me);
        }
        let machine = self.job.lock();
        self.now.set(machine.now);
        machine
    }

    fn spend(&self, time: u64) {
        self.now.set(self.now.get() + time);
    }

    fn touch(&self, place: Place, change: Change) -> u64 {
        let (old, done) = self.machine().touch(place, change, self.me, self.now.get());
        self.now.set(done);
        old
    }

    fn look(&self, place: Place) -> u64 {
        let mut machine = self.machine();
        let (value, seen) = machine.look(place, self.me, self.now.get());
        machine.saw(place, self.me);
        self.now.set(seen);
        value
    }

    /// Waits for a word of this node.
    fn wait_here(&self, place: Place, done: impl Fn(u64) -> bool) -> u64 {
        // What was read of areas before may be written anew.
        self.chunk.take();
        let mut machine = self.machine();
        loop {
            let (value, seen) = machine.look(place, self.me, self.now.get());
            if done(value) {
                machine.saw(place, self.me);
                self.now.set(seen);
                return value;
            }
            machine.await_change(place, self.me);
            machine = self.sleep(machine);
        }
    }

    fn send(&self, server: u32, effect: Effect) {
        let busy = self.machine().send(self.me, server, effect, self.now.get());
        self.now.set(busy);
    }

    /// Changes a word of another node without asking for the old value.
    fn tell(&self, server: u32, place: Place, change: Change) {
        self.send(server, Effect::word(place, change, false));
    }

    /// Changes a word of another node: the old value.
    fn ask(&self, server: u32, place: Place, change: Change) -> u64 {
        self.ask_each([(server, place)].into_iter(), change)[0].1
    }

    /// Changes words of other nodes, all at the same time: which, and the old values.
    fn ask_each(
        &self,
        words: impl Iterator<Item = (u32, Place)>,
        change: Change,
    ) -> Vec<(Place, u64)> {
        let mut machine = self.machine();
        let (mut asked, mut busy) = (0, self.now.get());
        for (server, place) in words {
            let effect = Effect::word(place, change, true);
            busy = machine.send(self.me, server, effect, busy);
            asked += 1;
        }
        for nth in 0..asked {
            machine = self.sleep(machine);
            // Taken in one after the other, once all are sent.
            let taken = if nth == 0 {
                busy
            } else {
                busy + self.model.overhead
            };
            busy = taken.max(machine.now);
        }
        self.now.set(busy);
        std::mem::take(&mut machine.answers[self.me as usize])
    }

    fn nodes(&self) -> u32 {
        (self.job.turns.len() as u32).div_ceil(self.model.per_node)
    }

    fn node_of(&self, rank: u32) -> u32 {
        rank / self.model.per_node
    }

    /// The node so far after this one, and its first rank.
    fn after(&self, distance: u32) -> (u32, u32) {
        let node = (self.node + distance) % self.nodes();
        (node, node * self.model.per_node)
    }
}

impl Net for Rank<'_> {
    fn add(&self, line: Line, n: u64) -> u64 {
        self.touch(Place::Line(self.node, line), Change::Add(n)) + n
    }

    fn swap(&self, line: Line, word: u64) {
        self.touch(Place::Line(self.node, line), Change::Set(word));
    }

    fn clear(&self, line: Line) {
        self.touch(Place::Line(self.node, line), Change::Set(0));
    }

    fn wait(&self, line: Line, done: impl Fn(u64) -> bool) -> u64 {
        self.wait_here(Place::Line(self.node, line), done)
    }

    fn send(&self, distance: u32, line: Line, word: u64) {
        let (node, first) = self.after(distance);
        self.tell(first, Place::Line(node, line), Change::Set(word));
    }

    fn write(&self, parity: u32, at: usize, bytes: &[u8]) {
        let mut machine = self.machine();
        self.spend(bytes.len() as u64 * self.model.copy_per_byte);
        machine.put((self.node, parity), at, bytes.into());
    }

    fn read(&self, parity: u32, at: usize, bytes: &mut [u8]) {
        let mut kept = self.chunk.borrow_mut();
        let inside = |(of, start, chunk): &Chunk| {
            *of == parity
                && (*start..=start + chunk.len()).contains(&at)
                && at + bytes.len() <= start + chunk.len()
        };
        if !kept.as_ref().is_some_and(inside) {
            let found = self.machine().chunk((self.node, parity), at);
            *kept = found.map(|(start, chunk)| (parity, start, chunk));
        }
        let Some((_, start, chunk)) = &*kept else {
            panic!("nothing was written at byte {at} of an area");
        };
        bytes.copy_from_slice(&chunk[at - start..at - start + bytes.len()]);
        self.spend(bytes.len() as u64 * self.model.copy_per_byte);
    }

    fn carry(&self, distance: u32, parity: u32, at: usize, bytes: &[u8]) {
        let (node, first) = self.after(distance);
        let effect = Effect::Bytes {
            area: (node, parity),
            at,
            bytes: bytes.into(),
        };
        Rank::send(self, first, effect);
    }
}

fn picoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64 * 1_000
}

/// The lock of a rank's part, as another reaches it.
pub(crate) struct Part<'a> {
    pub(crate) rank: &'a Rank<'a>,
    pub(crate) target: u32,
}

impl Part<'_> {
    fn change(&self, name: Name, change: Change) -> Result<u64, Infallible> {
        let place = Place::Lock(self.target, name);
        Ok(if self.is_here() {
            self.rank.touch(place, change)
        } else {
            self.rank.ask(self.target, place, change)
        })
    }

    fn is_here(&self) -> bool {
        self.rank.node_of(self.target) == self.rank.node
    }
}

impl LockWord for Part<'_> {
    type Error = Infallible;

    fn fetch_add(&self, value: u64) -> Result<u64, Infallible> {
        self.change(Name::Lock, Change::Add(value))
    }

    fn fetch_sub(&self, value: u64) -> Result<u64, Infallible> {
        self.change(Name::Lock, Change::Add(value.wrapping_neg()))
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<Result<u64, u64>, Infallible> {
        let seen = self.change(Name::Lock, Change::Exchange(old, new))?;
        Ok(if seen == old { Ok(seen) } else { Err(seen) })
    }
}

impl<'a> LockWords for Part<'a> {
    type Error = Infallible;
    type Lock = Part<'a>;

    fn lock(&self) -> &Part<'a> {
        self
    }

    fn is_far(&self) -> bool {
        !self.is_here()
    }

    fn add_to_each(all: &[Self], value: u64) -> Vec<Result<u64, Infallible>> {
        let place = |part: &Part<'_>| Place::Lock(part.target, Name::Lock);
        let Some(Part { rank, .. }) = all.first() else {
            return Vec::new();
        };
        let far = all.iter().filter(|part| part.is_far());
        let far = far.map(|part| (part.target, place(part)));
        let answers: BTreeMap<Place, u64> =
            rank.ask_each(far, Change::Add(value)).into_iter().collect();
        let old = |part: &Part<'_>| match answers.get(&place(part)) {
            Some(&old) => Ok(old),
            None => LockWord::fetch_add(part, value),
        };
        all.iter().map(old).collect()
    }

    fn load(&self, name: Name) -> Result<u64, Infallible> {
        let place = Place::Lock(self.target, name);
        Ok(if self.is_here() {
            self.rank.look(place)
        } else {
            self.rank.ask(self.target, place, Change::Add(0))
        })
    }

    fn fetch_add(&self, name: Name, value: u64) -> Result<u64, Infallible> {
        self.change(name, Change::Add(value))
    }

    fn fetch_or(&self, name: Name, value: u64) -> Result<u64, Infallible> {
        self.change(name, Change::Or(value))
    }

    fn fetch_and(&self, name: Name, value: u64) -> Result<u64, Infallible> {
        self.change(name, Change::And(value))
    }

    fn wait(&self, name: Name, done: impl Fn(u64) -> bool) -> Result<(), Infallible> {
        let place = Place::Lock(self.target, name);
        if self.is_here() {
            self.rank.wait_here(place, done);
            return Ok(());
        }
        let load = || self.rank.ask(self.target, place, Change::Add(0));
        ask_again(load, done, |pause| self.rank.spend(picoseconds(pause)));
        Ok(())
    }

    /// A change wakes by itself.
    fn wake(&self, _: Name) -> Result<(), Infallible> {
        Ok(())
    }

    fn pause(&self, _: u32) {
        self.rank.spend(PAUSE_PS);
    }
}

/// A rank's words of post, start, complete and wait, in its first round.
pub(crate) struct Exposed<'a>(pub(crate) &'a Rank<'a>);

impl Exposed<'_> {
    fn tell(&self, rank: u32, place: Place, change: Change) {
        if self.0.node_of(rank) == self.0.node {
            self.0.touch(place, change);
        } else {
            self.0.tell(rank, place, change);
        }
    }
}

impl PscwWords for Exposed<'_> {
    type Error = Infallible;

    fn turn_posted(&self, origin: u32) -> Result<(), Infallible> {
        let me = self.0.me;
        let place = Place::Posted(origin, me / POSTED_BITS);
        self.tell(origin, place, Change::Xor(1 << (me % POSTED_BITS)));
        Ok(())
    }

    fn wait_posted(&self, target: u32) -> Result<(), Infallible> {
        let place = Place::Posted(self.0.me, target / POSTED_BITS);
        let bit = 1 << (target % POSTED_BITS);
        self.0.wait_here(place, |bits| bits & bit != 0);
        Ok(())
    }

    /// There is no second round.
    fn take_posted(&self, _: u32) {}

    fn add_completed(&self, target: u32) -> Result<(), Infallible> {
        self.tell(target, Place::Completed(target), Change::Add(1));
        Ok(())
    }

    fn completed(&self) -> Result<u64, Infallible> {
        Ok(self.0.look(Place::Completed(self.0.me)))
    }

    fn wait_completed(&self, done: impl Fn(u64) -> bool) -> Result<(), Infallible> {
        self.0.wait_here(Place::Completed(self.0.me), done);
        Ok(())
    }
}

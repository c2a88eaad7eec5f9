//! A program: windows of a job and what every rank does to them, epoch by epoch.

use std::collections::BTreeSet;
use std::fmt;

use windlass::{LockKind, Op};

use super::elem::Elem;
use super::expr::{Expr, Map};

/// Which interface runs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Api {
    /// `windlass::Window<T>`.
    Typed,
    /// `windlass::raw::Window`.
    Raw,
}

/// Whose memory the window is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Memory {
    Allocated,
    Lent,
    /// To a dynamic window.
    Attached,
    /// In one piece that all ranks map.
    Shared,
}

/// One rank's part.
#[derive(Clone, Debug)]
pub struct Part {
    pub bytes: usize,
    /// Bytes of a displacement.
    pub unit: usize,
    /// How far lent memory begins behind a multiple of 64.
    pub skew: usize,
    /// Where attached regions end, the last being the end of the part.
    pub pieces: Vec<usize>,
}

/// How an epoch is opened and closed.
#[derive(Clone, Debug, PartialEq)]
pub enum Sync {
    /// `asserting`: with the assertions that hold.
    Fence {
        asserting: bool,
    },
    /// The targets of each rank.
    Pscw {
        access: Vec<Vec<usize>>,
        asserting: bool,
    },
    LockAll {
        asserting: bool,
    },
    /// One target after the other, or all of an origin's at once.
    Locks {
        nested: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// By the owner, before the epoch.
    Store,
    Put,
    Get,
    Accumulate(Op),
    GetAccumulate(Op),
    FetchAndOp(Op),
    /// Compares with the present value, or with another one.
    CompareAndSwap {
        hit: bool,
    },
    /// A get and a put under an exclusive lock.
    UpdateLocked(Op),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Call,
    Request,
    Scope,
    Notify(u32),
    /// By loads and stores, where the origin reaches the part so.
    Direct,
}

/// Data in a target's part.
#[derive(Clone, Debug)]
pub struct Place {
    pub disp: i64,
    pub count: u64,
    pub expr: Expr,
}

/// Data in a buffer of the origin.
#[derive(Clone, Debug)]
pub struct Side {
    /// Of the whole buffer.
    pub bytes: usize,
    /// Where in it the layout's offset 0 lies.
    pub base: usize,
    pub count: u64,
    pub expr: Expr,
    /// By absolute addresses.
    pub bottom: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flush {
    One,
    All,
    /// Locally first.
    Local,
}

#[derive(Clone, Debug)]
pub struct Step {
    /// In the program.
    pub number: usize,
    /// The step that must come before it, because it makes the values it calculates with.
    pub needs: Option<usize>,
    pub origin: usize,
    pub target: usize,
    pub what: What,
    pub form: Form,
    /// Of updates.
    pub elem: Elem,
    pub place: Place,
    /// What is sent, and where what comes back goes.
    pub side: Side,
    /// Where the old values go, of what sends as well.
    pub result: Option<Side>,
    /// What buffers contain is drawn from this.
    pub values: u64,
    /// Others change the same elements in this epoch: what is read is not known.
    pub shared: bool,
    /// Beyond the end: to be refused.
    pub outside: bool,
    pub lock: LockKind,
    pub flush: Flush,
}

#[derive(Clone, Debug)]
pub struct Epoch {
    pub sync: Sync,
    /// Each operation is completed before the next.
    pub flushed: bool,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Program {
    pub seed: u64,
    pub api: Api,
    pub memory: Memory,
    /// Of a typed window.
    pub elem: Elem,
    pub parts: Vec<Part>,
    pub epochs: Vec<Epoch>,
}

impl Place {
    /// Where the elements lie in the part; `None` outside of 64 bits.
    pub fn map(&self, whole: bool) -> Map {
        let one = self.expr.map(whole);
        one.repeat(self.count, one.extent())
    }
}

impl Side {
    pub fn map(&self, whole: bool) -> Map {
        let one = self.expr.map(whole);
        one.repeat(self.count, one.extent())
    }
}

impl Step {
    /// As many contiguous elements on all sides.
    pub fn is_plain(&self) -> bool {
        let is_one =
            |side: &Side| side.expr == Expr::One(self.elem) && side.count == self.place.count;
        self.place.expr == Expr::One(self.elem)
            && is_one(&self.side)
            && self.result.as_ref().is_none_or(is_one)
    }

    pub fn reads_only(&self) -> bool {
        use What as W;
        matches!(
            self.what,
            W::Get | W::GetAccumulate(Op::NoOp) | W::FetchAndOp(Op::NoOp)
        )
    }
}

impl Program {
    /// Is padding data to puts and gets?
    pub fn whole(&self) -> bool {
        self.api == Api::Typed
    }

    pub fn ranks(&self) -> usize {
        self.parts.len()
    }

    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.epochs.iter().flat_map(|epoch| &epoch.steps)
    }

    /// Operations: what is compared with the model.
    pub fn cases(&self) -> u64 {
        let stores = |step: &&Step| step.what != What::Store;
        self.steps().filter(stores).count() as u64
    }

    /// The same with only these steps, and those that they need; epochs without any are left out.
    pub fn with_only(&self, numbers: &BTreeSet<usize>) -> Program {
        let kept = |step: &&Step| numbers.contains(&step.number);
        let needed: BTreeSet<usize> = self
            .steps()
            .filter(kept)
            .filter_map(|step| step.needs)
            .collect();
        let mut program = self.clone();
        for epoch in &mut program.epochs {
            epoch
                .steps
                .retain(|step| numbers.contains(&step.number) || needed.contains(&step.number));
        }
        program.epochs.retain(|epoch| !epoch.steps.is_empty());
        program
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Side {
            bytes,
            base,
            count,
            expr,
            bottom,
        } = self;
        let bottom = if *bottom { " (absolute)" } else { "" };
        write!(f, "{count} x {expr} at byte {base} of {bytes}{bottom}")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step {
            number,
            origin,
            target,
            what,
            form,
            elem,
            side,
            ..
        } = self;
        let Place { disp, count, expr } = &self.place;
        write!(
            f,
            "#{number} rank {origin} -> {target}: {what:?} {form:?} of {elem:?}: "
        )?;
        write!(f, "{count} x {expr} at displacement {disp}; here {side}")?;
        if let Some(result) = &self.result {
            write!(f, "; result {result}")?;
        }
        let exclusive = self.lock == LockKind::Exclusive;
        let lock = if exclusive { "; exclusive" } else { "" };
        let shared = if self.shared { "; shared" } else { "" };
        let outside = if self.outside { "; outside" } else { "" };
        write!(f, "; flush {:?}{lock}{shared}{outside}", self.flush)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Program {
            seed,
            api,
            memory,
            elem,
            ..
        } = self;
        writeln!(f, "program {seed}: {api:?}, {memory:?}, elements {elem:?}")?;
        for (rank, part) in self.parts.iter().enumerate() {
            let Part {
                bytes,
                unit,
                skew,
                pieces,
            } = part;
            writeln!(
                f,
                "  part of rank {rank}: {bytes} bytes, unit {unit}, skew {skew}, pieces {pieces:?}"
            )?;
        }
        for epoch in &self.epochs {
            let flushed = if epoch.flushed {
                ", each step flushed"
            } else {
                ""
            };
            writeln!(f, "  {:?}{flushed}", epoch.sync)?;
            for step in &epoch.steps {
                writeln!(f, "    {step}")?;
            }
        }
        Ok(())
    }
}

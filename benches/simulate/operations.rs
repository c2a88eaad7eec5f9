//! What is simulated: one call of each kind by all ranks, and what it came to.

use clap::ValueEnum;
use windlass::inside::{LockKind, lock, lock_all, pscw, target_bytes, unlock};
use windlass_runtime::MechanismId;
use windlass_runtime::exchange::simulate::{Member, Offer, Seats};
use windlass_runtime::mechanism::Reason;

use crate::machine::{Count, Model};
use crate::rank::{Exposed, Job, Part, Ran, Rank};

/// Elements of a simulated window's part, bytes.
const EXTENT: u64 = 4096;
/// What a rank notes about its part.
const NOTE: [u8; 20] = [7; 20];
/// What a mechanism's descriptor is long, and the reason why it has none.
const DESCRIPTOR: [u8; 24] = [7; 24];
const REASON: &str = "this node has no Vector Engine";

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    /// A fence with nothing pending
    Fence,
    /// An all-gather of 8 bytes of each rank
    Gather,
    /// A window in the arena, whose segments are known
    Window,
    /// A window over memory that nobody has reached yet
    WindowNew,
    /// A split into teams of every other rank
    Split,
    /// An exclusive lock on a rank of the next node that nobody else wants, and its unlock
    Lock,
    /// The same where several ranks want it at once
    LockContended,
    /// A lock on all parts by one rank, and its end
    LockAll,
    /// Post, start, complete and wait with a rank of the node before and one of the node after
    Pscw,
}

/// What one call of an operation came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) ranks: u32,
    /// Of collective calls from the last rank's call to the last one's return; else of one rank's
    /// call, on average.
    pub(crate) picoseconds: u64,
    /// The most of any rank.
    pub(crate) most: Count,
    /// Of all ranks together.
    pub(crate) messages: u64,
    /// Bytes that a rank holds for it.
    pub(crate) memory: u64,
}

impl Operation {
    fn is_collective(self) -> bool {
        use Operation::{Fence, Gather, Split, Window, WindowNew};
        matches!(self, Fence | Gather | Window | WindowNew | Split)
    }

    /// How many ranks call it.
    fn callers(self, ranks: u32) -> u32 {
        match self {
            Operation::LockAll => 1,
            _ => ranks,
        }
    }

    pub(crate) fn simulate(
        self,
        model: Model,
        ranks: u32,
        contenders: u32,
        seed: u64,
    ) -> std::io::Result<Outcome> {
        let seats = Seats::new((0..ranks).map(|rank| rank / model.per_node));
        let ran = Job::run(model, ranks, seed, |rank| match self {
            Operation::LockAll if rank.me > 0 => {}
            Operation::LockAll => {
                let all = |target| Part { rank, target };
                let all: Vec<_> = (0..ranks).map(all).collect();
                let Ok(()) = lock_all(&all, rank.me);
            }
            Operation::Lock => one_lock(rank, (rank.me + model.stride(ranks)) % ranks),
            Operation::LockContended => one_lock(rank, wanted(rank.me, ranks, contenders)),
            Operation::Pscw => {
                let stride = model.stride(ranks);
                let (after, before) = (rank.me + stride, rank.me + ranks - stride);
                let mut near = vec![after % ranks, before % ranks];
                near.sort_unstable();
                near.dedup();
                let Ok(()) = pscw(&Exposed(rank), &near, &near);
            }
            _ => self.collective(&Member::new(rank, &seats, rank.me), rank.me, ranks),
        })?;
        Ok(self.outcome(ranks, &ran))
    }

    fn collective(self, member: &Member<'_, Rank<'_>>, me: u32, ranks: u32) {
        let done = match self {
            Operation::Fence => member.fence(true),
            Operation::Gather => member.all_gather(&u64::from(me).to_le_bytes()).map(|all| {
                let sent = (0..u64::from(ranks)).map(|rank| rank.to_le_bytes().to_vec());
                assert!(sent.eq(all), "what was gathered is what was sent");
            }),
            Operation::Window | Operation::WindowNew => {
                let offers = (self == Operation::WindowNew).then(offers);
                member.create(&NOTE, EXTENT, offers.as_deref()).map(|all| {
                    assert_eq!(all, EXTENT * u64::from(ranks), "all parts are known");
                })
            }
            _ => member.split(me % 2).map(|size| {
                assert_eq!(
                    size,
                    (ranks + 1 - me % 2) / 2,
                    "every other rank is in the team"
                );
            }),
        };
        if let Err(error) = done {
            panic!("{self:?}: {error}");
        }
    }

    fn outcome(self, ranks: u32, ran: &Ran) -> Outcome {
        let spans = &ran.spans[..self.callers(ranks) as usize];
        let picoseconds = if self.is_collective() {
            let begun = spans.iter().map(|&(begun, _)| begun).max();
            let ended = spans.iter().map(|&(_, ended)| ended).max();
            ended.unwrap_or_default() - begun.unwrap_or_default()
        } else {
            let all: u64 = spans.iter().map(|(begun, ended)| ended - begun).sum();
            all / spans.len() as u64
        };
        let most = |of: fn(&Count) -> u64| ran.counts.iter().map(of).max().unwrap_or_default();
        let tables = match self {
            Operation::Window | Operation::WindowNew => target_bytes() as u64 * u64::from(ranks),
            _ => 0,
        };
        Outcome {
            ranks,
            picoseconds,
            most: Count {
                messages: most(|count| count.messages),
                answers: most(|count| count.answers),
                bytes: most(|count| count.bytes),
                hops: most(|count| count.hops),
            },
            messages: ran.counts.iter().map(|count| count.messages).sum(),
            memory: ran.shared_bytes + tables,
        }
    }
}

impl Model {
    /// How far the nearest rank of another node is, where there is one.
    fn stride(&self, ranks: u32) -> u32 {
        if ranks > self.per_node {
            self.per_node
        } else {
            1
        }
    }
}

fn one_lock(rank: &Rank<'_>, target: u32) {
    let part = Part { rank, target };
    let Ok(()) = lock(&part, LockKind::Exclusive, rank.me);
    let Ok(()) = unlock(&part, LockKind::Exclusive, rank.me);
}

/// The rank whose lock this one wants together with others, who are spread over the nodes.
fn wanted(me: u32, ranks: u32, contenders: u32) -> u32 {
    me % ranks.div_ceil(contenders)
}

/// What a rank of a host without devices offers of a segment.
fn offers() -> Vec<Offer> {
    use MechanismId::{Cma, Loopback, Rsm, Udapl, Vhshm};
    let works = [Loopback, Vhshm, Rsm, Cma, Udapl];
    let offer = |id| match works.contains(&id) {
        true => (id, Ok(DESCRIPTOR.to_vec())),
        false => (id, Err(Reason::new(REASON))),
    };
    MechanismId::ALL.into_iter().map(offer).collect()
}

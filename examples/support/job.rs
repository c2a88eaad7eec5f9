//! What every example needs around its own work: arguments that only rank 0 complains about, data
//! handed from rank 0 to all and collected from all, and the errors of a run.
#![allow(dead_code, reason = "each program uses its part")]

#[path = "memory.rs"]
mod memory;
#[path = "usage.rs"]
mod usage;

use std::error::Error;
use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;
use windlass::{Element, Rank, World};

pub use usage::number;

/// Anything that ends an example; its text is for the person who started it.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The rank that reads input, collects results and talks to the person.
pub const ROOT: Rank = Rank(0);

/// Runs an example's body between `init` and the collective end. A failure of one rank ends all:
/// the others could only wait for it in vain.
pub fn main(name: &str, body: fn(&World) -> Result<ExitCode, Failure>) -> ExitCode {
    let world = match windlass::init() {
        Ok(world) => world,
        Err(failure) => {
            eprintln!("{name}: {}", with_causes(&failure));
            return ExitCode::FAILURE;
        }
    };
    match body(&world) {
        Ok(code) => match world.end() {
            Ok(()) => code,
            Err(failure) => {
                eprintln!("{name}: {}", with_causes(&failure));
                ExitCode::FAILURE
            }
        },
        Err(failure) => {
            eprintln!("{name}: {}", with_causes(&*failure));
            world.abort(1, "see its message")
        }
    }
}

fn with_causes(failure: &dyn Error) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(deeper) = cause {
        text.push_str(&format!(": {deeper}"));
        cause = deeper.source();
    }
    text
}

/// Parses the command line. All ranks see the same one, so all fail alike, and rank 0 says why. The
/// job's collective end comes after that: the launcher ends a job when its first rank fails.
pub fn arguments<A: Parser>(world: &World) -> Result<Result<A, ExitCode>, Failure> {
    let refused = match A::try_parse() {
        Ok(arguments) => return Ok(Ok(arguments)),
        Err(refused) => usage::without_tip(refused),
    };
    if world.rank() == ROOT {
        refused.print()?;
    }
    Ok(Err(ExitCode::from(refused.exit_code() as u8)))
}

/// Reads a whole number of 1 or more.
pub fn at_least_one<T: TryFrom<u64> + Clone + Send + Sync + 'static>()
-> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    number(1..=u64::MAX)
}

/// Ends an example whose arguments do not fit together; rank 0 says why. All ranks come here.
pub fn refuse(world: &World, why: &str) -> ExitCode {
    if world.rank() == ROOT {
        eprintln!("error: {why}");
    }
    ExitCode::from(2)
}

/// Is there memory for what all ranks together need? If not, rank 0 says what to give instead.
/// Collective: all get the same answer.
pub fn is_room(world: &World, bytes: u64, remedy: &str) -> Result<bool, Failure> {
    let mine = memory::available().unwrap_or(u64::MAX);
    // Ranks may look at different moments, or live in different control groups.
    let least = gather(world, &[mine])?.into_iter().min().unwrap_or(mine);
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    if bytes > least {
        let (needed, left) = (gib(bytes), gib(least));
        let text = format!(
            "this needs about {needed:.1} GiB of memory, and {left:.1} GiB are available; {remedy}"
        );
        refuse(world, &text);
    }
    Ok(bytes <= least)
}

/// Hands what rank `from` gives to all ranks; the other ranks' `data` is ignored. Collective.
pub fn share<T: Element>(world: &World, from: Rank, data: Vec<T>) -> Result<Vec<T>, Failure> {
    let gives = world.rank() == from;
    let mut length = world.allocate::<u64>(1)?;
    if gives {
        length.lock_local()?[0] = data.len() as u64;
    }
    let mut count = [0];
    let epoch = length.fence()?;
    epoch.get(&mut count, from, 0)?;
    epoch.end()?;
    length.free()?;

    let mut whole = world.allocate::<T>(if gives { data.len() } else { 0 })?;
    if gives {
        whole.lock_local()?.copy_from_slice(&data);
    }
    let mut copy = vec![T::zeroed(); usize::try_from(count[0])?];
    let epoch = whole.fence()?;
    if !copy.is_empty() {
        epoch.get(&mut copy, from, 0)?;
    }
    epoch.end()?;
    whole.free()?;
    Ok(copy)
}

/// Hands every rank the elements that it asks for, of what rank 0 gives; the other ranks' `data` is
/// ignored. Collective.
pub fn scatter<T: Element>(
    world: &World,
    data: &[T],
    mine: Range<usize>,
) -> Result<Vec<T>, Failure> {
    let data = if world.rank() == ROOT { data } else { &[] };
    let mut whole = world.allocate::<T>(data.len())?;
    whole.lock_local()?.copy_from_slice(data);
    let mut part = vec![T::zeroed(); mine.len()];
    let epoch = whole.fence()?;
    if !part.is_empty() {
        epoch.get(&mut part, ROOT, mine.start)?;
    }
    epoch.end()?;
    whole.free()?;
    Ok(part)
}

/// What all ranks give, one after the other, at rank 0; the others get an empty list. Collective.
pub fn collect<T: Element>(world: &World, mine: &[T]) -> Result<Vec<T>, Failure> {
    let mut parts = world.allocate::<T>(mine.len())?;
    parts.lock_local()?.copy_from_slice(mine);
    let lens: Vec<usize> = world
        .ranks()
        .map(|rank| parts.len_of(rank))
        .collect::<Result<_, _>>()?;
    let mut whole = Vec::new();
    let epoch = parts.fence()?;
    if world.rank() == ROOT {
        whole = vec![T::zeroed(); lens.iter().sum()];
        let mut rest = &mut whole[..];
        for (rank, &len) in world.ranks().zip(&lens) {
            let part;
            (part, rest) = rest.split_at_mut(len);
            if len > 0 {
                epoch.get(part, rank, 0)?;
            }
        }
    }
    epoch.end()?;
    parts.free()?;
    Ok(whole)
}

/// `4 ranks`, `1 rank`.
pub fn count(number: u32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What all ranks give, in rank order, at all ranks. All give equally many. Collective.
pub fn gather<T: Element>(world: &World, mine: &[T]) -> Result<Vec<T>, Failure> {
    let len = mine.len() * world.size() as usize;
    let mut all = world.allocate::<T>(if world.rank() == ROOT { len } else { 0 })?;
    let epoch = all.fence()?;
    epoch.put(mine, ROOT, mine.len() * world.rank().0 as usize)?;
    let epoch = epoch.next()?;
    let mut copy = vec![T::zeroed(); len];
    epoch.get(&mut copy, ROOT, 0)?;
    epoch.end()?;
    all.free()?;
    Ok(copy)
}

//! What every example needs around its own work: arguments that only rank 0 complains about, data
//! handed from rank 0 to all, and the errors of a run.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use windlass::{Element, Rank, World};

/// Anything that ends an example; its text is for the person who started it.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The rank that reads input, collects results and talks to the person.
pub(crate) const ROOT: Rank = Rank(0);

/// Runs an example's body between `init` and the collective end. A failure of one rank ends all:
/// the others could only wait for it in vain.
pub(crate) fn main(name: &str, body: fn(&World) -> Result<ExitCode, Failure>) -> ExitCode {
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
pub(crate) fn arguments<A: Parser>(world: &World) -> Result<Result<A, ExitCode>, Failure> {
    let refused = match A::try_parse() {
        Ok(arguments) => return Ok(Ok(arguments)),
        Err(refused) => refused,
    };
    if world.rank() == ROOT {
        refused.print()?;
    }
    Ok(Err(ExitCode::from(refused.exit_code() as u8)))
}

/// Hands what rank `from` gives to all ranks; the other ranks' `data` is ignored. Collective.
pub(crate) fn share<T: Element>(
    world: &World,
    from: Rank,
    data: Vec<T>,
) -> Result<Vec<T>, Failure> {
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

//! The rank side of `windlass explain`: one window, and what its negotiation found.

use windlass_runtime::Job;

use crate::cli::Memory;
use crate::command::with_sources;
use crate::error::{Error, Result};
use crate::explain::{Row, Target};

/// Size of the window: any allocated one gets the same routes, since all are ranges of the arena.
const WINDOW_BYTES: usize = 4096;

/// Prints this rank's row.
pub(crate) fn row(window: Memory) -> Result<i32> {
    let row = found(window).map_err(|error| Error::Report(with_sources(&error)))?;
    let line = serde_json::to_string(&row)
        .map_err(|error| Error::Report(format!("the row has no JSON form: {error}")))?;
    crate::command::print(&(line + "\n"))
}

/// Joins the job, creates the window, ends the job.
fn found(window: Memory) -> windlass_runtime::Result<Row> {
    let job = Job::init()?;
    let region = match window {
        Memory::Allocate => job.allocate_window(WINDOW_BYTES, 1),
        Memory::Create => Ok(job.lend(vec![0u8; WINDOW_BYTES]).0),
    };
    let window = job.team().expose(region, &[])?;
    let targets = window.targets.iter().zip(0..).map(|(target, rank)| {
        let why = &target.why;
        let rejected = why
            .rejected
            .iter()
            .map(|(id, reason)| (id.to_string(), reason.to_string()));
        Target {
            rank,
            mechanism: why.chosen.to_string(),
            shape: why.shape.clone(),
            cost: why.cost.0,
            rejected: rejected.collect(),
        }
    });
    let row = Row {
        rank: job.rank(),
        targets: targets.collect(),
    };
    drop(window.free()?);
    job.end()?;
    Ok(row)
}

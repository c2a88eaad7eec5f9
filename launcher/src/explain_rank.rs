//! The rank side of `windlass explain`: one allocated window, and what its negotiation found.

use windlass_runtime::Job;

use crate::command::with_sources;
use crate::error::{Error, Result};
use crate::explain::{Row, Target};

/// Size of the window: any allocated one gets the same routes, since all are ranges of the arena.
const WINDOW_BYTES: usize = 4096;

/// Prints this rank's row.
pub(crate) fn row() -> Result<i32> {
    let row = found().map_err(|error| Error::Report(with_sources(&error)))?;
    let line = serde_json::to_string(&row)
        .map_err(|error| Error::Report(format!("the row has no JSON form: {error}")))?;
    crate::command::print(&(line + "\n"))
}

/// Joins the job, creates the window, ends the job.
fn found() -> windlass_runtime::Result<Row> {
    let job = Job::init()?;
    let window = job.team().expose(job.allocate(WINDOW_BYTES, 1), &[])?;
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

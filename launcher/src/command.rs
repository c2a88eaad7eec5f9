//! What each command does.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;

pub use windlass_node::with_sources;

use crate::bench::Bench;
use crate::cargo::{self, Kind};
use crate::cli::{Cli, Command, Placement, Run};
use crate::ending::Outcome;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::spawn::Signals;
use crate::{environment, explain, explain_rank, info};

/// Executes a command; gives the exit code.
pub fn execute(cli: Cli) -> Result<i32> {
    let placement = match &cli.command {
        Command::Run(Run { placement, .. })
        | Command::Explain { placement, .. }
        | Command::Bench(Bench { placement, .. }) => Some(placement),
        _ => None,
    };
    let exports = placement.map_or(Ok(Vec::new()), Placement::exports)?;
    for unknown in environment::unknown(&exports) {
        eprintln!("windlass: warning: {unknown}");
    }
    if placement.is_some() {
        environment::check(&exports)?;
    }
    match cli.command {
        Command::Run(run) => run_program(&run),
        Command::Info { json } => info::print(json),
        Command::Explain {
            placement,
            window,
            json,
        } => explain::print(&placement, window, json),
        Command::Node(node) => crate::node::execute(&node),
        Command::Bench(bench) => bench.run(),
        Command::Plot { args } => turn_into("windlass-plot", "starting windlass-plot", &args),
        Command::ExplainRank { window } => explain_rank::row(window),
        Command::Idle => {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            Ok(0)
        }
        Command::Veo { file } => print(&crate::card::version(&file)?),
        Command::Dat { file } => print(&crate::card::adapter(&file)?),
        Command::Ofi { file } => print(&crate::card::fabric(&file)?),
    }
}

fn run_program(run: &Run) -> Result<i32> {
    let built = match (&run.example, &run.bin) {
        (Some(name), _) => Some((Kind::Example, name)),
        (None, Some(name)) => Some((Kind::Bin, name)),
        (None, None) => None,
    };
    let job = match (built, run.program()) {
        // Refuse a placement that cannot be had before a long build.
        (Some((kind, name)), _) => {
            run.placement.apply(Job::new(name))?.plan()?;
            Job::new(cargo::build(kind, name)?).args(&run.command)
        }
        (None, Some((program, args))) => Job::new(program).args(args),
        (None, None) => return Err(Error::MissingProgram),
    };
    Ok(supervise(run.placement.apply(job)?.stdin(true))?.exit_code)
}

/// Becomes a program that comes with this one.
pub(crate) fn turn_into(program: &str, what: &'static str, args: &[OsString]) -> Result<i32> {
    let source = std::process::Command::new(cargo::own(program)?)
        .args(args)
        .exec();
    Err(Error::System { what, source })
}

/// Runs a job with this process's signals forwarded to it.
pub(crate) fn supervise(job: Job) -> Result<Outcome> {
    // Before the job's first thread: a blocked mask reaches only threads started later.
    let signals = Signals::take().map_err(|source| Error::System {
        what: "taking signals",
        source,
    })?;
    job.signals(signals).run()
}

/// Prints a report; a reader that has gone has seen enough.
pub(crate) fn print(text: &str) -> Result<i32> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::System {
            what: "writing the report",
            source,
        }),
        _ => Ok(0),
    }
}

/// Sends logs to standard error, filtered by `WINDLASS_LOG`.
pub fn log_to_stderr() -> Result<()> {
    let filter = std::env::var_os("WINDLASS_LOG").unwrap_or_else(|| "warn".into());
    let parsed = windlass_runtime::log::filter(&filter.to_string_lossy());
    let targets = parsed.map_err(|error| Error::Report(with_sources(&error)))?;
    windlass_runtime::log::to_stderr(Some(targets));
    Ok(())
}

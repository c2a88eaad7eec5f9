//! How the collective calls and locks grow with the ranks, over a simulated network.
//!
//! ```text
//! windlass bench --simulate 4096 --per-node 32
//! ```
//!
//! Every rank is a thread that runs the algorithms of the library themselves: the barrier between
//! and within nodes, the gathers and agreements of creation, the lock, post-start-complete-wait. Only
//! the words that they stand on and the network between are simulated (`machine.rs` has the model,
//! LogGP between nodes); exactly one thread runs at a time, whose turn it is in virtual time
//! (`rank.rs`). So messages and bytes are counted, times are what the model predicts of them.
//!
//! Not simulated: what ranks do of their own (decoding, tables), beyond copies; the attaching of
//! memory; sleeping and waking, and ranks that share a cpu.

mod machine;
mod operations;
mod options;
mod rank;
mod report;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use operations::{Operation, Outcome};
use options::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has gone has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windlass-simulate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let calls = match options.only.as_slice() {
        [] => Operation::value_variants(),
        some => some,
    };
    if !options.json {
        write!(out, "{}", report::head(options))?;
    }
    let mut all = Vec::new();
    for &call in calls {
        let outcomes = simulate(call, options)?;
        if !options.json {
            write!(out, "{}", report::table(call, &outcomes))?;
            out.flush()?;
        }
        all.push((call, outcomes));
    }
    if options.json {
        writeln!(out, "{:#}", report::json(options, &all))?;
    }
    Ok(())
}

fn simulate(call: Operation, options: &Options) -> std::io::Result<Vec<Outcome>> {
    let progress = std::io::stderr().is_terminal();
    let outcomes = options.sizes().into_iter().map(|ranks| {
        if progress {
            eprint!("\r\x1b[K{call:?}, {ranks} ranks");
        }
        let model = options.model();
        call.simulate(model, ranks, options.contenders.min(ranks), options.seed)
    });
    let outcomes = outcomes.collect();
    if progress {
        eprint!("\r\x1b[K");
    }
    outcomes
}

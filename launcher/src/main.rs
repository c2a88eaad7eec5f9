//! The command `windlass`: a thin layer over the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use windlass_launcher::cli::{Cli, rewrite, without_tip};
use windlass_launcher::{NOT_RUN, command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(rewrite(std::env::args_os())) {
        Ok(cli) => cli,
        Err(refused) => without_tip(refused).exit(),
    };
    let code = command::log_to_stderr()
        .and_then(|()| command::execute(cli))
        .unwrap_or_else(|error| {
            eprintln!("windlass: {}", command::with_sources(&error));
            NOT_RUN
        });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

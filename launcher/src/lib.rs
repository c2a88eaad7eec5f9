//! Starts jobs of ranks, supervises them, and says what became of them.
//!
//! The command `windlass` is a thin layer over this library; tests use the library itself:
//!
//! ```
//! use std::time::Duration;
//! use windlass_launcher::Job;
//!
//! let outcome = Job::new("/bin/sh")
//!     .args(["-c", "echo I am $WINDLASS_RANK of $WINDLASS_SIZE"])
//!     .ranks(3)
//!     .timeout(Duration::from_secs(20))
//!     .tag(true)
//!     .capture()
//!     .run()?;
//! assert_eq!(outcome.exit_code, 0, "{}", outcome.message);
//! assert!(outcome.stdout_text().contains("[2] I am 2 of 3"));
//! # Ok::<(), windlass_launcher::Error>(())
//! ```
//!
//! # Where is what
//! | file | what |
//! | --- | --- |
//! | `job.rs`, `life.rs` | the builder [`Job`]; the life of a job in one thread |
//! | `place.rs`, `place_error.rs` | the placement language and who sits where; refusals |
//! | `topology.rs` | packages, NUMA nodes, cores; binding |
//! | `node.rs` | the nodes of programs that were started without the launcher |
//! | `nodes.rs` | one node service per logical node, in this process |
//! | `spawn.rs` | fork and exec of a rank, and the launcher's signals: the only unsafe file |
//! | `wait.rs`, `wait/judge.rs`, `wait/leaver.rs` | supervision; who failed, who only followed, who left first |
//! | `ending.rs` | how ranks and jobs end: exit code, words |
//! | `output.rs` | whole lines from many ranks |
//! | `clean.rs`, `guard.rs` | what the kill of a rank, and of the launcher, leaves behind |
//! | `environment.rs` | the variables |
//! | `cli.rs`, `command.rs`, `cargo.rs`, `info.rs`, `explain.rs` | the command `windlass` |
//! | `bench.rs`, `measure.rs` | `windlass bench`; what can be measured, and how |
//!
//! # Promises
//! - Everybody of a job is gone within two seconds after one rank fails (reliability A3), and when the
//!   launcher itself is killed (A4): ranks carry a parent-death signal and a life pipe.
//! - A rank that joined the job and exits 0 without ending it has failed; a program that never
//!   joins is an ordinary program.
//! - What a job made outside its processes is removed at its end, or by the next job's start.
#![deny(unsafe_code)]

mod bench;
mod card;
mod cargo;
mod clean;
pub mod cli;
pub mod command;
mod ending;
pub mod environment;
mod error;
pub mod explain;
mod explain_rank;
mod guard;
pub mod info;
mod job;
mod life;
pub mod measure;
mod node;
mod nodes;
mod output;
pub mod place;
mod place_error;
mod spawn;
pub mod topology;
mod wait;

pub use ending::{Cause, End, Fate, NOT_RUN, Outcome, RankEnd, TIMED_OUT, exit_code, signal_name};
pub use error::{Error, Result};
pub use job::{Job, Running};
pub use output::Sink;
pub use spawn::Signals;

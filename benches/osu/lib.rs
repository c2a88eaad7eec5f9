//! What `windlass-osu` and `windlass-peers` have in common: what an iteration does, the loops around it, and what the machine
//! itself needs for the like. `main.rs` says what each measures.

pub mod epochs;
#[path = "../../examples/support/job.rs"]
pub mod job;
pub mod measure;
pub mod pages;
pub mod place;
pub mod progress;
pub mod samples;
pub mod updates;
pub mod windows;
pub mod wire;
pub mod work;
pub mod yard;

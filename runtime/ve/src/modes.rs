//! Modes for finding mistakes of programs: *checking* traps what the library leaves undefined, *reordering* does what it
//! permits (ve-memory.md sections 8, 9.3, 9.4 and 11). Both are off unless the environment or the caller asks.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::addr::Vehva;
use crate::fault::{Access, Fault, FaultKind};

/// `1`: programs that break a rule of the DMA interface end with a message that names it; refused calls know their rule
/// ([`crate::Error::Refused`]).
pub const CHECK_VARIABLE: &str = "WINDLASS_VE_CHECK";
/// A seed: transfers and stores are delayed and reordered as far as the rules permit.
pub const REORDER_VARIABLE: &str = "WINDLASS_VE_REORDER";

/// A rule that a program broke. The library checks none of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Rule {
    /// Section 9.3.
    #[error(
        "a DMA transfer is posted without ve_dma_init; call it first, in a forked child too (ve-memory 9.3)"
    )]
    NoInit,
    /// Section 9.3.
    #[error(
        "the handle of descriptor {index} is polled after its final result, or was never posted; post it again before polling (ve-memory 9.3)"
    )]
    DoublePoll {
        /// The descriptor it names.
        index: usize,
    },
    /// Section 9.3, step 3.
    #[error(
        "the handle of descriptor {index} went before its final result was taken, and a later post stores the result there; keep it until it is polled (ve-memory 9.3)"
    )]
    HandleGone {
        /// The descriptor it names.
        index: usize,
    },
    /// Section 9.3.
    #[error(
        "the handle of descriptor {index} is posted again before its final result was taken; poll it first (ve-memory 9.3)"
    )]
    HandleBusy {
        /// The descriptor it names.
        index: usize,
    },
    /// Section 9.2.
    #[error(
        "a DMA transfer from {src} to {dst}: addresses are multiples of 4 bytes (ve-memory 9.2)"
    )]
    Misaligned {
        /// Destination.
        dst: Vehva,
        /// Source.
        src: Vehva,
    },
    /// Section 9.2.
    #[error(
        "a DMA transfer of {len} bytes: the length is a multiple of 4 and less than 128 MiB; split it (ve-memory 9.2)"
    )]
    Length {
        /// The length, as the engine sees it: unsigned.
        len: u32,
    },
    /// Section 9.2.
    #[error("a DMA transfer of {len} bytes from {src} to {dst} overlaps itself (ve-memory 9.2)")]
    Overlap {
        /// Destination.
        dst: Vehva,
        /// Source.
        src: Vehva,
        /// Length.
        len: u32,
    },
    /// Section 2.2.
    #[error(
        "{vehva} is stored to, in the page of system-call arguments, which is the operating system's: is it a VEHVA that was never set? (ve-memory 2.2)"
    )]
    SystemCallPage {
        /// Where.
        vehva: Vehva,
    },
    /// Section 2.2: a warning.
    #[error(
        "a DMA transfer from {vehva}, in the page of system-call arguments, which is the operating system's: is it a VEHVA that was never set? (ve-memory 2.2)"
    )]
    SystemCallSource {
        /// Where.
        vehva: Vehva,
    },
    /// Section 9.3: a warning.
    #[error(
        "{call}: {} {start} of {len} bytes ends it with {:#06x}, at {}: {}; {} (ve-memory 9.3)",
        side(.fault.access),
        .fault.kind.exception().bits(),
        .fault.at,
        .fault.kind,
        remedy(.fault.kind)
    )]
    Unreached {
        /// The call that posted the transfer.
        call: &'static str,
        /// The side's first address.
        start: Vehva,
        /// Length.
        len: u32,
        /// What it ends with.
        fault: Fault,
    },
    /// Section 6.
    #[error(
        "{vehva} is detached while a transfer that uses it has not been seen to complete; poll it first (ve-memory 6)"
    )]
    InFlight {
        /// What is detached.
        vehva: Vehva,
    },
    /// Section 5.3: a warning.
    #[error(
        "{vehva} of another process is detached with VE_MEM_LOCAL: the area keeps its reference until this process ends; use VE_REGISTER_VEHVA (ve-memory 5.3)"
    )]
    RemoteByLocal {
        /// What is detached.
        vehva: Vehva,
    },
}

fn side(access: Access) -> &'static str {
    match access {
        Access::Read => "the source",
        Access::Write => "the destination",
    }
}

fn remedy(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::MemoryProtection => "attach it for writing",
        _ => {
            "an address of VE DMA is what ve_register_mem_to_dmaatb, ve_shared_mem_attach to VEHVA or vh_shmat's vehva gave"
        }
    }
}

impl Rule {
    /// True for what is defined, but hardly meant.
    pub const fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::RemoteByLocal { .. } | Self::SystemCallSource { .. } | Self::Unreached { .. }
        )
    }
}

/// What happens to a program that breaks a rule. When it returns, the call goes on as the library's does.
#[derive(Clone)]
pub struct Trap(Arc<dyn Fn(Rule) + Send + Sync>);

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trap")
    }
}

impl Trap {
    /// A trap of the caller's. It must not use the engine.
    pub fn new(sprung: impl Fn(Rule) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sprung))
    }

    /// Says the rule on standard error, then ends the process (SIGABRT) unless it is a warning.
    pub fn abort() -> Self {
        Self::new(|rule| {
            let what = if rule.is_warning() {
                "warning"
            } else {
                "error"
            };
            eprintln!("windlass VE: {what}: {rule}");
            if !rule.is_warning() {
                std::process::abort();
            }
        })
    }

    pub(crate) fn spring(&self, rule: Rule) {
        (self.0)(rule);
    }
}

/// How transfers and stores are reordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reorder {
    /// Decides the order, together with the program's own calls.
    pub seed: u64,
    /// Nothing moves but in the calls of this process and in [`crate::Dma::step`]; else a thread sees to it that all is done some time.
    pub by_hand: bool,
}

/// The modes of one process.
#[derive(Clone, Debug, Default)]
pub struct Modes {
    /// Checking mode.
    pub check: Option<Trap>,
    /// Reordering mode.
    pub reorder: Option<Reorder>,
}

/// A variable that is not understood.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{variable}={value:?} is not understood; use {accepted}")]
pub struct UnknownMode {
    /// Name.
    pub variable: &'static str,
    /// Value.
    pub value: String,
    /// What it accepts.
    pub accepted: &'static str,
}

impl Modes {
    /// What the environment asks for.
    ///
    /// # Errors
    /// The first variable that is not understood.
    pub fn from_env() -> Result<Self, UnknownMode> {
        let text = |variable| {
            let value = std::env::var_os(variable)?;
            Some(value.to_string_lossy().into_owned())
        };
        Self::parse(text(CHECK_VARIABLE), text(REORDER_VARIABLE))
    }

    /// The same of these values.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn parse(check: Option<String>, reorder: Option<String>) -> Result<Self, UnknownMode> {
        let check = match check.as_deref() {
            None | Some("0") => None,
            Some("1") => Some(Trap::abort()),
            Some(value) => {
                return Err(UnknownMode {
                    variable: CHECK_VARIABLE,
                    value: value.to_owned(),
                    accepted: "0 or 1",
                });
            }
        };
        let seed = |value: String| {
            value.parse().map_err(|_| UnknownMode {
                variable: REORDER_VARIABLE,
                value,
                accepted: "a number, the seed",
            })
        };
        let reorder = reorder.map(seed).transpose()?.map(|seed| Reorder {
            seed,
            by_hand: false,
        });
        Ok(Self { check, reorder })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_strictly() {
        let parse = |check: Option<&str>, reorder: Option<&str>| {
            Modes::parse(check.map(str::to_owned), reorder.map(str::to_owned))
        };
        let none = parse(None, None).expect("nothing set");
        assert!(none.check.is_none() && none.reorder.is_none());
        let both = parse(Some("1"), Some("42")).expect("both");
        assert!(both.check.is_some());
        assert_eq!(both.reorder.map(|reorder| reorder.seed), Some(42));
        assert!(parse(Some("0"), None).expect("off").check.is_none());
        for (check, reorder, name) in [
            (Some("yes"), None, CHECK_VARIABLE),
            (None, Some("-1"), REORDER_VARIABLE),
            (None, Some(""), REORDER_VARIABLE),
        ] {
            let refused = parse(check, reorder).expect_err("not understood");
            assert_eq!(refused.variable, name);
        }
    }
}

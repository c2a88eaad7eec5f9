//! The guard of a rank's wide elements: those that no CPU instruction changes in one piece.
//!
//! Each rank of a window has a guard word in its node's control segment. Origins of that node take
//! it themselves; for all others the rank's own helper does, which knows the word by the number of
//! the window's context alone, so that a peer can name no other word.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use windlass_mem::sync::{self, Held};
use windlass_node::control::{self, Control, Trouble};

use crate::error::{Error, Result};
use crate::progress::Health;

/// No guard, for elements that are never wide, as synchronisation words: the context of the whole
/// job, which is no window.
pub(crate) const UNGUARDED: u32 = control::WORLD;

/// The guard of one rank's part of a window, in this node's control segment.
#[derive(Clone, Copy)]
pub struct Guard<'a> {
    word: &'a AtomicU64,
    control: &'a Control,
    health: &'a Health,
}

impl<'a> Guard<'a> {
    /// The guard of a local rank in a context, both in the bounds of `control`.
    pub(crate) fn new(
        control: &'a Control,
        health: &'a Health,
        context: u32,
        local: u32,
    ) -> Guard<'a> {
        Guard {
            word: control.word(control::guard(context, local)),
            control,
            health,
        }
    }

    /// Takes it. The holder waits for nobody, so this waits only for holders to get a cpu.
    ///
    /// # Errors
    /// The job is lost.
    pub fn hold(&self) -> Result<Held<'a>> {
        let (control, health) = (self.control, self.health);
        sync::hold(self.word, health.oversubscribed(), || {
            check(control, health)
        })
    }
}

/// Has the job been lost, as far as this node knows?
///
/// # Errors
/// [`Error::JobLost`], [`Error::PeerLost`].
pub(crate) fn check(control: &Control, health: &Health) -> Result<()> {
    health.check()?;
    match control.trouble() {
        None => Ok(()),
        Some(Trouble::Abort { rank }) => Err(Error::JobLost(format!("rank {rank} aborted it"))),
        Some(Trouble::Lost { rank }) => {
            let detail = "it ended without ending its job".to_owned();
            Err(Error::PeerLost { rank, detail })
        }
        Some(Trouble::Link { node }) => {
            Err(Error::JobLost(format!("the link to node {node} broke")))
        }
    }
}

/// The guards of this rank's own parts, for its helper.
#[derive(Clone)]
pub struct Keeper {
    control: Control,
    health: Arc<Health>,
    local: u32,
}

impl Keeper {
    /// Of the rank that is number `local` on its node.
    pub fn new(control: Control, health: Arc<Health>, local: u32) -> Keeper {
        Keeper {
            control,
            health,
            local,
        }
    }

    /// The guard of this rank's part in a context that a peer names.
    pub(crate) fn guard(&self, context: u32) -> Option<Guard<'_>> {
        let named = context != UNGUARDED && context < control::CONTEXTS;
        named.then(|| Guard::new(&self.control, &self.health, context, self.local))
    }
}

//! One connection to a target.

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use windlass_dat::{ConnectionKind, EpState};

use super::carrier::{Carrier, Endpoint, Refused};
use super::message::Inbox;
use super::verdict::{refusal, usable};
use crate::mechanism::PostError;

/// One connection to a target.
pub(super) struct Conn<C: Carrier> {
    pub(super) ep: C::Ep,
    pub(super) inbox: Inbox<C::Lmr>,
    /// Tickets of updates that are not answered.
    pub(super) updates: Mutex<Vec<u64>>,
    /// A request was refused: the connection is lost, but not the peer.
    pub(super) refused: AtomicBool,
    /// By the peer, which has handled none of those behind it.
    pub(super) unheard: AtomicBool,
    /// How it ended.
    pub(super) why: Mutex<Option<ConnectionKind>>,
}

impl<C: Carrier> Conn<C> {
    pub(super) fn new(ep: C::Ep, inbox: Inbox<C::Lmr>) -> Conn<C> {
        Conn {
            ep,
            inbox,
            updates: Mutex::default(),
            refused: AtomicBool::new(false),
            unheard: AtomicBool::new(false),
            why: Mutex::default(),
        }
    }

    pub(super) fn usable(&self) -> Result<(), PostError> {
        match self.ep.state() {
            EpState::Connected => Ok(()),
            state => usable(state, *self.why.lock()),
        }
    }

    pub(super) fn refusal(&self, why: Refused) -> PostError {
        refusal(why, self.ep.state(), *self.why.lock())
    }

    /// Are the first `count` requests over? They complete in order; a failed one ends the connection.
    pub(super) fn is_past(&self, count: u64) -> bool {
        self.ep.counts().1 >= count || self.why.lock().is_some()
    }
}

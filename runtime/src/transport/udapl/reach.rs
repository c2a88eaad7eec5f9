//! What an origin knows of one peer: where it is, and the connection to it.

use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use windlass_dat::EpState;

use super::carrier::{Carrier, Endpoint};
use super::conn::Conn;
use crate::mechanism::{PostError, Pushed};

/// A peer.
pub(super) struct Reach<C: Carrier> {
    /// The first connection, found without a lock: there is no other before a request was refused.
    first: OnceLock<Arc<Conn<C>>>,
    now: RwLock<Now<C>>,
}

struct Now<C: Carrier> {
    address: Option<C::Address>,
    conn: Option<Arc<Conn<C>>>,
    /// Connections made so far.
    made: u64,
}

impl<C: Carrier> Default for Reach<C> {
    fn default() -> Reach<C> {
        Reach {
            first: OnceLock::new(),
            now: RwLock::new(Now {
                address: None,
                conn: None,
                made: 0,
            }),
        }
    }
}

impl<C: Carrier> Reach<C> {
    /// The first connection, while it lasts: nothing has replaced it then.
    #[inline]
    pub(super) fn quick(&self) -> Option<&Conn<C>> {
        let first = self.first.get();
        first
            .map(|conn| &**conn)
            .filter(|conn| conn.ep.state() == EpState::Connected)
    }

    /// The connection, if there is one.
    pub(super) fn conn(&self) -> Option<Arc<Conn<C>>> {
        self.now.read().conn.clone()
    }

    /// The connection, or the one that `connect` makes. `None`: nobody has said where the peer is.
    pub(super) fn conn_or(
        &self,
        connect: impl FnOnce(&C::Address) -> Result<Conn<C>, PostError>,
    ) -> Option<Result<Arc<Conn<C>>, PostError>> {
        if let Some(conn) = self.conn() {
            return Some(Ok(conn));
        }
        let mut now = self.now.write();
        if let Some(conn) = &now.conn {
            return Some(Ok(Arc::clone(conn)));
        }
        let made = connect(now.address.as_ref()?).map(Arc::new);
        Some(made.inspect(|conn| {
            let _ = self.first.set(Arc::clone(conn));
            now.made += 1;
            now.conn = Some(Arc::clone(conn));
        }))
    }

    pub(super) fn note(&self, address: C::Address) {
        self.now.write().address = Some(address);
    }

    /// The connection is over; the next use makes another.
    pub(super) fn forget(&self) {
        self.now.write().conn = None;
    }

    /// What has been posted by now.
    pub(super) fn pushed(&self) -> Pushed {
        let pushed = |connection, conn: &Conn<C>| Pushed {
            connection,
            count: conn.ep.counts().0,
        };
        if let Some(first) = self.quick() {
            return pushed(1, first);
        }
        let now = self.now.read();
        let conn = now.conn.as_ref();
        conn.map_or_else(Pushed::default, |conn| pushed(now.made, conn))
    }

    /// Is everything over that was posted before? A connection that was replaced is, with all that went by it.
    pub(super) fn settled(&self, before: Pushed) -> bool {
        if let Some(first) = self.quick() {
            return before.connection != 1 || first.is_past(before.count);
        }
        let now = self.now.read();
        let conn = now.conn.as_ref();
        now.made != before.connection || conn.is_none_or(|conn| conn.is_past(before.count))
    }
}

//! The ways to other nodes: queues that the links' writers empty.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::wire::{self, LinkMessage};

/// Encoded link messages on their way to one node.
pub(crate) type Queue = Receiver<Arc<[u8]>>;

struct Route {
    node: u32,
    queue: Sender<Arc<[u8]>>,
}

/// The root's to every other node, or the one of another node to the root.
#[derive(Default)]
pub(crate) struct Routes(Vec<Route>);

impl Routes {
    /// A way to a node, and the end that its writer gets.
    pub(crate) fn add(&mut self, node: u32) -> Queue {
        let (queue, other_end) = channel();
        self.0.push(Route { node, queue });
        other_end
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Queues a message for every linked node but one; only the root has more than one.
    pub(crate) fn relay(&self, except: Option<u32>, message: &LinkMessage) {
        send(
            self.0.iter().filter(|route| Some(route.node) != except),
            message,
        );
    }

    /// Queues a message for one node, or for who passes it on there.
    pub(crate) fn send_to(&self, node: u32, message: &LinkMessage) {
        let way = |route: &&Route| route.node == node || route.node == 0;
        send(self.0.iter().find(way).into_iter(), message);
    }
}

fn send<'a>(routes: impl Iterator<Item = &'a Route>, message: &LinkMessage) {
    let mut routes = routes.peekable();
    if routes.peek().is_none() {
        return;
    }
    let body: Arc<[u8]> = match wire::encode(message, 0) {
        Ok(body) => body.into(),
        // Every variant is bounded below a frame's size.
        Err(error) => {
            tracing::error!(%error, "a link message was not sent");
            return;
        }
    };
    for route in routes {
        // A writer that ended has reported its link as lost.
        let _ = route.queue.send(Arc::clone(&body));
    }
}

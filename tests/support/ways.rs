//! Placements that bring about each kind of route, and mixtures of them.

use windlass::{Element, Rank, RouteInfo, Window, World};

use super::{Failure, Spec};

/// A placement, the mechanisms allowed in it, and the route it is there for.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Of the case.
    pub name: &'static str,
    /// Logical nodes.
    pub nodes: u32,
    ves: u32,
    place: &'static str,
    /// `WINDLASS_ROUTE`; empty for none.
    allowed: &'static str,
    /// From rank 0 to rank 1.
    pub mechanism: &'static str,
    /// Of that route.
    pub shape: &'static str,
    /// Over memory of the caller.
    pub lent: bool,
    /// VEs by a loaded libveo.so.
    pub native: bool,
}

const fn way(name: &'static str, place: &'static str, route: [&'static str; 2]) -> Way {
    Way {
        name,
        nodes: 1,
        ves: 0,
        place,
        allowed: "",
        mechanism: route[0],
        shape: route[1],
        lent: false,
        native: false,
    }
}

/// Two ranks: rank 0 reaches rank 1 by each route there is. Tests name some by their index.
pub const PAIRS: [Way; 8] = [
    way("vhshm", "vh:2", ["vhshm", "mapped"]),
    Way {
        ves: 1,
        ..way("veshm", "ve0:2", ["veshm", "mapped"])
    },
    Way {
        ves: 2,
        ..way("ve dma", "ve0:1,ve1:1", ["veshm", "posted"])
    },
    Way {
        ves: 1,
        allowed: "veo,udapl",
        ..way("veo", "vh:1,ve0:1", ["veo", "posted"])
    },
    Way {
        allowed: "cma",
        lent: true,
        ..way("cma", "vh:2", ["cma", "posted"])
    },
    Way {
        allowed: "udapl",
        ..way("udapl", "vh:2", ["udapl", "posted"])
    },
    Way {
        nodes: 2,
        ..way("two nodes", "vh:1", ["udapl", "posted"])
    },
    Way {
        ves: 2,
        native: true,
        ..way("native", "ve0:1,ve1:1", ["veo", "posted"])
    },
];

/// More than two ranks, over several kinds of route at once. Tests name some by their index.
pub const MIXTURES: [Way; 6] = [
    way("host", "vh:4", ["vhshm", "mapped"]),
    Way {
        ves: 2,
        ..way("ves and host", "ve0:1,ve1:1,vh:2", ["veshm", "posted"])
    },
    Way {
        nodes: 2,
        ves: 2,
        ..way("two nodes, mixed", "ve0:2,ve1:1,vh:1", ["veshm", "mapped"])
    },
    Way {
        nodes: 2,
        lent: true,
        allowed: "cma,udapl",
        ..way("lent, two nodes", "vh:2", ["cma", "posted"])
    },
    Way {
        allowed: "udapl",
        ..way("udapl of four", "vh:4", ["udapl", "posted"])
    },
    Way {
        nodes: 2,
        ves: 1,
        native: true,
        ..way("two nodes, native", "vh:1,ve0:1", ["veo", "posted"])
    },
];

impl Way {
    /// Jobs of `test` placed so.
    pub fn spec(&self, test: &'static str) -> Spec {
        let mut spec = Spec::new(test)
            .case(self.name)
            .nodes(self.nodes)
            .place(self.place);
        if self.ves > 0 {
            spec = spec.ves(self.ves);
        }
        if self.native {
            spec = spec.native();
        }
        if !self.allowed.is_empty() {
            spec = spec.env("WINDLASS_ROUTE", self.allowed);
        }
        spec
    }

    /// A window of `len` zeroed elements. Collective; makes sure that the route is the wanted one.
    pub fn window<T: Element>(&self, world: &World, len: usize) -> Result<Window<T>, Failure> {
        let window = if self.lent {
            world.create(vec![T::zeroed(); len])?.without_loan()
        } else {
            world.allocate(len)?
        };
        if world.rank() == Rank(0) {
            let route = route_to(&window, Rank(1));
            assert_eq!(
                (route.mechanism, route.shape),
                (self.mechanism, self.shape),
                "{self:?}"
            );
        }
        Ok(window)
    }
}

/// How `target` is reached.
pub fn route_to<T: Element>(window: &Window<T>, target: Rank) -> RouteInfo {
    let mut routes = window.routes();
    let route = routes.find(|route| route.target == target);
    route.expect("a window has a route to every rank")
}

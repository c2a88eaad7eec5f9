//! Random programs of two to four ranks against a serial model (reliability, rule of section 3).
//!
//! A program is drawn from a seed, alike on all ranks. It is a sequence of epochs of every kind;
//! in each, every rank's part of the window is cut into regions, and each region belongs to one
//! origin, or is *shared* and then only changed in ways that commute. So every program has one
//! outcome, which all ranks compute on a model beside the real operations: plain vectors, naive
//! arithmetic, type maps written out. Every value that an operation returns is compared when it
//! is complete, and after each epoch each rank compares the whole of its part.
//!
//! A *case* is one operation. `WLTEST_CASES=n` sets how many all placements run together; a
//! program that fails is made as short as can be and printed with the command that runs it.

mod support;

mod differential {
    pub mod address;
    pub mod back;
    pub mod draw;
    pub mod elem;
    pub mod expr;
    pub mod guard;
    pub mod judge;
    pub mod model;
    pub mod program;
    pub mod raw;
    pub mod run;
    pub mod sides;
    pub mod steps;
    pub mod typed;
}

use std::collections::BTreeSet;

use differential::elem;
use differential::judge::{Placement, program};
use differential::program::What;
use differential::run::Sabotage;
use support::Spec;
use windlass::Op;

/// A placement whose ranks share memory, without anything forced.
fn placement(name: &'static str, percent: u64) -> Placement {
    Placement {
        name,
        spec: Spec::new(name),
        percent,
        shares: false,
        lent_route: None,
        // Placements run different programs.
        from: name
            .bytes()
            .fold(0, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte))
            * 100_000,
    }
}

macro_rules! placements {
    ($($(#[$doc:meta])* $name:ident: $percent:literal, $change:expr;)+) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                let change: fn(Placement) -> Placement = $change;
                change(placement(stringify!($name), $percent)).expect_no_difference();
            }
        )+

        const PERCENTS: &[u64] = &[$($percent),+];
    };
}

fn placed(mut placement: Placement, nodes: u32, ves: u32, place: &str) -> Placement {
    placement.spec = placement.spec.nodes(nodes).ves(ves).place(place);
    placement
}

fn forced(mut placement: Placement, routes: &str, lent: Option<&'static str>) -> Placement {
    placement.spec = placement.spec.env("WINDLASS_ROUTE", routes);
    placement.lent_route = lent;
    placement
}

placements! {
    /// Lent memory is re-backed and mapped. With one heap: a thread's begins with a page that is not moved.
    hosts_of_one_node: 18, |mut p| {
        p.spec = p.spec.env("MALLOC_ARENA_MAX", "1");
        Placement { shares: true, lent_route: Some("vhshm"), ..placed(p, 1, 0, "vh:4") }
    };
    one_ve_and_its_host: 12, |p| placed(p, 1, 1, "ve0:2,vh:2");
    two_ves_and_their_host: 12, |p| placed(p, 1, 2, "ve0:1,ve1:1,vh:2");
    /// The same by a loaded libveo.so: windows lie on VEs, ranks do not.
    two_ves_by_a_library: 4, |mut p| {
        p.spec = p.spec.native();
        placed(p, 1, 2, "ve0:1,ve1:1,vh:2")
    };
    two_nodes_of_ve_and_host: 10, |p| placed(p, 2, 1, "ve0:1,vh:1");
    two_nodes_of_hosts: 8, |p| placed(p, 2, 0, "vh:2");
    four_nodes: 8, |p| placed(p, 4, 0, "vh:1");
    /// Everything through the software provider, on one node too.
    posted_by_udapl: 10, |p| forced(placed(p, 1, 0, "vh:4"), "udapl", Some("udapl"));
    /// Lent memory by cross-memory copy.
    copied_across: 8, |p| forced(placed(p, 1, 0, "vh:4"), "cma,udapl", Some("cma"));
    posted_by_veo: 10, |p| forced(placed(p, 1, 1, "ve0:2,vh:2"), "veo,udapl", None);
}

/// Data between nodes by libfabric, updates by the software provider: beside the others, where it is installed.
#[test]
fn posted_by_libfabric() {
    if let Some(reason) = support::ofi::missing() {
        return eprintln!("posted_by_libfabric: skipped: {reason}");
    }
    let placement = placed(placement("posted_by_libfabric", 8), 2, 0, "vh:2");
    forced(placement, "ofi,vhshm", None).expect_no_difference();
}

/// All of it by a provider that libdat2 loads, ours: beside the others, where libdat2 is installed.
#[test]
fn posted_by_libdat2() {
    if let Some(reason) = support::libdat2::missing() {
        return eprintln!("posted_by_libdat2: skipped: {reason}");
    }
    let mut placement = placed(placement("posted_by_libdat2", 8), 2, 0, "vh:2");
    placement.spec = placement.spec.libdat2();
    forced(placement, "udapl", Some("udapl")).expect_no_difference();
}

#[test]
fn the_placements_run_all_cases_together() {
    assert_eq!(PERCENTS.iter().sum::<u64>(), 100);
}

/// The test can fail, and says what matters: a mistake made on purpose is found, and nothing but
/// the steps that show it is left.
fn finds(test: &'static str, mistake: &str, steps: usize) {
    let mut placement = placed(placement(test, 1), 1, 0, "vh:4");
    placement.spec = placement.spec.env(Sabotage::VARIABLE, mistake);
    let Err(finding) = placement.judge() else {
        panic!("the mistake was not found");
    };
    let differential::judge::Finding {
        kept,
        program,
        story,
        command,
    } = *finding;
    assert_eq!(kept.len(), steps, "{program}{story}");
    assert!(
        command.contains("WLTEST_SEED=") && command.contains("WLTEST_STEPS="),
        "{command}"
    );
    assert!(story.contains("] for ["), "{story}");
}

#[test]
fn a_wrong_put_is_found() {
    finds("a_wrong_put_is_found", "put", 1);
}

#[test]
fn a_get_that_is_wrong_after_an_accumulate_is_found() {
    finds("a_get_that_is_wrong_after_an_accumulate_is_found", "get", 2);
}

/// Interface, operations, forms and whether the data are plain: every combination is drawn.
const OPERATIONS: [(&str, &str, &str, &str); 8] = [
    (
        "Raw",
        "Accumulate Get GetAccumulate Put",
        "Call Request",
        "plain layout",
    ),
    ("Raw", "CompareAndSwap FetchAndOp", "Call", "plain"),
    ("Raw", "UpdateLocked", "Call", "plain layout"),
    (
        "Typed",
        "Accumulate Get GetAccumulate Put",
        "Call",
        "plain layout",
    ),
    (
        "Typed",
        "Accumulate Get GetAccumulate Put",
        "Request",
        "plain",
    ),
    ("Typed", "Get Put", "Direct Scope", "plain"),
    ("Typed", "Put", "Notify", "plain"),
    (
        "Typed",
        "CompareAndSwap FetchAndOp UpdateLocked",
        "Call",
        "plain",
    ),
];

/// Interface, whose memory, and how epochs are opened.
const EPOCHS: [(&str, &str, &str); 2] = [
    (
        "Raw",
        "Allocated Attached Lent Shared",
        "Fence LockAll Locks Pscw",
    ),
    ("Typed", "Allocated Lent Shared", "Fence LockAll Locks Pscw"),
];

/// Few programs have everything.
#[test]
fn every_operation_is_drawn() {
    // The name of a variant.
    let name = |debug: String| {
        let end = debug.find(|c: char| !c.is_alphanumeric());
        debug[..end.unwrap_or(debug.len())].to_owned()
    };
    let (mut steps, mut epochs, mut pairs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for program in (0..400).map(|seed| program(seed, true)) {
        let api = format!("{:?}", program.api);
        for epoch in &program.epochs {
            let sync = name(format!("{:?}", epoch.sync));
            epochs.insert(format!("{api} {:?} {sync}", program.memory));
        }
        for step in program.steps() {
            let (what, form) = (format!("{:?}", step.what), format!("{:?}", step.form));
            let shape = if step.is_plain() { "plain" } else { "layout" };
            steps.insert(format!("{api} {} {} {shape}", name(what), name(form)));
            let op = match step.what {
                What::Accumulate(op) | What::GetAccumulate(op) | What::FetchAndOp(op) => op,
                _ => continue,
            };
            pairs.insert((step.elem.code(), format!("{op:?}")));
        }
    }
    for (api, all, forms, shapes) in OPERATIONS {
        for what in all.split(' ') {
            for form in forms.split(' ') {
                for shape in shapes.split(' ') {
                    let step = format!("{api} {what} {form} {shape}");
                    assert!(steps.contains(&step), "{step} is not drawn");
                }
            }
        }
    }
    for (api, memories, syncs) in EPOCHS {
        for memory in memories.split(' ') {
            for sync in syncs.split(' ') {
                let epoch = format!("{api} {memory} {sync}");
                assert!(epochs.contains(&epoch), "{epoch} is not drawn");
            }
        }
    }
    for elem in elem::ALL {
        for op in Op::ALL.into_iter().filter(|&op| elem.takes(op)) {
            let pair = (elem.code(), format!("{op:?}"));
            assert!(pairs.contains(&pair), "{op:?} of {elem:?} is not drawn");
        }
    }
}

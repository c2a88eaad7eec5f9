//! What a process's environment says of the Vector Engines of its node, where that was started with something else.
//!
//! Whoever is first on a node decides; the others are told, for errno values and limits would surprise them.

use windlass_ve::{ErrnoProfile, Profile};

use crate::name::Address;
use crate::visitor::Watcher;
use crate::wire::{NodeKind, Status};

const PROFILE: &str = "WINDLASS_VE_PROFILE";
const COUNT: &str = "WINDLASS_VES";
const COLUMN: &str = ErrnoProfile::VARIABLE;

/// Where variables are read from.
type Get<'a> = &'a dyn Fn(&str) -> Option<String>;

fn here(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What this process's environment says though the node at that address was started with something else: sentences for its
/// user. None where the node cannot be asked.
pub fn overruled(address: &Address) -> Vec<String> {
    if [PROFILE, COUNT, COLUMN]
        .iter()
        .all(|name| here(name).is_none())
    {
        return Vec::new();
    }
    let status = Watcher::look(address).and_then(|watcher| watcher.status());
    status.map_or_else(|_| Vec::new(), |status| status.overruled())
}

impl Status {
    /// As [`overruled`](crate::overruled), of a node that has been asked.
    pub fn overruled(&self) -> Vec<String> {
        self.overruled_by(&here)
    }

    fn overruled_by(&self, get: Get<'_>) -> Vec<String> {
        let which = match &self.kind {
            NodeKind::Named(name) => format!("node {name}"),
            NodeKind::Private => "the private node of this program".into(),
            NodeKind::Job(_) => "the node of this job".into(),
        };
        let differs = |name: &str, theirs: &str, same: &dyn Fn(&str) -> bool| {
            let ours = get(name).filter(|ours| !same(ours))?;
            Some(format!(
                "{which} was started with {name}={theirs}; {name} here says {ours}: the node's holds"
            ))
        };
        let profile = |ours: &str| ours.parse::<Profile>().ok() == self.profile.parse().ok();
        let count = |ours: &str| ours.parse() == Ok(self.ves.len());
        // The VEs of a job are counted by its launcher's option.
        let counted = !matches!(self.kind, NodeKind::Job(_));
        let count = counted.then(|| differs(COUNT, &self.ves.len().to_string(), &count));
        [
            differs(PROFILE, &self.profile, &profile),
            count.flatten(),
            differs(COLUMN, &self.errno, &|ours| ours == self.errno),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::VeStatus;

    #[test]
    fn what_differs_is_said_and_nothing_else() {
        let ve = VeStatus {
            running: true,
            processes: 0,
            free_bytes: 0,
            free_pciatb_slots: 0,
            free_dmaatb_directories: 0,
        };
        let mut node = Status {
            kind: NodeKind::Named("lab".into()),
            pid: 1,
            uid: 0,
            profile: "ve1:10".into(),
            errno: "implemented".into(),
            ranks: 0,
            visitors: 0,
            ves: vec![ve; 2],
        };
        let said = |node: &Status, variables: &[(&str, &str)]| {
            node.overruled_by(&|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let same = [(PROFILE, "ve1:10"), (COUNT, "2"), (COLUMN, "implemented")];
        assert_eq!(said(&node, &[]), Vec::<String>::new());
        assert_eq!(said(&node, &same), Vec::<String>::new());
        let others = [(PROFILE, "ve1"), (COUNT, "8"), (COLUMN, "documented")];
        let all = said(&node, &others);
        assert_eq!(all.len(), 3, "{all:?}");
        assert_eq!(
            all[0],
            "node lab was started with WINDLASS_VE_PROFILE=ve1:10; WINDLASS_VE_PROFILE here says ve1: the node's holds"
        );
        assert!(all[1].contains("WINDLASS_VES=2; WINDLASS_VES here says 8"));
        assert!(all[2].contains("=implemented; WINDLASS_VE_ERRNO here says documented"));
        // What is no value of a variable is no node's either.
        assert_eq!(said(&node, &[(PROFILE, "ve2"), (COUNT, "two")]).len(), 2);
        node.kind = NodeKind::Job("1".into());
        assert_eq!(
            said(&node, &others).len(),
            2,
            "--ves counts, not the variable"
        );
    }
}

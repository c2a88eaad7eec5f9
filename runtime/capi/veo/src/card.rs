//! The VE node that VE processes of a program are on, and what its cards are. Both ends include this file.
//!
//! The node's service says it once it runs. Until then it is what `WINDLASS_VE_PROFILE` says here, because whoever is first on a
//! node starts its service, with this environment.
#![allow(dead_code, reason = "each end uses its part")]

use std::ffi::OsString;

use windlass_mem::cross;
use windlass_node::{Address, NodeName, Status, Watcher};
use windlass_ve::Profile;

/// Where a job's node listens, and a private one. (It is `windlass-node` that reads these variables, in libsysve.)
const NODE: &str = "WINDLASS_NODE";
pub(crate) const PRIVATE: &str = "WINDLASS_VE_SOCKET";
/// The name of a node to share.
pub(crate) const NAME: &str = "WINDLASS_NODE_NAME";
/// What makes a process the rank that the launcher started: this program, none of its VE processes.
pub(crate) const RANK: [&str; 4] = ["WINDLASS_RANK", "WINDLASS_SIZE", NODE, "WINDLASS_LIFE_FD"];
/// What a node's cards are, read by its service.
pub(crate) const PROFILE: &str = "WINDLASS_VE_PROFILE";

/// Whose node the environment names.
pub(crate) enum Whose {
    /// A job's, by its socket.
    Job(OsString),
    /// Shared by its name.
    Named(OsString),
    /// Private to an ancestor, by its socket.
    Private(OsString),
    /// None is named.
    Nobodys,
}

impl Whose {
    pub(crate) fn read() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        match (set(RANK[0]), set(NODE)) {
            (Some(_), Some(socket)) => Self::Job(socket),
            _ => match (set(NAME), set(PRIVATE)) {
                (Some(name), _) => Self::Named(name),
                (None, Some(socket)) => Self::Private(socket),
                (None, None) => Self::Nobodys,
            },
        }
    }

    fn address(self) -> Option<Address> {
        let named = |name: &str| name.parse().ok().map(Address::Named);
        match self {
            Self::Job(socket) => Some(Address::Path(socket.into())),
            Self::Private(socket) => Some(Address::told(socket.to_str()?)),
            Self::Named(name) => named(name.to_str()?),
            Self::Nobodys => named(&own_name()),
        }
    }
}

/// The name of the node that all VE processes of this program share where the environment names none.
pub(crate) fn own_name() -> String {
    let pid = std::process::id();
    let start = cross::start_time(pid as i32).unwrap_or_default();
    format!("own-veo-{pid}-{start:x}")
}

/// How the node is; `None`: its service does not run.
pub(crate) fn node() -> Option<Status> {
    let address = Whose::read().address()?;
    Watcher::look(&address).ok()?.status().ok()
}

/// The cards of a node, as it says.
pub(crate) fn profile_of(node: &Status) -> Option<Profile> {
    node.profile.parse().ok()
}

/// The cards of a node that this program would start.
///
/// # Errors
/// The value of the variable, if it is not accepted.
pub(crate) fn profile_to_be() -> Result<Profile, String> {
    let Some(name) = std::env::var_os(PROFILE) else {
        return Ok(Profile::default());
    };
    let name = name.to_string_lossy();
    name.parse().map_err(|_| name.into_owned())
}

/// The name of a node to share, where it is none.
pub(crate) fn misnamed() -> Option<String> {
    let Whose::Named(name) = Whose::read() else {
        return None;
    };
    let name = name.to_string_lossy().into_owned();
    name.parse::<NodeName>().is_err().then_some(name)
}

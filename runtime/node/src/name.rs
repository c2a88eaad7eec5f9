//! Names of nodes, and where the services of nodes listen.
//!
//! A named node listens at an abstract address (unix(7)): binding is atomic, so of two first users one binds and the other
//! connects; the kernel drops the address with the last descriptor of the socket, so nothing is left behind by a kill, and there
//! is no file of one user in the way of another (reliability sections 1 and 4). Anybody can connect, and anybody can take the
//! name first; the credentials say who did.

use std::fmt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use windlass_mem::peer::Credentials;

use crate::error::Error;
use crate::home::{base_dir, is_ours, own_uid, socket_in};
use crate::service::BACKLOG;

/// Bytes of a name at most.
const MAX_NAME: usize = 32;
/// Before the name, in the abstract address.
const PREFIX: &str = "windlass-node-";
/// Begins the names of nodes that are one user's alone; after the prefix stand that user and a point.
const OWN: &str = "own-";
/// Nodes that one look finds at most.
const MAX_FOUND: usize = 4096;

/// The name of a node: 1 to 32 of `a-z`, `0-9` and `-`. The node admits every user, unless its name begins with `own-`: then
/// each user has one of that name and admits nobody else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeName(String);

impl FromStr for NodeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(legal) && text != OWN {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::Config(format!(
            "{text:?} is no name of a node: give {}",
            Self::ACCEPTED
        )))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl NodeName {
    /// What [`NodeName::from_str`] accepts, in words.
    pub const ACCEPTED: &'static str = "1 to 32 of a-z, 0-9 and -, not own- alone";

    /// Whether other users are turned away.
    pub fn is_own(&self) -> bool {
        self.0.starts_with(OWN)
    }

    fn address(&self) -> rustix::io::Result<SocketAddrUnix> {
        let user = if self.is_own() {
            format!("{}.", own_uid())
        } else {
            String::new()
        };
        SocketAddrUnix::new_abstract_name(format!("{PREFIX}{user}{}", self.0).as_bytes())
    }

    /// The name of an address as the kernel lists it; none of another user's own nodes.
    fn listed(text: &str) -> Option<Self> {
        let text = text.strip_prefix(PREFIX)?;
        let (user, name) = match text.split_once('.') {
            Some((user, name)) => (Some(user), name),
            None => (None, text),
        };
        let name: Self = name.parse().ok()?;
        let ours = user.is_none_or(|user| user == own_uid().to_string());
        (ours && name.is_own() == user.is_some()).then_some(name)
    }

    /// Takes the name and listens. `None`: somebody has it.
    pub fn bind(&self) -> Result<Option<UnixListener>, Error> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)
            .map_err(|errno| Error::system("socket", errno))?;
        match self.address().and_then(|at| bind(&socket, &at)) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => return Ok(None),
            Err(errno) => return Err(Error::system("bind", errno)),
        }
        listen(&socket, BACKLOG).map_err(|errno| Error::system("listen", errno))?;
        Ok(Some(UnixListener::from(socket)))
    }
}

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket in a private directory.
    Path(PathBuf),
    /// The abstract address of a named node.
    Named(NodeName),
}

impl Address {
    pub(crate) fn socket(&self) -> rustix::io::Result<SocketAddrUnix> {
        match self {
            Address::Path(path) => SocketAddrUnix::new(path),
            Address::Named(name) => name.address(),
        }
    }

    /// Whether every user may be there.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Address::Named(name) if !name.is_own())
    }

    /// Process and user of whoever listens there.
    pub fn holder(&self) -> Option<Credentials> {
        let socket = crate::line::connect(self).ok()?;
        windlass_mem::peer::credentials(&socket).ok()
    }

    /// Every service that this user may see: all named nodes of this network namespace, and this user's private and job nodes.
    pub fn all() -> Vec<Address> {
        let mut found = named();
        found.extend(Self::all_below(&base_dir()));
        found.truncate(MAX_FOUND);
        found
    }

    /// This user's private and job nodes whose services have their directories here.
    pub fn all_below(base: &Path) -> Vec<Address> {
        let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_ours));
        let mut paths: Vec<PathBuf> = ours.map(|entry| socket_in(&entry.path())).collect();
        paths.sort();
        paths.into_iter().map(Address::Path).collect()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Path(path) => write!(f, "{}", path.display()),
            Address::Named(name) => write!(f, "the node named {name}"),
        }
    }
}

/// Named nodes by the kernel's list of sockets (proc_net(5)): the path is the last word, `@` stands for the leading zero byte.
fn named() -> Vec<Address> {
    let list = std::fs::read("/proc/net/unix").unwrap_or_default();
    let list = String::from_utf8_lossy(&list);
    let names = list
        .lines()
        .filter_map(|line| NodeName::listed(line.rsplit(' ').next()?.strip_prefix('@')?));
    let names: std::collections::BTreeSet<NodeName> = names.collect();
    names.into_iter().map(Address::Named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "lab-2", &"x".repeat(32)] {
            assert_eq!(good.parse::<NodeName>().unwrap().to_string(), good);
        }
        for bad in ["", "A", "a/b", "a b", "\u{e4}", "a\0", &"x".repeat(33)] {
            let text = bad.parse::<NodeName>().unwrap_err().to_string();
            assert!(text.contains("1 to 32"), "{text}");
        }
    }

    #[test]
    fn a_users_own_names_are_apart() {
        let listed = |text: &str| NodeName::listed(text).map(|name| name.to_string());
        let own = own_uid();
        assert_eq!(listed("windlass-node-lab").as_deref(), Some("lab"));
        let mine = format!("windlass-node-{own}.own-lab");
        assert_eq!(listed(&mine).as_deref(), Some("own-lab"));
        let others = format!("windlass-node-{}.own-lab", own + 1);
        for strange in [
            &others,
            "windlass-node-own-lab",
            &format!("windlass-node-{own}.lab"),
        ] {
            assert_eq!(listed(strange), None, "{strange}");
        }
        let name: NodeName = format!("own-{}", std::process::id()).parse().unwrap();
        let _held = name.bind().unwrap().unwrap();
        assert!(named().contains(&Address::Named(name)));
    }

    #[test]
    fn a_name_is_taken_once_and_free_again() {
        let name: NodeName = format!("test-{}", std::process::id()).parse().unwrap();
        let held = name.bind().unwrap().unwrap();
        assert!(name.bind().unwrap().is_none());
        assert!(named().contains(&Address::Named(name.clone())));
        drop(held);
        assert!(!named().contains(&Address::Named(name.clone())));
        assert!(name.bind().unwrap().is_some());
    }
}

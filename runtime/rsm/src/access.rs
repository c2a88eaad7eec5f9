//! Who may have a segment (rsm 2.2, 5.5, 5.7): ids, access lists, and the three digits of a permission.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::code::Code;

/// Right to read, in a permission that a connection asks for or has.
pub const PERM_READ: u32 = 0o400;
/// Right to write.
pub const PERM_WRITE: u32 = 0o200;
/// Both.
pub const PERM_RDWR: u32 = 0o600;
/// The highest permission of an access list.
pub const PERM_HIGHEST: u32 = 0o666;

/// The first id that is given out for id 0; all from here on are.
pub const FIRST_GIVEN: u32 = 0x8000_0000;
/// The first id that a user may choose; those below belong to drivers, transports and libraries.
pub const FIRST_CHOSEN: u32 = 0x40_0000;

/// An id that a user publishes under: 0, or of the ranges that are for users.
///
/// # Errors
/// [`Code::ReservedSegid`].
pub fn check_id(id: u32) -> Result<(), Code> {
    match id {
        0 | FIRST_CHOSEN..FIRST_GIVEN => Ok(()),
        _ => Err(Code::ReservedSegid),
    }
}

/// A line of an access list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessEntry {
    /// The node it is about.
    pub node: u32,
    /// Owner, group and others: an octal digit each, 4 to read and 2 to write.
    pub permission: u32,
}

/// Whom a segment is published to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Access {
    /// Every node, with this permission.
    Every(u32),
    /// These nodes and no other.
    Listed(Vec<AccessEntry>),
}

/// A process, as access lists judge it.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its further groups, if they are needed.
    pub groups: &'a dyn Fn() -> Vec<u32>,
}

/// The nodes that a controller leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// This one.
    One(u32),
    /// So many, from 0 on.
    All(u32),
}

impl Reach {
    /// Whether it leads there.
    pub fn has(self, node: u32) -> bool {
        match self {
            Self::One(own) => node == own,
            Self::All(count) => node < count,
        }
    }

    /// Whether an access list may have so many lines: one for each node.
    ///
    /// # Errors
    /// [`Code::BadAcl`].
    pub fn check_count(self, entries: usize) -> Result<(), Code> {
        let most = match self {
            Self::One(_) => 1,
            Self::All(count) => count as usize,
        };
        match entries <= most {
            true => Ok(()),
            false => Err(Code::BadAcl),
        }
    }
}

impl Access {
    /// The list of a caller, with a controller that leads to these nodes.
    ///
    /// # Errors
    /// [`Code::BadAcl`]: more lines than nodes, a node that there is not or that is named twice, or a permission above the highest.
    pub fn listed(reach: Reach, entries: &[AccessEntry]) -> Result<Self, Code> {
        reach.check_count(entries.len())?;
        let mut named = BTreeSet::new();
        let known = |entry: &AccessEntry| {
            reach.has(entry.node) && entry.permission <= PERM_HIGHEST && named.insert(entry.node)
        };
        match entries.iter().all(known) {
            true => Ok(Self::Listed(entries.to_vec())),
            false => Err(Code::BadAcl),
        }
    }

    /// Whether anybody at all may write.
    pub fn is_writable(&self) -> bool {
        let writes = |permission: u32| permission & 0o222 != 0;
        match self {
            Self::Every(permission) => writes(*permission),
            Self::Listed(entries) => entries.iter().any(|entry| writes(entry.permission)),
        }
    }

    /// The rights that a caller on `node` has to a segment of this user and group.
    ///
    /// # Errors
    /// [`Code::SegNotPublishedToNode`].
    pub fn rights(&self, node: u32, caller: Caller<'_>, uid: u32, gid: u32) -> Result<u32, Code> {
        let permission = match self {
            Self::Every(permission) => *permission,
            Self::Listed(entries) => {
                let own = entries.iter().find(|entry| entry.node == node);
                own.ok_or(Code::SegNotPublishedToNode)?.permission
            }
        };
        if caller.uid == 0 {
            return Ok(PERM_RDWR);
        }
        let digit = if caller.uid == uid {
            0
        } else if caller.gid == gid || (caller.groups)().contains(&gid) {
            1
        } else {
            2
        };
        Ok(permission << (3 * digit) & PERM_RDWR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, gid: u32) -> Caller<'static> {
        let groups: &dyn Fn() -> Vec<u32> = &|| vec![77];
        Caller { uid, gid, groups }
    }

    #[test]
    fn ids_of_others_are_refused() {
        for (id, free) in [
            (0, true),
            (1, false),
            (0x3F_FFFF, false),
            (0x40_0000, true),
            (0x60_0000, true),
            (0x7FFF_FFFF, true),
            (0x8000_0000, false),
            (u32::MAX, false),
        ] {
            assert_eq!(check_id(id).is_ok(), free, "{id:#x}");
        }
    }

    /// Check 6 of section 9.
    #[test]
    fn the_digit_is_that_of_owner_group_or_others() {
        let access = Access::listed(Reach::One(3), &[entry(3, 0o624)]).unwrap();
        let rights = |who| access.rights(3, who, 10, 20).unwrap();
        assert_eq!(rights(caller(10, 99)), PERM_RDWR);
        assert_eq!(rights(caller(11, 20)), PERM_WRITE);
        assert_eq!(rights(caller(11, 99)), PERM_READ);
        assert_eq!(rights(caller(0, 99)), PERM_RDWR);
        assert_eq!(access.rights(3, caller(11, 99), 10, 77), Ok(PERM_WRITE));
        let elsewhere = access.rights(4, caller(10, 20), 10, 20);
        assert_eq!(elsewhere, Err(Code::SegNotPublishedToNode));
        assert_eq!(
            Access::Every(0o644).rights(4, caller(9, 9), 1, 2),
            Ok(0o400)
        );
    }

    fn entry(node: u32, permission: u32) -> AccessEntry {
        AccessEntry { node, permission }
    }

    #[test]
    fn malformed_lists_are_refused() {
        for list in [
            &[entry(4, 0o600)][..],
            &[entry(3, 0o700)],
            &[entry(3, 0o667)],
            &[entry(3, 0o1666)],
            &[entry(3, 0o600), entry(3, 0o600)],
        ] {
            let refused = Access::listed(Reach::One(3), list);
            assert_eq!(refused, Err(Code::BadAcl), "{list:?}");
        }
        let listed = |list: &[AccessEntry]| Access::listed(Reach::One(3), list);
        assert!(!listed(&[entry(3, 0o444)]).unwrap().is_writable());
        assert!(listed(&[entry(3, 0o002)]).unwrap().is_writable());
        // Of several nodes each may be named, once.
        let all = |list: &[AccessEntry]| Access::listed(Reach::All(2), list);
        assert!(all(&[entry(1, 0o600), entry(0, 0)]).is_ok());
        for list in [
            &[entry(2, 0o600)][..],
            &[entry(1, 0o600), entry(1, 0o400)],
            &[entry(0, 0), entry(1, 0), entry(1, 0)],
        ] {
            assert_eq!(all(list), Err(Code::BadAcl), "{list:?}");
        }
    }
}

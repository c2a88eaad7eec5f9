//! On which VE a process is to run (ve-memory 12).

use std::env::VarError;
use std::ffi::c_int;

use crate::edge::{EINVAL, Errno, Result};

/// VEs of a host at most (ve-memory 1).
const VES: c_int = 8;

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// `VE_NODE_NUMBER`: the node when the caller names none.
    pub(crate) number: Option<String>,
    /// `_VENODELIST`: set by a scheduler; the nodes of the job.
    pub(crate) list: Option<String>,
    /// `WINDLASS_VES`: how many the host has.
    pub(crate) ves: Option<String>,
}

impl Environment {
    pub(crate) fn read() -> Result<Self> {
        let text = |name| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(EINVAL),
        };
        Ok(Self {
            number: text("VE_NODE_NUMBER")?,
            list: text("_VENODELIST")?,
            ves: text("WINDLASS_VES")?,
        })
    }

    /// The physical number of the node that `veo_proc_create(wanted)` means.
    ///
    /// # Errors
    /// EINVAL for a number that is none, or not the job's; ENODEV for a node that the host does not have.
    pub(crate) fn node(&self, wanted: c_int) -> Result<c_int> {
        if wanted < -1 {
            return Err(EINVAL);
        }
        let named = self.number.as_deref().map(number).transpose()?;
        let node = match &self.list {
            None => match wanted {
                -1 => named.unwrap_or(0),
                _ => wanted,
            },
            Some(list) => {
                let nodes: Vec<c_int> =
                    list.split_whitespace().map(number).collect::<Result<_>>()?;
                match (wanted, named) {
                    // Physical, and one of the job's.
                    (-1, Some(named)) => nodes.contains(&named).then_some(named),
                    (-1, None) => nodes.first().copied(),
                    // Logical.
                    _ => nodes.get(wanted as usize).copied(),
                }
                .ok_or(EINVAL)?
            }
        };
        let ves = self.ves.as_deref().map(number).transpose()?;
        let ves = ves.unwrap_or(VES).min(VES);
        if (0..ves).contains(&node) {
            Ok(node)
        } else {
            Err(Errno(libc::ENODEV))
        }
    }
}

fn number(text: &str) -> Result<c_int> {
    text.trim().parse().map_err(|_| EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(number: Option<&str>, list: Option<&str>, ves: Option<&str>) -> Environment {
        Environment {
            number: number.map(str::to_owned),
            list: list.map(str::to_owned),
            ves: ves.map(str::to_owned),
        }
    }

    #[test]
    fn without_a_scheduler_the_number_is_physical() {
        let plain = environment(None, None, None);
        assert_eq!(plain.node(-1), Ok(0));
        assert_eq!(plain.node(7), Ok(7));
        assert_eq!(plain.node(8), Err(Errno(libc::ENODEV)));
        assert_eq!(plain.node(-2), Err(EINVAL));
        let named = environment(Some("3"), None, None);
        assert_eq!((named.node(-1), named.node(1)), (Ok(3), Ok(1)));
        assert_eq!(environment(Some("x"), None, None).node(-1), Err(EINVAL));
        let two = environment(None, None, Some("2"));
        assert_eq!(
            (two.node(1), two.node(2)),
            (Ok(1), Err(Errno(libc::ENODEV)))
        );
    }

    #[test]
    fn under_a_scheduler_it_is_logical() {
        let job = environment(None, Some("4 6"), None);
        assert_eq!(
            (job.node(-1), job.node(0), job.node(1)),
            (Ok(4), Ok(4), Ok(6))
        );
        assert_eq!(job.node(2), Err(EINVAL));
        let named = environment(Some("6"), Some("4 6"), None);
        assert_eq!((named.node(-1), named.node(0)), (Ok(6), Ok(4)));
        assert_eq!(
            environment(Some("5"), Some("4 6"), None).node(-1),
            Err(EINVAL)
        );
        assert_eq!(environment(None, Some(""), None).node(-1), Err(EINVAL));
        assert_eq!(environment(None, Some("4 x"), None).node(0), Err(EINVAL));
    }
}

//! On which VE a process is to run (ve-memory 12).

use std::env::VarError;
use std::ffi::c_int;
use std::sync::Once;

use windlass_node::NodeName;
use windlass_ve::{ErrnoProfile, Modes, Profile, UnknownMode};

use crate::card::{self, Whose};
use crate::edge::{EINVAL, Errno, say};
use crate::process;

/// VEs of a host at most (ve-memory 1).
const VES: c_int = 8;

const NUMBER: &str = "VE_NODE_NUMBER";
const LIST: &str = "_VENODELIST";
const COUNT: &str = "WINDLASS_VES";
/// Whose Vector Engines, and the library of a card: `windlass-native` reads both.
const KIND: &str = "WINDLASS_VE";
const LIBRARY: &str = "WINDLASS_LIBVEO";

/// Why there is no such VE: the errno, and what is put on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoVe {
    pub(crate) errno: Errno,
    why: String,
}

impl NoVe {
    /// Says why `call` fails; the errno it fails with.
    pub(crate) fn told(self, call: &str) -> Errno {
        say(&format!("{call}: {}", self.why));
        self.errno
    }
}

type Result<T> = std::result::Result<T, NoVe>;

/// EINVAL for what is not accepted.
fn wrong<T>(why: String) -> Result<T> {
    let errno = EINVAL;
    Err(NoVe { errno, why })
}

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

fn text(name: &str) -> Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(value)) => {
            wrong(format!("{name}={} is not text", value.to_string_lossy()))
        }
    }
}

impl Environment {
    pub(crate) fn read() -> Result<Self> {
        Ok(Self {
            number: text(NUMBER)?,
            list: text(LIST)?,
            ves: text(COUNT)?,
        })
    }

    /// The physical number of the node that `veo_proc_create(wanted)` means.
    ///
    /// # Errors
    /// EINVAL for a number that is none, or not the job's; ENODEV for a node that the host does not have.
    pub(crate) fn node(&self, wanted: c_int) -> Result<c_int> {
        if wanted < -1 {
            return wrong(format!(
                "{wanted} is no Vector Engine; give a number from 0 on, or -1 for that of {NUMBER}"
            ));
        }
        let named = self.number.as_deref().map(|text| number(NUMBER, text));
        let named = named.transpose()?;
        let (node, whose) = match &self.list {
            None => match (wanted, named) {
                (-1, Some(named)) => (named, format!("{NUMBER}={named}: ")),
                (-1, None) => (0, String::new()),
                _ => (wanted, String::new()),
            },
            Some(list) => (listed(list, wanted, named)?, format!("{LIST}={list}: ")),
        };
        let ves = self.ves()?;
        if (0..ves).contains(&node) {
            return Ok(node);
        }
        let said = self.ves.as_ref().map(|_| format!(" ({COUNT}={ves})"));
        let said = said.unwrap_or_default();
        let there = there(ves);
        Err(NoVe {
            errno: Errno(libc::ENODEV),
            why: format!("{whose}there is no VE {node}: {there}{said}"),
        })
    }

    fn ves(&self) -> Result<c_int> {
        let Some(text) = &self.ves else {
            return Ok(VES);
        };
        match text.parse() {
            Ok(ves @ 0..=VES) => Ok(ves),
            _ => wrong(format!("{COUNT}={text} is not accepted; give 0 to {VES}")),
        }
    }
}

/// Of the nodes of a job.
fn listed(list: &str, wanted: c_int, named: Option<c_int>) -> Result<c_int> {
    let nodes = list.split_whitespace().map(|text| number(LIST, text));
    let nodes: Vec<c_int> = nodes.collect::<Result<_>>()?;
    let (node, asked) = match (wanted, named) {
        // Physical, and one of the job's.
        (-1, Some(named)) => (
            nodes.contains(&named).then_some(named),
            format!("{NUMBER}={named}"),
        ),
        (-1, None) => (nodes.first().copied(), "the first".to_owned()),
        // Logical.
        _ => (
            nodes.get(wanted as usize).copied(),
            format!("number {wanted}, counted from 0,"),
        ),
    };
    match node {
        Some(node) => Ok(node),
        None => wrong(format!("{asked} is not in {LIST}={list:?}")),
    }
}

fn number(name: &str, text: &str) -> Result<c_int> {
    match text.trim().parse() {
        Ok(number) => Ok(number),
        Err(_) => wrong(format!(
            "{name}={text} is not the number of a Vector Engine; give 0 to {}",
            VES - 1
        )),
    }
}

/// Of a rank the launcher has done so.
pub(crate) fn name_unknown_variables() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os(card::RANK[0]).is_none() {
            for unknown in windlass_node::unknown_here() {
                say(&format!("warning: {unknown}"));
            }
        }
    });
}

/// Refuses what no VE process could run with, before one is started: it would hear of it late, or never.
///
/// # Errors
/// EINVAL.
pub(crate) fn check_variables() -> Result<()> {
    let named = std::env::var_os(LIBRARY).is_some_and(|library| process::is_this(&library));
    emulated(text(KIND)?.as_deref(), named)?;
    if let Some(name) = card::misnamed() {
        let (variable, names) = (card::NAME, NodeName::ACCEPTED);
        return wrong(format!("{variable}={name} is not accepted; give {names}"));
    }
    Modes::from_env().or_else(|unknown| {
        let UnknownMode {
            variable,
            value,
            accepted,
        } = unknown;
        unaccepted(variable, &value, accepted)
    })?;
    // A node that runs has its cards and its column already.
    if card::node().is_some() {
        return Ok(());
    }
    if let Err(value) = card::profile_to_be() {
        return unaccepted(card::PROFILE, &value, Profile::NAMES);
    }
    let column = ErrnoProfile::VARIABLE;
    match text(column)? {
        Some(value) if value.parse::<ErrnoProfile>().is_err() => {
            unaccepted(column, &value, ErrnoProfile::NAMES)
        }
        _ => Ok(()),
    }
}

fn unaccepted<T>(name: &str, value: &str, accepted: &str) -> Result<T> {
    wrong(format!("{name}={value} is not accepted; give {accepted}"))
}

/// A node that runs says which VEs are. (That of a job does so to a VE process, which enters it at once.)
///
/// # Errors
/// ENODEV.
pub(crate) fn check_node(node: c_int) -> Result<()> {
    if matches!(Whose::read(), Whose::Job(_)) {
        return Ok(());
    }
    match card::node() {
        Some(running) if node as usize >= running.ves.len() => {
            let there = there(running.ves.len() as c_int);
            let errno = Errno(libc::ENODEV);
            let why = format!("there is no VE {node}: {there} on the node that runs");
            Err(NoVe { errno, why })
        }
        _ => Ok(()),
    }
}

/// What a node that runs makes of the variables that it was not started with.
pub(crate) fn name_overruled_variables() {
    static ONCE: Once = Once::new();
    if let Some(running) = card::node() {
        ONCE.call_once(|| {
            for said in running.overruled() {
                say(&format!("warning: {said}"));
            }
        });
    }
}

fn there(ves: c_int) -> String {
    match ves {
        0 => "there are none".to_owned(),
        1 => "there is VE 0".to_owned(),
        _ => format!("there are VEs 0 to {}", ves - 1),
    }
}

/// Whoever asks for a card does not get its emulation in silence, unless this very library is the one that was named.
fn emulated(kind: Option<&str>, named: bool) -> Result<()> {
    match (kind, named) {
        (None | Some("" | "emulated"), _) | (Some("native"), true) => Ok(()),
        (Some("native"), false) => wrong(format!(
            "{KIND}=native asks for a card, and this libveo.so.1 is the emulation; unset it, or link NEC's library (or name this \
             one by {LIBRARY})"
        )),
        (Some(other), _) => wrong(format!(
            "{KIND}={other} is not accepted; give emulated, or native for the library of a card"
        )),
    }
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

    /// The node, or the errno; every refusal says what it is about.
    fn found(environment: &Environment, wanted: c_int) -> std::result::Result<c_int, Errno> {
        environment.node(wanted).map_err(|no| {
            assert!(no.why.len() > 20, "{no:?}");
            no.errno
        })
    }

    #[test]
    fn without_a_scheduler_the_number_is_physical() {
        let plain = environment(None, None, None);
        assert_eq!(found(&plain, -1), Ok(0));
        assert_eq!(found(&plain, 7), Ok(7));
        assert_eq!(found(&plain, 8), Err(Errno(libc::ENODEV)));
        assert_eq!(found(&plain, -2), Err(EINVAL));
        let named = environment(Some("3"), None, None);
        assert_eq!((found(&named, -1), found(&named, 1)), (Ok(3), Ok(1)));
        assert_eq!(found(&environment(Some("x"), None, None), -1), Err(EINVAL));
        let two = environment(None, None, Some("2"));
        assert_eq!(
            (found(&two, 1), found(&two, 2)),
            (Ok(1), Err(Errno(libc::ENODEV)))
        );
    }

    #[test]
    fn under_a_scheduler_it_is_logical() {
        let job = environment(None, Some("4 6"), None);
        assert_eq!(
            (found(&job, -1), found(&job, 0), found(&job, 1)),
            (Ok(4), Ok(4), Ok(6))
        );
        assert_eq!(found(&job, 2), Err(EINVAL));
        let named = environment(Some("6"), Some("4 6"), None);
        assert_eq!((found(&named, -1), found(&named, 0)), (Ok(6), Ok(4)));
        assert_eq!(
            found(&environment(Some("5"), Some("4 6"), None), -1),
            Err(EINVAL)
        );
        assert_eq!(found(&environment(None, Some(""), None), -1), Err(EINVAL));
        assert_eq!(found(&environment(None, Some("4 x"), None), 0), Err(EINVAL));
    }

    #[test]
    fn a_refusal_names_variable_value_and_remedy() {
        let why = |environment: Environment, wanted| environment.node(wanted).unwrap_err().why;
        for (environment, wanted, parts) in [
            (
                environment(Some("x"), None, None),
                -1,
                ["VE_NODE_NUMBER=x ", "0 to 7"],
            ),
            (
                environment(Some("9"), None, None),
                -1,
                ["VE_NODE_NUMBER=9: ", "VEs 0 to 7"],
            ),
            (
                environment(None, None, Some("0")),
                0,
                ["there are none", "(WINDLASS_VES=0)"],
            ),
            (
                environment(None, None, Some("9")),
                0,
                ["WINDLASS_VES=9 ", "give 0 to 8"],
            ),
            (
                environment(None, Some("4 x"), None),
                0,
                ["_VENODELIST=x ", "0 to 7"],
            ),
            (
                environment(None, Some("4 6"), None),
                2,
                ["number 2", "_VENODELIST=\"4 6\""],
            ),
            (
                environment(None, Some("4 9"), None),
                1,
                ["_VENODELIST=4 9: ", "no VE 9"],
            ),
        ] {
            let why = why(environment, wanted);
            for part in parts {
                assert!(why.contains(part), "{why:?} lacks {part:?}");
            }
        }
        assert_eq!(emulated(None, false), Ok(()));
        assert_eq!(emulated(Some("native"), true), Ok(()));
        assert!(emulated(Some("native"), false).is_err());
        assert!(emulated(Some("card"), true).is_err());
    }
}

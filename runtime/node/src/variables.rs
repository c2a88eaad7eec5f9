//! The names of all variables of Windlass, so that one that is misspelt is not passed over in silence. What each means is said
//! where it is read.

use std::fmt;

/// What all of them begin with.
const PREFIX: &str = "WINDLASS_";

/// The rest of their names.
const KNOWN: &[&str] = &[
    "DAT",
    "FAIL",
    "LAUNCHER",
    "LIBSYSVE",
    "LIBVEO",
    "LIFE_FD",
    "LOG",
    "NETWORK",
    "NODE",
    "NODE_NAME",
    "OFI_PROVIDER",
    "RANK",
    "REBACK",
    "ROUTE",
    "RSM_SEGMENTID",
    "SIZE",
    "VE",
    "VEORUN",
    "VES",
    "VE_CHECK",
    "VE_ERRNO",
    "VE_PAGE",
    "VE_PROFILE",
    "VE_REORDER",
    "VE_SOCKET",
];

/// How many there are.
pub const VARIABLE_COUNT: usize = KNOWN.len();

/// A variable that nobody reads, though its name says that somebody should.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown {
    /// Its name.
    pub name: String,
    near: Option<&'static str>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a variable of Windlass; ", self.name)?;
        match self.near {
            Some(near) => write!(f, "is {PREFIX}{near} meant?"),
            None => f.write_str("`windlass info` lists those that are"),
        }
    }
}

/// Those of `names` that begin as ours do and mean nothing, in alphabetical order.
pub fn unknown(names: impl IntoIterator<Item = String>) -> Vec<Unknown> {
    let strange = |name: String| {
        let rest = name.strip_prefix(PREFIX)?;
        let near = nearest(rest);
        (!KNOWN.contains(&rest)).then_some(Unknown { name, near })
    };
    let mut found: Vec<Unknown> = names.into_iter().filter_map(strange).collect();
    found.sort();
    found.dedup();
    found
}

/// [`unknown`] of the variables that this process has.
pub fn unknown_here() -> Vec<Unknown> {
    unknown(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

/// The name that is likely to be meant.
fn nearest(text: &str) -> Option<&'static str> {
    let far = 1 + text.len() / 4;
    let known = KNOWN.iter().copied();
    let near = known.map(|known| (strsim::damerau_levenshtein(known, text), known));
    near.filter(|(steps, _)| *steps <= far)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_found_and_the_right_one_named() {
        let said = |name: &str| {
            let found = unknown([name.to_owned(), "PATH".into(), "WINDLASS_VES".into()]);
            found.into_iter().next().map(|unknown| unknown.to_string())
        };
        for (wrong, right) in [
            ("WINDLASS_VE_CHEK", "WINDLASS_VE_CHECK"),
            ("WINDLASS_VE_REODRER", "WINDLASS_VE_REORDER"),
            ("WINDLASS_NODENAME", "WINDLASS_NODE_NAME"),
            ("WINDLASS_VE_RECORDER", "WINDLASS_VE_REORDER"),
        ] {
            let said = said(wrong).expect("it is not known");
            let ending = format!("{wrong} is not a variable of Windlass; is {right} meant?");
            assert_eq!(said, ending);
        }
        let nothing_near = said("WINDLASS_SOMETHING_ELSE").expect("it is not known");
        assert!(nothing_near.contains("windlass info"), "{nothing_near}");
        for known in KNOWN {
            assert_eq!(said(&format!("{PREFIX}{known}")), None);
        }
        assert_eq!(said("WINDLAS_VES"), None, "not ours to judge");
    }
}

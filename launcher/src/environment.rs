//! The environment variables of Windlass: which exist, what they accept, what they say now.
//!
//! Relies on: nothing but the environment. Promises: a value that is not accepted is an error that
//! names the accepted ones (reliability S11); a rank gets the four variables of [`GIVEN`] from its
//! launcher and never from a launcher further out.

use std::ffi::{OsStr, OsString};
use std::str::FromStr;

use windlass_ve::{ErrnoProfile, MAX_VES, Profile};

use crate::error::{Error, Result};

/// What the launcher tells each rank; not for users to set.
pub const GIVEN: [&str; 4] = [
    "WINDLASS_RANK",
    "WINDLASS_SIZE",
    "WINDLASS_NODE",
    "WINDLASS_LIFE_FD",
];

/// What the C libraries read beside what the node reads, and what loads them.
const OF_LIBRARIES: &[(&str, &str)] = &[
    (
        windlass_native::veo::LIBRARY,
        "the libveo.so of a card that windlass-native loads, and that `windlass info` asks for its version; default: libveo.so.1 as the linker finds it",
    ),
    (
        "WINDLASS_VE_PAGE",
        "the page size that C programs for the VE were linked with, 2M or 64M; default: 64M",
    ),
    (
        "WINDLASS_VEORUN",
        "the program that is a VE process of libveo.so; default: aveorun beside the library, or in PATH",
    ),
    (
        "WINDLASS_LIBSYSVE",
        "the library that VE processes of libveo.so use for shared memory and DMA; default: libsysve.so.1 beside aveorun, or as the linker finds it",
    ),
];

/// A variable users may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Name.
    pub name: &'static str,
    /// Value when it is not set, in words.
    pub default: &'static str,
    /// What it does and which values it accepts.
    pub meaning: &'static str,
}

/// Every variable users may set, as the runtime knows them.
pub fn variables() -> impl Iterator<Item = Variable> {
    let runtime = windlass_runtime::environment::VARIABLES;
    let all = runtime
        .iter()
        .chain(windlass_node::VARIABLES)
        .chain(OF_LIBRARIES);
    all.map(|&(name, text)| {
        let (meaning, default) = text.rsplit_once("; default: ").unwrap_or((text, "none"));
        Variable {
            name,
            default,
            meaning,
        }
    })
}

/// The VE to emulate: from the variables of the job, else from our own environment.
pub(crate) fn profile(of_job: &[(OsString, OsString)]) -> Result<Profile> {
    let profile: Profile =
        given(of_job, "WINDLASS_VE_PROFILE", Profile::NAMES)?.unwrap_or_default();
    let errno = given(of_job, ErrnoProfile::VARIABLE, ErrnoProfile::NAMES)?;
    Ok(Profile {
        errno: errno.unwrap_or_default(),
        ..profile
    })
}

/// How many VEs a node without a launcher has, if that is said.
pub(crate) fn ves() -> Result<Option<u32>> {
    const NAME: &str = "WINDLASS_VES";
    const ACCEPTED: &str = "0 to 8";
    match given::<u32>(&[], NAME, ACCEPTED)? {
        Some(ves) if ves > MAX_VES => Err(Error::Value {
            name: NAME.into(),
            value: ves.to_string(),
            remedy: format!("give {ACCEPTED}"),
        }),
        other => Ok(other),
    }
}

/// What a variable says, in the job or else here.
fn given<T: FromStr>(
    of_job: &[(OsString, OsString)],
    name: &str,
    accepted: &str,
) -> Result<Option<T>> {
    let of_job = of_job.iter().rev().find(|(known, _)| known == name);
    let value = of_job.map(|(_, value)| value.clone());
    let Some(value) = value.or_else(|| std::env::var_os(name)) else {
        return Ok(None);
    };
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    let empty = if value.is_empty() { "= (empty)" } else { "" };
    parsed.map(Some).ok_or_else(|| Error::Value {
        name: format!("{name}{empty}"),
        value: value.to_string_lossy().into_owned(),
        remedy: format!("give {accepted}"),
    })
}

/// A variable of `-x`: `NAME=VALUE`, or `NAME` for the value it has here.
pub fn export(text: &OsStr) -> Result<(OsString, OsString)> {
    let refuse = |remedy: &str| Error::Value {
        name: "-x ".to_string() + &text.to_string_lossy(),
        value: String::new(),
        remedy: remedy.into(),
    };
    let Some(plain) = text.to_str() else {
        return Err(refuse("the name and value must be UTF-8"));
    };
    let (name, value) = match plain.split_once('=') {
        Some((name, value)) => (name, Some(OsString::from(value))),
        None => (plain, None),
    };
    if name.is_empty() || name.contains('\0') {
        return Err(refuse(
            "write -x NAME=VALUE, or -x NAME to pass on what is set here",
        ));
    }
    if GIVEN.contains(&name) {
        return Err(refuse("the launcher sets it for each rank; leave it out"));
    }
    match value.or_else(|| std::env::var_os(name)) {
        Some(value) => Ok((name.into(), value)),
        None => Err(refuse("it is not set here; write -x NAME=VALUE")),
    }
}

/// Checks the values of all variables that are set here or for the job, once, before every rank
/// says the same.
///
/// Errors: the first that is not accepted.
pub(crate) fn check(of_job: &[(OsString, OsString)]) -> Result<()> {
    let get = |name: &str| {
        // Inside a rank the seat belongs to that rank.
        let mine = !GIVEN.contains(&name);
        let of_job = of_job.iter().rev().find(|(known, _)| known == name);
        let value = of_job.map(|(_, value)| value.clone());
        value.or_else(|| std::env::var_os(name)).filter(|_| mine)
    };
    let checked = windlass_runtime::environment::check(&get);
    checked.map_err(|error| Error::Report(crate::command::with_sources(&error)))
}

/// Names here or of the job that look like ours and mean nothing: mistakes in spelling.
pub fn unknown(of_job: &[(OsString, OsString)]) -> Vec<windlass_node::Unknown> {
    let here = std::env::vars_os().map(|(name, _)| name);
    let names = of_job.iter().map(|(name, _)| name.clone()).chain(here);
    windlass_node::unknown(names.filter_map(|name| name.into_string().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exported_variables() {
        let export =
            |text: &str| super::export(OsStr::new(text)).map_err(|error| error.to_string());
        assert_eq!(export("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(export("A="), Ok(("A".into(), "".into())));
        assert_eq!(export("PATH").unwrap().1, std::env::var_os("PATH").unwrap());
        assert!(
            export("WINDLASS_RANK=1")
                .unwrap_err()
                .contains("leave it out")
        );
        assert!(
            export("NOT_SET_ANYWHERE")
                .unwrap_err()
                .contains("not set here")
        );
        assert!(export("=x").is_err());
    }

    #[test]
    fn every_variable_says_its_default() {
        for variable in variables() {
            assert!(variable.name.starts_with("WINDLASS_"), "{variable:?}");
            assert!(!variable.meaning.contains("default"), "{variable:?}");
        }
    }

    #[test]
    fn the_readme_has_every_variable() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(readme).expect("the README can be read");
        for variable in variables() {
            let row = format!("| `{}=", variable.name);
            assert!(readme.contains(&row), "no row for {}", variable.name);
        }
    }

    /// Those that users may set, those of the launcher, and that of the C libraries.
    #[test]
    fn the_names_are_those_that_the_node_knows() {
        let mut names: Vec<&str> = variables().map(|variable| variable.name).collect();
        names.extend(GIVEN);
        names.push("WINDLASS_VE_SOCKET");
        assert_eq!(names.len(), windlass_node::VARIABLE_COUNT);
        let unknown = windlass_node::unknown(names.into_iter().map(str::to_owned));
        assert_eq!(unknown, []);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC*", bytes: Vec<u8>) {
            use std::os::unix::ffi::OsStrExt;
            let _ = super::export(OsStr::new(&text));
            let _ = super::export(OsStr::from_bytes(&bytes));
            let _ = profile(&[("WINDLASS_VE_PROFILE".into(), text.into())]);
        }
    }

    #[test]
    fn profiles() {
        let profile = |value: &str| profile(&[("WINDLASS_VE_PROFILE".into(), value.into())]);
        assert_eq!(profile("ve3").unwrap(), Profile::VE3);
        assert!(
            profile("ve2")
                .unwrap_err()
                .to_string()
                .contains("ve1:10 (with 10 cores) or ve3")
        );
        assert_eq!(profile("ve1:10").unwrap().cores, 10);
        let errno = |value: &str| super::profile(&[("WINDLASS_VE_ERRNO".into(), value.into())]);
        assert_eq!(errno("documented").unwrap().errno, ErrnoProfile::Documented);
        assert!(
            errno("both")
                .unwrap_err()
                .to_string()
                .contains("implemented")
        );
    }
}

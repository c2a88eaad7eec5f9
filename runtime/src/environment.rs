//! What the launcher and the user say by environment variables, read strictly: an unknown value
//! is an error that names the variable and what it accepts (reliability S11).

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tracing_subscriber::filter::Targets;
use windlass_mem::reback::How;
use windlass_ve::{ErrnoProfile, Modes, Profile};
use windlass_wire::Secret;

use crate::error::{Error, Result};
use crate::faults::Injected;
use crate::log;
use crate::mechanism::MechanismId;
use crate::network::Network;
use crate::transport::{ofi, udapl};

/// The variables that users set, with what they mean.
pub const VARIABLES: &[(&str, &str)] = &[
    (
        "WINDLASS_ROUTE",
        "mechanisms that windows may use, comma-separated; default: all",
    ),
    (
        udapl::DAT,
        "the uDAPL adapter that carries data between nodes, by its name in dat.conf: libdat2.so.2 is loaded; default: none, a provider in software over TCP",
    ),
    (
        ofi::PROVIDER,
        "the libfabric provider that carries data between nodes: tcp, verbs, ...; default: none, and where WINDLASS_ROUTE names ofi, the first that serves",
    ),
    (
        "WINDLASS_FAIL",
        "make one fail, for tests: MECHANISM:PHASE[:RANK]; default: none",
    ),
    (
        "WINDLASS_VE",
        "which Vector Engines ranks are on: emulated, or native: those of this machine, by libveo.so; default: emulated",
    ),
    (
        "WINDLASS_VE_PROFILE",
        "the emulated cards: ve1, ve1:10 (with 10 cores), ve1/128M (with a small window for other cards) or ve3; default: ve1",
    ),
    (
        windlass_ve::ErrnoProfile::VARIABLE,
        "whose errno values the emulated cards answer where these disagree: implemented or documented; default: implemented",
    ),
    (
        windlass_ve::CHECK_VARIABLE,
        "1: end a program that breaks a rule of the emulated DMA, and say which, and by which rule a call of a C program was refused; 0: do as the library does; default: 0",
    ),
    (
        windlass_ve::REORDER_VARIABLE,
        "a seed: delay and reorder emulated DMA and stores as far as the rules permit; default: nothing is reordered",
    ),
    (
        "WINDLASS_VES",
        "VEs of a program started without the launcher, 0 to 8; default: 0",
    ),
    (
        "WINDLASS_NETWORK",
        "the network that ranks of other nodes come by: an address of this host, or ADDRESS/BITS that it lies in; default: 127.0.0.1, the host itself",
    ),
    (
        "WINDLASS_REBACK",
        "what of lent memory may be moved so that peers can map it: auto, whole-pages, never; default: auto",
    ),
    (
        "WINDLASS_LOG",
        "what to log to standard error: off, error, warn, info, debug, trace, or TARGET=LEVEL,...; default: warn, in the launcher alone",
    ),
];

/// A rank's seat as the launcher gives it.
pub struct Seat {
    pub(crate) rank: u32,
    pub(crate) socket: PathBuf,
    pub(crate) secret: Secret,
    pub(crate) life: Option<OwnedFd>,
}

/// Everything read.
pub struct Settings {
    pub(crate) seat: Option<Seat>,
    pub(crate) forced: Option<Vec<MechanismId>>,
    pub(crate) injected: Option<Injected>,
    pub(crate) profile: Profile,
    pub(crate) ves: u32,
    /// Real VEs.
    pub(crate) native: bool,
    pub(crate) reback: How,
    pub(crate) network: Network,
    pub(crate) log: Option<Targets>,
    /// `WINDLASS_DAT`.
    pub(crate) dat: Option<String>,
    pub(crate) ofi: ofi::Choice,
}

/// Where variables are read from.
type Get<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn text(get: Get<'_>, variable: &'static str) -> Result<Option<String>> {
    let Some(value) = get(variable) else {
        return Ok(None);
    };
    value
        .into_string()
        .map(Some)
        .map_err(|value| Error::Environment {
            variable,
            value: value.to_string_lossy().into_owned(),
            accepted: "text".into(),
        })
}

fn parsed<T: std::str::FromStr>(
    get: Get<'_>,
    variable: &'static str,
    accepted: &str,
) -> Result<Option<T>> {
    let Some(value) = text(get, variable)? else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|_| Error::Environment {
        variable,
        value,
        accepted: accepted.into(),
    })
}

/// Reads all variables.
///
/// # Errors
/// [`Error::Environment`] for the first that is not understood.
pub fn read() -> Result<Settings> {
    let get: Get<'_> = &|name| std::env::var_os(name);
    Ok(Settings {
        seat: seat(get)?,
        ..settings(get)?
    })
}

/// Judges all variables of users, as `get` gives them.
///
/// # Errors
/// As [`read`].
pub fn check(get: &dyn Fn(&str) -> Option<OsString>) -> Result<()> {
    settings(get).map(drop)
}

fn settings(get: Get<'_>) -> Result<Settings> {
    // A VE process reads its modes itself; here they are only judged.
    let modes = [windlass_ve::CHECK_VARIABLE, windlass_ve::REORDER_VARIABLE];
    let [check, reorder] = modes.map(|name| text(get, name));
    Modes::parse(check?, reorder?).map_err(|unknown| Error::Environment {
        variable: unknown.variable,
        value: unknown.value,
        accepted: unknown.accepted.into(),
    })?;
    let log = text(get, "WINDLASS_LOG")?;
    let forced = forced(get)?;
    Ok(Settings {
        seat: None,
        dat: text(get, udapl::DAT)?.filter(|name| !name.is_empty()),
        ofi: ofi::Choice {
            named: (forced.as_ref()).is_some_and(|forced| forced.contains(&MechanismId::Ofi)),
            provider: text(get, ofi::PROVIDER)?.filter(|name| !name.is_empty()),
        },
        forced,
        injected: text(get, "WINDLASS_FAIL")?
            .map(|value| Injected::parse(&value))
            .transpose()?,
        profile: profile(get)?,
        ves: match parsed::<u32>(get, "WINDLASS_VES", "0 to 8")? {
            Some(ves) if ves > 8 => {
                return Err(Error::Environment {
                    variable: "WINDLASS_VES",
                    value: ves.to_string(),
                    accepted: "0 to 8".into(),
                });
            }
            other => other.unwrap_or(0),
        },
        native: native(get)?,
        reback: reback(get)?,
        network: parsed(
            get,
            "WINDLASS_NETWORK",
            "an address of this host, or a network as 10.0.0.0/8",
        )?
        .unwrap_or_default(),
        log: log.map(|filter| log::filter(&filter)).transpose()?,
    })
}

fn reback(get: Get<'_>) -> Result<How> {
    match text(get, "WINDLASS_REBACK")?.as_deref() {
        None | Some("auto") => Ok(How::Pages),
        Some("whole-pages") => Ok(How::WholePages),
        Some("never") => Ok(How::Never("WINDLASS_REBACK forbids it")),
        Some(other) => Err(Error::Environment {
            variable: "WINDLASS_REBACK",
            value: other.to_owned(),
            accepted: "auto, whole-pages, never".into(),
        }),
    }
}

/// Are the VEs real ones?
fn native(get: Get<'_>) -> Result<bool> {
    match text(get, "WINDLASS_VE")?.as_deref() {
        None | Some("" | "emulated") => Ok(false),
        Some("native") => Ok(true),
        Some(other) => Err(Error::Environment {
            variable: "WINDLASS_VE",
            value: other.to_owned(),
            accepted: "emulated, native".into(),
        }),
    }
}

/// The cards' profile, VE1 by default.
fn profile(get: Get<'_>) -> Result<Profile> {
    let profile: Profile = parsed(get, "WINDLASS_VE_PROFILE", Profile::NAMES)?.unwrap_or_default();
    let errno = parsed(get, ErrnoProfile::VARIABLE, ErrnoProfile::NAMES)?;
    Ok(Profile {
        errno: errno.unwrap_or_default(),
        ..profile
    })
}

fn forced(get: Get<'_>) -> Result<Option<Vec<MechanismId>>> {
    let Some(value) = text(get, "WINDLASS_ROUTE")? else {
        return Ok(None);
    };
    let names: Option<Vec<MechanismId>> = value.split(',').map(MechanismId::from_name).collect();
    match names {
        Some(list) => Ok(Some(list)),
        None => Err(Error::Environment {
            variable: "WINDLASS_ROUTE",
            value,
            accepted: format!(
                "a comma-separated list of {}",
                MechanismId::ALL.map(MechanismId::name).join(", ")
            ),
        }),
    }
}

fn seat(get: Get<'_>) -> Result<Option<Seat>> {
    let Some(rank) = parsed(get, "WINDLASS_RANK", "a rank, set by the launcher")? else {
        return Ok(None);
    };
    let missing = |variable: &'static str| Error::Environment {
        variable,
        value: String::new(),
        accepted: "what the launcher sets; start the program with `windlass run`".into(),
    };
    let socket = text(get, "WINDLASS_NODE")?.ok_or_else(|| missing("WINDLASS_NODE"))?;
    let life: Option<u32> = parsed(get, "WINDLASS_LIFE_FD", "a file descriptor's number")?;
    let life = life.ok_or_else(|| missing("WINDLASS_LIFE_FD"))?;
    // Opened anew by its name: the inherited number stays what it is, and this one is ours alone.
    let path = format!("/proc/self/fd/{life}");
    let unreadable = |e: std::io::Error| Error::Environment {
        variable: "WINDLASS_LIFE_FD",
        value: life.to_string(),
        accepted: format!("an inherited pipe that holds the job's secret ({e})"),
    };
    let mut pipe = File::open(path).map_err(unreadable)?;
    let secret = Secret::from_reader(&mut pipe).map_err(unreadable)?;
    Ok(Some(Seat {
        rank,
        socket: PathBuf::from(socket),
        secret,
        life: Some(OwnedFd::from(pipe)),
    }))
}

/// What names this host: ranks of one host share its cpus.
pub(crate) fn host() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The cpus this process may run on.
pub(crate) fn cpus() -> Vec<u16> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else {
        return vec![0];
    };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .filter_map(|cpu| u16::try_from(cpu).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_engines_are_emulated_or_real() {
        let with = |value: Option<&'static str>| {
            let get = move |name: &str| (name == "WINDLASS_VE").then_some(value?.into());
            settings(&get).map(|settings| settings.native)
        };
        for value in [None, Some(""), Some("emulated")] {
            assert!(!with(value).expect("accepted"), "{value:?}");
        }
        assert!(with(Some("native")).expect("accepted"));
        let refused = with(Some("card")).map(drop).expect_err("it is not known");
        let refused = refused.to_string();
        assert!(refused.contains("accepted: emulated, native"), "{refused}");
    }
}

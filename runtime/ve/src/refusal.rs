//! Why VEOS or IVED refused: the errno, which the caller gets, and the rule, which it may ask for (the checking mode does).

use crate::errno::Errno;
use crate::error::Error;
use crate::process::Process;
use crate::request::{Area, Body, Mode, Reply, Request};
use crate::service::{ProcessId, Service};

/// An errno with the rule that it follows from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    /// With document, section and row; empty where the errno says all there is.
    pub(crate) rule: &'static str,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        errno.by("")
    }
}

impl From<Refusal> for Errno {
    fn from(refusal: Refusal) -> Self {
        refusal.errno
    }
}

impl Errno {
    /// By this rule.
    pub(crate) const fn by(self, rule: &'static str) -> Refusal {
        Refusal { errno: self, rule }
    }
}

/// EINVAL by the first rule that is broken.
pub(crate) fn check<const N: usize>(broken: [(bool, &'static str); N]) -> Result<(), Refusal> {
    match broken.into_iter().find(|(is, _)| *is) {
        Some((_, rule)) => Err(Errno::Einval.by(rule)),
        None => Ok(()),
    }
}

/// Section 5.2 row 21.
pub(crate) const FULL: Refusal = Errno::Enomem
    .by("no VEHVA, no directory of the DMAATB or no record is left (ve-memory 5.2 row 21)");

/// The same, of what enters a run into a DMAATB.
pub(crate) fn full(errno: Errno) -> Refusal {
    match errno {
        Errno::Enomem => FULL,
        other => other.into(),
    }
}

impl Service {
    /// By which rule the last refused request of a process was refused.
    pub(crate) fn why(&self, id: ProcessId) -> Result<Reply, Refusal> {
        let process = self.processes.get(&id).ok_or(Errno::Ecanceled)?;
        Ok(Body::Why(process.rule.to_owned()).into())
    }
}

impl Process {
    /// In the checking mode: the rule by which what was just asked for was refused, and what that was.
    pub(crate) fn why(&self, asked: Option<String>) -> Option<String> {
        let asked = asked?;
        let (reply, _) = self.control.call(Request::Why).ok()?;
        match reply.body {
            Body::Why(rule) if !rule.is_empty() => Some(format!("{rule}: {asked}")),
            _ => Some(asked),
        }
    }
}

impl Process {
    /// What this side of a call refuses, with its rule in the checking mode.
    pub(crate) fn refuse(&self, call: &'static str, errno: Errno, rule: &str) -> Error {
        let rule = self.dma().trap().map(|_| rule.to_owned());
        Error::Refused { call, errno, rule }
    }
}

impl Request {
    /// The arguments of a VESHM call, as a program that looks for its mistake knows them.
    pub(crate) fn arguments(&self) -> Option<String> {
        let named = |area: &Area| {
            let Area { size, syncnum, .. } = area;
            let (vemva, mode) = (area.vemva.raw(), area.mode.raw());
            format!("vemva {vemva:#x}, size {size:#x}, syncnum {syncnum}, mode {mode:#x}")
        };
        let at =
            |address: &u64, mode: &Mode| format!("address {address:#x}, mode {:#x}", mode.raw());
        match self {
            Self::Open(area) | Self::Close(area) => Some(named(area)),
            Self::Attach { pid, area } => Some(format!("pid {pid}, {}", named(area))),
            Self::Detach { address, mode } => Some(at(address, mode)),
            Self::PageMode { mode, pid, address } => Some(format!(
                "mode {:#x}, pid {pid}, address {address:#x}",
                mode.0
            )),
            Self::SegmentAttach { shmid, .. } => Some(format!("shmid {shmid}")),
            _ => None,
        }
    }
}

//! Faults on request: `WINDLASS_FAIL=mechanism:phase[:rank]`, for tests of fallback and agreement.

use crate::error::{Error, Phase, Result};
use crate::mechanism::{MechanismId, Reason};

/// One mechanism fails in one phase, on one rank or on all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injected {
    mechanism: MechanismId,
    phase: Phase,
    rank: Option<u32>,
}

impl Injected {
    /// Reads the variable's value.
    ///
    /// # Errors
    /// [`Error::Environment`].
    pub fn parse(value: &str) -> Result<Injected> {
        let wrong = || Error::Environment {
            variable: "WINDLASS_FAIL",
            value: value.to_owned(),
            accepted: format!(
                "MECHANISM:PHASE[:RANK] with a mechanism of {} and a phase of probe, export, attach",
                MechanismId::ALL.map(MechanismId::name).join(", ")
            ),
        };
        let mut fields = value.split(':');
        let mechanism = fields.next().and_then(MechanismId::from_name);
        let phase = match fields.next() {
            Some("probe") => Phase::Probe,
            Some("export") => Phase::Export,
            Some("attach") => Phase::Attach,
            _ => return Err(wrong()),
        };
        let rank = fields.next().map(|rank| rank.parse().map_err(|_| wrong()));
        if fields.next().is_some() {
            return Err(wrong());
        }
        Ok(Injected {
            mechanism: mechanism.ok_or_else(wrong)?,
            phase,
            rank: rank.transpose()?,
        })
    }

    pub(crate) fn check(
        &self,
        mechanism: MechanismId,
        phase: Phase,
        rank: u32,
    ) -> std::result::Result<(), Reason> {
        let here = self.rank.is_none_or(|only| only == rank);
        if here && self.mechanism == mechanism && self.phase == phase {
            return Err(Reason::new(format!(
                "WINDLASS_FAIL asks its {phase} to fail"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_strictly() {
        let read = Injected::parse("vhshm:export:1").unwrap();
        let want = Injected {
            mechanism: MechanismId::Vhshm,
            phase: Phase::Export,
            rank: Some(1),
        };
        assert_eq!(read, want);
        assert_eq!(Injected::parse("cma:attach").unwrap().rank, None);
        for bad in [
            "",
            "cma",
            "cma:post",
            "shm:export",
            "cma:export:x",
            "cma:export:1:2",
        ] {
            let text = Injected::parse(bad).unwrap_err().to_string();
            assert!(text.contains("MECHANISM:PHASE"), "{text}");
        }
    }
}

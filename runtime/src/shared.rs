//! Exposures that every rank loads from and stores to: all parts lie in one segment of the first
//! rank, and every rank maps it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windlass_mem::SharedBytes;

use crate::arena::PAGE_BYTES;
use crate::call::Call;
use crate::error::{Error, Result, cause};
use crate::exchange::{Taken, Topic};
use crate::exposure::{Exposure, Target};
use crate::gathers::Gathers;
use crate::mechanism::Reason;
use crate::negotiate::{NOTE_MAX_BYTES, Offers, Reached};
use crate::route::Route;
use crate::team::Team;

/// How the parts of a shared exposure lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placement {
    /// Each begins at the byte after the one before.
    Contiguous,
    /// Each begins on a page.
    Apart,
}

/// What a rank asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ask {
    len: u64,
    align: u64,
    placement: Placement,
    note: Vec<u8>,
}

/// What a rank tells then; the segment is the first's.
#[derive(Serialize, Deserialize)]
struct Grant {
    segment: u32,
    offset: u64,
    /// How to reach the segment, if somebody does not know it.
    offers: Option<Offers>,
    context: u32,
}

impl Ask {
    /// On a multiple of how many bytes the whole begins, and each part.
    fn aligns(&self) -> (u64, u64) {
        match self.placement {
            Placement::Contiguous => (self.align, 1),
            Placement::Apart => {
                let page = self.align.max(PAGE_BYTES as u64);
                (page, page)
            }
        }
    }
}

/// Where each part begins, and the length of all.
fn places(asks: &[Ask]) -> Option<(Vec<u64>, u64)> {
    let (_, step) = asks.first()?.aligns();
    let mut end = 0u64;
    let mut starts = Vec::with_capacity(asks.len());
    for ask in asks {
        let start = end.checked_next_multiple_of(step)?;
        starts.push(start);
        end = start.checked_add(ask.len)?;
    }
    Some((starts, end))
}

impl Team {
    /// Memory of `len_bytes` zeroed bytes for each rank, in one piece of the first rank that every
    /// rank maps. Collective; lengths may differ. Of `align` (of the beginning of the whole, or of
    /// each part where they lie apart) and `placement`, the first rank's count. `note` as in
    /// [`expose`](Self::expose).
    ///
    /// # Errors
    /// [`Error::NotShared`] on all ranks where one cannot map it; otherwise as
    /// [`expose`](Self::expose).
    pub fn expose_shared(
        self: &Arc<Self>,
        len_bytes: usize,
        align: usize,
        placement: Placement,
        note: &[u8],
    ) -> Result<Exposure> {
        let _one = self.members().creating.lock();
        let ask = Ask {
            len: len_bytes as u64,
            align: align as u64,
            placement,
            note: note[..note.len().min(NOTE_MAX_BYTES)].to_vec(),
        };
        self.during(Call::Create, || self.share(&ask))
    }

    fn share(self: &Arc<Self>, ask: &Ask) -> Result<Exposure> {
        let (job, call) = (self.job(), self.call());
        let group = &self.members().group;
        let asks: Vec<Ask> = call.trade(Topic::Asks, ask)?;
        // All ranks see the same and add it up alike.
        let (starts, len) = places(&asks).ok_or_else(|| Error::NoMemory {
            len: u64::MAX,
            source: cause(std::io::Error::from(std::io::ErrorKind::OutOfMemory)),
        })?;
        let (align, _) = asks[0].aligns();
        let (len, align) = (usize::try_from(len), usize::try_from(align));
        let (len, align) = (len.unwrap_or(usize::MAX), align.unwrap_or(usize::MAX));
        let region = match self.rank() {
            0 => job.allocate(len, align).map(Some),
            _ => Ok(None),
        };
        let taken = job.exchange.take(group, group.here);
        let grant = match (&region, &taken) {
            (Ok(region), Ok(taken)) => Ok(Grant {
                segment: region.as_ref().map_or(0, |region| region.segment().id),
                offset: region.as_ref().map_or(0, |region| region.offset() as u64),
                offers: region
                    .as_ref()
                    .and_then(|region| job.negotiator.offers(region.segment(), &group.ranks)),
                context: Taken::id(taken),
            }),
            (Err(error), _) | (_, Err(error)) => Err(error.clone()),
        };
        let grants = call.all_well(Topic::Grants, grant)?;
        let (region, taken) = (region?, taken?);
        let mapped = self.map(&grants[0], asks, &starts);
        let told = mapped.as_ref().map(|_| ());
        let verdicts: Vec<Result<(), Reason>> = call.trade(Topic::Mapped, &told)?;
        for (verdict, &rank) in verdicts.into_iter().zip(&group.ranks) {
            verdict.map_err(|Reason(why)| Error::NotShared {
                rank,
                why: why.into_owned(),
            })?;
        }
        if let Some(region) = &region {
            region.segment().set_known_to(&group.ranks);
        }
        let context = job
            .exchange
            .open(group, taken, |rank| grants[rank as usize].context)?;
        let Ok((bytes, mut targets)) = mapped else {
            unreachable!("a rank that has not mapped it has told so, and all have failed")
        };
        let mut exposure = Exposure::new(self, context, bytes, region);
        for target in &mut targets {
            target.route = exposure.own(target.route.clone());
            target.updates = exposure.own(target.updates.clone());
        }
        exposure.targets = targets;
        Ok(exposure)
    }

    /// The first rank's segment, reached and mapped: its bytes and parts, or why that fails.
    fn map(
        &self,
        grant: &Grant,
        asks: Vec<Ask>,
        starts: &[u64],
    ) -> Result<(SharedBytes, Box<[Target]>), Reason> {
        let (negotiator, call) = (&self.job().negotiator, self.call());
        let reached = grant.offers.as_ref().map_or(Ok(()), |offers| {
            let reached = negotiator.reach(call.peer(0), grant.segment, offers);
            reached.map(drop)
        });
        let mapped = reached.and_then(|()| {
            let parts = |reached: &Reached| self.parts(reached, grant, asks, starts);
            negotiator.with_known(self.members().group.ranks[0], grant.segment, parts)
        });
        match mapped {
            Ok((Some(bytes), targets)) => Ok((bytes, targets)),
            Ok((None, targets)) => Err(Reason::new(format!("only by {}", targets[0].why.chosen))),
            Err(error) => Err(Reason::new(error.to_string())),
        }
    }

    /// The parts of the first rank's segment; this rank's own, if it can load and store there.
    fn parts(
        &self,
        reached: &Reached,
        grant: &Grant,
        asks: Vec<Ask>,
        starts: &[u64],
    ) -> Result<(Option<SharedBytes>, Box<[Target]>)> {
        let target = |(ask, &start): (Ask, &u64)| {
            let from = grant.offset.saturating_add(start);
            Ok(Target {
                extent_bytes: ask.len,
                note: ask.note.into_boxed_slice(),
                route: reached.route.part(from, ask.len)?,
                updates: reached.updates.part(from, ask.len)?,
                why: Arc::clone(&reached.why),
                segment: grant.segment,
                lent: false,
            })
        };
        let targets = asks.into_iter().zip(starts).map(target);
        let targets = targets.collect::<Result<Box<[Target]>>>()?;
        let own = &targets[self.rank() as usize];
        let bytes = match (&own.route, &own.updates) {
            (Route::Mapped(bytes), Route::Mapped(_)) => Some(bytes.clone()),
            _ => None,
        };
        Ok((bytes, targets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(lens: &[u64], align: u64, placement: Placement) -> Vec<Ask> {
        let ask = |&len| Ask {
            len,
            align,
            placement,
            note: Vec::new(),
        };
        lens.iter().map(ask).collect()
    }

    #[test]
    fn parts_follow_each_other_or_lie_apart() {
        let lens = [3, 0, 5000, 1];
        let close = places(&asks(&lens, 512, Placement::Contiguous));
        assert_eq!(close, Some((vec![0, 3, 3, 5003], 5004)));
        let apart = places(&asks(&lens, 512, Placement::Apart));
        assert_eq!(apart, Some((vec![0, 4096, 4096, 12288], 12289)));
        let wide = places(&asks(&lens, 8192, Placement::Apart));
        assert_eq!(wide, Some((vec![0, 8192, 8192, 16384], 16385)));
    }

    #[test]
    fn sums_beyond_the_address_space_are_refused() {
        for placement in [Placement::Contiguous, Placement::Apart] {
            assert_eq!(places(&asks(&[u64::MAX, 1], 1, placement)), None);
            assert!(places(&asks(&[u64::MAX], 1, placement)).is_some());
        }
        assert_eq!(places(&asks(&[1, 1], u64::MAX, Placement::Apart)), None);
        assert_eq!(places(&[]), None);
    }
}

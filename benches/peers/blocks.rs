//! Measured blocks, and what they say: which were taken at the same distance of the two cpus, and how one library's compare
//! with the best of the others'.

use std::fmt;

/// Two groups of hops are two distances if their means differ by at least this factor.
const APART: f64 = 2.0;
/// A group of so small a part of all hops is made of disturbed ones.
const STRAY: f64 = 0.04;

/// How far the two cpus are from each other: hosts of virtual machines move them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Distance {
    Near,
    Far,
    /// Of what no hop takes part in.
    Any,
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Distance::Near => "near",
            Distance::Far => "far",
            Distance::Any => "-",
        })
    }
}

/// One block of iterations.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) line: usize,
    /// 0 is Windlass, then the peers.
    pub(crate) library: usize,
    pub(crate) round: usize,
    /// Of one iteration.
    pub(crate) seconds: f64,
    pub(crate) iterations: u64,
    /// The hop before and after it; none for a start.
    pub(crate) hops: Option<[f64; 2]>,
}

impl Block {
    /// Reads `block NUMBER SECONDS ITERATIONS HOP HOP`.
    pub(crate) fn parse(text: &str, library: usize, round: usize) -> Option<Self> {
        let mut words = text.strip_prefix("block ")?.split(' ');
        let mut number = || words.next()?.parse::<f64>().ok();
        let (line, seconds) = (number()? as usize, number()?);
        let (iterations, before, after) = (number()? as u64, number()?, number()?);
        let hops = Some([before, after]);
        Some(Self {
            line,
            library,
            round,
            seconds,
            iterations,
            hops,
        })
    }
}

/// The hops of a run, in one or two groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Distances {
    /// Middle of the nearer group, and of the farther one if there are two.
    pub(crate) near: f64,
    pub(crate) far: Option<f64>,
}

impl Distances {
    /// The two groups that the logarithms fall into best.
    pub(crate) fn of(hops: impl IntoIterator<Item = f64>) -> Self {
        let mut logs: Vec<f64> = hops
            .into_iter()
            .filter(|hop| *hop > 0.0)
            .map(f64::ln)
            .collect();
        logs.sort_by(f64::total_cmp);
        loop {
            let Some(at) = best_split(&logs) else {
                let near = if logs.is_empty() { 0.0 } else { middle(&logs) };
                return Self { near, far: None };
            };
            let (low, high) = logs.split_at(at);
            let few = |part: &[f64]| (part.len() as f64) < STRAY * logs.len() as f64;
            if few(high) {
                logs.truncate(at);
            } else if few(low) {
                logs.drain(..at);
            } else {
                return Self {
                    near: middle(low),
                    far: Some(middle(high)),
                };
            }
        }
    }

    /// Of one hop; none if it is neither.
    fn one(&self, hop: f64) -> Option<Distance> {
        let close = |mean: f64| (hop / mean).ln().abs() < APART.ln();
        match self.far {
            Some(far) if (hop / far).ln().abs() < (hop / self.near).ln().abs() => {
                close(far).then_some(Distance::Far)
            }
            _ => close(self.near).then_some(Distance::Near),
        }
    }

    /// Of a block: that of both hops. None if they differ, or something disturbed one of them.
    pub(crate) fn block(&self, block: &Block) -> Option<Distance> {
        let Some([before, after]) = block.hops else {
            return Some(Distance::Any);
        };
        let before = self.one(before)?;
        (self.one(after)? == before).then_some(before)
    }
}

/// Where to cut a sorted list so that the squares of the differences from the two means are least; none if those are close.
fn best_split(sorted: &[f64]) -> Option<usize> {
    let squares = |part: &[f64]| {
        let middle = mean(part);
        part.iter().map(|x| (x - middle).powi(2)).sum::<f64>()
    };
    let costs = (1..sorted.len()).map(|at| {
        let (low, high) = sorted.split_at(at);
        (at, squares(low) + squares(high))
    });
    let (at, _) = costs.min_by(|a, b| a.1.total_cmp(&b.1))?;
    let (low, high) = sorted.split_at(at);
    (mean(high) - mean(low) >= APART.ln()).then_some(at)
}

/// Of logarithms; few stray ones do not matter.
fn middle(logs: &[f64]) -> f64 {
    median(logs.iter().copied()).map_or(0.0, f64::exp)
}

fn mean(part: &[f64]) -> f64 {
    part.iter().sum::<f64>() / part.len() as f64
}

/// The middle one; of two the mean. `None` of nothing.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[half]),
        _ => Some((values[half - 1] + values[half]) / 2.0),
    }
}

/// What the blocks of one line say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) distance: Distance,
    /// Median of each library's blocks at this distance, seconds of an iteration.
    pub(crate) medians: Vec<Option<f64>>,
    /// Of Windlass's time over the best peer's; none without a peer.
    pub(crate) against: Option<Against>,
}

impl Finding {
    /// No block of Windlass was taken at one distance.
    pub(crate) fn none(libraries: usize) -> Self {
        Self {
            distance: Distance::Any,
            medians: vec![None; libraries],
            against: None,
        }
    }
}

/// Time over the best peer's time, by rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Against {
    pub(crate) best: usize,
    pub(crate) ratio: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) rounds: usize,
}

/// The finding at the distance where most libraries, and then most rounds, can be compared. None without a block of Windlass.
pub(crate) fn find(
    blocks: &[Block],
    line: usize,
    libraries: usize,
    distances: &Distances,
) -> Option<Finding> {
    let of_line = blocks.iter().filter(|block| block.line == line);
    let placed: Vec<(Distance, &Block)> = of_line
        .filter_map(|block| Some((distances.block(block)?, block)))
        .collect();
    let found = [Distance::Near, Distance::Far, Distance::Any].map(|distance| {
        let there: Vec<&Block> = placed
            .iter()
            .filter(|(at, _)| *at == distance)
            .map(|(_, block)| *block)
            .collect();
        at_distance(&there, distance, libraries)
    });
    let weight = |finding: &Finding| {
        let measured = finding.medians.iter().flatten().count();
        (
            measured,
            finding.against.map_or(0, |against| against.rounds),
        )
    };
    // Of equals the first, so the nearer.
    found.into_iter().flatten().rev().max_by_key(weight)
}

fn at_distance(blocks: &[&Block], distance: Distance, libraries: usize) -> Option<Finding> {
    let times = |library: usize, round: Option<usize>| {
        let wanted = move |block: &&&Block| {
            block.library == library && round.is_none_or(|round| block.round == round)
        };
        blocks.iter().filter(wanted).map(|block| block.seconds)
    };
    let medians: Vec<Option<f64>> = (0..libraries)
        .map(|library| median(times(library, None)))
        .collect();
    let ours = medians[0]?;
    let peers = medians.iter().enumerate().skip(1);
    let best = peers
        .filter_map(|(library, median)| Some((library, (*median)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let against = best.map(|(best, theirs)| {
        let rounds = blocks.iter().map(|block| block.round).max().unwrap_or(0);
        let mut ratios: Vec<f64> = (0..=rounds)
            .filter_map(|round| {
                Some(median(times(0, Some(round)))? / median(times(best, Some(round)))?)
            })
            .collect();
        let in_rounds = ratios.len();
        if ratios.is_empty() {
            // In no round was the distance the same for both: the medians of different rounds are all there is.
            ratios.push(ours / theirs);
        }
        Against {
            best,
            ratio: median(ratios.iter().copied()).unwrap_or(ours / theirs),
            lowest: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            highest: ratios.iter().copied().fold(0.0, f64::max),
            rounds: in_rounds,
        }
    });
    Some(Finding {
        distance,
        medians,
        against,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: f64 = 1e-9;

    fn block(library: usize, round: usize, seconds: f64, hops: [f64; 2]) -> Block {
        Block {
            line: 3,
            library,
            round,
            seconds,
            iterations: 10,
            hops: Some(hops.map(|hop| hop * NS)),
        }
    }

    #[test]
    fn hops_fall_into_near_and_far() {
        let near = (0..40).map(|at| (52.0 + f64::from(at % 7)) * NS);
        let far = (0..25).map(|at| (240.0 + f64::from(at)) * NS);
        // Two that something else disturbed are no distance of their own.
        let found = Distances::of(near.clone().chain(far).chain([9_000.0 * NS, 20_000.0 * NS]));
        assert!((50.0..60.0).contains(&(found.near / NS)), "{found:?}");
        assert!(
            (240.0..265.0).contains(&(found.far.unwrap() / NS)),
            "{found:?}"
        );
        assert_eq!(found.one(57.0 * NS), Some(Distance::Near));
        assert_eq!(found.one(230.0 * NS), Some(Distance::Far));
        assert_eq!(found.one(9_000.0 * NS), None);
        let only_near = Distances::of(near);
        assert_eq!(only_near.far, None);
        assert_eq!(only_near.one(60.0 * NS), Some(Distance::Near));
        assert_eq!(only_near.one(250.0 * NS), None);
        assert_eq!(Distances::of([]).far, None);
    }

    #[test]
    fn a_block_counts_if_the_distance_stayed() {
        let distances = Distances {
            near: 55.0 * NS,
            far: Some(260.0 * NS),
        };
        let of = |hops| distances.block(&block(0, 0, 1.0, hops));
        assert_eq!(of([50.0, 60.0]), Some(Distance::Near));
        assert_eq!(of([250.0, 270.0]), Some(Distance::Far));
        assert_eq!(of([55.0, 260.0]), None);
        assert_eq!(of([55.0, 5_000.0]), None);
        let mut start = block(0, 0, 1.0, [0.0, 0.0]);
        start.hops = None;
        assert_eq!(distances.block(&start), Some(Distance::Any));
    }

    #[test]
    fn only_the_same_distance_is_compared_and_the_best_peer_counts() {
        let distances = Distances {
            near: 55.0 * NS,
            far: Some(260.0 * NS),
        };
        let (near, far) = ([55.0, 56.0], [250.0, 260.0]);
        let blocks = [
            block(0, 0, 1.0, near),
            block(1, 0, 4.0, near),
            block(2, 0, 3.0, near),
            block(0, 1, 1.2, near),
            block(1, 1, 4.0, near),
            block(2, 1, 3.0, near),
            // The cpus were moved: these are not to be mixed with the others.
            block(0, 2, 9.0, far),
            block(1, 2, 0.5, far),
            block(0, 3, 9.0, [55.0, 250.0]),
        ];
        let found = find(&blocks, 3, 3, &distances).unwrap();
        assert_eq!(found.distance, Distance::Near);
        assert_eq!(found.medians, [Some(1.1), Some(4.0), Some(3.0)]);
        let against = found.against.unwrap();
        assert_eq!((against.best, against.rounds), (2, 2));
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(against.lowest, 1.0 / 3.0) && close(against.highest, 0.4));
        assert!(close(against.ratio, (1.0 / 3.0 + 0.4) / 2.0));
        assert_eq!(find(&blocks, 4, 3, &distances), None);
    }

    #[test]
    fn without_peers_there_is_a_median_and_no_ratio() {
        let distances = Distances {
            near: 55.0 * NS,
            far: None,
        };
        let blocks = [2.0, 1.0, 7.0].map(|seconds| block(0, 0, seconds, [55.0, 55.0]));
        let found = find(&blocks, 3, 1, &distances).unwrap();
        assert_eq!(found.medians, [Some(2.0)]);
        assert_eq!(found.against, None);
        assert_eq!(median([]), None);
        assert_eq!(median([1.0, 3.0]), Some(2.0));
    }

    #[test]
    fn a_block_is_read_as_it_is_printed() {
        let read = Block::parse("block 3 1.5e-8 200 5.5e-8 5.6e-8", 1, 2).unwrap();
        assert_eq!(
            (read.line, read.library, read.round, read.iterations),
            (3, 1, 2, 200)
        );
        assert_eq!((read.seconds, read.hops), (1.5e-8, Some([5.5e-8, 5.6e-8])));
        for other in ["block 3 1.5e-8", "started 5", "block x 1 1 1 1", ""] {
            assert!(Block::parse(other, 0, 0).is_none(), "{other}");
        }
    }
}

//! How long single iterations take, beside the loops that are timed as a whole.
//!
//! Reading the clock costs more than a mapped put. So a sample is of as many iterations as take at least
//! ten readings, one where an iteration is as long as that; and what a reading costs, the median of some
//! thousands with nothing in between, is taken off each. Counting the iterations of a sample stays in: some tenths of
//! a nanosecond. The longest iteration is its sample without what its others take at the median.

use std::time::Instant;

/// Times of the clock that a sample takes at least.
const READINGS: f64 = 10.0;
/// Samples are not more than this.
const MOST: u64 = 1 << 20;
const CALIBRATION: usize = 4_001;

/// What is noted of each iteration.
pub trait Laps {
    /// The first iteration begins.
    fn begin(&mut self);
    /// An iteration has ended.
    fn lap(&mut self);
    /// An iteration was there and back: half of it counts.
    fn halve(&mut self);
}

/// Nothing: the loop has nothing but its iterations.
impl Laps for () {
    #[inline(always)]
    fn begin(&mut self) {}
    #[inline(always)]
    fn lap(&mut self) {}
    fn halve(&mut self) {}
}

/// The time of every `each` iterations.
pub(crate) struct Samples {
    each: u64,
    left: u64,
    last: Instant,
    seconds: Vec<f64>,
    /// Ways of an iteration; one counts.
    ways: f64,
}

impl Samples {
    fn of(each: u64, most: usize) -> Self {
        Self {
            each,
            left: each,
            last: Instant::now(),
            seconds: Vec::with_capacity(most),
            ways: 1.0,
        }
    }

    /// For so many iterations of about so many seconds.
    pub(crate) fn new(iterations: u64, seconds: f64) -> Self {
        let each = (READINGS * reading() / seconds.max(1e-10)).ceil().max(1.0) as u64;
        let each = each.max(iterations / MOST).min(iterations.max(1));
        Self::of(each, (iterations / each) as usize)
    }

    /// What was seen, of one iteration.
    pub(crate) fn spread(mut self) -> Option<Spread> {
        let clock = reading();
        let parts = self.each as f64 * self.ways;
        for seconds in &mut self.seconds {
            *seconds = (*seconds - clock).max(0.0) / parts;
        }
        let sorted = &mut self.seconds;
        sorted.sort_unstable_by(f64::total_cmp);
        let median = percentile(sorted, 0.5)?;
        let others = self.each as f64 - 1.0;
        Some(Spread {
            min: *sorted.first()?,
            median,
            p99: percentile(sorted, 0.99)?,
            max: sorted.last()? * (others + 1.0) - median * others,
            samples: sorted.len(),
            each: self.each,
            clock,
        })
    }
}

impl Laps for Samples {
    #[inline(always)]
    fn begin(&mut self) {
        self.last = Instant::now();
    }

    #[inline(always)]
    fn lap(&mut self) {
        self.left -= 1;
        if self.left == 0 {
            let now = Instant::now();
            self.seconds.push((now - self.last).as_secs_f64());
            self.left = self.each;
            self.last = now;
        }
    }

    fn halve(&mut self) {
        self.ways = 2.0;
    }
}

/// What one reading of the clock costs, with the noting of it.
fn reading() -> f64 {
    let mut nothing = Samples::of(1, CALIBRATION);
    nothing.begin();
    (0..CALIBRATION).for_each(|_| nothing.lap());
    nothing.seconds.sort_unstable_by(f64::total_cmp);
    nothing.seconds[CALIBRATION / 2]
}

/// The value that so large a part of all does not exceed.
fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Of samples; seconds of one iteration.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The shortest sample's.
    pub min: f64,
    /// Half of the samples are not longer.
    pub median: f64,
    /// Of 100 samples, 99 are not longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// How many samples.
    pub samples: usize,
    /// Iterations of each sample.
    pub each: u64,
    /// What was taken off each sample.
    pub clock: f64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn percentiles_are_of_the_samples() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 0.5), Some(50.0));
        assert_eq!(percentile(&sorted, 0.99), Some(99.0));
        assert_eq!(percentile(&sorted[..10], 0.99), Some(10.0));
        assert_eq!(percentile(&[7.0], 0.5), Some(7.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn short_iterations_share_a_sample() {
        assert_eq!(Samples::new(1000, 1.0).each, 1);
        let short = Samples::new(1 << 20, 1e-9).each;
        assert!(short as f64 * 1e-9 >= READINGS * reading() / 2.0, "{short}");
        assert_eq!(Samples::new(3, 1e-9).each, 3, "a sample is had");
        assert_eq!(Samples::new(MOST * 7, 1.0).each, 7);
    }

    #[test]
    fn a_sample_is_the_time_of_one_iteration() {
        let nap = Duration::from_millis(2);
        let mut samples = Samples::of(2, 4);
        samples.begin();
        for sample in 0..4 {
            std::thread::sleep(if sample == 2 { 10 * nap } else { nap });
            samples.lap();
            std::thread::sleep(nap);
            samples.lap();
        }
        samples.halve();
        let spread = samples.spread().expect("there are samples");
        assert_eq!((spread.samples, spread.each), (4, 2));
        let longest = 9.0 * nap.as_secs_f64() / 2.0;
        assert!(spread.max >= longest - spread.clock, "{spread:?}");
        assert!(
            spread.min >= nap.as_secs_f64() / 2.0 - spread.clock,
            "{spread:?}"
        );
        assert!(
            spread.min <= spread.median && spread.median <= spread.p99 && spread.p99 <= spread.max
        );
    }
}

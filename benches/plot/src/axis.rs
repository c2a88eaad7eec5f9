//! Where values stand on a logarithmic axis, and which of them are written beside it.

use crate::chart::Kind;

/// A range of logarithms, and what is written along it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// Positions with their labels.
    pub(crate) ticks: Vec<(f64, String)>,
    /// Positions of fainter lines.
    pub(crate) between: Vec<f64>,
}

impl Axis {
    /// 0 at the lower end, 1 at the upper.
    pub(crate) fn part(&self, position: f64) -> f64 {
        (position - self.from) / (self.to - self.from)
    }
}

/// Message sizes, doubling by doubling.
pub(crate) struct Sizes {
    pub(crate) axis: Axis,
    /// Where a message without bytes stands: a logarithm has no place for it.
    zero: f64,
}

/// The least room of a size's label, units.
const SIZE_ROOM: f64 = 46.0;
/// Width of a digit.
const LETTER: f64 = 7.5;

impl Sizes {
    /// An axis of this length in units for these sizes.
    pub(crate) fn new(sizes: impl IntoIterator<Item = u64>, length: f64) -> Self {
        let mut sizes: Vec<u64> = sizes.into_iter().collect();
        sizes.sort_unstable();
        sizes.dedup();
        let smallest = sizes.iter().find(|&&size| size > 0);
        let zero = smallest.map_or(0.0, |&size| (size as f64).log2()) - 1.0;
        let place = |size: u64| position(size, zero);
        let (first, last) = match (sizes.first(), sizes.last()) {
            (Some(&first), Some(&last)) => (place(first), place(last)),
            _ => (0.0, 0.0),
        };
        // Room for markers at both ends; a single size stands in the middle.
        let pad = if first == last {
            1.0
        } else {
            (last - first) * 0.025
        };
        let (from, to) = (first - pad, last + pad);
        let unit = length / (to - from);
        let fits = |sizes: &[u64]| {
            let mut pairs = sizes.windows(2);
            pairs.all(|pair| (place(pair[1]) - place(pair[0])) * unit >= room(pair))
        };
        let mut shown = sizes.clone();
        if !fits(&shown) {
            // Powers of two, or of 4, 8, ...: the first that leave room.
            let step = (1..)
                .find(|&step| f64::from(step) * unit >= SIZE_ROOM)
                .unwrap_or(1);
            let lowest = zero.max(first).ceil() as u32;
            let powers = (0..64).filter(|power| power % step == 0 && *power >= lowest);
            shown = powers.map(|power| 1 << power).collect();
            shown.retain(|&size| place(size) <= last);
            if sizes.first() == Some(&0) {
                shown.retain(|&size| (place(size) - zero) * unit >= SIZE_ROOM);
                shown.insert(0, 0);
            }
        }
        let ticks: Vec<_> = shown
            .iter()
            .map(|&size| (place(size), bytes(size)))
            .collect();
        Self {
            axis: Axis {
                from,
                to,
                ticks,
                between: Vec::new(),
            },
            zero,
        }
    }

    pub(crate) fn position(&self, size: u64) -> f64 {
        position(size, self.zero)
    }
}

fn position(size: u64, zero: f64) -> f64 {
    if size == 0 {
        zero
    } else {
        (size as f64).log2()
    }
}

/// That two labels side by side need, units from the middle of one to that of the other.
fn room(sizes: &[u64]) -> f64 {
    let letters: usize = sizes.iter().map(|&size| bytes(size).len()).sum();
    (letters as f64 * LETTER / sizes.len() as f64 + LETTER * 2.0).max(SIZE_ROOM)
}

/// As options of benchmarks name sizes: 1, 64, 4K, 1M.
pub(crate) fn bytes(size: u64) -> String {
    let units = [
        (60, "E"),
        (50, "P"),
        (40, "T"),
        (30, "G"),
        (20, "M"),
        (10, "K"),
    ];
    let whole = units
        .iter()
        .find(|(shift, _)| size > 0 && size.is_multiple_of(1 << shift));
    whole.map_or(size.to_string(), |(shift, unit)| {
        format!("{}{unit}", size >> shift)
    })
}

/// The least room of a value's label, units.
const VALUE_ROOM: f64 = 22.0;
/// The same for labels side by side.
const VALUE_ROOM_ALONG: f64 = 64.0;

/// An upright axis of this length for these values above 0, with labels by `name`.
pub(crate) fn values(
    values: impl IntoIterator<Item = f64>,
    length: f64,
    name: impl Fn(f64) -> String,
) -> Axis {
    with_room(values, length, VALUE_ROOM, name)
}

/// The same from left to right.
pub(crate) fn along(
    values: impl IntoIterator<Item = f64>,
    length: f64,
    name: impl Fn(f64) -> String,
) -> Axis {
    with_room(values, length, VALUE_ROOM_ALONG, name)
}

fn with_room(
    values: impl IntoIterator<Item = f64>,
    length: f64,
    room: f64,
    name: impl Fn(f64) -> String,
) -> Axis {
    let mut range = [f64::INFINITY, f64::NEG_INFINITY];
    for value in values {
        let place = value.log10();
        range = [range[0].min(place), range[1].max(place)];
    }
    let [lowest, highest] = range;
    // A flat curve stays flat: at least a factor of 2, whatever the noise.
    let pad = ((highest - lowest) * 0.06).max((2f64.log10() - (highest - lowest)) / 2.0);
    let (from, to) = (lowest - pad, highest + pad);
    let most = (length / room).max(2.0) as usize;
    let shown = labelled(from, to, most);
    let between = if to - from < 3.5 {
        multiples(&[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], from, to)
    } else {
        Vec::new()
    };
    Axis {
        from,
        to,
        ticks: shown
            .iter()
            .map(|&value| (value.log10(), name(value)))
            .collect(),
        between: between.into_iter().map(f64::log10).collect(),
    }
}

/// Which values get a label, at most so many: powers of ten, else also those between.
fn labelled(from: f64, to: f64, most: usize) -> Vec<f64> {
    let decades = multiples(&[1.0], from, to);
    if decades.len() > most {
        let step = decades.len().div_ceil(most);
        return decades.into_iter().step_by(step).collect();
    }
    let finer = [&[1.0, 2.0, 5.0][..], &[1.0, 2.0, 3.0, 5.0, 7.0]];
    let finer = finer.map(|digits| multiples(digits, from, to));
    let all = std::iter::once(decades).chain(finer);
    let mut fit = all.filter(|found| (3..=most).contains(&found.len()));
    fit.next().unwrap_or_else(|| even(from, to, most))
}

/// These digits times each power of ten, inside the range of logarithms.
fn multiples(digits: &[f64], from: f64, to: f64) -> Vec<f64> {
    let decades = from.floor() as i32..=to.ceil() as i32;
    let all = decades.flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)));
    all.filter(|value| (from..=to).contains(&value.log10()))
        .collect()
}

/// In even steps, for a range too short for powers.
fn even(from: f64, to: f64, most: usize) -> Vec<f64> {
    let (low, high) = (10f64.powf(from), 10f64.powf(to));
    let least = (high - low) / most.clamp(2, 6) as f64;
    let decade = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|digit| digit * decade)
        .into_iter()
        .find(|step| *step >= least);
    let step = step.unwrap_or(high - low);
    let first = (low / step).ceil() as i64;
    (first..)
        .map(|at| at as f64 * step)
        .take_while(|value| *value <= high)
        .filter(|value| *value > 0.0)
        .collect()
}

/// A value with its unit.
pub(crate) fn named(kind: Kind, value: f64) -> String {
    match kind {
        Kind::Latency => scaled(
            value,
            &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")],
        ),
        Kind::Bandwidth => scaled(
            value,
            &[
                (1e12, "TB/s"),
                (1e9, "GB/s"),
                (1e6, "MB/s"),
                (1e3, "kB/s"),
                (1.0, "B/s"),
            ],
        ),
        Kind::Rate => scaled(
            value,
            &[(1e9, "G/s"), (1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")],
        ),
    }
}

/// A ratio.
pub(crate) fn ratio(value: f64) -> String {
    digits(value)
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let fits = |(factor, _): &&(f64, &str)| value >= factor * (1.0 - 1e-9);
    let unit = units.iter().find(fits).or(units.last());
    unit.map_or(String::new(), |(factor, unit)| {
        format!("{} {unit}", digits(value / factor))
    })
}

/// Three digits that count, none that do not.
fn digits(value: f64) -> String {
    let power = value.abs().log10().floor();
    if !(-4.0..6.0).contains(&power) {
        return format!("{:.0}e{power}", value / 10f64.powf(power));
    }
    let decimals = (2 - power as i32).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_unit_people_say() {
        for (kind, value, said) in [
            (Kind::Latency, 3.3e-9, "3.3 ns"),
            (Kind::Latency, 0.14e-9, "0.14 ns"),
            (Kind::Latency, 12_399e-9, "12.4 µs"),
            (Kind::Latency, 1e-6, "1 µs"),
            (Kind::Latency, 0.1 + 0.2, "300 ms"),
            (Kind::Latency, 90.0, "90 s"),
            (Kind::Bandwidth, 12.25e9, "12.2 GB/s"),
            (Kind::Bandwidth, 1e6, "1 MB/s"),
            (Kind::Rate, 909e6, "909 M/s"),
            (Kind::Rate, 5e-7, "5e-7 /s"),
        ] {
            assert_eq!(named(kind, value), said);
        }
        for (value, said) in [
            (1.0, "1"),
            (0.333, "0.333"),
            (2.5, "2.5"),
            (4123.0, "4123"),
            (2e7, "2e7"),
        ] {
            assert_eq!(ratio(value), said);
        }
    }

    #[test]
    fn sizes_are_named_as_on_the_command_line() {
        let named = [0, 1, 8, 1000, 1024, 1536, 4096, 1 << 20, 3 << 30].map(bytes);
        assert_eq!(
            named,
            ["0", "1", "8", "1000", "1K", "1536", "4K", "1M", "3G"]
        );
    }

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| &**label).collect()
    }

    #[test]
    fn sizes_get_labels_where_they_are_or_at_powers_of_two() {
        let few = Sizes::new([8, 1000, 0], 640.0);
        assert_eq!(labels(&few.axis), ["0", "8", "1000"]);
        let many = Sizes::new((0..23).map(|power| 1 << power), 640.0);
        assert_eq!(labels(&many.axis)[..4], ["1", "4", "16", "64"]);
        assert_eq!(many.position(0), -1.0);
    }

    #[test]
    fn values_get_labels_at_powers_of_ten_or_between() {
        let of =
            |low: f64, high: f64| values([low, high], 340.0, |value| named(Kind::Latency, value));
        assert_eq!(
            labels(&of(2e-9, 4e-5)),
            ["10 ns", "100 ns", "1 µs", "10 µs"]
        );
        assert_eq!(labels(&of(2e-9, 2e-8)), ["2 ns", "5 ns", "10 ns", "20 ns"]);
        assert!((3..=8).contains(&labels(&of(1e-6, 1.01e-6)).len()));
        let wide = of(1e-12, 1e9);
        assert!((3..=15).contains(&wide.ticks.len()), "{wide:?}");
    }
}

//! From the texts of results to a chart.

use crate::chart::{Chart, Curve, Kind};
use crate::error::{Error, Result};
use crate::name::names;
use crate::read::{Table, Unit, tables};

/// What of a chart is not told by the results.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Names of the first curves, instead of those that the results suggest.
    pub names: Vec<String>,
    /// Stands above, instead of what the results have in common.
    pub title: Option<String>,
    /// What values are where no heading tells it.
    pub kind: Option<Kind>,
    /// The curve to compare with: its name, or a part of it that no other has.
    pub base: Option<String>,
    /// Stands below.
    pub note: String,
    /// How measurements are distributed, instead of the curves.
    pub percentiles: bool,
}

/// A chart of results, each the name and content of a file; and what is to be said of them.
///
/// ```
/// use windlass_plot::{Wish, chart};
///
/// let text = "# OSU MPI_Put Latency Test v7.4\n# Size    Latency (us)\n1   0.05\n2   0.06\n";
/// let files = [("mpich.txt".into(), text.into()), ("openmpi.txt".into(), text.into())];
/// let (chart, warnings) = chart(&files, &Wish::default())?;
/// assert_eq!(chart.title, "OSU MPI_Put Latency");
/// assert_eq!(chart.curves[1].name, "openmpi");
/// assert!(warnings.is_empty());
/// # Ok::<(), windlass_plot::Error>(())
/// ```
pub fn chart(results: &[(String, Vec<u8>)], wish: &Wish) -> Result<(Chart, Vec<String>)> {
    let mut all: Vec<Table> = Vec::new();
    for (source, bytes) in results {
        all.extend(tables(source, bytes)?);
    }
    let units = units(&all, wish.kind)?;
    let found = names(&all);
    if wish.names.len() > all.len() {
        return Err(Error::Usage(format!(
            "there are {} names for {} curves ({}); give one --name for each, in this order",
            wish.names.len(),
            all.len(),
            found.own.join("; ")
        )));
    }
    let given = wish
        .names
        .iter()
        .chain(found.own.iter().skip(wish.names.len()));
    let curves: Vec<Curve> = given
        .zip(all.iter().zip(&units))
        .map(|(name, (table, unit))| Curve::new(name.trim(), table.points(*unit)))
        .collect();
    let base = wish
        .base
        .as_ref()
        .map_or(Ok(0), |base| find(&curves, base))?;
    let kind = units.first().map_or(Kind::Latency, |unit| unit.kind);
    let title = wish.title.clone().unwrap_or(found.common);
    let warnings = warnings(&all);
    let chart = Chart {
        percentiles: wish.percentiles,
        ..Chart::new(title, kind, curves).note(&wish.note).base(base)
    };
    Ok((chart, warnings))
}

/// The unit of each table; all of one kind.
fn units(tables: &[Table], kind: Option<Kind>) -> Result<Vec<Unit>> {
    let unit = |table: &Table| {
        table.unit.or(kind.map(Unit::of_osu)).ok_or_else(|| {
            Error::Usage(format!(
                "{}: no heading tells the unit; give --kind latency (µs), bandwidth (MB/s) or rate (messages/s), or put \
                 a heading above the rows, as in `# Size  Latency (us)`",
                table.source
            ))
        })
    };
    let units: Vec<Unit> = tables.iter().map(unit).collect::<Result<_>>()?;
    let mut pairs = tables.iter().zip(&units);
    let Some((first, unit)) = pairs.next() else {
        return Ok(units);
    };
    match pairs.find(|(_, other)| other.kind != unit.kind) {
        None => Ok(units),
        Some((table, other)) => Err(Error::Usage(format!(
            "units differ: {} has {}, {} has {}; draw them apart",
            first.source,
            plural(unit.kind),
            table.source,
            plural(other.kind)
        ))),
    }
}

fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Latency => "latencies",
        Kind::Bandwidth => "bandwidths",
        Kind::Rate => "rates",
    }
}

fn find(curves: &[Curve], base: &str) -> Result<usize> {
    let all = || curves.iter().enumerate();
    let exact = all().find(|(_, curve)| curve.name == base);
    let mut parts =
        all().filter(|(_, curve)| curve.name.to_lowercase().contains(&base.to_lowercase()));
    match (exact, parts.next(), parts.next()) {
        (Some((at, _)), _, _) | (None, Some((at, _)), None) => Ok(at),
        (None, part, _) => {
            let names: Vec<&str> = curves.iter().map(|curve| &*curve.name).collect();
            let what = if part.is_some() {
                "several curves"
            } else {
                "no curve"
            };
            Err(Error::Usage(format!(
                "'{base}' names {what}; give --base one of: {}",
                names.join("; ")
            )))
        }
    }
}

fn warnings(tables: &[Table]) -> Vec<String> {
    let mut said = Vec::new();
    for Table {
        source,
        left_out,
        disturbed,
        ..
    } in tables
    {
        if *left_out > 0 {
            said.push(format!(
                "{source}: rows left out because they are not above 0: {left_out}; OSU prints 0.00 for what is faster \
                 than 5 ns, `windlass bench ... -u ns` has more digits"
            ));
        }
        if *disturbed > 0 {
            said.push(format!(
                "{source}: rows marked as disturbed: {disturbed}; measure again on an idle machine"
            ));
        }
    }
    said
}

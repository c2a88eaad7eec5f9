//! Latency and bandwidth over sizes, one curve per library.

use std::fs;
use std::path::{Path, PathBuf};

use windlass_bench::job::Failure;
use windlass_plot::{Chart, Curve, Kind, Point};

use crate::lines::{Line, Place, Unit};
use crate::table::{Cell, Report, Row};

/// A picture: its file name and title, what it shows, and which lines are its points.
type Picture = (&'static str, &'static str, Kind, fn(&Line) -> bool);

const PICTURES: [Picture; 4] = [
    (
        "peers-latency",
        "put + flush between two ranks of one host",
        Kind::Latency,
        |line| plain(line, "put-latency", "allocate") && line.place == Place::Host,
    ),
    (
        "peers-latency-lent",
        "put + flush into lent memory, two ranks of one host",
        Kind::Latency,
        |line| plain(line, "put-latency", "create") && line.place == Place::Host,
    ),
    (
        "peers-bandwidth",
        "64 puts, then a flush, between two ranks of one host",
        Kind::Bandwidth,
        |line| plain(line, "put-bw", "allocate") && line.place == Place::Host,
    ),
    (
        "peers-bandwidth-tcp",
        "64 puts, then a flush, between two nodes by TCP",
        Kind::Bandwidth,
        |line| plain(line, "put-bw", "create") && line.place == Place::Nodes,
    ),
];

fn plain(line: &Line, name: &str, window: &str) -> bool {
    let timed = &line.timed;
    timed.name == name && timed.window == window && timed.sync == "flush" && timed.way == "plain"
}

/// Writes those of the pictures that there are two sizes for, each as PNG and SVG; gives their paths.
pub(crate) fn write(report: &Report<'_>, dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut written = Vec::new();
    for (name, title, kind, wanted) in PICTURES {
        let rows: Vec<&Row<'_>> = report.rows.iter().filter(|row| wanted(row.line)).collect();
        if rows.len() < 2 {
            continue;
        }
        let labels = report.labels.iter().enumerate();
        let curves = labels.map(|(library, label)| curve(&rows, library, label, kind));
        let curves: Vec<Curve> = curves.filter(|curve| !curve.points.is_empty()).collect();
        let chart = Chart::new(title, kind, curves).note(report.summary());
        fs::create_dir_all(dir).map_err(|why| format!("{}: {why}", dir.display()))?;
        for extension in ["png", "svg"] {
            let path = dir.join(name).with_extension(extension);
            chart.write(&path)?;
            written.push(path);
        }
    }
    Ok(written)
}

fn curve(rows: &[&Row<'_>], library: usize, label: &str, kind: Kind) -> Curve {
    let mut points: Vec<Point> = rows
        .iter()
        .filter_map(|row| {
            let Cell::Value(value) = row.cells[library] else {
                return None;
            };
            let size = row.line.timed.size as f64;
            let value = match (kind, row.line.unit) {
                (Kind::Bandwidth, Unit::Time) => size / value,
                _ => value,
            };
            Some(Point::new(row.line.timed.size as u64, value))
        })
        .collect();
    points.sort_by_key(|point| point.size);
    Curve::new(label, points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::{Block, Distances};
    use crate::lines;
    use crate::table;

    #[test]
    fn each_library_is_a_curve_of_each_picture() {
        let lines = lines::all();
        let distances = Distances {
            near: 55e-9,
            far: None,
        };
        // Time in proportion to size, so that every point can be told; the second library is slower.
        let block = |line: &Line, library: usize| Block {
            line: line.timed.number,
            library,
            round: 0,
            seconds: (1 + library) as f64 * line.timed.size as f64 * 1e-9,
            iterations: 1,
            hops: Some([55e-9; 2]),
        };
        let timed = lines.iter().filter(|line| line.timed.size > 0);
        let blocks: Vec<Block> = timed
            .flat_map(|line| [block(line, 0), block(line, 1)])
            .collect();
        let report = Report {
            labels: vec!["Windlass 1".into(), "MPICH 4.0.2".into()],
            notes: Vec::new(),
            remarks: &[],
            cpus: [0, 1],
            rounds: 1,
            distances,
            rows: table::rows(&lines, &blocks, &[[true; 2]; 2], &distances),
        };
        let rows: Vec<&Row<'_>> = report
            .rows
            .iter()
            .filter(|row| PICTURES[2].3(row.line))
            .collect();
        let points = curve(&rows, 1, "MPICH", Kind::Bandwidth).points;
        let sizes: Vec<u64> = points.iter().map(|point| point.size).collect();
        assert!(
            sizes.is_sorted() && sizes[0] == 8 && sizes.contains(&(4 << 20)),
            "{sizes:?}"
        );
        assert!(
            points
                .iter()
                .all(|point| (point.value / 32e9 - 1.0).abs() < 1e-9),
            "{points:?}"
        );
        let dir = tempfile::tempdir().unwrap();
        let written = write(&report, &dir.path().join("new")).unwrap();
        assert_eq!(written.len(), 2 * PICTURES.len());
        let text = fs::read_to_string(&written[1]).unwrap();
        assert!(text.starts_with("<svg"), "{}", &text[..60]);
        let alone = Report {
            rows: Vec::new(),
            ..report
        };
        assert!(write(&alone, dir.path()).unwrap().is_empty());
    }
}

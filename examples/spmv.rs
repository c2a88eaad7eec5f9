//! Sparse matrix times vector, again and again: the power iteration for the largest eigenvalue.
//!
//! Rank 0 reads a Matrix Market file and every rank gets a block of rows, such that all have about
//! equally many entries. The vector is spread likewise, in a window: before each product a rank gets
//! the elements that its rows need, and no others, from their owners. What it needs it finds out
//! once, as a list of runs of elements.
//!
//! A window holds two vectors, used in turn: while a rank still reads the one of this step, its
//! owner stores that of the next, so one fence per step is enough. With its part of the vector a
//! rank publishes its part of two dot products, by puts to all ranks; all add up the same parts in
//! the same order.
//!
//! Rank 0 also computes alone. It adds up the dot products by the same parts, so the vectors and
//! eigenvalues must be equal to the last bit. The eigenvalue is also compared with the known one,
//! if it is known; the exit code is 1 if either comparison fails.
//!
//! ```text
//! cargo windlass run -n 4 --example spmv -- examples/data/laplacian-20x20.mtx
//! ```

#[path = "support/job.rs"]
mod job;
#[path = "support/matrix.rs"]
mod matrix;
#[path = "support/mechanisms.rs"]
mod mechanisms;
#[path = "support/progress.rs"]
mod progress;

use std::f64::consts::PI;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use job::{Failure, ROOT};
use matrix::Matrix;
use mechanisms::Usage;
use windlass::{Fence, Rank, Window, World};

/// Multiplies a sparse matrix again and again with a vector spread over all ranks, which gives the
/// largest eigenvalue, and compares with a serial run
#[derive(Parser, Debug)]
#[command(name = "spmv", version, after_help = EXAMPLES)]
struct Arguments {
    /// Square matrix in a Matrix Market file: coordinate, real, integer or pattern; without it, the
    /// Laplace operator on a grid of 20 x 20 points
    file: Option<PathBuf>,
    /// Products
    #[arg(long, default_value_t = 2000, value_parser = job::at_least_one::<u32>())]
    iterations: u32,
    /// The largest eigenvalue, if it is known
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    eigenvalue: Option<f64>,
    /// Accepted relative difference to the known eigenvalue
    #[arg(long, value_name = "RATIO", default_value_t = 1e-9)]
    tolerance: f64,
}

const EXAMPLES: &str = "\
Examples:
  cargo windlass run -n 4 --example spmv
  cargo windlass run -n 4 --example spmv -- matrix.mtx --iterations 100
  cargo windlass run -n 4 --nodes 2 --example spmv -- examples/data/laplacian-20x20.mtx \\
      --eigenvalue 7.955323304900514";

/// The matrix that is used without a file: the grid's points on a side, and the file.
const GRID: u32 = 20;
const LAPLACIAN: &[u8] = include_bytes!("data/laplacian-20x20.mtx");

/// The largest eigenvalue of minus the Laplace operator on a square grid with `side` points on a
/// side, by the five-point formula, and zero around it.
fn laplacian_eigenvalue(side: u32) -> f64 {
    4.0 + 4.0 * (PI / f64::from(side + 1)).cos()
}

fn main() -> ExitCode {
    job::main("spmv", run)
}

fn run(world: &World) -> Result<ExitCode, Failure> {
    let arguments = match job::arguments::<Arguments>(world)? {
        Ok(arguments) => arguments,
        Err(code) => return Ok(code),
    };
    let mut matrix = None;
    if world.rank() == ROOT {
        match read(&arguments) {
            Ok(read) => matrix = Some(read),
            Err(why) => eprintln!("spmv: {why}"),
        }
    }
    let Some(part) = Part::distribute(world, matrix.as_ref())? else {
        return Ok(ExitCode::FAILURE);
    };
    let mut iteration = part.iterate(world, arguments.iterations)?;
    iteration.vector = job::collect(world, &iteration.vector)?;
    match matrix {
        None => Ok(ExitCode::SUCCESS),
        Some(matrix) => Ok(conclude(
            world,
            &arguments,
            &matrix,
            &part.bounds,
            &iteration,
        )),
    }
}

/// The matrix, or why there is none that can be used.
fn read(arguments: &Arguments) -> Result<Matrix, String> {
    let (name, bytes) = match &arguments.file {
        None => ("the built-in matrix".into(), LAPLACIAN.to_vec()),
        Some(path) => {
            let name = path.display().to_string();
            let bytes = std::fs::read(path).map_err(|e| format!("cannot read {name}: {e}"))?;
            (name, bytes)
        }
    };
    let matrix = Matrix::parse(&bytes).map_err(|refused| format!("{name}, {refused}"))?;
    let (rows, columns) = (matrix.rows(), matrix.columns);
    if rows != columns || rows == 0 {
        return Err(format!(
            "{name} has {rows} rows and {columns} columns; an iteration needs a square matrix"
        ));
    }
    Ok(matrix)
}

/// What rank 0 does with the result: compares it with a serial run and the known eigenvalue, and
/// reports.
fn conclude(
    world: &World,
    arguments: &Arguments,
    matrix: &Matrix,
    bounds: &[usize],
    ours: &Iteration,
) -> ExitCode {
    let began = Instant::now();
    let alone = serial(matrix, bounds, arguments.iterations);
    let serial = began.elapsed();
    let seconds = ours.elapsed.as_secs_f64();
    let iterations = f64::from(arguments.iterations);
    println!(
        "{}, {}, {}: {:.1} ms on {}, {:.1} ms serial",
        job::count(matrix.rows() as u32, "row"),
        job::count(matrix.entries.len() as u32, "nonzero"),
        job::count(arguments.iterations, "product"),
        seconds * 1e3,
        job::count(world.size(), "rank"),
        serial.as_secs_f64() * 1e3,
    );
    println!(
        "rate: {:.1} Mflop/s, {:.1} us per product",
        2.0 * matrix.entries.len() as f64 * iterations / seconds / 1e6,
        seconds * 1e6 / iterations,
    );
    mechanisms::print(&ours.usage);
    let bits = |a: f64, b: f64| a.to_bits() != b.to_bits();
    let mut different = ours.vector.len().abs_diff(alone.vector.len());
    different += ours
        .vector
        .iter()
        .zip(&alone.vector)
        .filter(|&(&a, &b)| bits(a, b))
        .count();
    different += usize::from(bits(ours.eigenvalue, alone.eigenvalue));
    println!("numbers that differ from the serial run: {different}");
    println!(
        "eigenvalue: {}, residual {:.1e}",
        ours.eigenvalue, ours.residual
    );
    let is_built_in = arguments.file.is_none();
    let known = arguments
        .eigenvalue
        .or(is_built_in.then(|| laplacian_eigenvalue(GRID)));
    let mut right = different == 0;
    if let Some(known) = known {
        let off = ((ours.eigenvalue - known) / known).abs();
        println!(
            "known to be: {known}, relative difference {off:.1e}, accepted {:.1e}",
            arguments.tolerance
        );
        let near = off <= arguments.tolerance;
        right &= near;
        if !near {
            eprintln!(
                "spmv: that is too far; give more --iterations than {} or a larger --tolerance",
                arguments.iterations
            );
        }
    }
    if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What an iteration ends with.
struct Iteration {
    /// The last product, not normalised: this rank's part, or all of it.
    vector: Vec<f64>,
    eigenvalue: f64,
    /// Length of A x - eigenvalue x for the last x, whose length is 1.
    residual: f64,
    elapsed: Duration,
    usage: Vec<Usage>,
}

/// Elements of the first vector: in no relation to any matrix, between -1 and 1.
fn start(row: usize) -> f64 {
    let mut bits = (row as u64)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Rows times a vector, whose elements the entries name.
fn multiply(starts: &[usize], entries: &[(usize, f64)], x: &[f64], y: &mut Vec<f64>) {
    y.clear();
    y.extend(starts.windows(2).map(|row| {
        let terms = entries[row[0]..row[1]]
            .iter()
            .map(|&(at, value)| value * x[at]);
        terms.sum::<f64>()
    }));
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What makes a vector of this squared length one of length 1; 0 of a vector of zeros.
fn normalisation(squared: f64) -> f64 {
    if squared > 0.0 {
        squared.sqrt().recip()
    } else {
        0.0
    }
}

fn scale(vector: &mut [f64], factor: f64) {
    for element in vector {
        *element *= factor;
    }
}

/// The same on one rank, with the dot products added up by the parts that `bounds` makes.
fn serial(matrix: &Matrix, bounds: &[usize], iterations: u32) -> Iteration {
    let by_parts = |a: &[f64], b: &[f64]| -> f64 {
        let parts = bounds.windows(2).map(|part| part[0]..part[1]);
        parts.map(|part| dot(&a[part.clone()], &b[part])).sum()
    };
    let mut x: Vec<f64> = (0..matrix.rows()).map(start).collect();
    let mut y = x.clone();
    let mut eigenvalue = 0.0;
    for _ in 0..iterations {
        std::mem::swap(&mut x, &mut y);
        let factor = normalisation(by_parts(&x, &x));
        scale(&mut x, factor);
        multiply(&matrix.starts, &matrix.entries, &x, &mut y);
        eigenvalue = by_parts(&x, &y);
    }
    let error: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y - eigenvalue * x).collect();
    Iteration {
        vector: y,
        eigenvalue,
        residual: dot(&error, &error).sqrt(),
        elapsed: Duration::ZERO,
        usage: Vec::new(),
    }
}

/// The first row of every rank, and the number of rows: blocks of about equally many entries.
fn balanced(starts: &[usize], ranks: usize) -> Vec<usize> {
    let rows = starts.len() - 1;
    let first = |rank| {
        let before = starts[rows] * rank / ranks;
        starts[..rows].partition_point(|&start| start < before)
    };
    (0..ranks).map(first).chain([rows]).collect()
}

/// A run of elements that a rank needs, of one owner.
#[derive(Debug, PartialEq)]
struct Fetch {
    owner: usize,
    /// The first of them in the whole vector.
    first: usize,
    len: usize,
    /// Where they go in the fetched vector.
    at: usize,
}

/// Elements that nobody needs are fetched too where so few lie between two that are needed: they
/// cost less than another run.
const GAP: usize = 16;

/// What rows with these entries need, and the entries with their places there as columns.
fn plan(bounds: &[usize], mut entries: Vec<(usize, f64)>) -> (Vec<Fetch>, Vec<(usize, f64)>) {
    let mut needed: Vec<usize> = entries.iter().map(|entry| entry.0).collect();
    needed.sort_unstable();
    needed.dedup();
    let mut fetches: Vec<Fetch> = Vec::new();
    for first in needed {
        let owner = bounds.partition_point(|&bound| bound <= first) - 1;
        match fetches.last_mut() {
            Some(run) if run.owner == owner && first - (run.first + run.len) <= GAP => {
                run.len = first + 1 - run.first;
            }
            before => {
                let at = before.map_or(0, |run| run.at + run.len);
                fetches.push(Fetch {
                    owner,
                    first,
                    len: 1,
                    at,
                });
            }
        }
    }
    for (column, _) in &mut entries {
        let run = &fetches[fetches.partition_point(|run| run.first <= *column) - 1];
        *column = run.at + *column - run.first;
    }
    (fetches, entries)
}

/// The rows of one rank, and where the elements come from that they need.
struct Part {
    /// The first row of every rank, and the number of rows.
    bounds: Vec<usize>,
    me: usize,
    starts: Vec<usize>,
    /// Their columns are places in the fetched vector.
    entries: Vec<(usize, f64)>,
    fetches: Vec<Fetch>,
}

impl Part {
    /// Deals out the rows of the matrix that rank 0 has; `None` if it has none. Collective.
    fn distribute(world: &World, matrix: Option<&Matrix>) -> Result<Option<Self>, Failure> {
        let numbers = |from: &[usize]| from.iter().map(|&n| n as u64).collect::<Vec<_>>();
        let places = |from: Vec<u64>| from.into_iter().map(|n| n as usize).collect::<Vec<_>>();
        let (mut bounds, mut starts, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(matrix) = matrix {
            bounds = numbers(&balanced(&matrix.starts, world.size() as usize));
            starts = numbers(&matrix.starts);
            let packed = |&(column, value): &(usize, f64)| [column as u64, value.to_bits()];
            entries = matrix.entries.iter().map(packed).collect();
        }
        let bounds = places(job::share(world, ROOT, bounds)?);
        if bounds.is_empty() {
            return Ok(None);
        }
        let me = world.rank().0 as usize;
        let mut starts = places(job::scatter(
            world,
            &starts,
            bounds[me]..bounds[me + 1] + 1,
        )?);
        let first = starts[0];
        let entries = job::scatter(world, &entries, first..starts[starts.len() - 1])?;
        starts.iter_mut().for_each(|start| *start -= first);
        let unpacked = |[column, value]: [u64; 2]| (column as usize, f64::from_bits(value));
        let (fetches, entries) = plan(&bounds, entries.into_iter().map(unpacked).collect());
        Ok(Some(Self {
            bounds,
            me,
            starts,
            entries,
            fetches,
        }))
    }

    fn ranks(&self) -> usize {
        self.bounds.len() - 1
    }

    /// Where one of the two vectors begins in the window of a rank: with the parts of the dot
    /// products, two of every rank; the rank's elements follow.
    fn half(&self, rank: usize, half: usize) -> usize {
        half * (2 * self.ranks() + self.bounds[rank + 1] - self.bounds[rank])
    }

    /// Stores this rank's part of a vector, and gives its part of two dot products to all.
    fn publish(
        &self,
        epoch: &Fence<'_, f64>,
        half: usize,
        elements: &[f64],
        dots: [f64; 2],
    ) -> Result<(), Failure> {
        let mine = self.half(self.me, half) + 2 * self.ranks();
        epoch.local().write(mine, elements)?;
        for rank in 0..self.ranks() {
            epoch.put(
                &dots,
                Rank(rank as u32),
                self.half(rank, half) + 2 * self.me,
            )?;
        }
        Ok(())
    }

    /// Two dot products, added up from the parts of all ranks.
    fn dots(&self, epoch: &Fence<'_, f64>, half: usize) -> Result<[f64; 2], Failure> {
        let mut parts = vec![[0.0; 2]; self.ranks()];
        epoch
            .local()
            .read(self.half(self.me, half), parts.as_flattened_mut())?;
        Ok([0, 1].map(|which| parts.iter().map(|part| part[which]).sum()))
    }

    /// Gets the elements that this rank needs of one of the two vectors.
    fn fetch(&self, epoch: &Fence<'_, f64>, half: usize, into: &mut [f64]) -> Result<(), Failure> {
        for run in &self.fetches {
            let disp = self.half(run.owner, half) + 2 * self.ranks();
            let disp = disp + run.first - self.bounds[run.owner];
            let into = &mut into[run.at..run.at + run.len];
            epoch.get(into, Rank(run.owner as u32), disp)?;
        }
        Ok(())
    }

    /// All products; the vector is this rank's part, the usage is at rank 0. Collective.
    fn iterate(&self, world: &World, iterations: u32) -> Result<Iteration, Failure> {
        let bar = progress::bar(world, "spmv", iterations as usize, "products");
        let mut window: Window<f64> = world.allocate(self.half(self.me, 2))?;
        let mut y: Vec<f64> = (self.bounds[self.me]..self.bounds[self.me + 1])
            .map(start)
            .collect();
        let mut x = y.clone();
        let mut needed = vec![0.0; self.fetches.iter().map(|run| run.len).sum()];
        let epoch = window.fence()?;
        self.publish(&epoch, 0, &y, [dot(&y, &y), 0.0])?;
        let mut epoch = epoch.next()?;
        let began = Instant::now();
        for step in 0..iterations as usize {
            let (this, other) = (step % 2, (step + 1) % 2);
            std::mem::swap(&mut x, &mut y);
            let [squared, _] = self.dots(&epoch, this)?;
            let factor = normalisation(squared);
            scale(&mut x, factor);
            self.fetch(&epoch, this, &mut needed)?;
            scale(&mut needed, factor);
            multiply(&self.starts, &self.entries, &needed, &mut y);
            self.publish(&epoch, other, &y, [dot(&y, &y), dot(&x, &y)])?;
            epoch = epoch.next()?;
            bar.inc(1);
        }
        let elapsed = began.elapsed();
        bar.finish_and_clear();
        let [_, eigenvalue] = self.dots(&epoch, iterations as usize % 2)?;
        epoch.end()?;
        let error: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y - eigenvalue * x).collect();
        let squared: f64 = job::gather(world, &[dot(&error, &error)])?.iter().sum();
        let all: Vec<Rank> = world.ranks().collect();
        let usage = mechanisms::count(world, &window, &all)?;
        window.free()?;
        Ok(Iteration {
            vector: y,
            eigenvalue,
            residual: squared.sqrt(),
            elapsed,
            usage,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_matrix_is_what_the_formula_says() {
        let matrix = Matrix::parse(LAPLACIAN).unwrap();
        let side = GRID as usize;
        assert_eq!(matrix.rows(), side * side);
        for row in 0..side * side {
            let (y, x) = (row / side, row % side);
            let mut expected = Vec::new();
            let near = |there: bool, at: usize| there.then_some((at, -1.0));
            expected.extend(near(y > 0, row.wrapping_sub(side)));
            expected.extend(near(x > 0, row.wrapping_sub(1)));
            expected.push((row, 4.0));
            expected.extend(near(x + 1 < side, row + 1));
            expected.extend(near(y + 1 < side, row + side));
            let entries = &matrix.entries[matrix.starts[row]..matrix.starts[row + 1]];
            assert_eq!(entries, expected, "row {row}");
        }
    }

    /// The eigenvector belongs to the eigenvalue by the formula: A v = eigenvalue v.
    #[test]
    fn the_known_eigenvalue_is_one() {
        let matrix = Matrix::parse(LAPLACIAN).unwrap();
        let wave = |at: u32| (PI * f64::from(GRID * (at + 1)) / f64::from(GRID + 1)).sin();
        let vector: Vec<f64> = (0..GRID * GRID)
            .map(|at| wave(at / GRID) * wave(at % GRID))
            .collect();
        let mut product = Vec::new();
        multiply(&matrix.starts, &matrix.entries, &vector, &mut product);
        for (a, v) in product.iter().zip(&vector) {
            assert!((a - laplacian_eigenvalue(GRID) * v).abs() < 1e-13);
        }
        let found = serial(&matrix, &[0, 400], 2000);
        assert!((found.eigenvalue - laplacian_eigenvalue(GRID)).abs() < 1e-12);
        assert!(found.residual < 1e-5);
    }

    #[test]
    fn rows_are_dealt_out_by_their_entries() {
        assert_eq!(balanced(&[0, 10, 20, 30, 40], 2), [0, 2, 4]);
        assert_eq!(balanced(&[0, 90, 95, 100], 2), [0, 1, 3]);
        // Fewer rows than ranks, rows without entries, a matrix without any.
        assert_eq!(balanced(&[0, 5], 3), [0, 1, 1, 1]);
        assert_eq!(balanced(&[0, 0, 0, 6, 6], 2), [0, 3, 4]);
        assert_eq!(balanced(&[0, 0, 0], 2), [0, 0, 2]);
    }

    #[test]
    fn a_plan_fetches_what_is_needed_once_from_its_owner() {
        let bounds = [0, 50, 50, 100];
        let entries = vec![
            (99, 1.0),
            (3, 2.0),
            (5, 3.0),
            (40, 4.0),
            (49, 5.0),
            (50, 6.0),
            (3, 7.0),
        ];
        let (fetches, entries) = plan(&bounds, entries);
        let runs: Vec<_> = fetches
            .iter()
            .map(|run| (run.owner, run.first, run.len, run.at))
            .collect();
        assert_eq!(
            runs,
            [(0, 3, 3, 0), (0, 40, 10, 3), (2, 50, 1, 13), (2, 99, 1, 14)]
        );
        let places: Vec<_> = entries.iter().map(|entry| entry.0).collect();
        assert_eq!(places, [14, 0, 2, 3, 12, 13, 0]);
    }

    #[test]
    fn a_vector_of_zeros_stays_one() {
        assert_eq!(normalisation(0.0), 0.0);
        assert_eq!(normalisation(4.0), 0.5);
    }
}

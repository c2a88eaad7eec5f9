//! A matrix, spread over the ranks by rows, is transposed by puts with layouts.
//!
//! Every rank owns a block of rows of the matrix and a block of rows of its transpose; the latter
//! is its window. What one rank has for another is a block: a part of every one of its rows. A
//! single put per pair of ranks moves it, transposed: the layout at the origin runs down the
//! columns of the block, the layout at the target along the rows of the transpose, of which the
//! block fills a part. Nothing is packed, sorted or copied by the program.
//!
//! The elements are numbers that tell their row, their column and the repetition, so that each one
//! is checked by its own value; the exit code is 1 if one is wrong.
//!
//! ```text
//! cargo windlass run -n 4 --example transpose -- --rows 1000 --columns 600
//! ```

#[path = "support/job.rs"]
mod job;
#[path = "support/mechanisms.rs"]
mod mechanisms;
#[path = "support/progress.rs"]
mod progress;
#[path = "support/size.rs"]
mod size;
#[path = "support/split.rs"]
mod split;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use job::{Failure, ROOT};
use size::Size;
use split::Split;
use windlass::layout::{LayoutError, Order};
use windlass::{Layout, Rank, World};

/// Transposes a matrix that is spread over all ranks, by puts with layouts, and checks every element
#[derive(Parser, Debug)]
#[command(name = "transpose", version, after_help = EXAMPLES)]
struct Arguments {
    /// Rows of the matrix
    #[arg(long, default_value_t = 480, value_parser = job::at_least_one::<usize>())]
    rows: usize,
    /// Columns of the matrix
    #[arg(long, default_value_t = 320, value_parser = job::at_least_one::<usize>())]
    columns: usize,
    /// Repetitions; the time is that of the fastest and of the median
    #[arg(long, value_name = "TIMES", default_value_t = 5, value_parser = job::at_least_one::<u32>())]
    repeat: u32,
}

const EXAMPLES: &str = "\
Examples:
  cargo windlass run -n 4 --example transpose
  cargo windlass run -n 3 --example transpose -- --rows 2000 --columns 1000
  cargo windlass run -n 6 --nodes 2 --ves 1 --place ve:2,vh:1 --example transpose -- --repeat 1";

fn main() -> ExitCode {
    job::main("transpose", run)
}

fn run(world: &World) -> Result<ExitCode, Failure> {
    let Arguments {
        rows,
        columns,
        repeat,
    } = match job::arguments(world)? {
        Ok(arguments) => arguments,
        Err(code) => return Ok(code),
    };
    let size = match Size::checked(columns, rows) {
        Ok(size) => size,
        Err(why) => return Ok(job::refuse(world, &why)),
    };
    // The rows and the window of all ranks.
    let bytes = 2 * 8 * size.cells();
    if !job::is_room(world, bytes, "give fewer --rows or --columns")? {
        return Ok(ExitCode::from(2));
    }
    let matrix = Matrix {
        rows: Split::new(rows, world.size() as usize),
        columns: Split::new(columns, world.size() as usize),
        me: world.rank().0 as usize,
    };
    let mut window = world.allocate::<f64>(matrix.columns.len(matrix.me) * rows)?;
    let bar = progress::bar(world, "transpose", repeat as usize, "times");
    let (mut times, mut wrong) = (Vec::new(), 0);
    for repetition in 0..repeat {
        let mine = matrix.mine(repetition);
        world.barrier()?;
        let began = Instant::now();
        let epoch = window.fence()?;
        for target in matrix.targets() {
            let from = matrix.columns.first(target);
            let (source, there) = (matrix.block(target)?, matrix.place(target)?);
            epoch.put_layout(&mine[from..], &source, Rank(target as u32), 0, &there)?;
        }
        epoch.end()?;
        times.push(began.elapsed());
        let transpose = window.lock_local()?;
        wrong += matrix.count_wrong(repetition, &transpose) as u64;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let partners: Vec<Rank> = matrix.targets().map(|target| Rank(target as u32)).collect();
    let usage = mechanisms::count(world, &window, &partners)?;
    window.free()?;
    let wrong: u64 = job::gather(world, &[wrong])?.iter().sum();
    if world.rank() == ROOT {
        report(&matrix, times);
        mechanisms::print(&usage);
        println!(
            "elements that are wrong, of {repeat} times {}: {wrong}",
            rows * columns
        );
    }
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn report(matrix: &Matrix, mut times: Vec<Duration>) {
    times.sort();
    let (rows, columns) = (matrix.rows.items, matrix.columns.items);
    let bytes = (rows * columns * size_of::<f64>()) as f64;
    let [best, median] = [0, times.len() / 2].map(|at| times[at].as_secs_f64());
    println!(
        "{rows} x {columns} elements of 8 bytes on {}: {:.2} ms in the median, {:.2} ms at best",
        job::count(matrix.rows.parts as u32, "rank"),
        median * 1e3,
        best * 1e3,
    );
    println!(
        "rate: {:.1} MB/s in the median, {:.1} MB/s at best",
        bytes / median / 1e6,
        bytes / best / 1e6
    );
}

/// The matrix as one rank sees it.
struct Matrix {
    rows: Split,
    columns: Split,
    me: usize,
}

impl Matrix {
    /// Ranks for which this one has something.
    fn targets(&self) -> impl Iterator<Item = usize> {
        let (ranks, me) = (self.rows.parts, self.me);
        // Everybody begins with another: nobody is everybody's target at once.
        let order = (0..ranks).map(move |step| (me + step) % ranks);
        order.filter(move |&target| self.rows.len(me) > 0 && self.columns.len(target) > 0)
    }

    /// The value of an element: exact, and another one in each repetition.
    fn value(&self, row: usize, column: usize, repetition: u32) -> f64 {
        (row * self.columns.items + column) as f64 + 0.5 * f64::from(repetition % 2)
    }

    /// This rank's rows.
    fn mine(&self, repetition: u32) -> Vec<f64> {
        let rows = self.rows.range(self.me);
        rows.flat_map(|row| {
            (0..self.columns.items).map(move |column| self.value(row, column, repetition))
        })
        .collect()
    }

    /// The block for a rank, column by column, as it lies in this rank's rows, from its first
    /// element on.
    fn block(&self, target: usize) -> Result<Layout, LayoutError> {
        let width = self.columns.items as i64;
        let column = Layout::of::<f64>().vector(self.rows.len(self.me) as u64, 1, width)?;
        // The next column begins at the next element.
        let next = column.resized(0, size_of::<f64>() as i64)?;
        next.contiguous(self.columns.len(target) as u64)
    }

    /// Where it goes in the rank's rows of the transpose: to the columns that are this rank's rows.
    fn place(&self, target: usize) -> Result<Layout, LayoutError> {
        let [height, width] = [self.columns.len(target), self.rows.items].map(|n| n as u64);
        let [first, part] = [self.rows.first(self.me), self.rows.len(self.me)].map(|n| n as u64);
        Layout::of::<f64>().subarray(&[height, width], &[height, part], &[0, first], Order::C)
    }

    /// Elements of this rank's rows of the transpose that are not what they should be.
    fn count_wrong(&self, repetition: u32, transpose: &[f64]) -> usize {
        let expected = self.columns.range(self.me).flat_map(|column| {
            (0..self.rows.items).map(move |row| self.value(row, column, repetition))
        });
        expected
            .zip(transpose)
            .filter(|(expected, found)| expected != *found)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets of the elements of a layout, in order, in elements.
    fn elements(layout: &Layout) -> Vec<usize> {
        let data = layout.times(1).unwrap();
        let runs = data
            .runs()
            .map(|(offset, bytes)| (offset as usize, bytes as usize));
        runs.flat_map(|(offset, bytes)| (offset..offset + bytes).step_by(8))
            .map(|offset| offset / 8)
            .collect()
    }

    /// All blocks of all ranks, moved by hand, make the transpose.
    #[test]
    fn blocks_and_places_make_the_transpose() {
        for (rows, columns, ranks) in [
            (5, 7, 3),
            (8, 8, 4),
            (1, 9, 4),
            (9, 1, 4),
            (3, 2, 6),
            (4, 4, 1),
        ] {
            let all: Vec<Matrix> = (0..ranks)
                .map(|me| Matrix {
                    rows: Split::new(rows, ranks),
                    columns: Split::new(columns, ranks),
                    me,
                })
                .collect();
            let mut transposes: Vec<Vec<f64>> = all
                .iter()
                .map(|matrix| vec![-1.0; matrix.columns.len(matrix.me) * rows])
                .collect();
            for matrix in &all {
                let mine = matrix.mine(3);
                for target in matrix.targets() {
                    let from = elements(&matrix.block(target).unwrap());
                    let to = elements(&matrix.place(target).unwrap());
                    assert_eq!(from.len(), to.len());
                    for (from, to) in from.into_iter().zip(to) {
                        transposes[target][to] = mine[matrix.columns.first(target) + from];
                    }
                }
            }
            for (matrix, transpose) in all.iter().zip(&transposes) {
                assert_eq!(
                    matrix.count_wrong(3, transpose),
                    0,
                    "{rows} x {columns} on {ranks}"
                );
                assert_eq!(matrix.count_wrong(4, transpose), transpose.len());
            }
        }
    }
}

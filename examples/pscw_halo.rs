//! The heat equation once more, with synchronisation between neighbours only.
//!
//! The ranks form a grid and each owns a block of cells. Before every step a rank posts its window
//! to its neighbours, up to four, starts access to theirs, puts its outermost rows and columns
//! there, completes and waits. Nobody waits for a rank that is not a neighbour; a rank without
//! cells posts to nobody. The window needs only one set of halo cells: a rank posts again only
//! when it has read them.
//!
//! The start is a sum of waves, for which the discrete equation has a solution in closed form. The
//! result is compared with that, and with a serial run, from which it must not differ in a single
//! bit; the exit code is 1 if either fails.
//!
//! ```text
//! cargo windlass run -n 10 --nodes 2 --ves 2 --place ve0:2,ve1:1,vh:2 --example pscw_halo
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
#[path = "support/stencil.rs"]
mod stencil;

use std::f64::consts::PI;
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use job::{Failure, ROOT};
use mechanisms::Usage;
use size::Size;
use split::Split;
use stencil::Outside;
use windlass::{Rank, Window, World};

/// Solves the heat equation with halo exchange by post, start, complete and wait, and compares with
/// a serial run and with the exact solution
#[derive(Parser, Debug)]
#[command(name = "pscw_halo", version, after_help = EXAMPLES)]
struct Arguments {
    /// Time steps
    #[arg(long, default_value_t = 200, value_parser = job::number::<u32>(0..=MAX_STEPS))]
    steps: u32,
    /// Size of the field, WIDTHxHEIGHT
    #[arg(long, default_value = "480x320")]
    size: Size,
}

/// The closed form has the steps as the exponent of a power.
const MAX_STEPS: u64 = i32::MAX as u64;

const EXAMPLES: &str = "\
Examples:
  cargo windlass run -n 4 --example pscw_halo
  cargo windlass run -n 6 --nodes 2 --ves 1 --place ve:2,vh:1 --example pscw_halo -- --steps 1000
  cargo windlass run -n 9 --example pscw_halo -- --size 1024x1024";

fn main() -> ExitCode {
    job::main("pscw_halo", run)
}

fn run(world: &World) -> Result<ExitCode, Failure> {
    let Arguments { steps, size } = match job::arguments(world)? {
        Ok(arguments) => arguments,
        Err(code) => return Ok(code),
    };
    // The blocks and the halves they are made into, the blocks collected, the serial run, the solution.
    let bytes = 8 * 8 * size.cells();
    if !job::is_room(world, bytes, "give a smaller --size")? {
        return Ok(ExitCode::from(2));
    }
    let grid = Grid::new(size, world.size() as usize);
    let mut block = Block::start(&grid, world.rank());
    let (usage, parallel) = block.solve(world, steps)?;
    let blocks = job::collect(world, &block.cells)?;
    if world.rank() != ROOT {
        return Ok(ExitCode::SUCCESS);
    }

    let cells = assemble(&grid, &blocks);
    let began = Instant::now();
    let alone = stencil::serial(&whole(size, 0), size.width, steps as usize);
    let serial = began.elapsed();
    println!(
        "{size} cells on {}x{} ranks, {}: {:.1} ms, {:.1} ms serial",
        grid.columns.parts,
        grid.rows.parts,
        job::count(steps, "step"),
        parallel.as_secs_f64() * 1e3,
        serial.as_secs_f64() * 1e3,
    );
    println!(
        "rate: {:.1} million cells per second, {:.1} us per step",
        cells.len() as f64 * f64::from(steps) / parallel.as_secs_f64() / 1e6,
        parallel.as_secs_f64() * 1e6 / f64::from(steps.max(1)),
    );
    mechanisms::print(&usage);
    let to_serial = stencil::largest_difference(&cells, &alone);
    println!("largest difference to the serial run: {to_serial:?}");
    let to_exact = stencil::largest_difference(&cells, &whole(size, steps));
    let accepted = rounding(steps);
    println!("largest difference to the exact solution: {to_exact:.1e}, accepted {accepted:.1e}");
    Ok(if to_serial == 0.0 && to_exact <= accepted {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The waves of the start: height, and half periods along the width and the height.
const WAVES: [(f64, u32, u32); 4] = [(0.4, 0, 0), (0.3, 1, 0), (0.2, 3, 2), (0.1, 5, 9)];

/// The solution of the discrete equation after `steps` steps, in some of the columns and rows.
/// Between edges that let no heat through, each wave keeps its form and shrinks by a factor of its
/// own in every step.
fn exact(size: Size, columns: Range<usize>, rows: Range<usize>, steps: u32) -> Vec<f64> {
    let Size { width, height } = size;
    let wave = |half_periods: u32, at: usize, len: usize| {
        (PI * f64::from(half_periods) * (at as f64 + 0.5) / len as f64).cos()
    };
    let bend = |half_periods: u32, len: usize| {
        2.0 * (PI * f64::from(half_periods) / len as f64).cos() - 2.0
    };
    let mut cells = vec![0.0; columns.len() * rows.len()];
    for (start, along_x, along_y) in WAVES {
        let factor = 1.0 + stencil::FLOW * (bend(along_x, width) + bend(along_y, height));
        let now = start * factor.powi(steps as i32);
        let in_x: Vec<f64> = columns.clone().map(|x| wave(along_x, x, width)).collect();
        // No cell if there is no column.
        for (y, row) in rows
            .clone()
            .zip(cells.chunks_exact_mut(columns.len().max(1)))
        {
            let in_row = now * wave(along_y, y, height);
            for (cell, in_x) in row.iter_mut().zip(&in_x) {
                *cell += in_row * in_x;
            }
        }
    }
    cells
}

/// The whole of [`exact`].
fn whole(size: Size, steps: u32) -> Vec<f64> {
    exact(size, 0..size.width, 0..size.height, steps)
}

/// What the rounding of values of at most 1 adds up to: a few units in each step, and in the start.
fn rounding(steps: u32) -> f64 {
    4.0 * f64::EPSILON * (f64::from(steps) + 10.0)
}

/// The sides of a block, and where its halo cells of that side are in its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Above,
    Below,
    Left,
    Right,
}

impl Side {
    const ALL: [Side; 4] = [Side::Above, Side::Below, Side::Left, Side::Right];

    fn opposite(self) -> Side {
        match self {
            Side::Above => Side::Below,
            Side::Below => Side::Above,
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// The ranks as a grid, row by row from the top left, and which columns and rows of cells each part
/// of it has.
struct Grid {
    columns: Split,
    rows: Split,
}

impl Grid {
    /// Of all grids of so many ranks, the one that leaves the fewest ranks without cells, and of
    /// these the one with the shortest borders.
    fn new(Size { width, height }: Size, ranks: usize) -> Self {
        let grids = (1..=ranks).filter(|across| ranks.is_multiple_of(*across));
        let best = grids.map(|across| (across, ranks / across)).min_by_key(
            |&(across, down): &(usize, usize)| {
                let busy = across.min(width) * down.min(height);
                (ranks - busy, (across - 1) * height + (down - 1) * width)
            },
        );
        let (across, down) = best.unwrap_or((1, ranks));
        Self {
            columns: Split::new(width, across),
            rows: Split::new(height, down),
        }
    }

    /// Column and row in the grid.
    fn place(&self, rank: Rank) -> (usize, usize) {
        let rank = rank.0 as usize;
        (rank % self.columns.parts, rank / self.columns.parts)
    }

    /// Cells of a rank: width and height.
    fn shape(&self, rank: Rank) -> (usize, usize) {
        let (column, row) = self.place(rank);
        (self.columns.len(column), self.rows.len(row))
    }

    /// The rank next to one that has cells, if there is one that has cells too.
    fn neighbour(&self, rank: Rank, side: Side) -> Option<Rank> {
        let (column, row) = self.place(rank);
        let (column, row) = match side {
            Side::Above => (column, row.checked_sub(1)?),
            Side::Below => (column, row + 1),
            Side::Left => (column.checked_sub(1)?, row),
            Side::Right => (column + 1, row),
        };
        let there = column < self.columns.parts && row < self.rows.parts;
        let rank = there.then(|| Rank((row * self.columns.parts + column) as u32))?;
        let (width, height) = self.shape(rank);
        (width * height > 0).then_some(rank)
    }
}

/// The cells of one rank, row by row, and its neighbours by [`Side`].
struct Block {
    width: usize,
    cells: Vec<f64>,
    neighbours: [Option<Rank>; 4],
    /// Room for the halo cells of one side of any block.
    room: usize,
}

impl Block {
    /// The block at step 0.
    fn start(grid: &Grid, rank: Rank) -> Self {
        let (column, row) = grid.place(rank);
        let (width, height) = grid.shape(rank);
        let (columns, rows) = (grid.columns.range(column), grid.rows.range(row));
        let size = Size {
            width: grid.columns.items,
            height: grid.rows.items,
        };
        let neighbours = if width * height > 0 {
            Side::ALL.map(|side| grid.neighbour(rank, side))
        } else {
            [None; 4]
        };
        Self {
            width,
            cells: exact(size, columns, rows, 0),
            neighbours,
            room: grid.columns.longest().max(grid.rows.longest()),
        }
    }

    fn height(&self) -> usize {
        self.cells.len().checked_div(self.width).unwrap_or(0)
    }

    /// Copies the cells along a side.
    fn edge(&self, side: Side, into: &mut Vec<f64>) {
        let (width, cells) = (self.width, &self.cells);
        into.clear();
        match side {
            Side::Above => into.extend_from_slice(&cells[..width]),
            Side::Below => into.extend_from_slice(&cells[cells.len() - width..]),
            Side::Left => into.extend(cells.iter().step_by(width)),
            Side::Right => into.extend(cells[width - 1..].iter().step_by(width)),
        }
    }

    /// Advances the block. Answers how long the steps took and, at rank 0, which mechanisms the
    /// ranks' routes use. Collective.
    fn solve(&mut self, world: &World, steps: u32) -> Result<(Vec<Usage>, Duration), Failure> {
        let bar = progress::bar(world, "pscw_halo", steps as usize, "steps");
        let partners: Vec<Rank> = self.neighbours.into_iter().flatten().collect();
        let group = world.group().incl(&partners)?;
        let mut next = vec![0.0; self.cells.len()];
        let mut outgoing = Vec::with_capacity(self.room);
        let mut halos = Side::ALL.map(|side| {
            let len = match side {
                Side::Above | Side::Below => self.width,
                Side::Left | Side::Right => self.height(),
            };
            self.neighbours[side as usize].map(|_| vec![0.0; len])
        });
        let halo: Window<f64> = world.allocate(Side::ALL.len() * self.room)?;
        world.barrier()?;
        let began = Instant::now();
        for _ in 0..steps {
            let exposure = halo.post(&group)?;
            let access = halo.start(&group)?;
            for side in Side::ALL {
                if let Some(rank) = self.neighbours[side as usize] {
                    self.edge(side, &mut outgoing);
                    access.put(&outgoing, rank, side.opposite() as usize * self.room)?;
                }
            }
            access.end()?;
            exposure.wait()?;
            for (side, cells) in halos.iter_mut().enumerate() {
                if let Some(cells) = cells {
                    halo.local().read(side * self.room, cells)?;
                }
            }
            let [above, below, left, right] = halos.each_ref().map(Option::as_deref);
            let outside = Outside {
                above,
                below,
                left,
                right,
            };
            if self.width > 0 {
                stencil::advance(&self.cells, &outside, self.width, &mut next);
            }
            std::mem::swap(&mut self.cells, &mut next);
            bar.inc(1);
        }
        world.barrier()?;
        let elapsed = began.elapsed();
        bar.finish_and_clear();
        let usage = mechanisms::count(world, &halo, &partners)?;
        halo.free()?;
        Ok((usage, elapsed))
    }
}

/// The field that consists of the blocks of all ranks, one after the other.
fn assemble(grid: &Grid, mut blocks: &[f64]) -> Vec<f64> {
    let mut whole = vec![0.0; blocks.len()];
    for rank in (0..(grid.columns.parts * grid.rows.parts) as u32).map(Rank) {
        let (column, row) = grid.place(rank);
        for y in grid.rows.range(row) {
            let into = &mut whole[y * grid.columns.items..][grid.columns.range(column)];
            let from;
            (from, blocks) = blocks.split_at(into.len());
            into.copy_from_slice(from);
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 23,
        height: 17,
    };

    #[test]
    fn a_step_of_the_exact_solution_is_a_step_of_the_equation() {
        for steps in 0..50 {
            let stepped = stencil::serial(&whole(SIZE, steps), SIZE.width, 1);
            let difference = stencil::largest_difference(&stepped, &whole(SIZE, steps + 1));
            assert!(
                difference <= rounding(1),
                "{difference} after {steps} steps"
            );
        }
    }

    #[test]
    fn a_part_of_the_exact_solution_is_that_part_to_the_bit() {
        let (all, part) = (whole(SIZE, 7), exact(SIZE, 5..9, 3..6, 7));
        for (y, row) in (3..6).zip(part.chunks_exact(4)) {
            assert_eq!(row, &all[y * SIZE.width + 5..][..4]);
        }
        assert!(exact(SIZE, 5..5, 3..6, 7).is_empty());
    }

    /// Blocks of any grid, whose halos are filled by hand, step as the whole field does.
    #[test]
    fn blocks_with_halos_step_as_the_whole_field() {
        let after = stencil::serial(&whole(SIZE, 0), SIZE.width, 1);
        for ranks in [1, 2, 3, 4, 6, 9, 12, 29] {
            let grid = Grid::new(SIZE, ranks);
            let blocks: Vec<Block> = (0..ranks as u32)
                .map(|rank| Block::start(&grid, Rank(rank)))
                .collect();
            for (rank, block) in blocks.iter().enumerate() {
                let halos = Side::ALL.map(|side| {
                    let there = &blocks[block.neighbours[side as usize]?.0 as usize];
                    let back = there.neighbours[side.opposite() as usize];
                    assert_eq!(back, Some(Rank(rank as u32)));
                    let mut cells = Vec::new();
                    there.edge(side.opposite(), &mut cells);
                    assert!(cells.len() <= block.room);
                    Some(cells)
                });
                if block.cells.is_empty() {
                    assert_eq!(block.neighbours, [None; 4]);
                    continue;
                }
                let [above, below, left, right] = halos.each_ref().map(Option::as_deref);
                let outside = Outside {
                    above,
                    below,
                    left,
                    right,
                };
                let mut next = vec![0.0; block.cells.len()];
                stencil::advance(&block.cells, &outside, block.width, &mut next);
                let (column, row) = grid.place(Rank(rank as u32));
                for (y, ours) in grid.rows.range(row).zip(next.chunks_exact(block.width)) {
                    let theirs = &after[y * SIZE.width..][grid.columns.range(column)];
                    assert_eq!(ours, theirs, "rank {rank} of {ranks}, row {y}");
                }
            }
        }
    }

    #[test]
    fn grids_are_nearly_square_and_leave_nobody_idle() {
        let shape = |width, height, ranks| {
            let grid = Grid::new(Size { width, height }, ranks);
            (grid.columns.parts, grid.rows.parts)
        };
        assert_eq!(shape(300, 300, 9), (3, 3));
        assert_eq!(shape(400, 100, 4), (4, 1));
        assert_eq!(shape(2, 100, 6), (1, 6));
    }
}

//! Work of uneven cost, dealt out by a shared counter.
//!
//! The work is the Mandelbrot set, row by row: a row through the middle costs hundreds of times as
//! much as one at the edge. Rank 0's window has a counter; whoever wants work adds to it by
//! `fetch_and_op` and computes the rows from the old value on. Nobody deals out anything, and rank 0
//! computes like the others. Finished rows are put into a picture in another window of rank 0.
//!
//! The same picture is then computed with the rows dealt out beforehand, in equal blocks, and a
//! third time by rank 0 alone. All three must be equal in every point; the exit code is 1 if they
//! are not.
//!
//! ```text
//! cargo windlass run -n 4 --example counter
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
use indicatif::ProgressBar;
use job::{Failure, ROOT};
use size::Size;
use split::Split;
use windlass::{LockKind, Op, Window, World};

/// Computes the Mandelbrot set with rows dealt out by a shared counter, compares the balance with
/// that of equal blocks, and the result with a serial run
#[derive(Parser, Debug)]
#[command(name = "counter", version, after_help = EXAMPLES)]
struct Arguments {
    /// Points of the picture, WIDTHxHEIGHT
    #[arg(long, default_value = "600x400")]
    size: Size,
    /// Steps after which a point counts as part of the set
    #[arg(long, default_value_t = 1000, value_parser = job::at_least_one::<u32>())]
    iterations: u32,
    /// Rows that a rank draws at once
    #[arg(long, value_name = "ROWS", default_value_t = 1, value_parser = job::at_least_one::<u32>())]
    chunk: u32,
}

const EXAMPLES: &str = "\
Examples:
  cargo windlass run -n 4 --example counter
  cargo windlass run -n 4 --nodes 2 --ves 1 --place ve:1,vh:1 --example counter -- --chunk 4
  cargo windlass run -n 8 --example counter -- --size 1500x1000 --iterations 5000";

fn main() -> ExitCode {
    job::main("counter", run)
}

fn run(world: &World) -> Result<ExitCode, Failure> {
    let arguments = match job::arguments::<Arguments>(world)? {
        Ok(arguments) => arguments,
        Err(code) => return Ok(code),
    };
    // The window, both ways of dealing rows out, and the serial run.
    let bytes = 4 * 4 * arguments.size.cells();
    if !job::is_room(world, bytes, "give a smaller --size")? {
        return Ok(ExitCode::from(2));
    }
    let mut windows = Windows {
        counter: world.allocate(usize::from(world.rank() == ROOT))?,
        picture: world.allocate(match world.rank() {
            ROOT => arguments.size.width * arguments.size.height,
            _ => 0,
        })?,
    };
    let drawn = windows.render(world, &arguments, Schedule::Counter)?;
    let dealt = windows.render(world, &arguments, Schedule::Blocks)?;
    let usage = mechanisms::count(world, &windows.picture, &[ROOT])?;
    windows.counter.free()?;
    windows.picture.free()?;
    if world.rank() != ROOT {
        return Ok(ExitCode::SUCCESS);
    }

    let began = Instant::now();
    let mut alone = Vec::new();
    for y in 0..arguments.size.height {
        alone.extend(row(&arguments, y));
    }
    let serial = began.elapsed();
    let points = arguments.size.height * arguments.size.width;
    let inside = alone.iter().filter(|&&steps| steps == arguments.iterations);
    let area = AREA.0 * AREA.1 * inside.count() as f64 / points as f64;
    println!(
        "{} points, up to {} steps: {:.1} ms serial; area of the set {area:.4}, known to be 1.5066",
        arguments.size,
        arguments.iterations,
        serial.as_secs_f64() * 1e3,
    );
    drawn.print("rows drawn from the counter");
    dealt.print("rows dealt out in equal blocks");
    mechanisms::print(&usage);
    let different = |ours: &[u32]| ours.iter().zip(&alone).filter(|(a, b)| a != b).count();
    let (by_counter, by_blocks) = (different(&drawn.picture), different(&dealt.picture));
    println!("points that differ from the serial run: {by_counter} and {by_blocks}");
    Ok(if by_counter == 0 && by_blocks == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Width and height of the part of the plane that is computed, around -1/2.
const AREA: (f64, f64) = (3.0, 2.5);

/// Steps of every point of a row until it leaves the circle of radius 2.
fn row(arguments: &Arguments, y: usize) -> impl Iterator<Item = u32> {
    let Arguments {
        size, iterations, ..
    } = *arguments;
    let im = ((y as f64 + 0.5) / size.height as f64 - 0.5) * AREA.1;
    (0..size.width).map(move |x| {
        let re = ((x as f64 + 0.5) / size.width as f64 - 0.5) * AREA.0 - 0.5;
        escape(re, im, iterations)
    })
}

/// Steps of z -> z^2 + c until z leaves the circle of radius 2, at most `limit`.
fn escape(re: f64, im: f64, limit: u32) -> u32 {
    let (mut x, mut y) = (0.0, 0.0);
    for step in 0..limit {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > 4.0 {
            return step;
        }
        (x, y) = (xx - yy + re, 2.0 * x * y + im);
    }
    limit
}

/// How rows come to ranks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Schedule {
    /// Whoever is free draws the next.
    Counter,
    /// Every rank has its block.
    Blocks,
}

/// What a rank did.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    rows: u64,
    /// Steps of all its points.
    steps: u64,
    /// Until it found no more work.
    busy: Duration,
    draws: u64,
    /// In `fetch_and_op`.
    drawing: Duration,
}

impl Share {
    fn pack(self) -> [u64; 5] {
        let [busy, drawing] = [self.busy, self.drawing].map(|time| time.as_nanos() as u64);
        [self.rows, self.steps, busy, self.draws, drawing]
    }

    fn unpack(&[rows, steps, busy, draws, drawing]: &[u64; 5]) -> Self {
        Self {
            rows,
            steps,
            busy: Duration::from_nanos(busy),
            draws,
            drawing: Duration::from_nanos(drawing),
        }
    }
}

/// A picture and how it came about.
struct Rendered {
    /// At rank 0 only.
    picture: Vec<u32>,
    shares: Vec<Share>,
    elapsed: Duration,
}

impl Rendered {
    fn print(&self, title: &str) {
        let steps: u64 = self.shares.iter().map(|share| share.steps).sum();
        println!("{title}:");
        for (rank, share) in self.shares.iter().enumerate() {
            println!(
                "  rank {rank:2}: {:5} rows, {:5.1} % of the steps, busy {:8.1} ms",
                share.rows,
                100.0 * share.steps as f64 / steps.max(1) as f64,
                share.busy.as_secs_f64() * 1e3,
            );
        }
        println!(
            "  {:.1} ms, {:.1} million steps per second; most over mean: steps {:.2}, time {:.2}",
            self.elapsed.as_secs_f64() * 1e3,
            steps as f64 / self.elapsed.as_secs_f64() / 1e6,
            imbalance(self.shares.iter().map(|share| share.steps as f64)),
            imbalance(self.shares.iter().map(|share| share.busy.as_secs_f64())),
        );
        let draws: u64 = self.shares.iter().map(|share| share.draws).sum();
        if draws > 0 {
            let drawing: Duration = self.shares.iter().map(|share| share.drawing).sum();
            let each = drawing.as_secs_f64() * 1e6 / draws as f64;
            println!("  {draws} draws, {each:.2} us each");
        }
    }
}

/// The largest over the mean: 1 is perfect, the number of ranks the worst.
fn imbalance(loads: impl Iterator<Item = f64> + Clone) -> f64 {
    let (most, count) = (loads.clone().fold(0.0, f64::max), loads.clone().count());
    let mean = loads.sum::<f64>() / count as f64;
    if mean > 0.0 { most / mean } else { 1.0 }
}

/// What rank 0 exposes.
struct Windows {
    /// One element: the first row that nobody has drawn.
    counter: Window<u64>,
    picture: Window<u32>,
}

impl Windows {
    /// Computes the picture. Collective.
    fn render(
        &mut self,
        world: &World,
        arguments: &Arguments,
        schedule: Schedule,
    ) -> Result<Rendered, Failure> {
        self.counter.lock_local()?.fill(0);
        self.picture.lock_local()?.fill(0);
        let bar = progress::bar(world, "counter", arguments.size.height, "rows");
        world.barrier()?;
        let began = Instant::now();
        let mut share = self.work(world, arguments, schedule, &bar)?;
        share.busy = began.elapsed();
        world.barrier()?;
        let elapsed = began.elapsed();
        bar.finish_and_clear();
        let shares = job::gather(world, &share.pack())?;
        Ok(Rendered {
            picture: self.picture.lock_local()?.to_vec(),
            shares: shares.as_chunks().0.iter().map(Share::unpack).collect(),
            elapsed,
        })
    }

    /// This rank's part of it. On return its rows are in the picture.
    fn work(
        &self,
        world: &World,
        arguments: &Arguments,
        schedule: Schedule,
        bar: &ProgressBar,
    ) -> Result<Share, Failure> {
        let Size { width, height } = arguments.size;
        let chunk = arguments.chunk as usize;
        let counter = self.counter.lock(ROOT, LockKind::Shared)?;
        let picture = self.picture.lock(ROOT, LockKind::Shared)?;
        let mut share = Share::default();
        let mut block = Split::new(height, world.size() as usize).range(world.rank().0 as usize);
        loop {
            let rows = match schedule {
                Schedule::Blocks => std::mem::take(&mut block),
                Schedule::Counter => {
                    let began = Instant::now();
                    let first = counter.fetch_and_op(chunk as u64, ROOT, 0, Op::Sum)? as usize;
                    share.drawing += began.elapsed();
                    share.draws += 1;
                    bar.set_position(first.min(height) as u64);
                    first..height.min(first + chunk)
                }
            };
            if rows.is_empty() {
                break;
            }
            for y in rows {
                let row: Vec<u32> = row(arguments, y).collect();
                share.rows += 1;
                share.steps += row.iter().map(|&steps| u64::from(steps)).sum::<u64>();
                picture.put(&row, ROOT, y * width)?;
            }
        }
        counter.end()?;
        picture.end()?;
        Ok(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_known_fate() {
        // Fixed, of period 2, and of period 2 after two steps: all in the set.
        for (re, im) in [(0.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (-2.0, 0.0)] {
            assert_eq!(escape(re, im, 1000), 1000, "{re} + {im} i");
        }
        // 0, 1, 2, 5 and 0, 3.
        assert_eq!(escape(1.0, 0.0, 1000), 3);
        assert_eq!(escape(3.0, 0.0, 1000), 1);
        assert_eq!(escape(1.0, 0.0, 2), 2);
    }

    #[test]
    fn imbalance_is_most_over_mean() {
        assert_eq!(imbalance([3.0, 1.0].into_iter()), 1.5);
        assert_eq!(imbalance([0.0; 4].into_iter()), 1.0);
        assert_eq!(imbalance([0.0, 0.0, 8.0, 0.0].into_iter()), 4.0);
    }

    #[test]
    fn a_share_survives_its_packing() {
        let packed = [1, 2, 3, 4, 5];
        assert_eq!(Share::unpack(&packed).pack(), packed);
    }
}

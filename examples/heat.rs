//! The two-dimensional heat equation over any number of ranks.
//!
//! Each rank owns a block of rows. After every step it puts its first and last row into the window
//! of the neighbour above and below; a fence separates the steps. The window holds two sets of halo
//! rows, used in turn: while a rank still reads the rows of one step, its neighbours already put
//! those of the next, so one fence per step is enough.
//!
//! Rank 0 also runs the same steps alone. Both compute every cell by the same operations in the
//! same order, so the results must be equal to the last bit; the exit code is 1 if they are not.
//!
//! ```text
//! cargo windlass run -n 10 --nodes 2 --ves 2 --place ve0:2,ve1:1,vh:2 --example heat
//! ```

#[path = "support/job.rs"]
mod job;
#[path = "support/mechanisms.rs"]
mod mechanisms;
#[path = "support/picture.rs"]
mod picture;
#[path = "support/progress.rs"]
mod progress;
#[path = "support/size.rs"]
mod size;
#[path = "support/split.rs"]
mod split;
#[path = "support/stencil.rs"]
mod stencil;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use job::{Failure, ROOT};
use mechanisms::Usage;
use picture::{Field, Legend};
use size::Size;
use split::Split;
use stencil::Outside;
use windlass::{Rank, World};

/// Solves the heat equation with halo exchange by put and fence, and compares with a serial run
#[derive(Parser, Debug)]
#[command(name = "heat", version, after_help = EXAMPLES)]
struct Arguments {
    /// Time steps
    #[arg(long, default_value_t = 200)]
    steps: usize,
    /// Size of the built-in field, WIDTHxHEIGHT
    #[arg(long, default_value = "480x320", conflicts_with = "input")]
    size: Size,
    /// Picture to start from, PGM or PNG: bright is hot
    #[arg(long, value_name = "PICTURE")]
    input: Option<PathBuf>,
    /// Picture to write: the field before and after, side by side
    #[arg(long, value_name = "PNG", default_value = "heat.png", value_parser = png_path)]
    output: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cargo windlass run -n 4 --example heat
  cargo windlass run -n 10 --nodes 2 --ves 2 --place ve0:2,ve1:1,vh:2 --example heat
  cargo windlass run -n 4 --example heat -- --size 1024x512 --steps 1000 --output big.png
  cargo windlass run -n 4 --example heat -- --input photo.png";

fn png_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
    {
        return Err("the result is written as PNG; give a name that ends in .png".into());
    }
    match path.parent() {
        Some(folder) if folder != "" && !folder.is_dir() => Err(format!(
            "there is no folder {}; create it, or write elsewhere",
            folder.display()
        )),
        _ => Ok(path),
    }
}

fn main() -> ExitCode {
    job::main("heat", run)
}

fn run(world: &World) -> Result<ExitCode, Failure> {
    let arguments = match job::arguments::<Arguments>(world)? {
        Ok(arguments) => arguments,
        Err(code) => return Ok(code),
    };
    let ranks = world.size() as usize;
    let Size { width, height } = arguments.size;
    let room = |width, height| {
        let bytes = bytes(width, height, ranks);
        job::is_room(world, bytes, "give a smaller --size or picture")
    };
    if arguments.input.is_none() && !room(width, height)? {
        return Ok(ExitCode::from(2));
    }
    let start = match starting_field(world, &arguments) {
        Some(Ok(field)) => Some(field),
        Some(Err(why)) => {
            eprintln!("heat: {why}");
            None
        }
        None => None,
    };
    // A field without a cell says that rank 0 has none: all ranks end alike.
    let shape = start
        .as_ref()
        .map_or([0, 0], |field| [field.width as u64, field.height as u64]);
    let shape = job::share(world, ROOT, shape.to_vec())?;
    let (width, height) = (shape[0] as usize, shape[1] as usize);
    if width == 0 {
        return Ok(ExitCode::FAILURE);
    }

    if arguments.input.is_some() && !room(width, height)? {
        return Ok(ExitCode::from(2));
    }
    let split = Split::new(height, ranks);
    let mut block = Block::scatter(world, &split, width, start.as_ref())?;
    let (usage, parallel) = block.solve(world, arguments.steps)?;
    let cells = job::collect(world, &block.cells)?;
    match start {
        None => Ok(ExitCode::SUCCESS),
        Some(start) => {
            let result = Field {
                width,
                height,
                cells,
            };
            conclude(&arguments, &start, &result, &split, &usage, parallel)
        }
    }
}

/// Memory that all ranks together need at one time: the field before and after, the blocks and what
/// they are made into, the serial run; halo rows and copies of them for each rank; the picture.
fn bytes(width: usize, height: usize, ranks: usize) -> u64 {
    let [width, height, ranks] = [width, height, ranks].map(|count| count as u64);
    8 * (6 * width * height + 6 * width * ranks) + picture::bytes(width, height)
}

/// What rank 0 does with the result: compares it with a serial run, reports, draws.
fn conclude(
    arguments: &Arguments,
    start: &Field,
    result: &Field,
    split: &Split,
    usage: &[Usage],
    parallel: Duration,
) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let alone = stencil::serial(&start.cells, start.width, arguments.steps);
    println!(
        "{}x{} cells, {}: {:.1} ms on {}, {:.1} ms serial",
        result.width,
        result.height,
        job::count(arguments.steps as u32, "step"),
        parallel.as_secs_f64() * 1e3,
        job::count(split.parts as u32, "rank"),
        began.elapsed().as_secs_f64() * 1e3,
    );
    mechanisms::print(usage);
    let difference = stencil::largest_difference(&result.cells, &alone);
    println!("largest difference to the serial run: {difference:?}");

    let owners = (0..split.parts).filter(|&rank| split.len(rank) > 0);
    let legend = Legend {
        steps: arguments.steps,
        blocks: &owners.map(|rank| split.first(rank)).collect::<Vec<_>>(),
    };
    let output = &arguments.output;
    let drawn = picture::draw(start, result, &legend).save(output);
    drawn.map_err(|e| format!("cannot write {}: {e}", output.display()))?;
    println!("picture: {}", output.display());
    Ok(if difference == 0.0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The field at step 0, at rank 0 only.
fn starting_field(world: &World, arguments: &Arguments) -> Option<Result<Field, String>> {
    (world.rank() == ROOT).then(|| match &arguments.input {
        Some(path) => Field::read(path),
        None => Ok(Field::built_in(arguments.size)),
    })
}

/// The rows of one rank, and the neighbours that own the rows next to them.
struct Block {
    width: usize,
    cells: Vec<f64>,
    above: Option<Rank>,
    below: Option<Rank>,
}

impl Block {
    /// Each rank fetches its rows from the window of rank 0, which has the whole field. Collective.
    fn scatter(
        world: &World,
        split: &Split,
        width: usize,
        start: Option<&Field>,
    ) -> Result<Self, Failure> {
        let me = world.rank().0 as usize;
        let whole = start.map_or(&[][..], |field| &field.cells);
        let mine = split.first(me) * width..split.first(me + 1) * width;
        let cells = job::scatter(world, whole, mine)?;
        let owner =
            |rank: usize| (rank < split.parts && split.len(rank) > 0).then_some(Rank(rank as u32));
        let (above, below) = match cells.is_empty() {
            true => (None, None),
            false => (me.checked_sub(1).and_then(owner), owner(me + 1)),
        };
        Ok(Self {
            width,
            cells,
            above,
            below,
        })
    }

    /// Advances the field. Answers how long the steps took and, at rank 0, which mechanisms the
    /// ranks' routes use. Collective.
    fn solve(&mut self, world: &World, steps: usize) -> Result<(Vec<Usage>, Duration), Failure> {
        let bar = progress::bar(world, "heat", steps, "steps");
        let width = self.width;
        let rows = self.cells.len() / width;
        let mut next = vec![0.0; self.cells.len()];
        let (mut above, mut below) = (vec![0.0; width], vec![0.0; width]);
        // Two sets of two halo rows: the row above the block, then the row below it.
        let mut halo = world.allocate::<f64>(4 * width)?;
        let mut epoch = halo.fence()?;
        let began = Instant::now();
        for step in 0..steps {
            let set = step % 2 * 2 * width;
            // My first row is the row below the block above, and the reverse.
            if let Some(rank) = self.above {
                epoch.put(&self.cells[..width], rank, set + width)?;
            }
            if let Some(rank) = self.below {
                epoch.put(&self.cells[(rows - 1) * width..], rank, set)?;
            }
            epoch = epoch.next()?;
            if self.above.is_some() {
                epoch.local().read(set, &mut above)?;
            }
            if self.below.is_some() {
                epoch.local().read(set + width, &mut below)?;
            }
            let outside = Outside {
                above: self.above.map(|_| &above[..]),
                below: self.below.map(|_| &below[..]),
                ..Outside::default()
            };
            stencil::advance(&self.cells, &outside, width, &mut next);
            std::mem::swap(&mut self.cells, &mut next);
            bar.inc(1);
        }
        epoch.end()?;
        let elapsed = began.elapsed();
        bar.finish_and_clear();
        let mut partners: Vec<Rank> = self.above.into_iter().chain(self.below).collect();
        // The field came from rank 0, and goes back to it.
        match world.rank() {
            ROOT => partners.extend((1..world.size()).map(Rank)),
            _ => partners.push(ROOT),
        }
        let usage = mechanisms::count(world, &halo, &partners)?;
        halo.free()?;
        Ok((usage, elapsed))
    }
}

//! The command `windlass plot`: results in, pictures out.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use windlass_plot::{Chart, Error, Kind, Result, Wish, chart};

const EXAMPLES: &str = "\
Examples:
  windlass plot put.txt -o put.svg -o put.png
  windlass plot mpich.txt openmpi.txt ours.json --base mpich -o latency.png
  windlass plot a.txt b.txt -n 'one node' -n 'two nodes' --note '27 November 2026' -o nodes.svg
  windlass bench put-latency --all-routes --json | windlass plot - -o routes.png
  windlass bench put-latency -f | windlass plot - --percentiles -o spread.png

A result is what `windlass bench` printed, as text or --json, or a file in the format of OSU's \
benchmarks: lines that begin with # are remarks, each other line has a size in bytes and a value. \
A file may hold several, one after the other. The unit stands in the remark above the rows, as in `# Size  Latency (us)`.";

/// Draw curves of benchmark results, and below them each over the first, as SVG and PNG
#[derive(Debug, Parser)]
#[command(name = "windlass-plot", bin_name = "windlass plot", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    /// Results to draw; - is standard input
    #[arg(value_name = "RESULT", required = true)]
    results: Vec<PathBuf>,
    /// Picture to write, by the end of its name .svg or .png; may be repeated
    #[arg(short = 'o', long, value_name = "FILE", required = true)]
    output: Vec<PathBuf>,
    /// Name of a curve, in the order of the results; may be repeated [default: what their headings say]
    #[arg(short = 'n', long, value_name = "NAME")]
    name: Vec<String>,
    /// Text above the picture [default: what the headings have in common]
    #[arg(short = 't', long)]
    title: Option<String>,
    /// Text below the picture: when and where it was measured
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    /// Curve that the others are compared with: its name, or a part of it [default: the first]
    #[arg(short = 'b', long, value_name = "NAME")]
    base: Option<String>,
    /// How measurements are distributed, a panel for each curve: of results with such columns (bench -f)
    #[arg(short = 'p', long)]
    percentiles: bool,
    /// What values are where no heading says it
    #[arg(short = 'k', long, value_enum)]
    kind: Option<KindChoice>,
}

/// `--kind`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindChoice {
    /// Microseconds
    Latency,
    /// MB/s, of 1,000,000 bytes
    Bandwidth,
    /// Messages per second
    Rate,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windlass plot: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    // Before anything is read from a pipe that cannot be read again.
    for output in &cli.output {
        Chart::is_writable(output)?;
        keeps_results(output, &cli.results)?;
    }
    let results = cli.results.iter().map(|path| Ok((name(path), read(path)?)));
    let results: Vec<(String, Vec<u8>)> = results.collect::<Result<_>>()?;
    let wish = Wish {
        names: cli.name,
        title: cli.title,
        kind: cli.kind.map(|kind| match kind {
            KindChoice::Latency => Kind::Latency,
            KindChoice::Bandwidth => Kind::Bandwidth,
            KindChoice::Rate => Kind::Rate,
        }),
        base: cli.base,
        note: cli.note,
        percentiles: cli.percentiles,
    };
    let (chart, warnings) = chart(&results, &wish)?;
    for warning in warnings {
        eprintln!("windlass plot: warning: {warning}");
    }
    for output in &cli.output {
        let done = if chart.write(output)? {
            "replaced"
        } else {
            "wrote"
        };
        // A reader that has gone has seen enough.
        let _ = writeln!(std::io::stdout(), "{done} {}", output.display());
    }
    Ok(())
}

/// As errors name it.
fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".into()
    } else {
        path.display().to_string()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    read.map_err(|source| Error::File {
        path: path.to_owned(),
        source,
        remedy: "give a result that can be read, or - for standard input",
    })
}

/// A picture must not replace what it is drawn from.
fn keeps_results(output: &Path, results: &[PathBuf]) -> Result<()> {
    let same = |result: &&PathBuf| {
        let both = (output.canonicalize(), result.canonicalize());
        matches!(both, (Ok(output), Ok(result)) if output == result)
    };
    match results.iter().find(same) {
        None => Ok(()),
        Some(result) => Err(Error::Usage(format!(
            "{}: this is also a result; give -o another file",
            result.display()
        ))),
    }
}

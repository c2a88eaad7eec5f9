//! The command line: what users type, and what it means.
//!
//! Relies on: clap. Promises: options stand before the program, everything after it belongs to
//! the program; NEC's `-ve 0-1` and `-vh`, and `-np`, are understood; a mistake is answered with
//! the remedy, and the launcher's exit code is then 2.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::bench::{self, Bench};
use crate::environment;
use crate::error::Result;
use crate::job::Job;
use crate::place::Map;
use crate::topology::Bind;

const EXIT_CODES: &str = "\
Exit code:
  0        every rank ended well
  N        ranks failed: of those that had failed when the launcher began to end the job, the
           lowest rank counts: its exit status; 128 + S if signal S ended it; 1 if it exited with
           status 0 after joining the job and without ending it. Ranks that failed because another
           one left first count only if that one exited with status 0
  N        a rank aborted the job: the code it gave (1 if that is not 1 to 255)
  124      --timeout passed
  128 + S  the launcher was interrupted by signal S (a first SIGINT, SIGTERM or SIGHUP is forwarded
           to the ranks, a second one kills them)
  2        the job could not be run: the message says why

When a rank fails, the others get SIGTERM at once and SIGKILL one second later.";

const RUN_EXAMPLES: &str = "\
Examples:
  windlass run -n 4 ./my_program input.dat
  windlass run -n 10 --nodes 2 --ves 2 --place ve0:2,ve1:1,vh:2 --example heat
  windlass run -n 4 -ve 0-1 ./my_program          NEC's spelling of --place ve0-1
  windlass run -n 2 -l --timeout 60 -x WINDLASS_LOG=debug --bin my_program -- --its-option

Places (the list describes one node and is repeated for each):
  vh          the host side          ve1     VE number 1
  ve          every VE               ve0-3   VEs 0 to 3
  PLACE:N     N ranks there (ve0-3:N: on each; ve:N: dealt over all). With counts, -n is nodes x sum;
              without counts the ranks are dealt over the places: without -n, one to each.";

/// Windlass: one-sided communication over windows, with the best route for every pair of ranks.
#[derive(Debug, Parser)]
#[command(
    name = "windlass",
    version,
    propagate_version = true,
    max_term_width = 110
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program as ranks of one job
    #[command(after_help = RUN_EXAMPLES, after_long_help = format!("{RUN_EXAMPLES}\n\n{EXIT_CODES}"))]
    Run(Run),
    /// Say what this machine and this build offer
    Info {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// For every pair of ranks: the route a window gets, and why not the others
    #[command(
        after_help = "Examples:\n  windlass explain --place ve0,ve1,vh\n  windlass explain -n 6 --nodes 2 --ves 2\n  \
                      windlass explain -w create"
    )]
    Explain {
        /// Placement and the like.
        #[command(flatten)]
        placement: Placement,
        /// Where the window's memory comes from
        #[arg(short = 'w', long, value_enum, default_value_t)]
        window: Memory,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep, list or stop the VE nodes that separately started C programs use
    #[command(after_help = crate::node::EXAMPLES)]
    Node(crate::node::Node),
    /// Measure between ranks: operations, synchronisation, windows
    #[command(after_help = bench::examples(), disable_version_flag = true)]
    Bench(Bench),
    /// Draw results of bench, or of OSU's benchmarks, as SVG and PNG
    #[command(
        disable_help_flag = true,
        disable_version_flag = true,
        override_usage = "windlass plot [OPTIONS] <RESULT>... -o FILE.svg|FILE.png",
        after_help = "Examples:\n  windlass plot --help\n  windlass plot ours.txt mpich.txt -o put.svg -o put.png\n  \
                      windlass bench put-latency --json | windlass plot - -o put.png"
    )]
    Plot {
        /// What `windlass plot --help` lists
        #[arg(
            value_name = "ARGS",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        args: Vec<OsString>,
    },
    /// The rank side of `explain`.
    #[command(name = "__explain", hide = true)]
    ExplainRank {
        /// Where the window's memory comes from.
        #[arg(value_enum)]
        window: Memory,
    },
    /// A process that does nothing until its standard input ends: what `info` probes.
    #[command(name = "__idle", hide = true)]
    Idle,
    /// Loads a libveo.so and says its version: what `info` asks, of a process of its own.
    #[command(name = "__veo", hide = true)]
    Veo {
        /// Path or soname.
        file: OsString,
    },
    /// The same of a libfabric.so.1, and which providers it has.
    #[command(name = "__ofi", hide = true)]
    Ofi {
        /// Path or soname.
        file: OsString,
    },
    /// The same of a libdat2.so.2 and the adapter that WINDLASS_DAT names.
    #[command(name = "__dat", hide = true)]
    Dat {
        /// Path or soname.
        file: OsString,
    },
}

/// Where a window's memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// Of the runtime
    #[default]
    Allocate,
    /// Lent by the program
    Create,
}

/// Options that place and supervise ranks, alike for all commands that start some.
#[derive(Debug, Args)]
pub struct Placement {
    /// Number of ranks [default: what --place says, one per place if it has no counts; without it
    /// one per node; explain and bench: at least 2]
    #[arg(
        short = 'n',
        long = "ranks",
        value_name = "N",
        value_parser = whole,
        allow_negative_numbers = true,
        help_heading = "Placement"
    )]
    pub ranks: Option<u32>,
    /// Logical nodes on this machine; they share no memory [default: 1]
    #[arg(long, value_name = "K", value_parser = whole, allow_negative_numbers = true, help_heading = "Placement")]
    pub nodes: Option<u32>,
    /// Emulated Vector Engines of each node, 0 to 8 [default: as many as --place names]
    #[arg(long, value_name = "V", value_parser = ves, allow_negative_numbers = true, help_heading = "Placement")]
    pub ves: Option<u32>,
    /// Where the ranks of each node live, as in ve0:2,ve1:2,vh:1 [default: ve if there are VEs, else vh]
    #[arg(long, value_name = "SPEC", help_heading = "Placement")]
    pub place: Option<String>,
    /// How ranks are dealt over nodes and VEs [default: nodes packed, VEs of a node cyclic]
    #[arg(long, value_name = "HOW", help_heading = "Placement")]
    pub map: Option<MapChoice>,
    /// Bind each rank
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "none",
        help_heading = "Placement"
    )]
    pub bind_to: BindChoice,
    /// Print where each rank is bound
    #[arg(long, help_heading = "Placement")]
    pub report_bindings: bool,
    /// Put the rank before each line of output
    #[arg(short = 'l', long = "label")]
    pub label: bool,
    /// End the job after so many seconds (exit code 124)
    #[arg(long, value_name = "S", value_parser = seconds, allow_negative_numbers = true)]
    pub timeout: Option<Duration>,
    /// Set a variable for the ranks; without =VAL: it must be set here. May be repeated
    #[arg(short = 'x', value_name = "VAR[=VAL]", action = ArgAction::Append)]
    pub export: Vec<OsString>,
}

/// `--map`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MapChoice {
    /// Fill a node, and on it a VE, before the next
    Packed,
    /// One to each in turn
    Cyclic,
}

/// `--bind-to`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BindChoice {
    /// One core each
    Core,
    /// One NUMA node each
    Numa,
    /// Not at all
    None,
}

/// `windlass run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Placement and the like.
    #[command(flatten)]
    pub placement: Placement,
    /// Build this example with cargo in release and run it; what follows goes to it
    #[arg(long, value_name = "NAME", conflicts_with = "bin")]
    pub example: Option<String>,
    /// Build this binary with cargo in release and run it; what follows goes to it
    #[arg(long, value_name = "NAME")]
    pub bin: Option<String>,
    /// The program (a path, or a name in PATH) and its arguments
    #[arg(value_name = "PROGRAM [ARGS]", trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

fn whole(text: &str) -> std::result::Result<u32, String> {
    text.parse()
        .map_err(|_| "give a whole number, as in 4".to_string())
}

/// Of more than there can be the placement says so.
fn ves(text: &str) -> std::result::Result<u32, String> {
    text.parse().map_err(|_| NUMBER_OF_VES.to_string())
}

/// What `--ves` takes.
pub(crate) const NUMBER_OF_VES: &str = "give 0 to 8";

pub(crate) fn seconds(text: &str) -> std::result::Result<Duration, String> {
    const REMEDY: &str = "give a number of seconds above 0, as in 30 or 2.5";
    let seconds: f64 = text.parse().map_err(|_| REMEDY.to_string())?;
    let limit = Duration::try_from_secs_f64(seconds).map_err(|_| REMEDY.to_string())?;
    if limit.is_zero() {
        Err(REMEDY.into())
    } else {
        Ok(limit)
    }
}

impl Placement {
    /// The variables of `-x`.
    pub fn exports(&self) -> Result<Vec<(OsString, OsString)>> {
        let each = self.export.iter().map(|text| environment::export(text));
        each.collect()
    }

    /// Puts these options on a job.
    pub fn apply(&self, mut job: Job) -> Result<Job> {
        let numbers = [self.ranks, self.nodes, self.ves];
        let setters = [Job::ranks, Job::nodes, Job::ves];
        for (number, set) in numbers.into_iter().zip(setters) {
            if let Some(number) = number {
                job = set(job, number);
            }
        }
        if let Some(place) = &self.place {
            job = job.place(place);
        }
        if let Some(map) = self.map {
            job = job.map(match map {
                MapChoice::Packed => Map::Packed,
                MapChoice::Cyclic => Map::Cyclic,
            });
        }
        if let Some(limit) = self.timeout {
            job = job.timeout(limit);
        }
        for (name, value) in self.exports()? {
            job = job.env(name, value);
        }
        let bind = match self.bind_to {
            BindChoice::Core => Bind::Core,
            BindChoice::Numa => Bind::Numa,
            BindChoice::None => Bind::None,
        };
        Ok(job
            .bind(bind)
            .report_bindings(self.report_bindings)
            .tag(self.label)
            .notices(true))
    }
}

impl Run {
    /// The program and its arguments, where a program was given.
    pub fn program(&self) -> Option<(PathBuf, &[OsString])> {
        let (program, args) = self.command.split_first()?;
        Some((program.into(), args))
    }
}

/// Rewrites what clap cannot say: NEC's `-ve LIST` and `-vh`, `-np N`, that everything after
/// `--example NAME` belongs to the example, and that `-x` of `bench` is a variable or a number of iterations. Only the launcher's own options are touched.
pub fn rewrite(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.by_ref().take(2).collect();
    let name = out.get(1).and_then(|name| name.to_str());
    let name = name.unwrap_or("").to_owned();
    let cli = Cli::command();
    let Some(command) = cli
        .find_subcommand(&name)
        .filter(|_| ["run", "explain", "bench"].contains(&name.as_str()))
    else {
        out.extend(args);
        return out;
    };
    let takes_value = |token: &str| takes_value(command, token);
    let mut positionals_left = usize::from(name == "bench");
    while let Some(token) = args.next() {
        let text = token.to_str().unwrap_or("").to_owned();
        let program_follows = text == "--example" || text == "--bin";
        match text.as_str() {
            // The benchmark's options may stand before it, too.
            "--" if name == "bench" => {}
            "--" => {
                out.push(token);
                break;
            }
            option if name == "bench" && option.starts_with("-x") => {
                let attached = Some(&option[2..]).filter(|value| !value.is_empty());
                let value = attached.map(Into::into).or_else(|| args.next());
                out.extend(bench::variable_or_warmup(value));
            }
            "-vh" => out.push("--place=vh".into()),
            "-np" => out.push("-n".into()),
            "-ve" => match args.next() {
                Some(list) => out.push(nec_list(&list)),
                None => out.push(token),
            },
            option if takes_value(option) => {
                out.push(token);
                out.extend(args.next());
            }
            option if option.starts_with('-') && option.len() > 1 => out.push(token),
            // The program, or the name of a benchmark.
            _ if positionals_left == 0 => {
                out.push(token);
                break;
            }
            _ => {
                positionals_left -= 1;
                out.push(token);
            }
        }
        if program_follows || text.starts_with("--example=") || text.starts_with("--bin=") {
            let next = args.next();
            // With or without it: what follows goes to the program.
            if let Some(next) = next {
                if next != "--" {
                    out.push("--".into());
                }
                out.push(next);
            }
            break;
        }
    }
    out.extend(args);
    out
}

/// A refusal without the tip that an unknown option may be the name of the program.
pub fn without_tip(mut refused: clap::Error) -> clap::Error {
    if let Some(ContextValue::StyledStrs(mut tips)) = refused.remove(ContextKind::Suggested) {
        tips.retain(|tip| !tip.to_string().contains("as a value"));
        if !tips.is_empty() {
            refused.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    refused
}

/// Is `token` an option of `command` that a value follows?
fn takes_value(command: &clap::Command, token: &str) -> bool {
    let same = |arg: &&clap::Arg| match token.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => arg
            .get_short()
            .is_some_and(|short| token == format!("-{short}")),
    };
    command
        .get_arguments()
        .find(same)
        .is_some_and(|arg| arg.get_action().takes_values())
}

/// `0-1` or `0,2` of `-ve` as a placement.
fn nec_list(list: &OsStr) -> OsString {
    let text = list.to_string_lossy();
    let items: Vec<String> = text.split(',').map(|item| format!("ve{item}")).collect();
    format!("--place={}", items.join(",")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let args = line.split(' ').map(OsString::from);
        let words: Vec<String> = rewrite(args)
            .into_iter()
            .map(|w| w.into_string().unwrap())
            .collect();
        words.join(" ")
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nec_spellings_are_understood_before_the_program_only() {
        let cases = [
            (
                "windlass run -ve 0-1 -n 2 prog -ve 3",
                "windlass run --place=ve0-1 -n 2 prog -ve 3",
            ),
            (
                "windlass run -vh -np 2 prog",
                "windlass run --place=vh -n 2 prog",
            ),
            (
                "windlass run -ve 0,2 prog",
                "windlass run --place=ve0,ve2 prog",
            ),
            ("windlass run -x -ve prog", "windlass run -x -ve prog"),
            ("windlass run -- prog -vh", "windlass run -- prog -vh"),
            ("windlass run -l prog -vh", "windlass run -l prog -vh"),
            ("windlass explain -ve 0", "windlass explain --place=ve0"),
            (
                "windlass bench put-bw -ve 0-1",
                "windlass bench put-bw --place=ve0-1",
            ),
            ("windlass info -vh", "windlass info -vh"),
            ("windlass run -ve", "windlass run -ve"),
        ];
        for (line, expected) in cases {
            assert_eq!(rewritten(line), expected);
        }
    }

    #[test]
    fn what_follows_the_example_belongs_to_it() {
        let cases = [
            (
                "w run -n 4 --example heat --steps 5",
                "w run -n 4 --example heat -- --steps 5",
            ),
            ("w run --bin=heat -- a", "w run --bin=heat -- a"),
            ("w run --example heat", "w run --example heat"),
            ("w run --example", "w run --example"),
        ];
        for (line, expected) in cases {
            assert_eq!(rewritten(line), expected);
        }
        let cli = Cli::try_parse_from(rewrite(
            "w run --example heat -n 3".split(' ').map(Into::into),
        ));
        let Ok(Cli {
            command: Command::Run(run),
        }) = cli
        else {
            panic!("not a run")
        };
        assert_eq!((run.placement.ranks, run.command.len()), (None, 2));
    }

    #[test]
    fn options_of_the_program_stay_its_own() {
        let cli =
            Cli::try_parse_from(["w", "run", "-n", "2", "prog", "-n", "9", "--json"]).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("not a run")
        };
        assert_eq!(run.placement.ranks, Some(2));
        assert_eq!(run.command, ["prog", "-n", "9", "--json"]);
    }

    #[test]
    fn a_simulation_has_options_of_its_own() {
        let bench = |line: &str| match Cli::try_parse_from(rewrite(line.split(' ').map(Into::into)))
        {
            Ok(Cli {
                command: Command::Bench(bench),
            }) => Ok(bench.simulate),
            Ok(_) => panic!("not a benchmark"),
            Err(error) => Err(error.kind()),
        };
        let options = bench("w bench --simulate 64 -L 2 --json -h");
        assert_eq!(options.unwrap(), ["64", "-L", "2", "--json", "-h"]);
        assert!(bench("w bench put-bw -n 2").unwrap().is_empty());
        for mistake in ["w bench --simulate", "w bench -n 4 --simulate 8", "w bench"] {
            assert!(bench(mistake).is_err(), "{mistake}");
        }
    }

    #[test]
    fn a_comparison_with_peers_has_options_of_its_own_or_none() {
        for (line, options) in [
            ("w bench --peers", &[][..]),
            (
                "w bench --peers --rounds 2 --only put,tcp",
                &["--rounds", "2", "--only", "put,tcp"],
            ),
            ("w bench --peers -h", &["-h"]),
        ] {
            let words = rewrite(line.split(' ').map(Into::into));
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Bench(bench)) => assert_eq!(bench.peers.unwrap(), options, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn mistakes_are_answered_with_a_suggestion() {
        let error = Cli::try_parse_from(["w", "run", "--nods", "2", "prog"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("--nodes"), "{error}");
        let error = Cli::try_parse_from(["w", "run", "--timeout", "0", "prog"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("above 0"), "{error}");
        for bad in ["-1", "nan", "inf", "1e300", "x"] {
            let timeout = format!("--timeout={bad}");
            assert!(
                Cli::try_parse_from(["w", "run", &timeout, "prog"]).is_err(),
                "{bad}"
            );
        }
    }
}

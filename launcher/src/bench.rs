//! `windlass bench`: the program `windlass-osu` as a job, once, or once for each route.
//!
//! Relies on: [`measure`](crate::measure), which says what is understood, and [`explain`](crate::explain), which
//! says which route serves. Promises: what the benchmark would refuse is refused before anything is built.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches};
use windlass_runtime::MechanismId;

use crate::cargo;
use crate::cli::{Memory, Placement};
use crate::command::{print, supervise, turn_into};
use crate::error::{Error, Result};
use crate::explain::{self, Report, Target};
use crate::job::Job;
use crate::measure::{Creation, EXAMPLES, Options};
use crate::output::Sink;

const PROGRAM: &str = "windlass-osu";
/// What restricts the routes of a job.
const ROUTE: &str = "WINDLASS_ROUTE";
/// Reaches every rank: for what a benchmark does beside the measured transfers.
const BESIDE: MechanismId = MechanismId::Udapl;

/// `windlass bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure and how.
    #[command(flatten)]
    pub wish: Wish,
    /// One table for each route from origin to target; why another cannot serve is said in a remark
    #[arg(long)]
    pub all_routes: bool,
    /// How synchronisation and creation grow with up to N ranks, over a simulated network; its options follow,
    /// -h lists them
    #[arg(long, value_name = "N", num_args = 1.., allow_hyphen_values = true, exclusive = true)]
    pub simulate: Vec<OsString>,
    /// Beside the MPI libraries found on this machine, line by line against the best of them; its options follow,
    /// -h lists them
    #[arg(long, value_name = "OPTIONS", num_args = 0.., allow_hyphen_values = true, exclusive = true)]
    pub peers: Option<Vec<OsString>>,
    /// Placement and the like.
    #[command(flatten)]
    pub placement: Placement,
}

/// The benchmark's own options, and the words that say them again to the ranks.
#[derive(Debug)]
pub struct Wish {
    /// As they are understood; none where no benchmark is named.
    pub options: Option<Options>,
    words: Vec<OsString>,
}

impl FromArgMatches for Wish {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let mut words = Vec::new();
        for arg in Options::command().get_arguments() {
            let id = arg.get_id().as_str();
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            words.extend(arg.get_long().map(|long| format!("--{long}").into()));
            if arg.get_action().takes_values() {
                words.extend(
                    matches
                        .get_raw(id)
                        .into_iter()
                        .flatten()
                        .map(OsString::from),
                );
            }
        }
        let options = match matches.contains_id("benchmark") {
            true => Some(Options::from_arg_matches(matches)?),
            false => None,
        };
        Ok(Wish { options, words })
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Wish {
    /// `-x` is also the launcher's: `rewrite` tells the two apart.
    fn augment_args(command: clap::Command) -> clap::Command {
        Options::augment_args(command)
            .mut_arg("benchmark", |arg| {
                arg.required(false)
                    .required_unless_present_any(["simulate", "peers"])
            })
            .mut_arg("warmup", |arg| {
                arg.short(None::<char>).help(
                    "Iterations before the measured ones, also -x N; without it, a tenth of a block",
                )
            })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// Shown behind the help.
pub(crate) fn examples() -> String {
    let simulated =
        "--simulate 4096 --per-node 32          how synchronisation would grow on larger machines";
    let peers = "--peers --mpi /opt/mpich                beside the MPI libraries of this machine";
    format!("{EXAMPLES}\n  {simulated}\n  {peers}")
}

/// An `-x` of `windlass bench` with its value: a number of iterations, or a variable.
pub(crate) fn variable_or_warmup(value: Option<OsString>) -> impl Iterator<Item = OsString> {
    let number = |value: &OsString| {
        let text = value.as_encoded_bytes();
        !text.is_empty() && text.iter().all(u8::is_ascii_digit)
    };
    let option = match value.as_ref().is_some_and(number) {
        true => "--warmup",
        false => "-x",
    };
    [Some(option.into()), value].into_iter().flatten()
}

impl Bench {
    fn job(&self) -> Result<Job> {
        let job = self.placement.apply(Job::new(PROGRAM))?.at_least(2);
        Ok(job.args(&self.wish.words))
    }

    /// Executes the command; gives the exit code.
    pub(crate) fn run(&self) -> Result<i32> {
        if let Some(options) = &self.peers {
            return beside_peers(options);
        }
        let Some(options) = &self.wish.options else {
            let what = "starting windlass-simulate";
            return turn_into("windlass-simulate", what, &self.simulate);
        };
        let ranks = self.job()?.plan()?.seats.len() as u32;
        let fits = options.check(ranks);
        let fits = fits.and(match (self.all_routes, options.window) {
            (true, Creation::Shared) => Err(
                "a shared window has one way only: leave --all-routes out, or give another -w"
                    .into(),
            ),
            _ => Ok(()),
        });
        if let Err(why) = fits {
            clap::Error::raw(ErrorKind::ValueValidation, format!("{why}\n")).exit();
        }
        let program = cargo::own(PROGRAM)?;
        cargo::check(&program)?;
        let job = || Ok(self.job()?.program(&program));
        match self.all_routes {
            false => Ok(supervise(job()?)?.exit_code),
            true => self.each_route(options, job),
        }
    }

    /// Every mechanism in turn; the first exit code that is not 0 counts.
    fn each_route(&self, options: &Options, job: impl Fn() -> Result<Job>) -> Result<i32> {
        let mut codes = Vec::new();
        let mut tables = Vec::new();
        for mechanism in MechanismId::ALL {
            let name = mechanism.name();
            let allowed = match self.allowed(options, mechanism)? {
                Ok(allowed) => allowed,
                Err(reason) if options.json => {
                    let refused = serde_json::json!({ "mechanism": name, "refused": reason });
                    tables.push(format!("{refused:#}"));
                    continue;
                }
                Err(reason) => {
                    print(&format!("# Route {name}: none here: {reason}\n"))?;
                    continue;
                }
            };
            let mut job = job()?.env(ROUTE, allowed);
            if options.json {
                job = job.stdout(Sink::Capture);
            }
            let outcome = supervise(job)?;
            tables.push(outcome.stdout_text().trim_end().to_owned());
            codes.push(outcome.exit_code);
            if outcome.exit_code > 128 {
                // A signal: of the person, or of something that the next table would meet as well.
                break;
            }
        }
        if options.json {
            print(&format!("[\n{}\n]\n", tables.join(",\n")))?;
        }
        Ok(codes.into_iter().find(|&code| code != 0).unwrap_or(0))
    }

    /// The value of `WINDLASS_ROUTE` by which this mechanism carries from origin to target, or why none does.
    fn allowed(
        &self,
        options: &Options,
        mechanism: MechanismId,
    ) -> Result<std::result::Result<String, String>> {
        let alone = mechanism.name().to_owned();
        let beside = match mechanism {
            BESIDE => alone.clone(),
            _ => format!("{alone},{}", BESIDE.name()),
        };
        match self.refusal(options, mechanism, &beside)? {
            None => Ok(Ok(beside)),
            // It is only dearer than the other.
            Some(reason) if reason.starts_with("works") => {
                let refusal = self.refusal(options, mechanism, &alone)?;
                Ok(refusal.map_or(Ok(alone), Err))
            }
            Some(reason) => Ok(Err(reason)),
        }
    }

    /// Why the origin does not get this route to the target where these are allowed.
    fn refusal(
        &self,
        options: &Options,
        mechanism: MechanismId,
        allowed: &str,
    ) -> Result<Option<String>> {
        let Options {
            window,
            origin,
            target,
            ..
        } = *options;
        let memory = match window {
            Creation::Allocate | Creation::Shared => Memory::Allocate,
            Creation::Create | Creation::Dynamic => Memory::Create,
        };
        let report = explain::report(&self.placement, memory, &[(ROUTE, allowed)], Sink::Capture)?;
        let report: Report = match report {
            Ok(report) => report,
            Err(outcome) => {
                return Err(Error::Report(format!(
                    "asking for the routes failed: {}",
                    outcome.stderr_text().trim()
                )));
            }
        };
        let found: Option<&Target> = report
            .rows
            .get(origin as usize)
            .and_then(|row| row.targets.get(target as usize));
        let Some(found) = found.filter(|found| found.mechanism != mechanism.name()) else {
            return Ok(None);
        };
        let why = found
            .rejected
            .iter()
            .find(|(name, _)| name == mechanism.name());
        Ok(Some(why.map_or_else(String::new, |(_, why)| why.clone())))
    }
}

/// Becomes `windlass-peers`, whose ranks this command starts.
fn beside_peers(options: &[OsString]) -> Result<i32> {
    let here = std::env::current_exe().map(|here| ["--launcher".into(), here.into_os_string()]);
    let mut words: Vec<OsString> = here.into_iter().flatten().collect();
    words.extend_from_slice(options);
    turn_into(cargo::PEERS, "starting windlass-peers", &words)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, rewrite};

    fn bench(line: &str) -> Bench {
        let words = rewrite(line.split(' ').map(Into::into));
        match Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(Command::Bench(bench)) => bench,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_of_the_benchmark_stand_anywhere() {
        for line in [
            "w bench put-bw -n 4 -m 8:64 -W 16 -c -x 5 -x A=b -s lock",
            "w bench -n 4 -x A=b put-bw -x 5 -m 8:64 -W 16 -c -s lock",
            "w bench put-bw -n 4 -x A=b -s lock -- -m 8:64 -W 16 -c -x 5",
            "w bench -c -m 8:64 -x 5 put-bw -W 16 -np 4 -x A=b -s lock",
            "w bench put-bw -n 4 -m8:64 -W16 -c -x5 -xA=b -slock",
        ] {
            let Bench {
                wish, placement, ..
            } = bench(line);
            assert_eq!(placement.ranks, Some(4), "{line}");
            assert_eq!(placement.export, ["A=b"], "{line}");
            let again = [&[OsString::from("windlass-osu")], &wish.words[..]].concat();
            let again = Options::parse_from(again);
            let given = wish.options.expect("a benchmark is named");
            for options in [&given, &again] {
                let Options {
                    warmup,
                    window_size,
                    validate,
                    json,
                    ..
                } = options;
                assert_eq!((*warmup, *window_size), (Some(5), Some(16)), "{line}");
                assert_eq!((*validate, *json), (true, false), "{line}");
                assert_eq!(options.sizes().collect::<Vec<_>>(), [8, 16, 32, 64]);
                assert_eq!(options.sync().to_string(), "lock");
            }
        }
    }

    #[test]
    fn mistyped_names_and_options_get_the_nearest() {
        for (line, nearest) in [
            ("w bench put-latancy", "put-latency"),
            ("w bench put-latency --rato", "--ratio"),
            ("w bench put-latency --nods 2", "--nodes"),
        ] {
            let words = rewrite(line.split(' ').map(Into::into));
            let refused = Cli::try_parse_from(words)
                .expect_err("accepted")
                .to_string();
            assert!(refused.contains(nearest), "{line}: {refused}");
        }
    }
}

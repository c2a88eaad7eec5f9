//! Runs as many programs as are asked for, and makes a short one of a program that fails.
//!
//! Ranks run programs and say which; the first difference ends the job. The process of the test
//! then starts jobs with parts of that program, until no step can be left out.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use windlass::{Rank, World};

use super::draw;
use super::program::Program;
use super::run::{self, Sabotage};
use crate::support::ways::route_to;
use crate::support::{Done, Report, Spec, with_world};

/// How many operations all placements together run.
const CASES: &str = "WLTEST_CASES";
const DEFAULT_CASES: u64 = 100_000;
/// The round to begin with: programs that are not run otherwise.
const FROM: &str = "WLTEST_FROM";
/// Runs one program.
const SEED: &str = "WLTEST_SEED";
/// Runs only these steps of it: numbers with commas.
const STEPS: &str = "WLTEST_STEPS";
/// How often.
const TIMES: &str = "WLTEST_TIMES";

/// Jobs that may be started to make a program short, and how many of them may hang; what is left
/// then is shown.
const TRIALS: usize = 200;
const HANGS: usize = 4;
/// A trial that hangs fails.
const TRIAL_LIMIT: Duration = Duration::from_secs(10);
/// How often a trial runs its program: what fails by chance should fail.
const TRIAL_TIMES: u64 = 3;

/// A placement of four ranks.
#[derive(Clone)]
pub struct Placement {
    /// The test function.
    pub name: &'static str,
    pub spec: Spec,
    /// Its part of all cases, in percent.
    pub percent: u64,
    /// Can all ranks share memory?
    pub shares: bool,
    /// The mechanism by which lent memory is reached, where that matters.
    pub lent_route: Option<&'static str>,
    /// The round that it begins with.
    pub from: u64,
}

/// Which ranks run a program together: those of one colour.
const CASTS: [[u32; 4]; 4] = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]];

/// The program of a seed: `2 x round + colour`.
pub fn program(seed: u64, shares: bool) -> Program {
    let (round, colour) = (seed / 2, (seed % 2) as u32);
    let cast = CASTS[round as usize % CASTS.len()];
    let ranks = cast.iter().filter(|&&of| of == colour).count();
    draw::program(seed, ranks.max(1), shares)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn steps() -> Option<BTreeSet<usize>> {
    let text = std::env::var(STEPS).ok()?;
    Some(
        text.split(',')
            .filter_map(|word| word.trim().parse().ok())
            .collect(),
    )
}

/// What a rank does.
fn rank(world: &World, placement: &Placement) -> Done {
    assert_eq!(world.size() as usize, CASTS[0].len());
    let mut worlds = Vec::new();
    for cast in CASTS {
        let colour = cast[world.rank().0 as usize];
        let part = world.split(Some(colour), 0)?;
        worlds.push((part.ok_or("a colour was given")?, u64::from(colour)));
    }
    if let Some(wanted) = placement.lent_route {
        let window = world.create(vec![0u8; 8])?.without_loan();
        let route = route_to(&window, Rank((world.rank().0 + 1) % world.size()));
        assert_eq!(route.mechanism, wanted);
        window.free()?;
    }
    let sabotage = Sabotage::from_env();
    let run = |world: &World, program: &Program| {
        if world.rank().0 == 0 {
            println!("seed={}", program.seed);
        }
        run::program(world, program, sabotage)
    };
    let at = |round: u64| &worlds[round as usize % worlds.len()];
    if let Some(seed) = number(SEED) {
        let (part, colour) = at(seed / 2);
        let mut program = program(seed, placement.shares);
        if let Some(steps) = steps() {
            program = program.with_only(&steps);
        }
        for _ in 0..number(TIMES).unwrap_or(1) {
            if *colour == seed % 2 {
                run(part, &program)?;
            }
        }
        world.barrier()?;
        return Ok(());
    }
    let (mut cases, mut programs, mut round) = (0, 0, number(FROM).unwrap_or(placement.from));
    while cases < placement.wanted() {
        let (part, colour) = at(round);
        let colours = 1 + u64::from(part.size() < world.size());
        for other in 0..colours {
            let program = program(2 * round + other, placement.shares);
            cases += program.cases();
            programs += 1;
            if *colour == other {
                run(part, &program)?;
            }
        }
        round += 1;
    }
    world.barrier()?;
    if world.rank().0 == 0 {
        println!("cases={cases} programs={programs}");
    }
    Ok(())
}

impl Placement {
    /// How many cases it runs.
    fn wanted(&self) -> u64 {
        number(CASES).unwrap_or(DEFAULT_CASES) * self.percent / 100
    }

    /// What failed, if something did: a difference, a hang, or something that was left behind.
    fn try_job(&self, spec: Spec) -> Result<Report, String> {
        let mut report = None;
        let body = || with_world(|world| rank(world, self));
        let ran = AssertUnwindSafe(|| spec.run(body, |ended| report = Some(ended.clone())));
        if let Err(panic) = std::panic::catch_unwind(ran) {
            return Err(panic.downcast_ref::<String>().cloned().unwrap_or_default());
        }
        let report = report.ok_or("another case of the same test")?;
        let fine = report.outcome.exit_code == 0 && report.outcome.message.is_empty();
        if fine { Ok(report) } else { Err(report.text()) }
    }

    /// Runs its cases, and says how many in how many programs, or what failed.
    pub fn judge(&self) -> Result<(u64, u64), Box<Finding>> {
        let limit = Duration::from_secs(120 + self.wanted() / 50);
        let text = match self.try_job(self.spec.clone().limit(limit)) {
            Ok(report) => {
                // A single program counts nothing.
                let value = |key| report.value(key)?.parse().ok();
                let counts = (value("cases"), value("programs"));
                return Ok((counts.0.unwrap_or(0), counts.1.unwrap_or(0)));
            }
            Err(text) => text,
        };
        let finding = seed_of(&text).map(|seed| self.shorten(seed, &text));
        Err(Box::new(finding.unwrap_or(Finding {
            kept: Vec::new(),
            program: "before any program".to_owned(),
            story: text,
            command: self.command(""),
        })))
    }

    /// Fails the test with what was found.
    pub fn expect_no_difference(&self) {
        let Finding {
            program,
            story,
            command,
            ..
        } = match self.judge() {
            Ok((cases, programs)) => {
                assert!(cases >= self.wanted() || number(SEED).is_some());
                println!("{}: {cases} cases in {programs} programs", self.name);
                return;
            }
            Err(finding) => *finding,
        };
        panic!("{}: {program}{story}\nagain: {command}", self.name);
    }

    fn command(&self, variables: &str) -> String {
        let name = self.name;
        format!("{variables} cargo test --test differential {name} -- --exact")
    }

    /// Makes a program that fails short.
    fn shorten(&self, seed: u64, text: &str) -> Finding {
        let whole = program(seed, self.shares);
        let (mut trials, mut hangs) = (0, 0);
        let mut fails = |kept: &[usize]| -> Option<String> {
            if kept.is_empty() || trials == TRIALS || hangs == HANGS {
                return None;
            }
            let spec = self.spec.clone().limit(TRIAL_LIMIT);
            let spec = spec.env(SEED, seed.to_string()).env(STEPS, list(kept));
            let text = self.try_job(spec.env(TIMES, TRIAL_TIMES.to_string())).err();
            trials += 1;
            hangs += usize::from(
                text.as_ref()
                    .is_some_and(|text| text.contains(" hung for ")),
            );
            text
        };
        let given = steps();
        let may = |number: &usize| given.as_ref().is_none_or(|steps| steps.contains(number));
        let numbers = whole.steps().map(|step| step.number);
        let mut kept: Vec<usize> = numbers.filter(may).collect();
        let Some(mut story) = fails(&kept) else {
            return Finding {
                program: whole.to_string(),
                kept,
                story: format!("it did not fail again alone; when it did:\n{text}"),
                command: self.command(&format!("{SEED}={seed}")),
            };
        };
        // Leaves out ever smaller parts, as long as what remains fails.
        let mut size = kept.len();
        while size > 1 {
            size = size.div_ceil(2);
            let mut from = 0;
            while from < kept.len() {
                let end = (from + size).min(kept.len());
                let without = [&kept[..from], &kept[end..]].concat();
                match fails(&without) {
                    Some(told) => (story, kept) = (told, without),
                    None => from = end,
                }
            }
        }
        Finding {
            program: whole.with_only(&kept.iter().copied().collect()).to_string(),
            story,
            command: self.command(&format!("{SEED}={seed} {STEPS}={}", list(&kept))),
            kept,
        }
    }
}

/// What was found.
pub struct Finding {
    /// The steps that are left.
    pub kept: Vec<usize>,
    /// The program of these, and of those that they need.
    pub program: String,
    /// What the ranks say about it.
    pub story: String,
    /// How to see it again.
    pub command: String,
}

fn list(steps: &[usize]) -> String {
    let steps: Vec<String> = steps.iter().map(usize::to_string).collect();
    steps.join(",")
}

/// The seed of the program that failed.
fn seed_of(text: &str) -> Option<u64> {
    let digits = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_digit());
        rest[..end.unwrap_or(rest.len())].parse().ok()
    };
    // A rank that found a difference says so; of one that died there is only what was begun.
    let found = text.split("seed ").nth(1).and_then(digits);
    let begun = || text.rsplit("seed=").next().and_then(digits);
    number(SEED).or(found).or_else(begun)
}

//! `simulate` exists to look for the schedule that breaks a promise of the runtime: the real machine
//! in a model world of brokers, rebalances, crashes and delays, all of it decided by one seed.
//!
//! `SIMULATION.md` beside the crate says what the world holds and what it leaves out.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::struct_excessive_bools,
    reason = "a tool of its developers, whose numbers are all small and whose panics are findings"
)]

mod assignment;
mod broker;
mod commits;
mod dice;
mod done_set;
mod event;
mod faults;
mod group;
mod judge;
mod member;
#[cfg(feature = "mutants")]
mod mutants;
mod offers;
mod plan;
mod results;
mod runs;
mod spending;
mod tally;
mod turn;
mod verdict;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use tally::Tally;
use verdict::{Invariant, Verdict, broken};
use world::World;

const USAGE: &str = "usage: simulate [--seeds N] [--seed S] [--mutant NAME | --mutants] [--quiet]

  --seeds N      how many schedules to try (10000)
  --seed S       the first of them (0); alone, that schedule is told in full
  --mutant NAME  with this fault put into the runtime (needs --features mutants)
  --mutants      every fault in turn; fails if one survives (needs --features mutants)
  --quiet        print failures only";

/// How much of a failing schedule is printed.
const LAST_LINES: usize = 60;

#[derive(Debug, Default)]
struct Arguments {
    seeds: u64,
    first: u64,
    tells: bool,
    quiet: bool,
    mutant: Option<String>,
    mutants: bool,
}

fn main() -> ExitCode {
    let outcome = arguments().and_then(|arguments| {
        if arguments.mutants {
            return mutants::every_mutant(&arguments);
        }
        if let Some(name) = &arguments.mutant {
            mutants::activate(name)?;
        }
        Ok(simulate(&arguments))
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    let mut given = std::env::args().skip(1);
    let (mut seeds, mut seed) = (None, None);
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| {
            text.parse::<u64>().map_err(|_| format!("{argument} {text} is not a number"))
        };
        match argument.as_str() {
            "--seeds" => seeds = Some(number(value()?)?),
            "--seed" => seed = Some(number(value()?)?),
            "--mutant" => arguments.mutant = Some(value()?),
            "--mutants" => arguments.mutants = true,
            "--quiet" => arguments.quiet = true,
            _ => return Err(format!("{argument} is unknown")),
        }
    }
    arguments.tells = seed.is_some() && seeds.is_none();
    arguments.first = seed.unwrap_or(0);
    arguments.seeds = seeds.unwrap_or(if arguments.tells { 1 } else { 10_000 });
    Ok(arguments)
}

#[cfg(not(feature = "mutants"))]
mod mutants {
    //! Without the feature there is none.

    pub(crate) fn activate(name: &str) -> Result<(), String> {
        Err(format!("{name} is not in this build: add --features mutants"))
    }

    pub(crate) fn every_mutant(_: &crate::Arguments) -> Result<bool, String> {
        Err("there are no mutants in this build: add --features mutants".to_owned())
    }
}

/// Tries the schedules; true when all are fine.
fn simulate(arguments: &Arguments) -> bool {
    let Arguments { seeds, first, tells, quiet, .. } = *arguments;
    let before = cpu_seconds();
    let mut sum = Tally::default();
    for seed in first..first + seeds {
        match schedule(seed) {
            Ok(tally) => sum.add_all(&tally),
            Err(violation) => {
                let lines = story(seed);
                let skipped = if tells { 0 } else { lines.len().saturating_sub(LAST_LINES) };
                println!("seed {seed}, from line {skipped} of {}:", lines.len());
                for line in &lines[skipped..] {
                    println!("{line}");
                }
                println!("seed {seed} breaks {}: {}", violation.invariant, violation.what);
                println!("again, in full: simulate --seed {seed}");
                return false;
            }
        }
    }
    if tells {
        for line in story(first) {
            println!("{line}");
        }
    }
    if !quiet {
        let each_second = seeds as f64 / (cpu_seconds() - before).max(f64::EPSILON);
        println!("{seeds} schedules from seed {first}: no promise broken");
        println!("{each_second:.0} schedules per second of one core");
        println!("each, on average: {}", sum.per(seeds));
    }
    true
}

/// Runs one schedule; a panic is a finding like any other.
fn schedule(seed: u64) -> Verdict<Tally> {
    let run = || {
        let mut world = World::of_seed(seed, false);
        world.run().map(|()| world.tally)
    };
    catch_unwind(run).unwrap_or_else(|_| broken(Invariant::Misuse, || "a panic".to_owned()))
}

/// The same schedule once more, telling what happens.
fn story(seed: u64) -> Vec<String> {
    let mut world = World::of_seed(seed, true);
    // How it ends is known.
    let _ = catch_unwind(AssertUnwindSafe(|| world.run()));
    world.story().to_vec()
}

/// What this thread has used of its core; where nobody says so, the time that went by.
fn cpu_seconds() -> f64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    let used = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = used.and_then(|it| it.split(' ').next()?.parse::<f64>().ok());
    let since = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |it| it.as_secs_f64());
    nanoseconds.map_or_else(since, |it| it / 1e9)
}

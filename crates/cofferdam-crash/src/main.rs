//! `cofferdam-crash`: runs the suite, plays one of its scenarios again, and is the process that is killed.
//!
//! It prints `ok …`, `FAILED …` or `skipped …: why` for each thing that it checks.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's result is what it prints"
)]

use std::{num::NonZeroUsize, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use cofferdam_crash::{
    defect::Defect,
    drive::Drive,
    process::Blow,
    suite::{Suite, Summary},
    world::World,
};

const USAGE: &str = "\
usage: cofferdam-crash [--crashes N] [--seed N] [--parallel N] [--world NAME]… [--defect NAME]
       cofferdam-crash again WORLD BLOW,BLOW… [--defect NAME]
       cofferdam-crash drive PLACE WORLD NUMBER [--strike POINT#TIME] [--lose POINT#TIME] [--decide JSON] [--defect NAME]";

/// Points that were not struck and are named. A short run has many.
const MAX_UNVISITED: usize = 12;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        Some((first, rest)) if first == "drive" => {
            Drive::parse(rest).and_then(Drive::run).map(|()| true)
        }
        Some((first, rest)) if first == "again" => again(rest),
        _ => whole(&words),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cofferdam-crash: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the suite.
fn whole(words: &[String]) -> Result<bool> {
    let program = std::env::current_exe()?;
    let (mut crashes, mut seed, mut parallel) =
        (1000, 1, NonZeroUsize::new(2).context("2 is not 0")?);
    let (mut worlds, mut defect) = (Vec::new(), None);
    for option in words.chunks(2) {
        let [name, value] = option else { bail!("{USAGE}") };
        match name.as_str() {
            "--crashes" => crashes = value.parse()?,
            "--seed" => seed = value.parse()?,
            "--parallel" => parallel = value.parse()?,
            "--world" => worlds.push(value.parse()?),
            "--defect" => defect = Some(value.parse()?),
            _ => bail!("{USAGE}"),
        }
    }
    if worlds.is_empty() {
        worlds = World::ALL.to_vec();
    }
    let mut played = Vec::new();
    for world in worlds {
        match world.missing() {
            Some(why) => println!("skipped {world}: {why}"),
            None => played.push(world),
        }
    }
    let suite = Suite { program: &program, worlds: &played, crashes, seed, parallel, defect };
    let summary = suite.play()?;
    Ok(report(&suite, &summary))
}

fn report(suite: &Suite<'_>, summary: &Summary) -> bool {
    println!("{}", summary.table);
    let sum = summary.table.sum();
    println!(
        "{} crashes in {} scenarios, {:.1} s, {:.1} crashes per second, seed {}",
        sum.crashes,
        summary.scenarios,
        summary.time.as_secs_f64(),
        sum.crashes as f64 / summary.time.as_secs_f64().max(0.001),
        suite.seed,
    );
    println!(
        "{} points are known, {} of them were not struck; {} planned scenarios were left out",
        summary.points,
        summary.unvisited.len(),
        summary.left
    );
    for (what, times) in &summary.reported {
        println!("reported as unknown {times} times: {what}");
    }
    println!(
        "{} sandboxes were left alone by their process, found by a list, and removed",
        summary.orphans
    );
    for (world, point) in summary.unvisited.iter().take(MAX_UNVISITED) {
        println!("not struck: {point} in {world}");
    }
    for failure in &summary.failures {
        let blows: Vec<String> = failure.blows.iter().map(ToString::to_string).collect();
        let defect = suite.defect.map(|it| format!(" --defect {it}")).unwrap_or_default();
        println!(
            "FAILED {}: killed at {}: {}",
            failure.world,
            blows.join(", "),
            failure.wrong.join("; ")
        );
        println!(
            "       again: cofferdam-crash again {} {}{defect}",
            failure.world,
            blows.join(",")
        );
    }
    for &world in suite.worlds {
        if !summary.failures.iter().any(|failure| failure.world == world) {
            println!("ok {world}: every run that was killed ended as the one that was not");
        }
    }
    summary.failures.is_empty()
}

/// Plays one scenario.
fn again(words: &[String]) -> Result<bool> {
    let [world, blows, options @ ..] = words else { bail!("{USAGE}") };
    let defect: Option<Defect> = match options {
        [] => None,
        [name, value] if name == "--defect" => Some(value.parse()?),
        _ => bail!("{USAGE}"),
    };
    let world: World = world.parse()?;
    let blows = blows.split(',').map(str::parse).collect::<Result<Vec<Blow>>>()?;
    let program = std::env::current_exe()?;
    let suite = Suite {
        program: &program,
        worlds: &[world],
        crashes: 0,
        seed: 0,
        parallel: NonZeroUsize::MIN,
        defect,
    };
    let outcome = suite.again(world, &blows)?;
    for (blows, what) in &outcome.ambiguous {
        println!("after {blows} crashes it was reported as unknown what became of: {what}");
    }
    for wrong in &outcome.wrong {
        println!("FAILED {world}: {wrong}");
    }
    if outcome.wrong.is_empty() {
        println!(
            "ok {world}: killed {} times, and ended as the run that was not",
            outcome.blows.len()
        );
    }
    Ok(outcome.wrong.is_empty())
}

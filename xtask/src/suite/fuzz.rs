//! `fuzz`: each parser of outside text against inputs that a fuzzer makes, guided by the code that they reach.
//!
//! The targets are in `fuzz/`, a workspace of its own. They are built by the pinned compiler with coverage counters, and with
//! no sanitizer, which would need another compiler. `--rounds N` gives each target N seconds, `--seed N` repeats a run.
//! What a target found is kept in `fuzz/artifacts`, what it learnt in `fuzz/corpus`; neither is tracked.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Suite;
use crate::command::{cargo_in, find_program, run as run_command};
use crate::context::Context;
use crate::report::Report;

pub(crate) const SUITE: Suite = Suite {
    name: "fuzz",
    about: "no input makes a parser of outside text panic, hang or use much memory",
    package: "cofferdam-fuzz",
    within_cargo_test: false,
    run,
};

/// Seconds for each target, unless `--rounds` says otherwise: a smoke test of what a night finds.
const SECONDS: u64 = 4;

/// What makes a binary tell the fuzzer which code an input reached.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// What the suite builds and no test does.
pub(super) fn build(context: &Context) -> Command {
    let mut build = cargo_in(&context.path("fuzz"));
    build
        // Flags for a named platform do not reach build scripts.
        .args(["build", "--quiet", "--release", "--bins", "--target", &platform(), "--target-dir"])
        .arg(built(context))
        .env("RUSTFLAGS", FLAGS);
    build
}

pub(super) fn can_be_built() -> bool {
    find_program("c++").is_some()
}

fn platform() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn built(context: &Context) -> PathBuf {
    context.target("fuzz")
}

fn run(context: &Context, report: &mut Report) -> Result<()> {
    if !can_be_built() {
        report.skip("suite fuzz", "the fuzzer is C++: install g++");
        return Ok(());
    }
    let directory = context.path("fuzz");
    if !run_command(&mut build(context))? {
        report.fail("suite fuzz: the targets do not build");
        return Ok(());
    }
    let programs = built(context).join(platform()).join("release");
    for target in targets(&directory.join("targets"))? {
        let passed = play(&programs, &directory, &target, context)?;
        report.check(&format!("suite fuzz: target {target} (see fuzz/artifacts)"), passed);
    }
    Ok(())
}

/// The targets by name: each is a file.
fn targets(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in directory.read_dir().context("the fuzz targets are not there")? {
        let path = entry?.path();
        if let (Some(stem), Some("rs")) =
            (path.file_stem(), path.extension().and_then(|it| it.to_str()))
        {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn play(programs: &Path, directory: &Path, target: &str, context: &Context) -> Result<bool> {
    let corpus = directory.join("corpus").join(target);
    let artifacts = directory.join("artifacts").join(target);
    for made in [&corpus, &artifacts] {
        std::fs::create_dir_all(made)
            .with_context(|| format!("could not make {}", made.display()))?;
    }
    let seconds = context.rounds.number.unwrap_or(SECONDS);
    let mut command = Command::new(programs.join(target));
    command
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()));
    if let Some(seed) = context.rounds.seed {
        command.arg(format!("-seed={seed}"));
    }
    let ended = command.arg(&corpus).output().with_context(|| format!("{target} did not start"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let inputs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    println!("fuzz {target}: {} inputs in {seconds} s", inputs.map_or("?", str::trim));
    if !ended.status.success() {
        println!("{said}");
    }
    Ok(ended.status.success())
}

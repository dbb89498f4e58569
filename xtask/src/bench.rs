//! `cargo xtask bench`: runs the benchmarks in release mode, and shows each with its floor and its bar.
//!
//! A benchmark is a program (`cargo bench -p …`) that prints one JSON object per line, see [`case`]. Times differ from
//! machine to machine and from hour to hour; the ratio to a floor that was measured in the same run is what counts.

mod agents_sdk;
mod case;
mod peers;

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::arguments::Arguments;
use crate::command::{cargo_in, run_reading};
use crate::context::Context;
use crate::report::Report;
use crate::table;
use case::{Case, Line};

/// A name, and where its cases come from.
struct Bench {
    name: &'static str,
    source: Source,
}

enum Source {
    /// A crate with programs under `benches/`.
    Package(&'static str),
    /// Other programs that do the same work, where they are installed.
    Peers(fn(&Context, &mut Report) -> Result<Vec<Case>>),
}

const BENCHES: &[Bench] = &[
    Bench { name: "apply-patch", source: Source::Package("cofferdam-apply-patch") },
    Bench { name: "sandbox-linux", source: Source::Package("cofferdam-sandbox-linux") },
    Bench { name: "sandbox-docker", source: Source::Package("cofferdam-sandbox-docker") },
    Bench { name: "guest", source: Source::Package("cofferdam-sandbox") },
    Bench { name: "trees", source: Source::Package("cofferdam-snapshot") },
    Bench { name: "journal", source: Source::Package("cofferdam-journal") },
    Bench { name: "runs", source: Source::Package("cofferdam") },
    Bench { name: "peers", source: Source::Peers(peers::start) },
    Bench { name: "agents-sdk", source: Source::Peers(agents_sdk::files) },
];

pub(crate) fn run(context: &Context, arguments: Arguments) -> Result<bool> {
    let names = arguments.names()?;
    if let Some(unknown) =
        names.iter().find(|name| BENCHES.iter().all(|bench| bench.name != name.as_str()))
    {
        let known: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!("no benchmark `{unknown}`; there are {}", known.join(", "));
    }
    let mut report = Report::default();
    let mut cases = Vec::new();
    for bench in BENCHES
        .iter()
        .filter(|bench| names.is_empty() || names.iter().any(|name| name == bench.name))
    {
        println!("\n=== bench {}", bench.name);
        let result = match bench.source {
            Source::Package(package) => run_package(context, &mut report, package),
            Source::Peers(run) => run(context, &mut report),
        };
        match result {
            Ok(found) => cases.extend(found),
            Err(error) => report.fail(format!("bench {}: {error:#}", bench.name)),
        }
    }
    Case::compare(&mut cases);
    let rows: Vec<_> = cases.iter().map(Case::row).collect();
    println!("\n{}", table::render(Case::HEADING, &rows));
    for case in &cases {
        match case.within_bar() {
            Some(false) => report.failures.push(format!("{}: over its bar", case.name)),
            Some(true) | None => report.pass(),
        }
    }
    save(context, &cases)?;
    Ok(report.print(true))
}

fn run_package(context: &Context, report: &mut Report, package: &str) -> Result<Vec<Case>> {
    let mut command = cargo_in(&context.workspace.root);
    // Not the library's own unit tests, which libtest would run again under `bench`.
    command.args(["bench", "--all-features", "-p", package, "--benches"]);
    if let Some(codex) = peers::codex() {
        command.env("CODEX", codex);
    }
    let cases = read_cases(&mut command, report)?;
    if cases.is_empty() {
        bail!("printed no case");
    }
    Ok(cases)
}

/// Runs a program that prints cases; those that it skipped go to the report.
fn read_cases(command: &mut Command, report: &mut Report) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let mut wrong = None;
    let status = run_reading(command, |line| match Line::parse(line) {
        Some(Ok(Line::Case(case))) => cases.push(case),
        Some(Ok(Line::Skip(skip))) => report.skips.push(skip),
        Some(Err(error)) => wrong = Some(error.context(format!("in the line {line}"))),
        None => {}
    })?;
    if let Some(error) = wrong {
        return Err(error);
    }
    if !status.success() {
        bail!("ended with {status}");
    }
    Ok(cases)
}

fn save(context: &Context, cases: &[Case]) -> Result<()> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let directory = context.target("bench");
    std::fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{seconds}.json"));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let raw: Vec<_> = cases.iter().map(|case| &case.raw).collect();
    let value = serde_json::json!({
        "unix_seconds": seconds,
        "cores": cores,
        "loadavg_end": load.trim(),
        "cases": raw,
    });
    std::fs::write(&file, serde_json::to_vec_pretty(&value)?)
        .with_context(|| format!("could not write {}", file.display()))?;
    println!("written to {}", file.display());
    Ok(())
}

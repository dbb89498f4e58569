//! `cofferdam-escape`: runs the suite and keeps the table; and is the worker in which a backend is attacked.
//!
//! It prints `ok …`, `FAILED …` or `skipped …: why` for each thing that it checks.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's result is what it prints"
)]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use cofferdam_escape::{
    columns::{self, Launch, Peers},
    docker::Image,
    harness,
    report::{Attack, Cell, Kind, Report},
    runner::Runner,
    table, worker,
};

const USAGE: &str = "\
usage: cofferdam-escape [--table FILE [--update]] [--only TEXT]… [--race SECONDS] [--show] [--json FILE]
                        [--bubblewrap FILE] [--codex FILE] [--docker FILE --docker-host URL] [--docker-missing WHY]
                        [--agents-sdk-python FILE --agents-sdk-script FILE]
       cofferdam-escape worker BACKEND TARGETS ID…
       cofferdam-escape hold BACKEND TARGETS WORD";

/// The one attack that may work on a backend of this project: a command may trace its own children where the profile for
/// debuggers is asked for.
const BY_PROFILE: &str = "ptrace-child";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        Some((first, rest)) if first == "worker" => work(rest).map(|()| true),
        Some((first, rest)) if first == "hold" => hold(rest).map(|()| true),
        _ => Options::parse(&words).and_then(|options| run(&options)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cofferdam-escape: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    Ok(runtime.worker_threads(2).enable_all().build()?)
}

fn work(words: &[String]) -> Result<()> {
    let [backend, targets, ids @ ..] = words else { bail!("{USAGE}") };
    runtime()?.block_on(worker::attack(backend, Path::new(targets), ids))
}

/// The process that an attack kills.
fn hold(words: &[String]) -> Result<()> {
    let [backend, targets, word] = words else { bail!("{USAGE}") };
    let text = fs::read_to_string(targets)?;
    runtime()?.block_on(harness::hold(backend, &text, word))
}

#[derive(Default)]
struct Options {
    table: Option<PathBuf>,
    json: Option<PathBuf>,
    update: bool,
    show: bool,
    only: Vec<String>,
    race: Option<Duration>,
    peers: Peers,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let (mut python, mut script) = (None, None);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--update" => options.update = true,
                "--show" => options.show = true,
                _ => {
                    let value = words.next().with_context(|| format!("{word}?\n{USAGE}"))?;
                    let path = || Some(PathBuf::from(value));
                    match word.as_str() {
                        "--table" => options.table = path(),
                        "--json" => options.json = path(),
                        "--race" => options.race = Some(Duration::from_secs(value.parse()?)),
                        "--only" => options.only.push(value.clone()),
                        "--bubblewrap" => options.peers.bubblewrap = path(),
                        "--codex" => options.peers.codex = path(),
                        "--docker" => options.peers.docker = path(),
                        "--docker-host" => options.peers.docker_host = Some(value.clone()),
                        "--docker-missing" => options.peers.docker_missing = Some(value.clone()),
                        "--agents-sdk-python" => python = path(),
                        "--agents-sdk-script" => script = path(),
                        other => bail!("{other}?\n{USAGE}"),
                    }
                }
            }
        }
        options.peers.agents_sdk = python.zip(script);
        Ok(options)
    }
}

fn run(options: &Options) -> Result<bool> {
    let mut peers = options.peers.clone();
    let image = Image::make(&peers);
    match &image {
        Ok(image) => peers.docker_image = Some(image.name().to_owned()),
        Err(error) => {
            peers.docker_missing.get_or_insert_with(|| format!("{error:#}"));
        }
    }
    let socket = peers.docker_host.as_deref().and_then(|host| host.strip_prefix("unix://"));
    let user = fs::metadata("/proc/self")?.uid();
    let mut targets = columns::targets(user == 0, user, &peers);
    let asked =
        |name: &str| options.only.is_empty() || options.only.iter().any(|text| name.contains(text));
    for target in targets.iter_mut().filter(|it| it.kind != Kind::Control && !asked(&it.name)) {
        target.launch = Launch::Missing("it was not asked for".to_owned());
    }
    let runner = Runner::new(&std::env::current_exe()?, socket.map(PathBuf::from))?;
    let runner = match options.race {
        Some(race) => runner.race(race),
        None => runner,
    };
    let mut progress = Report { attacks: runner.attacks().to_vec(), columns: Vec::new() };
    let report = runner.run(&targets, |column| {
        progress.columns.push(column.clone());
        match &column.skipped {
            Some(why) => println!("skipped {}: {why}", column.name),
            None => {
                let counts = progress.counts(column);
                println!(
                    "ran {}: {} open, {} denied, {} denied and not proven here, {} broken",
                    column.name, counts.open, counts.denied, counts.not_proven, counts.broken
                );
            }
        }
    })?;
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&report)?)?;
    }
    if options.show {
        show(&report);
    }
    let mut good = judge(&report);
    if let Some(file) = &options.table {
        good &= keep_table(file, options.update, &report)?;
    }
    Ok(good)
}

fn show(report: &Report) {
    for column in &report.columns {
        for answer in report.attacks.iter().filter_map(|attack| column.answers.get(&attack.id)) {
            println!(
                "{} | {} | {:?} | {}",
                column.name, answer.id, answer.outcome, answer.evidence
            );
        }
    }
}

/// The bar: nothing open on a backend of this project but what its profile opens, and no probe broken there.
fn judge(report: &Report) -> bool {
    let mut good = true;
    for column in report.columns.iter().filter(|it| it.kind == Kind::Own && it.skipped.is_none()) {
        let mut failed = 0;
        for attack in &report.attacks {
            let bad = match report.cell(column, &attack.id) {
                Cell::Open => attack.id != BY_PROFILE,
                Cell::Broken => true,
                _ => false,
            };
            if bad && let Some(answer) = column.answers.get(&attack.id) {
                failed += 1;
                let Attack { id, name, .. } = attack;
                println!(
                    "FAILED {}: {id} ({name}): {:?}: {}",
                    column.name, answer.outcome, answer.evidence
                );
            }
        }
        good &= failed == 0;
        if failed == 0 {
            println!("ok {}: no attack works", column.name);
        }
    }
    good
}

fn keep_table(file: &Path, update: bool, report: &Report) -> Result<bool> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    if update {
        fs::write(file, table::update(&text, report, &harness::not_built())?)?;
        println!("ok the table in {} is written", file.display());
        return Ok(true);
    }
    let differences = table::differences(&text, report)?;
    for difference in &differences {
        println!("FAILED the table in {}: {difference}", file.display());
    }
    if differences.is_empty() {
        println!("ok the table in {} is what this run shows", file.display());
    }
    Ok(differences.is_empty())
}

//! `cofferdam-escape`: runs the suite, and is the worker in which a backend is attacked.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's result is what it prints"
)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail};
use cofferdam_escape::{
    columns::{self, Peers},
    report::Report,
    runner::Runner,
    worker,
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        Some((first, rest)) if first == "worker" => work(rest),
        _ => run(&words),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cofferdam-escape: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(words: &[String]) -> Result<()> {
    let [backend, targets, ids @ ..] = words else {
        bail!("usage: cofferdam-escape worker BACKEND TARGETS ID…");
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(worker::attack(worker::backend(backend)?, Path::new(targets), ids))
}

fn run(words: &[String]) -> Result<()> {
    let mut peers = Peers::default();
    let mut only = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(value) = words.next() else { bail!("{word} needs a value") };
        match word.as_str() {
            "--bubblewrap" => peers.bubblewrap = Some(value.into()),
            "--codex" => peers.codex = Some(value.into()),
            "--docker" => peers.docker = Some(value.into()),
            "--docker-host" => peers.docker_host = Some(value.clone()),
            "--docker-image" => peers.docker_image = Some(value.clone()),
            "--only" => only.push(value.clone()),
            other => bail!("unknown option {other}"),
        }
    }
    let _ = PathBuf::new();
    let user = 0;
    let mut targets = columns::targets(true, user, &peers);
    targets.retain(|t| only.is_empty() || only.iter().any(|o| t.name.contains(o.as_str())));
    let runner = Runner::new(&std::env::current_exe()?, None)?;
    let report: Report =
        runner.run(&targets, |column| eprintln!("{}: {:?}", column.name, column.skipped))?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

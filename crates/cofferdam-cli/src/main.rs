//! The `cofferdam` command: sealed agent runs, sandboxes, manifests and patches from a terminal.
//!
//! Each subcommand is a module of [`commands`]; [`display`] shows runs, [`exit`] documents the exit codes. Results go to
//! standard output, progress and errors to standard error.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod display;
mod evaluation;
mod exit;
mod job;
mod keep;
mod place;
mod state;

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::{
    arguments::{Arguments, Command, ManifestCommand},
    exit::{Exit, Failure},
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter =
        EnvFilter::try_from_env("COFFERDAM_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match dispatch(arguments) {
        Ok(exit) => exit.into(),
        Err(failure) if failure.is_nobody_reading() => Exit::NobodyReads.into(),
        Err(failure) => {
            // `{:#}` writes the causes after the error, each once.
            let _ = writeln!(std::io::stderr().lock(), "error: {:#}", failure.error);
            failure.exit.into()
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::Run(run) if run.chaos.is_some() => block_on(commands::chaos::run(run)),
        Command::Run(run) => block_on(commands::run::run(run)),
        Command::Resume(resume) => commands::resume::resume(resume),
        Command::Runs(command) => block_on(commands::runs::run(command)),
        Command::Sandboxes(command) => block_on(commands::sandboxes::run(command)),
        Command::Exec(exec) => block_on(commands::exec::exec(exec)),
        Command::Shell(shell) => block_on(commands::exec::shell(shell)),
        Command::Manifest(ManifestCommand::Check { file }) => commands::manifest::check(&file),
        Command::Manifest(ManifestCommand::Show { file }) => commands::manifest::show(&file),
        Command::Manifest(ManifestCommand::Schema) => commands::manifest::schema(),
        Command::ApplyPatch(patch) => Ok(commands::apply_patch::apply_patch(patch)),
        Command::Doctor { backend, json } => block_on(commands::doctor::doctor(backend, json)),
    }
}

pub(crate) fn block_on(
    command: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    let result = runtime.block_on(command);
    // A thread that waits for the terminal's next line would hold the end of the process up until there is one.
    runtime.shutdown_background();
    result
}

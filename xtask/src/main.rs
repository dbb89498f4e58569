//! The one front door for tasks: `cargo xtask <task>`, the same at a desk and in continuous integration.
//!
//! Each task is a module with a `run` function, and [`TASKS`] is the list of them. What they share: [`context`] knows
//! where the workspace is, [`command`] starts programs, [`report`] counts what passed, failed and was skipped.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the terminal is what this program is for"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "tasks start cargo and other tools, and read the environment"
)]

mod arguments;
mod bench;
mod ci;
mod command;
mod context;
mod layers;
mod libtest;
mod metadata;
mod report;
mod setup;
mod skip_log;
mod suite;
mod table;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::context::Context;

/// One task: what `cargo xtask help` says about it, and what it does. `run` answers whether all went well.
struct Task {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(&Context, Arguments) -> Result<bool>,
}

const TASKS: &[Task] = &[
    Task {
        name: "test",
        usage: "[-p PACKAGE]... [--no-suites] [--no-skip-list]",
        about: "run every test that this machine can run, and list what was skipped and why",
        run: test::run,
    },
    Task {
        name: "ci",
        usage: "[-p PACKAGE]... [STEP]...",
        about: "format, lints, layers, licences, docs, generated files, features, then `test`",
        run: ci::run,
    },
    Task {
        name: "layers",
        usage: "",
        about: "compare the crates and their sources with layers.toml",
        run: layers::run,
    },
    Task {
        name: "bench",
        usage: "[NAME]",
        about: "run the benchmarks and print them with their bars",
        run: bench::run,
    },
    Task {
        name: "suite",
        usage: "[NAME]... [--rounds N] [--seed N] | security --update",
        about: "run a suite that needs something beyond cargo; without a name, list them",
        run: suite::run,
    },
    Task {
        name: "setup",
        usage: "[--no-deny] [--no-python]",
        about: "install what skipped tests and suites need, on Debian and Ubuntu",
        run: setup::run,
    },
];

fn main() -> ExitCode {
    match dispatch() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<bool> {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_else(|| "help".to_owned());
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        print!("{}", help());
        return Ok(true);
    }
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        bail!("no task `{name}`; `cargo xtask help` lists them");
    };
    let arguments = Arguments::new(words.collect());
    (task.run)(&Context::load()?, arguments)
}

fn help() -> String {
    let mut text = "cargo xtask <task>\n\n".to_owned();
    for Task { name, usage, about, .. } in TASKS {
        text += &format!("  {:<8}{about}\n", name);
        if !usage.is_empty() {
            text += &format!("          cargo xtask {name} {usage}\n");
        }
    }
    text
}

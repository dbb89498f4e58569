//! `cargo xtask test`: every test that this machine can run, and a list of what it could not run and why.
//!
//! Unit, integration and documentation tests are one `cargo test`; then come the suites of [`crate::suite`]. A test
//! that cannot run here says so in the file that `COFFERDAM_SKIP_LOG` names (`cofferdam_testkit::skip` does), because
//! libtest knows no skipping and would call it passed.

use std::process::Command;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::command::{cargo_in, run_reading};
use crate::context::Context;
use crate::libtest::TestRun;
use crate::report::Report;
use crate::skip_log::SkipLog;
use crate::suite;

pub(crate) fn run(context: &Context, mut arguments: Arguments) -> Result<bool> {
    let list_skips = !arguments.flag("--no-skip-list");
    let with_suites = !arguments.flag("--no-suites");
    let packages = arguments.packages()?;
    arguments.finish()?;
    context.workspace.require_members(&packages)?;
    let mut report = Report::default();
    test(context, &packages, with_suites, &mut report)?;
    Ok(report.print(list_skips))
}

/// Runs the tests of the packages, or of all where none is named.
pub(crate) fn test(
    context: &Context,
    packages: &[String],
    with_suites: bool,
    report: &mut Report,
) -> Result<()> {
    cargo_test(tests_of(context, packages).arg("--no-fail-fast"), report)?;
    if with_suites {
        let context = &Context { built: packages.is_empty(), ..context.clone() };
        for suite in suite::beyond_cargo_test(packages) {
            suite.run_into(context, report);
        }
    }
    Ok(())
}

/// The tests of the packages, or of all where none is named: one build, whether they are run or not.
pub(crate) fn tests_of(context: &Context, packages: &[String]) -> Command {
    let mut command = cargo_in(&context.workspace.root);
    command.args(["test", "--all-features"]);
    select(&mut command, packages);
    command
}

/// Adds `-p` for each package, or `--workspace`.
pub(crate) fn select(command: &mut Command, packages: &[String]) {
    if packages.is_empty() {
        command.arg("--workspace");
    }
    for package in packages {
        command.args(["-p", package]);
    }
}

/// Runs a `cargo test` command into the report.
pub(crate) fn cargo_test(command: &mut Command, report: &mut Report) -> Result<()> {
    let log = SkipLog::create()?;
    let mut run = TestRun::default();
    let status = run_reading(command.env(SkipLog::VARIABLE, log.file()), |line| run.read(line))?;
    report.add_run(run.finish(status.success()), log.read()?);
    Ok(())
}

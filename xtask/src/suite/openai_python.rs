//! `openai-python`: the vendor's own client drives the mock model server, and understands every answer.

use std::process::Command;

use anyhow::Result;

use super::Suite;
use crate::command::{Server, cargo_in, run_reading};
use crate::context::Context;
use crate::report::Report;

pub(crate) const SUITE: Suite = Suite {
    name: "openai-python",
    about: "the `openai` Python package drives the mock model server of the test kit",
    package: "cofferdam-testkit",
    within_cargo_test: false,
    run,
};

fn run(context: &Context, report: &mut Report) -> Result<()> {
    let Some(python) = context.python() else {
        report.skip(
            "suite openai-python",
            "the Python package openai is not installed; cargo xtask setup installs it",
        );
        return Ok(());
    };
    let mut build = cargo_in(&context.workspace.root);
    build.args([
        "run",
        "--quiet",
        "-p",
        "cofferdam-testkit",
        "--bin",
        "mock-model-server",
        "--",
        "--script",
    ]);
    let server = Server::start(build.arg(context.path("xtask/suites/openai_python.json")))?;
    let mut client = Command::new(python);
    client
        .arg(context.path("xtask/suites/openai_python.py"))
        .arg(format!("http://127.0.0.1:{}/v1", server.port));
    run_script("openai-python", &mut client, report)
}

/// Runs a script that prints `ok NAME` or `FAILED NAME: why` for each of its checks.
fn run_script(suite: &str, command: &mut Command, report: &mut Report) -> Result<()> {
    let mut failures = 0;
    let status = run_reading(command, |line| {
        if line.starts_with("ok ") {
            report.pass();
        } else if let Some(failure) = line.strip_prefix("FAILED ") {
            failures += 1;
            report.failures.push(format!("suite {suite}: {failure}"));
        }
    })?;
    if !status.success() && failures == 0 {
        report.fail(format!("suite {suite}: the script ended with {status}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Command, Report, run_script};

    fn check(script: &str, passed: u64, failures: &[&str]) {
        let mut report = Report::default();
        run_script("s", Command::new("/bin/sh").args(["-c", script]), &mut report).unwrap();
        assert_eq!(
            (report.passed, report.failures.iter().map(String::as_str).collect::<Vec<_>>()),
            (passed, failures.to_vec())
        );
    }

    #[test]
    fn a_script_is_counted_by_its_lines() {
        check("echo ok one; echo note; echo ok two", 2, &[]);
        check(
            "echo ok one; echo 'FAILED two: 3 is not 4'; exit 1",
            1,
            &["suite s: two: 3 is not 4"],
        );
        check("echo ok one; exit 7", 1, &["suite s: the script ended with exit status: 7"]);
    }
}

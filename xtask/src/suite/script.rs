//! Suites that are a program of their own: what its lines mean.

use std::process::Command;

use anyhow::Result;

use crate::command::run_reading;
use crate::report::{Report, Skip};

/// Runs a script that prints `ok NAME` or `FAILED NAME: why` for each of its checks, and `skipped NAME: why` for what it
/// could not check.
pub(super) fn run_script(suite: &str, command: &mut Command, report: &mut Report) -> Result<()> {
    let mut failures = 0;
    let status = run_reading(command, |line| {
        if line.starts_with("ok ") {
            report.pass();
        } else if let Some(failure) = line.strip_prefix("FAILED ") {
            failures += 1;
            report.failures.push(format!("suite {suite}: {failure}"));
        } else if let Some((what, why)) =
            line.strip_prefix("skipped ").and_then(|it| it.split_once(": "))
        {
            report.skips.push(Skip { what: format!("suite {suite}: {what}"), why: why.to_owned() });
        }
    })?;
    if !status.success() && failures == 0 {
        report.fail(format!("suite {suite}: the script ended with {status}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Command, Report, Skip, run_script};

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
        let mut report = Report::default();
        run_script(
            "s",
            Command::new("/bin/sh").args(["-c", "echo 'skipped two: no net'"]),
            &mut report,
        )
        .unwrap();
        assert_eq!(report.skips, [Skip { what: "suite s: two".into(), why: "no net".into() }]);
        check("echo ok one; exit 7", 1, &["suite s: the script ended with exit status: 7"]);
    }
}

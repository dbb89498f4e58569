//! `example`: the main job of the README, in release mode, end to end.

use std::process::Command;

use anyhow::Result;

use super::Suite;
use crate::command::{cargo_in, run_reading};
use crate::context::Context;
use crate::report::Report;

pub(crate) const SUITE: Suite = Suite {
    name: "example",
    about: "the clinical records job runs sealed, ends well and prints precision and recall",
    package: "cofferdam-cli",
    within_cargo_test: false,
    run,
};

/// What the suite builds and no test does.
pub(super) fn build(context: &Context) -> Command {
    let mut command = cargo_in(&context.workspace.root);
    command.args(["build", "--quiet", "--release"]);
    command
}

fn run(context: &Context, report: &mut Report) -> Result<()> {
    let mut command = cargo_in(&context.workspace.root);
    command.args(["run", "--quiet", "--release", "--"]);
    command.args(["run", "examples/clinical-records/agent.yaml"]);
    // The scripted model plays the job, whatever key the caller's environment holds.
    command.env_remove("OPENAI_API_KEY");
    let mut text = String::new();
    let status = run_reading(&mut command, |line| text += &format!("{}\n", line.to_lowercase()))?;
    report.check(&format!("suite example: the job ended with {status}"), status.success());
    for figure in ["precision", "recall"] {
        report.check(
            &format!("suite example: no {figure} between 0 and 1 is printed"),
            has_figure(&text, figure),
        );
    }
    Ok(())
}

/// Whether a number from 0 to 1, or a percentage, follows the word within its line.
fn has_figure(text: &str, word: &str) -> bool {
    let number = |rest: &str| {
        let start = rest.find(|character: char| character.is_ascii_digit())?;
        let rest = &rest[start..];
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(rest.len());
        let value: f64 = rest[..end].trim_end_matches('.').parse().ok()?;
        Some(if rest[end..].trim_start().starts_with('%') { value / 100.0 } else { value })
    };
    text.lines()
        .filter_map(|line| line.split_once(word))
        .filter_map(|(_, rest)| number(rest))
        .any(|it| it <= 1.0)
}

#[cfg(test)]
mod tests {
    use super::has_figure;

    #[test]
    fn finds_figures() {
        for (text, expect) in [
            ("precision 0.993, recall 0.981", true),
            ("  recall:  98.1 %", true),
            ("recall     1.", true),
            ("recall of 240 encounters", false),
            ("no recall\n1.0", false),
            ("", false),
        ] {
            assert_eq!(has_figure(text, "recall"), expect, "{text}");
        }
    }
}

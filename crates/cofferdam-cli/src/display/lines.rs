//! One line for each step on standard error, and the rendering that the terminal shares.

use std::io::Write as _;

use async_trait::async_trait;
use cofferdam::{
    core::ToolOutput,
    harness::{RunEvent, RunObserver},
};
use serde_json::Value;

use super::Price;

/// Writes a line for each event that a person wants to see.
#[derive(Debug)]
pub(super) struct LineObserver(pub(super) Option<Price>);

#[async_trait]
impl RunObserver for LineObserver {
    async fn event(&self, event: RunEvent) {
        for line in render(&event, self.0) {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }
}

/// Longest line shown of what a model or a tool says, in characters.
const WIDTH: usize = 110;

/// Lines shown of the end of a failed tool's output.
const FAILURE_LINES: usize = 4;

/// Returns the lines that show an event; none for events that tell a person nothing.
pub(super) fn render(event: &RunEvent, price: Option<Price>) -> Vec<String> {
    match event {
        RunEvent::RunStarted { run, agent, model } => {
            let scripted = if model.starts_with("scripted:") {
                " (scripted: its words are fixed in advance, its commands really run)"
            } else {
                ""
            };
            vec![format!("run {run}: agent {agent}, model {model}{scripted}")]
        }
        RunEvent::ModelAnswered { turn, text, usage, .. } => {
            let tokens = match usage.total_tokens() {
                0 => String::new(),
                _ => format!(" [{}]", Price::show(price, *usage)),
            };
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            match lines.next() {
                Some(first) => {
                    let mut shown = vec![format!("[{turn}] {}{tokens}", shorten(first))];
                    shown.extend(lines.map(|line| format!("    {}", shorten(line))));
                    shown
                }
                None => Vec::new(),
            }
        }
        RunEvent::ToolStarted { step, tool, input } => {
            vec![format!("  {step} {tool}: {}", shorten(&summary(tool, input)))]
        }
        RunEvent::ToolFinished { step, tool, output, duration_ms } => {
            finished(&format!("  {step} {tool}"), output, *duration_ms)
        }
        RunEvent::RunResumed { run, agent, turns, records, .. } => {
            vec![format!("run {run}: agent {agent} goes on after turn {turns}, record {records}")]
        }
        RunEvent::SandboxLost { reason } => {
            let reason = reason.strip_prefix("the sandbox is lost: ").unwrap_or(reason);
            vec![format!("the sandbox is lost: {}", shorten(reason))]
        }
        RunEvent::SandboxReplaced { checkpoint } => {
            let from = checkpoint.as_deref().map_or("the run's start", shorten_id);
            vec![format!("a fresh sandbox is in its place, restored from {from}")]
        }
        RunEvent::RunRewound { to } => {
            vec![format!("the conversation goes back to record {to}, whose workspace was restored")]
        }
        RunEvent::RunPaused { run, reason } => {
            vec![format!("run {run}: waits for {}", shorten(&reason.to_string()))]
        }
        RunEvent::RunFinished { run, error, turns, usage } => {
            let outcome =
                error.as_ref().map_or("done".to_owned(), |error| format!("failed: {error}"));
            vec![format!(
                "run {run}: {outcome} after {turns} turns, {} tokens",
                usage.total_tokens()
            )]
        }
        _ => Vec::new(),
    }
}

/// A checkpoint is told from others by its place, which is enough to go back to it; its whole name is in the records.
pub(super) fn shorten_id(checkpoint: &str) -> &str {
    checkpoint.rsplit_once('.').map_or(checkpoint, |(place, _)| place)
}

fn finished(head: &str, output: &ToolOutput, duration_ms: u64) -> Vec<String> {
    let seconds = duration_ms as f64 / 1000.0;
    let exit_code = output.structured.get("exit_code").and_then(Value::as_i64);
    let failed = output.is_error || exit_code.is_some_and(|code| code != 0);
    let outcome = match exit_code {
        Some(code) => format!("exit code {code}"),
        None if output.is_error => "failed".into(),
        None => "ok".into(),
    };
    let mut lines = vec![format!("{head}: {outcome}, {seconds:.2} s")];
    if failed {
        let text = output.to_text();
        let all: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = all.iter().skip(all.len().saturating_sub(FAILURE_LINES));
        lines.extend(last.map(|line| format!("      | {}", shorten(line))));
    }
    lines
}

/// Returns what a person wants to see of a call's input: the command, the files of a patch, else the input itself.
pub(super) fn summary(tool: &str, input: &str) -> String {
    if tool == "apply_patch" {
        let files: Vec<_> = input
            .lines()
            .filter_map(|line| {
                let rest = line.strip_prefix("*** ")?;
                let (verb, path) = rest.split_once(" File: ")?;
                Some(format!("{} {path}", verb.to_lowercase()))
            })
            .collect();
        if !files.is_empty() {
            return files.join(", ");
        }
    }
    let arguments: Value = serde_json::from_str(input).unwrap_or_default();
    match arguments.get("cmd").and_then(Value::as_str) {
        Some(command) => format!("$ {command}"),
        None => input.to_owned(),
    }
}

/// Returns the first line of a text, without control characters, cut to a width.
pub(super) fn shorten(text: &str) -> String {
    let mut lines = text.lines();
    let line = lines.next().unwrap_or_default();
    // Control characters of untrusted output would reach the person's terminal.
    let clean: String = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let cut = clean.chars().count() > WIDTH || lines.next().is_some();
    let mut short: String = clean.chars().take(WIDTH).collect();
    if cut {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use cofferdam::core::{RunId, StepId, Usage};
    use serde_json::json;

    use super::*;

    fn check(event: &RunEvent, expect: &str) {
        assert_eq!(render(event, None).join("\n"), expect);
    }

    #[test]
    fn renders_events_for_people() {
        let step = StepId { turn: 2, call: 1 };
        check(
            &RunEvent::RunStarted {
                run: RunId::new("r"),
                agent: "a".into(),
                model: "scripted:demo".into(),
            },
            "run r: agent a, model scripted:demo (scripted: its words are fixed in advance, its commands really run)",
        );
        check(
            &RunEvent::ToolStarted {
                step,
                tool: "exec_command".into(),
                input: "{\"cmd\":\"ls\\nrm \\u001b[2J\"}".into(),
            },
            "  2.1 exec_command: $ ls…",
        );
        check(
            &RunEvent::ToolStarted {
                step,
                tool: "apply_patch".into(),
                input: "*** Begin Patch\n*** Add File: a\n+x\n*** Update File: b c\n".into(),
            },
            "  2.1 apply_patch: add a, update b c",
        );
        let output = ToolOutput {
            structured: json!({"exit_code": 3}),
            ..ToolOutput::text("a\nb\u{1b}[2J\n\nc\n")
        };
        check(
            &RunEvent::ToolFinished {
                step,
                tool: "exec_command".into(),
                output,
                duration_ms: 1234,
            },
            "  2.1 exec_command: exit code 3, 1.23 s\n      | a\n      | b\u{fffd}[2J\n      | c",
        );
        check(
            &RunEvent::RunFinished {
                run: RunId::new("r"),
                error: None,
                turns: 3,
                usage: Usage::default(),
            },
            "run r: done after 3 turns, 0 tokens",
        );
    }
}

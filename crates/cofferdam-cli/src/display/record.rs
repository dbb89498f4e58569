//! One line for each record of a journal, for people.

use cofferdam::{
    core::{Effects, Item, ToolOutput},
    journal::{ApprovalVerdict, Decision, Record, RecordBody, Resolution, RunOutcome},
};
use serde_json::Value;

use super::lines::{shorten, shorten_id};

/// Returns the line that shows a record: its number, its time, and what it says.
pub(crate) fn render(record: &Record) -> String {
    format!("{:>5}  {}  {}", record.seq, record.time, shorten(&say(&record.body)))
}

fn say(body: &RecordBody) -> String {
    match body {
        RecordBody::RunStarted { agent, parent: None, .. } => format!("run started: agent {agent}"),
        RecordBody::RunStarted { agent, parent: Some(fork), .. } => {
            format!("run started: agent {agent}, forked from record {} of {}", fork.seq, fork.run)
        }
        RecordBody::RunResumed { owner, .. } => format!("resumed by {owner}"),
        RecordBody::SandboxStarted { state, .. } => format!("sandbox {}", id(state)),
        RecordBody::SandboxLost { reason } => format!("sandbox lost: {reason}"),
        RecordBody::SandboxReplaced { state, checkpoint, attempt } => {
            let from = checkpoint.as_deref().unwrap_or("the start");
            format!("sandbox {} in its place (loss {attempt}), restored from {from}", id(state))
        }
        RecordBody::ModelRequested { turn, items } => {
            format!("[{turn}] model asked, {items} items")
        }
        RecordBody::ModelResponded { turn, items, usage, .. } => {
            let calls = items.iter().filter(|item| matches!(item, Item::ToolCall(_))).count();
            format!("[{turn}] model answered: {calls} calls, {} tokens", usage.total_tokens())
        }
        RecordBody::ToolIntended { step, tool, effects, .. } => {
            format!("  {step} {tool} begins ({})", kind(*effects))
        }
        RecordBody::ToolFinished { step, output: Some(output), .. } => {
            format!("  {step} ended: {}", outcome(output))
        }
        RecordBody::ToolFinished { step, error, .. } => {
            format!("  {step} failed: {}", error.as_deref().unwrap_or("it says not why"))
        }
        RecordBody::ToolRefused { step, tool, reasons } => {
            format!("  {step} {tool} refused: {}", reasons.join("; "))
        }
        RecordBody::ToolResolved { step, how, why, .. } => {
            let how = match how {
                Resolution::RunAgain => "run again",
                Resolution::Probed => "its result was found",
                Resolution::Told => "the model is told that its outcome is unknown",
                _ => "resolved in a way that this release does not know",
            };
            format!("  {step} {how}: {why}")
        }
        RecordBody::ApprovalAsked { step, tool, reasons, .. } => {
            format!("  {step} {tool} waits for approval: {}", reasons.join("; "))
        }
        RecordBody::ApprovalGiven { step, verdict, by, reason } => {
            let verdict = match verdict {
                ApprovalVerdict::Approved => "approved",
                _ => "refused",
            };
            format!("  {step} {verdict} by {by}{}", because(reason))
        }
        RecordBody::DecisionGiven { step, decision, by, reason } => {
            let about = step.map_or_else(|| "the workspace".to_owned(), |step| step.to_string());
            format!("  {about}: {} decided {by}{}", decided(decision), because(reason))
        }
        RecordBody::InputGiven { items, .. } => format!("input given: {}", said(items)),
        RecordBody::RunPaused { reason } => format!("paused; it waits for {reason}"),
        RecordBody::CheckpointTaken { checkpoint, at, running, .. } => {
            let running = match running.len() {
                0 => String::new(),
                number => format!(", {number} commands were running"),
            };
            format!("checkpoint of record {at}{running}: {}", shorten_id(checkpoint))
        }
        RecordBody::RunRewound { to, reason, .. } => format!("rewound to record {to}: {reason}"),
        RecordBody::RunFinished { outcome, usage } => {
            let outcome = match outcome {
                RunOutcome::Completed => "done".to_owned(),
                RunOutcome::Cancelled => "cancelled".to_owned(),
                RunOutcome::Aborted => "ended by a decision".to_owned(),
                RunOutcome::Failed { error } => format!("failed: {error}"),
                _ => "ended in a way that this release does not know".to_owned(),
            };
            format!("run ended: {outcome}, {} tokens", usage.total_tokens())
        }
        RecordBody::Unknown(value) => {
            let kind = value.get("kind").and_then(Value::as_str).unwrap_or("no kind");
            format!("a record that this release does not know: {kind}")
        }
        _ => "a record that this command does not know".to_owned(),
    }
}

/// The name in a handle, which may be wrapped by the keeper's own data.
fn id(state: &Value) -> &str {
    let own = state.get("id").and_then(Value::as_str);
    let wrapped = || state.as_object()?.values().find_map(|value| value.get("id")?.as_str());
    own.or_else(wrapped).unwrap_or("without a name")
}

fn kind(effects: Effects) -> String {
    let class = serde_json::to_value(effects.class).unwrap_or_default();
    let class = class.as_str().unwrap_or("unknown").to_owned();
    let writes = if effects.writes { ", writes" } else { "" };
    let network = if effects.network { ", network" } else { "" };
    format!("{class}{writes}{network}")
}

fn outcome(output: &ToolOutput) -> String {
    match output.structured.get("exit_code").and_then(Value::as_i64) {
        Some(code) => format!("exit code {code}"),
        None if output.is_error => "told the model of a failure".to_owned(),
        None => "ok".to_owned(),
    }
}

/// The words of messages, or how many items of another kind there are.
fn said(items: &[Item]) -> String {
    let texts = items.iter().map(|item| match item {
        Item::Message(message) => Some(message.to_text()),
        _ => None,
    });
    match texts.collect::<Option<Vec<_>>>() {
        Some(texts) => texts.join(" "),
        None => format!("{} items", items.len()),
    }
}

fn decided(decision: &Decision) -> &'static str {
    match decision {
        Decision::RunAgain => "to run it again,",
        Decision::TellModel => "to tell the model that the outcome is unknown,",
        Decision::AcceptWorkspace => "to go on with the workspace as it is,",
        Decision::Abort => "to end the run,",
        _ => "something that this release does not know,",
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

#[cfg(test)]
mod tests {
    use cofferdam::{
        core::{RunId, StepId, Timestamp},
        journal::{Entry, PauseReason, Seq},
    };
    use serde_json::json;

    use super::*;

    fn check(body: RecordBody, expect: &str) {
        let entry = Entry { time: Timestamp(0), body };
        let record = Record::following(&RunId::new("r"), None, entry).unwrap();
        assert_eq!(render(&record), format!("    1  1970-01-01T00:00:00.000Z  {expect}"));
    }

    #[test]
    fn each_record_is_one_line_without_control_characters() {
        let step = StepId { turn: 2, call: 0 };
        check(
            RecordBody::ToolIntended {
                step,
                tool: "exec_command".into(),
                input_hash: String::new(),
                effects: Effects::default(),
                idempotency_key: "r/2.0".into(),
                probe: Value::Null,
                outside: false,
            },
            "  2.0 exec_command begins (unknown, writes, network)",
        );
        check(
            RecordBody::ToolFinished {
                step,
                output: Some(ToolOutput {
                    structured: json!({"exit_code": 3}),
                    ..ToolOutput::text("")
                }),
                error: None,
            },
            "  2.0 ended: exit code 3",
        );
        check(
            RecordBody::SandboxLost { reason: "killed\u{1b}[2J".into() },
            "sandbox lost: killed\u{fffd}[2J",
        );
        check(
            RecordBody::RunPaused { reason: PauseReason::Approval { steps: vec![step] } },
            "paused; it waits for approval of step 2.0",
        );
        check(
            RecordBody::CheckpointTaken {
                checkpoint: "0123456789abcdef".into(),
                at: Seq(9),
                turn: 2,
                snapshot: None,
                sandbox: Value::Null,
                receipt: json!({"files": 3}),
                running: vec!["tail -f".into()],
            },
            "checkpoint of record 9, 1 commands were running: 0123456789abcdef",
        );
        check(
            RecordBody::Unknown(json!({"kind": "time_travelled"})),
            "a record that this release does not know: time_travelled",
        );
    }
}

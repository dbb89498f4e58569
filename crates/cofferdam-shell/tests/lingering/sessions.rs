//! Sessions that a model was told of, and that the tools of another process go on with.

use std::sync::Arc;

use cofferdam_core::{StepId, ToolOutput, WorkspacePath};
use cofferdam_sandbox::{ReplaceableSandbox, Sandbox, SandboxBackend, SandboxSpec};
use cofferdam_tool::{ProbeOutcome, Recalled, Tool, ToolInput};
use serde_json::{Value, json};

use crate::host::{Host, Tools, context, ended, sandbox, tools};

/// Says what each line is that it reads, on a terminal that does not.
const ECHO: &str = "stty -echo; echo ready; while read line; do echo \"got $line\"; done; exit 7";

/// Makes a call whose result is recorded.
async fn call(tool: &dyn Tool, place: u32, input: Value) -> ToolOutput {
    let output = made(tool, place, input).await;
    tool.settled(&context(place)).await;
    output
}

/// Makes a call whose result nobody records.
async fn made(tool: &dyn Tool, place: u32, input: Value) -> ToolOutput {
    tool.call(&context(place), ToolInput::Json(input)).await.unwrap()
}

async fn probe(tools: &Tools, place: u32, input: &Value) -> ProbeOutcome {
    let input = ToolInput::Json(input.clone());
    tools.stdin.probe(&context(place), &input, &Value::Null).await.unwrap()
}

/// Another process, which reads what this one had recorded; then this one is gone.
async fn restart(
    host: &Host,
    old: Tools,
    sandbox: &mut Arc<dyn Sandbox>,
    recorded: &[&ToolOutput],
) -> Tools {
    *sandbox = host.backend.attach(&sandbox.state()).await.unwrap();
    drop(old);
    let new = tools(sandbox);
    for output in recorded {
        // Each tool is told of its own; they share what they know.
        let step = StepId { turn: 1, call: 0 };
        new.exec.recall(&Recalled::Result { step, output });
    }
    new
}

fn session_of(output: &ToolOutput) -> u64 {
    output.structured["session_id"].as_u64().unwrap_or_else(|| panic!("{}", output.to_text()))
}

/// Writes an empty file.
async fn write(sandbox: &Arc<dyn Sandbox>, path: &str) {
    let path = WorkspacePath::new(path).unwrap();
    sandbox.files().write(&path, "".into(), &Default::default()).await.unwrap();
}

/// What the command wrote, as the model reads it.
fn written(output: &ToolOutput) -> String {
    let text = output.to_text();
    let (_, written) = text.split_once("\nOutput:\n").unwrap_or_else(|| panic!("{text}"));
    written.replace('\r', "")
}

#[tokio::test]
async fn a_session_goes_on_in_another_process_where_the_model_stopped() {
    let name = "a_session_goes_on_in_another_process_where_the_model_stopped";
    let Some((host, mut sandbox)) = sandbox(name).await else { return };
    let first = tools(&sandbox);
    let input = json!({"cmd": ECHO, "tty": true, "yield_time_ms": 1000});
    let begun = call(&first.exec, 0, input).await;
    assert_eq!(written(&begun), "ready\n");
    let id = session_of(&begun);

    let second = restart(&host, first, &mut sandbox, &[&begun]).await;
    let typed = json!({"session_id": id, "chars": "one\n", "yield_time_ms": 1000});
    let heard = call(&second.stdin, 1, typed).await;
    assert_eq!((written(&heard).as_str(), session_of(&heard)), ("got one\n", id));

    // The third process knows how far the second one was.
    let third = restart(&host, second, &mut sandbox, &[&begun, &heard]).await;
    let typed = json!({"session_id": id, "chars": "two\n\u{4}"});
    let ended = call(&third.stdin, 2, typed.clone()).await;
    assert_eq!(written(&ended), "got two\n");
    assert_eq!(ended.structured["exit_code"], 7);

    // The fourth one knows that the model was told of the end.
    let fourth = restart(&host, third, &mut sandbox, &[&begun, &heard, &ended]).await;
    let gone = call(&fourth.stdin, 3, typed).await;
    assert!(gone.is_error);
    assert!(gone.to_text().contains("PTY session not found"), "{}", gone.to_text());
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn no_character_is_broken_between_two_processes() {
    let name = "no_character_is_broken_between_two_processes";
    let Some((host, mut sandbox)) = sandbox(name).await else { return };
    let first = tools(&sandbox);
    let script = "echo warning >&2; until [ -e one ]; do sleep 0.02; done; printf '1 \\342\\202'; \
                  until [ -e two ]; do sleep 0.02; done; printf '\\254 2'";
    let begun = call(&first.exec, 0, json!({"cmd": script, "yield_time_ms": 500})).await;
    assert_eq!(written(&begun), "warning\n");
    let poll = json!({"session_id": session_of(&begun)});
    write(&sandbox, "one").await;
    let seen = call(&first.stdin, 1, poll.clone()).await;
    assert_eq!(written(&seen), "1 ");
    let second = restart(&host, first, &mut sandbox, &[&begun, &seen]).await;
    write(&sandbox, "two").await;
    let ended = call(&second.stdin, 2, poll).await;
    assert_eq!(written(&ended), "€ 2");
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn what_was_typed_is_not_typed_twice() {
    let Some((host, mut sandbox)) = sandbox("what_was_typed_is_not_typed_twice").await else {
        return;
    };
    let first = tools(&sandbox);
    let input = json!({"cmd": ECHO, "tty": true, "yield_time_ms": 500});
    let begun = call(&first.exec, 0, input).await;
    let typed = json!({"session_id": session_of(&begun), "chars": "once\n"});
    // The next process must find out.
    made(&first.stdin, 1, typed.clone()).await;
    let second = restart(&host, first, &mut sandbox, &[&begun]).await;
    let outcome = probe(&second, 1, &typed).await;
    assert!(matches!(&outcome, ProbeOutcome::Unknown { why } if why.contains("may or may not")));
    // A look shows what it did.
    let seen = call(&second.stdin, 2, json!({"session_id": typed["session_id"]})).await;
    assert_eq!(written(&seen), "got once\n");

    // Into a command that has ended nothing is typed; its end is the result.
    let typed = json!({"session_id": typed["session_id"], "chars": "\u{4}", "yield_time_ms": 1000});
    let lost = made(&second.stdin, 3, typed.clone()).await;
    assert_eq!(lost.structured["exit_code"], 7, "{}", lost.to_text());
    let third = restart(&host, second, &mut sandbox, &[&begun, &seen]).await;
    let outcome = probe(&third, 3, &typed).await;
    let ProbeOutcome::Finished(found) = outcome else { panic!("{outcome:?}") };
    assert_eq!(found.structured["exit_code"], 7, "{}", found.to_text());
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn a_session_whose_sandbox_is_lost_is_said_to_be() {
    let name = "a_session_whose_sandbox_is_lost_is_said_to_be";
    let Some((host, first)) = sandbox(name).await else { return };
    let place = Arc::new(ReplaceableSandbox::new(Arc::clone(&first)));
    let here = tools(&(Arc::clone(&place) as Arc<dyn Sandbox>));
    let begun = call(&here.exec, 0, json!({"cmd": "sleep 60", "yield_time_ms": 250})).await;
    let poll = json!({"session_id": session_of(&begun)});
    let expect = "which was lost and replaced";

    let second = host.backend.create(&SandboxSpec::default()).await.unwrap();
    place.replace(Arc::clone(&second));
    for place in 1..=2 {
        let gone = call(&here.stdin, place, poll.clone()).await;
        assert!(gone.is_error && gone.to_text().contains(expect), "{}", gone.to_text());
    }

    // Another process is told of the loss by the journal.
    let there = tools(&second);
    there.exec.recall(&Recalled::Result { step: StepId { turn: 1, call: 0 }, output: &begun });
    there.stdin.recall(&Recalled::SandboxLost);
    let gone = call(&there.stdin, 3, poll.clone()).await;
    assert!(gone.is_error && gone.to_text().contains(expect), "{}", gone.to_text());
    let outcome = probe(&there, 3, &poll).await;
    assert_eq!(outcome, ProbeOutcome::NotStarted);
    first.close().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test]
async fn sessions_that_are_left_go_on_and_others_end_with_their_tools() {
    let name = "sessions_that_are_left_go_on_and_others_end_with_their_tools";
    let Some((_host, sandbox)) = sandbox(name).await else { return };
    for is_left in [true, false] {
        let first = tools(&sandbox);
        let place = u32::from(is_left);
        let input = json!({"cmd": ECHO, "tty": true, "yield_time_ms": 500});
        let begun = call(&first.exec, place, input).await;
        if is_left {
            first.terminal.leave();
        }
        // The connection stays: only the tools are gone.
        drop(first);
        if !is_left {
            ended(&sandbox, &format!("r/1.{place}:tty")).await;
        }
        let second = tools(&sandbox);
        let step = StepId { turn: 1, call: place };
        second.exec.recall(&Recalled::Result { step, output: &begun });
        let typed = json!({"session_id": session_of(&begun), "chars": "x\n\u{4}"});
        let ended = call(&second.stdin, 10 + place, typed).await;
        assert_eq!(ended.structured["exit_code"], if is_left { 7 } else { 137 }, "{is_left}");
    }
    sandbox.close().await.unwrap();
}

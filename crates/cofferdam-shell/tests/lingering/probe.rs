//! Commands whose results were not recorded, asked for by the tools of another process.

use std::{sync::Arc, time::Duration};

use cofferdam_core::{ToolOutput, WorkspacePath};
use cofferdam_sandbox::{ExecRequest, Sandbox, SandboxBackend, SandboxExt, SandboxSpec};
use cofferdam_sandbox_linux::LinuxBackend;
use cofferdam_tool::{ProbeOutcome, Tool, ToolContext, ToolError, ToolInput};
use serde_json::{Value, json};

use crate::host::{context, ended, sandbox, tools};

async fn probe(tool: &dyn Tool, context: &ToolContext, input: Value) -> ProbeOutcome {
    tool.probe(context, &ToolInput::Json(input), &Value::Null).await.unwrap()
}

fn finished(outcome: ProbeOutcome) -> ToolOutput {
    match outcome {
        ProbeOutcome::Finished(output) => output,
        other => panic!("{other:?}"),
    }
}

/// What an earlier process started, and did not hear the end of.
async fn started(sandbox: &Arc<dyn Sandbox>, name: &str, script: &str) {
    let request =
        ExecRequest { id: Some(name.to_owned()), ..ExecRequest::program(["sh", "-c", script]) };
    sandbox.exec(request).await.unwrap().detach().await.unwrap();
}

async fn names(sandbox: &Arc<dyn Sandbox>) -> Vec<String> {
    let list = sandbox.sessions().unwrap().list().await.unwrap();
    list.into_iter().map(|command| command.id).collect()
}

#[tokio::test]
async fn a_command_is_joined_and_heard_to_its_real_end() {
    let Some((host, first)) = sandbox("a_command_is_joined_and_heard_to_its_real_end").await else {
        return;
    };
    started(
        &first,
        "r/1.0",
        "echo begun; until [ -e go ]; do sleep 0.02; done; echo x >> count; exit 3",
    )
    .await;
    // Another process, by a handle that was written down.
    let second = host.backend.attach(&first.state()).await.unwrap();
    drop(first);
    let tools = tools(&second);
    let input = json!({"cmd": "until [ -e go ]; do sleep 0.02; done; echo x >> count; exit 3"});
    let go = WorkspacePath::new("go").unwrap();
    let call = context(0);
    let (outcome, ()) = tokio::join!(probe(&tools.exec, &call, input.clone()), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        second.files().write(&go, "".into(), &Default::default()).await.unwrap();
    });
    let output = finished(outcome);
    assert_eq!(output.structured["exit_code"], 3, "{}", output.to_text());
    assert!(output.to_text().ends_with("begun\n"), "{}", output.to_text());
    // It can be asked again until the result is durable, and is then forgotten.
    finished(probe(&tools.exec, &call, input.clone()).await);
    tools.exec.settled(&call).await;
    assert_eq!(names(&second).await, Vec::<String>::new());
    assert_eq!(probe(&tools.exec, &call, input).await, ProbeOutcome::NotStarted);
    let count = second.run(ExecRequest::shell("wc -l < count"), 100).await.unwrap();
    assert_eq!(count.stdout.to_text().trim(), "1");
    second.close().await.unwrap();
}

#[tokio::test]
async fn what_was_never_started_is_told_apart_from_what_was_killed() {
    let name = "what_was_never_started_is_told_apart_from_what_was_killed";
    let Some((_host, sandbox)) = sandbox(name).await else { return };
    let tools = tools(&sandbox);
    let input = json!({"cmd": "echo x >> count; sleep 60"});
    assert_eq!(probe(&tools.exec, &context(0), input.clone()).await, ProbeOutcome::NotStarted);

    // The run is cancelled while the command goes on: it is killed, and that is what is told later.
    let call = context(1);
    let cancel = call.cancel.clone();
    let count = WorkspacePath::new("count").unwrap();
    let (result, ()) =
        tokio::join!(tools.exec.call(&call, ToolInput::Json(input.clone())), async {
            while sandbox.files().stat(&count).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            cancel.cancel();
        });
    assert!(matches!(result, Err(ToolError::Cancelled)), "{result:?}");
    ended(&sandbox, "r/1.1").await;
    let later = ToolContext { cancel: Default::default(), ..call };
    let output = finished(probe(&tools.exec, &later, input.clone()).await);
    assert_eq!(output.structured["exit_code"], 137, "{}", output.to_text());

    // So it is with a call whose future is dropped.
    let call = context(2);
    let input = json!({"cmd": "echo x >> count2; sleep 60"});
    let count = WorkspacePath::new("count2").unwrap();
    tokio::select! {
        result = tools.exec.call(&call, ToolInput::Json(input.clone())) => panic!("{result:?}"),
        () = async {
            while sandbox.files().stat(&count).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } => {}
    }
    ended(&sandbox, "r/1.2").await;
    let output = finished(probe(&tools.exec, &call, input).await);
    assert_eq!(output.structured["exit_code"], 137, "{}", output.to_text());
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn a_shell_call_goes_on_with_the_command_where_it_was() {
    let name = "a_shell_call_goes_on_with_the_command_where_it_was";
    let Some((_host, sandbox)) = sandbox(name).await else { return };
    let tools = tools(&sandbox);
    let input = json!({"commands": ["echo a >> log", "echo b >> log; sleep 0.2; echo b2", "echo c >> log"]});
    assert_eq!(probe(&tools.shell, &context(0), input.clone()).await, ProbeOutcome::NotStarted);
    // The first had ended and the second was going on.
    started(&sandbox, "r/1.0", "echo a >> log").await;
    ended(&sandbox, "r/1.0").await;
    started(&sandbox, "r/1.0+1", "echo b >> log; sleep 0.2; echo b2").await;
    let output = finished(probe(&tools.shell, &context(0), input).await);
    let codes: Vec<_> = output.structured["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ran| ran["outcome"]["exit_code"].clone())
        .collect();
    assert_eq!(codes, [0, 0, 0]);
    assert_eq!(output.structured["output"][1]["stdout"], "b2\n");
    let log = sandbox.run(ExecRequest::shell("cat log"), 100).await.unwrap();
    assert_eq!(log.stdout.to_text(), "a\nb\nc\n");
    tools.shell.settled(&context(0)).await;
    let left = names(&sandbox).await;
    assert!(!left.iter().any(|name| name.starts_with("r/")), "{left:?}");
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn output_that_is_no_longer_there_is_counted() {
    let Some((_host, sandbox)) = sandbox("output_that_is_no_longer_there_is_counted").await else {
        return;
    };
    let tools = tools(&sandbox);
    started(&sandbox, "r/1.0", "seq 1 200000; echo end").await;
    ended(&sandbox, "r/1.0").await;
    let input = json!({"cmd": "seq 1 200000; echo end", "max_output_tokens": 50_000});
    let output = finished(probe(&tools.exec, &context(0), input).await);
    assert_eq!(output.structured["exit_code"], 0);
    let text = output.to_text();
    assert!(text.contains("bytes omitted…"), "{}", &text[..300]);
    assert!(text.ends_with("200000\nend\n"));
    // 1 288 895 bytes and `end`.
    assert_eq!(output.structured["original_token_count"], (1_288_895 + 4_u64).div_ceil(4));
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn names_do_not_pile_up_and_ended_sessions_give_theirs_back() {
    let name = "names_do_not_pile_up_and_ended_sessions_give_theirs_back";
    let Some((_host, sandbox)) = sandbox(name).await else { return };
    let tools = tools(&sandbox);
    for place in 0..10 {
        let call = context(place);
        tools.exec.call(&call, ToolInput::Json(json!({"cmd": "true"}))).await.unwrap();
        tools.exec.settled(&call).await;
    }
    assert_eq!(names(&sandbox).await, Vec::<String>::new());
    let call = context(10);
    let input = json!({"cmd": "until [ -e go ]; do sleep 0.02; done", "yield_time_ms": 250});
    let output = tools.exec.call(&call, ToolInput::Json(input)).await.unwrap();
    tools.exec.settled(&call).await;
    assert_eq!(names(&sandbox).await, ["r/1.10"]);
    let go = WorkspacePath::new("go").unwrap();
    sandbox.files().write(&go, "".into(), &Default::default()).await.unwrap();
    let poll = json!({"session_id": output.structured["session_id"]});
    let call = context(11);
    let output = tools.stdin.call(&call, ToolInput::Json(poll)).await.unwrap();
    assert_eq!(output.structured["exit_code"], 0, "{}", output.to_text());
    tools.stdin.settled(&call).await;
    assert_eq!(names(&sandbox).await, Vec::<String>::new());
    sandbox.close().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_that_keeps_nothing_says_so() {
    let Ok(sandbox) = LinuxBackend::new().create(&SandboxSpec::default()).await else {
        cofferdam_testkit::skip("a_sandbox_that_keeps_nothing_says_so", "no sandbox on this host");
        return;
    };
    let tools = tools(&sandbox);
    let outcome = probe(&tools.exec, &context(0), json!({"cmd": "true"})).await;
    assert!(matches!(&outcome, ProbeOutcome::Unknown { .. }), "{outcome:?}");
    let outcome =
        probe(&tools.stdin, &context(0), json!({"session_id": 1234, "chars": "y\n"})).await;
    assert_eq!(outcome, ProbeOutcome::NotStarted, "there is no such session to type into");
    sandbox.close().await.unwrap();
}

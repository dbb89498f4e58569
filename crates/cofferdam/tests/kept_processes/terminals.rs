//! Terminal sessions that the model was told of before the process died.

use std::{path::Path, sync::Arc};

use cofferdam::{
    Agent, Session,
    core::{Item, RunId},
    harness::{RunOptions, RunReport},
    journal::RunFilter,
};
use tempfile::tempdir;

use crate::{
    common::{eventually, kill_sandbox_of, process_with, text, write},
    driver::{Driver, Scenario, token},
};

/// Lets a process talk to its program, kills it while a command runs, and returns that command's process on the host.
async fn begun(state: &Path) -> (Agent, RunId, u32) {
    let driver = Driver::start(Scenario::Terminal, state);
    let token = token(state);
    let command = eventually("the command runs", async || process_with(&token)).await;
    driver.kill();
    let agent = Scenario::Terminal.agent(state);
    let listed = agent.runs(&RunFilter::default()).await.unwrap();
    (agent, listed[0].run.clone(), command)
}

/// Goes on with the run, and lets the command that waits end.
async fn go_on(session: &Session) -> RunReport {
    write(&**session.sandbox(), "go", "").await;
    session.resume(session.resume_request()).await.unwrap()
}

/// What the model was told of the program, call by call, without what comes before the output.
fn heard(items: &[Arc<Item>]) -> Vec<String> {
    let results = items.iter().filter_map(|item| match &**item {
        Item::ToolResult(result) if result.output.structured.get("session").is_some() => {
            let text = result.output.to_text().replace('\r', "");
            Some(text.split_once("Output:\n").map(|(_, output)| output.to_owned()).unwrap())
        }
        _ => None,
    });
    results.collect()
}

pub(crate) async fn a_terminal_goes_on_while_its_process_is_dead() {
    let state = tempdir().unwrap();
    let (agent, run, _) = begun(state.path()).await;
    let session = agent.reopen(&run, None).await.unwrap();
    assert!(session.resume_request().same_sandbox);
    let report = go_on(&session).await;
    assert_eq!(report.output, "all is done");
    // It counted on: it is the same program. What the model had read did not come again.
    assert_eq!(heard(&report.items), ["ready\n", "1 a\n", "2 b\n", ""]);
    let told = format!("{:?}", report.items);
    assert!(told.contains("exited with code 7"), "{told}");
    assert_eq!(text(&**session.sandbox(), "effects").await, "effect\n");
    session.close().await.unwrap();
}

pub(crate) async fn a_terminal_that_died_with_its_sandbox_is_said_to_have() {
    let state = tempdir().unwrap();
    let (agent, run, command) = begun(state.path()).await;
    kill_sandbox_of(command);
    let session = agent.reopen(&run, None).await.unwrap();
    assert!(!session.resume_request().same_sandbox);
    let report = go_on(&session).await;
    assert_eq!(report.output, "all is done");
    assert_eq!(heard(&report.items), ["ready\n", "1 a\n"]);
    let told = format!("{:?}", report.items);
    let said = told.matches("ended with its sandbox, which was lost and replaced").count();
    assert_eq!(said, 2, "{told}");
    session.close().await.unwrap();
}

/// A run that ends early leaves what goes on in its sandbox, for the next one.
pub(crate) async fn a_terminal_outlives_a_run_that_fails() {
    let state = tempdir().unwrap();
    let options = RunOptions { max_turns: 2, ..RunOptions::default() };
    let stopped = Scenario::Terminal.builder(state.path()).options(options).build().unwrap();
    let failed = stopped.run("go").await.unwrap_err();
    assert!(format!("{failed:?}").contains("MaxTurns"), "{failed:?}");
    drop(stopped);
    let agent = Scenario::Terminal.agent(state.path());
    let run = agent.runs(&RunFilter::default()).await.unwrap()[0].run.clone();
    let session = agent.reopen(&run, None).await.unwrap();
    assert!(session.resume_request().same_sandbox);
    let report = go_on(&session).await;
    assert_eq!(heard(&report.items), ["ready\n", "1 a\n", "2 b\n", ""]);
    session.close().await.unwrap();
}

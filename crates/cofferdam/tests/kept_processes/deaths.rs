//! Processes that are killed while a command of their run goes on.

use std::path::Path;

use cofferdam::{
    Agent, ResumeOptions,
    core::RunId,
    journal::{RunFilter, RunStatus},
};
use tempfile::tempdir;

use crate::{
    common::{count, eventually, kill_sandbox_of, process_with, records, text, write},
    driver::{Driver, Scenario, token},
};

/// Starts a run in a process of its own, and returns it when its second command runs, as a process of the host.
async fn begun(state: &Path) -> (Driver, Agent, RunId, u32) {
    let driver = Driver::start(Scenario::Waiting, state);
    let token = token(state);
    let command = eventually("the command runs", async || process_with(&token)).await;
    let agent = Scenario::Waiting.agent(state);
    let listed = agent.runs(&RunFilter::default()).await.unwrap();
    assert_eq!((listed.len(), listed[0].status), (1, RunStatus::Open));
    (driver, agent, listed[0].run.clone(), command)
}

pub(crate) async fn a_command_goes_on_while_its_process_is_dead() {
    let state = tempdir().unwrap();
    let (driver, agent, run, _) = begun(state.path()).await;
    let driven = agent.reopen(&run, None).await.unwrap_err();
    assert!(format!("{driven:?}").contains("Leased"), "{driven:?}");
    driver.kill();

    let session = agent.reopen(&run, None).await.unwrap();
    let request = session.resume_request();
    assert!(request.same_sandbox);
    let resume = session.resume(request);
    let go = async {
        assert_eq!(text(&**session.sandbox(), "effects").await, "effect\n");
        write(&**session.sandbox(), "go", "").await;
    };
    let (report, ()) = tokio::join!(resume, go);
    let report = report.unwrap();
    assert_eq!(report.output, "all is done");
    assert_eq!(text(&**session.sandbox(), "effects").await, "effect\n");
    let told = format!("{:?}", report.items);
    assert!(told.contains("really"), "the command's real output is not in {told}");
    let found = records(state.path(), &run).await;
    assert_eq!(count(&found, "sandbox_started"), 1);
    assert_eq!(count(&found, "sandbox_replaced"), 0);
    session.close().await.unwrap();
}

pub(crate) async fn a_run_whose_process_and_sandbox_are_dead_is_restored() {
    let state = tempdir().unwrap();
    let (driver, agent, run, command) = begun(state.path()).await;
    driver.kill();
    kill_sandbox_of(command);

    let session = agent.reopen(&run, None).await.unwrap();
    let request = session.resume_request();
    assert!(!request.same_sandbox);
    assert!(request.checkpoint.is_some());
    // The command has not happened in this world.
    assert_eq!(text(&**session.sandbox(), "a").await, "one\n");
    write(&**session.sandbox(), "go", "").await;
    let report = session.resume(request).await.unwrap();
    assert_eq!(report.output, "all is done");
    assert_eq!(text(&**session.sandbox(), "effects").await, "effect\n");
    session.close().await.unwrap();
}

pub(crate) async fn a_run_is_taken_back_to_a_checkpoint() {
    let state = tempdir().unwrap();
    let (driver, agent, run, command) = begun(state.path()).await;
    driver.kill();
    kill_sandbox_of(command);
    let first = agent.checkpoints(&run).await.unwrap()[0].clone();
    let session = agent.reopen(&run, Some(first)).await.unwrap();
    let missing = cofferdam::core::WorkspacePath::new("a").unwrap();
    session.sandbox().files().stat(&missing).await.unwrap_err();
    write(&**session.sandbox(), "go", "").await;
    let report = session.resume(session.resume_request()).await.unwrap();
    assert_eq!(report.output, "all is done");
    assert_eq!(text(&**session.sandbox(), "a").await, "one\n");
    session.close().await.unwrap();
    assert_eq!(count(&records(state.path(), &run).await, "run_rewound"), 1);
    let finished = agent.resume(&run, ResumeOptions::default()).await.unwrap_err();
    assert!(format!("{finished:?}").contains("Finished"), "{finished:?}");
}

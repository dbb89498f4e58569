//! A run that is reopened, which nobody else can drive until it is gone on with.

use cofferdam::{ResumeOptions, core::RunId, journal::RunFilter};
use tempfile::tempdir;

use crate::{
    common::{eventually, process_with, write},
    driver::{Driver, Scenario, token},
};

pub(crate) async fn a_run_that_is_reopened_is_nobody_elses() {
    let state = tempdir().unwrap();
    let driver = Driver::start(Scenario::Waiting, state.path());
    let token = token(state.path());
    eventually("the command runs", async || process_with(&token)).await;
    driver.kill();
    let agent = Scenario::Waiting.agent(state.path());
    let run: RunId = agent.runs(&RunFilter::default()).await.unwrap()[0].run.clone();

    let session = agent.reopen(&run, None).await.unwrap();
    // Somebody who comes between the two is turned away, however it comes.
    let other = Scenario::Waiting.agent(state.path());
    let turned_away = other.reopen(&run, None).await.unwrap_err();
    assert!(format!("{turned_away:?}").contains("Leased"), "{turned_away:?}");
    let turned_away = other.resume(&run, ResumeOptions::default()).await.unwrap_err();
    assert!(format!("{turned_away:?}").contains("Leased"), "{turned_away:?}");
    write(&**session.sandbox(), "go", "").await;
    let report = session.resume(session.resume_request()).await.unwrap();
    assert_eq!(report.output, "all is done");
    session.close().await.unwrap();

    // A session that is dropped, or closed, leaves the run to others.
    drop(agent.reopen(&run, None).await.unwrap());
    let second = other.reopen(&run, None).await.unwrap();
    second.close().await.unwrap();
    agent.reopen(&run, None).await.unwrap().close().await.unwrap();
}

//! The same in containers, where no host sees the workspace: snapshots are read by the guest.
#![expect(clippy::disallowed_methods, reason = "a variable names the engine and its image")]

use std::sync::Arc;

use cofferdam::{sandbox::SandboxBackend as _, sandbox_docker::DockerBackend, snapshot::Detection};
use cofferdam_testkit::TestEngine;
use tempfile::tempdir;

use crate::common::{agent, count, records, script, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_removed_is_replaced() {
    let Some(engine) = TestEngine::get("a_container_that_is_removed_is_replaced") else { return };
    let endpoint = engine.address().parse().unwrap();
    let backend = Arc::new(DockerBackend::builder().endpoint(endpoint).build());
    let state = tempdir().unwrap();
    let model = script(&["echo one > a", "echo two >> a", "cat a => two"]);
    let agent = agent(state.path(), model).backend(backend.clone()).root(engine.root());
    let agent = agent.build().unwrap();
    let session = agent.open().await.unwrap();
    let report = session.run(session.request("write")).await.unwrap();
    let found = records(state.path(), &report.run).await;
    assert_eq!(count(&found, "checkpoint_taken"), 4);
    // Removed by somebody else: the next run in it begins with a loss.
    backend.remove(session.sandbox().id()).await.unwrap();
    let first = session.sandbox().id().clone();
    let error = session.run(session.request("again")).await;
    assert!(error.is_ok(), "{error:?}");
    assert_ne!(session.sandbox().id(), &first);
    assert_eq!(text(&**session.sandbox(), "a").await, "one\ntwo\n");
    let store = cofferdam::StateDirectory::open(state.path()).unwrap().snapshots().await.unwrap();
    let newest = store.newest(&report.run.as_str().parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(store.get(&newest).await.unwrap().detection, Detection::Stat);
    session.close().await.unwrap();
}

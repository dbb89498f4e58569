//! The same in containers, where no host sees the workspace: snapshots are read by the guest.
#![expect(clippy::disallowed_methods, reason = "a variable names the engine and its image")]

use std::sync::Arc;

use cofferdam::{
    sandbox::{SandboxBackend as _, SandboxSpec},
    sandbox_docker::DockerBackend,
    snapshot::Detection,
};
use cofferdam_testkit::skip;
use tempfile::tempdir;

use crate::common::{agent, count, records, script, text};

/// The image of the sandboxes; the engine that the environment names must have it.
const IMAGE: &str = "COFFERDAM_DOCKER_IMAGE";

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_removed_is_replaced() {
    const NAME: &str = "a_container_that_is_removed_is_replaced";
    let Ok(image) = std::env::var(IMAGE) else {
        return skip(NAME, "COFFERDAM_DOCKER_IMAGE names no image");
    };
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let mut builder = DockerBackend::builder().default_image(image);
    if let Ok(endpoint) = host.parse() {
        builder = builder.endpoint(endpoint);
    }
    let backend = Arc::new(builder.build());
    if let Err(error) = backend.create(&SandboxSpec::default()).await {
        return skip(NAME, &format!("no engine makes a sandbox of it: {error}"));
    }
    let state = tempdir().unwrap();
    let model = script(&["echo one > a", "echo two >> a", "cat a => two"]);
    let agent = agent(state.path(), model).backend(backend.clone()).build().unwrap();
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

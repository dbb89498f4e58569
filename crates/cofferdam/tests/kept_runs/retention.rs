//! What a state directory frees by itself.

use std::{fs, path::Path, sync::Arc, time::Duration};

use cofferdam::{
    AutomaticCleanUp, StateDirectory, checkpoint::Retention, sandbox::SandboxBackend,
    sandbox_linux::LinuxBackend,
};
use tempfile::tempdir;

use crate::common::{agent, eventually, script};

/// Says that the directory was cleaned up very long ago.
fn long_ago(state: &Path) {
    fs::write(state.join("workspaces/cleaned-up"), "1").expect("written");
}

fn cleaned_up(state: &Path) -> u64 {
    let text = fs::read_to_string(state.join("workspaces/cleaned-up")).unwrap_or_default();
    text.parse().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_cleaned_up_once_in_an_interval_by_whoever_comes_first() {
    let state = tempdir().unwrap();
    let open = || StateDirectory::open(state.path()).unwrap();
    // Nothing in a new directory is old.
    assert_eq!(open().clean_up_if_due(&[]).await.unwrap(), None);
    assert_eq!(open().clean_up_if_due(&[]).await.unwrap(), None);
    long_ago(state.path());
    let off = open().automatic_clean_up(None);
    assert_eq!(off.clean_up_if_due(&[]).await.unwrap(), None);
    let (one, other) = (open(), open());
    let (one, other) = tokio::join!(one.clean_up_if_due(&[]), other.clean_up_if_due(&[]));
    let done = [one.unwrap(), other.unwrap()];
    assert_eq!(done.iter().flatten().count(), 1, "{done:?}");
    assert_eq!(open().clean_up_if_due(&[]).await.unwrap(), None);
    // What a process that died while it wrote has left, and a clock that was set back.
    fs::write(state.path().join("workspaces/cleaned-up"), "").unwrap();
    assert_eq!(open().clean_up_if_due(&[]).await.unwrap(), None);
    fs::write(state.path().join("workspaces/cleaned-up"), u64::MAX.to_string()).unwrap();
    assert!(open().clean_up_if_due(&[]).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_cleans_up_after_those_before_it() {
    let state = tempdir().unwrap();
    let mut keep = Retention::never();
    keep.runs = Some(0);
    let automatic = AutomaticCleanUp::from(keep);
    let agent = |commands: &[&str]| {
        let directory = StateDirectory::open(state.path()).unwrap();
        let directory = directory.automatic_clean_up(Some(automatic));
        agent(state.path(), script(commands)).state(directory).build().unwrap()
    };
    let first = agent(&["echo one > a"]).run("write").await.unwrap();
    long_ago(state.path());
    let second = agent(&["sleep 1; echo two > b"]);
    let session = second.open().await.unwrap();
    eventually("the directory is cleaned up", async || {
        (cleaned_up(state.path()) > 1).then_some(())
    })
    .await;
    let request = session.request("write");
    let report = session.run(request).await.unwrap();
    session.close().await.unwrap();
    let left = second.runs(&Default::default()).await.unwrap();
    assert_eq!(left.iter().map(|run| &run.run).collect::<Vec<_>>(), [&report.run]);
    assert_eq!(second.checkpoints(&first.run).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_ended_alone_leaves_nothing_for_ever() {
    let state = tempdir().unwrap();
    let agent = agent(state.path(), script(&["echo one > a"])).build().unwrap();
    let directory = StateDirectory::open(state.path()).unwrap();
    let snapshots = directory.snapshots().await.unwrap();
    let backend: Arc<dyn SandboxBackend> =
        Arc::new(LinuxBackend::default().with_state_directory(state.path().join("sandboxes")));
    let forget = async || directory.forget_gone(std::slice::from_ref(&backend)).await.unwrap();
    let session = agent.open().await.unwrap();
    session.run(session.request("write")).await.unwrap();
    let id = session.sandbox().id().clone();
    let pin = snapshots.pins().await.unwrap();
    assert_eq!(
        pin.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        [format!("base-of-{id}")]
    );
    assert_eq!(forget().await, Default::default());
    // Nobody is connected any more; then its time is over, and nobody came.
    session.leave();
    assert_eq!(forget().await, Default::default());
    backend.remove(&id).await.unwrap();
    eventually("the sandbox is gone", async || {
        backend.list().await.unwrap().iter().all(|it| it.id != id).then_some(())
    })
    .await;
    assert_eq!(forget().await.waiting, 1);
    assert_eq!(snapshots.pins().await.unwrap().len(), 1);
    let gone = state.path().join(format!("workspaces/scratch/gone-{id}"));
    let hour_ago = fs::read_to_string(&gone).unwrap().parse::<u64>().unwrap()
        - u64::try_from(Duration::from_secs(3600).as_millis()).unwrap();
    fs::write(&gone, hour_ago.to_string()).unwrap();
    assert_eq!(forget().await.freed, 1);
    assert_eq!(snapshots.pins().await.unwrap(), []);
    assert_eq!(fs::read_dir(state.path().join("workspaces/scratch")).unwrap().count(), 0);
}

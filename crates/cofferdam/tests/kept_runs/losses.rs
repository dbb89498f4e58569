//! Sandboxes that are lost, and workspaces that are brought back.

use std::path::Path;

use cofferdam::{
    ResumeOptions, StateDirectory,
    checkpoint::CheckpointStoreExt as _,
    harness::RunReport,
    journal::RecordBody,
    snapshot::{Detection, TargetEntry},
};
use futures::TryStreamExt;
use tempfile::tempdir;

use crate::common::{
    agent, count, eventually, kill_sandbox_of, process_with, records, script, text, write,
};

/// The commands of a run that writes, waits for a file from outside, and writes again.
fn waiting_run(token: &str) -> Vec<String> {
    vec![
        "echo one >> log; chmod 750 notes; ln -s /nowhere dangling; mkdir empty".to_owned(),
        format!(": {token}; echo two >> log; while ! test -e go; do sleep 0.05; done; cat log"),
        "cat log notes/today.txt; stat -c %a notes; readlink dangling; test -d empty && echo kept"
            .to_owned(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_run_ends_as_any_other() {
    let state = tempdir().unwrap();
    let agent = agent(state.path(), script(&["echo hello > a; cat a => hello"])).build().unwrap();
    let report = agent.run("write").await.unwrap();
    assert_eq!(report.output, "all is done");
    let found = records(state.path(), &report.run).await;
    assert_eq!(count(&found, "sandbox_started"), 1);
    // One before the first turn, and one after the turn that wrote.
    assert_eq!(count(&found, "checkpoint_taken"), 2);
    assert_eq!(count(&found, "run_finished"), 1);
    let listed = agent.runs(&Default::default()).await.unwrap();
    assert_eq!(listed.len(), 1);
    let checkpoints = agent.checkpoints(&report.run).await.unwrap();
    assert_eq!(checkpoints.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_killed_in_a_call_is_replaced() {
    let state = tempdir().unwrap();
    let token = format!("token-{}-killed", std::process::id());
    let commands = waiting_run(&token);
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let agent = agent(state.path(), script(&commands)).build().unwrap();
    let session = agent.open().await.unwrap();
    let first = session.sandbox().id().clone();
    let request = session.request("go");
    let (report, ()) = tokio::join!(session.run(request), async {
        let process = eventually("the command runs", async || process_with(&token)).await;
        eventually("it has written", async || {
            (text(&**session.sandbox(), "log").await == "one\ntwo\n").then_some(())
        })
        .await;
        kill_sandbox_of(process);
        eventually("another sandbox", async || (session.sandbox().id() != &first).then_some(()))
            .await;
        write(&**session.sandbox(), "go", "").await;
    });
    let report: RunReport = report.unwrap();
    assert_eq!(report.output, "all is done");
    // What the first attempt had written is not there: the second was the first in this workspace.
    assert_eq!(text(&**session.sandbox(), "log").await, "one\ntwo\n");
    let found = records(state.path(), &report.run).await;
    assert_eq!(count(&found, "sandbox_lost"), 1);
    assert_eq!(count(&found, "sandbox_replaced"), 1);
    // What the first attempt had written is in a line of its own.
    assert_eq!(
        kept_text(state.path(), &format!("{}-lost-1", report.run), "log").await,
        "one\ntwo\n"
    );
    let told = format!("{:?}", report.items);
    for expect in ["one\\ntwo\\n", "buy milk\\n750\\n/nowhere\\nkept"] {
        assert!(told.contains(expect), "{expect} is not in {told}");
    }
    session.close().await.unwrap();
}

/// What differs from the directory that lies ready is changed in the fresh sandbox: no second directory is made for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_and_replaced_stays_so() {
    let state = tempdir().unwrap();
    let token = format!("token-{}-replaced", std::process::id());
    let commands = [
        "rm -r notes; echo a file > notes; mkdir -p d/e; echo deep > d/e/f; ln d/e/f d/same",
        &format!(": {token}; while ! test -e go; do sleep 0.05; done"),
        "cat notes d/same; stat -c %h d/e/f; find . | sort | tr '\\n' ' ' => . ./d ./d/e ./d/e/f ./d/same ./go ./notes",
    ];
    let agent = agent(state.path(), script(&commands)).build().unwrap();
    let session = agent.open().await.unwrap();
    let first = session.sandbox().id().clone();
    let request = session.request("go");
    let (report, ()) = tokio::join!(session.run(request), async {
        let process = eventually("the command runs", async || process_with(&token)).await;
        kill_sandbox_of(process);
        eventually("another sandbox", async || (session.sandbox().id() != &first).then_some(()))
            .await;
        write(&**session.sandbox(), "go", "").await;
    });
    let told = format!("{:?}", report.unwrap().items);
    assert!(told.contains("a file\\ndeep\\n2\\n"), "{told}");
    let bases = std::fs::read_dir(state.path().join("workspaces/bases")).unwrap();
    let made: Vec<_> = bases.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(made.iter().filter(|name| name.len() >= 64).count(), 1, "{made:?}");
    session.close().await.unwrap();
}

/// Reads a text out of the newest snapshot of a line.
async fn kept_text(state: &Path, lineage: &str, wanted: &str) -> String {
    let snapshots = StateDirectory::open(state).unwrap().snapshots().await.unwrap();
    let newest = snapshots.newest(&lineage.parse().unwrap()).await.unwrap().expect("a snapshot");
    let mut entries = snapshots.entries(&newest).await.unwrap();
    let (mut inside, mut content) = (false, Vec::new());
    while let Some(entry) = entries.try_next().await.unwrap() {
        match entry {
            TargetEntry::File { path, .. } => inside = path.as_bytes() == wanted.as_bytes(),
            TargetEntry::Data(bytes) if inside => content.extend_from_slice(&bytes),
            _ => {}
        }
    }
    String::from_utf8(content).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_a_line_and_each_can_be_opened() {
    let state = tempdir().unwrap();
    // A file that was written in the moment of a scan is read again by the next, since its times cannot tell.
    let model = script(&["echo one > a; sleep 0.1", "echo two > b; sleep 0.1", "cat a b => two"]);
    let agent = agent(state.path(), model).build().unwrap();
    let report = agent.run("write").await.unwrap();
    let store = StateDirectory::open(state.path()).unwrap().checkpoints();
    let (newest, checkpoint) = store.newest(&report.run).await.unwrap().unwrap();
    let history = store.history(&newest, 10).await.unwrap();
    assert_eq!(history.len(), 4);
    let kept = checkpoint.workspace.unwrap();
    assert_eq!((kept.totals.files, kept.detection), (3, Detection::Layer));
    // Of what did not change nothing was read.
    assert_eq!(kept.stored.files_read, 0, "{kept:?}");
    let session = agent.open_at(&history[2].0).await.unwrap();
    assert_eq!(text(&**session.sandbox(), "a").await, "one\n");
    let missing = cofferdam::core::WorkspacePath::new("b").unwrap();
    session.sandbox().files().stat(&missing).await.unwrap_err();
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_forked_into_eight_sandboxes() {
    let state = tempdir().unwrap();
    let agent = agent(state.path(), script(&["echo one > a", "cat a => one"])).build().unwrap();
    let report = agent.run("write").await.unwrap();
    let id = agent.checkpoints(&report.run).await.unwrap()[1].clone();
    let forks = (0..8).map(|number| {
        let (agent, id) = (agent.clone(), id.clone());
        async move {
            let session = agent.open_at(&id).await.unwrap();
            write(&**session.sandbox(), "mine", &number.to_string()).await;
            let both =
                text(&**session.sandbox(), "a").await + &text(&**session.sandbox(), "mine").await;
            assert_eq!(both, format!("one\n{number}"));
            let report = session.fork(session.request("go on")).await.unwrap();
            session.close().await.unwrap();
            report.run
        }
    });
    let runs = futures::future::join_all(forks).await;
    let found = records(state.path(), &runs[0]).await;
    let RecordBody::RunStarted { parent: Some(parent), .. } = &found[0].body else {
        panic!("the fork has no parent: {:?}", found[0].body);
    };
    assert_eq!((&parent.run, parent.checkpoint.as_deref()), (&report.run, Some(&*id.to_string())));
    // The line of the run that was forked is as it was.
    assert_eq!(agent.checkpoints(&report.run).await.unwrap().len(), 3);
    let missing = agent.resume(&report.run, ResumeOptions::default()).await.unwrap_err();
    assert!(format!("{missing:?}").contains("Finished"), "{missing:?}");
}

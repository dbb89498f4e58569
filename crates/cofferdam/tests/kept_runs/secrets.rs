//! A secret that the harness holds is in nothing that is kept of a run.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use cofferdam::{
    harness::{RunEvent, RunObserver, RunRequest},
    manifest::ModelChoice,
    models::{self, ModelOptions},
    snapshot::TargetEntry,
};
use cofferdam_testkit::mock_server::{MockItem, MockModelServer, MockScript, MockTurn};
use futures::TryStreamExt;
use serde_json::json;
use tempfile::tempdir;

use crate::common::{agent_with, records};

const CANARY: &str = "canary-b1f0c2-not-to-be-seen";

#[derive(Debug, Default)]
struct Heard(Mutex<String>);

#[async_trait]
impl RunObserver for Heard {
    async fn event(&self, event: RunEvent) {
        *self.0.lock().unwrap() += &format!("{event:?}\n");
    }
}

/// Fails if any file below a directory holds the canary.
fn search(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            search(&entry.path());
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
            assert!(!found, "the secret is in {}", entry.path().display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_harness_is_in_nothing_that_is_kept() {
    let place = tempdir().unwrap();
    let (state, key) = (place.path().join("state"), place.path().join("key"));
    fs::write(&key, CANARY).unwrap();
    let look = "env > seen; cat /proc/*/environ /proc/*/cmdline >> seen 2>&1; \
                find / -name 'key*' -newer /etc >> seen 2>&1; cat seen; true";
    let turns = vec![
        MockTurn::new([MockItem::function_call("exec_command", json!({ "cmd": look }))]),
        MockTurn::new([MockItem::message("looked everywhere")]),
    ];
    let server = MockModelServer::start(MockScript::new(turns)).await.unwrap();
    let options = ModelOptions {
        base_url: Some(server.base_url()),
        api_key: Some(format!("file:{}", key.display()).parse().unwrap()),
    };
    let choice = ModelChoice::OpenAi { name: "mock".to_owned() };
    let model = models::open(&choice, &options, place.path()).unwrap();
    let agent = agent_with(&state, model).build().unwrap();
    let heard = Arc::new(Heard::default());
    let session = agent.open().await.unwrap();
    let request = RunRequest { observer: heard.clone(), ..session.request("look") };
    let report = session.run(request).await.unwrap();
    let sent = server.requests();
    let given = sent[0].header("authorization").is_some_and(|value| value.contains(CANARY));
    assert!(given, "the server was given no key, so that nothing is shown");

    assert!(!heard.0.lock().unwrap().contains(CANARY));
    for record in records(&state, &report.run).await {
        assert!(!serde_json::to_string(&record.body).unwrap().contains(CANARY));
    }
    // Objects are compressed: what is in them is read.
    let snapshots = cofferdam::StateDirectory::open(&state).unwrap().snapshots().await.unwrap();
    let mut files = 0;
    for lineage in snapshots.lineages().await.unwrap() {
        for snapshot in snapshots.snapshots(&lineage).await.unwrap() {
            let entries: Vec<_> =
                snapshots.entries(&snapshot).await.unwrap().try_collect().await.unwrap();
            let mut content = Vec::new();
            for entry in entries {
                match entry {
                    TargetEntry::Data(bytes) => content.extend_from_slice(&bytes),
                    TargetEntry::File { .. } => files += 1,
                    _ => {}
                }
            }
            assert!(!String::from_utf8_lossy(&content).contains(CANARY), "{snapshot}");
        }
    }
    assert!(files >= 3, "the snapshots hold {files} files");
    search(&state);
    session.close().await.unwrap();
}

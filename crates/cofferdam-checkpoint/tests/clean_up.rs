//! What is freed, and what is kept: runs, checkpoints and young snapshots decide.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{sync::Arc, time::Duration};

use cofferdam_checkpoint::{
    Checkpoint, CheckpointStore as _, FORMAT_VERSION, ObjectCheckpoints, clean_up,
};
use cofferdam_core::{Clock as _, RunId};
use cofferdam_journal::{Journal as _, MemoryJournal, Seq};
use cofferdam_snapshot::{
    DirectoryOptions, DirectorySource, DirectoryTarget, Receipt, SnapshotOptions, SnapshotStore,
    StoreOptions, TargetOptions,
};
use cofferdam_testkit::{CountingEntropy, FixedClock};
use object_store::memory::InMemory;

const DAY: Duration = Duration::from_secs(25 * 60 * 60);
const DAY_MS: u64 = 25 * 60 * 60 * 1000;

async fn snapshot(store: &SnapshotStore, lineage: &str, content: &[u8]) -> Receipt {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), content).unwrap();
    let source = DirectorySource::open(directory.path(), DirectoryOptions::default()).unwrap();
    let lineage = lineage.parse().unwrap();
    store.snapshot(&lineage, &source, SnapshotOptions::default()).await.unwrap()
}

/// Two mebibytes that are another for each seed and cannot be compressed, so that they fill a pack.
fn noise(seed: &str) -> Vec<u8> {
    let mut bytes = vec![0; 2 << 20];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn what_no_run_and_no_checkpoint_needs_is_freed_in_two_steps() {
    let (objects, clock) = (Arc::new(InMemory::new()), Arc::new(FixedClock::at(1_000)));
    let options = StoreOptions::new(clock.clone(), Arc::new(CountingEntropy::default()));
    let store = SnapshotStore::open(objects.clone(), "snapshots", options).await.unwrap();
    let checkpoints = ObjectCheckpoints::new(objects, "checkpoints");
    let journal = MemoryJournal::new(clock.clone());

    let known = RunId::new("known");
    let lease = journal.lease(&known, "test", DAY).await.unwrap();
    for lineage in ["known", "known-start", "gone", "gone-lost-1"] {
        snapshot(&store, lineage, &noise(lineage)).await;
    }
    let needed = snapshot(&store, "needed", &noise("needed")).await;
    let checkpoint = Checkpoint {
        format: FORMAT_VERSION,
        run: RunId::new("needed"),
        at: Seq(1),
        turn: 1,
        time: clock.now(),
        parents: Vec::new(),
        workspace: Some(needed.clone()),
        sandbox: serde_json::Value::Null,
        running: Vec::new(),
    };
    checkpoints.put(&checkpoint).await.unwrap();

    // Whatever is young is left alone.
    let report = clean_up(&store, &checkpoints, &journal, &*clock).await.unwrap();
    assert_eq!((report.kept, report.dropped), (5, 0), "{report:?}");

    clock.advance(DAY_MS);
    snapshot(&store, "begins", b"a run that has no record yet").await;
    let marked = clean_up(&store, &checkpoints, &journal, &*clock).await.unwrap();
    assert_eq!((marked.kept, marked.dropped, marked.deleted), (4, 2, 0), "{marked:?}");
    assert!(marked.condemned > 0, "{marked:?}");
    clock.advance(DAY_MS);
    let deleted = clean_up(&store, &checkpoints, &journal, &*clock).await.unwrap();
    assert!(deleted.deleted > 0 && deleted.deleted_bytes > 0, "{deleted:?}");

    let place = tempfile::tempdir().unwrap();
    let mut target = DirectoryTarget::new(place.path().join("restored"), TargetOptions::default());
    store.restore(&needed.snapshot, &mut target).await.unwrap();
    journal.release(&lease).await.unwrap();
}

//! A state of runs in memory: what the tests of cleaning up have in common.
#![allow(dead_code, reason = "each test uses a part of it")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{sync::Arc, time::Duration};

use cofferdam_checkpoint::{
    Checkpoint, CheckpointId, CheckpointStore as _, FORMAT_VERSION, ObjectCheckpoints, Retention,
    RetentionReport, apply_retention,
};
use cofferdam_core::{Clock as _, RunId, Usage};
use cofferdam_journal::{
    Entry, Journal as _, MemoryJournal, RecordBody, RunFilter, RunOutcome, Seq,
};
use cofferdam_snapshot::{
    DirectoryOptions, DirectorySource, Receipt, SnapshotOptions, SnapshotStore, StoreOptions,
};
use cofferdam_testkit::{CountingEntropy, FixedClock};
use object_store::memory::InMemory;

/// A little more than a day: the grace of a store, and the age below which snapshots without a run are left alone.
pub(crate) const DAY: Duration = Duration::from_secs(25 * 60 * 60);
pub(crate) const DAY_MS: u64 = 25 * 60 * 60 * 1000;

/// Journal, snapshots and checkpoints.
pub(crate) struct Kept {
    pub(crate) snapshots: SnapshotStore,
    pub(crate) checkpoints: ObjectCheckpoints,
    pub(crate) journal: MemoryJournal,
    pub(crate) clock: Arc<FixedClock>,
}

impl Kept {
    pub(crate) async fn new() -> Self {
        let (objects, clock) = (Arc::new(InMemory::new()), Arc::new(FixedClock::at(1_000)));
        let options = StoreOptions::new(clock.clone(), Arc::new(CountingEntropy::default()));
        let snapshots = SnapshotStore::open(objects.clone(), "snapshots", options).await.unwrap();
        let checkpoints = ObjectCheckpoints::new(objects, "checkpoints");
        let journal = MemoryJournal::new(clock.clone());
        Self { snapshots, checkpoints, journal, clock }
    }

    pub(crate) async fn snapshot(&self, lineage: &str, content: &[u8]) -> Receipt {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), content).unwrap();
        let source = DirectorySource::open(directory.path(), DirectoryOptions::default()).unwrap();
        let lineage = lineage.parse().unwrap();
        self.snapshots.snapshot(&lineage, &source, SnapshotOptions::default()).await.unwrap()
    }

    /// Takes a snapshot with content of its own into the line of a run, and a checkpoint that names it.
    pub(crate) async fn checkpoint(
        &self,
        run: &str,
        at: u64,
        parents: &[CheckpointId],
    ) -> CheckpointId {
        let workspace = self.snapshot(run, &noise(&format!("{run} {at}"))).await;
        let checkpoint = Checkpoint {
            format: FORMAT_VERSION,
            run: RunId::new(run),
            at: Seq(at),
            turn: 1,
            time: self.clock.now(),
            parents: parents.to_vec(),
            workspace: Some(workspace),
            sandbox: serde_json::Value::Null,
            running: Vec::new(),
        };
        self.checkpoints.put(&checkpoint).await.unwrap()
    }

    /// A run that has so many checkpoints, one after the other, and has ended.
    pub(crate) async fn ended(&self, run: &str, checkpoints: u64) -> Vec<CheckpointId> {
        let mut made: Vec<CheckpointId> = Vec::new();
        for at in 1..=checkpoints {
            let parent = made.last().cloned();
            made.push(self.checkpoint(run, at, parent.as_slice()).await);
        }
        let (outcome, usage) = (RunOutcome::Completed, Usage::default());
        self.record(run, RecordBody::RunFinished { outcome, usage }).await;
        made
    }

    /// Makes a run one that has not ended.
    pub(crate) async fn goes_on(&self, run: &str) {
        self.record(run, RecordBody::Unknown(serde_json::json!({"kind": "later"}))).await;
    }

    async fn record(&self, run: &str, body: RecordBody) {
        let lease = self.journal.lease(&RunId::new(run), "test", DAY).await.unwrap();
        let expected = self.records(run).await;
        self.journal
            .append(&lease, expected, vec![Entry { time: self.clock.now(), body }])
            .await
            .unwrap();
        self.journal.release(&lease).await.unwrap();
    }

    async fn records(&self, run: &str) -> Seq {
        let all = self.journal.runs(&RunFilter::default()).await.unwrap();
        all.iter().find(|it| it.run.as_str() == run).map_or(Seq(0), |it| it.records)
    }

    pub(crate) async fn apply(&self, retention: &Retention, dry_run: bool) -> RetentionReport {
        let (snapshots, checkpoints) = (&self.snapshots, &self.checkpoints);
        apply_retention(retention, snapshots, checkpoints, &self.journal, &*self.clock, dry_run)
            .await
            .unwrap()
    }

    pub(crate) async fn runs(&self) -> Vec<String> {
        let all = self.journal.runs(&RunFilter::default()).await.unwrap();
        all.iter().map(|run| run.run.as_str().to_owned()).collect()
    }

    pub(crate) async fn positions(&self, run: &str) -> Vec<u64> {
        let listed = self.checkpoints.list(&RunId::new(run)).await.unwrap();
        listed.iter().map(|id| id.at().0).collect()
    }
}

/// Two mebibytes that are another for each seed and cannot be compressed, so that they fill a pack.
pub(crate) fn noise(seed: &str) -> Vec<u8> {
    let mut bytes = vec![0; 2 << 20];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

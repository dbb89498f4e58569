//! The keeper on sandboxes in memory: what it keeps, what it brings back, and what it does when something is damaged.
//!
//! Real sandboxes are in the tests of the facade (`kept_runs`).
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{sync::Arc, time::Duration};

use cofferdam_checkpoint::{
    CheckpointStore, CheckpointStoreExt, KeeperParts, LiveWorkspace, ObjectCheckpoints, RunRecords,
    SnapshotKeeper, Workspaces, WorkspacesParts,
};
use cofferdam_core::{Clock, RunId, Timestamp, WorkspacePath};
use cofferdam_harness::{CheckpointPoint, CheckpointTaken, KeeperError, WorkspaceKeeper};
use cofferdam_journal::{RecordBody, Seq};
use cofferdam_sandbox::{
    DownloadOptions, Sandbox, SandboxSpec, TreeEntry, TreeEntryKind, TreeEvent,
};
use cofferdam_snapshot::{Lineage, Parent, SnapshotStore, StorageRetry, StoreOptions};
use cofferdam_testkit::{CountingEntropy, FixedClock, MemoryBackend};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory};
use proptest::prelude::*;

/// A host with its store.
struct Host {
    backend: Arc<MemoryBackend>,
    objects: Arc<InMemory>,
    workspaces: Workspaces,
    checkpoints: Arc<ObjectCheckpoints>,
    clock: Arc<FixedClock>,
}

impl Host {
    async fn new() -> Self {
        let (backend, objects) = (Arc::new(MemoryBackend::default()), Arc::new(InMemory::new()));
        let clock = Arc::new(FixedClock::at(1_000));
        let options = StoreOptions {
            retry: StorageRetry::without_pause(),
            ..StoreOptions::new(clock.clone(), Arc::new(CountingEntropy::default()))
        };
        let store = SnapshotStore::open(objects.clone(), "snapshots", options).await.unwrap();
        let workspaces = Workspaces::new(WorkspacesParts {
            backend: backend.clone(),
            spec: SandboxSpec::default(),
            snapshots: Arc::new(store),
            exclude: vec![path("cache")],
            linger: Duration::ZERO,
            host: None,
        });
        let checkpoints = Arc::new(ObjectCheckpoints::new(objects.clone(), "checkpoints"));
        Self { backend, objects, workspaces, checkpoints, clock }
    }

    fn keeper(&self, workspace: LiveWorkspace) -> SnapshotKeeper {
        SnapshotKeeper::new(KeeperParts {
            workspaces: self.workspaces.clone(),
            checkpoints: self.checkpoints.clone(),
            clock: self.clock.clone() as Arc<dyn Clock>,
            workspace,
            from: None,
        })
    }

    /// Makes a sandbox with one file, and keeps it.
    async fn begun(&self) -> SnapshotKeeper {
        let workspace = self.workspaces.create().await.unwrap();
        write(&**workspace.sandbox(), "first", "at the start").await;
        self.keeper(self.workspaces.begin(workspace, &run()).await.unwrap())
    }

    /// Removes the newest snapshot of the run from the store.
    async fn lose_newest_snapshot(&self, taken: &CheckpointTaken) {
        let snapshot = taken.snapshot.as_deref().unwrap();
        let (lineage, seq) = snapshot.split_once('@').unwrap();
        let all: Vec<_> = self.objects.list(None).try_collect().await.unwrap();
        let heads = all.iter().map(|object| &object.location).filter(|location| {
            let text = location.as_ref();
            text.contains(&format!("heads/{lineage}/")) && text.ends_with(seq)
        });
        let heads: Vec<_> = heads.collect();
        assert_eq!(heads.len(), 1, "{all:?}");
        self.objects.delete(heads[0]).await.unwrap();
    }
}

fn run() -> RunId {
    RunId::new("run")
}

fn path(path: &str) -> WorkspacePath {
    WorkspacePath::new(path).unwrap()
}

fn point(at: u64) -> CheckpointPoint {
    CheckpointPoint { run: run(), at: Seq(at), turn: 1 }
}

async fn write(sandbox: &dyn Sandbox, name: &str, content: &str) {
    let content = content.to_owned().into();
    sandbox.files().write(&path(name), content, &Default::default()).await.unwrap();
}

async fn read(sandbox: &dyn Sandbox, name: &str) -> Option<String> {
    let bytes = sandbox.files().read(&path(name), 0, 1 << 20).await.ok()?;
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

/// Ends the sandbox in the place as a crash would.
async fn lose(keeper: &SnapshotKeeper) {
    keeper.place().current().close().await.unwrap();
    assert!(keeper.is_lost().await.is_some());
}

#[tokio::test]
async fn a_workspace_is_brought_back_as_it_was_at_its_checkpoint() {
    let host = Host::new().await;
    let keeper = host.begun().await;
    let place = keeper.place().clone();
    assert_eq!(keeper.is_lost().await, None);
    write(&*place, "kept", "yes").await;
    write(&*place, "cache/big", "can be made anew").await;
    let taken = keeper.checkpoint(point(5)).await.unwrap();
    assert_eq!((taken.at, taken.snapshot.as_deref()), (Seq(5), Some("run@1")));
    write(&*place, "kept", "changed since").await;
    write(&*place, "new", "since").await;
    lose(&keeper).await;

    let lost = keeper.checkpoint(point(6)).await.unwrap_err();
    assert!(matches!(lost, KeeperError::Lost { .. }), "{lost}");
    let recovered = keeper.recover(Some(&taken), 1).await.unwrap();
    assert_eq!(recovered.checkpoint.as_deref(), Some(&*taken.checkpoint));
    assert_eq!(recovered.sandbox, keeper.sandbox());
    assert_eq!(read(&*place, "first").await.as_deref(), Some("at the start"));
    assert_eq!(read(&*place, "kept").await.as_deref(), Some("yes"));
    assert_eq!(read(&*place, "new").await, None);
    assert_eq!(read(&*place, "cache/big").await, None);

    // The line of checkpoints goes on from the one that was restored.
    let next = keeper.checkpoint(point(9)).await.unwrap();
    let id = next.checkpoint.parse().unwrap();
    let parents = host.checkpoints.get(&id).await.unwrap().parents;
    assert_eq!(parents, [taken.checkpoint.parse().unwrap()]);
    keeper.finish().await.unwrap();
    place.close().await.unwrap();
    assert_eq!(host.backend.open_sandboxes(), 0);
}

#[tokio::test]
async fn without_a_checkpoint_it_is_as_at_the_start() {
    let host = Host::new().await;
    let keeper = host.begun().await;
    write(&**keeper.place(), "first", "changed since").await;
    lose(&keeper).await;
    let recovered = keeper.recover(None, 1).await.unwrap();
    assert_eq!(recovered.checkpoint, None);
    assert_eq!(read(&**keeper.place(), "first").await.as_deref(), Some("at the start"));
}

#[tokio::test]
async fn a_workspace_of_which_nothing_was_kept_is_not_made_up() {
    let host = Host::new().await;
    let keeper = host.keeper(host.workspaces.create().await.unwrap());
    lose(&keeper).await;
    let error = keeper.recover(None, 1).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "no snapshot of the workspace was kept");
    assert_eq!(host.backend.open_sandboxes(), 0);
}

#[tokio::test]
async fn a_damaged_checkpoint_is_passed_over_and_told() {
    let host = Host::new().await;
    let keeper = host.begun().await;
    write(&**keeper.place(), "kept", "1").await;
    let first = keeper.checkpoint(point(5)).await.unwrap();
    write(&**keeper.place(), "kept", "2").await;
    let second = keeper.checkpoint(point(7)).await.unwrap();
    host.lose_newest_snapshot(&second).await;

    let damaged = keeper.finish().await.unwrap_err();
    assert!(matches!(damaged, KeeperError::Failed { .. }), "{damaged}");
    lose(&keeper).await;
    let recovered = keeper.recover(Some(&second), 1).await.unwrap();
    assert_eq!(recovered.checkpoint.as_deref(), Some(&*first.checkpoint));
    assert_eq!(read(&**keeper.place(), "kept").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_snapshot_that_no_checkpoint_names_is_in_nobodys_way() {
    let host = Host::new().await;
    let keeper = host.begun().await;
    keeper.checkpoint(point(5)).await.unwrap();
    // As a process that died between the snapshot and its checkpoint has left it.
    let lineage: Lineage = "run".parse().unwrap();
    let live = host.workspaces.create().await.unwrap();
    host.workspaces.snapshot(&live, &lineage, Parent::Newest).await.unwrap();
    write(&**keeper.place(), "kept", "yes").await;
    let taken = keeper.checkpoint(point(8)).await.unwrap();
    assert_eq!(taken.snapshot.as_deref(), Some("run@3"));
    let (newest, _) = host.checkpoints.newest(&run()).await.unwrap().unwrap();
    assert_eq!(newest.to_string(), taken.checkpoint);
    lose(&keeper).await;
    keeper.recover(Some(&taken), 1).await.unwrap();
    assert_eq!(read(&**keeper.place(), "kept").await.as_deref(), Some("yes"));
}

#[tokio::test]
async fn another_process_restores_what_the_records_say() {
    let host = Host::new().await;
    let keeper = host.begun().await;
    write(&**keeper.place(), "kept", "yes").await;
    let taken = keeper.checkpoint(point(2)).await.unwrap();
    let mut records = RunRecords { sandbox: Some(keeper.sandbox()), ..RunRecords::default() };
    let mut fold = |seq, body| records.state.fold(Seq(seq), Timestamp(0), &body);
    fold(
        1,
        RecordBody::RunStarted {
            agent: "a".to_owned(),
            fingerprints: Default::default(),
            input: vec![],
            texts: Default::default(),
            parent: None,
            options: serde_json::Value::Null,
        },
    );
    fold(
        3,
        RecordBody::CheckpointTaken {
            checkpoint: taken.checkpoint.clone(),
            at: taken.at,
            turn: taken.turn,
            snapshot: taken.snapshot.clone(),
            sandbox: taken.sandbox,
            receipt: taken.receipt,
            running: vec![],
        },
    );
    lose(&keeper).await;
    let reopened = host.workspaces.reopen(&*host.checkpoints, &records).await.unwrap();
    assert!(!reopened.same_sandbox);
    let checkpoint = reopened.checkpoint.map(|id| id.to_string());
    assert_eq!(checkpoint, Some(taken.checkpoint));
    assert_eq!(read(&**reopened.workspace.sandbox(), "kept").await.as_deref(), Some("yes"));
    assert_eq!(reopened.workspace.start().unwrap().to_string(), "run-start@1");
}

/// Something in a workspace.
#[derive(Debug, Clone)]
enum Thing {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(Vec<u8>),
}

fn thing() -> impl Strategy<Value = Thing> {
    let mode = prop::sample::select(vec![0o755, 0o700, 0o644, 0o600, 0o400, 0o555, 0o1777]);
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400),
        // Long enough for several pieces, with holes.
        (0..3_000_000_usize).prop_map(|length| {
            let mut bytes = vec![0; length];
            bytes.iter_mut().step_by(70_001).for_each(|byte| *byte = 1);
            bytes
        }),
    ];
    prop_oneof![
        mode.clone().prop_map(Thing::Directory),
        (mode, content).prop_map(|(mode, content)| Thing::File(mode, content)),
        prop::collection::vec(1_u8.., 1..40).prop_map(Thing::Link),
    ]
}

/// Names at two levels, some of which are no text.
fn tree() -> impl Strategy<Value = Vec<(Vec<u8>, Thing)>> {
    let name = || {
        let odd = prop::collection::vec(any::<u8>(), 1..12).prop_map(|mut name| {
            name.retain(|byte| !matches!(byte, 0 | b'/' | b'.'));
            name.push(b'x');
            name
        });
        prop_oneof!["[a-c]{1,2}".prop_map(String::into_bytes), odd]
    };
    let below = prop::collection::btree_map(name(), thing(), 0..4);
    prop::collection::btree_map(name(), (thing(), below), 0..5).prop_map(|tree| {
        let mut things = Vec::new();
        for (name, (thing, below)) in tree {
            let is_directory = matches!(thing, Thing::Directory(_));
            things.push((name.clone(), thing));
            for (inner, thing) in below.into_iter().filter(|_| is_directory) {
                things.push(([&name[..], b"/", &inner].concat(), thing));
            }
        }
        things
    })
}

fn events(things: &[(Vec<u8>, Thing)]) -> Vec<TreeEvent> {
    let mut events = Vec::new();
    for (path, thing) in things {
        let (mode, kind, content) = match thing {
            Thing::Directory(mode) => (*mode, TreeEntryKind::Directory, None),
            Thing::File(mode, content) => {
                (*mode, TreeEntryKind::File { size: content.len() as u64 }, Some(content))
            }
            Thing::Link(target) => (0o777, TreeEntryKind::Link { target: target.clone() }, None),
        };
        let modified_ns = Some(1_600_000_000_000_000_123);
        events.push(TreeEvent::Entry(TreeEntry { path: path.clone(), mode, modified_ns, kind }));
        let content = content.filter(|content| !content.is_empty());
        events.extend(content.map(|content| TreeEvent::Content(content.clone().into())));
    }
    events
}

/// Returns the whole workspace as one text for each entry, times included.
async fn listing(sandbox: &dyn Sandbox) -> Vec<(String, Vec<u8>)> {
    let options = DownloadOptions::default();
    let events = sandbox.tree().download(&WorkspacePath::root(), &options).await.unwrap();
    let mut listing: Vec<(String, Vec<u8>)> = Vec::new();
    for event in events.try_collect::<Vec<_>>().await.unwrap() {
        match event {
            TreeEvent::Entry(entry) => listing.push((format!("{entry:?}"), Vec::new())),
            TreeEvent::Content(bytes) => listing.last_mut().unwrap().1.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    listing
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_workspace_goes_through_a_snapshot(things in tree()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let host = Host::new().await;
            let live = host.workspaces.create().await.unwrap();
            let sent: Vec<_> = events(&things).into_iter().map(Ok).collect();
            let sent = futures::stream::iter(sent).boxed();
            live.sandbox().tree().upload(&WorkspacePath::root(), sent).await.unwrap();
            let lineage: Lineage = "any".parse().unwrap();
            let taken = host.workspaces.snapshot(&live, &lineage, Parent::Newest).await.unwrap();
            assert_eq!(taken.skipped.count, 0, "{:?}", taken.skipped);
            let restored = host.workspaces.open(&taken.snapshot).await.unwrap();
            assert_eq!(listing(&**restored.sandbox()).await, listing(&**live.sandbox()).await);
            host.workspaces.verify(&taken.snapshot).await.unwrap();
        });
    }
}

//! Collection, alone and beside writers, step by step in every order that chance gives.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_snapshot::{
    GcOptions, SnapshotError, SnapshotId, SnapshotOptions, SnapshotStore, StoreOptions,
};
use futures::stream::{BoxStream, StreamExt as _};
use kit::{Bench, MemorySource, Thing, Tree, lineage, noise, restored, snapshot, take};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    path::Path,
};
use proptest::prelude::*;
use tokio::sync::{Notify, oneshot};

const GRACE: Duration = Duration::from_secs(3600);
const DAY: u64 = 24 * 3600 * 1000;

fn keep(last: usize) -> GcOptions {
    let mut options = GcOptions::default();
    options.keep_last = last;
    // So that much is repacked.
    options.repack_below = 80;
    options.keep_younger = Some(Duration::ZERO);
    options
}

/// A tree whose content fills packs of its own.
fn large(seeds: &[u64]) -> Tree {
    let mut tree = Tree::default();
    for seed in seeds {
        tree.put(&format!("{seed}"), Thing::file(noise(*seed, 700_000)));
    }
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_needs_goes_after_the_grace_and_not_before() {
    let bench = Bench::new();
    let store = bench.open().await;
    take(&store, "run", &large(&[1, 2])).await;
    take(&store, "run", &large(&[3])).await;
    let packs = bench.objects("packs").await.len();
    bench.clock.advance(2 * DAY);
    let first = store.gc(&keep(1)).await.unwrap();
    assert_eq!((first.kept, first.dropped, first.deleted), (1, 1, 0));
    assert!(first.condemned > 0);
    assert_eq!(bench.objects("packs").await.len(), packs);
    bench.clock.advance(DAY - 1000);
    assert_eq!(store.gc(&keep(1)).await.unwrap().deleted, 0);
    bench.clock.advance(2000);
    let last = store.gc(&keep(1)).await.unwrap();
    assert_eq!(last.deleted, first.condemned);
    assert!(last.deleted_bytes > 1_400_000);
    assert_eq!(bench.objects("condemned").await, []);
    assert_eq!(restored(&store, &snapshot("run@2")).await.unwrap(), large(&[3]).normal());
    assert!(store.verify_all().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_young_pinned_asked_for_or_newest_stays() {
    let bench = Bench::new();
    let store = bench.open().await;
    for seed in 0..6 {
        take(&store, "run", &large(&[seed])).await;
        bench.clock.advance(1000);
    }
    store.pin(&lineage("release"), &snapshot("run@1")).await.unwrap();
    let mut options = keep(2);
    options.keep.insert(snapshot("run@2"));
    options.keep_younger = Some(Duration::from_millis(3500));
    let report = store.gc(&options).await.unwrap();
    assert_eq!((report.kept, report.dropped), (5, 1));
    let left: Vec<u64> =
        store.snapshots(&lineage("run")).await.unwrap().iter().map(|id| id.seq).collect();
    assert_eq!(left, [1, 2, 4, 5, 6]);
    store.unpin(&lineage("release")).await.unwrap();
    let mut options = keep(1);
    options.drop.insert(lineage("run"));
    assert_eq!(store.gc(&options).await.unwrap().dropped, 5);
    assert_eq!(store.lineages().await.unwrap(), []);
    let gone = store.pin(&lineage("release"), &snapshot("run@1")).await;
    assert!(matches!(gone, Err(SnapshotError::NotFound { .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_keeps_what_its_origin_had() {
    let bench = Bench::new();
    let store = bench.open().await;
    take(&store, "run", &large(&[1])).await;
    store.fork(&snapshot("run@1"), &lineage("side")).await.unwrap();
    let mut options = keep(1);
    options.drop.insert(lineage("run"));
    for _ in 0..3 {
        store.gc(&options).await.unwrap();
        bench.clock.advance(2 * DAY);
    }
    assert_eq!(restored(&store, &snapshot("side@1")).await.unwrap(), large(&[1]).normal());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_condemned_is_not_built_upon() {
    let bench = Bench::new();
    let store = bench.open().await;
    take(&store, "run", &large(&[1])).await;
    take(&store, "run", &large(&[2])).await;
    bench.clock.advance(2 * DAY);
    assert!(store.gc(&keep(1)).await.unwrap().condemned > 0);
    // The content of the condemned pack comes again, and is stored again.
    let source = MemorySource::whole(&large(&[1]));
    let receipt =
        store.snapshot(&lineage("run"), &source, SnapshotOptions::default()).await.unwrap();
    assert!(receipt.stored.new_bytes >= 700_000, "{:?}", receipt.stored);
    bench.clock.advance(2 * DAY);
    assert!(store.gc(&keep(1)).await.unwrap().deleted > 0);
    assert_eq!(restored(&store, &receipt.snapshot).await.unwrap(), large(&[1]).normal());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_dropped_if_something_kept_cannot_be_read() {
    let bench = Bench::new();
    let store = bench.open().await;
    for seed in 0..3 {
        take(&store, "run", &large(&[seed])).await;
    }
    let (head, _) = bench.objects("heads").await.pop().unwrap();
    bench.objects.put_opts(&Path::from(head), "torn".into(), PutOptions::default()).await.unwrap();
    bench.clock.advance(2 * DAY);
    let refused = store.gc(&keep(1)).await;
    assert!(matches!(refused, Err(SnapshotError::Corrupt { .. })), "{refused:?}");
    assert_eq!(bench.objects("heads").await.len(), 3);
}

/// Lets one operation of one party pass at a time.
#[derive(Debug, Default)]
struct Gate {
    waiting: Mutex<BTreeMap<(usize, u64), oneshot::Sender<()>>>,
    arrivals: Mutex<u64>,
    changed: Notify,
}

impl Gate {
    fn waits(&self, party: usize) -> bool {
        self.waiting.lock().unwrap().keys().any(|(one, _)| *one == party)
    }

    /// Lets one pass: chosen by a number, but nobody waits for long.
    fn open(&self, random: u64) {
        let mut waiting = self.waiting.lock().unwrap();
        let Some(oldest) = waiting.keys().min_by_key(|(_, arrival)| *arrival).copied() else {
            return;
        };
        let overdue = *self.arrivals.lock().unwrap() - oldest.1 > 16;
        let at = usize::try_from(random % waiting.len() as u64).unwrap();
        let chosen = waiting.keys().nth(at).copied().filter(|_| !overdue).unwrap_or(oldest);
        let _ = waiting.remove(&chosen).unwrap().send(());
    }

    async fn pass(&self, party: usize) {
        let (send, receive) = oneshot::channel();
        let arrival = {
            let mut arrivals = self.arrivals.lock().unwrap();
            *arrivals += 1;
            *arrivals
        };
        self.waiting.lock().unwrap().insert((party, arrival), send);
        self.changed.notify_one();
        // Opened for all at the end.
        let _ = receive.await;
    }
}

/// What collectors are made to do wrong, to show that the play finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    None,
    /// What is copied out of a pack is not there when it is said where it went.
    LostCopy,
    /// A pack is deleted as soon as it is said where its frames went.
    DeletedAtOnce,
}

/// A store behind a gate.
#[derive(Debug, Clone)]
struct Gated {
    inner: Arc<dyn ObjectStore>,
    gate: Arc<Gate>,
    party: usize,
    defect: Defect,
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gated({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Gated {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.gate.pass(self.party).await;
        let is_in = |directory| at.prefix_matches(&Path::from(format!("store/{directory}")));
        if self.defect == Defect::LostCopy && is_in("packs") {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        let put = self.inner.put_opts(at, payload, options).await?;
        if self.defect == Defect::DeletedAtOnce && is_in("moved") {
            let pack = format!("store/packs/{}", at.filename().unwrap());
            self.inner.delete(&Path::from(pack)).await?;
        }
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.gate.pass(self.party).await;
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    store.gate.pass(store.party).await;
                    location
                }
            })
            .flat_map({
                let inner = Arc::clone(&self.inner);
                move |location| inner.delete_stream(futures::stream::iter([location]).boxed())
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        futures::stream::once(async move {
            store.gate.pass(store.party).await;
            store.inner.list(prefix.as_ref())
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.gate.pass(self.party).await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// What was acknowledged.
type Acknowledged = Arc<Mutex<BTreeMap<SnapshotId, Tree>>>;

/// Takes snapshots of trees, each made of a few out of a small number of contents, so that what one has dropped another
/// wants again.
async fn write(store: SnapshotStore, name: String, rounds: Vec<[u64; 2]>, done: Acknowledged) {
    for seeds in rounds {
        let tree = large(&seeds);
        let source = MemorySource::whole(&tree);
        match store.snapshot(&lineage(&name), &source, SnapshotOptions::default()).await {
            Ok(receipt) => drop(done.lock().unwrap().insert(receipt.snapshot, tree)),
            Err(SnapshotError::Overtaken { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Begins lineages with whatever is there, and goes on with them.
async fn fork(store: SnapshotStore, origin: String, rounds: Vec<[u64; 2]>, done: Acknowledged) {
    for (round, _) in rounds.iter().enumerate() {
        let Some(newest) = store.newest(&lineage(&origin)).await.unwrap() else { continue };
        let known = done.lock().unwrap().get(&newest).cloned();
        match store.fork(&newest, &lineage(&format!("{origin}-{round}"))).await {
            Ok(forked) => {
                if let Some(tree) = known {
                    done.lock().unwrap().insert(forked, tree);
                }
            }
            Err(SnapshotError::Overtaken { .. } | SnapshotError::NotFound { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// What collectors have done in a play.
#[derive(Debug, Clone, Copy, Default)]
struct Collected {
    deleted: u64,
    repacked: u64,
}

async fn collect(store: SnapshotStore, watcher: SnapshotStore, passes: usize) -> Collected {
    let mut done = Collected::default();
    for _ in 0..passes {
        let pass = store.gc(&keep(1)).await.unwrap();
        done.deleted += pass.deleted;
        done.repacked += pass.repacked;
        let report = watcher.verify_all().await.unwrap();
        assert!(report.is_clean(), "{:?}", report.problems);
    }
    done
}

#[derive(Debug, Clone)]
struct Play {
    writers: Vec<Vec<[u64; 2]>>,
    forks: Vec<[u64; 2]>,
    passes: usize,
    seed: u64,
}

fn play() -> impl Strategy<Value = Play> {
    let round = [0_u64..3, 0_u64..3];
    let writer = proptest::collection::vec(round.clone(), 8..14);
    let writers = proptest::collection::vec(writer, 1..3);
    let forks = proptest::collection::vec(round, 0..3);
    (writers, forks, 10_usize..18, any::<u64>()).prop_map(|(writers, forks, passes, seed)| Play {
        writers,
        forks,
        passes,
        seed,
    })
}

fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(1);
    u64::from_le_bytes(blake3::hash(&random.to_le_bytes()).as_bytes()[..8].try_into().unwrap())
}

/// Plays writers and collectors against each other.
async fn run(play: Play, defect: Defect) -> Collected {
    let bench = Bench::new();
    let options = || StoreOptions { grace: GRACE, ..bench.options() };
    let open = |objects: Arc<dyn ObjectStore>| SnapshotStore::open(objects, "store", options());
    let watcher = open(bench.objects.clone()).await.unwrap();
    let gate = Arc::new(Gate::default());
    let done = Acknowledged::default();
    let mut parties = tokio::task::JoinSet::new();
    let mut alive = BTreeMap::new();
    let behind = |party: usize, defect: Defect| {
        let (inner, gate) = (bench.objects.clone(), Arc::clone(&gate));
        let gated: Arc<dyn ObjectStore> = Arc::new(Gated { inner, gate, party, defect });
        gated
    };
    for (at, rounds) in play.writers.iter().enumerate() {
        let (objects, options) = (behind(alive.len(), Defect::None), options());
        let (rounds, done) = (rounds.clone(), done.clone());
        let task = parties.spawn(async move {
            let store = SnapshotStore::open(objects, "store", options).await.unwrap();
            write(store, format!("run{at}"), rounds, done).await;
            Collected::default()
        });
        alive.insert(task.id(), alive.len());
    }
    if !play.forks.is_empty() {
        let (objects, options) = (behind(alive.len(), Defect::None), options());
        let (rounds, done) = (play.forks.clone(), done.clone());
        let task = parties.spawn(async move {
            let store = SnapshotStore::open(objects, "store", options).await.unwrap();
            fork(store, "run0".to_owned(), rounds, done).await;
            Collected::default()
        });
        alive.insert(task.id(), alive.len());
    }
    for _ in 0..2 {
        let (objects, options, watcher) = (behind(alive.len(), defect), options(), watcher.clone());
        let task = parties.spawn(async move {
            let store = SnapshotStore::open(objects, "store", options).await.unwrap();
            collect(store, watcher, play.passes).await
        });
        alive.insert(task.id(), alive.len());
    }
    let mut random = play.seed;
    let mut collected = Collected::default();
    while !alive.is_empty() {
        // A step is taken when everybody waits for one, so that it follows from the seed who takes it.
        loop {
            while let Some(ended) = parties.try_join_next_with_id() {
                let (id, done) = ended.unwrap();
                alive.remove(&id);
                collected.deleted += done.deleted;
                collected.repacked += done.repacked;
            }
            if alive.values().all(|party| gate.waits(*party)) {
                break;
            }
            // Also woken when a party ends, which nobody tells: look again soon.
            let _ = tokio::time::timeout(Duration::from_millis(1), gate.changed.notified()).await;
        }
        // Time goes on, little at a step: an operation takes far less than the grace.
        bench.clock.advance(next(&mut random) % (GRACE.as_secs() * 1000 / 60));
        gate.open(next(&mut random));
    }
    let report = watcher.verify_all().await.unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
    let done = done.lock().unwrap().clone();
    for name in watcher.lineages().await.unwrap() {
        let newest = watcher.newest(&name).await.unwrap().unwrap();
        if let Some(tree) = done.get(&newest) {
            assert_eq!(restored(&watcher, &newest).await.unwrap(), tree.normal());
        }
    }
    // The newest of what was acknowledged is still there.
    for (name, newest) in done.keys().map(|id| (&id.lineage, id)).collect::<BTreeMap<_, _>>() {
        let there = watcher.newest(name).await.unwrap();
        assert!(there.as_ref() >= Some(newest), "{there:?} of {name}, and {newest} was made");
    }
    collected
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 20, ..ProptestConfig::default() })]
    #[test]
    fn writers_and_collectors_do_each_other_no_harm(play in play()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(play, Defect::None));
    }
}

/// A play in which what one has dropped another wants again.
fn busy(seed: u64) -> Play {
    let rounds = [[0, 1], [2, 2], [0, 3], [1, 1], [2, 0], [3, 3], [1, 2], [0, 2]];
    Play { writers: vec![rounds.to_vec(); 2], forks: vec![[0, 0]; 2], passes: 14, seed }
}

/// Shows that the play reaches what it is for: packs are repacked and deleted while writers write.
#[tokio::test]
async fn packs_are_repacked_and_deleted_while_writers_write() {
    let mut all = Collected::default();
    for seed in 0..3 {
        let done = run(busy(seed), Defect::None).await;
        all.deleted += done.deleted;
        all.repacked += done.repacked;
    }
    assert!(all.deleted > 0 && all.repacked > 0, "{all:?}");
}

/// Shows that the play finds what is wrong.
#[tokio::test]
async fn planted_defects_are_found() {
    for defect in [Defect::LostCopy, Defect::DeletedAtOnce] {
        let mut found = false;
        for seed in 0..40 {
            // What is wrong is found by an assertion that fails.
            found = tokio::spawn(run(busy(seed), defect)).await.is_err();
            if found {
                break;
            }
        }
        assert!(found, "{defect:?} does no harm that is seen");
    }
}

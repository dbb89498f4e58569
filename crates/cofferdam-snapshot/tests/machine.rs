//! The store against a model: random edits, snapshots of every kind, forks, restores, collections and comparisons.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cofferdam_snapshot::{
    ChangeKind, GcOptions, SnapshotId, SnapshotOptions, SnapshotStore, TargetEntry, TreePath,
};
use futures::TryStreamExt as _;
use kit::{Bench, MemorySource, Thing, Tree, lineage, noise, path, restored};
use proptest::{prelude::*, sample::Index};

#[derive(Debug, Clone)]
enum Step {
    Put(String, Thing),
    Remove(String),
    Chmod(Index, u16),
    /// Everything is listed and read.
    Whole,
    /// Everything is listed, and what changed is read.
    Since,
    /// What differs from an older snapshot is listed.
    Changes(Index),
    Fork(Index),
    Restore(Index),
    Diff(Index, Index),
    Collect(usize),
    Reopen,
}

fn place() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("long name")];
    proptest::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn thing() -> impl Strategy<Value = Thing> {
    let size = prop_oneof![
        Just(0_usize),
        1_usize..6,
        250_usize..260,
        65_530_usize..65_540,
        Just(300_000),
        Just(900_000)
    ];
    let file = (size, 0_u64..6).prop_map(|(size, seed)| Thing::file(noise(seed, size)));
    let sparse = (1_usize..4, 0_u64..3).prop_map(|(blocks, seed)| {
        Thing::file([noise(seed, 100), vec![0; blocks * 70_000], noise(seed, 3)].concat())
    });
    prop_oneof![
        6 => file,
        1 => sparse,
        1 => (0_u64..3).prop_map(|link| Thing::linked(noise(50 + link, 2000), link)),
        1 => "[a-z]{1,9}".prop_map(|target| Thing::link(&target)),
        1 => Just(Thing::directory()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (place(), thing()).prop_map(|(at, thing)| Step::Put(at, thing)),
        3 => place().prop_map(Step::Remove),
        2 => (any::<Index>(), 0_u16..0o1000).prop_map(|(at, mode)| Step::Chmod(at, mode)),
        3 => Just(Step::Whole),
        4 => Just(Step::Since),
        4 => any::<Index>().prop_map(Step::Changes),
        1 => any::<Index>().prop_map(Step::Fork),
        2 => any::<Index>().prop_map(Step::Restore),
        2 => any::<(Index, Index)>().prop_map(|(a, b)| Step::Diff(a, b)),
        1 => (1_usize..4).prop_map(Step::Collect),
        1 => Just(Step::Reopen),
    ]
}

/// A snapshot as it should be.
#[derive(Debug, Clone)]
struct Taken {
    tree: Tree,
    /// Whether all names of all files were listed, so that hard links are known.
    links: bool,
}

struct Machine {
    bench: Bench,
    store: SnapshotStore,
    name: String,
    tree: Tree,
    taken: BTreeMap<SnapshotId, Taken>,
    forks: u64,
}

/// A tree without what is only known if all names are listed.
fn without_links(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    for thing in tree.0.values_mut() {
        if let Thing::File { link, .. } = thing {
            *link = None;
        }
    }
    tree
}

impl Machine {
    async fn new() -> Self {
        let bench = Bench::new();
        let store = bench.open().await;
        let (name, tree) = ("run".to_owned(), Tree::default());
        Self { bench, store, name, tree, taken: BTreeMap::new(), forks: 0 }
    }

    fn newest(&self) -> Option<(&SnapshotId, &Taken)> {
        let name = lineage(&self.name);
        self.taken.iter().rfind(|(id, _)| id.lineage == name)
    }

    fn any(&self, index: Index) -> Option<(SnapshotId, Taken)> {
        let all: Vec<_> = self.taken.iter().collect();
        (!all.is_empty()).then(|| *index.get(&all)).map(|(id, taken)| (id.clone(), taken.clone()))
    }

    async fn check(&self, id: &SnapshotId) {
        let taken = &self.taken[id];
        let there = restored(&self.store, id).await.unwrap();
        if taken.links {
            assert_eq!(there, taken.tree.normal(), "{id}");
        } else {
            assert_eq!(without_links(&there), without_links(&taken.tree), "{id}");
        }
    }

    async fn take(&mut self, source: MemorySource, links: bool) {
        let options = SnapshotOptions::default();
        let receipt = self.store.snapshot(&lineage(&self.name), &source, options).await.unwrap();
        assert_eq!(receipt.totals, self.tree.totals());
        let taken = Taken { tree: self.tree.clone(), links };
        self.taken.insert(receipt.snapshot.clone(), taken);
        self.check(&receipt.snapshot).await;
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Put(at, thing) => drop(self.tree.put(&at, thing)),
            Step::Remove(at) => self.tree.remove_at(&path(&at)),
            Step::Chmod(index, new) => {
                let mut all: Vec<_> = self.tree.0.values_mut().collect();
                let count = all.len();
                if count > 0
                    && let Thing::Directory { mode } | Thing::File { mode, link: None, .. } =
                        &mut all[index.index(count)]
                {
                    *mode = new;
                }
            }
            Step::Whole => self.take(MemorySource::whole(&self.tree), true).await,
            Step::Since => {
                let before = self.newest().map(|(_, taken)| taken.tree.clone());
                let source = MemorySource::since(&self.tree, &before.unwrap_or_default());
                self.take(source, true).await;
            }
            Step::Changes(index) => {
                let Some((base, base_taken)) = self.any(index) else { return };
                let before = self.newest().map(|(_, taken)| taken.tree.clone());
                let before = before.unwrap_or_default();
                let source = MemorySource::changes(&self.tree, &before, &base, &base_taken.tree);
                self.take(source, false).await;
            }
            Step::Fork(index) => {
                let Some((from, taken)) = self.any(index) else { return };
                self.forks += 1;
                self.name = format!("fork{}", self.forks);
                let forked = self.store.fork(&from, &lineage(&self.name)).await.unwrap();
                self.tree = taken.tree.clone();
                self.taken.insert(forked.clone(), taken);
                self.check(&forked).await;
            }
            Step::Restore(index) => {
                if let Some((id, _)) = self.any(index) {
                    self.check(&id).await;
                }
            }
            Step::Diff(a, b) => {
                if let Some(((a, before), (b, after))) = self.any(a).zip(self.any(b)) {
                    self.diff(&a, &before.tree, &b, &after.tree).await;
                    self.changes(&a, &before.tree, &b, &after.tree).await;
                }
            }
            Step::Collect(keep) => {
                let mut options = GcOptions::default();
                options.keep_last = keep;
                options.keep_younger = Some(Duration::ZERO);
                self.store.gc(&options).await.unwrap();
                self.bench.clock.advance(25 * 3600 * 1000);
                let mut count: BTreeMap<_, usize> = BTreeMap::new();
                let newest_first: Vec<SnapshotId> = self.taken.keys().rev().cloned().collect();
                for id in newest_first {
                    let rank = count.entry(id.lineage.clone()).or_default();
                    *rank += 1;
                    if *rank > keep {
                        self.taken.remove(&id);
                    }
                }
                for (id, _) in self.newest().into_iter() {
                    self.check(id).await;
                }
            }
            Step::Reopen => self.store = self.bench.open().await,
        }
    }

    /// What makes the second tree of the first does, and touches nothing else.
    async fn changes(&self, a: &SnapshotId, before: &Tree, b: &SnapshotId, after: &Tree) {
        let changes = self.store.changes(a, b, usize::MAX).await.unwrap().unwrap();
        let mut tree = without_links(before);
        for path in &changes.removed {
            assert!(tree.0.contains_key(path), "{path} is not there to be removed");
            tree.remove_at(path);
        }
        let mut open: Option<(TreePath, u16, Vec<u8>)> = None;
        let mut entries = changes.entries;
        loop {
            let entry = entries.try_next().await.unwrap();
            match (&entry, &mut open) {
                (Some(TargetEntry::Data(bytes)), Some((_, _, content))) => {
                    content.extend_from_slice(bytes);
                    continue;
                }
                (Some(TargetEntry::Hole(length)), Some((_, _, content))) => {
                    content.resize(content.len() + usize::try_from(*length).unwrap(), 0);
                    continue;
                }
                _ => {}
            }
            if let Some((path, mode, content)) = open.take() {
                tree.0.insert(path, Thing::File { mode, content: content.into(), link: None });
            }
            match entry {
                None => break,
                Some(TargetEntry::Directory { path, metadata }) => {
                    tree.0.insert(path, Thing::Directory { mode: metadata.mode });
                }
                Some(TargetEntry::SymbolicLink { path, target, .. }) => {
                    tree.0.insert(path, Thing::Link { target });
                }
                Some(TargetEntry::File { path, metadata, .. }) => {
                    open = Some((path, metadata.mode, Vec::new()));
                }
                Some(TargetEntry::HardLink { path, to }) => {
                    let same = tree.0[&to].clone();
                    tree.0.insert(path, same);
                }
                Some(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(tree, without_links(after), "from {a} to {b}");
    }

    async fn diff(&self, a: &SnapshotId, before: &Tree, b: &SnapshotId, after: &Tree) {
        let changes: Vec<_> = self.store.diff(a, b).await.unwrap().try_collect().await.unwrap();
        let got: BTreeMap<TreePath, &str> = changes
            .iter()
            .filter_map(|change| {
                let kind = match change.kind {
                    ChangeKind::Added => "added",
                    ChangeKind::Removed => "removed",
                    ChangeKind::Replaced => "replaced",
                    ChangeKind::Changed { content: false, mode: false, .. } => return None,
                    _ => "changed",
                };
                Some((change.path.clone(), kind))
            })
            .collect();
        assert!(changes.len() >= got.len(), "nothing is listed twice");
        let (before, after) = (without_links(before), without_links(after));
        let paths: BTreeSet<_> = before.0.keys().chain(after.0.keys()).collect();
        let expected: BTreeMap<TreePath, &str> = paths
            .into_iter()
            .filter_map(|path| {
                let kind = match (before.0.get(path), after.0.get(path)) {
                    (None, _) => "added",
                    (_, None) => "removed",
                    (Some(a), Some(b)) if a == b => return None,
                    (Some(Thing::File { .. }), Some(Thing::File { .. }))
                    | (Some(Thing::Directory { .. }), Some(Thing::Directory { .. }))
                    | (Some(Thing::Link { .. }), Some(Thing::Link { .. })) => "changed",
                    _ => "replaced",
                };
                Some((path.clone(), kind))
            })
            .collect();
        assert_eq!(got, expected, "from {a} to {b}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_as_its_model(steps in proptest::collection::vec(step(), 1..40)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let mut machine = Machine::new().await;
            for step in steps {
                machine.step(step).await;
            }
            let report = machine.store.verify_all().await.unwrap();
            assert!(report.is_clean(), "{:?}", report.problems);
        });
    }
}

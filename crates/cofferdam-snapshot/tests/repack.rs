//! Packs of which little is needed: that is copied, read wherever it went, and the rest is deleted.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use std::{sync::Arc, time::Duration};

use cofferdam_core::Secret;
use cofferdam_snapshot::{
    GcOptions, GcReport, SnapshotError, SnapshotOptions, SnapshotStore, StoreOptions,
};
use cofferdam_testkit::{FaultPlan, FaultyStore};
use kit::{Bench, MemorySource, Thing, Tree, lineage, noise, restored, snapshot, take};
use object_store::{ObjectStoreExt as _, path::Path};

const DAY: u64 = 25 * 3600 * 1000;

fn keep_one() -> GcOptions {
    let mut options = GcOptions::default();
    options.keep_last = 1;
    options.keep_younger = Some(Duration::ZERO);
    options
}

/// A tree with a file for each seed, and so many small directories that nodes fill a pack too.
fn tree(seeds: &[u64]) -> Tree {
    let mut tree = Tree::default();
    for seed in seeds {
        tree.put(&format!("{seed}"), Thing::file(noise(*seed, 400_000)));
        for number in 0..40 {
            let name = format!("{seed}-{number}");
            tree.put(&name, Thing::directory());
            let content = noise(seed * 1000 + number, 250);
            tree.put(&format!("{name}/small"), Thing::file(content));
        }
    }
    tree
}

/// Collects until nothing more happens, a day after the other. Returns what was done in all.
async fn settle(bench: &Bench, store: &SnapshotStore) -> GcReport {
    let mut all = GcReport::default();
    for _ in 0..8 {
        bench.clock.advance(DAY);
        let done = store.gc(&keep_one()).await.unwrap();
        all.repacked += done.repacked;
        all.repacked_bytes += done.repacked_bytes;
        all.deleted += done.deleted;
    }
    all
}

fn total(objects: &[(String, u64)]) -> u64 {
    objects.iter().map(|(_, size)| size).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn little_of_a_pack_is_copied_and_the_rest_goes() {
    for key in [None, Some("k".repeat(32))] {
        let bench = Bench::new();
        let open = || {
            let key = key
                .clone()
                .map(|key| Arc::new(Secret::new(key)) as Arc<dyn cofferdam_snapshot::KeyProvider>);
            let options = StoreOptions { key, ..bench.options() };
            let objects = bench.objects.clone();
            async move { SnapshotStore::open(objects, "store", options).await.unwrap() }
        };
        let store = open().await;
        take(&store, "run", &tree(&[1, 2, 3, 4, 5])).await;
        take(&store, "run", &tree(&[3])).await;
        bench.clock.advance(DAY);
        let before = total(&bench.objects("packs").await);
        let mut dry = keep_one();
        dry.dry_run = true;
        let planned = store.gc(&dry).await.unwrap();
        assert_eq!(bench.objects("moved").await, []);
        let first = store.gc(&keep_one()).await.unwrap();
        assert!(first.repacked > 0, "{first:?}");
        assert_eq!(
            (first.repacked, first.repacked_bytes),
            (planned.repacked, planned.repacked_bytes)
        );
        // Until the grace is over, both are there.
        assert!(total(&bench.objects("packs").await) > before);
        settle(&bench, &store).await;
        let after = total(&bench.objects("packs").await);
        assert!(after < 600_000 && after < before / 3, "{after} of {before} bytes are left");

        // A process that has read nothing of it before finds everything.
        let other = open().await;
        assert_eq!(restored(&other, &snapshot("run@2")).await.unwrap(), tree(&[3]).normal());
        let report = other.verify_all().await.unwrap();
        assert!(report.is_clean() && report.chunks > 0, "{:?}", report.problems);
        // So does one that goes on from it: nothing of it is stored again.
        let next = take(&other, "run", &tree(&[3])).await;
        assert_eq!(next.stored.new_bytes, 0, "{:?}", next.stored);

        // When nothing needs it any more, all of it goes, also what says where it went.
        let mut options = keep_one();
        options.drop.insert(lineage("run"));
        for _ in 0..4 {
            other.gc(&options).await.unwrap();
            bench.clock.advance(DAY);
        }
        for directory in ["heads", "packs", "moved", "condemned"] {
            assert_eq!(bench.objects(directory).await, [], "{directory}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_is_moved_again_and_found_all_the_same() {
    let bench = Bench::new();
    let store = bench.open().await;
    let mut seeds: Vec<u64> = (1..=16).collect();
    take(&store, "run", &tree(&seeds)).await;
    let mut repacked = 0;
    while seeds.len() > 1 {
        seeds.truncate(seeds.len().div_ceil(3));
        take(&store, "run", &tree(&seeds)).await;
        repacked += settle(&bench, &store).await.repacked;
        let newest = store.newest(&lineage("run")).await.unwrap().unwrap();
        let fresh = bench.open().await;
        assert_eq!(restored(&fresh, &newest).await.unwrap(), tree(&seeds).normal());
    }
    assert!(repacked >= 3, "{repacked}");
    assert!(bench.objects("moved").await.len() >= 3);
    assert!(total(&bench.objects("packs").await) < 600_000);
    assert!(store.verify_all().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mostly_needed_young_or_too_much_stays_as_it_is() {
    let check = async |seeds: &[u64], wait: u64, change: fn(&mut GcOptions), expect: bool| {
        let bench = Bench::new();
        let store = bench.open().await;
        take(&store, "run", &tree(&[1, 2, 3, 4])).await;
        take(&store, "run", &tree(seeds)).await;
        bench.clock.advance(wait);
        let mut options = keep_one();
        change(&mut options);
        let done = store.gc(&options).await.unwrap();
        assert_eq!(done.repacked > 0, expect, "{seeds:?} {done:?}");
        assert_eq!(bench.objects("moved").await.is_empty(), !expect);
    };
    check(&[1], DAY, |_| {}, true).await;
    check(&[1, 2, 3], DAY, |_| {}, false).await;
    check(&[1, 2, 3], DAY, |it| it.repack_below = 90, true).await;
    check(&[1], 1000, |_| {}, false).await;
    check(&[1], DAY, |it| it.repack_below = 0, false).await;
    check(&[1], DAY, |it| it.repack_bytes = 1000, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_comes_again_is_found_where_it_went() {
    let bench = Bench::new();
    let store = bench.open().await;
    take(&store, "run", &tree(&[1, 2, 3, 4])).await;
    take(&store, "run", &tree(&[1])).await;
    settle(&bench, &store).await;
    assert!(!bench.objects("moved").await.is_empty());
    // So many packs that those of the beginning are in a segment.
    for seed in 10..30 {
        take(&store, "run", &tree(&[1, seed])).await;
    }
    let fresh = bench.open().await;
    let other = MemorySource::whole(&tree(&[1]));
    let taken = fresh.snapshot(&lineage("side"), &other, SnapshotOptions::default()).await.unwrap();
    let bytes = taken.stored.new_bytes;
    assert!(bytes < 100_000, "{bytes} bytes are stored again");
    assert_eq!(restored(&fresh, &taken.snapshot).await.unwrap(), tree(&[1]).normal());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_says_to_earlier_releases_that_packs_were_moved() {
    let bench = Bench::new();
    let store = bench.open().await;
    let config = Path::from("store/config");
    let version = async || bench.objects.get(&config).await.unwrap().bytes().await.unwrap()[8];
    take(&store, "run", &tree(&[1, 2, 3, 4])).await;
    take(&store, "run", &tree(&[1])).await;
    assert_eq!(version().await, 1);
    settle(&bench, &store).await;
    assert_eq!(version().await, 2);
    bench.open().await.verify_all().await.unwrap();
    let mut later = bench.objects.get(&config).await.unwrap().bytes().await.unwrap().to_vec();
    later[8] = 3;
    bench.objects.put(&config, later.into()).await.unwrap();
    let refused = SnapshotStore::open(bench.objects.clone(), "store", bench.options()).await;
    assert!(
        matches!(refused, Err(SnapshotError::Version { version: 3, known: 2, .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pack_is_not_spread() {
    let bench = Bench::new();
    let store = bench.open().await;
    take(&store, "run", &tree(&[1, 2, 3, 4])).await;
    take(&store, "run", &tree(&[1])).await;
    for (pack, _) in bench.objects("packs").await {
        let at = Path::from(pack);
        let mut bytes = bench.objects.get(&at).await.unwrap().bytes().await.unwrap().to_vec();
        // Only content: what says which content is where can be read.
        if bytes.len() > 1_000_000 {
            let length = bytes.len() - 20_000;
            bytes[..length].iter_mut().step_by(997).for_each(|byte| *byte ^= 1);
            bench.objects.put(&at, bytes.into()).await.unwrap();
        }
    }
    settle(&bench, &store).await;
    let report = bench.open().await.verify_all().await.unwrap();
    assert!(report.problem_count > 0);
    assert!(total(&bench.objects("packs").await) > 1_000_000, "the damaged pack stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_write_loses_nothing_and_leaves_nothing() {
    let mut crashes = 0;
    for writes in 0.. {
        let bench = Bench::new();
        let store = bench.open().await;
        take(&store, "run", &tree(&[1, 2, 3, 4, 5])).await;
        take(&store, "run", &tree(&[3])).await;
        // Passes that each die at a write, until one does not; then the day of the next.
        let mut died = false;
        for _ in 0..4 {
            bench.clock.advance(DAY);
            let dying = FaultyStore::new(bench.objects.clone(), FaultPlan::default(), 0);
            dying.fail_writes_after(writes);
            let dying =
                SnapshotStore::open(Arc::new(dying), "store", bench.options()).await.unwrap();
            died |= dying.gc(&keep_one()).await.is_err();
            let fresh = bench.open().await;
            assert_eq!(restored(&fresh, &snapshot("run@2")).await.unwrap(), tree(&[3]).normal());
            let report = fresh.verify_all().await.unwrap();
            assert!(report.is_clean(), "after {writes} writes: {:?}", report.problems);
        }
        settle(&bench, &store).await;
        let fresh = bench.open().await;
        assert_eq!(restored(&fresh, &snapshot("run@2")).await.unwrap(), tree(&[3]).normal());
        let left = total(&bench.objects("packs").await);
        assert!(left < 600_000, "after {writes} writes {left} bytes are left");
        if !died {
            break;
        }
        crashes += 1;
    }
    // Before each of these: the head that is dropped, the version, the new pack, where frames went, the mark.
    assert!(crashes >= 5, "{crashes}");
}

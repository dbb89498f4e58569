//! Snapshots over storage that fails: whatever happens, what was acknowledged is there, whole, or something newer is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use std::{sync::Arc, time::Duration};

use cofferdam_snapshot::{SnapshotError, SnapshotId, SnapshotOptions, SnapshotStore, StorageRetry};
use cofferdam_testkit::{FaultPlan, FaultyStore};
use kit::{Bench, MemorySource, Thing, Tree, lineage, noise, restored};
use object_store::memory::InMemory;
use proptest::prelude::*;

/// One snapshot after the other, of trees that differ, while storage fails.
#[derive(Debug, Clone)]
struct Play {
    plan: FaultPlan,
    seed: u64,
    /// For each tree, how large its new file is, and after how many operations storage is gone, if it goes.
    rounds: Vec<(usize, Option<u64>)>,
}

fn play() -> impl Strategy<Value = Play> {
    let share = || prop_oneof![Just(0_u64), 0_u64..80];
    let plan = (share(), share(), share(), share(), share(), share()).prop_map(
        |(error, lost, twice, stale, hang, slow)| FaultPlan {
            error,
            lost,
            twice,
            stale,
            hang,
            slow,
        },
    );
    let size = prop_oneof![Just(100_usize), Just(20_000), Just(900_000)];
    let rounds =
        proptest::collection::vec((size, proptest::option::weighted(0.4, 0_u64..25)), 1..7);
    (plan, any::<u64>(), rounds).prop_map(|(plan, seed, rounds)| Play { plan, seed, rounds })
}

async fn run(play: Play) -> u64 {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()), play.plan, play.seed);
    let bench = Bench::over(Arc::new(faulty.clone()));
    let open = || async {
        let mut options = bench.options();
        options.retry = StorageRetry::default();
        SnapshotStore::open(bench.objects.clone(), "store", options).await
    };
    let run = lineage("run");
    let mut tree = Tree::default();
    // What the lineage may be at: its last acknowledged tree, or one that was tried after it.
    let mut possible: Vec<Tree> = Vec::new();
    let mut acknowledged: Vec<(SnapshotId, Tree)> = Vec::new();
    for (round, (size, gone)) in play.rounds.iter().enumerate() {
        faulty.fail_after(gone.unwrap_or(u64::MAX));
        tree.put(&format!("d/{round}"), Thing::file(noise(round as u64, *size)));
        let attempt = async {
            let store = open().await?;
            let source = MemorySource::whole(&tree);
            store.snapshot(&run, &source, SnapshotOptions::default()).await
        };
        possible.push(tree.normal());
        match attempt.await {
            Ok(receipt) => {
                acknowledged.push((receipt.snapshot, tree.normal()));
                possible = vec![tree.normal()];
            }
            Err(SnapshotError::Storage { retry, .. }) => assert!(retry.is_retryable()),
            // Its own snapshot of a round before, which was not acknowledged and turned up late.
            Err(SnapshotError::Conflict { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    faulty.set_healthy(true);
    let store = open().await.unwrap();
    let report = store.verify_all().await.unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
    for (snapshot, tree) in &acknowledged {
        assert_eq!(&restored(&store, snapshot).await.unwrap(), tree, "{snapshot}");
    }
    let newest = store.newest(&run).await.unwrap();
    assert!(newest.as_ref() >= acknowledged.last().map(|(snapshot, _)| snapshot), "{newest:?}");
    if let Some(newest) = newest {
        let there = restored(&store, &newest).await.unwrap();
        assert!(possible.contains(&there), "{newest} is none of what was tried");
    }
    faulty.faults()
}

fn on_paused_time<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 50, ..ProptestConfig::default() })]
    #[test]
    fn what_was_acknowledged_survives_what_storage_does(play in play()) {
        on_paused_time(run(play));
    }
}

#[test]
fn lost_answers_and_repeated_requests_do_not_fail_a_snapshot() {
    for seed in 0..20 {
        let plan = FaultPlan { lost: 150, twice: 150, stale: 300, ..FaultPlan::default() };
        let faulty = FaultyStore::new(Arc::new(InMemory::new()), plan, seed);
        let bench = Bench::over(Arc::new(faulty.clone()));
        on_paused_time(async {
            let mut options = bench.options();
            options.retry.attempts = 12;
            let open = SnapshotStore::open(bench.objects.clone(), "store", options);
            let store = open.await.unwrap();
            let mut tree = Tree::default();
            for round in 0..5 {
                tree.put(&format!("{round}"), Thing::file(noise(round, 50_000)));
                let source = MemorySource::whole(&tree);
                let options = SnapshotOptions::default();
                let receipt = store.snapshot(&lineage("run"), &source, options).await.unwrap();
                assert_eq!(receipt.snapshot.seq, round + 1, "no snapshot is made twice");
            }
        });
        assert!(faulty.faults() > 0);
    }
}

#[test]
fn storage_that_never_answers_ends_in_a_typed_error() {
    let plan = FaultPlan { hang: 1000, ..FaultPlan::default() };
    let bench = Bench::over(Arc::new(FaultyStore::new(Arc::new(InMemory::new()), plan, 1)));
    on_paused_time(async {
        let mut options = bench.options();
        options.retry.timeout = Duration::from_secs(30);
        let began = tokio::time::Instant::now();
        let error = SnapshotStore::open(bench.objects.clone(), "store", options).await.unwrap_err();
        assert!(matches!(error, SnapshotError::Storage { .. }), "{error:?}");
        assert!(error.retry().is_retryable());
        assert_eq!(began.elapsed(), Duration::from_secs(5 * 30));
        insta::assert_snapshot!(error, @"cannot get the object config");
    });
}

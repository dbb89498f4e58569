//! What a snapshot costs: what changed, and how deep that lies, and not how much there is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use std::time::{Duration, Instant};

use cofferdam_snapshot::{Receipt, SnapshotOptions};
use kit::{
    Bench,
    generated::{Edited, Generated},
    lineage,
};

/// Takes a tree of so many files, then changes ten of them; returns the last of three receipts and the shortest time.
async fn ten_changes(files: u64) -> (Receipt, Duration) {
    let store = Bench::new().open().await;
    let run = lineage("run");
    let source = Generated { files, file_bytes: 100, sparse: None };
    let base = store.snapshot(&run, &source, SnapshotOptions::default()).await.unwrap();
    assert_eq!(base.totals.files, files);
    let mut best: Option<(Receipt, Duration)> = None;
    for round in 0..3 {
        let directories = (0..10).map(|at| at * 7 + round).collect();
        let source = Edited { base: base.snapshot.clone(), directories };
        let began = Instant::now();
        let receipt = store.snapshot(&run, &source, SnapshotOptions::default()).await.unwrap();
        let took = began.elapsed().min(best.map_or(Duration::MAX, |(_, took)| took));
        assert_eq!(receipt.totals.files, files);
        best = Some((receipt, took));
    }
    best.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_changes_cost_the_same_in_a_tree_of_any_size() {
    let (small, small_took) = ten_changes(10_000).await;
    let (large, large_took) = ten_changes(100_000).await;
    println!("10,000 files: {:?} in {small_took:?}", small.stored);
    println!("100,000 files: {:?} in {large_took:?}", large.stored);
    assert_eq!((small.stored.objects_put, large.stored.objects_put), (1, 1));
    assert_eq!((small.stored.files_read, large.stored.files_read), (10, 10));
    // Ten directories and the root; in the large one the root is in pages.
    assert_eq!(small.stored.new_nodes, 11);
    assert!(large.stored.new_nodes <= 10 + 10 + 2, "{:?}", large.stored);
    assert!(large.stored.bytes_put < small.stored.bytes_put * 3, "{large:?} {small:?}");
}

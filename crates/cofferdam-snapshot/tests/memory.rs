//! What a snapshot takes of memory, whatever its size: a process of its own, whose peak is measured.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use cofferdam_snapshot::{
    DurableLocal, RestorePlan, SnapshotError, SnapshotOptions, Target, TargetEntry, TargetError,
    Totals,
};
use futures::{StreamExt as _, stream::BoxStream};
use kit::{Bench, generated::Generated, lineage};

const FILES: u64 = 20_000;
const SPARSE: u64 = 10 << 30;

/// A place that keeps nothing but counts.
#[derive(Debug)]
struct Counting;

#[async_trait]
impl Target for Counting {
    async fn restore(
        &mut self,
        _plan: &RestorePlan,
        mut entries: BoxStream<'_, Result<TargetEntry, SnapshotError>>,
    ) -> Result<Totals, TargetError> {
        let mut totals = Totals::default();
        while let Some(entry) = entries.next().await.transpose()? {
            match entry {
                TargetEntry::Directory { .. } => totals.directories += 1,
                TargetEntry::File { .. } => totals.files += 1,
                TargetEntry::Data(bytes) => totals.bytes += bytes.len() as u64,
                TargetEntry::Hole(length) => totals.bytes += length,
                other => panic!("unexpected {other:?}"),
            }
        }
        Ok(totals)
    }
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// 20,000 files and one of 10 GiB that is nearly all hole. The bytes of the files are fewer here than in a release build,
/// where they are 300 MB, for the sake of time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_whatever_the_size() {
    let file_bytes = if cfg!(debug_assertions) { 4_000 } else { 15_000 };
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench::over(Arc::new(DurableLocal::open(directory.path()).unwrap()));
    let store = bench.open().await;
    let before = peak();
    let source = Generated { files: FILES, file_bytes, sparse: Some(SPARSE) };
    let began = Instant::now();
    let taken = store.snapshot(&lineage("run"), &source, SnapshotOptions::default()).await.unwrap();
    let (took, after) = (began.elapsed(), peak());
    assert_eq!(taken.totals.files, FILES + 1);
    assert_eq!(taken.totals.bytes, FILES * file_bytes + SPARSE);
    let began = Instant::now();
    let restored = store.restore(&taken.snapshot, &mut Counting).await.unwrap();
    assert_eq!(restored.totals, taken.totals);
    let mib = |bytes: u64| bytes >> 20;
    let peaks = format!("{} MiB, {} MiB, {} MiB", mib(before), mib(after), mib(peak()));
    println!(
        "taken in {took:?}, restored in {:?}; peaks before, after and at the end: {peaks}",
        began.elapsed()
    );
    assert!(peak() < 128 << 20, "{peaks}");
}

//! What a snapshot takes of memory, whatever its size: a process of its own, whose peak is measured.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_snapshot::{
    Content, Coverage, DurableLocal, FileEnd, Listing, Metadata, Name, Previous, RestorePlan,
    SnapshotError, SnapshotOptions, Source, SourceEntry, SourceError, SourceFacts, SourceKind,
    Target, TargetEntry, TargetError, Totals, TreePath, Walk, Wanted,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use kit::{Bench, lineage, noise, path};

const FILES: u64 = 20_000;
const IN_ONE: u64 = 100;
const SPARSE: u64 = 10 << 30;

/// A tree that is nowhere: its files follow from their names.
#[derive(Debug)]
struct Generated {
    file_bytes: u64,
}

fn metadata() -> Metadata {
    Metadata { mode: 0o755, modified_ns: 1, xattrs: Vec::new() }
}

fn entry(name: &str, kind: SourceKind) -> SourceEntry {
    SourceEntry { name: Name::new(name.as_bytes()).unwrap(), metadata: metadata(), kind }
}

fn file(size: u64) -> SourceKind {
    SourceKind::File { size, unchanged: false, link_group: None }
}

fn listing(path: TreePath, entries: Vec<SourceEntry>) -> Listing {
    Listing { path, entries, removed: Vec::new(), complete: true, skipped: Vec::new() }
}

#[async_trait]
impl Source for Generated {
    async fn begin<'a>(&'a self, _previous: Option<&Previous>) -> Result<Walk<'a>, SourceError> {
        let directories = FILES / IN_ONE;
        let mut root: Vec<SourceEntry> =
            (0..directories).map(|at| entry(&format!("d{at:04}"), SourceKind::Directory)).collect();
        root.push(entry("sparse", file(SPARSE)));
        let below = (0..directories).map(move |at| {
            let files = (0..IN_ONE).map(|one| entry(&format!("f{one:03}"), file(self.file_bytes)));
            listing(path(&format!("d{at:04}")), files.collect())
        });
        let listings = stream::iter([listing(TreePath::root(), root)]).chain(stream::iter(below));
        let listings = listings.map(Ok).boxed();
        Ok(Walk { coverage: Coverage::Whole, root: metadata(), listings })
    }

    fn read<'a>(&'a self, files: Vec<Wanted>) -> BoxStream<'a, Result<Content, SourceError>> {
        let contents = files.into_iter().flat_map(|wanted| {
            let seed = blake3::hash(wanted.path.as_bytes()).as_bytes()[..8].try_into().unwrap();
            let length = usize::try_from(wanted.size.min(self.file_bytes)).unwrap();
            let bytes = Bytes::from(noise(u64::from_le_bytes(seed), length));
            let hole = wanted.size - length as u64;
            [Some(Content::Data(bytes)), (hole > 0).then_some(Content::Hole(hole))]
                .into_iter()
                .flatten()
                .chain([Content::End(FileEnd::Whole(metadata()))])
        });
        stream::iter(contents).map(Ok).boxed()
    }

    fn facts(&self) -> SourceFacts {
        SourceFacts::default()
    }
}

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
    let source = Generated { file_bytes };
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

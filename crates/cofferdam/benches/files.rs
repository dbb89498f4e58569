//! Files into and out of a sealed sandbox, as JSON lines. `against` names the case of a peer that is measured in the same
//! run where it is installed: its sandbox writes to a directory of the host, without walls.
#![expect(clippy::print_stdout, reason = "a benchmark prints its cases")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cofferdam::{
    core::WorkspacePath,
    manifest::Manifest,
    sandbox::{SandboxBackend, SandboxSpec, WriteOptions},
    sandbox_linux::LinuxBackend,
    workspace::Materializer,
};
use serde_json::json;

const FILES: u8 = 200;
const SIZE: usize = 4096;
const TREE_FILES: usize = 2000;
const TREE_SIZE: usize = 10 * 1024;
const ROUNDS: usize = 5;
/// A sandbox must take half of the peer's time at most.
const BAR: f64 = 0.5;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let backend = LinuxBackend::new();
    small_files(&backend).await?;
    let place = tempfile::tempdir()?;
    filled(&backend, place.path()).await
}

fn show(case: &str, peer: &str, mut times: Vec<Duration>) {
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let line = json!({
        "case": case,
        "median_ms": milliseconds(times[times.len() / 2]),
        "min_ms": milliseconds(times[0]),
        "n": times.len(),
        "against": format!("agents sdk, unix_local: {peer}"),
        "bar": BAR,
    });
    println!("{line}");
}

/// One after the other, as an agent does it.
async fn small_files(backend: &LinuxBackend) -> Result<(), Failure> {
    let sandbox = backend.create(&SandboxSpec::default()).await?;
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    let path = |round: usize, file: u8| WorkspacePath::new(&format!("f{round}-{file}"));
    for round in 0..ROUNDS {
        let started = Instant::now();
        for file in 0..FILES {
            let content = Bytes::from(vec![file; SIZE]);
            sandbox.files().write(&path(round, file)?, content, &WriteOptions::default()).await?;
        }
        writes.push(started.elapsed());
        let started = Instant::now();
        for file in 0..FILES {
            let found = sandbox.files().read(&path(round, file)?, 0, SIZE as u64).await?;
            assert_eq!(found, vec![file; SIZE]);
        }
        reads.push(started.elapsed());
    }
    sandbox.close().await?;
    show("sealed: 200 files of 4 KiB written", "200 files of 4 KiB written", writes);
    show("sealed: 200 files of 4 KiB read", "200 files of 4 KiB read", reads);
    Ok(())
}

/// From nothing to a sandbox with a tree of the host in it.
async fn filled(backend: &LinuxBackend, place: &Path) -> Result<(), Failure> {
    let source = place.join("source");
    std::fs::create_dir(&source)?;
    for file in 0..TREE_FILES {
        let byte = file.to_le_bytes()[0];
        std::fs::write(source.join(file.to_string()), vec![byte; TREE_SIZE])?;
    }
    let (manifest, spec) = manifest("{tree: {type: local_dir, source: source}}")?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let sandbox = backend.create(&spec).await?;
        Materializer::new(place).materialize(&manifest, &*sandbox).await?;
        times.push(started.elapsed());
        let last = WorkspacePath::new(&format!("tree/{}", TREE_FILES - 1))?;
        assert_eq!(sandbox.files().stat(&last).await?.size, TREE_SIZE as u64);
        sandbox.close().await?;
    }
    let case = "created with 2,000 files of 10 KiB";
    show(&format!("sealed: {case}"), case, times);
    Ok(())
}

fn manifest(entries: &str) -> Result<(Manifest, SandboxSpec), Failure> {
    let text = format!("version: 1\nentries: {entries}\n");
    let manifest = Manifest::parse(&text, "bench.yaml")?;
    let spec = Materializer::new(".").sandbox_spec(&manifest)?;
    Ok((manifest, spec))
}

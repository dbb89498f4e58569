//! A workspace of 20,000 files and 300 MB brought back into a live sandbox, beside an empty sandbox, as JSON lines:
//! `{"case", "median_ms", "min_ms", "n", "floor", "ratio", "bar"}`.
//!
//! The first restore on a host makes a directory of it, once; what is measured here is every one after that.
#![expect(clippy::print_stdout, reason = "a benchmark prints its cases")]

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use cofferdam::{
    StateDirectory,
    checkpoint::{LiveWorkspace, Workspaces, WorkspacesParts},
    core::{RunId, WorkspacePath},
    sandbox::{SandboxBackend, SandboxSpec, WriteOptions},
    sandbox_linux::LinuxBackend,
    snapshot::{Lineage, Parent, SnapshotId},
};
use serde_json::json;

const SMALL_FILES: usize = 20_000;
const DIRECTORIES: usize = 100;
const LARGE_FILES: u64 = 30;
const LARGE_SIZE: usize = 10 << 20;
const CHANGED: usize = 10;
const ROUNDS: usize = 30;
const EMPTY: &str = "an empty sandbox made";
/// A restore may cost so many empty sandboxes.
const BAR: f64 = 10.0;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let backend: Arc<dyn SandboxBackend> = Arc::new(LinuxBackend::new());
    if !backend.capabilities().await?.workspace_base {
        println!("{}", json!({"skipped": "this host cannot begin a workspace with a directory"}));
        return Ok(());
    }
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let state = StateDirectory::open(place.path().join("state"))?;
    let workspaces = Workspaces::new(WorkspacesParts {
        backend: Arc::clone(&backend),
        spec: SandboxSpec::default(),
        snapshots: state.snapshots().await?,
        exclude: Vec::new(),
        linger: Duration::ZERO,
        host: Some(state.host_workspaces()?),
    });
    let tree = place.path().join("tree");
    make(&tree)?;
    let run = RunId::new("bench");
    let live = workspaces.begin_from(tree, &run).await?;
    let start = live.start().cloned().ok_or("no snapshot of the start")?;
    let changed = change(&workspaces, &live).await?;
    live.sandbox().close().await?;

    let mut empty = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let sandbox = backend.create(&SandboxSpec::default()).await?;
        empty.push(began.elapsed());
        sandbox.close().await?;
    }
    let floor = show(EMPTY, empty, None);
    for (case, snapshot) in [
        ("20,000 files and 300 MB brought back", &start),
        ("the same with ten files changed since", &changed),
    ] {
        let times = restore(&workspaces, snapshot).await?;
        show(case, times, Some(floor));
    }
    Ok(())
}

/// Changes ten files, and shows what a checkpoint of that costs.
async fn change(workspaces: &Workspaces, live: &LiveWorkspace) -> Result<SnapshotId, Failure> {
    let lineage: Lineage = "bench".parse()?;
    let mut times = Vec::new();
    let mut newest = None;
    for round in 0..ROUNDS {
        for file in 0..CHANGED {
            let path = WorkspacePath::new(&format!("d{file}/f{round}"))?;
            let content = format!("changed {round}").into_bytes();
            live.sandbox().files().write(&path, content.into(), &WriteOptions::default()).await?;
        }
        let began = Instant::now();
        let receipt = workspaces.snapshot(live, &lineage, Parent::Newest).await?;
        times.push(began.elapsed());
        newest = Some(receipt.snapshot);
    }
    show("a checkpoint after ten changed files of 20,000", times, None);
    newest.ok_or_else(|| "no snapshot was taken".into())
}

async fn restore(workspaces: &Workspaces, snapshot: &SnapshotId) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let live = workspaces.open(snapshot).await?;
        times.push(began.elapsed());
        live.sandbox().close().await?;
        workspaces.forget(&live).await;
    }
    Ok(times)
}

fn show(case: &str, mut times: Vec<Duration>, floor: Option<f64>) -> f64 {
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let median = milliseconds(times[times.len() / 2]);
    let mut line = json!({
        "case": case,
        "median_ms": median,
        "min_ms": milliseconds(times[0]),
        "n": times.len(),
    });
    if let Some(floor) = floor {
        line["floor"] = EMPTY.into();
        line["ratio"] = (median / floor).into();
        line["bar"] = BAR.into();
    }
    println!("{line}");
    median
}

fn make(tree: &Path) -> Result<(), Failure> {
    for directory in 0..DIRECTORIES {
        fs::create_dir_all(tree.join(format!("d{directory}")))?;
    }
    for file in 0..SMALL_FILES {
        let (directory, file) = (file % DIRECTORIES, file / DIRECTORIES);
        let path = tree.join(format!("d{directory}/f{file}"));
        fs::write(path, format!("{directory} {file} ").repeat(30))?;
    }
    let mut bytes = vec![0; LARGE_SIZE];
    for file in 0..LARGE_FILES {
        // Numbers of a generator that does not repeat, so that nothing is compressed or found twice.
        let mut state = file + 1;
        for word in bytes.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        fs::write(tree.join(format!("large{file}")), &bytes)?;
    }
    Ok(())
}

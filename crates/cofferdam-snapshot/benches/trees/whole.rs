//! Whole trees: the first snapshot beside `tar | zstd`, a restore beside `cp -a`, and the memory of each.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use cofferdam_snapshot::{DirectoryOptions, DirectorySource, DirectoryTarget, TargetOptions};
use serde_json::json;

use crate::{
    ALONE,
    kit::{Result, Store, fresh, make_tree, report, report_share, sh, timed},
};

const FILES: usize = 20_000;
const SIZE: usize = 200;
const MEBIBYTES: usize = 300;
const ROUNDS: usize = 3;

fn source(tree: &Path) -> Result<DirectorySource> {
    Ok(DirectorySource::open(tree, DirectoryOptions::default())?)
}

pub(crate) async fn run() -> Result<()> {
    let place = tempfile::tempdir()?;
    let tree = fresh(place.path(), "tree")?;
    make_tree(&tree, FILES, SIZE, MEBIBYTES)?;
    let (mut firsts, mut archives) = (Vec::new(), Vec::new());
    let (mut restores, mut copies) = (Vec::new(), Vec::new());
    let mut more = json!({});
    for round in 0..ROUNDS {
        let store = Store::open(&fresh(place.path(), "store")?).await?;
        let started = Instant::now();
        let receipt = store.take("first", &source(&tree)?).await?;
        firsts.push(started.elapsed());
        let archive = "tar -cf - tree | zstd -1 -q -f -o archive && sync archive";
        archives.push(timed(|| sh(place.path(), archive))?.0);

        let restored = place.path().join("restored");
        let mut target = DirectoryTarget::new(&restored, TargetOptions::default());
        let started = Instant::now();
        store.store.restore(&receipt.snapshot, &mut target).await?;
        restores.push(started.elapsed());
        fs::remove_dir_all(&restored)?;
        copies.push(timed(|| sh(place.path(), "cp -a tree copy"))?.0);
        fs::remove_dir_all(place.path().join("copy"))?;
        // Written back before anything else is measured.
        sh(place.path(), "sync -f .")?;
        more = json!({
            "objects": receipt.stored.objects_put, "bytes_put": receipt.stored.bytes_put,
            "syncs": store.objects.syncs(), "round": round,
        });
        if round + 1 == ROUNDS {
            second(&store, &tree, receipt.stored.bytes_put).await?;
        }
    }
    let floor = Some(("tar | zstd -1", archives.as_slice()));
    report("first snapshot, 20 000 files and 300 MiB", &firsts, floor, Some(1.3), more)?;
    let floor = Some(("cp -a", copies.as_slice()));
    report("restore, 20 000 files and 300 MiB", &restores, floor, Some(1.2), json!({}))
}

/// The same tree of another sandbox: nothing is known of it, and nearly nothing is stored.
async fn second(store: &Store, tree: &Path, first_bytes: u64) -> Result<()> {
    let started = Instant::now();
    let receipt = store.take("second", &source(tree)?).await?;
    let share = receipt.stored.bytes_put as f64 / first_bytes as f64;
    report_share(
        "bytes stored for a second sandbox with the same tree",
        started.elapsed(),
        "bytes stored for the first",
        share,
        0.01,
    )
}

/// The most memory of a process that takes a snapshot, and of one that restores it.
pub(crate) fn memory() -> Result<()> {
    const BAR: f64 = 128.0;
    let place = tempfile::tempdir()?;
    make_tree(&fresh(place.path(), "tree")?, FILES, SIZE, MEBIBYTES)?;
    for step in ["snapshot", "restore"] {
        let started = Instant::now();
        let output = Command::new(std::env::current_exe()?)
            .args([ALONE, step])
            .arg(place.path())
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let peak: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        let case = format!("peak memory of a {step}, {peak:.0} MiB");
        report_share(&case, started.elapsed(), "128 MiB", peak / BAR, 1.0)?;
    }
    Ok(())
}

/// One step in a process of its own, which prints the most memory that it had, in MiB.
pub(crate) async fn alone(arguments: &[String]) -> Result<()> {
    let [step, place] = arguments else {
        return Err("expected a step and a place".into());
    };
    let place = Path::new(place);
    let store = Store::open(&place.join("store")).await?;
    if step == "snapshot" {
        store.take("first", &source(&place.join("tree"))?).await?;
    } else {
        let newest = store.store.newest(&"first".parse()?).await?.ok_or("no snapshot")?;
        let mut target = DirectoryTarget::new(place.join("restored"), TargetOptions::default());
        store.store.restore(&newest, &mut target).await?;
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kibibytes: f64 = peak.trim().trim_end_matches(" kB").parse()?;
    crate::kit::print(&json!(kibibytes / 1024.0))
}

/// The time of a step, for those that time themselves.
pub(crate) async fn time<T>(work: impl Future<Output = Result<T>>) -> Result<(Duration, T)> {
    let started = Instant::now();
    let done = work.await?;
    Ok((started.elapsed(), done))
}

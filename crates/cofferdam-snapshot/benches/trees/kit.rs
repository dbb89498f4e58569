//! What the parts share: trees, stores, times and their report.

use std::{
    error::Error,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cofferdam_core::{Clock, Entropy, Timestamp};
use cofferdam_snapshot::{
    DurableLocal, Lineage, Receipt, SnapshotOptions, SnapshotStore, Source, StoreOptions,
};
use serde_json::{Value, json};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug)]
struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Numbers from a seed: the same in every run.
#[derive(Debug)]
pub(crate) struct Numbers(AtomicU64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for Numbers {
    fn next_u64(&self) -> u64 {
        // SplitMix64.
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Fills bytes that nothing compresses.
pub(crate) fn random(numbers: &Numbers, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&numbers.next_u64().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A store in a directory, with its objects.
pub(crate) struct Store {
    pub(crate) store: SnapshotStore,
    pub(crate) objects: Arc<DurableLocal>,
}

impl Store {
    pub(crate) async fn open(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let objects = Arc::new(DurableLocal::open(directory)?);
        let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into();
        let options = StoreOptions::new(Arc::new(System), Arc::new(Numbers::new(seed)));
        let store = SnapshotStore::open(objects.clone(), "", options).await?;
        Ok(Self { store, objects })
    }

    pub(crate) async fn take(&self, lineage: &str, source: &dyn Source) -> Result<Receipt> {
        let lineage: Lineage = lineage.parse()?;
        Ok(self.store.snapshot(&lineage, source, SnapshotOptions::default()).await?)
    }
}

/// Makes the tree: small files, a hundred to a directory, and large ones that nothing compresses.
pub(crate) fn make_tree(
    directory: &Path,
    files: usize,
    size: usize,
    mebibytes: usize,
) -> Result<()> {
    let numbers = Numbers::new(1);
    for number in 0..files {
        let inner = directory.join(format!("d{:04}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&inner)?;
        }
        fs::write(inner.join(format!("f{number:06}.txt")), random(&numbers, size))?;
    }
    for number in 0..mebibytes.div_ceil(50) {
        let length = (mebibytes - number * 50).min(50) << 20;
        fs::write(directory.join(format!("large-{number}.bin")), random(&numbers, length))?;
    }
    Ok(())
}

/// Runs a shell script, which must succeed.
pub(crate) fn sh(directory: &Path, script: &str) -> Result<()> {
    let output = Command::new("sh").args(["-euc", script]).current_dir(directory).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Returns whether a program can be started.
pub(crate) fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Returns how long something takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let started = Instant::now();
    let done = work()?;
    Ok((started.elapsed(), done))
}

fn milliseconds(times: &[Duration]) -> Vec<f64> {
    let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Prints a case beside its floor.
pub(crate) fn report(
    case: &str,
    times: &[Duration],
    floor: Option<(&str, &[Duration])>,
    bar: Option<f64>,
    more: Value,
) -> Result<()> {
    let times = milliseconds(times);
    let mut line = json!({
        "case": case, "median_ms": times[times.len() / 2], "min_ms": times[0], "n": times.len(), "more": more,
    });
    if let Some((name, floor)) = floor {
        let floor = milliseconds(floor);
        line["floor"] = name.into();
        line["ratio"] = (times[0] / floor[0]).into();
        line["floor_min_ms"] = floor[0].into();
    }
    if let Some(bar) = bar {
        line["bar"] = bar.into();
    }
    print(&line)
}

/// Prints a case beside one of another benchmark of the same run, and as what part of it it may take at most.
pub(crate) fn report_against(
    case: &str,
    times: &[Duration],
    against: &str,
    bar: f64,
    more: Value,
) -> Result<()> {
    let times = milliseconds(times);
    print(&json!({
        "case": case, "median_ms": times[times.len() / 2], "min_ms": times[0], "n": times.len(), "more": more,
        "against": against, "bar": bar,
    }))
}

/// Prints something other than a time, as a part of what it may be at most.
pub(crate) fn report_share(
    case: &str,
    took: Duration,
    of: &str,
    share: f64,
    bar: f64,
) -> Result<()> {
    let took = took.as_secs_f64() * 1000.0;
    print(&json!({ "case": case, "median_ms": took, "floor": of, "ratio": share, "bar": bar }))
}

pub(crate) fn print(line: &Value) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Says that a part is not measured, and why.
pub(crate) fn skipped(what: &str, why: &str) {
    // A person reads this beside the table.
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}

/// A fresh directory beneath another, whatever was there.
pub(crate) fn fresh(place: &Path, name: &str) -> Result<PathBuf> {
    let path = place.join(name);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    fs::create_dir(&path)?;
    Ok(path)
}

//! [`forget_gone`]: frees what is kept for sandboxes that ended while nobody was there.
//!
//! For a sandbox that begins with a directory a snapshot is pinned, and this host keeps a file on what was seen of it. Who closes
//! the sandbox frees both ([`Workspaces::forget`](crate::Workspaces::forget)). One that ends by itself cannot: nobody comes back.
//!
//! ```text
//! SCRATCH/began-SANDBOX    the name of its backend; locked by each process that is connected to it
//! SCRATCH/seen-SANDBOX     what was seen of its files at its last snapshot
//! SCRATCH/gone-SANDBOX     since when no backend lists it, in milliseconds
//! SCRATCH/filling-RUN      a workspace that is made before its sandbox
//! ```
//!
//! Only what has a file here is looked at: sandboxes of other hosts pin snapshots in the same store. A sandbox counts as gone when its
//! backend was asked and does not list it, no process holds its file, and that is so again after a grace. A backend may leave out
//! a sandbox that ends with its process: the lock speaks for that one. It may keep its list elsewhere for another session of
//! the same user: the grace is longer than such a sandbox waits for somebody.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use cofferdam_core::{Clock, SandboxId, Timestamp};
use cofferdam_sandbox::SandboxBackend;
use cofferdam_snapshot::{Lineage, SnapshotError, SnapshotStore};

use crate::{WorkspaceError, workspaces::remove_directory};

const BEGAN: &str = "began-";
const SEEN: &str = "seen-";
const GONE: &str = "gone-";
const FILLING: &str = "filling-";

/// A directory that was being filled is of a process that died, when nothing was put in it for so long.
const FILLING_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// When what is kept for a sandbox is freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct GoneOptions {
    /// How long a sandbox has to be gone: longer than one waits for somebody to come back. Default one hour.
    pub grace: Duration,
    /// Whether only to count. Default no.
    pub dry_run: bool,
}

impl Default for GoneOptions {
    fn default() -> Self {
        Self { grace: Duration::from_secs(60 * 60), dry_run: false }
    }
}

/// What was found of sandboxes that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GoneReport {
    /// Sandboxes for which nothing is kept any more.
    pub freed: u64,
    /// Sandboxes that are gone, but not for long enough.
    pub waiting: u64,
    /// Sandboxes of backends that were not there to be asked.
    pub unknown: u64,
    /// Half-made workspaces that were removed.
    pub half_made: u64,
}

/// Frees the pins and files of sandboxes that are gone. The backends are those that sandboxes of this host may be of; what is of
/// another is left alone.
///
/// # Errors
///
/// [`WorkspaceError::Host`] if the directory cannot be read, [`WorkspaceError::Snapshot`] if a pin cannot be taken off. Calling again
/// goes on.
///
/// # Cancel safety
///
/// If the future is dropped, the next call goes on.
pub async fn forget_gone(
    snapshots: &SnapshotStore,
    scratch: &Path,
    backends: &[Arc<dyn SandboxBackend>],
    clock: &dyn Clock,
    options: GoneOptions,
) -> Result<GoneReport, WorkspaceError> {
    // Before backends are asked: a sandbox that begins meanwhile is in their lists, or not looked at.
    let found = Found::read(scratch)?;
    let mut report = GoneReport::default();
    let now = clock.now();
    for path in found.filling {
        let Some(age) = age_of(&path, now) else { continue };
        if age >= FILLING_GRACE {
            report.half_made += 1;
            if !options.dry_run {
                remove_directory(path).await?;
            }
        }
    }
    if found.sandboxes.is_empty() {
        return Ok(report);
    }
    let mut listed: HashMap<String, HashSet<SandboxId>> = HashMap::new();
    for backend in backends {
        match backend.list().await {
            Ok(list) => {
                let ids = list.into_iter().map(|sandbox| sandbox.id);
                listed.entry(backend.name().to_owned()).or_default().extend(ids);
            }
            Err(error) => {
                tracing::debug!(backend = backend.name(), %error, "a backend cannot be asked for its sandboxes");
            }
        }
    }
    let all_asked =
        !backends.is_empty() && backends.iter().all(|backend| listed.contains_key(backend.name()));
    for id in found.sandboxes {
        let began = scratch.join(format!("{BEGAN}{id}"));
        let lists = match fs::read_to_string(&began) {
            Ok(backend) => listed.get(&backend).map(|ids| vec![ids]),
            // It has no directory that it began with, so any backend may have made it.
            Err(_) => all_asked.then(|| listed.values().collect()),
        };
        let Some(lists) = lists else {
            report.unknown += 1;
            continue;
        };
        let gone = scratch.join(format!("{GONE}{id}"));
        if lists.iter().any(|ids| ids.contains(&SandboxId::new(id.as_str()))) || is_held(&began) {
            // It was elsewhere, or the file is of another time.
            let _ = fs::remove_file(&gone);
            continue;
        }
        let since: Option<u64> = fs::read_to_string(&gone).ok().and_then(|text| text.parse().ok());
        let waited = now.as_millis().saturating_sub(since.unwrap_or(now.as_millis()));
        if u128::from(waited) >= options.grace.as_millis() {
            report.freed += 1;
            if !options.dry_run {
                forget(snapshots, scratch, &SandboxId::new(id)).await?;
            }
        } else {
            report.waiting += 1;
            if since.is_none() && !options.dry_run {
                fs::write(&gone, now.as_millis().to_string()).map_err(failed("write", &gone))?;
            }
        }
    }
    Ok(report)
}

/// Frees what is kept for a sandbox of this host that is known to be gone. Idempotent.
///
/// # Errors
///
/// [`WorkspaceError::Snapshot`] if the pin cannot be taken off: calling again goes on.
pub async fn forget(
    snapshots: &SnapshotStore,
    scratch: &Path,
    sandbox: &SandboxId,
) -> Result<(), WorkspaceError> {
    // Its files are the only trace that leads to the pin, so they go last. Without any there is no pin of this host.
    if scratch.join(format!("{BEGAN}{sandbox}")).exists() || seen(scratch, sandbox).exists() {
        snapshots.unpin(&pin_of(sandbox)?).await?;
    }
    remove_files(scratch, sandbox)
}

/// Removes the files of a sandbox, the one that leads to its pin last.
pub(crate) fn remove_files(scratch: &Path, sandbox: &SandboxId) -> Result<(), WorkspaceError> {
    let began = scratch.join(format!("{BEGAN}{sandbox}"));
    for path in [scratch.join(format!("{GONE}{sandbox}")), seen(scratch, sandbox), began] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the name by which a sandbox pins what it began with.
pub(crate) fn pin_of(sandbox: &SandboxId) -> Result<Lineage, SnapshotError> {
    Ok(format!("base-of-{sandbox}").parse::<Lineage>()?)
}

/// Returns the file for what was seen of a sandbox's files.
pub(crate) fn seen(scratch: &Path, sandbox: &SandboxId) -> PathBuf {
    scratch.join(format!("{SEEN}{sandbox}"))
}

/// Returns the directory in which the workspace of a run is made before its sandbox.
pub(crate) fn filling(scratch: &Path, run: &str) -> PathBuf {
    scratch.join(format!("{FILLING}{run}"))
}

/// Says that a sandbox is about to pin what it began with, and that this process is connected to it as long as the file is held.
pub(crate) fn began(
    scratch: &Path,
    sandbox: &SandboxId,
    backend: &str,
) -> Result<File, WorkspaceError> {
    let path = scratch.join(format!("{BEGAN}{sandbox}"));
    let write = || {
        let mut options = File::options();
        let mut file = options.create(true).write(true).truncate(true).open(&path)?;
        file.lock_shared()?;
        io::Write::write_all(&mut file, backend.as_bytes())?;
        Ok(file)
    };
    write().map_err(failed("write", &path))
}

/// Says that this process is connected to a sandbox that another made. `None` if the host has no file of it.
pub(crate) fn joined(scratch: &Path, sandbox: &SandboxId) -> Option<File> {
    let file = File::open(scratch.join(format!("{BEGAN}{sandbox}"))).ok()?;
    file.lock_shared().ok()?;
    Some(file)
}

/// Whether a process is connected to the sandbox of this file.
fn is_held(began: &Path) -> bool {
    match File::open(began) {
        // Closing it gives the lock back.
        Ok(file) => file.try_lock().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// What lies in the directory.
struct Found {
    sandboxes: BTreeSet<String>,
    filling: Vec<PathBuf>,
}

impl Found {
    fn read(scratch: &Path) -> Result<Self, WorkspaceError> {
        let mut found = Self { sandboxes: BTreeSet::new(), filling: Vec::new() };
        let listed = match fs::read_dir(scratch) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(failed("read", scratch)(error)),
        };
        for entry in listed {
            let entry = entry.map_err(failed("read", scratch))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(id) = [BEGAN, SEEN, GONE].iter().find_map(|kind| name.strip_prefix(kind)) {
                found.sandboxes.insert(id.to_owned());
            } else if name.starts_with(FILLING) {
                found.filling.push(entry.path());
            }
        }
        Ok(found)
    }
}

fn age_of(path: &Path, now: Timestamp) -> Option<Duration> {
    let modified = fs::symlink_metadata(path).ok()?.modified().ok()?;
    let modified = modified.duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_millis(now.as_millis()).saturating_sub(modified))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WorkspaceError {
    let path = path.to_owned();
    move |source| WorkspaceError::Host { operation, path, source }
}

#[cfg(test)]
mod tests {
    use cofferdam_sandbox::{Sandbox, SandboxSpec};
    use cofferdam_snapshot::{
        DirectoryOptions, DirectorySource, SnapshotOptions, SnapshotStore, StoreOptions,
    };
    use cofferdam_testkit::{CountingEntropy, FixedClock, MemoryBackend};
    use object_store::memory::InMemory;

    use super::*;

    const HOUR_MS: u64 = 60 * 60 * 1000;

    /// A host with sandboxes that have pinned what they began with.
    struct Host {
        snapshots: SnapshotStore,
        backend: Arc<dyn SandboxBackend>,
        scratch: tempfile::TempDir,
        clock: Arc<FixedClock>,
    }

    impl Host {
        async fn new() -> Self {
            let clock = Arc::new(FixedClock::at(1_000));
            let options = StoreOptions::new(clock.clone(), Arc::new(CountingEntropy::default()));
            let objects = Arc::new(InMemory::new());
            let snapshots = SnapshotStore::open(objects, "snapshots", options).await.unwrap();
            let scratch = tempfile::tempdir().unwrap();
            let source = DirectorySource::open(scratch.path(), DirectoryOptions::default());
            let (source, run) = (source.unwrap(), "run".parse().unwrap());
            snapshots.snapshot(&run, &source, SnapshotOptions::default()).await.unwrap();
            Self { snapshots, backend: Arc::new(MemoryBackend::default()), scratch, clock }
        }

        /// Makes a sandbox that this process is connected to as long as the file is held.
        async fn begin(&self) -> (Arc<dyn Sandbox>, File) {
            let sandbox = self.backend.create(&SandboxSpec::default()).await.unwrap();
            let id = sandbox.id();
            let began = began(self.scratch.path(), id, self.backend.name()).unwrap();
            let begun_with = "run@1".parse().unwrap();
            self.snapshots.pin(&pin_of(id).unwrap(), &begun_with).await.unwrap();
            fs::write(seen(self.scratch.path(), id), "what was seen").unwrap();
            (sandbox, began)
        }

        async fn forget(&self, backends: &[Arc<dyn SandboxBackend>]) -> GoneReport {
            let (scratch, options) = (self.scratch.path(), GoneOptions::default());
            forget_gone(&self.snapshots, scratch, backends, &*self.clock, options).await.unwrap()
        }

        async fn check(&self, expect: [u64; 3], pins: usize) {
            let done = self.forget(std::slice::from_ref(&self.backend)).await;
            assert_eq!([done.freed, done.waiting, done.unknown], expect);
            assert_eq!(self.snapshots.pins().await.unwrap().len(), pins);
        }

        fn files(&self) -> usize {
            fs::read_dir(self.scratch.path()).unwrap().count()
        }
    }

    #[tokio::test]
    async fn what_is_kept_for_a_sandbox_that_ended_alone_is_freed_after_the_grace() {
        let host = Host::new().await;
        let (ended, began) = host.begin().await;
        let (_lives, _connected) = host.begin().await;
        host.check([0, 0, 0], 2).await;
        drop(began);
        // Nobody is connected, but it is there.
        host.check([0, 0, 0], 2).await;
        ended.close().await.unwrap();
        host.check([0, 1, 0], 2).await;
        host.clock.advance(HOUR_MS - 1);
        host.check([0, 1, 0], 2).await;
        host.clock.advance(1);
        host.check([1, 0, 0], 1).await;
        host.check([0, 0, 0], 1).await;
        assert_eq!(host.files(), 2);
    }

    #[tokio::test]
    async fn one_that_no_list_names_lives_as_long_as_its_process() {
        let host = Host::new().await;
        let (unlisted, began) = host.begin().await;
        unlisted.close().await.unwrap();
        for _ in 0..2 {
            host.check([0, 0, 0], 1).await;
            host.clock.advance(2 * HOUR_MS);
        }
        let also = joined(host.scratch.path(), unlisted.id()).unwrap();
        drop(began);
        host.check([0, 0, 0], 1).await;
        drop(also);
        host.check([0, 1, 0], 1).await;
        // It turns up again: the grace begins anew.
        let again = joined(host.scratch.path(), unlisted.id()).unwrap();
        host.clock.advance(2 * HOUR_MS);
        host.check([0, 0, 0], 1).await;
        drop(again);
        host.check([0, 1, 0], 1).await;
    }

    #[tokio::test]
    async fn what_no_backend_can_tell_of_is_left_alone() {
        let host = Host::new().await;
        let (ended, began) = host.begin().await;
        drop(began);
        ended.close().await.unwrap();
        // A pin of another host.
        let pin = pin_of(&SandboxId::new("elsewhere")).unwrap();
        host.snapshots.pin(&pin, &"run@1".parse().unwrap()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(host.forget(&[]).await.unknown, 1);
            host.clock.advance(2 * HOUR_MS);
        }
        assert_eq!(host.snapshots.pins().await.unwrap().len(), 2);
        forget(&host.snapshots, host.scratch.path(), ended.id()).await.unwrap();
        forget(&host.snapshots, host.scratch.path(), &SandboxId::new("elsewhere")).await.unwrap();
        assert_eq!(host.snapshots.pins().await.unwrap()[0].0, pin);
        assert_eq!(host.files(), 0);
    }

    #[tokio::test]
    async fn a_half_made_workspace_is_removed_when_nobody_fills_it_any_more() {
        let host = Host::new().await;
        let half = filling(host.scratch.path(), "run");
        fs::create_dir_all(half.join("deep")).unwrap();
        assert_eq!(host.forget(&[]).await.half_made, 0);
        let modified = fs::metadata(&half).unwrap().modified().unwrap();
        let modified = modified.duration_since(UNIX_EPOCH).unwrap().as_millis();
        let day = FILLING_GRACE.as_millis();
        host.clock.advance(u64::try_from(modified + day).unwrap());
        assert_eq!(host.forget(&[]).await.half_made, 1);
        assert_eq!(host.files(), 0);
    }
}

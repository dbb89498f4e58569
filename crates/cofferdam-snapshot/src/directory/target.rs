//! [`DirectoryTarget`]: a tree as a fresh directory that gets its name when it is whole.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
};
use tokio::sync::mpsc;

use super::{maker::Maker, remove::remove_tree};
use crate::{
    error::SnapshotError,
    node::Totals,
    path::TreePath,
    target::{RestorePlan, Target, TargetEntry, TargetError},
};

/// Entries and bytes that are put together before they are handed to the threads.
const BATCH_ENTRIES: usize = 256;
const BATCH_BYTES: usize = 256 << 10;

/// Batches that wait.
const WAITING: usize = 8;

/// How a tree is restored to a directory.
#[derive(Debug, Clone)]
pub struct TargetOptions {
    /// Threads that write files. Default 2.
    pub workers: usize,
    /// The user and group that everything belongs to; needs privilege. Default whoever restores.
    pub owner: Option<(u32, u32)>,
    /// Whether the tree is on the disk before it gets its name. Default false.
    pub durable: bool,
    /// The most entries. Default 10 000 000.
    pub max_entries: u64,
    /// The most bytes of content. Default 1 TiB.
    pub max_bytes: u64,
}

impl Default for TargetOptions {
    fn default() -> Self {
        Self {
            workers: 2,
            owner: None,
            durable: false,
            max_entries: 10_000_000,
            max_bytes: 1 << 40,
        }
    }
}

/// A place on this host at which a tree appears whole, or not at all.
///
/// It is made in a fresh directory beside the place and then renamed. The place must not be there, or be an empty directory.
/// Set-id bits, the sticky bit of files and all attributes but `user.*` are left out.
pub struct DirectoryTarget {
    place: PathBuf,
    options: TargetOptions,
}

impl fmt::Debug for DirectoryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryTarget").field("place", &self.place).finish_non_exhaustive()
    }
}

impl DirectoryTarget {
    /// Names the place. The directory above must be there and belong to whoever restores: nobody of a sandbox may write to it.
    #[must_use]
    pub fn new(place: impl Into<PathBuf>, options: TargetOptions) -> Self {
        Self { place: place.into(), options }
    }
}

/// A directory in which a tree is made; removed unless it is kept.
struct Fresh {
    path: PathBuf,
    root: OwnedFd,
    kept: bool,
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = remove_tree(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "half of a tree is left");
        }
    }
}

impl Fresh {
    /// Makes a directory beside a place, in which nothing is yet.
    fn beside(place: &Path) -> Result<Self, TargetError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let gone = |error: io::Error| TargetError::Gone {
            what: place.display().to_string(),
            source: Some(error.into()),
        };
        let name = place.file_name().ok_or_else(|| gone(io::ErrorKind::InvalidInput.into()))?;
        match std::fs::read_dir(place).map(|mut entries| entries.next().is_some()) {
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return Err(TargetError::InTheWay { what: place.display().to_string() }),
        }
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let mut own = std::ffi::OsString::from(".");
            own.push(name);
            own.push(format!(".{}-{number}.restoring", std::process::id()));
            let path = place.with_file_name(own);
            match rustix::fs::mkdir(&path, Mode::RWXU) {
                Ok(()) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let root = rustix::fs::open(&path, flags, Mode::empty())
                        .map_err(|error| gone(error.into()))?;
                    return Ok(Self { path, root, kept: false });
                }
                // Left by a process of the same number.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(gone(error.into())),
            }
        }
    }

    /// Gives it its name.
    fn keep(mut self, place: &Path, durable: bool) -> Result<(), TargetError> {
        let failed =
            |error: Errno| TargetError::Make { path: TreePath::root(), source: error.into() };
        if durable {
            rustix::fs::syncfs(&self.root).map_err(failed)?;
        }
        match rustix::fs::renameat(CWD, &self.path, CWD, place) {
            Ok(()) => self.kept = true,
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {
                return Err(TargetError::InTheWay { what: place.display().to_string() });
            }
            Err(error) => return Err(failed(error)),
        }
        if durable {
            let above = place.parent().filter(|above| !above.as_os_str().is_empty());
            let above = std::fs::File::open(above.unwrap_or(Path::new(".")));
            above.and_then(|above| above.sync_all()).map_err(|error| TargetError::Make {
                path: TreePath::root(),
                source: error.into(),
            })?;
        }
        Ok(())
    }
}

/// What the threads are told.
enum Message {
    Entries(Vec<TargetEntry>),
    /// All have come. If the channel closes without this, nothing is kept.
    End,
}

/// Makes a tree from what comes, and keeps it if all has come.
fn make(
    place: &Path,
    options: &TargetOptions,
    plan: &RestorePlan,
    mut messages: mpsc::Receiver<Message>,
) -> Result<Totals, TargetError> {
    let fresh = Fresh::beside(place)?;
    let failure = Mutex::new(None);
    let made = std::thread::scope(|scope| {
        let mut maker = Maker::new(scope, &fresh.root, options, plan.totals, &failure);
        loop {
            match messages.blocking_recv() {
                Some(Message::Entries(entries)) => maker.take(entries)?,
                Some(Message::End) => return maker.finish(plan).map(Some),
                None => return Ok(None),
            }
        }
    })?;
    // Whoever asked for it is gone, or had a failure of its own.
    let Some(made) = made else {
        return Ok(Totals::default());
    };
    if made != plan.totals {
        return Err(TargetError::Incomplete { expected: plan.totals, made });
    }
    fresh.keep(place, options.durable)?;
    Ok(made)
}

#[async_trait]
impl Target for DirectoryTarget {
    async fn restore(
        &mut self,
        plan: &RestorePlan,
        mut entries: BoxStream<'_, Result<TargetEntry, SnapshotError>>,
    ) -> Result<Totals, TargetError> {
        let Totals { files, directories, symbolic_links, bytes } = plan.totals;
        let count = files.saturating_add(directories).saturating_add(symbolic_links);
        if count > self.options.max_entries || bytes > self.options.max_bytes {
            let reason = "the tree is larger than what this target takes";
            return Err(TargetError::Refused { path: TreePath::root(), reason });
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let (place, options, plan) = (self.place.clone(), self.options.clone(), plan.clone());
        let making = tokio::task::spawn_blocking(move || make(&place, &options, &plan, receiver));
        let mut failure = None;
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        while let Some(entry) = entries.next().await {
            match entry {
                Ok(entry) => {
                    if let TargetEntry::Data(bytes) = &entry {
                        batch_bytes += bytes.len();
                    }
                    batch.push(entry);
                }
                Err(error) => {
                    failure = Some(TargetError::Snapshot(error));
                    break;
                }
            }
            if batch.len() >= BATCH_ENTRIES || batch_bytes >= BATCH_BYTES {
                batch_bytes = 0;
                let full = Message::Entries(std::mem::take(&mut batch));
                if sender.send(full).await.is_err() {
                    break;
                }
            }
        }
        if failure.is_none() && sender.send(Message::Entries(batch)).await.is_ok() {
            // If nobody hears it, its failure says why.
            let _ = sender.send(Message::End).await;
        }
        drop(sender);
        let made = making
            .await
            .map_err(|error| TargetError::Make { path: TreePath::root(), source: error.into() })?;
        match failure {
            Some(failure) => Err(failure),
            None => made,
        }
    }
}

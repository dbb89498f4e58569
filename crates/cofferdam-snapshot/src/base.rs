//! [`BaseCache`]: trees that lie ready in directories of this host, so that many sandboxes begin with one and none copies it.
//!
//! A base is made once, from a snapshot whose content is verified while it is read, in a directory that nobody knows yet; it
//! gets the name of its tree when it is whole and on the disk. From then on it is not changed. Whoever uses one holds a
//! lock on it ([`Base`]); what nobody holds may be removed, the one that was used longest ago first.
//!
//! ```text
//! DIRECTORY/.lock                  held while a directory of one of the following names gets its own lock
//! DIRECTORY/.new-PID-N/            being made, or left by a process that died: it is locked, or removed by the next
//! DIRECTORY/.old-PID-N/            being removed, the same
//! DIRECTORY/TREE/base.json         what it is; changed when it is used, and the last thing that is written
//! DIRECTORY/TREE/tree/             the tree
//! ```

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    directory::{DirectoryTarget, TargetOptions, remove::remove_tree},
    error::SnapshotError,
    id::{SnapshotId, TreeId},
    node::Totals,
    store::SnapshotStore,
    target::TargetError,
};

const VERSION: u32 = 1;
const MARKER: &str = "base.json";
const TREE: &str = "tree";

/// The room that a file or directory is counted with besides its content.
const ENTRY_BYTES: u64 = 4096;

/// Snapshots that are looked at, from one back to its parents, for one whose tree lies ready.
const MAX_PARENTS: usize = 1000;

/// Bounds of a cache of bases, and how they are made.
#[derive(Debug, Clone)]
pub struct BaseCacheOptions {
    /// The most bytes that all bases occupy together, those in use excepted. Default 20 GiB.
    pub max_bytes: u64,
    /// How trees are restored.
    pub target: TargetOptions,
}

impl Default for BaseCacheOptions {
    fn default() -> Self {
        Self { max_bytes: 20 << 30, target: TargetOptions::default() }
    }
}

/// A cache of bases does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// The directory of the cache cannot be used: look at its permissions and its disk, or choose another.
    #[error("cannot {operation} {} in the cache of bases", .path.display())]
    Cache {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The tree cannot be restored: see what the target or its snapshot says.
    #[error(transparent)]
    Restore(#[from] TargetError),
    /// The store cannot tell: see what it says.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BaseError {
    let path = path.to_owned();
    move |source| BaseError::Cache { operation, path, source }
}

/// What a base is, as it is written beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    version: u32,
    tree: TreeId,
    totals: Totals,
}

impl Marker {
    fn bytes(&self) -> u64 {
        let Totals { files, directories, symbolic_links, bytes } = self.totals;
        let entries = files.saturating_add(directories).saturating_add(symbolic_links);
        bytes.saturating_add(entries.saturating_mul(ENTRY_BYTES))
    }

    fn read(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join(MARKER)).ok()?;
        serde_json::from_slice(&text).ok().filter(|marker: &Self| marker.version == VERSION)
    }
}

/// A base that is in use. It stays as it is until all clones of this are dropped, in this process and in those that hold
/// [`Base::lock`].
#[derive(Debug, Clone)]
pub struct Base {
    tree: TreeId,
    directory: PathBuf,
    totals: Totals,
    lock: Arc<OwnedFd>,
}

impl Base {
    /// Returns the directory. Nobody may change anything in it: mount it as the lower layer of an overlay.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns which tree it is.
    #[must_use]
    pub fn tree(&self) -> &TreeId {
        &self.tree
    }

    /// Returns how much is in it.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Returns the descriptor whose open file is the lock. A process that inherits it keeps the base in use, as a sandbox that
    /// outlives this process must.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

/// Trees by their ids, ready in directories of this host.
///
/// Several processes may use one directory at the same time. It must belong to the control plane: no sandbox may write to it.
#[derive(Debug, Clone)]
pub struct BaseCache {
    directory: PathBuf,
    options: BaseCacheOptions,
}

impl BaseCache {
    /// Opens a cache, makes its directory if there is none, and removes what processes that died have left there.
    ///
    /// # Errors
    ///
    /// [`BaseError::Cache`] if the directory cannot be used.
    pub fn open(
        directory: impl Into<PathBuf>,
        options: BaseCacheOptions,
    ) -> Result<Self, BaseError> {
        let cache = Self { directory: directory.into(), options };
        fs::create_dir_all(&cache.directory).map_err(failed("make", &cache.directory))?;
        cache.sweep()?;
        Ok(cache)
    }

    /// Returns the base of a tree, if it lies ready.
    ///
    /// # Errors
    ///
    /// [`BaseError::Cache`].
    pub fn get(&self, tree: &TreeId) -> Result<Option<Base>, BaseError> {
        let place = self.place(tree);
        let Some(lock) = open_directory(&place).map_err(failed("open", &place))? else {
            return Ok(None);
        };
        flock(&lock, FlockOperation::LockShared)
            .map_err(|error| failed("lock", &place)(error.into()))?;
        // It may have been removed while this waited; then another may have its name.
        if !is_at(&lock, &place) {
            return Ok(None);
        }
        let Some(marker) = Marker::read(&place).filter(|marker| marker.tree == *tree) else {
            return Ok(None);
        };
        touch(&place.join(MARKER)).map_err(failed("touch", &place))?;
        let directory = place.join(TREE);
        Ok(Some(Base { tree: *tree, directory, totals: marker.totals, lock: Arc::new(lock) }))
    }

    /// Returns the base of a snapshot's own tree, or else of the nearest of its parents that lies ready, and which snapshot
    /// that is. What differs between the two is what remains to be done.
    ///
    /// # Errors
    ///
    /// [`BaseError::Snapshot`] if there is no such snapshot; parents that are gone only end the search.
    pub async fn base_for(
        &self,
        store: &SnapshotStore,
        snapshot: &SnapshotId,
    ) -> Result<Option<(SnapshotId, Base)>, BaseError> {
        let mut entry = store.get(snapshot).await?;
        for _ in 0..MAX_PARENTS {
            if let Some(base) = self.get(&entry.tree)? {
                return Ok(Some((entry.snapshot, base)));
            }
            let Some(parent) = entry.parent else {
                return Ok(None);
            };
            entry = match store.get(&parent).await {
                Ok(entry) => entry,
                Err(SnapshotError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(None)
    }

    /// Returns the base of a snapshot's tree, and makes it if it does not lie ready. Then what is above the bound and not in
    /// use is removed.
    ///
    /// # Errors
    ///
    /// What the store, the restored tree or the cache says. What was made until then is removed.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
    pub async fn make(
        &self,
        store: &SnapshotStore,
        snapshot: &SnapshotId,
    ) -> Result<Base, BaseError> {
        let tree = store.get(snapshot).await?.tree;
        if let Some(base) = self.get(&tree)? {
            return Ok(base);
        }
        let fresh = self.hidden("new")?;
        let mut target = DirectoryTarget::new(fresh.path.join(TREE), self.options.target.clone());
        let receipt = store.restore(snapshot, &mut target).await?;
        let cache = self.clone();
        let kept = tokio::task::spawn_blocking(move || cache.keep(fresh, tree, receipt.totals));
        let base = kept.await.map_err(|error| failed("keep", &self.directory)(error.into()))??;
        self.trim()?;
        Ok(base)
    }

    /// Gives a whole tree its name.
    fn keep(&self, fresh: Hidden, tree: TreeId, totals: Totals) -> Result<Base, BaseError> {
        let marker = Marker { version: VERSION, tree, totals };
        let text = serde_json::to_vec(&marker)
            .map_err(|error| failed("describe", &fresh.path)(error.into()))?;
        // What is on the disk after a crash of the machine under this name must be all of it.
        let synced = rustix::fs::syncfs(&fresh.lock).map_err(io::Error::from);
        synced
            .and_then(|()| fs::write(fresh.path.join(MARKER), text))
            .and_then(|()| File::open(fresh.path.join(MARKER))?.sync_all())
            .map_err(failed("keep", &fresh.path))?;
        let place = self.place(&tree);
        for _ in 0..3 {
            let named =
                rustix::fs::renameat_with(CWD, &fresh.path, CWD, &place, RenameFlags::NOREPLACE);
            match named {
                Ok(()) => {
                    // The lock goes with the directory; others may use it as well from now on.
                    let shared =
                        flock(&fresh.lock, FlockOperation::LockShared).map_err(io::Error::from);
                    shared
                        .and_then(|()| File::open(&self.directory)?.sync_all())
                        .map_err(failed("keep", &place))?;
                    break;
                }
                Err(Errno::EXIST) => match self.get(&tree)? {
                    // Somebody else was faster.
                    Some(base) => return Ok(base),
                    None => self.remove(&place)?,
                },
                Err(error) => return Err(failed("rename", &fresh.path)(error.into())),
            }
        }
        self.get(&tree)?.ok_or_else(|| failed("keep", &place)(io::ErrorKind::ResourceBusy.into()))
    }

    /// Removes bases until the rest is within the bound, the one that was used longest ago first; returns how many.
    ///
    /// # Errors
    ///
    /// [`BaseError::Cache`].
    pub fn trim(&self) -> Result<usize, BaseError> {
        let mut found = Vec::new();
        for (name, place) in self.entries()? {
            if name.parse::<TreeId>().is_err() {
                continue;
            }
            let bytes = Marker::read(&place).map_or(0, |marker| marker.bytes());
            let used = fs::metadata(place.join(MARKER)).and_then(|marker| marker.modified());
            // One without a marker is of no use, and goes first.
            found.push((used.unwrap_or(SystemTime::UNIX_EPOCH), bytes, place));
        }
        found.sort();
        let mut total: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
        let mut removed = 0;
        for (used, bytes, place) in found {
            if total <= self.options.max_bytes && used != SystemTime::UNIX_EPOCH {
                break;
            }
            if self.remove_unused(&place)? {
                total -= bytes;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn remove(&self, place: &Path) -> Result<(), BaseError> {
        self.remove_unused(place).map(drop)
    }

    /// Removes a base unless somebody uses it.
    fn remove_unused(&self, place: &Path) -> Result<bool, BaseError> {
        let Some(lock) = open_directory(place).map_err(failed("open", place))? else {
            return Ok(false);
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() || !is_at(&lock, place) {
            return Ok(false);
        }
        let gone = self.unused_name("old");
        fs::rename(place, &gone).map_err(failed("remove", place))?;
        drop(Hidden { path: gone, lock });
        Ok(true)
    }

    /// Removes what processes that died were making or removing.
    fn sweep(&self) -> Result<(), BaseError> {
        let _all = self.lock_all(FlockOperation::LockExclusive)?;
        for (name, path) in self.entries()? {
            if !(name.starts_with(".new-") || name.starts_with(".old-")) {
                continue;
            }
            let Some(lock) = open_directory(&path).map_err(failed("open", &path))? else {
                continue;
            };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                remove_tree(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Makes a directory with a lock on it that nobody looks for.
    fn hidden(&self, what: &str) -> Result<Hidden, BaseError> {
        let _all = self.lock_all(FlockOperation::LockShared)?;
        let path = self.unused_name(what);
        rustix::fs::mkdir(&path, Mode::RWXU)
            .map_err(|error| failed("make", &path)(error.into()))?;
        let lock = open_directory(&path)
            .map_err(failed("open", &path))?
            .ok_or_else(|| failed("open", &path)(io::ErrorKind::NotFound.into()))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| failed("lock", &path)(error.into()))?;
        Ok(Hidden { path, lock })
    }

    fn lock_all(&self, operation: FlockOperation) -> Result<File, BaseError> {
        let path = self.directory.join(".lock");
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed("open", &path))?;
        flock(&file, operation).map_err(|error| failed("lock", &path)(error.into()))?;
        Ok(file)
    }

    fn unused_name(&self, what: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.directory.join(format!(".{what}-{}-{number}", std::process::id()));
            if !path.exists() {
                return path;
            }
        }
    }

    fn entries(&self) -> Result<Vec<(String, PathBuf)>, BaseError> {
        let read = || -> io::Result<_> {
            fs::read_dir(&self.directory)?
                .map(|entry| {
                    entry.map(|entry| {
                        (entry.file_name().to_string_lossy().into_owned(), entry.path())
                    })
                })
                .collect()
        };
        read().map_err(failed("list", &self.directory))
    }

    fn place(&self, tree: &TreeId) -> PathBuf {
        self.directory.join(tree.to_string())
    }
}

/// A directory that is locked and has no name that anybody looks for; removed when it is dropped.
#[derive(Debug)]
struct Hidden {
    path: PathBuf,
    lock: OwnedFd,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // One that has got its name by now is not there under the old one.
        if is_at(&self.lock, &self.path)
            && let Err(error) = remove_tree(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "half of a base is left");
        }
    }
}

/// Opens a directory; `None` if there is none.
fn open_directory(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether an open directory is what is at a path.
fn is_at(directory: &OwnedFd, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (rustix::fs::fstat(directory), rustix::fs::lstat(path)) else {
        return false;
    };
    (open.st_dev, open.st_ino) == (there.st_dev, there.st_ino)
}

fn touch(path: &Path) -> io::Result<()> {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    Ok(rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::empty())?)
}

//! The cache on disk: finished trees that appear by one rename, leases that keep them, and an end to what nobody uses.
//!
//! ```text
//! v1/lock            held for a moment by whoever looks (shared) or removes (exclusive)
//! v1/making/xx       held while a layer that begins with these digits is made, so that it is made once
//! v1/layers/<digits> one layer: its tree and `facts.json`
//! v1/roots/<digits>  layers merged into one tree
//! v1/known/<digits>  what an archive resolved to, by its inode, size and times
//! v1/new/<n>         being made, locked by its maker; not locked is left by a crash
//! ```
//!
//! A lease is a shared lock on the directory of a tree. It ends with the process that holds it, however that ends. A tree
//! that is removed and made again has another path than before, so that a path never stands for two trees.

use std::{
    fs,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Digest, ImageError, confine};

/// Which kind of finished tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelf {
    Layers,
    Roots,
}

impl Shelf {
    fn name(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Roots => "roots",
        }
    }
}

/// The directory of a cache.
#[derive(Debug)]
pub(crate) struct Store {
    base: PathBuf,
    max_bytes: u64,
}

/// A finished tree that stays as long as this does.
#[derive(Debug)]
pub(crate) struct Lease {
    tree: PathBuf,
    lock: OwnedFd,
}

impl Lease {
    /// Returns the directory that is the root of the tree.
    pub(crate) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Returns a descriptor that keeps the tree in the cache as long as it is open.
    pub(crate) fn keeper(&self) -> io::Result<OwnedFd> {
        self.lock.try_clone()
    }
}

/// A tree that is being made; removed again unless it is finished.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) directory: PathBuf,
    /// The name of the tree in the directory.
    name: String,
    pub(crate) tree: OwnedFd,
    _lock: OwnedFd,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Not there any more if it was finished. What cannot be removed now is garbage for the next start.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What is written beside a tree.
#[derive(Debug, Serialize, Deserialize)]
struct Record<T> {
    /// The name of its directory.
    tree: String,
    /// What it takes of the disk, estimated.
    bytes: u64,
    facts: T,
}

/// The part of a record that does not depend on the kind of tree.
#[derive(Debug, Deserialize)]
struct Size {
    bytes: u64,
}

const FACTS: &str = "facts.json";
/// The largest `facts.json` that is read: a path for each opaque directory.
const MAX_FACTS: u64 = 64 << 20;

/// Tells the names of drafts of one process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Store {
    /// Opens or makes a cache, and removes what a crash has left in it.
    pub(crate) fn open(directory: &Path, max_bytes: u64) -> Result<Self, ImageError> {
        let make = cache("make the directory");
        let mut builder = fs::DirBuilder::new();
        // What is in it is as secret as the images.
        builder.recursive(true).mode(0o700);
        builder.create(directory).map_err(make)?;
        let found = fs::metadata(directory).map_err(cache("look at the directory"))?;
        let own = found.uid() == rustix::process::geteuid().as_raw();
        if !own || found.mode() & 0o022 != 0 {
            let reason = "the directory belongs to another user, or others can write to it";
            let source = io::Error::new(io::ErrorKind::PermissionDenied, reason);
            return Err(cache("trust what is")(source));
        }
        let base = fs::canonicalize(directory).map_err(cache("find the directory"))?.join("v1");
        for name in ["layers", "roots", "known", "new", "making"] {
            builder.create(base.join(name)).map_err(cache("make the directory"))?;
        }
        let store = Self { base, max_bytes };
        let left = store.sweep().map_err(cache("remove what was left"))?;
        if left > 0 {
            tracing::info!(left, "removed unfinished parts of the image cache");
        }
        Ok(store)
    }

    /// Returns a lease on a finished tree and what is known of it; `None` if there is none.
    pub(crate) fn find<T: DeserializeOwned>(
        &self,
        shelf: Shelf,
        key: &Digest,
    ) -> Result<Option<(Lease, T)>, ImageError> {
        self.find_lease(shelf, key).map_err(cache("look"))
    }

    fn find_lease<T: DeserializeOwned>(
        &self,
        shelf: Shelf,
        key: &Digest,
    ) -> io::Result<Option<(Lease, T)>> {
        // Nobody removes it between the opening and the lock.
        let _looking = self.lock("lock", FlockOperation::LockShared)?;
        let directory = self.place(shelf, key);
        let lock = match confine::open_host_directory(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        flock(&lock, FlockOperation::LockShared)?;
        // The time of the last use, by which what was not used for long is found.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        rustix::fs::futimens(&lock, &Timestamps { last_access: now, last_modification: now })?;
        let record: Record<T> = read_json(&directory.join(FACTS), MAX_FACTS)?;
        Ok(Some((Lease { tree: directory.join(record.tree), lock }, record.facts)))
    }

    /// Waits until nobody else makes what has this key.
    pub(crate) fn making(&self, key: &Digest) -> Result<OwnedFd, ImageError> {
        let name = format!("making/{}", &key.hex()[..2]);
        self.lock(&name, FlockOperation::LockExclusive).map_err(cache("wait for the making"))
    }

    /// Begins a tree.
    pub(crate) fn draft(&self) -> Result<Draft, ImageError> {
        self.begin().map_err(cache("begin a tree"))
    }

    fn begin(&self) -> io::Result<Draft> {
        // Nobody sweeps between the making of the directory and its lock.
        let _looking = self.lock("lock", FlockOperation::LockShared)?;
        let pid = std::process::id();
        let directory = loop {
            let name = format!("new/{pid}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
            let directory = self.base.join(name);
            match fs::DirBuilder::new().mode(0o700).create(&directory) {
                // A process of another pid namespace, or one that has crashed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => break made.map(|()| directory)?,
            }
        };
        let lock = confine::open_host_directory(&directory)?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let made = fs::metadata(&directory)?;
        let name = format!("tree-{:x}-{:x}-{:x}", made.ino(), made.ctime(), made.ctime_nsec());
        let tree = directory.join(&name);
        fs::DirBuilder::new().mode(0o755).create(&tree)?;
        // Whatever the umask is, since the sandbox's user must enter it.
        fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let tree = confine::open_host_directory(&tree)?;
        Ok(Draft { directory, name, tree, _lock: lock })
    }

    /// Makes a draft a finished tree. If another process was faster, its tree stays, which is the same.
    pub(crate) fn finish(
        &self,
        draft: Draft,
        shelf: Shelf,
        key: &Digest,
        facts: &impl Serialize,
        bytes: u64,
    ) -> Result<(), ImageError> {
        self.make_room(bytes)?;
        let publish = || -> io::Result<()> {
            let record = Record { tree: draft.name.clone(), bytes, facts };
            fs::write(draft.directory.join(FACTS), serde_json::to_vec(&record)?)?;
            // All of the tree is on the disk before its name is: after a crash it is whole or not there.
            rustix::fs::syncfs(&draft.tree)?;
            let _looking = self.lock("lock", FlockOperation::LockShared)?;
            match fs::rename(&draft.directory, self.place(shelf, key)) {
                Err(error)
                    if matches!(
                        error.raw_os_error().map(Errno::from_raw_os_error),
                        Some(Errno::EXIST | Errno::NOTEMPTY)
                    ) =>
                {
                    Ok(())
                }
                renamed => {
                    renamed?;
                    fs::File::open(self.base.join(shelf.name()))?.sync_all()
                }
            }
        };
        publish().map_err(cache("finish a tree"))
    }

    /// Removes the trees that were not used for longest and are not in use, until so many bytes fit.
    fn make_room(&self, needed: u64) -> Result<(), ImageError> {
        let limit = self.max_bytes;
        let (used, victims) = self.evict(needed).map_err(cache("make room"))?;
        for victim in &victims {
            let _ = fs::remove_dir_all(victim);
        }
        if used.saturating_add(needed) > limit {
            return Err(ImageError::CacheFull { needed, limit });
        }
        Ok(())
    }

    /// Moves trees out of sight and returns how many bytes stay.
    fn evict(&self, needed: u64) -> io::Result<(u64, Vec<PathBuf>)> {
        let _removing = self.lock("lock", FlockOperation::LockExclusive)?;
        let mut trees = Vec::new();
        for shelf in [Shelf::Layers, Shelf::Roots] {
            for entry in fs::read_dir(self.base.join(shelf.name()))? {
                let directory = entry?.path();
                let found = fs::metadata(&directory)?;
                let size: Size = read_json(&directory.join(FACTS), MAX_FACTS)?;
                trees.push(((found.mtime(), found.mtime_nsec()), size.bytes, directory));
            }
        }
        let mut used: u64 = trees.iter().map(|&(_, bytes, _)| bytes).sum();
        let mut victims = Vec::new();
        trees.sort();
        for (_, bytes, directory) in trees {
            if used.saturating_add(needed) <= self.max_bytes {
                break;
            }
            let lock = confine::open_host_directory(&directory)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => continue,
                locked => locked?,
            }
            let name =
                format!("new/{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let victim = self.base.join(name);
            fs::rename(&directory, &victim)?;
            tracing::debug!(bytes, tree = %directory.display(), "removed from the image cache");
            used -= bytes;
            victims.push(victim);
        }
        Ok((used, victims))
    }

    /// Removes drafts whose makers are gone.
    fn sweep(&self) -> io::Result<usize> {
        let mut left = Vec::new();
        {
            let _removing = self.lock("lock", FlockOperation::LockExclusive)?;
            for entry in fs::read_dir(self.base.join("new"))? {
                let directory = entry?.path();
                let Ok(lock) = confine::open_host_directory(&directory) else { continue };
                if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    // Held until it is removed, so that two who sweep do not meet.
                    left.push((directory, lock));
                }
            }
        }
        for (directory, _lock) in &left {
            let _ = fs::remove_dir_all(directory);
        }
        Ok(left.len())
    }

    /// Reads what was remembered under a key; what cannot be read was not remembered.
    pub(crate) fn recall<T: DeserializeOwned>(&self, key: &Digest) -> Option<T> {
        read_json(&self.base.join("known").join(key.hex()), 1 << 20).ok()
    }

    /// Remembers something small under a key.
    pub(crate) fn remember(&self, key: &Digest, value: &impl Serialize) -> Result<(), ImageError> {
        const MOST: usize = 1000;
        let write = || -> io::Result<()> {
            let known = self.base.join("known");
            if fs::read_dir(&known)?.count() >= MOST {
                // Rare, and only the time of reading an archive again.
                for entry in fs::read_dir(&known)? {
                    let _ = fs::remove_file(entry?.path());
                }
            }
            let draft = self.begin()?;
            let path = draft.directory.join("known");
            let mut file = fs::File::create(&path)?;
            file.write_all(&serde_json::to_vec(value)?)?;
            file.sync_all()?;
            fs::rename(path, known.join(key.hex()))
        };
        write().map_err(cache("remember an archive"))
    }

    fn place(&self, shelf: Shelf, key: &Digest) -> PathBuf {
        self.base.join(shelf.name()).join(key.hex())
    }

    fn lock(&self, name: &str, operation: FlockOperation) -> io::Result<OwnedFd> {
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.base.join(name))?;
        loop {
            match flock(file.as_fd(), operation) {
                Err(Errno::INTR) => {}
                locked => {
                    locked?;
                    return Ok(file.into());
                }
            }
        }
    }
}

fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> io::Result<T> {
    let file = fs::File::open(path)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, limit), &mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Makes the error for a failure of the cache.
pub(crate) fn cache(operation: &'static str) -> impl Fn(io::Error) -> ImageError {
    move |source| ImageError::Cache { operation, source }
}

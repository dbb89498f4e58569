//! [`StateDirectory`]: where runs are kept, so that they survive their sandbox and their process.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use cofferdam_checkpoint::{
    CheckpointError, CheckpointStore, CleanUpError, HostWorkspaces, ObjectCheckpoints,
    WorkspaceError, clean_up, remove_run,
};
use cofferdam_core::RunId;
use cofferdam_journal::{Journal, JournalError, SqliteJournal};
use cofferdam_snapshot::{
    BaseCache, BaseCacheOptions, BaseError, DurableLocal, GcReport, SnapshotStore, StoreOptions,
};
use object_store::ObjectStore;
use tokio::sync::OnceCell;

use crate::{AutomaticCleanUp, SystemClock, SystemEntropy};

/// Where snapshots are in the object store, and where checkpoints are.
const SNAPSHOTS: &str = "snapshots";
const CHECKPOINTS: &str = "checkpoints";

/// The journal, the snapshots and the checkpoints of runs.
///
/// ```text
/// PATH/journal.sqlite           the records of all runs
/// PATH/objects/snapshots/…      workspaces, by content: what two of them share is there once
/// PATH/objects/checkpoints/…    which record of which run has which workspace
/// PATH/workspaces/…             what can be made anew: directories that workspaces begin with, and what was seen of their files
/// PATH/workspaces/cleaned-up    when it was cleaned up the last time; locked by who does
/// ```
///
/// Any number of processes of one user may use the same directory. It is for nobody else: it is made with mode 0700, and holds
/// what models and tools said. It holds no secret, since none is ever given to a model, a sandbox or a record.
#[derive(Debug, Clone)]
pub struct StateDirectory {
    inner: Arc<Inner>,
    pub(crate) automatic: Option<AutomaticCleanUp>,
}

#[derive(Debug)]
struct Inner {
    journal: Arc<dyn Journal>,
    objects: Arc<dyn ObjectStore>,
    workspaces: PathBuf,
    snapshots: OnceCell<Arc<SnapshotStore>>,
    bases: OnceLock<BaseCache>,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A directory cannot be made or used: look at its permissions, or name another.
    #[error("the state directory {path} cannot be used")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The journal failed: its error tells.
    #[error("the journal of the state directory failed")]
    Journal(#[from] JournalError),
    /// What is not needed could not be freed: its error tells.
    #[error("the state directory could not be cleaned up")]
    CleanUp(#[from] CleanUpError),
    /// The checkpoints failed: their error tells.
    #[error("the checkpoints of the state directory failed")]
    Checkpoints(#[from] CheckpointError),
    /// The directories that workspaces begin with cannot be used: the error tells.
    #[error("the workspaces of the state directory cannot be used")]
    Bases(#[from] BaseError),
    /// The object store cannot be opened: its error tells.
    #[error("the objects of the state directory cannot be opened")]
    Objects(#[source] io::Error),
}

impl StateDirectory {
    /// Opens a directory of this host, or makes it.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StateError> {
        let path = path.as_ref();
        let objects = path.join("objects");
        for directory in [path, &objects] {
            make(directory)?;
        }
        let journal = SqliteJournal::open(path.join("journal.sqlite"), Arc::new(SystemClock))?;
        let objects = DurableLocal::open(&objects).map_err(StateError::Objects)?;
        Self::with(Arc::new(journal), Arc::new(objects), path.join("workspaces"))
    }

    /// Puts one together: a journal, an object store, and a directory of this host for what can be made anew.
    ///
    /// # Errors
    ///
    /// [`StateError::Directory`].
    pub fn with(
        journal: Arc<dyn Journal>,
        objects: Arc<dyn ObjectStore>,
        workspaces: impl Into<PathBuf>,
    ) -> Result<Self, StateError> {
        let workspaces = workspaces.into();
        make(&workspaces)?;
        let (snapshots, bases) = (OnceCell::new(), OnceLock::new());
        let inner = Arc::new(Inner { journal, objects, workspaces, snapshots, bases });
        Ok(Self { inner, automatic: Some(AutomaticCleanUp::default()) })
    }

    /// Returns the journal.
    #[must_use]
    pub fn journal(&self) -> &Arc<dyn Journal> {
        &self.inner.journal
    }

    /// Returns the object store.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.objects
    }

    /// Returns the store of checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(ObjectCheckpoints::new(Arc::clone(&self.inner.objects), CHECKPOINTS))
    }

    /// Returns the store of snapshots; opened at the first call.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::Snapshot`] if it cannot be opened; the next call tries again.
    pub async fn snapshots(&self) -> Result<Arc<SnapshotStore>, WorkspaceError> {
        let inner = &self.inner;
        let opened = inner.snapshots.get_or_try_init(async || {
            let options = StoreOptions::new(Arc::new(SystemClock), Arc::new(SystemEntropy));
            SnapshotStore::open(Arc::clone(&inner.objects), SNAPSHOTS, options).await.map(Arc::new)
        });
        Ok(Arc::clone(opened.await?))
    }

    /// Removes a run: its records, and its checkpoints but those that other runs come from. Its snapshots go with
    /// the next [`StateDirectory::clean_up`]. Idempotent.
    ///
    /// # Errors
    ///
    /// [`StateError::Checkpoints`] or [`StateError::Journal`] by what failed; calling again goes on. [`JournalError::Leased`] while
    /// somebody drives the run: nothing is removed then.
    pub async fn remove(&self, run: &RunId) -> Result<(), StateError> {
        match remove_run(&*self.checkpoints(), &*self.inner.journal, run).await {
            Ok(()) => Ok(()),
            Err(CleanUpError::Journal(error)) => Err(error.into()),
            Err(CleanUpError::Workspace(WorkspaceError::Checkpoint(error))) => Err(error.into()),
            Err(other) => Err(other.into()),
        }
    }

    /// Frees what no run and no checkpoint needs any more, in two steps that are a day apart: see
    /// [`clean_up`](fn@cofferdam_checkpoint::clean_up).
    ///
    /// # Errors
    ///
    /// [`StateError::CleanUp`]; calling again goes on.
    pub async fn clean_up(&self) -> Result<GcReport, StateError> {
        let snapshots = self.snapshots().await.map_err(CleanUpError::from)?;
        let (checkpoints, journal) = (self.checkpoints(), &*self.inner.journal);
        Ok(clean_up(&snapshots, &*checkpoints, journal, &SystemClock).await?)
    }

    /// Returns the directory of this host for what can be made anew.
    pub(crate) fn workspaces(&self) -> &Path {
        &self.inner.workspaces
    }

    /// Returns the directory for what is kept of single sandboxes.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.inner.workspaces.join("scratch")
    }

    /// Returns what this host keeps of workspaces that can be made anew; opened at the first call.
    ///
    /// # Errors
    ///
    /// [`StateError::Bases`].
    pub fn host_workspaces(&self) -> Result<HostWorkspaces, StateError> {
        let inner = &self.inner;
        let bases = match inner.bases.get() {
            Some(bases) => bases.clone(),
            None => {
                let options = BaseCacheOptions::default();
                let opened = BaseCache::open(inner.workspaces.join("bases"), options)?;
                inner.bases.get_or_init(|| opened).clone()
            }
        };
        Ok(HostWorkspaces { bases, scratch: self.scratch() })
    }
}

/// Makes a directory for this user alone, with those above it.
fn make(directory: &Path) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| StateError::Directory { path: directory.to_owned(), source })
}

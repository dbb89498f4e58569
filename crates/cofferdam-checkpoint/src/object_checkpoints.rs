//! [`ObjectCheckpoints`]: checkpoints in any object store, beside the snapshots that they name.
//!
//! ```text
//! PREFIX/runs/RUN/SEQ-HASH            the checkpoint; SEQ has 20 digits, so that names sort as positions do
//! PREFIX/forks/RUN.SEQ.HASH/CHILD     empty: the checkpoint CHILD of another run comes from it
//! ```
//!
//! One put makes a checkpoint of a run, two that of a fork. Why not the journal's own records? A fork is made from a
//! checkpoint by whoever has the object store, on another host, and without the journal of the run that it comes from; and
//! whoever removes old runs from the journal keeps what was forked from them. The record in the journal says that the
//! checkpoint counts.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_core::RunId;
use cofferdam_journal::Seq;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};

use crate::{Checkpoint, CheckpointError, CheckpointId, CheckpointStore};

/// Bytes that a checkpoint may have; more is not one.
const MAX_STORED_BYTES: u64 = 1 << 20;

/// Checkpoints as objects. Durable as far as the store is.
#[derive(Debug, Clone)]
pub struct ObjectCheckpoints {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl ObjectCheckpoints {
    /// Keeps checkpoints below a prefix of a store; nothing is written yet.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { store, prefix: Path::from(prefix) }
    }

    fn runs(&self, run: &RunId) -> Path {
        self.prefix.clone().join("runs").join(run.as_str())
    }

    fn place(&self, id: &CheckpointId) -> Path {
        self.runs(id.run()).join(format!("{:020}-{}", id.at().0, id.hash()))
    }

    fn forks_of(&self, id: &CheckpointId) -> Path {
        self.prefix.clone().join("forks").join(id.to_string())
    }

    /// Lists the last parts of the names below a path.
    async fn names(&self, below: &Path) -> Result<Vec<String>, CheckpointError> {
        let mut names: Vec<String> = self
            .store
            .list(Some(below))
            .try_filter_map(async |object| Ok(object.location.filename().map(str::to_owned)))
            .try_collect()
            .await
            .map_err(failed("list checkpoints"))?;
        names.sort();
        Ok(names)
    }

    /// Puts an object; `Ok` if it is there already, since names fit one content only.
    async fn create(&self, place: &Path, content: Vec<u8>) -> Result<(), CheckpointError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(place, content.into(), options).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(failed("write a checkpoint")(error)),
        }
    }
}

fn failed(operation: &'static str) -> impl Fn(object_store::Error) -> CheckpointError {
    move |error| CheckpointError::Store { operation, source: error.into() }
}

#[async_trait]
impl CheckpointStore for ObjectCheckpoints {
    async fn put(&self, checkpoint: &Checkpoint) -> Result<CheckpointId, CheckpointError> {
        let (id, stored) = checkpoint.encode()?;
        // Before the checkpoint: a fork that nobody knows of could lose what it comes from.
        for parent in checkpoint.parents.iter().filter(|parent| *parent.run() != checkpoint.run) {
            self.create(&self.forks_of(parent).join(id.to_string()), Vec::new()).await?;
        }
        self.create(&self.place(&id), stored).await?;
        Ok(id)
    }

    async fn get(&self, id: &CheckpointId) -> Result<Checkpoint, CheckpointError> {
        let found = match self.store.get(&self.place(id)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(CheckpointError::NotFound { id: id.clone() });
            }
            Err(error) => return Err(failed("read a checkpoint")(error)),
        };
        if found.meta.size > MAX_STORED_BYTES {
            let detail =
                format!("it has {} bytes; at most {MAX_STORED_BYTES} can be", found.meta.size);
            return Err(CheckpointError::Corrupt { id: id.clone(), detail });
        }
        let stored = found.bytes().await.map_err(failed("read a checkpoint"))?;
        Checkpoint::decode(id, &stored)
    }

    async fn list(&self, run: &RunId) -> Result<Vec<CheckpointId>, CheckpointError> {
        let names = self.names(&self.runs(run)).await?;
        // What is not named as a checkpoint is somebody else's file, such as one that a write left unfinished.
        Ok(names
            .iter()
            .filter_map(|name| {
                let (at, hash) = name.split_once('-')?;
                format!("{run}.{}.{hash}", at.parse::<u64>().map(Seq).ok()?.0).parse().ok()
            })
            .collect())
    }

    async fn forks(&self, id: &CheckpointId) -> Result<Vec<CheckpointId>, CheckpointError> {
        let names = self.names(&self.forks_of(id)).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn remove(&self, id: &CheckpointId) -> Result<(), CheckpointError> {
        if let Some(fork) = self.forks(id).await?.first() {
            return Err(CheckpointError::Needed { id: id.clone(), dependent: fork.to_string() });
        }
        match self.get(id).await {
            // It no longer needs what it comes from.
            Ok(checkpoint) => {
                for parent in checkpoint.parents.iter().filter(|parent| parent.run() != id.run()) {
                    self.delete(&self.forks_of(parent).join(id.to_string())).await?;
                }
            }
            Err(CheckpointError::NotFound { .. }) => return Ok(()),
            // What cannot be read can still be removed.
            Err(CheckpointError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        self.delete(&self.place(id)).await
    }
}

impl ObjectCheckpoints {
    async fn delete(&self, place: &Path) -> Result<(), CheckpointError> {
        match self.store.delete(place).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove a checkpoint")(error)),
        }
    }
}

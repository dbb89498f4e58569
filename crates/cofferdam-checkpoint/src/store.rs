//! [`CheckpointStore`]: where checkpoints are kept, and [`CheckpointStoreExt`]: walks over them.

use std::{collections::BTreeSet, fmt::Debug};

use async_trait::async_trait;
use cofferdam_core::RunId;

use crate::{Checkpoint, CheckpointError, CheckpointId};

/// A store of immutable checkpoints.
///
/// The journal is the truth: a checkpoint that a run stands on has a record there, written after the checkpoint was stored. One
/// without a record is of a process that died in between, and is nothing but garbage.
#[async_trait]
pub trait CheckpointStore: Debug + Send + Sync + 'static {
    /// Stores a checkpoint and returns its name; durable on return, as far as the store is. Storing the same again does
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Store`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the checkpoint is there whole or not at all.
    async fn put(&self, checkpoint: &Checkpoint) -> Result<CheckpointId, CheckpointError>;

    /// Reads a checkpoint and holds it against its name.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NotFound`], [`CheckpointError::Corrupt`], [`CheckpointError::NewerFormat`].
    async fn get(&self, id: &CheckpointId) -> Result<Checkpoint, CheckpointError>;

    /// Lists the checkpoints of a run in the order of their positions. A run that is not there has none.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Store`].
    async fn list(&self, run: &RunId) -> Result<Vec<CheckpointId>, CheckpointError>;

    /// Lists the checkpoints of other runs that name this one as a parent, sorted.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Store`].
    async fn forks(&self, id: &CheckpointId) -> Result<Vec<CheckpointId>, CheckpointError>;

    /// Removes a checkpoint; `Ok` if it is not there. Its workspace's snapshot stays until the snapshot store forgets it.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Needed`] if a fork comes from it.
    async fn remove(&self, id: &CheckpointId) -> Result<(), CheckpointError>;
}

/// Comfortable forms over every [`CheckpointStore`].
#[async_trait]
pub trait CheckpointStoreExt: CheckpointStore {
    /// Returns the newest checkpoint of a run, by position.
    ///
    /// # Errors
    ///
    /// As [`CheckpointStore::list`] and [`CheckpointStore::get`].
    async fn newest(
        &self,
        run: &RunId,
    ) -> Result<Option<(CheckpointId, Checkpoint)>, CheckpointError> {
        let Some(id) = self.list(run).await?.pop() else { return Ok(None) };
        let checkpoint = self.get(&id).await?;
        Ok(Some((id, checkpoint)))
    }

    /// Returns the checkpoints of a run that no other of the run comes from: one, and one more for each time that the run was
    /// taken back.
    ///
    /// # Errors
    ///
    /// As [`CheckpointStore::list`] and [`CheckpointStore::get`].
    async fn heads(&self, run: &RunId) -> Result<Vec<CheckpointId>, CheckpointError> {
        let listed = self.list(run).await?;
        let mut parents = BTreeSet::new();
        for id in &listed {
            parents.extend(self.get(id).await?.parents);
        }
        Ok(listed.into_iter().filter(|id| !parents.contains(id)).collect())
    }

    /// Returns the checkpoints that come from one: of its own run first, then of forks.
    ///
    /// # Errors
    ///
    /// As [`CheckpointStore::list`], [`CheckpointStore::get`] and [`CheckpointStore::forks`].
    async fn children(&self, id: &CheckpointId) -> Result<Vec<CheckpointId>, CheckpointError> {
        let mut children = Vec::new();
        for other in self.list(id.run()).await? {
            if other.at() > id.at() && self.get(&other).await?.parents.contains(id) {
                children.push(other);
            }
        }
        children.extend(self.forks(id).await?);
        Ok(children)
    }

    /// Removes the checkpoints of a run but its heads, those that forks come from, and the newest `keep`; returns what was
    /// removed. What a remaining checkpoint comes from may be gone afterwards: history ends there.
    ///
    /// # Errors
    ///
    /// As [`CheckpointStore::remove`]; those before the failure are removed.
    async fn prune(&self, run: &RunId, keep: usize) -> Result<Vec<CheckpointId>, CheckpointError> {
        let listed = self.list(run).await?;
        let heads = self.heads(run).await?;
        let mut removed = Vec::new();
        for id in listed.iter().take(listed.len().saturating_sub(keep)) {
            if heads.contains(id) {
                continue;
            }
            match self.remove(id).await {
                Ok(()) => removed.push(id.clone()),
                Err(CheckpointError::Needed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Walks from a checkpoint to the first that it comes from, through forks, and returns at most `limit` of them, newest
    /// first. Ends early where a parent was pruned.
    ///
    /// # Errors
    ///
    /// As [`CheckpointStore::get`].
    async fn history(
        &self,
        id: &CheckpointId,
        limit: usize,
    ) -> Result<Vec<(CheckpointId, Checkpoint)>, CheckpointError> {
        let mut history = Vec::new();
        let mut next = Some(id.clone());
        while let Some(id) = next.take().filter(|_| history.len() < limit) {
            match self.get(&id).await {
                Ok(checkpoint) => {
                    next = checkpoint.parents.first().cloned();
                    history.push((id, checkpoint));
                }
                Err(CheckpointError::NotFound { .. }) if !history.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(history)
    }
}

impl<T: CheckpointStore + ?Sized> CheckpointStoreExt for T {}

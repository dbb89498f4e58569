//! [`CheckpointError`]: what can go wrong with stored checkpoints, sorted by what the caller can do next.

use cofferdam_core::{BoxError, Retry};

use crate::CheckpointId;

/// A failure of a [`crate::CheckpointStore`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The text is no checkpoint's name: correct it.
    #[error("{text:?} is no checkpoint: {reason}")]
    InvalidId {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no such checkpoint: it never was, or it was removed; list those of the run.
    #[error("there is no checkpoint {id}")]
    NotFound {
        /// The checkpoint.
        id: CheckpointId,
    },
    /// What is stored is not what the name says: use another checkpoint of the run.
    #[error("checkpoint {id} is corrupt: {detail}")]
    Corrupt {
        /// The checkpoint.
        id: CheckpointId,
        /// What does not fit.
        detail: String,
    },
    /// A newer release wrote it: update this one.
    #[error("checkpoint {id} is in format {found}; this release reads up to {supported}")]
    NewerFormat {
        /// The checkpoint.
        id: CheckpointId,
        /// Its format.
        found: u32,
        /// The newest format that this release reads.
        supported: u32,
    },
    /// Other checkpoints or runs come from it: remove those first.
    #[error("checkpoint {id} is needed by {dependent}")]
    Needed {
        /// The checkpoint.
        id: CheckpointId,
        /// Who comes from it.
        dependent: String,
    },
    /// The store failed: try again later.
    #[error("the store of checkpoints could not {operation}")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

impl CheckpointError {
    /// Returns whether the same call may succeed later.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }
}

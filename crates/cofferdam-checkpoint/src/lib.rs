//! Checkpoints of runs: a journal position, a snapshot of the workspace and the handle of a sandbox.
//!
//! - [`checkpoint`]: [`Checkpoint`], an immutable value that is named by its content ([`CheckpointId`]).
//! - [`store`]: [`CheckpointStore`], where they are kept; [`ObjectCheckpoints`] keeps them in any object store.
//! - [`conformance`]: the cases that every store must pass.
//! - [`CheckpointError`]: what can go wrong with them.
#![forbid(unsafe_code)]

pub mod checkpoint;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod id;
pub mod object_checkpoints;
pub mod store;

pub use checkpoint::{Checkpoint, FORMAT_VERSION, SnapshotMode, WorkspaceSnapshot};
pub use error::CheckpointError;
pub use id::CheckpointId;
pub use object_checkpoints::ObjectCheckpoints;
pub use store::{CheckpointStore, CheckpointStoreExt};

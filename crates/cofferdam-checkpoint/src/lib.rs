//! Checkpoints of runs: a journal position, a snapshot of the workspace and the handle of a sandbox.
//!
//! - [`checkpoint`]: [`Checkpoint`], an immutable value that is named by its content ([`CheckpointId`]).
//! - [`store`]: [`CheckpointStore`], where they are kept; [`ObjectCheckpoints`] keeps them in any object store.
//! - `conformance` (a feature): the cases that every store must pass.
//! - [`workspaces`]: [`Workspaces`] makes sandboxes of snapshots and snapshots of sandboxes.
//! - [`keeper`]: [`SnapshotKeeper`], which a harness asks for checkpoints and for a new sandbox in the place of a lost one.
//! - [`reopen`], [`run_records`], [`handle`]: going on in another process, in the very sandbox if it still lives.
//! - [`sandbox_source`], [`sandbox_target`]: a live sandbox as what snapshots are taken of and restored to.
//! - [`retention`]: [`Retention`] says what is kept, and for how long.
//! - [`clean_up`](mod@clean_up): frees what no run and no checkpoint needs any more.
//! - [`gone`]: frees what is kept for sandboxes that ended while nobody was there.
//! - [`CheckpointError`], [`WorkspaceError`]: what can go wrong.
//!
//! # What a recovered workspace is
//!
//! It is that of a checkpoint, always: of that it is known which calls of the run it holds, so the harness can tell which
//! calls have to be made again. A sandbox that is only disconnected is joined again as it is, with its commands running.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod clean_up;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod gone;
pub mod handle;
pub mod id;
pub mod keeper;
pub mod object_checkpoints;
pub mod reopen;
pub mod retention;
pub mod run_records;
pub mod sandbox_source;
pub mod sandbox_target;
mod stands_still;
pub mod store;
pub mod workspace_error;
pub mod workspaces;

pub use checkpoint::{Checkpoint, FORMAT_VERSION};
pub use clean_up::{CleanUpError, clean_up};
pub use error::CheckpointError;
pub use gone::{GoneOptions, GoneReport, forget_gone};
pub use handle::SandboxHandle;
pub use id::CheckpointId;
pub use keeper::{KeeperParts, SnapshotKeeper};
pub use object_checkpoints::ObjectCheckpoints;
pub use reopen::Reopened;
pub use retention::{Retention, RetentionReport, apply_retention, remove_run};
pub use run_records::RunRecords;
pub use sandbox_source::{SandboxSource, ScanMemory};
pub use sandbox_target::SandboxTarget;
pub use store::{CheckpointStore, CheckpointStoreExt};
pub use workspace_error::WorkspaceError;
pub use workspaces::{HostWorkspaces, LiveWorkspace, Workspaces, WorkspacesParts};

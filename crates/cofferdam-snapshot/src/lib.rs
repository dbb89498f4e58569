//! Snapshots of directory trees: incremental, content-addressed, verified on every read, over any object store.
#![forbid(unsafe_code)]

mod error;
mod id;
mod node;
mod path;
mod receipt;
mod source;
mod target;
mod wire;

pub use error::SnapshotError;
pub use id::{ChunkId, IdError, Lineage, PackName, SnapshotId, TreeId};
pub use node::{Metadata, Totals, Xattr};
pub use path::{Name, PathError, TreePath};
pub use receipt::{Receipt, RestoreReceipt, Skipped, SkippedEntry, Stored};
pub use source::{
    Content, Coverage, Detection, FileEnd, Listing, Previous, SkipReason, Source, SourceEntry,
    SourceError, SourceFacts, SourceKind, Walk, Wanted,
};
pub use target::{RestorePlan, Target, TargetEntry, TargetError};

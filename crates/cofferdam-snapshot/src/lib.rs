//! Snapshots of directory trees: incremental, content-addressed, verified on every read, over any object store.
#![forbid(unsafe_code)]

mod base;
mod chunk;
mod content;
mod crypt;
mod diff;
mod directory;
mod durable;
mod error;
mod frame;
mod gc;
mod head;
mod id;
mod index;
mod log;
mod node;
mod pack;
mod packer;
mod path;
mod reader;
mod receipt;
mod restore;
mod source;
mod stat_cache;
mod storage;
mod store;
mod target;
mod verify;
mod windows;
mod wire;
mod writer;

pub use base::{Base, BaseCache, BaseCacheOptions, BaseError};
pub use crypt::KeyProvider;
pub use diff::{Change, ChangeKind};
pub use directory::{DirectoryOptions, DirectorySource, DirectoryTarget, TargetOptions};
pub use durable::DurableLocal;
pub use error::SnapshotError;
pub use gc::{GcOptions, GcReport};
pub use id::{ChunkId, IdError, Lineage, PackName, SnapshotId, TreeId};
pub use log::LogEntry;
pub use node::{Metadata, Totals, Xattr};
pub use path::{Name, PathError, TreePath};
pub use reader::MAX_DEPTH;
pub use receipt::{Receipt, RestoreReceipt, Skipped, SkippedEntry, Stored};
pub use source::{
    Content, Coverage, Detection, FileEnd, Listing, Previous, SkipReason, Source, SourceEntry,
    SourceError, SourceFacts, SourceKind, Walk, Wanted,
};
pub use storage::StorageRetry;
pub use store::{Parent, SnapshotOptions, SnapshotStore, StoreOptions};
pub use target::{RestorePlan, Target, TargetEntry, TargetError};
pub use verify::{Problem, VerifyReport};

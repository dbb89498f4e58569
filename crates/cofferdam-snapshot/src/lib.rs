//! Snapshots of directory trees: incremental, content-addressed, verified on every read, over any object store.
//!
//! [`SnapshotStore`] is the front: it takes snapshots of a [`Source`] and restores them to a [`Target`]. Sources and targets for
//! directories of this host are here ([`DirectorySource`], [`DirectoryTarget`]); others implement the two traits. The objects
//! lie in any [`object_store::ObjectStore`]; [`DurableLocal`] is one in a directory.
//!
//! `README.md` has an example that runs, `FORMAT.md` says what lies in a store.
//!
//! # How the parts fit
//!
//! A tree is nodes (directories), which name chunks (content) and say where they lie. Both lie in frames, many of which make a
//! pack. A head names the root, and makes the snapshot: it is put last, if it is not there. Few new frames stay in the head.
//! [`SnapshotStore::gc`] removes what no head needs.
//!
//! # Why no index to read by?
//!
//! Most such stores find things through an index from ids to places, which must be whole, and grows with all history. Here
//! whoever names a thing says where it is, beside and not inside of what its id is the hash of. Reading needs no index, and
//! the one there is only saves room.
#![forbid(unsafe_code)]

mod base;
mod changes;
mod chunk;
mod content;
mod contexts;
mod crypt;
mod diff;
mod directory;
mod durable;
mod error;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod head;
mod heads;
mod id;
mod index;
mod leaf;
mod log;
mod marker;
mod moved;
mod node;
mod nodes;
mod pack;
mod packer;
mod pages;
mod path;
mod reader;
mod receipt;
mod repack;
mod restore;
mod source;
mod stat_cache;
mod storage;
mod store;
mod target;
mod usage;
mod verify;
mod windows;
mod wire;
mod writer;

pub use base::{Base, BaseCache, BaseCacheOptions, BaseError};
pub use changes::TreeChanges;
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
pub use usage::Usage;
pub use verify::{Problem, VerifyReport};

/// The example in the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

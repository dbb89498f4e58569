//! Fills a sandbox with what a manifest declares, and copies the outputs out again.
//!
//! - [`Materializer`]: resolves the manifest's sources on the host, refuses what is not allowed, and uploads all entries
//!   as one stream. Nothing is uploaded before every entry has been checked.
//! - [`HostTree`]: a directory of the host that takes the same stream, for workspaces to begin with.
//! - [`Collector`]: copies declared outputs to a directory of the host, distrusting the sandbox that sends them.
//! - [`Materialized`], [`Collected`]: receipts of what was done.
//! - [`MaterializeError`], [`CollectError`]: what can go wrong, each with the entry or output and what to do.
//!
//! Two boundaries are guarded here. On the way in, a manifest must not reach files of the host that its author was not
//! given: sources are resolved with `openat2` beneath the directory of the file or a directory that the caller granted,
//! and links that lead out are refused. On the way out, a sandbox must not reach files of the host at all: names are
//! checked, nothing is overwritten, and links are made last, so that nothing is written through one.
//!
//! # Why not one copy operation per file?
//!
//! A tree of thousands of small files would cost thousands of round trips. One stream costs one, needs the memory of a
//! few pieces, and fails as a whole.
#![forbid(unsafe_code)]

mod beneath;
mod collect_error;
mod collector;
mod git;
mod host_file;
mod host_tree;
mod links;
mod local_tree;
mod materialize_error;
mod materializer;
mod output_writer;
mod plan;
mod receipt;

pub use collect_error::CollectError;
pub use collector::{CollectLimits, Collector};
pub use host_file::HostFileError;
pub use host_tree::{HostTree, HostTreeLimits};
pub use materialize_error::MaterializeError;
pub use materializer::{Materializer, SecretResolver};
pub use receipt::{Collected, Materialized, MaterializedEntry, SkippedOutput};

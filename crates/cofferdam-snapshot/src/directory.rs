//! Directories of the host: trees that snapshots are taken of and restored to.
//!
//! - [`DirectorySource`]: a directory, or the upper directory of an overlay, with or without a memory of the last walk;
//! - [`DirectoryTarget`]: a fresh directory that appears whole under its name, or not at all.
//!
//! What is in the directory was made by programs of a sandbox, and may change while it is read. Nothing in it is trusted: see
//! `confined`.

mod attributes;
mod confined;
mod content;
mod maker;
pub(crate) mod remove;
mod source;
mod target;
mod walk;

pub use source::{DirectoryOptions, DirectorySource};
pub use target::{DirectoryTarget, TargetOptions};

#[cfg(test)]
mod tests;

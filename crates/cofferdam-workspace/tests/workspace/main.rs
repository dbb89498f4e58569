//! Filling a workspace and collecting from it, against a sandbox in memory that is stricter than a real one.
#![expect(clippy::unwrap_used, reason = "helpers of tests stop at the first surprise")]

mod collect;
mod fake;
mod git;
mod host_tree;
mod materialize;

//! Directories as sources and targets, against the seams alone.
#![expect(
    clippy::disallowed_methods,
    reason = "trees are changed by programs as they are in a sandbox"
)]

mod hostile;
mod round_trip;
mod source;
mod support;
mod upper;

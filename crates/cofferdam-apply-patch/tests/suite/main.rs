//! Tests at the boundary of the crate: cases as data, whole outputs as snapshots, invariants as properties.
#![expect(clippy::unwrap_used, reason = "helpers of tests: what cannot go on is a failed test")]

#[cfg(test)]
mod apply;
#[cfg(all(test, feature = "host", unix))]
mod command;
#[cfg(all(test, feature = "host", unix))]
mod host;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod parse;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod transaction;

//! Tests at the boundary of the crate: cases as data, whole outputs as snapshots, invariants as properties.

#[cfg(test)]
mod apply;
#[cfg(test)]
mod command;
#[cfg(test)]
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

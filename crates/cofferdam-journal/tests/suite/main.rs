//! Stores at their boundary: the conformance suite, models, former releases, failures, other processes, the loss of power.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod defects;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod model;
#[cfg(test)]
mod power_loss;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod writer;

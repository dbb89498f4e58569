//! [`Policy`]: a pure function from the facts of a call to a [`Decision`].

use std::fmt::Debug;

use cofferdam_core::Effects;

use crate::Decision;

/// Decides whether a call may run.
///
/// The same request always gives the same decision: no time, no I/O, no state.
pub trait Policy: Debug + Send + Sync + 'static {
    /// Returns the decision on one call.
    fn decide(&self, request: &PolicyRequest<'_>) -> Decision;
}

/// The facts of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyRequest<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// What the call does to the world, as its tool says.
    pub effects: Effects,
}

//! [`ToolError`]: what can go wrong with a tool call, sorted by who can act on it.

use std::time::Duration;

use cofferdam_core::{BoxError, Retry};

/// A failure of a tool call.
///
/// [`ToolError::for_model`] tells which failures the model is told, as the output of its call; the others end the run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The model called a tool that is not there.
    #[error("there is no tool named {name:?}; the tools are: {}", known.join(", "))]
    UnknownTool {
        /// The name that was called.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The model's input does not fit the tool.
    #[error("invalid input: {reason}")]
    InvalidInput {
        /// What is wrong with it.
        reason: String,
    },
    /// The policy or a person said no.
    #[error("the call was denied: {reason}")]
    Denied {
        /// Why.
        reason: String,
    },
    /// The call took longer than allowed and was ended.
    #[error(
        "the call took longer than {limit:?} and was ended; ask for less at a time or in the background"
    )]
    Timeout {
        /// The time that was allowed.
        limit: Duration,
    },
    /// The tool failed in a way that the model may work around.
    #[error("{message}")]
    Failed {
        /// What the model is told.
        message: String,
    },
    /// Somebody was asked and will answer later: the run pauses.
    #[error("the call waits for approval ({})", reasons.join("; "))]
    AwaitingApproval {
        /// Why it needs approval.
        reasons: Vec<String>,
    },
    /// A budget of the run is used up: the run ends.
    #[error("the budget of {what} is used up ({used} of {limit})")]
    BudgetExhausted {
        /// What was budgeted, such as `tool calls`.
        what: &'static str,
        /// What was used.
        used: u64,
        /// What was allowed.
        limit: u64,
    },
    /// The run was cancelled.
    #[error("the run was cancelled")]
    Cancelled,
    /// The sandbox that the tool works in is gone: the run must restore it.
    #[error("the tool's sandbox is lost")]
    SandboxLost(#[source] BoxError),
    /// A layer failed the call, such as a journal that cannot be written: the run ends.
    #[error("a layer failed the tool call")]
    Layer(#[source] BoxError),
}

impl ToolError {
    /// Returns true if the model is told of this failure and the run goes on.
    #[must_use]
    pub fn for_model(&self) -> bool {
        matches!(
            self,
            Self::UnknownTool { .. }
                | Self::InvalidInput { .. }
                | Self::Denied { .. }
                | Self::Timeout { .. }
                | Self::Failed { .. }
        )
    }

    /// Returns whether the same call may succeed if made again by the harness.
    #[must_use]
    pub fn retry(&self) -> Retry {
        Retry::Never
    }
}

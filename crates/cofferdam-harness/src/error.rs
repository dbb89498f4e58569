//! [`RunError`]: why a run ended before the model was done, sorted by what the caller can do next.

use std::time::Duration;

use cofferdam_core::{RunId, Usage};
use cofferdam_journal::JournalError;
use cofferdam_model::ModelError;
use cofferdam_tool::ToolError;

/// A run that ended early: why, and what it had cost by then.
#[derive(Debug, thiserror::Error)]
#[error("run {run} ended in turn {turns}")]
pub struct RunFailure {
    /// The run.
    pub run: RunId,
    /// Answers of the model by then.
    pub turns: u32,
    /// What it had cost by then.
    pub usage: Usage,
    /// Why.
    #[source]
    pub error: RunError,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The model was not done within its turns: allow more or ask for less.
    #[error(
        "the model was not done after {max_turns} turns; raise `limits.max_turns` or ask for less"
    )]
    MaxTurns {
        /// The turns that were allowed.
        max_turns: u32,
    },
    /// One answer called more tools than allowed.
    #[error("the model asked for {calls} tool calls in one answer; {limit} are allowed")]
    TooManyCalls {
        /// The calls.
        calls: usize,
        /// The bound.
        limit: u32,
    },
    /// The run took too long: allow more time or ask for less.
    #[error("the run took longer than {limit:?}; raise `limits.wall_time` or ask for less")]
    WallTime {
        /// The time that was allowed.
        limit: Duration,
    },
    /// It was cancelled.
    #[error("the run was cancelled")]
    Cancelled,
    /// The model's answer was cut short by its own bound: allow longer answers.
    #[error(
        "the model's answer was cut ({reason}); raise the bound of output tokens or ask for less"
    )]
    AnswerCut {
        /// Why it ended, as the provider says.
        reason: String,
    },
    /// The model failed: its error tells.
    #[error("the model call failed")]
    Model(#[source] ModelError),
    /// A tool failed in a way that the model cannot act on: its error tells.
    #[error("tool {tool:?} failed")]
    Tool {
        /// The tool.
        tool: String,
        /// How.
        #[source]
        source: ToolError,
    },
    /// The journal failed; nothing more may happen unrecorded.
    #[error("the journal failed")]
    Journal(#[from] JournalError),
}

//! [`RunError`]: why a run ended before the model was done, sorted by what the caller can do next.

use std::time::Duration;

use cofferdam_core::{RunId, StepId, Usage};
use cofferdam_journal::{JournalError, PauseReason, RunOutcome};
use cofferdam_model::ModelError;
use cofferdam_tool::ToolError;

use crate::KeeperError;

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

impl RunFailure {
    /// A run that was not driven.
    pub(crate) fn before(run: RunId, error: RunError) -> Self {
        Self { run, turns: 0, usage: Usage::default(), error }
    }
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
    /// The run stands still and nothing of it lives: do what it waits for, and resume it.
    #[error("the run waits for {reason}")]
    Paused {
        /// What it waits for.
        reason: PauseReason,
    },
    /// The run waits for something else than input, which was not taken: do what it waits for, in the same request or before.
    #[error(
        "the run takes no input while it waits for {waits_for}; do that first, or together with it"
    )]
    InputRefused {
        /// What it waits for.
        waits_for: PauseReason,
    },
    /// There is no such run: look at its name and at the journal.
    #[error("there is no run {run} in this journal")]
    NoSuchRun {
        /// The name.
        run: RunId,
    },
    /// There is a run of this name: resume it, or choose another name.
    #[error("there is a run {run} already; resume it, or choose another name")]
    Exists {
        /// The name.
        run: RunId,
    },
    /// The run is over and cannot be resumed: fork it, or start another.
    #[error("run {run} is over ({outcome:?}) and cannot be resumed; fork it, or start another")]
    Finished {
        /// The run.
        run: RunId,
        /// How it ended.
        outcome: RunOutcome,
    },
    /// The agent is not what it was when the run began: restore what differs, or go on as a fork.
    #[error(
        "the agent is not what the run began with ({}); restore it, or go on as a fork",
        names(differences)
    )]
    Changed {
        /// What differs.
        differences: Vec<Difference>,
    },
    /// What was answered or decided is not what the run waits for: look at its state.
    #[error("the run does not wait for this: {reason}")]
    NotAwaited {
        /// Why not.
        reason: String,
    },
    /// The outcome of a call is unknown, and the run was told to end then, or somebody decided so.
    #[error("the outcome of step {step} ({tool}) is unknown: {why}")]
    OutcomeUnknown {
        /// The call.
        step: StepId,
        /// The tool.
        tool: String,
        /// What is known, and what is not.
        why: String,
    },
    /// Somebody decided that the run ends.
    #[error("{by} ended the run")]
    Aborted {
        /// Who.
        by: String,
    },
    /// The keeper of the workspace failed at the run's end: its error tells.
    #[error("the workspace was not kept")]
    Keeper(#[from] KeeperError),
    /// The journal failed; nothing more may happen unrecorded.
    #[error("the journal failed")]
    Journal(#[from] JournalError),
}

/// One thing in which an agent is not what a run began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs, such as `instructions` or `tool:exec_command`.
    pub name: String,
    /// The hash that the run began with; `None` if it is new.
    pub old: Option<String>,
    /// The hash now; `None` if it is gone.
    pub new: Option<String>,
    /// The text that the run began with, where it was short enough to record.
    pub old_text: Option<String>,
    /// The text now, where it is short.
    pub new_text: Option<String>,
}

fn names(differences: &[Difference]) -> String {
    let names: Vec<_> = differences.iter().map(|difference| difference.name.as_str()).collect();
    names.join(", ")
}

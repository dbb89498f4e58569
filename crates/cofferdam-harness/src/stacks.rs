//! The stacks that a harness is given: closed services, made anew for each run, so that budgets and journals are a run's
//! own.

use std::{fmt::Debug, sync::Arc};

use cofferdam_core::{RunId, ToolOutput, Usage};
use cofferdam_journal::JournalWriter;
use cofferdam_model::{ModelCall, ModelError, ModelResponse};
use cofferdam_tool::{ToolError, ToolRequest};
use tower::util::BoxCloneSyncService;

/// A closed stack of layers around a model.
pub type ModelStack = BoxCloneSyncService<ModelCall, ModelResponse, ModelError>;

/// A closed stack of layers around the tools.
pub type ToolStack = BoxCloneSyncService<ToolRequest, ToolOutput, ToolError>;

/// What the stacks of one run may use.
#[derive(Debug, Clone)]
pub struct RunScope {
    /// The run.
    pub run: RunId,
    /// The run's way of writing to its journal.
    pub journal: Arc<JournalWriter>,
    /// What earlier processes of the run used up: budgets go on from there.
    pub spent: Spent,
}

/// What a run has used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Tokens and requests.
    pub usage: Usage,
    /// Tool calls.
    pub tool_calls: u64,
}

/// Makes the stacks of a run.
pub trait Stacks: Debug + Send + Sync + 'static {
    /// Returns the model's name, for records and displays.
    fn model_name(&self) -> &str;

    /// Makes the model stack of a run.
    fn model(&self, scope: &RunScope) -> ModelStack;

    /// Makes the tool stack of a run.
    fn tools(&self, scope: &RunScope) -> ToolStack;
}

//! What a model is asked.

use std::sync::Arc;

use cofferdam_core::{Item, ToolSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ModelObserver;

/// One request to a model: the whole conversation, since providers keep no state for us.
///
/// Cloning costs a pointer an item, so a request can be kept for a retry.
#[derive(Debug, Clone, Default)]
pub struct ModelRequest {
    /// What the one who set the agent up tells the model.
    pub instructions: Option<Arc<str>>,
    /// The conversation so far, oldest first.
    pub input: Vec<Arc<Item>>,
    /// The tools that the model may call.
    pub tools: Arc<[ToolSpec]>,
    /// How it is to answer.
    pub settings: Arc<ModelSettings>,
}

/// How a model is to answer; `None` leaves a choice to the provider.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// Tokens that the answer may have at most.
    pub max_output_tokens: Option<u64>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// How much the model reasons before it answers.
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Whether it must, may or must not call a tool.
    pub tool_choice: ToolChoice,
    /// Whether it may call several tools in one answer.
    pub parallel_tool_calls: Option<bool>,
    /// The form of its text.
    pub output_format: OutputFormat,
    /// A stable key under which the provider may cache the prompt.
    pub prompt_cache_key: Option<String>,
}

/// How much a model reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReasoningEffort {
    /// Not at all.
    None,
    /// As little as possible.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// Very much.
    Xhigh,
    /// As much as it can.
    Max,
}

/// Whether the model calls tools.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolChoice {
    /// As it likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// None.
    None,
    /// This one.
    Tool(String),
}

/// The form of the model's text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutputFormat {
    /// Any text.
    #[default]
    Text,
    /// JSON that follows a schema.
    JsonSchema {
        /// A name for the schema; letters, digits, `_` and `-`.
        name: String,
        /// The schema.
        schema: Value,
    },
}

/// A request on its way through a stack of layers to a model.
#[derive(Debug, Clone, Default)]
pub struct ModelCall {
    /// The request.
    pub request: ModelRequest,
    /// The model turn of the run, from 1.
    pub turn: u32,
    /// Which attempt this is, from 1; layers that retry count it up. 0 counts as 1.
    pub attempt: u32,
    /// Who is shown the events as they arrive.
    pub observer: Option<Arc<dyn ModelObserver>>,
}

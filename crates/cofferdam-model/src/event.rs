//! What a model streams: pieces for a display, then the whole answer.

use std::fmt::Debug;

use cofferdam_core::{CallId, Item, ToolCall, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A piece of an answer. Everything before [`ModelEvent::Completed`] is for display; the answer in it is whole.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ModelEvent {
    /// The provider accepted the request.
    Started {
        /// The provider's id of the answer.
        response_id: Option<String>,
    },
    /// More of the text.
    TextDelta(String),
    /// More of the reasoning, as far as the provider shows it.
    ReasoningDelta(String),
    /// More of a tool call's input.
    ToolInputDelta {
        /// The call, where the provider has said.
        call_id: Option<CallId>,
        /// The piece.
        delta: String,
    },
    /// An item is whole.
    ItemDone(Item),
    /// The answer is whole.
    Completed(ModelResponse),
    /// An event of a type that is not known here, as it came.
    Unknown(Value),
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModelResponse {
    /// The provider's id of the answer.
    pub id: Option<String>,
    /// The model that answered, as the provider names it.
    pub model: Option<String>,
    /// The items of the answer, in order.
    pub items: Vec<Item>,
    /// What it cost.
    pub usage: Usage,
    /// Why it ended.
    pub stop: StopReason,
}

impl ModelResponse {
    /// Returns the tool calls of the answer, in order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.items.iter().filter_map(|item| match item {
            Item::ToolCall(call) => Some(call),
            _ => None,
        })
    }

    /// Returns the text of the answer's messages, joined by line breaks.
    #[must_use]
    pub fn text(&self) -> String {
        let texts: Vec<_> = self
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Message(message) => Some(message.to_text()),
                _ => None,
            })
            .collect();
        texts.join("\n")
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StopReason {
    /// The model was done, or calls tools.
    #[default]
    Done,
    /// It reached the bound of output tokens: the answer is cut.
    MaxOutputTokens,
    /// The provider withheld the rest.
    ContentFilter,
    /// A reason that is not known here, as it was spelt.
    #[serde(untagged)]
    Unknown(String),
}

/// Someone who is shown the events of a model call as they arrive, such as a display.
///
/// After a failed attempt the events of the next begin anew, with a higher number.
pub trait ModelObserver: Debug + Send + Sync + 'static {
    /// Takes one event; must not block.
    fn observe(&self, attempt: u32, event: &ModelEvent);
}

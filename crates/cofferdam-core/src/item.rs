//! The conversation between harness and model, neutral of providers.
//!
//! Providers add fields and item types without notice. So known items keep fields they do not know in `extra`, and items
//! of an unknown type are kept whole in [`Item::Provider`]: what came from a provider goes back to it unchanged.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::CallId;

/// One element of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Item {
    /// Words of the user, the developer or the model.
    Message(Message),
    /// The model asks for a tool.
    ToolCall(ToolCall),
    /// The answer to a tool call.
    ToolResult(ToolResult),
    /// Anything else that a provider sent (reasoning, compaction, hosted tools): kept as it came, for that provider.
    Provider {
        /// The provider's name, such as `openai-responses`; another provider does not get this item.
        provider: String,
        /// The item as the provider wrote it.
        raw: Value,
    },
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// The person or program that gives the task.
    User,
    /// The model.
    Assistant,
    /// The one who set the agent up.
    Developer,
    /// A role that is not known here, as it was spelt.
    #[serde(untagged)]
    Unknown(String),
}

/// Words with a speaker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub content: Vec<Content>,
    /// The provider's further fields (its id, status, phase), sent back as they came.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// A piece of a message or of a tool's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Content {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image, inline.
    Image {
        /// Its media type, such as `image/png`.
        media_type: String,
        /// Its bytes in standard base 64.
        data_base64: String,
    },
    /// A piece of a type that is not known here, as the provider wrote it.
    #[serde(untagged)]
    Unknown(Value),
}

/// How a provider expressed a tool call, so that the answer takes the matching form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolCallKind {
    /// A function with JSON arguments.
    #[default]
    Function,
    /// A custom tool with free text.
    Custom,
    /// The provider's built-in shell, run here.
    Shell,
    /// The provider's built-in patch tool, run here.
    ApplyPatch,
    /// A form that is not known here, as it was spelt.
    #[serde(untagged)]
    Unknown(String),
}

/// A request of the model to run a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The model's name of this call; its result carries the same.
    pub call_id: CallId,
    /// The tool.
    pub name: String,
    /// How the provider expressed the call.
    #[serde(default)]
    pub kind: ToolCallKind,
    /// The input as the model wrote it: JSON text for functions, free text for custom tools. It may be malformed.
    pub input: String,
    /// The provider's further fields, sent back as they came.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// What a tool answered to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The call that this answers.
    pub call_id: CallId,
    /// The tool.
    pub name: String,
    /// The form of the call.
    #[serde(default)]
    pub kind: ToolCallKind,
    /// The answer.
    pub output: ToolOutput,
}

/// The outcome of a tool, as the model gets it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ToolOutput {
    /// What the model reads, in order.
    pub content: Vec<Content>,
    /// Whether the tool failed, for providers that can say so.
    #[serde(default)]
    pub is_error: bool,
    /// Facts for programs (exit code, paths), and for provider forms that are not text.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub structured: Value,
}

impl Item {
    /// Makes a message of the user with one text.
    pub fn user(text: impl Into<String>) -> Self {
        Self::Message(Message::text(Role::User, text))
    }

    /// Makes a message of the model with one text.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::Message(Message::text(Role::Assistant, text))
    }
}

impl Message {
    /// Makes a message with one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Content::text(text)], extra: Map::new() }
    }

    /// Returns all text of the message, pieces joined without a separator.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        join_text(&self.content)
    }
}

impl Content {
    /// Makes a piece of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

impl ToolOutput {
    /// Makes a successful output of one text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::text(text)], ..Self::default() }
    }

    /// Makes an output of one text that tells the model of a failure.
    pub fn error(text: impl Into<String>) -> Self {
        Self { content: vec![Content::text(text)], is_error: true, ..Self::default() }
    }

    /// Returns all text of the output, pieces joined without a separator.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        join_text(&self.content)
    }
}

fn join_text(content: &[Content]) -> Cow<'_, str> {
    match content {
        [Content::Text { text }] => Cow::Borrowed(text),
        pieces => Cow::Owned(
            pieces
                .iter()
                .filter_map(|piece| match piece {
                    Content::Text { text } => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_parts_round_trip() {
        let check = |value: Value| {
            let item: Item = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&item).unwrap(), value);
        };
        check(
            json!({"type": "message", "role": "critic", "content": [{"type": "hologram", "w": 3}],
                     "extra": {"phase": "commentary"}}),
        );
        check(
            json!({"type": "tool_call", "call_id": "c1", "name": "x", "kind": "quantum", "input": "{"}),
        );
        check(json!({"type": "provider", "provider": "p", "raw": {"type": "reasoning", "z": [1]}}));
    }

    #[test]
    fn text_of_a_message_leaves_images_out() {
        let mut message = Message::text(Role::User, "a");
        message
            .content
            .push(Content::Image { media_type: "image/png".into(), data_base64: String::new() });
        message.content.push(Content::text("b"));
        assert_eq!(message.to_text(), "ab");
    }
}

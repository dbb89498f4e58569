//! What a model is told of a tool.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The description of a tool that is sent to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The name that the model calls; letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// What the tool does, for the model.
    pub description: String,
    /// The form of the input.
    pub input: ToolInputSpec,
}

/// The form of a tool's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolInputSpec {
    /// A JSON object that a JSON Schema describes.
    Json {
        /// The schema of the object.
        schema: Value,
        /// Whether a provider that can should hold the model to the schema.
        strict: bool,
    },
    /// Free text. Providers without free-text tools lower it to an object with one string named `input`.
    Text {
        /// The grammar that the text follows, where there is one.
        grammar: Option<Grammar>,
    },
}

/// A grammar for free-text input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grammar {
    /// The notation, such as `lark` or `regex`.
    pub syntax: String,
    /// The grammar itself.
    pub definition: String,
}

//! [`Tool`], what it is given ([`ToolInput`], [`ToolContext`]) and how it shows progress.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use cofferdam_core::{CallId, Effects, RunId, StepId, ToolOutput, ToolSpec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::ToolError;

/// An operation that a model may call.
#[async_trait]
pub trait Tool: Debug + Send + Sync + 'static {
    /// Returns what the model is told of the tool; the same for the life of the tool.
    fn spec(&self) -> &ToolSpec;

    /// Returns what a call with this input does to the world. Pure, and called before policy and journal.
    ///
    /// The default assumes the worst.
    fn effects(&self, input: &ToolInput) -> Effects {
        let _ = input;
        Effects::default()
    }

    /// Runs the tool. Output is bounded by the tool.
    ///
    /// # Errors
    ///
    /// Failures that the model can act on may also be an `Ok` whose output is marked as an error; see [`ToolError`] for
    /// which errors reach the model and which end the run.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped on a timeout: whatever it started must end with it. Before that, `context.cancel` is
    /// cancelled when the run is, so that a tool can end softly.
    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError>;
}

/// The input of a call, decoded as the tool's specification says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolInput {
    /// JSON; an object, for tools that follow their schema.
    Json(Value),
    /// Free text.
    Text(String),
}

impl ToolInput {
    /// Decodes JSON input into a type of the tool's.
    ///
    /// # Errors
    ///
    /// [`ToolError::InvalidInput`] with what is wrong, for the model.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ToolError> {
        match self {
            Self::Json(value) => T::deserialize(value)
                .map_err(|error| ToolError::InvalidInput { reason: error.to_string() }),
            Self::Text(_) => Err(ToolError::InvalidInput {
                reason: "this tool takes a JSON object, not free text".into(),
            }),
        }
    }

    /// Decodes one field of JSON input.
    ///
    /// # Errors
    ///
    /// [`ToolError::InvalidInput`] if it is missing or of another type.
    pub fn decode_field<T: DeserializeOwned>(&self, field: &str) -> Result<T, ToolError> {
        let invalid = |reason: String| ToolError::InvalidInput { reason };
        let Self::Json(Value::Object(object)) = self else {
            return Err(invalid("this tool takes a JSON object".into()));
        };
        let value = object.get(field).ok_or_else(|| invalid(format!("missing field `{field}`")))?;
        T::deserialize(value).map_err(|error| invalid(format!("field `{field}`: {error}")))
    }
}

/// What surrounds a call.
#[derive(Debug, Clone)]
pub struct ToolContext {
    /// The run.
    pub run: RunId,
    /// The place of the call in the run.
    pub step: StepId,
    /// The model's name of the call.
    pub call_id: CallId,
    /// Cancelled when the run is.
    pub cancel: CancellationToken,
    /// Who is shown output as it appears.
    pub progress: Option<Arc<dyn ToolProgress>>,
}

/// Someone who is shown what a tool does while it does it, such as a display.
pub trait ToolProgress: Debug + Send + Sync + 'static {
    /// Takes a piece of output; must not block. Pieces may be dropped, and need not end at a character's end.
    fn output(&self, step: StepId, bytes: &[u8]);
}

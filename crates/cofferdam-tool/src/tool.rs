//! [`Tool`], what it is given ([`ToolInput`], [`ToolContext`]) and how it shows progress.
//!
//! # What becomes of a call when the harness dies
//!
//! Before a call starts, its intent is in the journal, with what [`Tool::intend`] returned. If there is no result after a
//! restart, the class of its [`Effects`] decides: what may be run twice is run again, and a call of class
//! [`Probe`](cofferdam_core::EffectClass::Probe) is asked about with [`Tool::probe`]. Nothing is ever guessed: a tool that
//! cannot tell says [`ProbeOutcome::Unknown`], and a person or a policy decides.

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

    /// Returns whether a call with this input reads or changes the sandbox. What a call does elsewhere only (a ledger, a mail
    /// server) is neither lost with a sandbox nor undone with a restored workspace, and is not done again for it. Pure.
    ///
    /// The default is true, which is right for every tool that may.
    fn touches_sandbox(&self, input: &ToolInput) -> bool {
        let _ = input;
        true
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

    /// Returns the facts that [`Tool::probe`] will need to find out what became of this call. Called before the call, after
    /// it was allowed; what it returns is journaled with the intent. It changes nothing and is bounded by the tool.
    ///
    /// The default has none.
    ///
    /// # Errors
    ///
    /// As [`Tool::call`], which is then not made.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    async fn intend(&self, context: &ToolContext, input: &ToolInput) -> Result<Value, ToolError> {
        let _ = (context, input);
        Ok(Value::Null)
    }

    /// Finds out what became of a call that was intended and has no result. `intended` is what [`Tool::intend`] returned
    /// then. If the call still goes on, this waits for its end as the call itself would have.
    ///
    /// The default cannot tell.
    ///
    /// # Errors
    ///
    /// As [`Tool::call`]; the call's outcome stays unknown.
    ///
    /// # Cancel safety
    ///
    /// As [`Tool::call`].
    async fn probe(
        &self,
        context: &ToolContext,
        input: &ToolInput,
        intended: &Value,
    ) -> Result<ProbeOutcome, ToolError> {
        let _ = (context, input, intended);
        Ok(ProbeOutcome::Unknown { why: "the tool cannot find out what became of it".into() })
    }

    /// Called when the result of a call is durable, so that what was kept to find it out can be given up. The default does
    /// nothing.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, something may be kept longer than needed.
    async fn settled(&self, context: &ToolContext) {
        let _ = context;
    }

    /// Called before a run is gone on with, with what its journal says, in the order of the records: each result that a call
    /// of this tool had, and each loss of the sandbox. So a tool with a memory of its own (an open session, a handle that the
    /// model was given) has it again in another process. It may be told the same more than once. The default does nothing.
    fn recall(&self, recalled: &Recalled<'_>) {
        let _ = recalled;
    }
}

/// What a run that is gone on with had come to.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Recalled<'a> {
    /// A call had this result.
    Result {
        /// The place of the call.
        step: StepId,
        /// What the model was told.
        output: &'a ToolOutput,
    },
    /// The sandbox that all calls before this ran in is gone. All tools are told.
    SandboxLost,
}

/// What became of a call that was intended and has no result.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ProbeOutcome {
    /// It was carried out, and this is what it returned or would have returned.
    Finished(ToolOutput),
    /// It was not carried out, not even in part: it may be run.
    NotStarted,
    /// Nobody can tell.
    Unknown {
        /// What is known and what is not, for a person.
        why: String,
    },
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
    /// `RUN/TURN.CALL`: the same each time that this call is made, also after a resume, and never another call's.
    pub idempotency_key: Arc<str>,
    /// Whether somebody was asked about this call, and what the answer was.
    pub approval: ApprovalState,
    /// Cancelled when the run is.
    pub cancel: CancellationToken,
    /// Who is shown output as it appears.
    pub progress: Option<Arc<dyn ToolProgress>>,
}

impl ToolContext {
    /// Makes the context of a call that nobody was asked about, cancels or watches.
    #[must_use]
    pub fn new(run: RunId, step: StepId, call_id: CallId) -> Self {
        let idempotency_key = format!("{run}/{step}").into();
        Self {
            run,
            step,
            call_id,
            idempotency_key,
            approval: ApprovalState::default(),
            cancel: CancellationToken::new(),
            progress: None,
        }
    }
}

/// Whether somebody was asked about a call, as the journal tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ApprovalState {
    /// Nobody was asked.
    #[default]
    Unasked,
    /// Somebody was asked and has not answered.
    Asked,
    /// Somebody said yes.
    Approved,
    /// Somebody said no.
    Refused {
        /// Why; told to the model.
        reason: String,
    },
}

/// Someone who is shown what a tool does while it does it, such as a display.
pub trait ToolProgress: Debug + Send + Sync + 'static {
    /// Takes a piece of output; must not block. Pieces may be dropped, and need not end at a character's end.
    fn output(&self, step: StepId, bytes: &[u8]);
}

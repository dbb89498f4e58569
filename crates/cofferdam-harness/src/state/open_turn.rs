//! [`OpenTurn`]: the calls of an answer whose results are not all there, and how far each is.

use cofferdam_core::{Effects, Item, StepId, ToolCall, ToolOutput, ToolResult};
use serde_json::Value;

/// The calls of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenTurn {
    /// The turn.
    pub turn: u32,
    /// The calls, in the order of the answer.
    pub calls: Vec<OpenCall>,
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenCall {
    /// Its place.
    pub step: StepId,
    /// The call as the model made it.
    pub call: ToolCall,
    /// How far it is.
    pub state: CallState,
}

/// How far a call is.
#[derive(Debug, Clone, PartialEq)]
pub enum CallState {
    /// It was not begun, or is to be run again.
    Waiting,
    /// It was begun, and has no result: it runs, or what became of it is not known.
    Intended(Intent),
    /// It has its result.
    Settled(ToolOutput),
}

/// What was recorded before a call began.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// What it does to the world.
    pub effects: Effects,
    /// What its tool wrote down to find out what became of it.
    pub probe: Value,
    /// The sandbox that it ran in is gone, and another in its place.
    pub is_world_lost: bool,
}

impl Intent {
    pub(crate) fn new(effects: Effects, probe: Value) -> Self {
        Self { effects, probe, is_world_lost: false }
    }
}

impl OpenTurn {
    pub(crate) fn new<'a>(turn: u32, items: impl Iterator<Item = &'a Item>) -> Self {
        let calls = items.filter_map(|item| match item {
            Item::ToolCall(call) => Some(call.clone()),
            _ => None,
        });
        let calls = (0..)
            .zip(calls)
            .map(|(place, call)| OpenCall {
                step: StepId { turn, call: place },
                call,
                state: CallState::Waiting,
            })
            .collect();
        Self { turn, calls }
    }

    /// Returns a call.
    #[must_use]
    pub fn call(&self, step: StepId) -> Option<&OpenCall> {
        self.calls.iter().find(|call| call.step == step)
    }

    pub(crate) fn call_mut(&mut self, step: StepId) -> Option<&mut OpenCall> {
        let place = usize::try_from(step.call).ok()?;
        self.calls.get_mut(place).filter(|call| call.step == step)
    }

    pub(crate) fn intended(&self) -> impl Iterator<Item = &OpenCall> {
        self.calls.iter().filter(|call| matches!(call.state, CallState::Intended(_)))
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = &OpenCall> {
        self.calls.iter().filter(|call| matches!(call.state, CallState::Waiting))
    }

    pub(crate) fn lose_world(&mut self) {
        for call in &mut self.calls {
            if let CallState::Intended(intent) = &mut call.state {
                intent.is_world_lost = true;
            }
        }
    }
}

impl OpenCall {
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.state, CallState::Settled(_))
    }

    /// Returns the result; of a call that has none, what is known.
    pub(crate) fn result_as_known(&self) -> ToolResult {
        let output = match &self.state {
            CallState::Settled(output) => output.clone(),
            CallState::Waiting => ToolOutput::error(
                "This call was not run: the work went on elsewhere. Make it again if it is still needed.",
            ),
            CallState::Intended(_) => {
                ToolOutput::error(unknown_outcome("the work went on elsewhere while it ran"))
            }
        };
        ToolResult {
            call_id: self.call.call_id.clone(),
            name: self.call.name.clone(),
            kind: self.call.kind.clone(),
            output,
        }
    }
}

/// What the model is told of a call whose outcome is unknown.
pub(crate) fn unknown_outcome(why: &str) -> String {
    format!(
        "The outcome of this call is unknown: {why}. It may have had its effect, in whole or in part, or not at all. Look at what \
         is there before you make it again."
    )
}

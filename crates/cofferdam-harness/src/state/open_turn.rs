//! [`OpenTurn`]: the calls of an answer whose results are not all there, and how far each is.

use std::sync::Arc;

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
    Settled {
        /// What the model is told.
        output: ToolOutput,
        /// What was recorded before it was carried out, if it was.
        ran: Option<Intent>,
    },
}

/// What was recorded before a call began.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// What it does to the world.
    pub effects: Effects,
    /// What its tool wrote down to find out what became of it.
    pub probe: Value,
    /// It leaves the sandbox alone.
    pub outside: bool,
    /// The sandbox that it ran in is gone, and another in its place.
    pub is_world_lost: bool,
}

impl Intent {
    pub(crate) fn new(effects: Effects, outside: bool, probe: Value) -> Self {
        Self { effects, probe, outside, is_world_lost: false }
    }

    /// Whether whatever it did is gone with its sandbox.
    pub(crate) fn stays_inside(&self) -> bool {
        !self.outside && !self.effects.network
    }

    /// Whether it may change the workspace.
    pub(crate) fn writes_inside(&self) -> bool {
        self.effects.writes && !self.outside
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

    /// Takes back the results of calls that changed the workspace, which was restored: they wait again.
    pub(crate) fn take_back(&mut self) {
        for call in self.calls.iter_mut().filter(|call| !call.stands()) {
            call.state = CallState::Waiting;
        }
    }

    /// Gives calls the results that they had when the turn was over, where these stand.
    pub(crate) fn restore_results(&mut self, told: &[Arc<Item>], stands: &[bool]) {
        for ((call, item), stands) in self.calls.iter_mut().zip(told).zip(stands) {
            if let (Item::ToolResult(result), true) = (&**item, stands) {
                call.state = CallState::Settled { output: result.output.clone(), ran: None };
            }
        }
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
        matches!(self.state, CallState::Settled { .. })
    }

    /// Whether what is known of it holds if the workspace is restored: it did not change the workspace, as far as is known.
    pub(crate) fn stands(&self) -> bool {
        !matches!(&self.state, CallState::Settled { ran: Some(intent), .. } if intent.writes_inside())
    }

    /// Returns the result; of a call that has none, what is known.
    pub(crate) fn result_as_known(&self) -> ToolResult {
        let output = match &self.state {
            CallState::Settled { output, .. } => output.clone(),
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

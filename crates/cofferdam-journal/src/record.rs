//! [`RecordBody`]: what a record says. How records are numbered, chained and written is in [`chain`](crate::chain).

use cofferdam_core::{Effects, Item, StepId, ToolOutput, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RecordBody {
    /// A run began.
    RunStarted {
        /// The agent's name.
        agent: String,
        /// Hashes of what the run was set up with, by name (`instructions`, `tools`, `settings`).
        fingerprints: std::collections::BTreeMap<String, String>,
        /// The input.
        input: Vec<Item>,
    },
    /// A request is about to be sent to the model.
    ModelRequested {
        /// The turn, from 1.
        turn: u32,
        /// Items of the conversation that it holds.
        items: u64,
    },
    /// The model's whole answer, before anything acts on it.
    ModelResponded {
        /// The turn, from 1.
        turn: u32,
        /// The provider's id of the answer.
        response_id: Option<String>,
        /// The items.
        items: Vec<Item>,
        /// What it cost.
        usage: Usage,
    },
    /// A tool call is about to run.
    ToolIntended {
        /// Its place.
        step: StepId,
        /// The tool.
        tool: String,
        /// BLAKE3 of the input as the model wrote it, in hex.
        input_hash: String,
        /// What it does to the world.
        effects: Effects,
        /// The key by which a repeat can be told apart: run and step, so it is the same after a resume.
        idempotency_key: String,
    },
    /// A tool call ended.
    ToolFinished {
        /// Its place.
        step: StepId,
        /// What the model is told; `None` if the call failed in a way that ends the run.
        output: Option<ToolOutput>,
        /// The failure, in words.
        error: Option<String>,
    },
    /// A tool call was refused before it began: unknown, malformed or denied.
    ToolRefused {
        /// Its place.
        step: StepId,
        /// The tool.
        tool: String,
        /// Why.
        reasons: Vec<String>,
    },
    /// The run ended.
    RunFinished {
        /// How.
        outcome: RunOutcome,
        /// What it cost in all.
        usage: Usage,
    },
    /// A record of a kind that is not known here, as it was written.
    #[serde(untagged)]
    Unknown(Value),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunOutcome {
    /// The model answered without calling a tool.
    Completed,
    /// It failed.
    Failed {
        /// How, in words.
        error: String,
    },
    /// It was cancelled.
    Cancelled,
    /// An outcome that is not known here, as it was written.
    #[serde(untagged)]
    Unknown(Value),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_records_round_trip() {
        let body: RecordBody = serde_json::from_str(r#"{"kind":"time_travelled","by":3}"#).unwrap();
        assert!(matches!(body, RecordBody::Unknown(_)));
        assert_eq!(serde_json::to_string(&body).unwrap(), r#"{"by":3,"kind":"time_travelled"}"#);
    }
}

//! [`RecordBody`]: what the records of a run say.
//!
//! A field that was added to a kind is left out where it is empty, so that older records are written as they were.

use std::{collections::BTreeMap, fmt};

use cofferdam_core::{Effects, Item, RunId, StepId, ToolOutput, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Seq;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RecordBody {
    /// A run began.
    RunStarted {
        /// The agent's name.
        agent: String,
        /// Hashes of what the run was set up with, by name (`instructions`, `settings`, `tool:NAME`, and whatever the caller
        /// adds, such as `policy` and `manifest`).
        fingerprints: BTreeMap<String, String>,
        /// The input; of a fork, the conversation that it goes on from.
        input: Vec<Item>,
        /// The text behind a fingerprint, where it is short, so that a difference can be shown later.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        texts: BTreeMap<String, String>,
        /// The run that this one goes on from, if it is a fork.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Fork>,
        /// The bounds that it began with, for readers; a resumed run takes those of its own request.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        options: Value,
    },
    /// A process goes on with a run that an earlier one had begun.
    RunResumed {
        /// Who goes on with it.
        owner: String,
        /// The last record that was there.
        records: Seq,
    },
    /// The run has a sandbox.
    SandboxStarted {
        /// The backend's handle of it.
        state: Value,
        /// What the workspace was filled from, if it has a name (the hash of a tree, a checkpoint).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tree: Option<String>,
    },
    /// The sandbox is gone, and with it what was changed in it since the last checkpoint.
    SandboxLost {
        /// What ended it.
        reason: String,
    },
    /// A fresh sandbox is in the place of the lost one.
    SandboxReplaced {
        /// The backend's handle of the fresh one.
        state: Value,
        /// The checkpoint that its workspace was restored from; `None`: it was filled as at the run's start.
        checkpoint: Option<String>,
        /// Losses since the run was started or resumed, this one included.
        attempt: u32,
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
        /// Why the answer was cut short, if it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cut: Option<String>,
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
        /// What the tool will need to find out what became of the call, as it wrote it.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        probe: Value,
        /// It leaves the sandbox alone: what it does is neither lost nor undone with the workspace.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        outside: bool,
    },
    /// A tool call ended. A call that ended with the sandbox or with the run has no such record: what became of it is not
    /// known.
    ToolFinished {
        /// Its place.
        step: StepId,
        /// What the model is told; `None` if the call failed.
        output: Option<ToolOutput>,
        /// The failure, in words; the model is told these.
        error: Option<String>,
    },
    /// A tool call was refused before it began: unknown, malformed or denied. The model is told why.
    ToolRefused {
        /// Its place.
        step: StepId,
        /// The tool.
        tool: String,
        /// Why.
        reasons: Vec<String>,
    },
    /// It was decided what becomes of a call that had an intent and no result.
    ToolResolved {
        /// Its place.
        step: StepId,
        /// How.
        how: Resolution,
        /// What that rests on, in words.
        why: String,
        /// What the model is told, if the call is over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<ToolOutput>,
    },
    /// A call waits for somebody's approval.
    ApprovalAsked {
        /// Its place.
        step: StepId,
        /// The tool.
        tool: String,
        /// BLAKE3 of the input as the model wrote it, in hex.
        input_hash: String,
        /// Why it needs approval.
        reasons: Vec<String>,
    },
    /// Somebody answered.
    ApprovalGiven {
        /// The call's place.
        step: StepId,
        /// The answer.
        verdict: ApprovalVerdict,
        /// Who answered.
        by: String,
        /// Why; the model is told where the answer is no.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Somebody decided what no rule could.
    DecisionGiven {
        /// The call that it is about; `None` if it is about the run.
        step: Option<StepId>,
        /// The decision.
        decision: Decision,
        /// Who decided.
        by: String,
        /// Why.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// More for the model to read, from outside the run. It is told with its next request.
    InputGiven {
        /// The items.
        items: Vec<Item>,
        /// What tells a repeat apart, where somebody gave them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// The run stands still until somebody acts; nothing of it lives meanwhile.
    RunPaused {
        /// What it waits for.
        reason: PauseReason,
    },
    /// The workspace can be restored to what it was at a record.
    CheckpointTaken {
        /// The checkpoint's name.
        checkpoint: String,
        /// The record whose state the workspace had.
        at: Seq,
        /// Answers of the model by then.
        turn: u32,
        /// The snapshot of the workspace, if the checkpoint has one.
        snapshot: Option<String>,
        /// The backend's handle of the sandbox.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        sandbox: Value,
        /// What taking it cost and what was left out, as the keeper reports it.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        receipt: Value,
        /// Commands that were running meanwhile: their memory is not in the checkpoint, and files that they write may be half
        /// written.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        running: Vec<String>,
    },
    /// The workspace is that of an earlier record, so what came after it did not happen, as far as the conversation goes.
    RunRewound {
        /// The last record that still holds.
        to: Seq,
        /// The checkpoint that the workspace was restored from; `None`: it was filled as at the run's start.
        checkpoint: Option<String>,
        /// Why.
        reason: String,
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
    /// It failed. It can be resumed once the cause is gone.
    Failed {
        /// How, in words.
        error: String,
    },
    /// It was cancelled. It can be resumed.
    Cancelled,
    /// Somebody decided that it ends here.
    Aborted,
    /// An outcome that is not known here, as it was written.
    #[serde(untagged)]
    Unknown(Value),
}

/// The place in another run that a run goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The other run.
    pub run: RunId,
    /// The last of its records that holds for this one too.
    pub seq: Seq,
    /// The checkpoint that the workspace was restored from, if it was.
    pub checkpoint: Option<String>,
}

/// What became of a call that had an intent and no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resolution {
    /// It is run again.
    RunAgain,
    /// Its real result was found.
    Probed,
    /// The model is told that the outcome is unknown.
    Told,
    /// A way that is not known here, as it was spelt.
    #[serde(untagged)]
    Unknown(String),
}

/// Somebody's answer to a call that needs approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ApprovalVerdict {
    /// Run it.
    Approved,
    /// Do not run it.
    Refused,
    /// An answer that is not known here, as it was spelt; it is read as a refusal.
    #[serde(untagged)]
    Unknown(String),
}

/// What somebody decides where the truth cannot be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decision {
    /// Run the call again: it did not happen, or twice is as good as once.
    RunAgain,
    /// Tell the model that the outcome is unknown, and go on.
    TellModel,
    /// Go on with the workspace as it is, although it is older than what the model was told; the model is told so.
    AcceptWorkspace,
    /// End the run.
    Abort,
    /// A decision that is not known here, as it was spelt.
    #[serde(untagged)]
    Unknown(String),
}

/// What a paused run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wait_for", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PauseReason {
    /// An answer to each of these calls.
    Approval {
        /// The calls.
        steps: Vec<StepId>,
    },
    /// A decision on a call whose outcome is unknown.
    Decision {
        /// The call.
        step: StepId,
        /// The tool.
        tool: String,
        /// What is known, and what is not.
        why: String,
    },
    /// A decision on the workspace: it is older than what was done outside of it.
    Workspace {
        /// The checkpoint that the workspace has; `None`: it is as at the run's start.
        checkpoint: Option<String>,
        /// What was done since, and why it cannot be undone.
        why: String,
    },
    /// Somebody who looks why its sandboxes die.
    Losses {
        /// How many were lost.
        losses: u32,
        /// What ended the last one.
        last: String,
    },
    /// A store that takes checkpoints again, or somebody who makes one.
    Keeper {
        /// What failed, in words.
        error: String,
    },
    /// Something that is not known here, as it was written.
    #[serde(untagged)]
    Unknown(Value),
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Approval { steps } => {
                let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
                write!(f, "approval of step {}", steps.join(", "))
            }
            Self::Decision { step, tool, why } => {
                write!(f, "a decision on step {step} ({tool}), whose outcome is unknown: {why}")
            }
            Self::Workspace { checkpoint: Some(checkpoint), why } => {
                write!(
                    f,
                    "a decision on the workspace, which is that of checkpoint {checkpoint}: {why}"
                )
            }
            Self::Workspace { checkpoint: None, why } => {
                write!(f, "a decision on the workspace, which is that of the run's start: {why}")
            }
            Self::Losses { losses, last } => {
                write!(
                    f,
                    "a host on which sandboxes live: {losses} were lost, the last because {last}"
                )
            }
            Self::Keeper { error } => write!(f, "checkpoints, which fail: {error}"),
            Self::Unknown(value) => write!(f, "something that this release does not know: {value}"),
        }
    }
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

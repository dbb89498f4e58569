//! [`Story`]: a journal read record by record. Nothing is done that was done already, unless the run went back to before it.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_core::Item;
use cofferdam_journal::{Record, RecordBody, Resolution};

use crate::tools::names::APPLY_PATCH;

/// What a journal tells.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// Requests to the model.
    pub(super) requests: usize,
    /// Answers of the model that hold.
    pub(super) answers: u32,
    /// Steps that were ever intended.
    pub(super) ever_intended: BTreeSet<String>,
    /// Steps that a person answered.
    pub(super) approved: BTreeSet<String>,
    /// Calls of which the model was told that their outcome is unknown.
    pub(super) told: BTreeSet<String>,
    /// Whether one of those changes the workspace, which is then changed in part.
    pub(super) told_of_patch: bool,
    /// What does not fit.
    pub(super) wrong: Vec<String>,
    /// What holds: steps that were intended, steps that have a result, the number of the last answer.
    intended: BTreeSet<String>,
    finished: BTreeSet<String>,
    turn: u32,
    /// Tools by step.
    tools: BTreeMap<String, String>,
    /// The model's names for the calls, by step.
    calls: BTreeMap<String, String>,
}

pub(super) fn is_rewind(record: &Record) -> bool {
    matches!(record.body, RecordBody::RunRewound { .. })
}

impl Story {
    pub(super) fn read(records: &[Record]) -> Self {
        let mut story = Self::default();
        for (at, record) in records.iter().enumerate() {
            if let RecordBody::RunRewound { to, .. } = &record.body {
                let holding = records[..at].partition_point(|earlier| earlier.seq <= *to);
                story.go_back(Self::read(&records[..holding]));
            }
            story.take(record);
        }
        story
    }

    /// Takes up what held after these records.
    fn go_back(&mut self, before: Self) {
        self.intended = before.intended;
        self.finished = before.finished;
        self.answers = before.answers;
    }

    fn take(&mut self, record: &Record) {
        let seq = record.seq.0;
        match &record.body {
            RecordBody::ModelRequested { turn, .. } => {
                self.requests += 1;
                if *turn <= self.turn {
                    self.wrong.push(format!("record {seq}: turn {turn} had its answer already"));
                }
            }
            RecordBody::ModelResponded { turn, items, .. } => {
                if *turn <= self.turn {
                    self.wrong.push(format!("record {seq}: turn {turn} is answered twice"));
                }
                self.turn = *turn;
                self.answers += 1;
                let calls = items.iter().filter_map(|item| match item {
                    Item::ToolCall(call) => Some(call.call_id.to_string()),
                    _ => None,
                });
                self.calls.extend((0_u32..).map(|call| format!("{turn}.{call}")).zip(calls));
            }
            RecordBody::ToolIntended { step, tool, .. } => {
                let step = step.to_string();
                self.tools.insert(step.clone(), tool.clone());
                if self.finished.contains(&step) {
                    self.wrong.push(format!("record {seq}: step {step} had its result already"));
                }
                self.ever_intended.insert(step.clone());
                self.intended.insert(step);
            }
            RecordBody::ToolFinished { step, .. } => {
                let step = step.to_string();
                if !self.intended.contains(&step) {
                    self.wrong
                        .push(format!("record {seq}: step {step} has a result and no intent"));
                }
                if !self.finished.insert(step.clone()) {
                    self.wrong.push(format!("record {seq}: step {step} has two results"));
                }
            }
            RecordBody::ToolResolved { step, how, output, .. } => {
                let step = step.to_string();
                if self.finished.contains(&step) {
                    self.wrong.push(format!("record {seq}: step {step} was not in doubt"));
                }
                if *how == Resolution::Told {
                    self.told.extend(self.calls.get(&step).cloned());
                    self.told_of_patch |= self.tools.get(&step).is_some_and(|it| it == APPLY_PATCH);
                }
                if output.is_some() {
                    self.finished.insert(step);
                }
            }
            RecordBody::ApprovalGiven { step, .. } => {
                self.approved.insert(step.to_string());
            }
            _ => {}
        }
    }
}

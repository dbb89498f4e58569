//! What must hold after a process died, and when a run is done.
//!
//! The judge trusts nobody: it compares the ledger, which no part of the product writes, with the journal as it is on disk, and the
//! end of the run with the end of one that nobody disturbed. What it finds wrong is a list of sentences.
//!
//! - `story`: the journal, read record by record.

mod story;

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_journal::{Decision, Record, RecordBody};

use self::story::Story;
use crate::{
    ending::Final,
    ledger::{Deed, Line},
    tools::names,
};

/// What a run that nobody disturbed left behind.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Its end.
    pub end: Final,
    /// Its effects: tool and deed. No two are the same.
    pub effects: BTreeSet<(String, String)>,
}

impl Expected {
    /// Takes the undisturbed run for what is expected.
    #[must_use]
    pub fn of(end: Final, lines: &[Line]) -> Self {
        let owned = |(_, tool, what): (&str, &str, &str)| (tool.to_owned(), what.to_owned());
        Self { effects: effects(lines).map(owned).collect(), end }
    }
}

fn effects(lines: &[Line]) -> impl Iterator<Item = (&str, &str, &str)> {
    lines.iter().filter_map(|line| match &line.deed {
        Deed::Effect { step, tool, what, .. } => Some((&**step, &**tool, &**what)),
        _ => None,
    })
}

/// Watches one run from process to process.
#[derive(Debug, Default)]
pub struct Judge {
    /// Answers of the model that the last process left in the journal.
    answered: u32,
    /// Calls that a person had answered.
    approved: BTreeSet<String>,
    /// Records that it left.
    records: usize,
}

impl Judge {
    /// Looks at what the process of this number left, which may have been killed at any moment.
    #[must_use]
    pub fn after(&mut self, process: u32, lines: &[Line], records: &[Record]) -> Vec<String> {
        let story = Story::read(records);
        let mut wrong = story.wrong.clone();
        for (step, tool, _) in effects(lines) {
            if !story.ever_intended.contains(step) {
                wrong.push(format!(
                    "step {step} ({tool}) took effect and the journal has no intent of it"
                ));
            }
        }
        let asked = |line: &&Line| matches!(line.deed, Deed::Asked { .. });
        let times = lines.iter().filter(asked).count();
        if times > story.requests {
            wrong.push(format!(
                "the model was asked {times} times, and the journal has {} requests",
                story.requests
            ));
        }
        for line in lines.iter().filter(|line| line.process == process) {
            if let Deed::Approval { step } = &line.deed
                && self.approved.contains(step)
            {
                wrong.push(format!(
                    "a person was asked again about step {step}, and the answer was in the journal"
                ));
            }
        }
        let new = records.get(self.records..).unwrap_or_default();
        if !new.iter().any(story::is_rewind) {
            for line in lines.iter().filter(|line| line.process == process) {
                if let Deed::Asked { turn } = line.deed
                    && turn <= self.answered
                {
                    wrong.push(format!(
                        "the model was asked again for answer {turn}, which was in the journal"
                    ));
                }
            }
        }
        if records.len() < self.records {
            wrong.push(format!(
                "the journal has {} records, after {} before",
                records.len(),
                self.records
            ));
        }
        (self.answered, self.approved, self.records) =
            (story.answers, story.approved, records.len());
        wrong
    }
}

/// Looks at the end of a run, of which the model was told some things that it would not have been told without the crashes.
#[must_use]
pub fn at_the_end(
    expected: &Expected,
    end: &Final,
    lines: &[Line],
    notices: &Notices,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut done: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for (_, tool, what) in effects(lines) {
        *done.entry((tool, what)).or_default() += 1;
    }
    for (tool, what) in &expected.effects {
        let times = done.remove(&(&**tool, &**what)).unwrap_or_default();
        let may_repeat = tool == names::SET;
        if times == 0 || (times > 1 && !may_repeat) {
            wrong.push(format!("`{tool}: {what}` took effect {times} times"));
        }
    }
    for ((tool, what), times) in done {
        wrong.push(format!("`{tool}: {what}` took effect {times} times, and nobody asked for it"));
    }
    if end.output != expected.end.output {
        wrong.push(format!("the output is {:?}, not {:?}", end.output, expected.end.output));
    }
    if notices.other_workspace {
        // The model went on from another workspace and was told so: what it found there, and said of it, is its own.
        return wrong;
    }
    let (items, wanted) = (&end.conversation, &expected.end.conversation);
    if items.len() != wanted.len() {
        wrong.push(format!(
            "the conversation has {} items, not {}: {}",
            items.len(),
            wanted.len(),
            serde_json::to_string(items).unwrap_or_default()
        ));
    }
    for (at, (item, wanted)) in items.iter().zip(wanted).enumerate() {
        let is_told = |call: &str| notices.unknown.contains(call);
        let may_differ = item["type"] == "tool_result"
            && item["call_id"] == wanted["call_id"]
            && item["call_id"].as_str().is_some_and(is_told);
        if item != wanted && !may_differ {
            wrong.push(format!("item {at} of the conversation is {item}, not {wanted}"));
        }
    }
    if end.workspace != expected.end.workspace {
        wrong.push(format!(
            "the workspace is {:?}, not {:?}",
            end.workspace, expected.end.workspace
        ));
    }
    wrong
}

/// What the model was told that it would not have been told without the crashes, because somebody decided so.
#[derive(Debug, Clone, Default)]
pub struct Notices {
    /// Calls of which it was told that their outcome is unknown, by its own names for them.
    pub unknown: BTreeSet<String>,
    /// Whether it was told that the workspace is another than it knows, older or patched in part.
    pub other_workspace: bool,
}

impl Notices {
    /// Reads them off a journal.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let accepted = |record: &Record| {
            matches!(
                record.body,
                RecordBody::DecisionGiven { decision: Decision::AcceptWorkspace, .. }
            )
        };
        let story = Story::read(records);
        let other_workspace = story.told_of_patch || records.iter().any(accepted);
        Self { unknown: story.told, other_workspace }
    }
}

#[cfg(test)]
mod tests;

//! What must hold after a process died, and when a run is done.
//!
//! The judge trusts nobody: it compares the ledger, which no part of the product writes, with the journal as it is on disk, and the
//! end of the run with the end of one that nobody disturbed. What it finds wrong is a list of sentences.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_journal::{Record, RecordBody};
use serde_json::Value;

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
    /// Its effects: tool and deed, by step.
    pub effects: BTreeMap<String, (String, String)>,
}

impl Expected {
    /// Takes the undisturbed run for what is expected.
    #[must_use]
    pub fn of(end: Final, lines: &[Line]) -> Self {
        let effects = effects(lines).map(|(step, tool, what)| (step.to_owned(), (tool.to_owned(), what.to_owned())));
        Self { effects: effects.collect(), end }
    }
}

fn effects(lines: &[Line]) -> impl Iterator<Item = (&str, &str, &str)> {
    lines.iter().filter_map(|line| match &line.deed {
        Deed::Effect { step, tool, what, .. } => Some((&**step, &**tool, &**what)),
        _ => None,
    })
}

/// Looks at what a process left that may have been killed at any moment.
#[must_use]
pub fn after_a_process(lines: &[Line], records: &[Record]) -> Vec<String> {
    let mut wrong = Vec::new();
    let intended: BTreeSet<String> = records
        .iter()
        .filter_map(|record| match &record.body {
            RecordBody::ToolIntended { step, .. } => Some(step.to_string()),
            _ => None,
        })
        .collect();
    for (step, tool, _) in effects(lines) {
        if !intended.contains(step) {
            wrong.push(format!("step {step} ({tool}) took effect and the journal has no intent of it"));
        }
    }
    let mut asked: BTreeMap<u32, u64> = BTreeMap::new();
    for line in lines {
        if let Deed::Asked { turn } = line.deed {
            *asked.entry(turn).or_default() += 1;
        }
    }
    for (turn, times) in asked {
        let requested = records
            .iter()
            .filter(|record| matches!(record.body, RecordBody::ModelRequested { turn: it, .. } if it == turn))
            .count() as u64;
        if times > requested {
            wrong.push(format!(
                "the model was asked {times} times for turn {turn}, and the journal has {requested} requests"
            ));
        }
    }
    wrong.extend(out_of_order(records));
    wrong
}

/// Reads the journal as a story: nothing is done that was done already, unless the run went back to before it.
fn out_of_order(records: &[Record]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut told = Told::default();
    for (at, record) in records.iter().enumerate() {
        let seq = record.seq.0;
        match &record.body {
            RecordBody::RunRewound { to, .. } => {
                told = Told::default();
                for earlier in records[..at].iter().filter(|earlier| earlier.seq <= *to) {
                    told.take(&earlier.body);
                }
            }
            RecordBody::ModelRequested { turn, .. } | RecordBody::ModelResponded { turn, .. }
                if *turn <= told.answered =>
            {
                wrong.push(format!("record {seq}: turn {turn} had its answer already"));
            }
            RecordBody::ToolIntended { step, .. } | RecordBody::ToolFinished { step, .. }
                if told.finished.contains(&step.to_string()) =>
            {
                wrong.push(format!("record {seq}: step {step} had its result already"));
            }
            RecordBody::ToolFinished { step, .. } if !told.intended.contains(&step.to_string()) => {
                wrong.push(format!("record {seq}: step {step} has a result and no intent"));
            }
            _ => {}
        }
        told.take(&record.body);
    }
    wrong
}

#[derive(Debug, Default)]
struct Told {
    answered: u32,
    intended: BTreeSet<String>,
    finished: BTreeSet<String>,
}

impl Told {
    fn take(&mut self, body: &RecordBody) {
        match body {
            RecordBody::ModelResponded { turn, .. } => self.answered = *turn,
            RecordBody::ToolIntended { step, .. } => {
                self.intended.insert(step.to_string());
            }
            RecordBody::ToolFinished { step, .. } => {
                self.finished.insert(step.to_string());
            }
            _ => {}
        }
    }
}

/// Looks at the end of a run. The results of the steps in `decided` were decided by a person, who may word them differently.
#[must_use]
pub fn at_the_end(
    expected: &Expected,
    end: &Final,
    lines: &[Line],
    decided: &BTreeSet<String>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut done: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for (step, tool, what) in effects(lines) {
        done.entry(step).or_default().push((tool, what));
    }
    for (step, (tool, what)) in &expected.effects {
        let times = done.remove(&**step).unwrap_or_default();
        if times.iter().any(|it| *it != (&**tool, &**what)) {
            wrong.push(format!("step {step} did {times:?}, not {tool}: {what}"));
        }
        let may_repeat = tool == names::SET;
        if times.is_empty() || (times.len() > 1 && !may_repeat) {
            wrong.push(format!("step {step} ({tool}: {what}) took effect {} times", times.len()));
        }
    }
    for (step, times) in done {
        wrong.push(format!("step {step} did {times:?}, which no step of the run does"));
    }
    if end.output != expected.end.output {
        wrong.push(format!("the output is {:?}, not {:?}", end.output, expected.end.output));
    }
    if end.conversation.len() != expected.end.conversation.len() {
        wrong.push(format!(
            "the conversation has {} items, not {}",
            end.conversation.len(),
            expected.end.conversation.len()
        ));
    }
    let steps = steps(&expected.end.conversation);
    for (at, (item, wanted)) in end.conversation.iter().zip(&expected.end.conversation).enumerate() {
        let by_decision = steps.get(&at).is_some_and(|step| decided.contains(step));
        if item != wanted && !by_decision {
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

/// Returns the steps whose results are in a conversation, by their place in it.
fn steps(conversation: &[Value]) -> BTreeMap<usize, String> {
    let mut steps = BTreeMap::new();
    let mut by_call: BTreeMap<String, String> = BTreeMap::new();
    let (mut turn, mut call, mut in_answer) = (0, 0, false);
    for (at, item) in conversation.iter().enumerate() {
        let by_model = item["type"] == "tool_call" || item["role"] == "assistant";
        if by_model && !in_answer {
            turn += 1;
            call = 0;
        }
        in_answer = by_model;
        let id = item["call_id"].as_str().unwrap_or_default();
        match item["type"].as_str() {
            Some("tool_call") => {
                by_call.insert(id.to_owned(), format!("{turn}.{call}"));
                call += 1;
            }
            Some("tool_result") => {
                if let Some(step) = by_call.get(id) {
                    steps.insert(at, step.clone());
                }
            }
            _ => {}
        }
    }
    steps
}

//! [`RunState`]: what a run's records say, and what is to happen next. Pure: no I/O, no time of its own.
//!
//! Fresh and resumed runs are one: the loop writes a record, the record is folded, and the state says what is next. A
//! process that takes a run over folds what is there and is where the former one was.
//!
//! - [`open_turn`]: the calls of an answer whose results are not all there.
//! - `marks`: where each turn began, so that a workspace of an earlier moment can be matched by the conversation.
//!
//! Memory is that of the conversation, and some bytes a turn.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cofferdam_core::{Item, Message, Role, StepId, Timestamp, ToolOutput, Usage};
use cofferdam_journal::{
    ApprovalVerdict, Decision, Fork, PauseReason, Record, RecordBody, Resolution, RunOutcome, Seq,
};
use cofferdam_tool::ApprovalState;

use crate::{CheckpointTaken, Checkpoints, GivenDecision};

mod marks;
pub mod open_turn;

pub use marks::Restored;
use marks::{Marks, Rewound};
pub use open_turn::{CallState, Intent, OpenCall, OpenTurn};

/// What the records of a run say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunState {
    seq: Seq,
    begun: Option<Begun>,
    history: Vec<Arc<Item>>,
    turn: u32,
    tool_calls: u32,
    usage: Usage,
    marks: Marks,
    open: Option<OpenTurn>,
    words: Option<LastWords>,
    approvals: BTreeMap<StepId, ApprovalState>,
    decisions: BTreeMap<Option<StepId>, GivenDecision>,
    /// Everything that was said from outside, so that a rewound run hears it again.
    inputs: Vec<(Seq, Vec<Arc<Item>>)>,
    /// The keys of what was said from outside.
    keys: BTreeSet<String>,
    /// What was said from outside while calls ran.
    unheard: Vec<Arc<Item>>,
    checkpoints: Vec<CheckpointTaken>,
    lost: Option<String>,
    /// The workspace is that of this checkpoint and record, and nothing was done in it yet.
    restored: Option<(Option<String>, Seq)>,
    losses: u32,
    pause: Option<PauseReason>,
    outcome: Option<RunOutcome>,
    stopped: Seq,
    active_ms: u64,
    last_time: Timestamp,
}

/// What a run began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The agent's name.
    pub agent: String,
    /// Hashes of the set-up by name.
    pub fingerprints: BTreeMap<String, String>,
    /// The short texts behind them.
    pub texts: BTreeMap<String, String>,
    /// The run that it goes on from, if it is a fork.
    pub parent: Option<Fork>,
}

/// An answer that calls no tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastWords {
    /// The text of the answer.
    pub text: String,
    /// Why it was cut short, if it was.
    pub cut: Option<String>,
}

/// What is to happen next in a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// It has not begun.
    Start,
    /// The sandbox is gone: replace it.
    Recover {
        /// What ended it.
        reason: String,
    },
    /// The workspace is older than the conversation: go back to this record, which is right.
    Rewind {
        /// The last record that holds.
        to: Seq,
        /// The checkpoint that the workspace has.
        checkpoint: Option<String>,
    },
    /// The workspace is older than the conversation, and what was done since cannot be undone: somebody must decide.
    DecideWorkspace {
        /// The checkpoint that the workspace has.
        checkpoint: Option<String>,
        /// What was done since.
        why: String,
    },
    /// These calls were intended and have no result: find out what became of them.
    Resolve {
        /// The calls, in order.
        steps: Vec<StepId>,
    },
    /// Calls are to be run: those of the open turn that wait.
    RunCalls,
    /// The model is to be asked.
    AskModel {
        /// The turn that its answer begins.
        turn: u32,
    },
    /// The model was done.
    Done(LastWords),
    /// The run is over.
    Finished(RunOutcome),
}

impl RunState {
    /// Folds records that follow each other, from the first.
    pub fn from_records<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut state = Self::default();
        for record in records {
            state.fold(record.seq, record.time, &record.body);
        }
        state
    }

    /// Takes one record in. Records of kinds that are not known here change nothing but the count.
    pub fn fold(&mut self, seq: Seq, time: Timestamp, body: &RecordBody) {
        self.seq = seq;
        self.clock(time, body);
        match body {
            RecordBody::RunStarted { agent, fingerprints, input, texts, parent, .. } => {
                self.begun = Some(Begun {
                    agent: agent.clone(),
                    fingerprints: fingerprints.clone(),
                    texts: texts.clone(),
                    parent: parent.clone(),
                });
                self.history = input.iter().cloned().map(Arc::new).collect();
                self.marks.begin(seq, self.history.len());
            }
            RecordBody::RunResumed { .. } => {
                self.losses = 0;
                self.pause = None;
                self.outcome = None;
            }
            RecordBody::SandboxLost { reason } => {
                self.lost = Some(reason.clone());
                self.losses += 1;
            }
            RecordBody::SandboxReplaced { checkpoint, .. } => self.replace_sandbox(checkpoint),
            RecordBody::ModelRequested { .. } => self.restored = None,
            RecordBody::ModelResponded { turn, items, usage, cut, .. } => {
                self.answer(seq, *turn, items, cut);
                self.usage += *usage;
            }
            RecordBody::ToolIntended { step, tool, effects, probe, outside, .. } => {
                self.restored = None;
                self.marks.intend(*step, tool, *effects, *outside);
                let intent = Intent::new(*effects, *outside, probe.clone());
                self.set_call(*step, CallState::Intended(intent));
            }
            RecordBody::ToolFinished { step, output, error } => {
                let output = output.clone().unwrap_or_else(|| {
                    ToolOutput::error(error.as_deref().unwrap_or("the call failed"))
                });
                self.settle(seq, *step, output, true);
            }
            RecordBody::ToolRefused { step, reasons, .. } => {
                self.settle(seq, *step, ToolOutput::error(reasons.join("; ")), false);
            }
            RecordBody::ToolResolved { step, how, output, .. } => {
                self.decisions.remove(&Some(*step));
                match (how, output) {
                    (Resolution::Probed, Some(output)) => {
                        self.settle(seq, *step, output.clone(), true);
                    }
                    (_, Some(output)) => self.settle(seq, *step, output.clone(), false),
                    (_, None) => self.set_call(*step, CallState::Waiting),
                }
            }
            RecordBody::ApprovalAsked { step, .. } => {
                self.approvals.insert(*step, ApprovalState::Asked);
            }
            RecordBody::ApprovalGiven { step, verdict, reason, .. } => {
                let state = match verdict {
                    ApprovalVerdict::Approved => ApprovalState::Approved,
                    _ => ApprovalState::Refused { reason: reason.clone() },
                };
                self.approvals.insert(*step, state);
            }
            RecordBody::DecisionGiven { step, decision, by, reason } => {
                if *decision == Decision::AcceptWorkspace {
                    self.restored = None;
                    return;
                }
                let given = GivenDecision {
                    step: *step,
                    decision: decision.clone(),
                    by: by.clone(),
                    reason: reason.clone(),
                };
                self.decisions.insert(*step, given);
            }
            RecordBody::InputGiven { items, key } => {
                self.keys.extend(key.clone());
                self.hear(seq, items);
            }
            RecordBody::RunPaused { reason } => {
                self.pause = Some(reason.clone());
                self.stopped = seq;
            }
            RecordBody::CheckpointTaken {
                checkpoint,
                at,
                turn,
                snapshot,
                sandbox,
                receipt,
                running,
            } => {
                self.checkpoints.push(CheckpointTaken {
                    checkpoint: checkpoint.clone(),
                    at: *at,
                    turn: *turn,
                    snapshot: snapshot.clone(),
                    sandbox: sandbox.clone(),
                    receipt: receipt.clone(),
                    running: running.clone(),
                });
            }
            RecordBody::RunRewound { to, .. } => self.rewind(seq, *to),
            RecordBody::RunFinished { outcome, .. } => {
                self.outcome = Some(outcome.clone());
                self.stopped = seq;
            }
            // `SandboxStarted` is for readers; what is not known here cannot be acted on.
            _ => {}
        }
    }

    /// Says what is to happen next.
    #[must_use]
    pub fn next(&self) -> Next {
        if let Some(outcome @ (RunOutcome::Completed | RunOutcome::Aborted)) = &self.outcome {
            return Next::Finished(outcome.clone());
        }
        if self.begun.is_none() {
            return Next::Start;
        }
        if let Some(reason) = &self.lost {
            return Next::Recover { reason: reason.clone() };
        }
        if let Some((checkpoint, at)) = &self.restored {
            let checkpoint = checkpoint.clone();
            match self.restored_to(*at) {
                Restored::Holds => {}
                Restored::Rewind { to } => return Next::Rewind { to, checkpoint },
                Restored::Undecided { why } => return Next::DecideWorkspace { checkpoint, why },
            }
        }
        if let Some(open) = &self.open {
            let steps: Vec<_> = open.intended().map(|call| call.step).collect();
            return if steps.is_empty() { Next::RunCalls } else { Next::Resolve { steps } };
        }
        match &self.words {
            Some(words) => Next::Done(words.clone()),
            None => Next::AskModel { turn: self.turn + 1 },
        }
    }

    /// Returns true if a checkpoint is to be taken before the model is asked. `asked`: somebody asked for one.
    #[must_use]
    pub fn is_checkpoint_due(&self, when: Checkpoints, asked: bool) -> bool {
        let Some(at) = self.checkpoints.last().map(|taken| taken.at) else {
            return match when {
                Checkpoints::Off => false,
                Checkpoints::OnDemand => asked,
                _ => true,
            };
        };
        let (turns, wrote) = self.marks.since(at);
        match when {
            Checkpoints::Off => false,
            Checkpoints::OnDemand => asked,
            Checkpoints::EveryWrite => wrote || asked,
            Checkpoints::EveryTurns(every) => (wrote && turns >= every.get()) || asked,
        }
    }

    /// Returns true if no call of the present turn may have changed the workspace.
    #[must_use]
    pub fn is_turn_untouched(&self) -> bool {
        !self.marks.is_touched()
    }

    /// Says what a workspace as it was at a record means for the conversation.
    #[must_use]
    pub fn restored_to(&self, at: Seq) -> Restored {
        self.marks.restored(at)
    }

    /// Returns the conversation as another run can begin with it: calls without results are answered with what is known.
    #[must_use]
    pub fn conversation(&self) -> Vec<Item> {
        let mut items: Vec<Item> = self.history.iter().map(|item| (**item).clone()).collect();
        if let Some(open) = &self.open {
            items.extend(open.calls.iter().map(|call| Item::ToolResult(call.result_as_known())));
            items.extend(self.unheard.iter().map(|item| (**item).clone()));
        }
        items
    }

    /// The last record.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// What the run began with; `None` if there is no run.
    #[must_use]
    pub fn begun(&self) -> Option<&Begun> {
        self.begun.as_ref()
    }

    /// The conversation, up to and with the last answer of the model.
    #[must_use]
    pub fn history(&self) -> &[Arc<Item>] {
        &self.history
    }

    /// The answers of the model so far, those that were rewound included.
    #[must_use]
    pub fn turns(&self) -> u32 {
        self.turn
    }

    /// The tool calls that the model asked for so far.
    #[must_use]
    pub fn tool_calls(&self) -> u32 {
        self.tool_calls
    }

    /// What it cost so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The time that it was driven so far, as far as records tell; the time between its processes is not in it.
    #[must_use]
    pub fn active(&self) -> Duration {
        Duration::from_millis(self.active_ms)
    }

    /// The calls of the last answer, if their results are not all there.
    #[must_use]
    pub fn open_turn(&self) -> Option<&OpenTurn> {
        self.open.as_ref()
    }

    /// Whether somebody was asked about a call.
    #[must_use]
    pub fn approval(&self, step: StepId) -> ApprovalState {
        self.approvals.get(&step).cloned().unwrap_or_default()
    }

    /// What was decided on a call (`None`: on the workspace) and not yet acted on.
    #[must_use]
    pub fn decision(&self, step: Option<StepId>) -> Option<&GivenDecision> {
        self.decisions.get(&step)
    }

    /// The newest checkpoint that matches the conversation.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&CheckpointTaken> {
        self.checkpoints.last()
    }

    /// The record whose state a checkpoint has; the run's start for `None`.
    #[must_use]
    pub fn checkpoint_at(&self, checkpoint: Option<&str>) -> Option<Seq> {
        match checkpoint {
            None => Some(Seq(1)),
            Some(name) => {
                let named = |taken: &&CheckpointTaken| taken.checkpoint == name;
                self.checkpoints.iter().rev().find(named).map(|taken| taken.at)
            }
        }
    }

    /// Losses since the run was started or resumed.
    #[must_use]
    pub fn losses(&self) -> u32 {
        self.losses
    }

    /// What the run waits for, if it was paused and not resumed.
    #[must_use]
    pub fn pause(&self) -> Option<&PauseReason> {
        self.pause.as_ref()
    }

    /// The record with which the run last ended or was paused, resumed since or not; 0 if it never was.
    #[must_use]
    pub fn stopped(&self) -> Seq {
        self.stopped
    }

    /// Whether the run was given input with this key.
    #[must_use]
    pub fn has_heard(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// The last answer of the model, if it called no tool.
    #[must_use]
    pub fn last_words(&self) -> Option<&LastWords> {
        self.words.as_ref()
    }

    /// How the run ended, if it did and was not resumed.
    #[must_use]
    pub fn outcome(&self) -> Option<&RunOutcome> {
        self.outcome.as_ref()
    }

    /// Counts the time between two records, unless nobody drove the run meanwhile.
    fn clock(&mut self, time: Timestamp, body: &RecordBody) {
        let rested = matches!(
            body,
            RecordBody::RunStarted { .. }
                | RecordBody::RunResumed { .. }
                | RecordBody::ApprovalGiven { .. }
                | RecordBody::DecisionGiven { .. }
        );
        if !rested {
            self.active_ms += time.as_millis().saturating_sub(self.last_time.as_millis());
        }
        self.last_time = time;
    }

    fn answer(&mut self, seq: Seq, turn: u32, items: &[Item], cut: &Option<String>) {
        self.turn = turn;
        self.restored = None;
        self.history.extend(items.iter().cloned().map(Arc::new));
        self.marks.answer(seq, turn, self.history.len());
        let open = OpenTurn::new(turn, items.iter());
        self.tool_calls =
            self.tool_calls.saturating_add(open.calls.len().try_into().unwrap_or(u32::MAX));
        self.words = None;
        if open.calls.is_empty() {
            self.words = Some(LastWords { text: text(items), cut: cut.clone() });
        } else {
            self.open = Some(open);
        }
    }

    fn set_call(&mut self, step: StepId, state: CallState) {
        if let Some(call) = self.open.as_mut().and_then(|open| open.call_mut(step)) {
            call.state = state;
        }
    }

    /// Takes the result of a call.
    fn settle(&mut self, seq: Seq, step: StepId, output: ToolOutput, was_carried_out: bool) {
        let Some(open) = &mut self.open else { return };
        let Some(call) = open.call_mut(step) else { return };
        let ran = match &call.state {
            // What was told first stays: the model may have read it.
            CallState::Settled { .. } => return,
            CallState::Intended(intent) if was_carried_out => Some(intent.clone()),
            _ => None,
        };
        if let Some(intent) = ran.as_ref().filter(|intent| intent.writes_inside()) {
            self.marks.wrote(step, &call.call.name, intent.effects);
        }
        call.state = CallState::Settled { output, ran };
        self.close_turn(seq);
    }

    /// When all results of the open turn are there they are told, in the order of the calls, and the turn is over.
    fn close_turn(&mut self, seq: Seq) {
        let Some(open) = self.open.take_if(|open| open.calls.iter().all(OpenCall::is_settled))
        else {
            return;
        };
        self.marks.close(open.calls.iter().map(OpenCall::stands).collect());
        let results = open.calls.into_iter().map(|call| call.result_as_known());
        self.history.extend(results.map(|result| Arc::new(Item::ToolResult(result))));
        self.history.append(&mut self.unheard);
        self.marks.begin(seq, self.history.len());
    }

    fn hear(&mut self, seq: Seq, items: &[Item]) {
        let items: Vec<_> = items.iter().cloned().map(Arc::new).collect();
        self.inputs.push((seq, items.clone()));
        self.words = None;
        if self.open.is_some() {
            self.unheard.extend(items);
        } else {
            self.history.extend(items);
            self.marks.begin(seq, self.history.len());
        }
    }

    fn replace_sandbox(&mut self, checkpoint: &Option<String>) {
        self.lost = None;
        // A checkpoint that this journal does not name is taken for the oldest state there is, which loses nothing silently.
        let at = self.checkpoint_at(checkpoint.as_deref()).unwrap_or(Seq(1));
        self.restored = Some((checkpoint.clone(), at));
        if let Some(open) = &mut self.open {
            open.lose_world();
        }
    }

    /// Goes back to a record, by what the record `seq` says.
    pub(crate) fn rewind(&mut self, seq: Seq, to: Seq) {
        let Rewound { items, answer, stands } = self.marks.rewind(to);
        let told = self.history.split_off(items.min(self.history.len()));
        self.words = None;
        self.restored = None;
        self.unheard.clear();
        let was_open = self.open.take();
        self.open = answer.map(|(turn, from)| match was_open {
            Some(mut open) if open.turn == turn => {
                open.take_back();
                open
            }
            _ => {
                let items = self.history.get(from..).unwrap_or_default().iter().map(|item| &**item);
                let mut open = OpenTurn::new(turn, items);
                open.restore_results(&told, &stands);
                open
            }
        });
        self.decisions.clear();
        self.checkpoints.retain(|taken| taken.at <= to);
        for (_, items) in self.inputs.iter().filter(|(seq, _)| *seq > to) {
            if self.open.is_some() {
                self.unheard.extend(items.iter().cloned());
            } else {
                self.history.extend(items.iter().cloned());
            }
        }
        self.marks.set_items(self.history.len());
        // A turn of which every result stands is over.
        self.close_turn(seq);
    }
}

/// The text of an answer's messages, joined by line breaks.
fn text(items: &[Item]) -> String {
    let texts: Vec<_> = items
        .iter()
        .filter_map(|item| match item {
            Item::Message(message) => Some(message.to_text()),
            _ => None,
        })
        .collect();
    texts.join("\n")
}

/// Tells the model that its workspace is older than what it was told.
pub(crate) fn workspace_notice() -> Item {
    Item::Message(Message::text(
        Role::Developer,
        "The workspace was lost and restored to an earlier state. Changes that were made since are not in it, and no command \
         of before runs any more. Look at what is there before you go on.",
    ))
}

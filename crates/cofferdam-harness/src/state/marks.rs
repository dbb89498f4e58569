//! [`Marks`]: where each turn began and what it touched, so that a workspace of an earlier moment can be matched.

use cofferdam_core::{EffectClass, Effects, StepId};
use cofferdam_journal::Seq;

/// What a workspace of an earlier moment means for the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// Nothing: no call that has a result changed it since.
    Holds,
    /// What came after this record did not happen in this workspace: go back to it, and run the calls again that changed the
    /// workspace. Results of its other calls stand.
    Rewind {
        /// The first answer whose calls changed it: it was given for just this workspace, and is not asked for again.
        to: Seq,
    },
    /// What came since touched more than the workspace, and cannot be undone.
    Undecided {
        /// What that was.
        why: String,
    },
}

/// One mark a turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Marks(Vec<Mark>);

#[derive(Debug, Clone, PartialEq)]
struct Mark {
    /// The record with which the turn before was over.
    begun: Seq,
    /// Items of the conversation then.
    items: usize,
    answer: Option<Answer>,
    /// A call that may change the workspace was begun.
    touched: bool,
    /// A call that may have changed the workspace has its result.
    wrote: bool,
    /// The first call that was begun and may change more than the sandbox.
    beyond: Option<(StepId, String)>,
    /// The first call that has its result, and may have changed the workspace and more than it.
    mixed: Option<(StepId, String)>,
    /// For each call of a turn that is over: whether its result stands if the workspace is restored.
    stands: Vec<bool>,
}

/// What is left after going back to a record.
#[derive(Debug, Default)]
pub(super) struct Rewound {
    /// Items of the conversation, up to and with the answer if there is one.
    pub(super) items: usize,
    /// The answer with which they end: its turn, and where it begins.
    pub(super) answer: Option<(u32, usize)>,
    /// Whether the results of its calls stand, if the turn was over.
    pub(super) stands: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Answer {
    seq: Seq,
    turn: u32,
    /// Items of the conversation with it.
    items: usize,
}

impl Marks {
    /// A turn begins: all that was before is told.
    pub(super) fn begin(&mut self, begun: Seq, items: usize) {
        self.0.push(Mark {
            begun,
            items,
            answer: None,
            touched: false,
            wrote: false,
            beyond: None,
            mixed: None,
            stands: Vec::new(),
        });
    }

    pub(super) fn answer(&mut self, seq: Seq, turn: u32, items: usize) {
        if let Some(mark) = self.0.last_mut() {
            mark.answer = Some(Answer { seq, turn, items });
        }
    }

    pub(super) fn intend(&mut self, step: StepId, tool: &str, effects: Effects, outside: bool) {
        let Some(mark) = self.0.last_mut() else { return };
        mark.touched |= effects.writes && !outside;
        if mark.beyond.is_none() && effects.writes && (outside || !stays_inside(effects)) {
            mark.beyond = Some((step, tool.to_owned()));
        }
    }

    /// A call that may have changed the workspace has its result.
    pub(super) fn wrote(&mut self, step: StepId, tool: &str, effects: Effects) {
        let Some(mark) = self.0.last_mut() else { return };
        mark.wrote = true;
        if mark.mixed.is_none() && !stays_inside(effects) {
            mark.mixed = Some((step, tool.to_owned()));
        }
    }

    /// All calls of the turn have their results.
    pub(super) fn close(&mut self, stands: Vec<bool>) {
        if let Some(mark) = self.0.last_mut() {
            mark.stands = stands;
        }
    }

    /// Counts the turns since a record, and says whether one of them may have written.
    pub(super) fn since(&self, at: Seq) -> (u32, bool) {
        let later = &self.0[self.place(at)..];
        let turns = later.len().saturating_sub(1).try_into().unwrap_or(u32::MAX);
        (turns, later.iter().any(|mark| mark.touched))
    }

    /// Returns true if a call of the present turn may have changed the workspace.
    pub(super) fn is_touched(&self) -> bool {
        self.0.last().is_some_and(|mark| mark.touched)
    }

    pub(super) fn restored(&self, at: Seq) -> Restored {
        let later = &self.0[self.place(at)..];
        // The turns before it left the workspace as it was, so that its answer fits this workspace too.
        let Some(first) = later.iter().position(|mark| mark.wrote) else {
            return Restored::Holds;
        };
        let Some(answer) = later[first].answer else { return Restored::Holds };
        // The calls of this answer are made again as far as they changed the workspace; those of later ones are not made.
        let hindrance = later[first]
            .mixed
            .as_ref()
            .or_else(|| later[first + 1..].iter().find_map(|mark| mark.beyond.as_ref()));
        match hindrance {
            Some((step, tool)) => {
                let why = format!(
                    "step {step} ({tool}) was begun since, and may have touched more than the sandbox"
                );
                Restored::Undecided { why }
            }
            None => Restored::Rewind { to: answer.seq },
        }
    }

    /// Drops what came after a record.
    pub(super) fn rewind(&mut self, to: Seq) -> Rewound {
        let place = self.place(to);
        self.0.truncate(place + 1);
        let Some(mark) = self.0.last_mut() else { return Rewound::default() };
        (mark.touched, mark.wrote, mark.mixed) = (false, false, None);
        mark.answer = mark.answer.filter(|answer| answer.seq <= to);
        let stands = std::mem::take(&mut mark.stands);
        match mark.answer {
            Some(answer) => {
                Rewound { items: answer.items, answer: Some((answer.turn, mark.items)), stands }
            }
            None => Rewound { items: mark.items, ..Rewound::default() },
        }
    }

    /// The conversation got longer before the turn's answer.
    pub(super) fn set_items(&mut self, items: usize) {
        if let Some(mark) = self.0.last_mut()
            && mark.answer.is_none()
        {
            mark.items = items;
        }
    }

    /// The turn in which a record is.
    fn place(&self, at: Seq) -> usize {
        self.0.partition_point(|mark| mark.begun <= at).saturating_sub(1)
    }
}

/// Whether a call that works in the sandbox changes nothing else, so that a restored workspace is all there is to restore.
pub(super) fn stays_inside(effects: Effects) -> bool {
    use EffectClass::{Idempotent, Probe, Pure};
    !effects.network && matches!(effects.class, Pure | Idempotent | Probe)
}

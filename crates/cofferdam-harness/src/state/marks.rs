//! [`Marks`]: where each turn began and what it touched, so that a workspace of an earlier moment can be matched.

use cofferdam_core::{EffectClass, Effects, StepId};
use cofferdam_journal::Seq;

/// What a workspace of an earlier moment means for the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// Nothing: no call that has a result changed it since.
    Holds,
    /// What came after this record did not happen in this workspace, and touched nothing else: go back to it.
    Rewind {
        /// The first answer after that moment: it was given for just this workspace, and is not asked for again.
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
    /// A call that may write was begun.
    touched: bool,
    /// A call that may write has its result.
    wrote: bool,
    /// The first call that may have touched more than the sandbox.
    beyond: Option<(StepId, String)>,
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
        });
    }

    pub(super) fn answer(&mut self, seq: Seq, turn: u32, items: usize) {
        if let Some(mark) = self.0.last_mut() {
            mark.answer = Some(Answer { seq, turn, items });
        }
    }

    pub(super) fn intend(&mut self, step: StepId, tool: &str, effects: Effects) {
        let Some(mark) = self.0.last_mut() else { return };
        mark.touched |= effects.writes;
        if mark.beyond.is_none() && !stays_inside(effects) {
            mark.beyond = Some((step, tool.to_owned()));
        }
    }

    pub(super) fn wrote(&mut self) {
        if let Some(mark) = self.0.last_mut() {
            mark.wrote = true;
        }
    }

    /// Counts the turns since a record, and says whether one of them may have written.
    pub(super) fn since(&self, at: Seq) -> (u32, bool) {
        let later = &self.0[self.place(at)..];
        let turns = later.len().saturating_sub(1).try_into().unwrap_or(u32::MAX);
        (turns, later.iter().any(|mark| mark.touched))
    }

    pub(super) fn restored(&self, at: Seq) -> Restored {
        let later = &self.0[self.place(at)..];
        if !later.iter().any(|mark| mark.wrote) {
            return Restored::Holds;
        }
        if let Some((step, tool)) = later.iter().find_map(|mark| mark.beyond.as_ref()) {
            let why = format!(
                "step {step} ({tool}) was begun since, and may have touched more than the sandbox"
            );
            return Restored::Undecided { why };
        }
        match later.iter().find_map(|mark| mark.answer) {
            Some(answer) => Restored::Rewind { to: answer.seq },
            None => Restored::Holds,
        }
    }

    /// Drops what came after a record. Returns how many items of the conversation are left, and, if they end with an answer, its
    /// turn and where it begins.
    pub(super) fn rewind(&mut self, to: Seq) -> (usize, Option<(u32, usize)>) {
        let place = self.place(to);
        self.0.truncate(place + 1);
        let Some(mark) = self.0.last_mut() else { return (0, None) };
        (mark.touched, mark.wrote, mark.beyond) = (false, false, None);
        mark.answer = mark.answer.filter(|answer| answer.seq <= to);
        match mark.answer {
            Some(answer) => (answer.items, Some((answer.turn, mark.items))),
            None => (mark.items, None),
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

/// Whether a call touches nothing but the sandbox, so that a restored workspace is all there is to restore.
fn stays_inside(effects: Effects) -> bool {
    use EffectClass::{Idempotent, Probe, Pure};
    !effects.writes || (!effects.network && matches!(effects.class, Pure | Idempotent | Probe))
}

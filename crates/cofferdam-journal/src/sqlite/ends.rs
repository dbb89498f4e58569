//! [`Ends`]: the ends of the runs that this process appends to, so that an append need not look for them again.
//!
//! What is kept is true as long as no other connection has committed and nothing was rolled back. SQLite counts the commits of
//! others (`data_version`), and within a transaction that may write the count cannot change any more.

use std::collections::HashMap;

use cofferdam_core::{RunId, Timestamp};

use crate::{Epoch, Lease, RecordHash, Seq};

/// Most runs whose ends are kept.
const MAX_RUNS: usize = 256;

/// The end of a run, and the lease under which it may be appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) epoch: Epoch,
    pub(super) expires: Timestamp,
    pub(super) seq: Seq,
    /// `None` if there is no record.
    pub(super) hash: Option<RecordHash>,
}

/// The ends that are known.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// The count of commits of others for which they are true.
    version: i64,
    of: HashMap<RunId, End>,
}

impl Ends {
    /// Returns the end of a run, if it is known and an append to it would be done. What must be refused is looked up, for the
    /// refusal to say why.
    pub(super) fn open(
        &mut self,
        version: i64,
        lease: &Lease,
        expected: Seq,
        now: Timestamp,
    ) -> Option<End> {
        if self.version != version {
            self.forget_all();
            self.version = version;
        }
        let end = *self.of.get(&lease.run)?;
        (end.epoch == lease.epoch && end.seq == expected && end.expires > now).then_some(end)
    }

    /// Keeps the end of a run, as it is in the transaction under way.
    pub(super) fn keep(&mut self, run: &RunId, end: End) {
        if let Some(known) = self.of.get_mut(run) {
            *known = end;
            return;
        }
        if self.of.len() == MAX_RUNS {
            self.forget_all();
        }
        self.of.insert(run.clone(), end);
    }

    /// Forgets a run whose lease or records are changed otherwise than by an append.
    pub(super) fn forget(&mut self, run: &RunId) {
        self.of.remove(run);
    }

    /// Forgets everything: others have committed, or a transaction was rolled back.
    pub(super) fn forget_all(&mut self) {
        self.of.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(run: &str) -> Lease {
        Lease::new(RunId::new(run), Epoch(3), Timestamp(9), Seq(0))
    }

    fn end(seq: u64) -> End {
        End { epoch: Epoch(3), expires: Timestamp(9), seq: Seq(seq), hash: None }
    }

    #[test]
    fn only_what_may_be_appended_to_is_told() {
        let check = |change: fn(&mut Ends, &mut Lease), version, expected, now, expect| {
            let (mut ends, mut lease) = (Ends::default(), lease("r"));
            ends.keep(&lease.run, end(1));
            ends.keep(&lease.run, end(7));
            change(&mut ends, &mut lease);
            let found = ends.open(version, &lease, Seq(expected), Timestamp(now));
            assert_eq!(found, bool::then_some(expect, end(7)));
        };
        check(|_, _| {}, 0, 7, 8, true);
        check(|_, _| {}, 1, 7, 8, false);
        check(|_, _| {}, 0, 6, 8, false);
        check(|_, _| {}, 0, 7, 9, false);
        check(|_, lease| lease.epoch.0 += 1, 0, 7, 8, false);
        check(|ends, lease| ends.forget(&lease.run), 0, 7, 8, false);
        check(|ends, _| ends.forget_all(), 0, 7, 8, false);
    }

    #[test]
    fn their_number_has_a_bound() {
        let mut ends = Ends::default();
        for run in 0..10 * MAX_RUNS {
            ends.keep(&RunId::new(format!("r{run}")), end(1));
            assert!(ends.of.len() <= MAX_RUNS);
        }
    }
}

//! What cases are written with: a store of their own, and comparisons that say what was expected.

use std::{fmt::Debug, sync::Arc, time::Duration};

use cofferdam_core::{RunId, Timestamp};
use futures::TryStreamExt as _;
use serde_json::json;

use super::{HandClock, Options, Subject};
use crate::{
    Entry, Journal, JournalError, Lease, Record, RecordBody, RunOutcome, Seq, verify_chain,
};

/// Why a case ends before its end.
pub(super) enum Stop {
    Failed(String),
    Skipped(String),
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Self::Failed(format!("a call failed that must not: {error} ({error:?})"))
    }
}

pub(super) type CaseResult = Result<(), Stop>;

/// How long leases are that no case waits for.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// One case under way.
pub(super) struct Trial<'a> {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) clock: Arc<HandClock>,
    pub(super) options: &'a Options,
    subject: &'a dyn Subject,
}

impl<'a> Trial<'a> {
    pub(super) async fn new(subject: &'a dyn Subject, options: &'a Options) -> Result<Self, Stop> {
        let clock = Arc::new(HandClock::default());
        let journal = subject.fresh(clock.clone()).await?;
        Ok(Self { journal, clock, options, subject })
    }

    /// Closes the store and opens it again.
    pub(super) async fn reopened(&self) -> Result<Arc<dyn Journal>, Stop> {
        let again = self.subject.reopen(Arc::clone(&self.journal), self.clock.clone()).await?;
        again.ok_or_else(|| Stop::Skipped("it lives only as long as its process".to_owned()))
    }

    pub(super) async fn lease(&self, run: &RunId, owner: &str) -> Result<Lease, JournalError> {
        self.journal.lease(run, owner, LONG).await
    }

    /// Leases a run and appends some entries to it.
    pub(super) async fn begun(&self, run: &RunId, entries: u32) -> Result<Lease, JournalError> {
        let lease = self.lease(run, "first").await?;
        self.journal.append(&lease, lease.last, some(1, entries)).await?;
        Ok(lease)
    }

    /// Reads a run and verifies it.
    pub(super) async fn all(&self, run: &RunId) -> Result<Vec<Record>, Stop> {
        all_of(&*self.journal, run).await
    }
}

pub(super) async fn all_of(journal: &dyn Journal, run: &RunId) -> Result<Vec<Record>, Stop> {
    let records: Vec<Record> = journal.read(run, Seq(1)).try_collect().await?;
    verify_chain(run, None, &records)?;
    Ok(records)
}

pub(super) fn id(name: &str) -> RunId {
    RunId::new(name)
}

pub(super) fn entry(turn: u32) -> Entry {
    let body = RecordBody::ModelRequested { turn, items: 0 };
    Entry { time: Timestamp(u64::from(turn) * 1000), body }
}

/// Entries of turns that follow each other.
pub(super) fn some(first: u32, count: u32) -> Vec<Entry> {
    (first..first + count).map(entry).collect()
}

/// An entry of any body.
pub(super) fn odd(body: serde_json::Value) -> Entry {
    Entry { time: Timestamp(7), body: RecordBody::Unknown(body) }
}

/// The beginning of a run, as far as a list looks at it; harmless to what a release may add to the kind.
pub(super) fn started(agent: &str) -> Entry {
    odd(json!({"kind": "run_started", "agent": agent, "fingerprints": {}, "input": []}))
}

pub(super) fn finished() -> Entry {
    let body =
        RecordBody::RunFinished { outcome: RunOutcome::Completed, usage: Default::default() };
    Entry { time: Timestamp(9), body }
}

/// The turns of the records of [`some`].
pub(super) fn turns(records: &[Record]) -> Vec<u32> {
    records
        .iter()
        .filter_map(|record| match record.body {
            RecordBody::ModelRequested { turn, .. } => Some(turn),
            _ => None,
        })
        .collect()
}

/// Demands that what was found is what was expected.
pub(super) fn equal<T: PartialEq<E> + Debug, E: Debug>(
    what: &str,
    found: T,
    expected: E,
) -> CaseResult {
    holds(what, found == expected, &format!("{expected:?}"), &found)
}

/// Demands that a condition on what was found holds.
pub(super) fn holds(what: &str, condition: bool, expected: &str, found: &impl Debug) -> CaseResult {
    if condition {
        return Ok(());
    }
    let mut found = format!("{found:?}");
    if let Some((end, _)) = found.char_indices().nth(400) {
        found.truncate(end);
        found.push('…');
    }
    Err(Stop::Failed(format!("{what}: expected {expected}, found {found}")))
}

/// Demands that a call was refused in one way.
macro_rules! refused {
    ($what:expr, $result:expr, $pattern:pat) => {{
        let result = $result;
        crate::conformance::support::holds(
            $what,
            matches!(result, Err($pattern)),
            concat!("Err(", stringify!($pattern), ")"),
            &result,
        )
    }};
}
pub(super) use refused;

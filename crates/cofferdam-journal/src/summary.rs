//! [`RunSummary`]: what a list of runs tells of each, without reading it.

use cofferdam_core::{RunId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Epoch, RecordHash, Seq};

/// Which runs to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFilter {
    /// Only runs whose id sorts after this one: the last of the page before. Default: from the beginning.
    pub after: Option<RunId>,
    /// Only runs in this state. Default: all.
    pub status: Option<RunStatus>,
    /// Most runs to list, up to [`RunFilter::MAX_LIMIT`]. Default 100.
    pub limit: usize,
}

impl RunFilter {
    /// Most runs that one call lists.
    pub const MAX_LIMIT: usize = 1000;

    pub(crate) fn bounded_limit(&self) -> usize {
        self.limit.min(Self::MAX_LIMIT)
    }

    pub(crate) fn allows(&self, status: RunStatus) -> bool {
        self.status.is_none_or(|wanted| wanted == status)
    }
}

impl Default for RunFilter {
    fn default() -> Self {
        Self { after: None, status: None, limit: 100 }
    }
}

/// One run in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// The agent that its first record names.
    pub agent: Option<String>,
    /// When its first record was written.
    pub started: Option<Timestamp>,
    /// When its last record was written.
    pub updated: Option<Timestamp>,
    /// The number of its last record, which is how many there are.
    pub records: Seq,
    /// The hash of its last record. Who keeps it elsewhere can show later that nothing was cut off at the end.
    pub head: Option<RecordHash>,
    /// How far it is.
    pub status: RunStatus,
    /// Who drives it.
    pub holder: Option<Holder>,
}

impl RunSummary {
    /// Puts a summary together from a run's first and last record, if it has any.
    #[must_use]
    pub fn of(
        run: RunId,
        first: Option<(Timestamp, &str)>,
        last: Option<(Seq, Timestamp, Option<RecordHash>, &str)>,
        holder: Option<Holder>,
    ) -> Self {
        Self {
            run,
            agent: first.and_then(|(_, text)| Told::of(text).agent),
            started: first.map(|(time, _)| time),
            updated: last.map(|(_, time, ..)| time),
            records: last.map_or(Seq(0), |(seq, ..)| seq),
            head: last.and_then(|(_, _, hash, _)| hash),
            status: last.map_or(RunStatus::New, |(.., text)| RunStatus::after(text)),
            holder,
        }
    }
}

/// How far a run is, as its last record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunStatus {
    /// It was leased and has no record yet.
    New,
    /// It goes on, or its process ended in the middle: [`RunSummary::holder`] tells which.
    Open,
    /// It waits for somebody's decision.
    Paused,
    /// It is over.
    Finished,
}

impl RunStatus {
    /// Returns the state of a run whose last record has this body.
    #[must_use]
    pub fn after(text: &str) -> Self {
        match Told::of(text).kind.as_deref() {
            Some("run_finished") => Self::Finished,
            Some("run_paused") => Self::Paused,
            _ => Self::Open,
        }
    }
}

/// Who drives a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Holder {
    /// The name that the holder gave itself.
    pub owner: String,
    /// The number of its lease.
    pub epoch: Epoch,
    /// When its lease expires, if it is not renewed.
    pub expires: Timestamp,
    /// True while nobody else may take the run over: the lease has not expired, and its holder has not died as far as the
    /// store can see.
    pub live: bool,
}

impl Holder {
    /// Makes the description of a holder; for stores.
    #[must_use]
    pub fn new(owner: String, epoch: Epoch, expires: Timestamp, live: bool) -> Self {
        Self { owner, epoch, expires, live }
    }
}

/// The little of a body that a summary shows, read without the rest.
#[derive(Default, Deserialize)]
struct Told {
    kind: Option<String>,
    agent: Option<String>,
}

impl Told {
    /// A body that says it in another way is one that says nothing: the list is no place to fail.
    fn of(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

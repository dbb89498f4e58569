//! [`JournalError`]: what can go wrong with a journal, sorted by what the caller can do next.

use std::{error::Error, sync::Arc};

use cofferdam_core::{Retry, RunId, Timestamp};

use crate::{Epoch, Seq};

/// A failure of a journal. What was acknowledged before it is still there, whatever the failure.
///
/// It can be cloned, because appends that share a commit share its failure.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process drives the run: wait for it, or stop it.
    #[error(
        "run {run} is driven by {owner:?} until {expires}; two processes cannot drive one run, so wait for it or stop it"
    )]
    Leased {
        /// The run.
        run: RunId,
        /// Who holds the lease.
        owner: String,
        /// When it expires, if it is not renewed.
        expires: Timestamp,
    },
    /// Another process took the run over, or it was released or removed: stop.
    #[error(
        "run {run} was taken over, released or removed: lease {held} is no longer the newest, {newest} is; stop driving it"
    )]
    Fenced {
        /// The run.
        run: RunId,
        /// The epoch of the refused call.
        held: Epoch,
        /// The newest epoch that the store has granted.
        newest: Epoch,
    },
    /// The lease ran out and nobody has taken the run over yet: renew it, then go on.
    #[error(
        "lease {held} on run {run} expired at {expired}; renew it before anything else is done"
    )]
    Expired {
        /// The run.
        run: RunId,
        /// The epoch of the refused call.
        held: Epoch,
        /// When it expired.
        expired: Timestamp,
    },
    /// Another writer was first: read again.
    #[error("run {run} has {actual} records, not {expected}; read what was added and decide again")]
    Conflict {
        /// The run.
        run: RunId,
        /// The number that the append expected.
        expected: Seq,
        /// The number that is there.
        actual: Seq,
    },
    /// An entry is larger than a record may be: keep its content elsewhere.
    #[error(
        "a record of run {run} has {bytes} bytes, and a record may have {limit}; keep large content outside of the journal \
         and record its hash"
    )]
    TooLarge {
        /// The run.
        run: RunId,
        /// How long it is.
        bytes: u64,
        /// How long a record may be.
        limit: u64,
    },
    /// A record was changed or damaged: restore it from a copy; everything before it is intact.
    #[error(
        "record {seq} of run {run} is corrupt: {detail}; restore it from a copy, what is before it is intact"
    )]
    Corrupt {
        /// The run.
        run: RunId,
        /// The record.
        seq: Seq,
        /// What does not fit.
        detail: String,
    },
    /// A run was written by a newer release: upgrade.
    #[error(
        "run {run} has records of journal format {found}, and this release reads up to {supported}; use a newer release"
    )]
    NewerFormat {
        /// The run.
        run: RunId,
        /// The format found.
        found: u32,
        /// The newest format that can be read.
        supported: u32,
    },
    /// The store was written by a newer release: upgrade.
    #[error(
        "the journal {location} is a store of version {found}, and this release reads up to {supported}; use a newer release"
    )]
    NewerStore {
        /// Where the store is.
        location: String,
        /// The version found.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// What is there is no journal and was not touched: name another place.
    #[error("{location} is not a journal: {detail}; it was not touched, name another place")]
    Foreign {
        /// Where it is.
        location: String,
        /// What was found.
        detail: String,
    },
    /// The store is damaged as a whole: keep it as it is, export what can be read, restore the rest from a copy.
    #[error(
        "the journal {location} is damaged: {detail}; keep its files as they are, export what can be read, restore the rest \
         from a copy"
    )]
    Damaged {
        /// Where the store is.
        location: String,
        /// What does not fit.
        detail: String,
    },
    /// There is no space left: make some, then try again. Nothing was written.
    #[error(
        "there is no space left for the journal {location}; make some and try again, nothing was written"
    )]
    Full {
        /// Where the store is.
        location: String,
    },
    /// The store may not be written to: change its permissions, or name another place.
    #[error(
        "the journal {location} cannot be written: {detail}; change the permissions or name another place"
    )]
    ReadOnly {
        /// Where the store is.
        location: String,
        /// What was refused.
        detail: String,
    },
    /// Another program keeps the store locked: end it, or try again later. Nothing was written.
    #[error(
        "another program keeps the journal {location} locked; end it or try again later, nothing was written"
    )]
    Busy {
        /// Where the store is.
        location: String,
    },
    /// A copy of a run cannot be taken in: mend the copy, or choose another run.
    #[error("line {line} of the copy cannot be taken in: {detail}")]
    Import {
        /// The line, from 1.
        line: u64,
        /// What does not fit.
        detail: String,
    },
    /// The store failed: its error tells. Whether the call took effect is not known: read again.
    #[error("the journal's store could not {operation}; read again to know what is there")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl JournalError {
    /// Makes a [`JournalError::Store`] of the store's own error.
    pub fn store(operation: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Store { operation, source: source.into().into() }
    }

    /// Returns whether the same call may succeed later without any other change.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Leased { .. } | Self::Full { .. } | Self::Busy { .. } => Retry::Backoff,
            _ => Retry::Never,
        }
    }
}

//! [`JournalError`]: what can go wrong with a journal, sorted by what the caller can do next.

use cofferdam_core::{BoxError, RunId, Timestamp};

use crate::{Epoch, Seq};

/// A failure of a journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process drives the run: wait for it, or stop it.
    #[error("run {run} is driven by {owner:?} until {expires}; two processes cannot drive one run")]
    Leased {
        /// The run.
        run: RunId,
        /// Who holds the lease.
        owner: String,
        /// When it expires.
        expires: Timestamp,
    },
    /// Another process took the run over: stop.
    #[error(
        "run {run} was taken over: the lease of epoch {held:?} is no longer the newest ({newest:?})"
    )]
    Fenced {
        /// The run.
        run: RunId,
        /// The epoch of the refused append.
        held: Epoch,
        /// The newest epoch.
        newest: Epoch,
    },
    /// Another writer was first: read again.
    #[error("run {run} has {actual:?} as its last record, not {expected:?}")]
    Conflict {
        /// The run.
        run: RunId,
        /// The number that the append expected.
        expected: Seq,
        /// The number that is there.
        actual: Seq,
    },
    /// A record was changed or damaged: restore it from a copy; everything before it is intact.
    #[error("record {seq:?} of run {run} is corrupt: {detail}")]
    Corrupt {
        /// The run.
        run: RunId,
        /// The record.
        seq: Seq,
        /// What does not fit.
        detail: String,
    },
    /// The journal was written by a newer release: upgrade.
    #[error("run {run} is in journal format {found}; this release reads up to {supported}")]
    NewerFormat {
        /// The run.
        run: RunId,
        /// The format found.
        found: u32,
        /// The newest format that can be read.
        supported: u32,
    },
    /// The store failed: its error tells.
    #[error("the journal's store could not {operation}")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

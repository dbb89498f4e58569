//! The append-only journal of a run: what was intended, what came of it, in one total order.
//!
//! A run writes each step here *before* it takes effect, so that whoever reads the journal after a crash knows what
//! happened, what did not, and what is unknown.
//!
//! - [`journal`]: [`Journal`], what a store must do.
//! - [`lease`]: [`Lease`], the right to write; its rules.
//! - [`record`]: [`RecordBody`], what a record says.
//! - [`chain`]: [`Record`], numbered and chained by hash; [`Chain`], which verifies.
//! - [`memory`]: [`MemoryJournal`], for tests and for runs that need not survive their process.
//! - [`sqlite`]: [`SqliteJournal`], durable, for many runs. Feature `sqlite`, on by default.
//! - [`writer`]: [`JournalWriter`], one run's way of writing, shared by its loop and its layers.
//! - [`summary`]: [`RunSummary`], what a list of runs tells.
//! - `conformance`: what every store must do, as cases. Feature `conformance`.
//! - [`export`](mod@export): copies of runs as JSON Lines, which anybody can check.
//! - [`decorator`]: [`JournalDecorator`], a journal around another.
//! - [`error`]: the failures, [`JournalError`].
//!
//! Two processes can never drive one run: a [`Lease`] carries an epoch that rises with each holder, and a store refuses
//! an append of a former one.
#![forbid(unsafe_code)]

pub mod chain;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod decorator;
pub mod error;
pub mod export;
pub mod ext;
pub mod journal;
pub mod lease;
pub mod memory;
pub mod record;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod summary;
pub mod writer;

pub use chain::{
    Chain, Entry, FORMAT_VERSION, MAX_RECORD_BYTES, Record, RecordHash, RecordParts, content_hash,
    verify_chain,
};
pub use decorator::JournalDecorator;
pub use error::JournalError;
pub use export::{Import, Imported, export};
pub use ext::JournalExt;
pub use journal::{Journal, Seq};
pub use lease::{Epoch, Lease};
pub use memory::MemoryJournal;
pub use record::{
    ApprovalVerdict, Decision, Fork, PauseReason, RecordBody, Resolution, RunOutcome,
};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteJournal;
pub use summary::{Holder, RunFilter, RunStatus, RunSummary};
pub use writer::JournalWriter;

#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;

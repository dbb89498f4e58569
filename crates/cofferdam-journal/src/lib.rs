//! The append-only journal of a run: what was intended, what came of it, in one total order.
//!
//! A run writes each step here *before* it takes effect, so that whoever reads the journal after a crash knows what
//! happened, what did not, and what is unknown.
//!
//! - [`journal`]: [`Journal`], what a store must do.
//! - [`record`]: [`Record`] and [`Entry`]; records are chained by hash.
//! - [`memory`]: [`MemoryJournal`], for tests and for runs that need not survive their process.
//! - [`writer`]: [`JournalWriter`], one run's way of writing, shared by its loop and its layers.
//! - [`error`]: the failures, [`JournalError`].
//!
//! Two processes can never drive one run: a [`Lease`] carries an epoch that rises with each holder, and a store refuses
//! an append of a former one.
#![forbid(unsafe_code)]

pub mod error;
pub mod journal;
pub mod memory;
pub mod record;
pub mod writer;

pub use error::JournalError;
pub use journal::{Epoch, Journal, Lease, Seq};
pub use memory::MemoryJournal;
pub use record::{
    ApprovalVerdict, Decision, Entry, FORMAT_VERSION, Fork, PauseReason, Record, RecordBody,
    RecordHash, Resolution, RunOutcome, content_hash, verify_chain,
};
pub use writer::JournalWriter;

//! [`RunRecords`]: what a run's journal says to whoever wants to go on with it.

use cofferdam_core::RunId;
use cofferdam_harness::RunState;
use cofferdam_journal::{Journal, JournalError, RecordBody, Seq};
use futures::TryStreamExt;
use serde_json::Value;

/// What the records of a run say of its state and of the sandbox that it had last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunRecords {
    /// The state, folded from the records.
    pub state: RunState,
    /// The handle of the last sandbox ([`crate::SandboxHandle`]), if it had one.
    pub sandbox: Option<Value>,
}

impl RunRecords {
    /// Reads a run's journal. A run that is not there has no beginning ([`RunState::begun`]).
    ///
    /// # Errors
    ///
    /// Those of the journal.
    pub async fn read(journal: &dyn Journal, run: &RunId) -> Result<Self, JournalError> {
        let mut told = Self::default();
        let mut records = journal.read(run, Seq(1));
        while let Some(record) = records.try_next().await? {
            if let RecordBody::SandboxStarted { state, .. }
            | RecordBody::SandboxReplaced { state, .. } = &record.body
            {
                told.sandbox = Some(state.clone()).filter(|state| !state.is_null());
            }
            told.state.fold(record.seq, record.time, &record.body);
        }
        Ok(told)
    }
}

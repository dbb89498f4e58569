//! Runs that are kept: going on with them, forking them, listing them.

use cofferdam_checkpoint::{CheckpointId, RunRecords};
use cofferdam_core::RunId;
use cofferdam_harness::{GivenDecision, GivenInput, OnChanged, RunReport};
use cofferdam_journal::{JournalError, RunFilter, RunSummary};

use crate::{Agent, AgentError, Session};

/// How a run is to be gone on with by [`Agent::resume`].
#[derive(Debug, Clone, Default)]
pub struct ResumeOptions {
    /// Takes the run back to this checkpoint of it, in a fresh sandbox. Default: goes on where it is, in its sandbox if that
    /// still lives.
    pub checkpoint: Option<CheckpointId>,
    /// What somebody decided, if the run waits for that.
    pub decision: Option<GivenDecision>,
    /// One more message for the model; a run that the model had finished goes on with it.
    pub input: Option<GivenInput>,
    /// What to do if the agent is not what it was. Default: refuse, and say what differs.
    pub on_changed: OnChanged,
}

impl Agent {
    /// Goes on with a run that another process left, or that was paused, failed or cancelled, and drives it to its end.
    ///
    /// If the run's sandbox still lives, the run goes on in it, and commands that were running are heard again. If not, a fresh
    /// one gets the workspace of the newest checkpoint, and what was not in that is done again where that is safe. Needs a
    /// state directory ([`crate::AgentBuilder::state_directory`]).
    ///
    /// # Errors
    ///
    /// [`AgentError`] by the part that failed; the run can be resumed again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the run can be resumed again.
    pub async fn resume(
        &self,
        run: &RunId,
        options: ResumeOptions,
    ) -> Result<RunReport, AgentError> {
        let ResumeOptions { checkpoint, decision, input, on_changed } = options;
        let session = self.reopen(run, checkpoint).await?;
        let mut request = session.resume_request();
        (request.decision, request.input, request.on_changed) = (decision, input, on_changed);
        let result = session.resume(request).await;
        session.end(result).await
    }

    /// Makes a session for going on with a run: see [`Agent::resume`]. With a checkpoint, the workspace is taken back to it.
    ///
    /// The session holds the run: until it is resumed in it, or the session is dropped or closed, nobody else can drive the run.
    ///
    /// # Errors
    ///
    /// As [`Agent::resume`]; [`JournalError::Leased`] if the run is driven by another process at this moment.
    ///
    /// # Cancel safety
    ///
    /// As [`Agent::open`]; a sandbox that lives goes on.
    pub async fn reopen(
        &self,
        run: &RunId,
        checkpoint: Option<CheckpointId>,
    ) -> Result<Session, AgentError> {
        Session::reopen(self.setup.clone(), run, checkpoint).await
    }

    /// Begins a new run from a checkpoint of another: with its conversation up to there, its workspace, and a further task. The
    /// other run is left as it is. Any number of forks of one checkpoint may run at once; nothing of the workspace is copied
    /// where sandboxes can share what they begin with.
    ///
    /// # Errors
    ///
    /// [`AgentError`] by the part that failed.
    ///
    /// # Cancel safety
    ///
    /// As [`Agent::run`].
    pub async fn fork(
        &self,
        checkpoint: &CheckpointId,
        task: impl Into<String>,
    ) -> Result<RunReport, AgentError> {
        let session = self.open_at(checkpoint).await?;
        let request = session.request(task);
        let result = session.fork(request).await;
        session.end(result).await
    }

    /// Makes a session whose workspace is that of a checkpoint, for [`Session::fork`].
    ///
    /// # Errors
    ///
    /// As [`Agent::fork`].
    ///
    /// # Cancel safety
    ///
    /// As [`Agent::open`].
    pub async fn open_at(&self, checkpoint: &CheckpointId) -> Result<Session, AgentError> {
        Session::open_at(self.setup.clone(), checkpoint).await
    }

    /// Lists runs in the order of their ids, a page at a time.
    ///
    /// # Errors
    ///
    /// [`AgentError::Journal`].
    pub async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, AgentError> {
        Ok(self.setup.journal.runs(filter).await?)
    }

    /// Lists the checkpoints of a run in the order of their positions.
    ///
    /// # Errors
    ///
    /// [`AgentError::NotKept`] without a state directory.
    pub async fn checkpoints(&self, run: &RunId) -> Result<Vec<CheckpointId>, AgentError> {
        let state = self.setup.state.as_ref().ok_or(AgentError::NotKept)?;
        Ok(state
            .checkpoints()
            .list(run)
            .await
            .map_err(cofferdam_checkpoint::WorkspaceError::from)?)
    }

    /// Reads what the records of a run say.
    ///
    /// # Errors
    ///
    /// [`AgentError::Journal`]. A run that is not there has no beginning ([`cofferdam_harness::RunState::begun`]).
    pub async fn records(&self, run: &RunId) -> Result<RunRecords, AgentError> {
        Ok(RunRecords::read(&*self.setup.journal, run).await?)
    }
}

impl From<JournalError> for AgentError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

//! [`Harness`]: everything that runs of an agent share.

use std::sync::Arc;

use cofferdam_core::{Clock, Entropy, RunId};
use cofferdam_journal::{Fork, Journal, JournalError, JournalWriter, Lease, Seq};
use cofferdam_tool::ToolSet;

use crate::{
    Hold, RunError, RunFailure, RunReport, RunRequest, Stacks, WorkspaceKeeper,
    run::Run,
    tap::{SharedState, Tap},
};

/// What a harness is made of.
#[derive(Debug, Clone)]
pub struct HarnessParts {
    /// The tools that the model may call.
    pub tools: ToolSet,
    /// What surrounds model and tool calls.
    pub stacks: Arc<dyn Stacks>,
    /// Where runs are recorded.
    pub journal: Arc<dyn Journal>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Random bits for ids.
    pub entropy: Arc<dyn Entropy>,
    /// Who drives the runs, as other processes see it in the lease.
    pub owner: String,
    /// Who keeps the workspace; `None`: a lost sandbox ends the run.
    pub keeper: Option<Arc<dyn WorkspaceKeeper>>,
}

/// Runs agents. Cheap to clone; any number of runs may go on at once.
#[derive(Debug, Clone)]
pub struct Harness {
    parts: Arc<HarnessParts>,
}

impl Harness {
    /// Makes a harness.
    #[must_use]
    pub fn new(parts: HarnessParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Runs an agent to its end.
    ///
    /// # Errors
    ///
    /// [`RunFailure`] with the reason and the cost so far; the journal has the rest.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, running tools are dropped with it and the journal keeps their intents without results.
    /// Cancel by the request's token to end softly.
    pub async fn run(&self, request: RunRequest) -> Result<RunReport, Box<RunFailure>> {
        let id = RunId::generate(self.parts.clock.now(), &*self.parts.entropy);
        self.run_as(id, request).await
    }

    /// As [`Harness::run`], under an id that the caller chose.
    ///
    /// # Errors
    ///
    /// As [`Harness::run`].
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::run`].
    pub async fn run_as(
        &self,
        id: RunId,
        request: RunRequest,
    ) -> Result<RunReport, Box<RunFailure>> {
        self.begin(id, request, None).await
    }

    pub(crate) fn parts(&self) -> &HarnessParts {
        &self.parts
    }

    /// Begins a run and drives it.
    pub(crate) async fn begin(
        &self,
        id: RunId,
        request: RunRequest,
        parent: Option<Fork>,
    ) -> Result<RunReport, Box<RunFailure>> {
        let failed = |error| Box::new(RunFailure::before(id.clone(), error));
        let state = SharedState::default();
        let writer =
            self.open(&id, &request, &state).await.map_err(RunError::Journal).map_err(&failed)?;
        let last = writer.lease().last;
        if last != Seq(0) {
            // The lease goes back with the writer.
            return Err(failed(RunError::Exists { run: id.clone() }));
        }
        Run::new(&self.parts, writer, state, request, parent).drive().await
    }

    /// Takes the lease on a run and makes its writer, through which whatever is written is folded into `state`.
    pub(crate) async fn open(
        &self,
        id: &RunId,
        request: &RunRequest,
        state: &SharedState,
    ) -> Result<Arc<JournalWriter>, JournalError> {
        let parts = &self.parts;
        let lease = parts.journal.lease(id, &parts.owner, request.options.lease).await?;
        Ok(self.writer(lease, state))
    }

    /// As [`Harness::open`], under the lease of somebody who holds the run.
    pub(crate) async fn open_held(
        &self,
        hold: &Hold,
        request: &RunRequest,
        state: &SharedState,
    ) -> Result<Arc<JournalWriter>, JournalError> {
        Ok(self.writer(hold.lease(request.options.lease).await?, state))
    }

    fn writer(&self, lease: Lease, state: &SharedState) -> Arc<JournalWriter> {
        let parts = &self.parts;
        let tap = Tap::new(Arc::clone(&parts.journal), lease.run.clone(), state.clone());
        Arc::new(JournalWriter::new(Arc::new(tap), Arc::clone(&parts.clock), lease))
    }
}

//! [`Harness`]: everything that runs of an agent share.

use std::{sync::Arc, time::Duration};

use cofferdam_core::{Clock, Entropy, RunId};
use cofferdam_journal::{Journal, JournalWriter};
use cofferdam_tool::ToolSet;

use crate::{RunFailure, RunReport, RunRequest, Stacks, WorkspaceKeeper, run::Run};

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

/// How long a run is leased beyond its own time, so that a lease never ends before the run does.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

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
        let parts = &self.parts;
        let duration = request.options.wall_time.saturating_add(LEASE_MARGIN);
        let lease = parts.journal.lease(&id, &parts.owner, duration).await.map_err(|error| {
            Box::new(RunFailure {
                run: id.clone(),
                turns: 0,
                usage: cofferdam_core::Usage::default(),
                error: error.into(),
            })
        })?;
        let journal =
            JournalWriter::new(Arc::clone(&parts.journal), Arc::clone(&parts.clock), lease);
        Run::new(parts, Arc::new(journal), request).drive().await
    }
}

//! What keeping a run takes, put together from an agent's setup.

use std::{sync::Arc, time::Duration};

use cofferdam_checkpoint::{
    CheckpointStore, LiveWorkspace, WorkspaceError, Workspaces, WorkspacesParts,
};
use cofferdam_core::RunId;
use cofferdam_workspace::Materialized;

use crate::{AgentError, agent::Setup};

/// How long a sandbox waits for somebody who goes on with its run.
const LINGER: Duration = Duration::from_secs(10 * 60);

/// Where the workspaces of one run are kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) workspaces: Workspaces,
    pub(crate) checkpoints: Arc<dyn CheckpointStore>,
}

impl Kept {
    /// Returns what keeps a run; `None` if the agent has no state directory.
    pub(crate) async fn of(setup: &Setup, run: &RunId) -> Result<Option<Self>, AgentError> {
        let Some(state) = &setup.state else { return Ok(None) };
        let workspaces = Workspaces::new(WorkspacesParts {
            backend: Arc::clone(&setup.backend),
            spec: setup.sandbox_spec(run)?,
            snapshots: state.snapshots().await?,
            exclude: setup.manifest.ephemeral_paths(),
            linger: LINGER,
        });
        Ok(Some(Self { workspaces, checkpoints: state.checkpoints() }))
    }
}

/// Makes a sandbox that the manifest fills, and keeps what it begins with.
pub(crate) async fn fill(
    setup: &Setup,
    kept: &Kept,
    run: &RunId,
) -> Result<(LiveWorkspace, Materialized), AgentError> {
    let workspace = kept.workspaces.create().await?;
    let sandbox = Arc::clone(workspace.sandbox());
    let filled = async {
        let materialized = setup.materializer().materialize(&setup.manifest, &*sandbox).await?;
        Ok((kept.workspaces.begin(workspace, run).await?, materialized))
    };
    let filled: Result<_, AgentError> = filled.await;
    if filled.is_err() {
        // It may linger, and nobody would come for it. Why it is not filled tells more than why it is not closed.
        let _ = sandbox.close().await;
    }
    filled
}

impl From<WorkspaceError> for AgentError {
    fn from(error: WorkspaceError) -> Self {
        Self::Kept(error)
    }
}

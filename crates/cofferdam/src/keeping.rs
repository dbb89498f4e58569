//! What keeping a run takes, put together from an agent's setup.

use std::{sync::Arc, time::Duration};

use cofferdam_checkpoint::{
    CheckpointStore, LiveWorkspace, WorkspaceError, Workspaces, WorkspacesParts,
};
use cofferdam_core::RunId;
use cofferdam_workspace::{HostTree, HostTreeLimits, MaterializeError, Materialized};

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
            host: Some(state.host_workspaces()?),
        });
        Ok(Some(Self { workspaces, checkpoints: state.checkpoints() }))
    }
}

/// Makes a sandbox that the manifest fills, and keeps what it begins with.
///
/// Where a sandbox can begin with a directory, the manifest fills one before there is a sandbox, and is read once: the snapshot
/// of it is the base of the sandbox, so that a checkpoint costs what was changed since. Elsewhere the sandbox is filled as one
/// that is not kept, and then read.
pub(crate) async fn fill(
    setup: &Setup,
    kept: &Kept,
    run: &RunId,
) -> Result<(LiveWorkspace, Materialized), AgentError> {
    let (materializer, manifest) = (setup.materializer(), &setup.manifest);
    if let Some(directory) = kept.workspaces.fresh_directory(run).await? {
        let limits = &kept.workspaces.parts().spec.limits;
        let limits =
            HostTreeLimits { max_bytes: limits.disk_bytes, max_entries: limits.disk_inodes };
        let tree = HostTree::create(&directory, limits).map_err(MaterializeError::from)?;
        let materialized = materializer.materialize_into(manifest, &tree).await?;
        return Ok((kept.workspaces.begin_from(directory, run).await?, materialized));
    }
    let workspace = kept.workspaces.create().await?;
    let sandbox = Arc::clone(workspace.sandbox());
    let filled = async {
        let materialized = materializer.materialize(manifest, &*sandbox).await?;
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

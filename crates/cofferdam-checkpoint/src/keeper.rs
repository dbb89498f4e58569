//! [`SnapshotKeeper`]: keeps the workspace of a run by snapshots, and puts a new sandbox in the place of a lost one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::{Clock, RunId};
use cofferdam_harness::{
    CheckpointPoint, CheckpointTaken, KeeperError, Recovered, WorkspaceKeeper,
};
use cofferdam_sandbox::{CommandState, ReplaceableSandbox, Sandbox, SandboxError};
use cofferdam_snapshot::{Lineage, Parent, Receipt, SnapshotError, SnapshotId};
use futures::FutureExt;
use serde_json::Value;

use crate::{
    Checkpoint, CheckpointId, CheckpointStore, FORMAT_VERSION, LiveWorkspace, WorkspaceError,
    Workspaces,
};

/// How long a sandbox may take to answer before it counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the layer of a lost sandbox is read before it is given up.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(30);
/// Checkpoints that are tried, newest first, before a workspace counts as lost.
const MAX_TRIED: usize = 16;

/// What a [`SnapshotKeeper`] is made of.
#[derive(Debug)]
pub struct KeeperParts {
    /// Makes sandboxes of snapshots and snapshots of sandboxes.
    pub workspaces: Workspaces,
    /// Where checkpoints are kept.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The live sandbox.
    pub workspace: LiveWorkspace,
    /// The newest checkpoint of the workspace, or the one that it comes from.
    pub from: Option<CheckpointId>,
}

/// Keeps the workspace of one sandbox at a time by snapshots. Runs in it come one after the other.
///
/// - A checkpoint is durable when [`WorkspaceKeeper::checkpoint`] returns: first the snapshot, then the checkpoint that names it.
/// - The snapshots of a run are one line, named by the run; the first of them comes from whatever the workspace was before.
/// - A lost sandbox whose files the host can still see is read once more before it is given up, into a line of its own,
///   `RUN-lost-N`. The workspace that is brought back is the checkpoint's all the same: only of that is it known which calls
///   it holds. What a call had done halfway is in the other line, for whoever wants to look.
#[derive(Debug)]
pub struct SnapshotKeeper {
    workspaces: Workspaces,
    checkpoints: Arc<dyn CheckpointStore>,
    clock: Arc<dyn Clock>,
    place: Arc<ReplaceableSandbox>,
    /// One operation at a time.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    live: LiveWorkspace,
    newest: Option<SnapshotId>,
    last: Option<CheckpointId>,
    run: Option<RunId>,
    verified: Option<SnapshotId>,
}

impl SnapshotKeeper {
    /// Makes a keeper of a live workspace.
    #[must_use]
    pub fn new(parts: KeeperParts) -> Self {
        let KeeperParts { workspaces, checkpoints, clock, workspace, from } = parts;
        let place = Arc::new(ReplaceableSandbox::new(Arc::clone(workspace.sandbox())));
        let newest = workspace.newest().cloned();
        let state = State { live: workspace, newest, last: from, run: None, verified: None };
        let (turn, state) = (tokio::sync::Mutex::default(), Mutex::new(state));
        Self { workspaces, checkpoints, clock, place, turn, state }
    }

    /// Returns the sandbox for tools: whichever is in the place.
    #[must_use]
    pub fn place(&self) -> &Arc<ReplaceableSandbox> {
        &self.place
    }

    /// Verifies the last snapshot, then ends the sandbox and forgets what was seen of it. A sandbox whose last snapshot is damaged
    /// is left as it is.
    ///
    /// # Errors
    ///
    /// As [`WorkspaceKeeper::finish`]; [`KeeperError::Failed`] if something of the sandbox is left. Calling again goes on.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, calling again goes on.
    pub async fn close(&self) -> Result<(), KeeperError> {
        self.finish().await?;
        let closed = self.place.close().await;
        closed.map_err(|error| keeper_error("close the sandbox", error.into()))?;
        self.workspaces.forget(&self.state().live).await;
        Ok(())
    }

    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // A panic in `change` cannot leave it half changed: each changes it in one last step.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes a snapshot into a run's line.
    async fn snapshot(&self, run: &RunId) -> Result<Receipt, WorkspaceError> {
        let State { live, newest, .. } = self.state();
        let lineage = lineage(run.as_str())?;
        let parent = newest.map_or(Parent::Newest, Parent::At);
        match self.workspaces.snapshot(&live, &lineage, parent).await {
            // A process that died before it could record its last snapshot has left it there.
            // And a clean-up of the store may have overtaken this.
            Err(WorkspaceError::Snapshot(
                SnapshotError::Conflict { .. } | SnapshotError::Overtaken { .. },
            )) => self.workspaces.snapshot(&live, &lineage, Parent::Newest).await,
            taken => taken,
        }
    }

    /// Stores a checkpoint of a snapshot.
    async fn record(
        &self,
        point: CheckpointPoint,
        receipt: Receipt,
        running: Vec<String>,
    ) -> Result<CheckpointTaken, WorkspaceError> {
        let State { live, last, .. } = self.state();
        let checkpoint = Checkpoint {
            format: FORMAT_VERSION,
            run: point.run.clone(),
            at: point.at,
            turn: point.turn,
            time: self.clock.now(),
            parents: last.into_iter().collect(),
            workspace: Some(receipt.clone()),
            sandbox: live.handle(),
            running: running.clone(),
        };
        let id = self.checkpoints.put(&checkpoint).await?;
        self.change(|state| {
            state.newest = Some(receipt.snapshot.clone());
            state.last = Some(id.clone());
            state.run = Some(point.run);
        });
        Ok(CheckpointTaken {
            checkpoint: id.to_string(),
            at: point.at,
            turn: point.turn,
            snapshot: Some(receipt.snapshot.to_string()),
            sandbox: checkpoint.sandbox,
            // A receipt is made of strings and numbers.
            receipt: serde_json::to_value(&receipt).unwrap_or_default(),
            running,
        })
    }

    /// Reads what a lost sandbox has left, if the host can see it.
    async fn hand_over(&self, attempt: u32) {
        let State { live, newest, run, .. } = self.state();
        if live.sandbox().host_workspace().is_none_or(|workspace| workspace.layer().is_err()) {
            return;
        }
        let run = run.as_ref().map_or("unnamed", RunId::as_str);
        let Ok(lineage) = lineage(&format!("{run}-lost-{attempt}")) else { return };
        let parent = newest.map_or(Parent::Newest, Parent::At);
        let taken = self.workspaces.snapshot(&live, &lineage, parent);
        match tokio::time::timeout(HANDOVER_TIMEOUT, taken).await {
            Ok(Ok(receipt)) => {
                tracing::info!(snapshot = %receipt.snapshot, "kept what a lost sandbox has left");
            }
            Ok(Err(error)) => tracing::warn!(%error, "what a lost sandbox has left is not kept"),
            Err(_) => tracing::warn!("what a lost sandbox has left could not be read in time"),
        }
    }

    /// Makes a workspace of a checkpoint or of one that it comes from, whichever is not damaged.
    async fn bring_back(
        &self,
        last: Option<&CheckpointTaken>,
    ) -> Result<(LiveWorkspace, Option<CheckpointId>), WorkspaceError> {
        let mut damage = None;
        if let Some(taken) = last {
            let mut next = Some(taken.checkpoint.parse::<CheckpointId>()?);
            for _ in 0..MAX_TRIED {
                let Some(id) = next.take() else { break };
                match self.workspaces.open_checkpoint(&*self.checkpoints, &id).await {
                    Ok(live) => return Ok((live, Some(id))),
                    Err(error) if error.is_damage() => {
                        tracing::warn!(checkpoint = %id, %error, "a checkpoint is damaged");
                        damage = Some(error);
                    }
                    Err(error) => return Err(error),
                }
                next = self
                    .checkpoints
                    .get(&id)
                    .await
                    .ok()
                    .and_then(|checkpoint| checkpoint.parents.first().cloned());
            }
        }
        match self.state().live.start() {
            Some(start) => Ok((self.workspaces.open(start).await?, None)),
            None => Err(damage.unwrap_or(WorkspaceError::NothingKept)),
        }
    }
}

#[async_trait]
impl WorkspaceKeeper for SnapshotKeeper {
    fn sandbox(&self) -> Value {
        self.state().live.handle()
    }

    fn tree(&self) -> Option<String> {
        self.state().live.start().map(ToString::to_string)
    }

    async fn checkpoint(&self, point: CheckpointPoint) -> Result<CheckpointTaken, KeeperError> {
        let _turn = self.turn.lock().await;
        let sandbox = Arc::clone(self.state().live.sandbox());
        if let Some(error) = sandbox.lost().now_or_never() {
            return Err(KeeperError::Lost { reason: error.to_string() });
        }
        let failed = |error: WorkspaceError| keeper_error("take a checkpoint", error);
        let running = running(&*sandbox).await.map_err(|error| failed(error.into()))?;
        let receipt = self.snapshot(&point.run).await.map_err(failed)?;
        self.record(point, receipt, running).await.map_err(failed)
    }

    async fn is_lost(&self) -> Option<String> {
        let sandbox = self.place.current();
        let answer = async {
            match sandbox.files().stat(&cofferdam_core::WorkspacePath::root()).await {
                Err(error) if error.is_loss() => Some(error.to_string()),
                _ => None,
            }
        };
        tokio::select! {
            biased;
            error = sandbox.lost() => Some(error.to_string()),
            lost = answer => lost,
            () = tokio::time::sleep(ANSWER_TIMEOUT) => {
                Some(format!("it has not answered for {} s", ANSWER_TIMEOUT.as_secs()))
            }
        }
    }

    async fn recover(
        &self,
        last: Option<&CheckpointTaken>,
        attempt: u32,
    ) -> Result<Recovered, KeeperError> {
        let _turn = self.turn.lock().await;
        self.hand_over(attempt).await;
        let (live, checkpoint) = self
            .bring_back(last)
            .await
            .map_err(|error| keeper_error("bring the workspace back", error))?;
        let former = self.place.replace(Arc::clone(live.sandbox()));
        let lost = self.state().live;
        self.change(|state| {
            state.newest = live.newest().cloned();
            state.last = checkpoint.clone();
            // What a later loss falls back to is what the first sandbox began with.
            state.live = live.beginning_at(state.live.start().cloned());
        });
        // Its files are kept as far as they can be, and what is left of it on the host is of no more use.
        if let Err(error) = former.close().await {
            tracing::warn!(%error, "something of a lost sandbox is left on the host");
        }
        self.workspaces.forget(&lost).await;
        let checkpoint = checkpoint.map(|id| id.to_string());
        Ok(Recovered { sandbox: self.sandbox(), checkpoint })
    }

    async fn finish(&self) -> Result<(), KeeperError> {
        let _turn = self.turn.lock().await;
        let State { newest, verified, .. } = self.state();
        let Some(snapshot) = newest.filter(|newest| verified.as_ref() != Some(newest)) else {
            return Ok(());
        };
        let verified = self.workspaces.verify(&snapshot).await;
        verified.map_err(|error| keeper_error("verify the last snapshot", error))?;
        self.change(|state| state.verified = Some(snapshot));
        Ok(())
    }
}

/// Names the commands whose processes go on.
async fn running(sandbox: &dyn Sandbox) -> Result<Vec<String>, SandboxError> {
    let Some(sessions) = sandbox.sessions() else { return Ok(Vec::new()) };
    let listed = sessions.list().await?;
    let alive = listed.into_iter().filter(|command| command.state != CommandState::Finished);
    Ok(alive.map(|command| command.id).collect())
}

fn lineage(name: &str) -> Result<Lineage, SnapshotError> {
    Ok(name.parse::<Lineage>()?)
}

fn keeper_error(operation: &'static str, error: WorkspaceError) -> KeeperError {
    if error.is_loss() {
        // The last cause is the sandbox's own word.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        return KeeperError::Lost { reason: cause.to_string() };
    }
    KeeperError::Failed { operation, source: error.into() }
}

//! [`Session`]: an agent with its sandbox, from the first file in it to the last output out of it.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use cofferdam_apply_patch::tool::ApplyPatchTool;
use cofferdam_checkpoint::{
    CheckpointId, KeeperParts, LiveWorkspace, Reopened, RunRecords, SnapshotKeeper, WorkspaceError,
};
use cofferdam_core::{Clock as _, Entropy as _, NetworkAccess, RunId, StepId};
use cofferdam_harness::{
    Harness, HarnessParts, Hold, ResumeRequest, RunReport, RunRequest, WorkspaceKeeper,
};
use cofferdam_journal::ApprovalVerdict;
use cofferdam_manifest::{OutputSpec, ToolName};
use cofferdam_sandbox::Sandbox;
use cofferdam_shell::{FileTools, ShellOptions, ShellTools, Terminal, ViewImageTool};
use cofferdam_tool::{Tool, ToolSet};
use cofferdam_workspace::{Collected, Collector, Materialized};

use crate::{
    AgentError, DefaultStacks, SystemClock, SystemEntropy,
    agent::Setup,
    keeping::{Kept, fill},
};

/// A live sandbox with a filled workspace, and the harness that works in it.
///
/// Dropping it closes the sandbox in the background, unless the sandbox lingers, as those of kept runs do where the backend can;
/// [`Session::close`] tells when it is gone.
#[derive(Debug)]
pub struct Session {
    setup: Arc<Setup>,
    sandbox: Arc<dyn Sandbox>,
    materialized: Materialized,
    keeper: Option<Arc<SnapshotKeeper>>,
    harness: Harness,
    /// The terminals that the model has open, if it has the shell tools.
    terminal: Option<Arc<Terminal>>,
    /// The name of the first run in it, until that has begun.
    first_run: Mutex<Option<RunId>>,
    /// The run that it was reopened for, from then until it is driven.
    held: tokio::sync::Mutex<Option<Hold>>,
    origin: Origin,
}

/// What a session's workspace comes from.
#[derive(Debug)]
enum Origin {
    /// The manifest.
    Manifest,
    /// A checkpoint of a run, for another that goes on from there.
    Checkpoint(CheckpointId),
    /// A run that is to be gone on with.
    Run { run: RunId, same_sandbox: bool, checkpoint: Option<CheckpointId> },
}

impl Session {
    /// Fills a fresh sandbox for a run of this name.
    pub(crate) async fn open(setup: Arc<Setup>, run: RunId) -> Result<Self, AgentError> {
        let Some(kept) = Kept::of(&setup, &run).await? else {
            let sandbox = setup.backend.create(&setup.sandbox_spec(&run)?).await?;
            let materialized = setup.materializer().materialize(&setup.manifest, &*sandbox).await?;
            return Self::assemble(setup, sandbox, materialized, None, Some(run), Origin::Manifest);
        };
        let (workspace, materialized) = fill(&setup, &kept, &run).await?;
        Self::keep(setup, kept, workspace, None, materialized, Some(run), Origin::Manifest)
    }

    /// Makes a sandbox with the workspace of a checkpoint.
    pub(crate) async fn open_at(
        setup: Arc<Setup>,
        checkpoint: &CheckpointId,
    ) -> Result<Self, AgentError> {
        let kept = Kept::of(&setup, checkpoint.run()).await?.ok_or(AgentError::NotKept)?;
        let workspace = kept.workspaces.open_checkpoint(&*kept.checkpoints, checkpoint).await?;
        let (from, origin) = (Some(checkpoint.clone()), Origin::Checkpoint(checkpoint.clone()));
        Self::keep(setup, kept, workspace, from, Materialized::default(), None, origin)
    }

    /// Finds the sandbox of a run, or makes one like it.
    pub(crate) async fn reopen(
        setup: Arc<Setup>,
        run: &RunId,
        back_to: Option<CheckpointId>,
    ) -> Result<Self, AgentError> {
        let kept = Kept::of(&setup, run).await?.ok_or(AgentError::NotKept)?;
        let records = RunRecords::read(&*setup.journal, run).await?;
        if records.state.begun().is_none() {
            return Err(AgentError::NoSuchRun { run: run.clone() });
        }
        // Whoever drives the run would lose its sandbox to this; and nobody may come until the run is driven here.
        let (journal, clock) = (Arc::clone(&setup.journal), Arc::new(SystemClock));
        let hold = Hold::take(journal, clock, run, &owner(), setup.options.lease).await?;
        // What was written until the lease was granted counts too.
        let records = RunRecords::read(&*setup.journal, run).await?;
        let found = match back_to {
            Some(id) => kept.workspaces.reopen_at(&*kept.checkpoints, &records, Some(id)).await,
            None => kept.workspaces.reopen(&*kept.checkpoints, &records).await,
        };
        let (found, materialized) = match found {
            Ok(found) => (found, Materialized::default()),
            Err(WorkspaceError::NothingKept) => {
                let (workspace, materialized) = fill(&setup, &kept, run).await?;
                let found = Reopened { workspace, same_sandbox: false, checkpoint: None };
                (found, materialized)
            }
            Err(error) => return Err(error.into()),
        };
        let Reopened { workspace, same_sandbox, checkpoint } = found;
        let origin = Origin::Run { run: run.clone(), same_sandbox, checkpoint: checkpoint.clone() };
        let mut session =
            Self::keep(setup, kept, workspace, checkpoint, materialized, None, origin)?;
        session.held = tokio::sync::Mutex::new(Some(hold));
        Ok(session)
    }

    fn keep(
        setup: Arc<Setup>,
        kept: Kept,
        workspace: LiveWorkspace,
        from: Option<CheckpointId>,
        materialized: Materialized,
        run: Option<RunId>,
        origin: Origin,
    ) -> Result<Self, AgentError> {
        if let Some(state) = &setup.state {
            state.clean_up_in_background(&setup.backend);
        }
        let keeper = Arc::new(SnapshotKeeper::new(KeeperParts {
            workspaces: kept.workspaces,
            checkpoints: kept.checkpoints,
            clock: Arc::new(SystemClock),
            workspace,
            from,
        }));
        let sandbox = Arc::clone(keeper.place()) as Arc<dyn Sandbox>;
        Self::assemble(setup, sandbox, materialized, Some(keeper), run, origin)
    }

    fn assemble(
        setup: Arc<Setup>,
        sandbox: Arc<dyn Sandbox>,
        materialized: Materialized,
        keeper: Option<Arc<SnapshotKeeper>>,
        run: Option<RunId>,
        origin: Origin,
    ) -> Result<Self, AgentError> {
        let (tools, terminal) = tools(&setup, &sandbox);
        let tools = ToolSet::new(tools)?;
        let entropy = Arc::new(SystemEntropy);
        let stacks = DefaultStacks {
            model: Arc::clone(&setup.model),
            tools: tools.clone(),
            policy: Arc::clone(&setup.policy),
            approver: Arc::clone(&setup.approver),
            audit: Arc::clone(&setup.audit),
            entropy: entropy.clone(),
            limits: setup.limits,
        };
        let harness = Harness::new(HarnessParts {
            tools,
            stacks: Arc::new(stacks),
            journal: Arc::clone(&setup.journal),
            clock: Arc::new(SystemClock),
            entropy,
            owner: owner(),
            keeper: keeper.clone().map(|keeper| keeper as Arc<dyn WorkspaceKeeper>),
        });
        let first_run = Mutex::new(run);
        let held = tokio::sync::Mutex::default();
        Ok(Self {
            setup,
            sandbox,
            materialized,
            keeper,
            harness,
            terminal,
            first_run,
            held,
            origin,
        })
    }

    /// Returns the sandbox: whichever is in the place, if a lost one was replaced.
    #[must_use]
    pub fn sandbox(&self) -> &Arc<dyn Sandbox> {
        &self.sandbox
    }

    /// Returns what the workspace was filled with; nothing if it was brought back.
    #[must_use]
    pub fn materialized(&self) -> &Materialized {
        &self.materialized
    }

    /// Returns the harness, for what a session does not offer itself. A run that the session was reopened for is held by the session:
    /// to drive it by the harness, take it out ([`Session::take_hold`]).
    #[must_use]
    pub fn harness(&self) -> &Harness {
        &self.harness
    }

    /// Takes the run that this session was reopened for out of its hands, for [`Harness::resume_held`]; `None` if it was driven
    /// already, or there is none.
    pub async fn take_hold(&self) -> Option<Hold> {
        self.held.lock().await.take()
    }

    /// Makes a request for a run with the agent's own instructions, settings and bounds.
    pub fn request(&self, task: impl Into<String>) -> RunRequest {
        RunRequest {
            instructions: self.setup.instructions.clone(),
            settings: Arc::clone(&self.setup.settings),
            options: self.setup.options,
            setup: self.setup.texts(),
            ..RunRequest::new(self.setup.name.clone(), task)
        }
    }

    /// Makes a request to go on with the run that this session was reopened for.
    #[must_use]
    pub fn resume_request(&self) -> ResumeRequest {
        let mut request = ResumeRequest::new(self.request(""));
        if let Origin::Run { same_sandbox, checkpoint, .. } = &self.origin {
            request.same_sandbox = *same_sandbox;
            request.checkpoint = checkpoint.as_ref().map(ToString::to_string);
        }
        request
    }

    /// Runs the agent in this sandbox.
    ///
    /// # Errors
    ///
    /// [`AgentError::Run`]; the sandbox lives on and its files can be collected.
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::run`].
    pub async fn run(&self, request: RunRequest) -> Result<RunReport, AgentError> {
        let first = self.first_run.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.run_as(first.unwrap_or_else(new_run), request).await
    }

    /// As [`Session::run`], under a name that the caller chose; best the one that the session was opened as
    /// ([`crate::Agent::open_as`]), which the sandbox is labelled with.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::run`].
    pub async fn run_as(&self, run: RunId, request: RunRequest) -> Result<RunReport, AgentError> {
        Ok(self.harness.run_as(run, request).await?)
    }

    /// Goes on with the run that this session was reopened for. Nobody else has had the run since it was reopened.
    ///
    /// # Errors
    ///
    /// [`AgentError::Run`]; [`AgentError::NoSuchRun`] if the session was not reopened for a run.
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::resume`].
    pub async fn resume(&self, request: ResumeRequest) -> Result<RunReport, AgentError> {
        match &self.origin {
            Origin::Run { run, .. } => Ok(match self.take_hold().await {
                Some(hold) => self.harness.resume_held(hold, request).await?,
                // It was driven here before.
                None => self.harness.resume(run, request).await?,
            }),
            _ => Err(AgentError::NothingToResume),
        }
    }

    /// Begins a run that goes on from the checkpoint that this session was opened at.
    ///
    /// # Errors
    ///
    /// As [`Session::run`]; [`AgentError::NothingToResume`] if the session was not opened at a checkpoint.
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::fork`].
    pub async fn fork(&self, request: RunRequest) -> Result<RunReport, AgentError> {
        match &self.origin {
            Origin::Checkpoint(id) => {
                let (run, at, name) = (id.run(), Some(id.at()), Some(id.to_string()));
                Ok(self.harness.fork(run, at, name, request).await?)
            }
            _ => Err(AgentError::NothingToResume),
        }
    }

    /// Answers a call of the reopened run that waits for approval. It is made when the run is resumed.
    ///
    /// # Errors
    ///
    /// As [`Harness::answer`].
    ///
    /// # Cancel safety
    ///
    /// As [`Harness::answer`].
    pub async fn answer(
        &self,
        step: StepId,
        verdict: ApprovalVerdict,
        by: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), AgentError> {
        match &self.origin {
            Origin::Run { run, .. } => {
                let answered = match &*self.held.lock().await {
                    Some(hold) => self.harness.answer_held(hold, step, verdict, by, reason).await,
                    None => self.harness.answer(run, step, verdict, by, reason).await,
                };
                answered.map_err(|error| AgentError::Answer(error.into()))
            }
            _ => Err(AgentError::NothingToResume),
        }
    }

    /// Copies outputs out of the workspace into a directory of the host, which is made.
    ///
    /// # Errors
    ///
    /// [`AgentError::Outputs`]; an output that is not there is listed in the receipt, and is no error.
    pub async fn collect(
        &self,
        outputs: &[OutputSpec],
        directory: &Path,
    ) -> Result<Collected, AgentError> {
        let collector = Collector::new(directory).exclude(self.setup.manifest.ephemeral_paths());
        Ok(collector.collect(&*self.sandbox, outputs).await?)
    }

    /// Closes the sandbox: every process ends, and nothing of it stays on the host. Of a kept run, the last snapshot is verified
    /// before.
    ///
    /// # Errors
    ///
    /// [`AgentError::Keeper`] if the last snapshot is not what it should be, and the sandbox is left then; or if the sandbox of a kept
    /// run cannot be closed. [`AgentError::Sandbox`] without a keeper. Calling again retries.
    pub async fn close(&self) -> Result<(), AgentError> {
        let closed = match &self.keeper {
            Some(keeper) => keeper.close().await.map_err(AgentError::from),
            None => self.sandbox.close().await.map_err(AgentError::from),
        };
        if let Some(hold) = self.take_hold().await {
            // It ends by itself where it cannot be given back.
            let _ = hold.release().await;
        }
        closed
    }

    /// Leaves the sandbox to whoever goes on with the run, with the terminals that the model has open. It ends by itself if nobody
    /// comes: after ten minutes where sandboxes linger, at once where they do not.
    pub fn leave(self) {
        self.terminal.iter().for_each(|terminal| terminal.leave());
    }

    /// Closes the sandbox after a run that is over. A kept run that can be resumed leaves it, where sandboxes linger: it ends by
    /// itself if nobody comes.
    pub(crate) async fn end(
        self,
        result: Result<RunReport, AgentError>,
    ) -> Result<RunReport, AgentError> {
        if self.keeper.is_none() || result.is_ok() {
            self.close().await?;
        } else {
            self.leave();
        }
        result
    }
}

/// Makes the name of a new run.
pub(crate) fn new_run() -> RunId {
    RunId::generate(SystemClock.now(), &SystemEntropy)
}

/// Who this is, as other processes see it in leases and labels.
pub(crate) fn owner() -> String {
    format!("process {}", std::process::id())
}

/// Returns the tools over a sandbox, and the terminals that they share.
fn tools(setup: &Setup, sandbox: &Arc<dyn Sandbox>) -> (Vec<Arc<dyn Tool>>, Option<Arc<Terminal>>) {
    let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
    let mut terminal = None;
    for name in &setup.tool_names {
        match name {
            ToolName::Shell => {
                let options = ShellOptions {
                    network: setup.manifest.network != NetworkAccess::None,
                    // Ids that a model remembers of an earlier process are not given out again.
                    seed: SystemEntropy.next_u64(),
                    ..ShellOptions::default()
                };
                let shell = ShellTools::new(Arc::clone(sandbox), options);
                terminal = Some(shell.terminal());
                tools.extend(shell);
            }
            ToolName::ApplyPatch => tools.push(Arc::new(ApplyPatchTool::new(Arc::clone(sandbox)))),
            ToolName::Files => tools.extend(FileTools::new(Arc::clone(sandbox))),
            ToolName::ViewImage => tools.push(Arc::new(ViewImageTool::new(Arc::clone(sandbox)))),
            _ => {}
        }
    }
    tools.extend(setup.more_tools.iter().cloned());
    (tools, terminal)
}

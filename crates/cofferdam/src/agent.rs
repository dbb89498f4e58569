//! [`Agent`]: a model, tools and a workspace, ready to run any number of times.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use cofferdam_checkpoint::WorkspaceError;
use cofferdam_core::RunId;
use cofferdam_harness::{Checkpoints, KeeperError, RunFailure, RunOptions, RunReport};
use cofferdam_journal::{Journal, JournalError, MemoryJournal};
use cofferdam_layers::{Approver, AuditEvent, AuditSink, RefuseAll};
use cofferdam_manifest::{
    AgentFile, Manifest, PolicyDecision, PolicyRuleSpec, ReasoningEffort as Effort, ToolName,
};
use cofferdam_model::{Model, ModelSettings, ReasoningEffort};
use cofferdam_policy::{Policy, Rule, RulePolicy, Verdict};
use cofferdam_sandbox::{RootFilesystem, SandboxBackend, SandboxError, SandboxSpec};
use cofferdam_tool::{Tool, ToolSetError};
use cofferdam_workspace::{CollectError, MaterializeError, Materializer};

use crate::{
    Session, StackLimits, StateDirectory, StateError, SystemClock, backends,
    secrets::resolver,
    session::{new_run, owner},
};

/// An agent: what it is told, what it works in, what it may do.
///
/// Each run gets a sandbox of its own, so one agent may run many times at once.
#[derive(Debug, Clone)]
pub struct Agent {
    pub(crate) setup: Arc<Setup>,
}

#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) instructions: Option<Arc<str>>,
    pub(crate) settings: Arc<ModelSettings>,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) backend: Arc<dyn SandboxBackend>,
    pub(crate) manifest: Manifest,
    pub(crate) base: PathBuf,
    pub(crate) tool_names: Vec<ToolName>,
    pub(crate) more_tools: Vec<Arc<dyn Tool>>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) approver: Arc<dyn Approver>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) state: Option<StateDirectory>,
    pub(crate) options: RunOptions,
    pub(crate) limits: StackLimits,
    pub(crate) strict: bool,
    pub(crate) root: Option<RootFilesystem>,
}

/// Puts an [`Agent`] together.
///
/// What is not said: no instructions, an empty workspace, no network, the default limits, all built-in tools, every call
/// allowed (inside the seal), nobody to ask, a journal that lives as long as the process, and the Linux backend.
#[derive(Debug)]
#[must_use]
pub struct AgentBuilder {
    name: String,
    instructions: Option<Arc<str>>,
    settings: ModelSettings,
    model: Option<Arc<dyn Model>>,
    backend: Option<Arc<dyn SandboxBackend>>,
    manifest: Manifest,
    base: PathBuf,
    tool_names: Vec<ToolName>,
    more_tools: Vec<Arc<dyn Tool>>,
    policy: Arc<dyn Policy>,
    approver: Arc<dyn Approver>,
    audit: Arc<dyn AuditSink>,
    journal: Option<Arc<dyn Journal>>,
    state: Option<StateDirectory>,
    options: RunOptions,
    limits: StackLimits,
    strict: bool,
    root: Option<RootFilesystem>,
}

/// Why an agent cannot be made or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The builder was given no model: call [`AgentBuilder::model`].
    #[error("agent {agent:?} has no model; give it one with `AgentBuilder::model`")]
    NoModel {
        /// The agent.
        agent: String,
    },
    /// The builder was given no backend, and none is built in: call [`AgentBuilder::backend`].
    #[error("agent {agent:?} has no sandbox backend; enable the feature `linux` or give it one")]
    NoBackend {
        /// The agent.
        agent: String,
    },
    /// The tools cannot be one set: rename one.
    #[error("the tools of the agent do not fit together")]
    Tools(#[from] ToolSetError),
    /// No sandbox could be made, or it was lost.
    #[error("the agent's sandbox failed")]
    Sandbox(#[from] SandboxError),
    /// The workspace could not be filled: its error names the entry.
    #[error("the workspace cannot be filled")]
    Workspace(#[from] MaterializeError),
    /// The run ended early.
    #[error(transparent)]
    Run(#[from] Box<RunFailure>),
    /// The outputs could not be copied out.
    #[error("the outputs cannot be copied out")]
    Outputs(#[from] CollectError),
    /// The state directory cannot be used: its error tells.
    #[error(transparent)]
    State(#[from] StateError),
    /// The workspace could not be kept, or not be brought back: its error tells.
    #[error("the workspace of the run cannot be kept or brought back")]
    Kept(#[source] WorkspaceError),
    /// The last snapshot of the workspace is not what it should be, so the sandbox was left as it is.
    #[error("the workspace of the run is not kept as it is")]
    Keeper(#[from] KeeperError),
    /// The journal failed, or another process drives the run.
    #[error("the journal failed")]
    Journal(#[source] JournalError),
    /// There is no such run: list what is there.
    #[error("there is no run {run}")]
    NoSuchRun {
        /// The run that was asked for.
        run: RunId,
    },
    /// The agent keeps nothing: give it a state directory with [`AgentBuilder::state_directory`].
    #[error(
        "the agent keeps no runs; give it a state directory with `AgentBuilder::state_directory`"
    )]
    NotKept,
    /// The session was not made for going on with something: use [`Agent::reopen`] or [`Agent::open_at`].
    #[error("the session was not opened to go on with a run or from a checkpoint")]
    NothingToResume,
    /// The answer to a call was not taken.
    #[error("the answer was not taken")]
    Answer(#[source] Box<cofferdam_harness::RunError>),
}

/// Forwards audit events to `tracing`.
#[derive(Debug, Clone, Copy, Default)]
struct TraceAudit;

impl AuditSink for TraceAudit {
    fn record(&self, event: AuditEvent) {
        tracing::info!(call = ?event.call, error = ?event.error, duration = ?event.duration, "call ended");
    }
}

impl Agent {
    /// Starts to put an agent together.
    pub fn builder(name: impl Into<String>) -> AgentBuilder {
        AgentBuilder {
            name: name.into(),
            instructions: None,
            settings: ModelSettings::default(),
            model: None,
            backend: None,
            manifest: Manifest::default(),
            base: PathBuf::from("."),
            tool_names: ToolName::ALL.iter().map(|(_, tool)| *tool).collect(),
            more_tools: Vec::new(),
            policy: Arc::new(RulePolicy::default()),
            approver: Arc::new(RefuseAll),
            audit: Arc::new(TraceAudit),
            journal: None,
            state: None,
            options: RunOptions::default(),
            limits: StackLimits::default(),
            strict: false,
            root: None,
        }
    }

    /// Runs the agent once, in a sandbox of its own that is closed at the end.
    ///
    /// With a state directory, a run that ends early can be gone on with: see [`Agent::resume`]. Its sandbox is left for that
    /// then, where the backend can do that; it ends by itself if nobody comes.
    ///
    /// # Errors
    ///
    /// [`AgentError`] by the part that failed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the sandbox is closed in the background, or left as above.
    pub async fn run(&self, task: impl Into<String>) -> Result<RunReport, AgentError> {
        let session = self.open().await?;
        let request = session.request(task);
        let result = session.run(request).await;
        session.end(result).await
    }

    /// Makes a sandbox and fills its workspace, ready for runs.
    ///
    /// # Errors
    ///
    /// [`AgentError::Sandbox`], [`AgentError::Workspace`], [`AgentError::Tools`]; nothing is left behind then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the sandbox is closed in the background.
    pub async fn open(&self) -> Result<Session, AgentError> {
        self.open_as(new_run()).await
    }

    /// As [`Agent::open`], with the name that the first run in it will have.
    ///
    /// # Errors
    ///
    /// As [`Agent::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`Agent::open`].
    pub async fn open_as(&self, run: RunId) -> Result<Session, AgentError> {
        Session::open(Arc::clone(&self.setup), run).await
    }
}

impl Setup {
    /// Returns what fills workspaces: the sources beside the agent file, and the secrets that git servers ask for.
    pub(crate) fn materializer(&self) -> Materializer {
        Materializer::new(&self.base).secrets(resolver())
    }

    /// Returns the texts that a run is not resumed with others of.
    pub(crate) fn texts(&self) -> BTreeMap<String, String> {
        let manifest = cofferdam_manifest::show_manifest(&self.manifest);
        [("manifest".to_owned(), manifest), ("policy".to_owned(), format!("{:?}", self.policy))]
            .into()
    }

    /// Returns the sandbox that the manifest asks for, for a run.
    pub(crate) fn sandbox_spec(&self, run: &RunId) -> Result<SandboxSpec, MaterializeError> {
        let spec = self.materializer().sandbox_spec(&self.manifest)?;
        Ok(SandboxSpec {
            strict: self.strict,
            labels: [
                ("agent".to_owned(), self.name.clone()),
                ("run".to_owned(), run.to_string()),
                ("owner".to_owned(), owner()),
            ]
            .into(),
            root: self.root.clone().unwrap_or(spec.root),
            ..spec
        })
    }
}

impl AgentBuilder {
    /// Sets the model. Required.
    pub fn model(self, model: impl Model) -> Self {
        self.shared_model(Arc::new(model))
    }

    /// Sets a model that is shared with others.
    pub fn shared_model(mut self, model: Arc<dyn Model>) -> Self {
        self.model = Some(model);
        self
    }

    /// Sets what the model is told in every turn.
    pub fn instructions(mut self, instructions: impl Into<Arc<str>>) -> Self {
        self.instructions = Some(instructions.into());
        self
    }

    /// Sets how the model is to answer.
    pub fn settings(mut self, settings: ModelSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets what the workspace holds; `base` is where relative host paths of the manifest begin.
    pub fn workspace(mut self, manifest: Manifest, base: impl Into<PathBuf>) -> Self {
        self.manifest = manifest;
        self.base = base.into();
        self
    }

    /// Sets who makes the sandboxes.
    pub fn backend(mut self, backend: Arc<dyn SandboxBackend>) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Sets where programs and libraries come from, instead of what the manifest says.
    pub fn root(mut self, root: RootFilesystem) -> Self {
        self.root = Some(root);
        self
    }

    /// Refuses hosts on which any wall of the sandbox is weaker than it can be.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets which built-in tools the model gets.
    pub fn tools(mut self, tools: impl IntoIterator<Item = ToolName>) -> Self {
        self.tool_names = tools.into_iter().collect();
        self
    }

    /// Adds a tool of your own.
    pub fn tool(mut self, tool: impl Tool) -> Self {
        self.more_tools.push(Arc::new(tool));
        self
    }

    /// Sets what decides on tool calls.
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// Sets who is asked where the policy says so.
    pub fn approver(mut self, approver: Arc<dyn Approver>) -> Self {
        self.approver = approver;
        self
    }

    /// Sets who is told of every call.
    pub fn audit(mut self, sink: Arc<dyn AuditSink>) -> Self {
        self.audit = sink;
        self
    }

    /// Sets where runs are recorded.
    pub fn journal(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Keeps runs in a directory of this host, so that they survive their sandbox and their process: a journal, snapshots of the
    /// workspace, and checkpoints that tie the two together.
    ///
    /// # Errors
    ///
    /// [`StateError`] if it cannot be opened.
    pub fn state_directory(self, path: impl AsRef<Path>) -> Result<Self, StateError> {
        Ok(self.state(StateDirectory::open(path)?))
    }

    /// As [`AgentBuilder::state_directory`], with one that is open. Its journal is used unless another is set.
    pub fn state(mut self, state: StateDirectory) -> Self {
        self.state = Some(state);
        self
    }

    /// Sets when checkpoints are taken, if runs are kept. Default: after each turn that wrote.
    pub fn checkpoints(mut self, when: Checkpoints) -> Self {
        self.options.checkpoints = when;
        self
    }

    /// Sets the bounds of a run.
    pub fn options(mut self, options: RunOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the bounds of the calls of a run.
    pub fn limits(mut self, limits: StackLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes the agent; touches nothing yet.
    ///
    /// # Errors
    ///
    /// [`AgentError::NoModel`], [`AgentError::NoBackend`].
    pub fn build(self) -> Result<Agent, AgentError> {
        let model = self.model.ok_or_else(|| AgentError::NoModel { agent: self.name.clone() })?;
        let backend = self
            .backend
            .or_else(backends::default_backend)
            .ok_or_else(|| AgentError::NoBackend { agent: self.name.clone() })?;
        let journal = match (self.journal, &self.state) {
            (Some(journal), _) => journal,
            (None, Some(state)) => Arc::clone(state.journal()),
            (None, None) => Arc::new(MemoryJournal::new(Arc::new(SystemClock))),
        };
        Ok(Agent {
            setup: Arc::new(Setup {
                name: self.name,
                instructions: self.instructions,
                settings: Arc::new(self.settings),
                model,
                backend,
                manifest: self.manifest,
                base: self.base,
                tool_names: self.tool_names,
                more_tools: self.more_tools,
                policy: self.policy,
                approver: self.approver,
                audit: self.audit,
                journal,
                state: self.state,
                options: self.options,
                limits: self.limits,
                strict: self.strict,
                root: self.root,
            }),
        })
    }
}

impl Agent {
    /// Starts to put together the agent that a file describes; the model is the caller's to open (see
    /// [`crate::models`]). `base` is where the file's relative paths begin.
    pub fn from_file(file: &AgentFile, base: impl Into<PathBuf>) -> AgentBuilder {
        let mut builder = Self::builder(file.name.clone())
            .workspace(file.workspace.clone(), base)
            .settings(settings(file))
            .policy(RulePolicy::new(file.policy.iter().map(rule)));
        builder.instructions = file.instructions.as_deref().map(Arc::from);
        if let Some(tools) = &file.tools {
            builder = builder.tools(tools.iter().copied());
        }
        let limits = &file.limits;
        builder.options.max_turns = limits.max_turns.unwrap_or(builder.options.max_turns);
        if let Some(time) = &limits.wall_time {
            builder.options.wall_time = time.as_duration();
        }
        if let Some(time) = &limits.tool_time {
            builder.limits.tool_call = time.as_duration();
        }
        builder.limits.tokens = limits.max_tokens.unwrap_or(builder.limits.tokens);
        builder
    }
}

fn settings(file: &AgentFile) -> ModelSettings {
    ModelSettings {
        max_output_tokens: file.model.max_output_tokens.map(u64::from),
        temperature: file.model.temperature,
        reasoning_effort: file.model.reasoning_effort.map(|effort| match effort {
            Effort::None => ReasoningEffort::None,
            Effort::Minimal => ReasoningEffort::Minimal,
            Effort::Low => ReasoningEffort::Low,
            Effort::Medium => ReasoningEffort::Medium,
            Effort::High => ReasoningEffort::High,
            _ => ReasoningEffort::Xhigh,
        }),
        ..ModelSettings::default()
    }
}

fn rule(spec: &PolicyRuleSpec) -> Rule {
    Rule {
        tool: spec.tool.clone(),
        writes: None,
        network: None,
        decision: match spec.decision {
            PolicyDecision::Allow => Verdict::Allow,
            PolicyDecision::Ask => Verdict::Ask,
            // A decision that this release does not know is read as the strictest.
            _ => Verdict::Deny,
        },
        reason: spec.reason.clone().unwrap_or_else(|| format!("a rule on {:?}", spec.tool)),
    }
}

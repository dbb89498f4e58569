//! What a run is asked, how it is bounded, and what it reports.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cofferdam_core::{Item, Message, Role, RunId, StepId, Usage};
use cofferdam_journal::Decision;
use cofferdam_model::ModelSettings;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{NoObserver, RunObserver};

/// One run of an agent.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The agent's name, for records.
    pub agent: String,
    /// What the one who set the agent up tells the model.
    pub instructions: Option<Arc<str>>,
    /// The conversation to begin with, usually one message of the user.
    pub input: Vec<Item>,
    /// How the model is to answer.
    pub settings: Arc<ModelSettings>,
    /// What else the run is set up with, as text by name (`policy`, `manifest`). Its hashes are recorded, and a run is not resumed
    /// with others unless it is told to fork.
    pub setup: BTreeMap<String, String>,
    /// Bounds.
    pub options: RunOptions,
    /// Ends the run when cancelled.
    pub cancel: CancellationToken,
    /// Who is told what happens.
    pub observer: Arc<dyn RunObserver>,
    /// Asks this run for checkpoints.
    pub checkpoint: CheckpointTrigger,
}

impl RunRequest {
    /// Makes a request with one message of the user and the default bounds.
    pub fn new(agent: impl Into<String>, task: impl Into<String>) -> Self {
        Self {
            agent: agent.into(),
            instructions: None,
            input: vec![Item::user(task)],
            settings: Arc::default(),
            setup: BTreeMap::new(),
            options: RunOptions::default(),
            cancel: CancellationToken::new(),
            observer: Arc::new(NoObserver),
            checkpoint: CheckpointTrigger::default(),
        }
    }
}

/// How a run is to be gone on with.
#[derive(Debug, Clone)]
pub struct ResumeRequest {
    /// The agent as the run began with it; `input` is not read. Bounds may be others: what was spent counts against them.
    pub request: RunRequest,
    /// Whether the tools work in the very sandbox that the run had, with everything that happened in it. If not, they work in a
    /// fresh one with the workspace of `checkpoint`. Default `true`: for tools without a sandbox, that is the truth.
    pub same_sandbox: bool,
    /// The checkpoint that a fresh sandbox was restored from; `None`: it was filled as at the run's start.
    pub checkpoint: Option<String>,
    /// What somebody decided, if the run waits for that.
    pub decision: Option<GivenDecision>,
    /// One more message for the model, which it reads with its next request. A run that the model had finished goes on with it.
    pub input: Option<GivenInput>,
    /// What to do if the agent is not what it was. Default [`OnChanged::Refuse`].
    pub on_changed: OnChanged,
}

impl ResumeRequest {
    /// Makes a request to go on in the sandbox that the run had.
    #[must_use]
    pub fn new(request: RunRequest) -> Self {
        Self {
            request,
            same_sandbox: true,
            checkpoint: None,
            decision: None,
            input: None,
            on_changed: OnChanged::default(),
        }
    }
}

/// More for the model to read, from outside of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenInput {
    /// What it reads, usually one message of the user.
    pub items: Vec<Item>,
    /// What tells a repeat apart: a run takes each key once. `None`: the same items at the same stop of the run are a repeat, so
    /// that whoever cannot know whether they were taken gives them again; after the run's next stop they are new.
    pub key: Option<String>,
}

impl GivenInput {
    /// Makes one message of the user.
    pub fn text(text: impl Into<String>) -> Self {
        Self { items: vec![Item::Message(Message::text(Role::User, text))], key: None }
    }
}

/// Somebody's decision for a run that waits for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenDecision {
    /// The call that it is about; `None` if the run waits for a decision on its workspace.
    pub step: Option<StepId>,
    /// The decision.
    pub decision: Decision,
    /// Who decided.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What to do if a run is to be resumed with another agent, other tools or other rules than it began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnChanged {
    /// Refuse, and say what differs.
    #[default]
    Refuse,
    /// Go on as a new run that names the old one as its parent.
    Fork,
}

/// What to do about a call whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Pause the run until somebody decides.
    #[default]
    Pause,
    /// Tell the model what is known, and go on.
    TellModel,
    /// End the run.
    Abort,
}

/// When checkpoints of the workspace are taken. There is one more before the first turn, unless they are off or on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Checkpoints {
    /// After each turn with a call that wrote.
    #[default]
    EveryWrite,
    /// After so many turns, if a call wrote since the last one.
    EveryTurns(NonZeroU32),
    /// After the turn in which somebody asked with [`CheckpointTrigger::ask`].
    OnDemand,
    /// Never.
    Off,
}

/// Asks a run for a checkpoint after its present turn. Clones ask the same run.
#[derive(Debug, Clone, Default)]
pub struct CheckpointTrigger(Arc<AtomicBool>);

impl CheckpointTrigger {
    /// Asks for one.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// Bounds of one run, and what it does at its forks in the road.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RunOptions {
    /// Answers of the model at most. Default 50.
    pub max_turns: u32,
    /// Tool calls in one answer at most; an answer with more ends the run. Default 128.
    pub max_calls_per_turn: u32,
    /// Time for the whole run, the time between its processes not counted. Default one hour.
    pub wall_time: Duration,
    /// Time that a running tool gets to end softly after a cancellation. Default 2 s.
    pub cancel_grace: Duration,
    /// What to do about a call whose outcome is unknown. Default: pause.
    pub on_unknown: OnUnknown,
    /// Time for finding out what became of a call, its own rest included. Default 10 minutes.
    pub probe_time: Duration,
    /// When checkpoints are taken, if there is a keeper. Default: after each turn that wrote.
    pub checkpoints: Checkpoints,
    /// Sandboxes that may be lost before the run pauses. Default 3.
    pub max_losses: u32,
    /// The pause before a lost sandbox is replaced; it doubles with each loss. Default 200 ms.
    pub loss_backoff: Duration,
    /// How long the run stays this process's if it does not say that it lives; it says so three times as often. Default 30 s.
    pub lease: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            max_turns: 50,
            max_calls_per_turn: 128,
            wall_time: Duration::from_secs(60 * 60),
            cancel_grace: Duration::from_secs(2),
            on_unknown: OnUnknown::default(),
            probe_time: Duration::from_secs(10 * 60),
            checkpoints: Checkpoints::default(),
            max_losses: 3,
            loss_backoff: Duration::from_millis(200),
            lease: Duration::from_secs(30),
        }
    }
}

/// What came of a run that the model finished.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// The run.
    pub run: RunId,
    /// The model's last words.
    pub output: String,
    /// Answers of the model.
    pub turns: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// What it cost.
    pub usage: Usage,
    /// The whole conversation.
    pub items: Vec<Arc<Item>>,
}

//! What a run is asked, how it is bounded, and what it reports.

use std::{sync::Arc, time::Duration};

use cofferdam_core::{Item, RunId, Usage};
use cofferdam_model::ModelSettings;
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
    /// Bounds.
    pub options: RunOptions,
    /// Ends the run when cancelled.
    pub cancel: CancellationToken,
    /// Who is told what happens.
    pub observer: Arc<dyn RunObserver>,
}

impl RunRequest {
    /// Makes a request with one message of the user and the default bounds.
    pub fn new(agent: impl Into<String>, task: impl Into<String>) -> Self {
        Self {
            agent: agent.into(),
            instructions: None,
            input: vec![Item::user(task)],
            settings: Arc::default(),
            options: RunOptions::default(),
            cancel: CancellationToken::new(),
            observer: Arc::new(NoObserver),
        }
    }
}

/// Bounds of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOptions {
    /// Answers of the model at most. Default 50.
    pub max_turns: u32,
    /// Tool calls in one answer at most; an answer with more ends the run. Default 128.
    pub max_calls_per_turn: u32,
    /// Time for the whole run. Default one hour.
    pub wall_time: Duration,
    /// Time that a running tool gets to end softly after a cancellation. Default 2 s.
    pub cancel_grace: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            max_turns: 50,
            max_calls_per_turn: 128,
            wall_time: Duration::from_secs(60 * 60),
            cancel_grace: Duration::from_secs(2),
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

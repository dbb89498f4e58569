//! What a run tells of itself: whole events in order, and deltas for a display.

use std::{
    fmt::Debug,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use cofferdam_core::{RunId, StepId, ToolOutput, Usage};
use cofferdam_journal::{PauseReason, Seq};
use futures::Stream;
use serde::Serialize;
use tokio::sync::mpsc;

/// Something that happened in a run. As JSON each is an object with a `type`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunEvent {
    /// The run began. First in a fresh run.
    RunStarted {
        /// The run.
        run: RunId,
        /// The agent.
        agent: String,
        /// The model.
        model: String,
    },
    /// The run goes on after another process had driven it. First in a resumed run.
    RunResumed {
        /// The run.
        run: RunId,
        /// The agent.
        agent: String,
        /// The model.
        model: String,
        /// Answers of the model so far.
        turns: u32,
        /// The last record that was there.
        records: Seq,
    },
    /// The model is asked.
    TurnStarted {
        /// The turn, from 1.
        turn: u32,
    },
    /// The model answered.
    ModelAnswered {
        /// The turn.
        turn: u32,
        /// The text of the answer, if there is any.
        text: String,
        /// Tool calls in the answer.
        calls: u32,
        /// What the answer cost.
        usage: Usage,
    },
    /// A tool call begins.
    ToolStarted {
        /// Its place.
        step: StepId,
        /// The tool.
        tool: String,
        /// The input as the model wrote it.
        input: String,
    },
    /// A tool call ended.
    ToolFinished {
        /// Its place.
        step: StepId,
        /// The tool.
        tool: String,
        /// What the model is told.
        output: ToolOutput,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// A checkpoint of the workspace was taken.
    CheckpointTaken {
        /// Its name.
        checkpoint: String,
        /// Answers of the model by then.
        turn: u32,
    },
    /// The sandbox is gone.
    SandboxLost {
        /// What ended it.
        reason: String,
    },
    /// A fresh sandbox is in its place.
    SandboxReplaced {
        /// The checkpoint that its workspace was restored from; `None`: it was filled as at the run's start.
        checkpoint: Option<String>,
    },
    /// What came after a record did not happen in the restored workspace: the conversation goes back to it.
    RunRewound {
        /// The last record that holds.
        to: Seq,
    },
    /// The run stands still until somebody acts. Last, if it does.
    RunPaused {
        /// The run.
        run: RunId,
        /// What it waits for.
        reason: PauseReason,
    },
    /// The run ended. Last, unless it was paused.
    RunFinished {
        /// The run.
        run: RunId,
        /// `None` if the model was done, else why the run ended early.
        error: Option<String>,
        /// Answers of the model.
        turns: u32,
        /// What it cost.
        usage: Usage,
    },
}

/// A piece of something that a later event has whole. Pieces may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunDelta {
    /// More of the model's text.
    Text {
        /// The turn.
        turn: u32,
        /// The attempt; a higher one begins the answer anew.
        attempt: u32,
        /// The piece.
        delta: String,
    },
    /// More of the model's reasoning.
    Reasoning {
        /// The turn.
        turn: u32,
        /// The attempt.
        attempt: u32,
        /// The piece.
        delta: String,
    },
    /// More of a tool's output; bytes that are not UTF-8 are replaced.
    ToolOutput {
        /// The call.
        step: StepId,
        /// The piece.
        delta: String,
    },
}

/// Someone who is told what happens in a run.
#[async_trait]
pub trait RunObserver: Debug + Send + Sync + 'static {
    /// Takes an event; the run waits until it returns.
    async fn event(&self, event: RunEvent);

    /// Takes a delta; must not block. The default ignores it.
    fn delta(&self, delta: RunDelta) {
        let _ = delta;
    }
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

#[async_trait]
impl RunObserver for NoObserver {
    async fn event(&self, _: RunEvent) {}
}

/// What a [`RunStream`] yields.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamItem {
    /// A whole event.
    Event(RunEvent),
    /// A piece; some may be missing if the reader is slow.
    Delta(RunDelta),
}

/// The events of a run as a stream. A reader that stops reading stops the run at its next event.
#[derive(Debug)]
pub struct RunStream(mpsc::Receiver<StreamItem>);

/// The writing side of a [`RunStream`].
#[derive(Debug, Clone)]
struct StreamObserver(mpsc::Sender<StreamItem>);

impl RunStream {
    /// Makes a stream and the observer that fills it; `capacity` items are kept for a slow reader.
    #[must_use]
    pub fn channel(capacity: usize) -> (std::sync::Arc<dyn RunObserver>, Self) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (std::sync::Arc::new(StreamObserver(sender)), Self(receiver))
    }
}

#[async_trait]
impl RunObserver for StreamObserver {
    async fn event(&self, event: RunEvent) {
        // A reader that is gone does not end the run: cancelling does.
        let _ = self.0.send(StreamItem::Event(event)).await;
    }

    fn delta(&self, delta: RunDelta) {
        let _ = self.0.try_send(StreamItem::Delta(delta));
    }
}

impl Stream for RunStream {
    type Item = StreamItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StreamItem>> {
        self.0.poll_recv(cx)
    }
}

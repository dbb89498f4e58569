//! The model's turn, and the checkpoint that is taken beside it.

use std::sync::Arc;

use cofferdam_journal::RecordBody;
use cofferdam_model::{ModelCall, ModelEvent, ModelObserver, ModelRequest, StopReason};
use tower::ServiceExt;

use super::Run;
use crate::{RunDelta, RunError, RunEvent, RunObserver};

impl Run<'_> {
    /// Asks the model and records its whole answer before anything acts on it. A checkpoint that is due is taken meanwhile, and is
    /// there before any call of the answer starts.
    pub(super) async fn ask(&mut self, turn: u32) -> Result<(), RunError> {
        let max_turns = self.request.options.max_turns;
        if turn > max_turns {
            return Err(RunError::MaxTurns { max_turns });
        }
        let cancel = self.request.cancel.clone();
        let both = async {
            // The place of the checkpoint is fixed before the request is recorded.
            let due = self.due_checkpoint();
            futures::join!(self.answer(turn), self.take_checkpoint(due))
        };
        let (answered, taken) = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(RunError::Cancelled),
            both = both => both,
        };
        answered?;
        taken
    }

    async fn answer(&self, turn: u32) -> Result<(), RunError> {
        let observer = &self.request.observer;
        observer.event(RunEvent::TurnStarted { turn }).await;
        let input = self.state.with(|state| state.history().to_vec());
        self.append(RecordBody::ModelRequested { turn, items: input.len() as u64 }).await?;
        let call = ModelCall {
            request: ModelRequest {
                instructions: self.request.instructions.clone(),
                input,
                tools: self.parts.tools.specs(),
                settings: Arc::clone(&self.request.settings),
            },
            turn,
            attempt: 1,
            observer: Some(Arc::new(Deltas { turn, observer: Arc::clone(observer) })),
        };
        let response = self.model.clone().oneshot(call).await.map_err(RunError::Model)?;
        let event = RunEvent::ModelAnswered {
            turn,
            text: response.text(),
            calls: response.tool_calls().count().try_into().unwrap_or(u32::MAX),
            usage: response.usage,
        };
        let cut = match response.stop {
            StopReason::Done => None,
            cut => Some(format!("{cut:?}")),
        };
        self.append(RecordBody::ModelResponded {
            turn,
            response_id: response.id,
            items: response.items,
            usage: response.usage,
            cut,
        })
        .await?;
        observer.event(event).await;
        Ok(())
    }
}

/// Shows a model's events to the run's observer.
#[derive(Debug)]
struct Deltas {
    turn: u32,
    observer: Arc<dyn RunObserver>,
}

impl ModelObserver for Deltas {
    fn observe(&self, attempt: u32, event: &ModelEvent) {
        let turn = self.turn;
        match event {
            ModelEvent::TextDelta(delta) => {
                self.observer.delta(RunDelta::Text { turn, attempt, delta: delta.clone() });
            }
            ModelEvent::ReasoningDelta(delta) => {
                self.observer.delta(RunDelta::Reasoning { turn, attempt, delta: delta.clone() });
            }
            _ => {}
        }
    }
}

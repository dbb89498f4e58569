//! One run: the state of the loop and its steps.

use std::{collections::BTreeMap, sync::Arc};

use cofferdam_core::{Item, ToolCall, Usage};
use cofferdam_journal::{JournalWriter, RecordBody, RunOutcome, content_hash};
use cofferdam_model::{
    ModelCall, ModelEvent, ModelObserver, ModelRequest, ModelResponse, StopReason,
};
use tower::ServiceExt;

use crate::{
    HarnessParts, ModelStack, RunDelta, RunError, RunEvent, RunFailure, RunObserver, RunReport,
    RunRequest, RunScope,
    calls::{Calls, run_calls},
};

pub(crate) struct Run<'a> {
    parts: &'a HarnessParts,
    journal: Arc<JournalWriter>,
    request: RunRequest,
    history: Vec<Arc<Item>>,
    turns: u32,
    tool_calls: u32,
    usage: Usage,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        parts: &'a HarnessParts,
        journal: Arc<JournalWriter>,
        request: RunRequest,
    ) -> Self {
        let history = request.input.iter().cloned().map(Arc::new).collect();
        Self { parts, journal, request, history, turns: 0, tool_calls: 0, usage: Usage::default() }
    }

    /// Drives the run to its end and records how it ended.
    pub(crate) async fn drive(mut self) -> Result<RunReport, Box<RunFailure>> {
        let limit = self.request.options.wall_time;
        let result = match tokio::time::timeout(limit, self.turns()).await {
            Ok(result) => result,
            Err(_) => Err(RunError::WallTime { limit }),
        };
        let outcome = match &result {
            Ok(_) => RunOutcome::Completed,
            Err(RunError::Cancelled) => RunOutcome::Cancelled,
            Err(error) => RunOutcome::Failed { error: error.to_string() },
        };
        let finished = RecordBody::RunFinished { outcome, usage: self.usage };
        let recorded = match self.journal.append(finished).await {
            Ok(_) => self.journal.release().await,
            Err(error) => Err(error),
        };
        // A run whose end could not be recorded has not ended well, but its own failure tells more.
        let result = result.and_then(|output| recorded.map(|()| output).map_err(RunError::Journal));
        let run = self.journal.run().clone();
        self.request
            .observer
            .event(RunEvent::RunFinished {
                run: run.clone(),
                error: result.as_ref().err().map(ToString::to_string),
                turns: self.turns,
                usage: self.usage,
            })
            .await;
        match result {
            Ok(output) => Ok(RunReport {
                run,
                output,
                turns: self.turns,
                tool_calls: self.tool_calls,
                usage: self.usage,
                items: self.history,
            }),
            Err(error) => {
                Err(Box::new(RunFailure { run, turns: self.turns, usage: self.usage, error }))
            }
        }
    }

    /// Takes turns until the model is done; returns its last words.
    async fn turns(&mut self) -> Result<String, RunError> {
        self.start().await?;
        let scope =
            RunScope { run: self.journal.run().clone(), journal: Arc::clone(&self.journal) };
        let model = self.parts.stacks.model(&scope);
        let tools = self.parts.stacks.tools(&scope);
        let max_turns = self.request.options.max_turns;
        while self.turns < max_turns {
            let response = self.ask(&model).await?;
            let calls: Vec<ToolCall> = response.tool_calls().cloned().collect();
            let text = response.text();
            let stop = response.stop;
            self.history.extend(response.items.into_iter().map(Arc::new));
            if calls.is_empty() {
                return match stop {
                    StopReason::Done => Ok(text),
                    cut => Err(RunError::AnswerCut { reason: format!("{cut:?}") }),
                };
            }
            let limit = self.request.options.max_calls_per_turn;
            if calls.len() > limit as usize {
                return Err(RunError::TooManyCalls { calls: calls.len(), limit });
            }
            self.tool_calls =
                self.tool_calls.saturating_add(calls.len().try_into().unwrap_or(u32::MAX));
            let results = run_calls(Calls {
                turn: self.turns,
                calls,
                tools: &self.parts.tools,
                stack: &tools,
                journal: &self.journal,
                request: &self.request,
            })
            .await?;
            self.history
                .extend(results.into_iter().map(|result| Arc::new(Item::ToolResult(result))));
        }
        Err(RunError::MaxTurns { max_turns })
    }

    async fn start(&self) -> Result<(), RunError> {
        let request = &self.request;
        let tools = self.parts.tools.specs();
        let fingerprints = BTreeMap::from([
            (
                "instructions".to_owned(),
                content_hash(request.instructions.as_deref().unwrap_or("").as_bytes()),
            ),
            ("tools".to_owned(), content_hash(&serde_json::to_vec(&*tools).unwrap_or_default())),
            (
                "settings".to_owned(),
                content_hash(&serde_json::to_vec(&*request.settings).unwrap_or_default()),
            ),
        ]);
        let started = RecordBody::RunStarted {
            agent: request.agent.clone(),
            fingerprints,
            input: request.input.clone(),
            texts: BTreeMap::new(),
            parent: None,
            options: serde_json::Value::Null,
        };
        self.journal.append(started).await?;
        request
            .observer
            .event(RunEvent::RunStarted {
                run: self.journal.run().clone(),
                agent: request.agent.clone(),
                model: self.parts.stacks.model_name().to_owned(),
            })
            .await;
        Ok(())
    }

    /// Asks the model and records its whole answer before anything acts on it.
    async fn ask(&mut self, model: &ModelStack) -> Result<ModelResponse, RunError> {
        let turn = self.turns + 1;
        let observer = &self.request.observer;
        observer.event(RunEvent::TurnStarted { turn }).await;
        self.journal
            .append(RecordBody::ModelRequested { turn, items: self.history.len() as u64 })
            .await?;
        let call = ModelCall {
            request: ModelRequest {
                instructions: self.request.instructions.clone(),
                input: self.history.clone(),
                tools: self.parts.tools.specs(),
                settings: Arc::clone(&self.request.settings),
            },
            turn,
            attempt: 1,
            observer: Some(Arc::new(Deltas { turn, observer: Arc::clone(observer) })),
        };
        let response = tokio::select! {
            biased;
            () = self.request.cancel.cancelled() => return Err(RunError::Cancelled),
            response = model.clone().oneshot(call) => response.map_err(RunError::Model)?,
        };
        self.journal
            .append(RecordBody::ModelResponded {
                turn,
                response_id: response.id.clone(),
                items: response.items.clone(),
                usage: response.usage,
                cut: None,
            })
            .await?;
        self.turns = turn;
        self.usage += response.usage;
        observer
            .event(RunEvent::ModelAnswered {
                turn,
                text: response.text(),
                calls: response.tool_calls().count().try_into().unwrap_or(u32::MAX),
                usage: response.usage,
            })
            .await;
        Ok(response)
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

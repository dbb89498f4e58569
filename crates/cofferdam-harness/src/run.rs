//! One run, driven: does what its state says is next, until it is over or waits for somebody.
//!
//! - [`ask`]: the model's turn, and the checkpoint beside it.
//! - [`resolve`]: calls that were begun and have no result.
//! - [`workspace`]: checkpoints, losses, rewinding.

use std::sync::Arc;

use cofferdam_core::StepId;
use cofferdam_journal::{
    Decision, Fork, JournalError, JournalWriter, PauseReason, RecordBody, RunOutcome, Seq,
};
use cofferdam_tool::ToolError;

use crate::{
    HarnessParts, ModelStack, RunError, RunEvent, RunFailure, RunReport, RunRequest, RunScope,
    ToolStack,
    setup::Setup,
    stacks::Spent,
    state::{LastWords, Next},
    tap::SharedState,
};

mod ask;
mod calls;
mod resolve;
mod workspace;

pub(crate) struct Run<'a> {
    parts: &'a HarnessParts,
    journal: Arc<JournalWriter>,
    state: SharedState,
    request: RunRequest,
    parent: Option<Fork>,
    model: ModelStack,
    tools: ToolStack,
    /// Tools that said that the sandbox is lost when it was not, in a row.
    false_alarms: u32,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        parts: &'a HarnessParts,
        journal: Arc<JournalWriter>,
        state: SharedState,
        request: RunRequest,
        parent: Option<Fork>,
    ) -> Self {
        let spent = state
            .with(|state| Spent { usage: state.usage(), tool_calls: state.tool_calls().into() });
        let scope = RunScope { run: journal.run().clone(), journal: Arc::clone(&journal), spent };
        let model = parts.stacks.model(&scope);
        let tools = parts.stacks.tools(&scope);
        Self { parts, journal, state, request, parent, model, tools, false_alarms: 0 }
    }

    /// Drives the run until it is over or waits for somebody, and records which.
    pub(crate) async fn drive(mut self) -> Result<RunReport, Box<RunFailure>> {
        let limit = self.request.options.wall_time;
        let left = limit.saturating_sub(self.state.with(|state| state.active()));
        self.journal.keep(self.request.options.lease);
        let journal = Arc::clone(&self.journal);
        let result = tokio::select! {
            biased;
            // Another process drives the run now: whatever runs here is dropped, and nothing more is written.
            error = journal.lost() => Err(RunError::Journal(error)),
            result = tokio::time::timeout(left, self.steps()) => {
                result.unwrap_or(Err(RunError::WallTime { limit }))
            }
        };
        let result = self.record_end(result).await;
        let (turns, tool_calls, usage) =
            self.state.with(|state| (state.turns(), state.tool_calls(), state.usage()));
        let run = self.journal.run().clone();
        match result {
            Ok(output) => {
                let items = self.state.with(|state| state.history().to_vec());
                Ok(RunReport { run, output, turns, tool_calls, usage, items })
            }
            Err(error) => Err(Box::new(RunFailure { run, turns, usage, error })),
        }
    }

    async fn record_end(&self, result: Result<String, RunError>) -> Result<String, RunError> {
        let usage = self.state.with(|state| state.usage());
        let outcome = match &result {
            Ok(_) => Some(RunOutcome::Completed),
            Err(RunError::Cancelled) => Some(RunOutcome::Cancelled),
            Err(RunError::Aborted { .. }) => Some(RunOutcome::Aborted),
            // What a journal that fails holds is the truth, and a run that waits has not ended.
            Err(RunError::Journal(_) | RunError::Paused { .. }) => None,
            Err(error) => Some(RunOutcome::Failed { error: error.to_string() }),
        };
        let recorded = match outcome {
            Some(outcome) => {
                self.journal.append(RecordBody::RunFinished { outcome, usage }).await.map(drop)
            }
            None => Ok(()),
        };
        let released = match &result {
            Err(RunError::Journal(JournalError::Fenced { .. })) => Ok(()),
            _ => self.journal.release().await,
        };
        // A run whose end could not be recorded has not ended well, but its own failure tells more.
        let result = result
            .and_then(|output| recorded.and(released).map(|()| output).map_err(RunError::Journal));
        let run = self.journal.run().clone();
        let event = match &result {
            Err(RunError::Paused { reason }) => RunEvent::RunPaused { run, reason: reason.clone() },
            result => RunEvent::RunFinished {
                run,
                error: result.as_ref().err().map(ToString::to_string),
                turns: self.state.with(|state| state.turns()),
                usage,
            },
        };
        self.observe(event).await;
        result
    }

    /// Does one thing after the other until the model is done; returns its last words.
    async fn steps(&mut self) -> Result<String, RunError> {
        loop {
            let (next, decided) =
                self.state.with(|state| (state.next(), state.decision(None).cloned()));
            if let Some(given) = decided.filter(|given| given.decision == Decision::Abort) {
                return Err(RunError::Aborted { by: given.by });
            }
            match next {
                Next::Start => self.start().await?,
                Next::AskModel { turn } => self.ask(turn).await?,
                Next::RunCalls => {
                    // One that an earlier process owed. In its own run each is there before the answer's calls are.
                    let is_untouched = self.state.with(|state| state.is_turn_untouched());
                    let owed = is_untouched.then(|| self.due_checkpoint()).flatten();
                    if owed.is_some() {
                        self.take_checkpoint(owed).await?;
                    } else {
                        self.run_calls().await?;
                    }
                }
                Next::Resolve { steps } => {
                    for step in steps {
                        self.resolve(step).await?;
                    }
                }
                Next::Recover { reason } => self.recover(&reason).await?,
                Next::Rewind { to, checkpoint } => self.rewind(to, checkpoint).await?,
                Next::DecideWorkspace { checkpoint, why } => {
                    return Err(self.pause(PauseReason::Workspace { checkpoint, why }).await);
                }
                Next::Done(words) => return self.done(words).await,
                Next::Finished(outcome) => {
                    return Err(RunError::Finished { run: self.journal.run().clone(), outcome });
                }
            }
        }
    }

    async fn start(&self) -> Result<(), RunError> {
        let request = &self.request;
        let model = self.parts.stacks.model_name();
        let setup = Setup::of(request, model, &self.parts.tools);
        let mut records = vec![RecordBody::RunStarted {
            agent: request.agent.clone(),
            fingerprints: setup.hashes,
            input: request.input.clone(),
            texts: setup.texts,
            parent: self.parent.clone(),
            options: serde_json::to_value(request.options).unwrap_or_default(),
        }];
        records.extend(self.parts.keeper.as_ref().map(|keeper| RecordBody::SandboxStarted {
            state: keeper.sandbox(),
            tree: keeper.tree(),
        }));
        self.journal.append_all(records).await?;
        self.observe(RunEvent::RunStarted {
            run: self.journal.run().clone(),
            agent: request.agent.clone(),
            model: model.to_owned(),
        })
        .await;
        Ok(())
    }

    async fn done(&self, words: LastWords) -> Result<String, RunError> {
        if let Some(reason) = words.cut {
            return Err(RunError::AnswerCut { reason });
        }
        if let Some(keeper) = &self.parts.keeper {
            keeper.finish().await?;
        }
        Ok(words.text)
    }

    /// Records that the run waits, and returns the error that says so.
    async fn pause(&self, reason: PauseReason) -> RunError {
        match self.append(RecordBody::RunPaused { reason: reason.clone() }).await {
            Ok(_) => RunError::Paused { reason },
            Err(error) => error,
        }
    }

    async fn append(&self, body: RecordBody) -> Result<Seq, RunError> {
        Ok(self.journal.append(body).await?)
    }

    async fn observe(&self, event: RunEvent) {
        self.request.observer.event(event).await;
    }
}

/// Says how a run ends by a failure of a tool that the model cannot act on.
fn tool_failure(tool: &str, error: ToolError) -> RunError {
    match error {
        ToolError::Cancelled => RunError::Cancelled,
        ToolError::Layer(source) => match source.downcast::<JournalError>() {
            Ok(error) => RunError::Journal(*error),
            Err(source) => {
                RunError::Tool { tool: tool.to_owned(), source: ToolError::Layer(source) }
            }
        },
        source => RunError::Tool { tool: tool.to_owned(), source },
    }
}

/// The call of a step that is known to be open.
fn step_is_gone(step: StepId) -> RunError {
    RunError::NotAwaited { reason: format!("step {step} is not open") }
}

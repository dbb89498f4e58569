//! The tool calls of one answer: which run at the same time, how they end, and what the model is told.

use std::sync::Arc;

use cofferdam_core::{StepId, ToolCall, ToolOutput, ToolResult};
use cofferdam_journal::{JournalWriter, RecordBody};
use cofferdam_tool::{ToolContext, ToolError, ToolProgress, ToolRequest, ToolSet};
use futures::future::try_join_all;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::{RunDelta, RunError, RunEvent, RunObserver, RunRequest, ToolStack};

/// What running the calls of one answer needs.
pub(crate) struct Calls<'a> {
    pub(crate) turn: u32,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) tools: &'a ToolSet,
    pub(crate) stack: &'a ToolStack,
    pub(crate) journal: &'a JournalWriter,
    pub(crate) request: &'a RunRequest,
}

/// A call that is ready to run, or the failure that the model is told instead.
enum Prepared {
    Ready(Box<ToolRequest>),
    Refused { call: ToolCall, step: StepId, error: ToolError },
}

impl Prepared {
    fn allows_parallel(&self) -> bool {
        match self {
            Self::Ready(request) => request.effects.allows_parallel(),
            Self::Refused { .. } => true,
        }
    }
}

/// Runs the calls and returns their results in the order of the calls.
///
/// Neighbours that do not write run at the same time; a call that writes waits for those before it and runs alone, so
/// that the outcome does not depend on timing.
pub(crate) async fn run_calls(mut calls: Calls<'_>) -> Result<Vec<ToolResult>, RunError> {
    let listed = std::mem::take(&mut calls.calls);
    let mut results = Vec::with_capacity(listed.len());
    let mut waiting = Vec::new();
    for (place, call) in (0..).zip(listed) {
        let prepared = calls.prepare(place, call);
        if !prepared.allows_parallel() {
            results.extend(calls.run_all(std::mem::take(&mut waiting)).await?);
            results.extend(calls.run_all(vec![prepared]).await?);
        } else {
            waiting.push(prepared);
        }
    }
    results.extend(calls.run_all(waiting).await?);
    Ok(results)
}

impl Calls<'_> {
    fn prepare(&self, place: u32, call: ToolCall) -> Prepared {
        let step = StepId { turn: self.turn, call: place };
        let context = ToolContext {
            cancel: self.request.cancel.child_token(),
            progress: Some(Arc::new(Progress(Arc::clone(&self.request.observer)))),
            ..ToolContext::new(self.journal.run().clone(), step, call.call_id.clone())
        };
        match self.tools.prepare(call.clone(), context) {
            Ok(request) => Prepared::Ready(Box::new(request)),
            Err(error) => Prepared::Refused { call, step, error },
        }
    }

    async fn run_all(&self, calls: Vec<Prepared>) -> Result<Vec<ToolResult>, RunError> {
        try_join_all(calls.into_iter().map(|call| self.run_one(call))).await
    }

    async fn run_one(&self, prepared: Prepared) -> Result<ToolResult, RunError> {
        let (call, step, outcome, started) = match prepared {
            Prepared::Refused { call, step, error } => (call, step, Err(error), Instant::now()),
            Prepared::Ready(request) => {
                let (call, step) = (request.call.clone(), request.context.step);
                self.observe(RunEvent::ToolStarted {
                    step,
                    tool: call.name.clone(),
                    input: call.input.clone(),
                })
                .await;
                let started = Instant::now();
                (call, step, self.run_to_end(*request).await?, started)
            }
        };
        let output = match outcome {
            Ok(output) => output,
            Err(error) if error.for_model() => {
                self.record_refusal(step, &call, &error).await?;
                ToolOutput::error(error.to_string())
            }
            Err(ToolError::Cancelled) => return Err(RunError::Cancelled),
            Err(source) => return Err(RunError::Tool { tool: call.name, source }),
        };
        self.observe(RunEvent::ToolFinished {
            step,
            tool: call.name.clone(),
            output: output.clone(),
            duration_ms: started.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
        })
        .await;
        Ok(ToolResult { call_id: call.call_id, name: call.name, kind: call.kind, output })
    }

    /// Runs a call; when the run is cancelled, the tool gets a moment to end softly and is then dropped.
    async fn run_to_end(
        &self,
        request: ToolRequest,
    ) -> Result<Result<ToolOutput, ToolError>, RunError> {
        let mut call = std::pin::pin!(self.stack.clone().oneshot(request));
        tokio::select! {
            outcome = &mut call => Ok(outcome),
            () = self.request.cancel.cancelled() => {
                // Whatever the tool says now comes too late to be told to the model; the journal has it.
                let _ = tokio::time::timeout(self.request.options.cancel_grace, call).await;
                Err(RunError::Cancelled)
            }
        }
    }

    /// Records a call that never started; calls that did are recorded by the stack's journal layer.
    async fn record_refusal(
        &self,
        step: StepId,
        call: &ToolCall,
        error: &ToolError,
    ) -> Result<(), RunError> {
        let refused = matches!(
            error,
            ToolError::UnknownTool { .. }
                | ToolError::InvalidInput { .. }
                | ToolError::Denied { .. }
        );
        if refused {
            self.journal
                .append(RecordBody::ToolRefused {
                    step,
                    tool: call.name.clone(),
                    reasons: vec![error.to_string()],
                })
                .await?;
        }
        Ok(())
    }

    async fn observe(&self, event: RunEvent) {
        self.request.observer.event(event).await;
    }
}

/// Shows a tool's output to the run's observer.
#[derive(Debug)]
struct Progress(Arc<dyn RunObserver>);

impl ToolProgress for Progress {
    fn output(&self, step: StepId, bytes: &[u8]) {
        self.0.delta(RunDelta::ToolOutput {
            step,
            delta: String::from_utf8_lossy(bytes).into_owned(),
        });
    }
}

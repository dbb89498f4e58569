//! The tool calls of one answer: which run at the same time, how they end, and what the model is told.

use std::sync::Arc;

use cofferdam_core::{BoxError, StepId, ToolCall, ToolOutput};
use cofferdam_journal::{PauseReason, RecordBody};
use cofferdam_tool::{ToolContext, ToolError, ToolProgress, ToolRequest};
use futures::future::join_all;
use tokio::time::Instant;
use tower::ServiceExt;

use super::{Run, tool_failure};
use crate::{
    RunDelta, RunError, RunEvent, RunObserver,
    state::{CallState, OpenCall},
};

/// A call that is ready to run, or the failure that the model is told instead.
enum Prepared {
    Ready(Box<ToolRequest>),
    Refused { call: ToolCall, step: StepId, error: ToolError },
}

/// How a call ended without a result.
enum Open {
    /// Somebody was asked and will answer later.
    Awaiting(StepId),
    /// Its tool says that the sandbox is lost.
    Lost { tool: String, source: BoxError },
    /// The run ends.
    Ends(RunError),
}

impl Prepared {
    fn allows_parallel(&self) -> bool {
        match self {
            Self::Ready(request) => request.effects.allows_parallel(),
            Self::Refused { .. } => true,
        }
    }
}

impl Run<'_> {
    /// Runs the calls of the open turn that wait, until all have their results or one has none.
    ///
    /// Neighbours that do not write run at the same time; a call that writes waits for those before it and runs alone, so
    /// that the outcome does not depend on timing.
    pub(super) async fn run_calls(&mut self) -> Result<(), RunError> {
        let (count, waiting): (usize, Vec<OpenCall>) = self.state.with(|state| {
            state
                .open_turn()
                .map(|open| (open.calls.len(), open.waiting().cloned().collect()))
                .unwrap_or_default()
        });
        let limit = self.request.options.max_calls_per_turn;
        if count > limit as usize {
            return Err(RunError::TooManyCalls { calls: count, limit });
        }
        let mut together = Vec::new();
        for OpenCall { step, call, .. } in waiting {
            let prepared = match self.prepare(step, call.clone()) {
                Ok(request) => Prepared::Ready(Box::new(request)),
                Err(error) => Prepared::Refused { call, step, error },
            };
            if prepared.allows_parallel() {
                together.push(prepared);
                continue;
            }
            if !self.run_all(std::mem::take(&mut together)).await?
                || !self.run_all(vec![prepared]).await?
            {
                return Ok(());
            }
        }
        self.run_all(together).await.map(drop)
    }

    /// Makes a call ready to run.
    pub(super) fn prepare(&self, step: StepId, call: ToolCall) -> Result<ToolRequest, ToolError> {
        let context = ToolContext {
            approval: self.state.with(|state| state.approval(step)),
            cancel: self.request.cancel.child_token(),
            progress: Some(Arc::new(Progress(Arc::clone(&self.request.observer)))),
            ..ToolContext::new(self.journal.run().clone(), step, call.call_id.clone())
        };
        self.parts.tools.prepare(call, context)
    }

    /// Runs calls at the same time, each to its end. Returns false if one of them was left open, which the state tells.
    async fn run_all(&mut self, calls: Vec<Prepared>) -> Result<bool, RunError> {
        let ends = join_all(calls.into_iter().map(|call| self.run_one(call))).await;
        let (mut awaiting, mut lost) = (Vec::new(), None);
        let mut is_all = true;
        for open in ends.into_iter().filter_map(Result::err) {
            is_all = false;
            match open {
                Open::Ends(error) => return Err(error),
                Open::Lost { tool, source } => lost = Some((tool, source)),
                Open::Awaiting(step) => awaiting.push(step),
            }
        }
        if let Some((tool, source)) = lost {
            self.suspect_loss(&tool, source).await?;
        } else if !awaiting.is_empty() {
            return Err(self.pause(PauseReason::Approval { steps: awaiting }).await);
        } else if is_all {
            self.false_alarms = 0;
        }
        Ok(is_all)
    }

    async fn run_one(&self, prepared: Prepared) -> Result<(), Open> {
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
                let outcome = self.run_to_end(*request).await.map_err(Open::Ends)?;
                (call, step, outcome, started)
            }
        };
        let output = match outcome {
            Ok(output) => output,
            Err(error) if error.for_model() => ToolOutput::error(error.to_string()),
            Err(ToolError::AwaitingApproval { .. }) => return Err(Open::Awaiting(step)),
            Err(ToolError::SandboxLost(source)) => {
                return Err(Open::Lost { tool: call.name, source });
            }
            Err(error) => return Err(Open::Ends(tool_failure(&call.name, error))),
        };
        self.ensure_settled(step, &call, &output).await.map_err(Open::Ends)?;
        self.observe(RunEvent::ToolFinished {
            step,
            tool: call.name.clone(),
            output,
            duration_ms: started.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
        })
        .await;
        Ok(())
    }

    /// Runs a call; when the run is cancelled, the tool gets a moment to end softly and is then dropped.
    async fn run_to_end(
        &self,
        request: ToolRequest,
    ) -> Result<Result<ToolOutput, ToolError>, RunError> {
        let mut call = std::pin::pin!(self.tools.clone().oneshot(request));
        tokio::select! {
            outcome = &mut call => Ok(outcome),
            () = self.request.cancel.cancelled() => {
                // Whatever the tool says now comes too late to be told to the model; the journal has it.
                let _ = tokio::time::timeout(self.request.options.cancel_grace, call).await;
                Err(RunError::Cancelled)
            }
        }
    }

    /// Records what the stack's journal layer did not: a call that never started, because it was unknown, malformed or denied.
    async fn ensure_settled(
        &self,
        step: StepId,
        call: &ToolCall,
        output: &ToolOutput,
    ) -> Result<(), RunError> {
        let state = self.state.with(|state| {
            state.open_turn().and_then(|open| open.call(step)).map(|call| call.state.clone())
        });
        let record = match state {
            // The turn is over, or the result is there.
            None | Some(CallState::Settled { .. }) => return Ok(()),
            Some(CallState::Waiting) if output.is_error => RecordBody::ToolRefused {
                step,
                tool: call.name.clone(),
                reasons: vec![output.to_text().into_owned()],
            },
            // A stack without a journal layer.
            Some(_) => RecordBody::ToolFinished { step, output: Some(output.clone()), error: None },
        };
        self.append(record).await.map(drop)
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

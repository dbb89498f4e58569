//! Calls that were begun and have no result: what is known of each, and what follows.

use cofferdam_core::{EffectClass, StepId, ToolOutput};
use cofferdam_journal::{Decision, PauseReason, RecordBody, Resolution};
use cofferdam_tool::{ProbeOutcome, ToolError, ToolRequest};

use super::{Run, step_is_gone, tool_failure};
use crate::{
    OnUnknown, RunError, RunEvent,
    state::{CallState, Intent, open_turn::unknown_outcome},
};

/// What follows for a call.
enum Verdict {
    RunAgain(String),
    Probed(ToolOutput),
    Tell(String),
    Lost(cofferdam_core::BoxError),
    Unknown(String),
}

impl Run<'_> {
    /// Finds out what became of a call, or does what somebody decided, and records it.
    pub(super) async fn resolve(&mut self, step: StepId) -> Result<(), RunError> {
        let (call, decided) = self.state.with(|state| {
            let call = state.open_turn().and_then(|open| open.call(step)).cloned();
            (call, state.decision(Some(step)).cloned())
        });
        let Some(call) = call else { return Err(step_is_gone(step)) };
        let CallState::Intended(intent) = &call.state else { return Ok(()) };
        let tool = call.call.name.clone();
        let verdict = match decided {
            Some(given) => match given.decision {
                Decision::RunAgain => Verdict::RunAgain(format!("{} decided so", given.by)),
                Decision::Abort => return Err(RunError::Aborted { by: given.by }),
                _ => Verdict::Tell(format!(
                    "the run was interrupted while it ran, and {} decided to go on",
                    given.by
                )),
            },
            None => match self.prepare(step, call.call.clone()) {
                Ok(request) => self.find_out(&request, intent).await?,
                Err(error) => {
                    Verdict::Unknown(format!("the call cannot be read any more: {error}"))
                }
            },
        };
        let (how, why, output) = match verdict {
            Verdict::RunAgain(why) => (Resolution::RunAgain, why, None),
            Verdict::Probed(output) => {
                (Resolution::Probed, "its tool found out".to_owned(), Some(output))
            }
            Verdict::Tell(why) => {
                let output = ToolOutput::error(unknown_outcome(&why));
                (Resolution::Told, why, Some(output))
            }
            Verdict::Lost(source) => return self.suspect_loss(&tool, source).await,
            Verdict::Unknown(why) => match self.request.options.on_unknown {
                OnUnknown::TellModel => {
                    let output = ToolOutput::error(unknown_outcome(&why));
                    (Resolution::Told, why, Some(output))
                }
                OnUnknown::Abort => return Err(RunError::OutcomeUnknown { step, tool, why }),
                OnUnknown::Pause => {
                    return Err(self.pause(PauseReason::Decision { step, tool, why }).await);
                }
            },
        };
        let is_probed = how == Resolution::Probed;
        self.append(RecordBody::ToolResolved { step, how, why, output: output.clone() }).await?;
        let Some(output) = output else { return Ok(()) };
        if is_probed && let Ok(request) = self.prepare(step, call.call) {
            request.tool.settled(&request.context).await;
        }
        self.observe(RunEvent::ToolFinished { step, tool, output, duration_ms: 0 }).await;
        Ok(())
    }

    async fn find_out(&self, request: &ToolRequest, intent: &Intent) -> Result<Verdict, RunError> {
        match intent.effects.class {
            EffectClass::Pure => return Ok(Verdict::RunAgain("it changes nothing".into())),
            EffectClass::Idempotent => {
                return Ok(Verdict::RunAgain("twice is as once".into()));
            }
            EffectClass::Keyed => {
                return Ok(Verdict::RunAgain("its key tells a repeat apart".into()));
            }
            EffectClass::Probe if intent.is_world_lost && intent.stays_inside() => {
                let why = "its sandbox is gone, and it touched nothing else";
                return Ok(Verdict::RunAgain(why.into()));
            }
            EffectClass::Probe => {}
            _ => {
                let why = "the run was interrupted while it ran, and its tool cannot tell".into();
                return Ok(Verdict::Unknown(why));
            }
        }
        let limit = self.request.options.probe_time;
        let probe = request.tool.probe(&request.context, &request.input, &intent.probe);
        let probed = tokio::select! {
            biased;
            () = self.request.cancel.cancelled() => return Err(RunError::Cancelled),
            probed = tokio::time::timeout(limit, probe) => probed,
        };
        Ok(match probed {
            Ok(Ok(ProbeOutcome::Finished(output))) => Verdict::Probed(output),
            Ok(Ok(ProbeOutcome::NotStarted)) => Verdict::RunAgain("it had not been started".into()),
            Ok(Ok(ProbeOutcome::Unknown { why })) => Verdict::Unknown(why),
            Ok(Ok(other)) => Verdict::Unknown(format!("its tool answered {other:?}")),
            Ok(Err(ToolError::SandboxLost(source))) => Verdict::Lost(source),
            Ok(Err(error @ (ToolError::Cancelled | ToolError::Layer(_)))) => {
                return Err(tool_failure(&request.call.name, error));
            }
            Ok(Err(error)) => Verdict::Unknown(format!("its tool could not find out: {error}")),
            Err(_) => Verdict::Unknown(format!("its tool did not find out within {limit:?}")),
        })
    }
}

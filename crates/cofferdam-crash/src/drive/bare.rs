//! A run without a sandbox, put together from the crates.

use std::sync::Arc;

use anyhow::Result;
use cofferdam::{DefaultStacks, StackLimits, SystemClock, SystemEntropy};
use cofferdam_core::Item;
use cofferdam_harness::{Harness, HarnessParts, ResumeRequest, RunError, RunRequest};
use cofferdam_journal::{ApprovalVerdict, Journal, PauseReason, RunOutcome, Seq};
use cofferdam_tool::ToolSet;
use futures::TryStreamExt;

use super::{Drive, Parts};
use crate::{
    ending::{Final, State, comparable},
    ledger::Deed,
    scenario, script,
};

pub(super) async fn drive(drive: &Drive, parts: &Parts) -> Result<State> {
    let tools = ToolSet::new(parts.tools.iter().cloned())?;
    let entropy = Arc::new(SystemEntropy);
    let harness = Harness::new(HarnessParts {
        stacks: Arc::new(DefaultStacks {
            model: Arc::clone(&parts.model),
            tools: tools.clone(),
            policy: Arc::new(super::policy()),
            approver: Arc::new(super::Person),
            audit: Arc::new(super::NoAudit),
            entropy: entropy.clone(),
            limits: StackLimits::default(),
        }),
        tools,
        journal: Arc::clone(&parts.journal),
        clock: Arc::new(SystemClock),
        entropy,
        owner: format!("process {}", drive.number),
        keeper: None,
    });
    let request = RunRequest::new("accountant", script::TASK);
    goes_on(drive, parts, &harness, request).await
}

/// Begins the run or resumes it, answers what a person is asked, and goes on until it is done or waits for a decision.
async fn goes_on(
    drive: &Drive,
    parts: &Parts,
    harness: &Harness,
    request: RunRequest,
) -> Result<State> {
    let run = scenario::run();
    let mut result = if is_new(&*parts.journal).await? {
        harness.run_as(run.clone(), request.clone()).await
    } else {
        let decision = drive.decision.clone();
        let resume = ResumeRequest { decision, ..ResumeRequest::new(request.clone()) };
        harness.resume(&run, resume).await
    };
    loop {
        let failure = match result {
            Ok(report) => {
                return Ok(State::Finished(Final {
                    output: report.output,
                    conversation: comparable(&report.items),
                    ..Final::default()
                }));
            }
            Err(failure) => failure.error,
        };
        match failure {
            RunError::Paused { reason: PauseReason::Approval { steps } } => {
                for step in steps {
                    parts.ledger.write(Deed::Approval { step: step.to_string() })?;
                    parts.points.pass("person.answer.before");
                    let yes = ApprovalVerdict::Approved;
                    harness.answer(&run, step, yes, "a person", "the rent is due").await?;
                    parts.points.pass("person.answer.after");
                }
                result = harness.resume(&run, ResumeRequest::new(request.clone())).await;
            }
            RunError::Paused { reason } => return Ok(State::Paused { reason }),
            // The process died after the end was in the journal.
            RunError::Finished { outcome: RunOutcome::Completed, .. } => {
                let state = harness.state(&run).await?;
                return Ok(State::Finished(Final {
                    output: last_words(state.history()),
                    conversation: comparable(state.history()),
                    ..Final::default()
                }));
            }
            error => return Ok(State::Failed { why: format!("{:#}", anyhow::Error::new(error)) }),
        }
    }
}

/// Returns true if the run has not begun, as far as the journal knows.
async fn is_new(journal: &dyn Journal) -> Result<bool> {
    Ok(journal.read(&scenario::run(), Seq(1)).try_next().await?.is_none())
}

fn last_words(items: &[Arc<Item>]) -> String {
    match items.last().map(|item| &**item) {
        Some(Item::Message(message)) => message.to_text().into_owned(),
        _ => String::new(),
    }
}

//! Drives a run: a harness that is put together from the crates, and somebody who answers what it asks.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use cofferdam::{DefaultStacks, StackLimits, SystemClock, SystemEntropy};
use cofferdam_core::Item;
use cofferdam_harness::{Harness, HarnessParts, Hold, ResumeRequest, RunError, RunRequest};
use cofferdam_journal::{ApprovalVerdict, PauseReason, RunOutcome};
use cofferdam_layers::{Approval, Approver, AuditEvent, AuditSink};
use cofferdam_policy::{Rule, RulePolicy, Verdict};
use cofferdam_tool::{Tool, ToolRequest, ToolSet};

use super::{Drive, Parts};
use crate::{
    ending::{Final, State, comparable},
    ledger::Deed,
    scenario,
    tools::names,
};

/// How a process takes up the run.
#[derive(Debug)]
pub(super) enum Begin {
    /// It begins it.
    Run(RunRequest),
    /// It goes on with it; the run may be held already.
    Resume(ResumeRequest, Option<Hold>),
}

/// Puts a harness without a sandbox together.
pub(super) fn harness(drive: &Drive, parts: &Parts) -> Result<Harness> {
    let tools = parts.tools.iter().map(|tool| Arc::new(tool.clone()) as Arc<dyn Tool>);
    let tools = ToolSet::new(tools)?;
    let entropy = Arc::new(SystemEntropy);
    Ok(Harness::new(HarnessParts {
        stacks: Arc::new(DefaultStacks {
            model: Arc::clone(&parts.model),
            tools: tools.clone(),
            policy: Arc::new(policy()),
            approver: Arc::new(Person),
            audit: Arc::new(NoAudit),
            entropy: entropy.clone(),
            limits: StackLimits::default(),
        }),
        tools,
        journal: Arc::clone(&parts.journal),
        clock: Arc::new(SystemClock),
        entropy,
        owner: format!("process {}", drive.number),
        keeper: None,
    }))
}

/// Begins the run or resumes it, answers what a person is asked, and goes on until it is done or waits for a decision.
pub(super) async fn go_on(
    drive: &Drive,
    parts: &Parts,
    harness: &Harness,
    begin: Begin,
) -> Result<State> {
    let run = scenario::run();
    let (request, mut result) = match begin {
        Begin::Run(request) => {
            let result = harness.run_as(run.clone(), request.clone()).await;
            (request, result)
        }
        Begin::Resume(resume, hold) => {
            let request = resume.request.clone();
            let resume = ResumeRequest { decision: drive.decision.clone(), ..resume };
            let result = match hold {
                Some(hold) => harness.resume_held(hold, resume).await,
                None => harness.resume(&run, resume).await,
            };
            (request, result)
        }
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

fn last_words(items: &[Arc<Item>]) -> String {
    match items.last().map(|item| &**item) {
        Some(Item::Message(message)) => message.to_text().into_owned(),
        _ => String::new(),
    }
}

/// What is allowed: everything, but a person is asked about transfers.
pub(super) fn policy() -> RulePolicy {
    RulePolicy::new([Rule {
        tool: names::TRANSFER.to_owned(),
        writes: None,
        network: None,
        decision: Verdict::Ask,
        reason: "a transfer is for a person to approve".to_owned(),
    }])
}

/// A person who is not there at the moment, and answers later.
#[derive(Debug)]
pub(super) struct Person;

#[async_trait]
impl Approver for Person {
    async fn approve(&self, _: &ToolRequest, _: &[String]) -> Approval {
        Approval::Later
    }
}

/// Nobody reads the audit trail of the suite.
#[derive(Debug)]
pub(super) struct NoAudit;

impl AuditSink for NoAudit {
    fn record(&self, _: AuditEvent) {}
}

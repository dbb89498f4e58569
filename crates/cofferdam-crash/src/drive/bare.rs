//! A run without a sandbox, put together from the crates.

use std::sync::Arc;

use anyhow::Result;
use cofferdam::{DefaultStacks, StackLimits, SystemClock, SystemEntropy};
use cofferdam_harness::{Harness, HarnessParts, ResumeRequest, RunRequest};
use cofferdam_policy::RulePolicy;
use cofferdam_tool::ToolSet;

use super::{Drive, Parts, state};
use crate::{ending::State, scenario, script};

pub(super) async fn drive(drive: &Drive, parts: &Parts) -> Result<State> {
    let tools = ToolSet::new(parts.tools.iter().cloned())?;
    let entropy = Arc::new(SystemEntropy);
    let harness = Harness::new(HarnessParts {
        stacks: Arc::new(DefaultStacks {
            model: Arc::clone(&parts.model),
            tools: tools.clone(),
            policy: Arc::new(super::policy()),
            approver: Arc::new(super::Person { ledger: parts.ledger.clone() }),
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
    let run = scenario::run();
    let result = if drive.is_new(&*parts.journal).await? {
        harness.run_as(run, request).await
    } else {
        let resume =
            ResumeRequest { decision: drive.decision.clone(), ..ResumeRequest::new(request) };
        harness.resume(run, resume).await
    };
    Ok(state(result))
}

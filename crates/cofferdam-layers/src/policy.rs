//! [`PolicyLayer`]: lets a call through, refuses it, or asks somebody.
//!
//! A question and its answer are in the journal, so that nobody is asked twice about one call, also by another process. Who
//! cannot answer at once says [`Approval::Later`]: the run then pauses, holds nothing, and is resumed when the answer is in
//! its journal.

use std::{
    fmt::Debug,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use cofferdam_core::ToolOutput;
use cofferdam_journal::{ApprovalVerdict, JournalWriter, RecordBody, content_hash};
use cofferdam_policy::{Policy, PolicyRequest, Verdict};
use cofferdam_tool::{ApprovalState, ToolError, ToolRequest};
use tower::{Layer, Service, ServiceExt};

use crate::service::BoxFuture;

/// What somebody who was asked said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Approval {
    /// Run it.
    Approved,
    /// Do not run it, for this reason.
    Refused {
        /// Why; told to the model.
        reason: String,
    },
    /// The answer will come later, by way of the journal: the run pauses meanwhile.
    Later,
}

/// Somebody who can be asked about a call.
#[async_trait]
pub trait Approver: Debug + Send + Sync + 'static {
    /// Returns who answers, for the record. Default: `approver`.
    fn name(&self) -> &str {
        "approver"
    }

    /// Asks; returns when there is an answer. Called at most once for a call whose question is recorded.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nobody waits for the answer; where questions are recorded it can be given later.
    async fn approve(&self, request: &ToolRequest, reasons: &[String]) -> Approval;
}

/// Refuses whatever it is asked: nobody is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct RefuseAll;

#[async_trait]
impl Approver for RefuseAll {
    fn name(&self) -> &str {
        "nobody"
    }

    async fn approve(&self, _: &ToolRequest, reasons: &[String]) -> Approval {
        Approval::Refused {
            reason: format!("nobody is there to approve it ({})", reasons.join("; ")),
        }
    }
}

/// Lets calls through as a policy decides.
#[derive(Debug, Clone)]
pub struct PolicyLayer {
    policy: Arc<dyn Policy>,
    approver: Arc<dyn Approver>,
    journal: Option<Arc<JournalWriter>>,
}

impl PolicyLayer {
    /// Makes a layer that records nothing.
    pub fn new(policy: Arc<dyn Policy>, approver: Arc<dyn Approver>) -> Self {
        Self { policy, approver, journal: None }
    }

    /// Records questions and answers in a run's journal.
    #[must_use]
    pub fn recorded(mut self, journal: Arc<JournalWriter>) -> Self {
        self.journal = Some(journal);
        self
    }

    async fn record(&self, body: RecordBody) -> Result<(), ToolError> {
        match &self.journal {
            Some(journal) => journal
                .append(body)
                .await
                .map(drop)
                .map_err(|error| ToolError::Layer(Box::new(error))),
            None => Ok(()),
        }
    }

    async fn ask(&self, request: &ToolRequest, reasons: Vec<String>) -> Result<(), ToolError> {
        match &request.context.approval {
            ApprovalState::Approved => return Ok(()),
            ApprovalState::Refused { reason } => {
                return Err(ToolError::Denied { reason: reason.clone() });
            }
            ApprovalState::Asked => return Err(ToolError::AwaitingApproval { reasons }),
            ApprovalState::Unasked => {}
        }
        let step = request.context.step;
        self.record(RecordBody::ApprovalAsked {
            step,
            tool: request.call.name.clone(),
            input_hash: content_hash(request.call.input.as_bytes()),
            reasons: reasons.clone(),
        })
        .await?;
        let (verdict, reason) = match self.approver.approve(request, &reasons).await {
            Approval::Approved => (ApprovalVerdict::Approved, String::new()),
            Approval::Refused { reason } => (ApprovalVerdict::Refused, reason),
            Approval::Later => return Err(ToolError::AwaitingApproval { reasons }),
        };
        let is_refused = verdict == ApprovalVerdict::Refused;
        let by = self.approver.name().to_owned();
        self.record(RecordBody::ApprovalGiven { step, verdict, by, reason: reason.clone() })
            .await?;
        if is_refused { Err(ToolError::Denied { reason }) } else { Ok(()) }
    }
}

impl<S> Layer<S> for PolicyLayer {
    type Service = PolicyService<S>;

    fn layer(&self, inner: S) -> PolicyService<S> {
        PolicyService { inner, layer: self.clone() }
    }
}

/// The service of [`PolicyLayer`].
#[derive(Debug, Clone)]
pub struct PolicyService<S> {
    inner: S,
    layer: PolicyLayer,
}

impl<S> Service<ToolRequest> for PolicyService<S>
where
    S: Service<ToolRequest, Response = ToolOutput, Error = ToolError> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = ToolOutput;
    type Error = ToolError;
    type Future = BoxFuture<ToolOutput, ToolError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ToolError>> {
        // Readiness is awaited in the call: what is inside must not hold a place while this layer waits.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ToolRequest) -> Self::Future {
        let mut service = self.inner.clone();
        let layer = self.layer.clone();
        Box::pin(async move {
            let facts = PolicyRequest { tool: &request.call.name, effects: request.effects };
            let decision = layer.policy.decide(&facts);
            match decision.verdict {
                Verdict::Allow => {}
                Verdict::Deny => {
                    return Err(ToolError::Denied { reason: decision.reasons.join("; ") });
                }
                Verdict::Ask => layer.ask(&request, decision.reasons).await?,
            }
            service.ready().await?.call(request).await
        })
    }
}

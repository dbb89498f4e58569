//! [`PolicyLayer`]: lets a call through, refuses it, or asks somebody.

use std::{
    fmt::Debug,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use cofferdam_core::ToolOutput;
use cofferdam_policy::{Policy, PolicyRequest, Verdict};
use cofferdam_tool::{ToolError, ToolRequest};
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
}

/// Somebody who can be asked about a call.
#[async_trait]
pub trait Approver: Debug + Send + Sync + 'static {
    /// Asks; returns when there is an answer.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the question is withdrawn.
    async fn approve(&self, request: &ToolRequest, reasons: &[String]) -> Approval;
}

/// Refuses whatever it is asked: nobody is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct RefuseAll;

#[async_trait]
impl Approver for RefuseAll {
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
}

impl PolicyLayer {
    /// Makes a layer.
    pub fn new(policy: Arc<dyn Policy>, approver: Arc<dyn Approver>) -> Self {
        Self { policy, approver }
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
        let PolicyLayer { policy, approver } = self.layer.clone();
        Box::pin(async move {
            let facts = PolicyRequest { tool: &request.call.name, effects: request.effects };
            let decision = policy.decide(&facts);
            match decision.verdict {
                Verdict::Allow => {}
                Verdict::Deny => {
                    return Err(ToolError::Denied { reason: decision.reasons.join("; ") });
                }
                Verdict::Ask => {
                    if let Approval::Refused { reason } =
                        approver.approve(&request, &decision.reasons).await
                    {
                        return Err(ToolError::Denied { reason });
                    }
                }
            }
            service.ready().await?.call(request).await
        })
    }
}

//! [`DefaultStacks`]: the order of layers that runs get unless they bring their own. `cofferdam_layers` says why this
//! order; the example `custom_stack` builds the same by hand.

use std::{sync::Arc, time::Duration};

use cofferdam_core::Entropy;
use cofferdam_harness::{ModelStack, RunScope, Stacks, ToolStack};
use cofferdam_layers::{
    Approver, AuditLayer, AuditSink, Budget, BudgetLayer, DeadlineLayer, JournalLayer,
    ModelRetryLayer, ModelService, PolicyLayer, RetryPolicy, ToolRouter,
};
use cofferdam_model::Model;
use cofferdam_policy::Policy;
use cofferdam_tool::ToolSet;
use tower::{ServiceBuilder, util::BoxCloneSyncService};

/// What surrounds model and tool calls by default.
#[derive(Debug, Clone)]
pub struct DefaultStacks {
    /// The model.
    pub model: Arc<dyn Model>,
    /// The tools.
    pub tools: ToolSet,
    /// What decides on tool calls.
    pub policy: Arc<dyn Policy>,
    /// Who is asked where the policy says so.
    pub approver: Arc<dyn Approver>,
    /// Who is told of every call.
    pub audit: Arc<dyn AuditSink>,
    /// Random bits for the pauses between attempts.
    pub entropy: Arc<dyn Entropy>,
    /// Bounds.
    pub limits: StackLimits,
}

/// Bounds of the default stacks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StackLimits {
    /// How often and how patiently model calls are tried again.
    pub retry: RetryPolicy,
    /// Time for all attempts of one model call together. Default 15 minutes.
    pub model_call: Duration,
    /// Time for one attempt. Default 10 minutes.
    pub model_attempt: Duration,
    /// Time for one tool call. Default 10 minutes.
    pub tool_call: Duration,
    /// Model calls of one run at a time. Default 4.
    pub model_calls_at_a_time: usize,
    /// Tool calls of one run at a time. Default 8.
    pub tool_calls_at_a_time: usize,
    /// Tokens that one run may use. Default 50 million.
    pub tokens: u64,
    /// Tool calls that one run may make. Default 10 000.
    pub tool_calls: u64,
}

impl Default for StackLimits {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            model_call: Duration::from_secs(15 * 60),
            model_attempt: Duration::from_secs(10 * 60),
            tool_call: Duration::from_secs(10 * 60),
            model_calls_at_a_time: 4,
            tool_calls_at_a_time: 8,
            tokens: 50_000_000,
            tool_calls: 10_000,
        }
    }
}

impl Stacks for DefaultStacks {
    fn model_name(&self) -> &str {
        self.model.name()
    }

    fn model(&self, scope: &RunScope) -> ModelStack {
        let limits = self.limits;
        let tokens = Budget::new("tokens", limits.tokens).after(scope.spent.usage.total_tokens());
        BoxCloneSyncService::new(
            ServiceBuilder::new()
                .layer(AuditLayer::new(Arc::clone(&self.audit)))
                .layer(DeadlineLayer::new("all attempts", limits.model_call))
                .layer(ModelRetryLayer::new(limits.retry, Arc::clone(&self.entropy)))
                .layer(BudgetLayer::new(tokens))
                .concurrency_limit(limits.model_calls_at_a_time)
                .layer(DeadlineLayer::new("one attempt", limits.model_attempt))
                .service(ModelService::new(Arc::clone(&self.model))),
        )
    }

    fn tools(&self, scope: &RunScope) -> ToolStack {
        let limits = self.limits;
        let calls = Budget::new("tool calls", limits.tool_calls).after(scope.spent.tool_calls);
        let policy = PolicyLayer::new(Arc::clone(&self.policy), Arc::clone(&self.approver));
        BoxCloneSyncService::new(
            ServiceBuilder::new()
                .layer(AuditLayer::new(Arc::clone(&self.audit)))
                .layer(policy.recorded(Arc::clone(&scope.journal)))
                .layer(BudgetLayer::new(calls))
                .layer(JournalLayer::new(Arc::clone(&scope.journal)))
                .concurrency_limit(limits.tool_calls_at_a_time)
                .layer(DeadlineLayer::new("tool call", limits.tool_call))
                .service(ToolRouter::new(self.tools.clone())),
        )
    }
}

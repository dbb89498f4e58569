//! The facade's default stacks, built by hand from the crates: the facade knows no trick that its users do not.
//!
//! A test runs both on the same script and compares what they journal and audit.

use std::{sync::Arc, time::Duration};

use cofferdam::{
    SystemEntropy,
    harness::{ModelStack, RunScope, Stacks, ToolStack},
    layers::{
        AuditLayer, AuditSink, Budget, BudgetLayer, DeadlineLayer, JournalLayer, ModelRetryLayer,
        ModelService, PolicyLayer, RefuseAll, RetryPolicy, ToolRouter,
    },
    model::Model,
    policy::Policy,
    tool::ToolSet,
};
use tower::{ServiceBuilder, util::BoxCloneSyncService};

/// Stacks built by hand.
#[derive(Debug)]
pub struct HandBuiltStacks {
    /// The model.
    pub model: Arc<dyn Model>,
    /// The tools.
    pub tools: ToolSet,
    /// What decides on tool calls.
    pub policy: Arc<dyn Policy>,
    /// Who is told of every call.
    pub audit: Arc<dyn AuditSink>,
}

impl Stacks for HandBuiltStacks {
    fn model_name(&self) -> &str {
        self.model.name()
    }

    fn model(&self, scope: &RunScope) -> ModelStack {
        // A resumed run has spent some of it.
        let tokens = Budget::new("tokens", 50_000_000).after(scope.spent.usage.total_tokens());
        // The first layer is the outermost.
        BoxCloneSyncService::new(
            ServiceBuilder::new()
                .layer(AuditLayer::new(Arc::clone(&self.audit)))
                .layer(DeadlineLayer::new("all attempts", Duration::from_secs(15 * 60)))
                .layer(ModelRetryLayer::new(RetryPolicy::default(), Arc::new(SystemEntropy)))
                .layer(BudgetLayer::new(tokens))
                .concurrency_limit(4)
                .layer(DeadlineLayer::new("one attempt", Duration::from_secs(10 * 60)))
                .service(ModelService::new(Arc::clone(&self.model))),
        )
    }

    fn tools(&self, scope: &RunScope) -> ToolStack {
        let calls = Budget::new("tool calls", 10_000).after(scope.spent.tool_calls);
        let policy = PolicyLayer::new(Arc::clone(&self.policy), Arc::new(RefuseAll));
        BoxCloneSyncService::new(
            ServiceBuilder::new()
                .layer(AuditLayer::new(Arc::clone(&self.audit)))
                .layer(policy.recorded(Arc::clone(&scope.journal)))
                .layer(BudgetLayer::new(calls))
                .layer(JournalLayer::new(Arc::clone(&scope.journal)))
                .concurrency_limit(8)
                .layer(DeadlineLayer::new("tool call", Duration::from_secs(10 * 60)))
                .service(ToolRouter::new(self.tools.clone())),
        )
    }
}

//! [`CrashingTool`]: any tool, with points.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_core::{Effects, ToolOutput, ToolSpec};
use cofferdam_tool::{ProbeOutcome, Recalled, Tool, ToolContext, ToolError, ToolInput};
use serde_json::Value;

use crate::point::Points;

/// A tool whose process may die before and after each call, and when it finds out what became of one.
#[derive(Debug, Clone)]
pub struct CrashingTool {
    inner: Arc<dyn Tool>,
    points: Arc<Points>,
}

impl CrashingTool {
    /// Puts points around a tool.
    pub fn new(inner: Arc<dyn Tool>, points: Arc<Points>) -> Self {
        Self { inner, points }
    }

    fn name(&self, call: &str) -> String {
        format!("tool.{}.{call}", self.inner.spec().name)
    }
}

#[async_trait]
impl Tool for CrashingTool {
    fn spec(&self) -> &ToolSpec {
        self.inner.spec()
    }

    fn effects(&self, input: &ToolInput) -> Effects {
        self.inner.effects(input)
    }

    fn touches_sandbox(&self, input: &ToolInput) -> bool {
        self.inner.touches_sandbox(input)
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        self.points.around(&self.name("call"), self.inner.call(context, input)).await
    }
    async fn intend(&self, context: &ToolContext, input: &ToolInput) -> Result<Value, ToolError> {
        self.points.pass(&self.name("intend"));
        self.inner.intend(context, input).await
    }

    async fn probe(
        &self,
        context: &ToolContext,
        input: &ToolInput,
        intended: &Value,
    ) -> Result<ProbeOutcome, ToolError> {
        let probe = self.inner.probe(context, input, intended);
        self.points.around(&self.name("probe"), probe).await
    }

    async fn settled(&self, context: &ToolContext) {
        self.points.around(&self.name("settled"), self.inner.settled(context)).await;
    }

    fn recall(&self, recalled: &Recalled<'_>) {
        self.inner.recall(recalled);
    }
}

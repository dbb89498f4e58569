//! [`FunctionTool`]: a tool made of a closure.

use std::fmt;

use async_trait::async_trait;
use cofferdam_core::{Effects, ToolInputSpec, ToolOutput, ToolSpec};
use cofferdam_tool::{Tool, ToolContext, ToolError, ToolInput};
use futures::future::BoxFuture;
use serde_json::json;

type Body = dyn Fn(ToolContext, ToolInput) -> BoxFuture<'static, Result<ToolOutput, ToolError>>
    + Send
    + Sync;

/// A tool that takes any JSON object and runs a closure.
pub struct FunctionTool {
    spec: ToolSpec,
    effects: Effects,
    body: Box<Body>,
}

impl FunctionTool {
    /// Makes a tool.
    pub fn new<F, R>(name: &str, effects: Effects, body: F) -> Self
    where
        F: Fn(ToolContext, ToolInput) -> R + Send + Sync + 'static,
        R: Future<Output = Result<ToolOutput, ToolError>> + Send + 'static,
    {
        Self {
            spec: ToolSpec {
                name: name.to_owned(),
                description: format!("{name}, for tests"),
                input: ToolInputSpec::Json { schema: json!({"type": "object"}), strict: false },
            },
            effects,
            body: Box::new(move |context, input| Box::pin(body(context, input))),
        }
    }
}

impl fmt::Debug for FunctionTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionTool").field("name", &self.spec.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl Tool for FunctionTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        self.effects
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        (self.body)(context.clone(), input).await
    }
}

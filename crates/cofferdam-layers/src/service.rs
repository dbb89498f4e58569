//! The leaf services: [`ModelService`] calls a model, [`ToolRouter`] calls the tool of a request.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use cofferdam_core::ToolOutput;
use cofferdam_model::{Model, ModelCall, ModelError, ModelExt, ModelResponse};
use cofferdam_tool::{ToolError, ToolRequest, ToolSet};
use tower::Service;

/// The future of the services here.
pub type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Calls a model and collects its answer; events go to the call's observer as they arrive.
#[derive(Debug, Clone)]
pub struct ModelService(Arc<dyn Model>);

impl ModelService {
    /// Makes the service of a model.
    pub fn new(model: Arc<dyn Model>) -> Self {
        Self(model)
    }
}

impl Service<ModelCall> for ModelService {
    type Response = ModelResponse;
    type Error = ModelError;
    type Future = BoxFuture<ModelResponse, ModelError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ModelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: ModelCall) -> Self::Future {
        let model = Arc::clone(&self.0);
        Box::pin(async move {
            model
                .respond_observed(call.request, call.attempt.max(1), call.observer.as_deref())
                .await
        })
    }
}

/// Calls the tool that a request names.
#[derive(Debug, Clone)]
pub struct ToolRouter(ToolSet);

impl ToolRouter {
    /// Makes the service of a set of tools.
    #[must_use]
    pub fn new(tools: ToolSet) -> Self {
        Self(tools)
    }
}

impl Service<ToolRequest> for ToolRouter {
    type Response = ToolOutput;
    type Error = ToolError;
    type Future = BoxFuture<ToolOutput, ToolError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ToolError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ToolRequest) -> Self::Future {
        let tool = self.0.get(&request.call.name).map(Arc::clone);
        Box::pin(async move {
            let Some(tool) = tool else {
                return Err(ToolError::UnknownTool { name: request.call.name, known: Vec::new() });
            };
            tool.call(&request.context, request.input).await
        })
    }
}

//! [`JournalLayer`]: the intent of a tool call is durable before it starts, its result before anybody hears of it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use cofferdam_core::ToolOutput;
use cofferdam_journal::{JournalWriter, RecordBody};
use cofferdam_tool::{ToolError, ToolRequest};
use tower::{Layer, Service, ServiceExt};

use crate::service::BoxFuture;

/// Writes intents and results of tool calls to a run's journal.
#[derive(Debug, Clone)]
pub struct JournalLayer(Arc<JournalWriter>);

impl JournalLayer {
    /// Makes a layer of one run.
    pub fn new(writer: Arc<JournalWriter>) -> Self {
        Self(writer)
    }
}

impl<S> Layer<S> for JournalLayer {
    type Service = JournalService<S>;

    fn layer(&self, inner: S) -> JournalService<S> {
        JournalService { inner, writer: Arc::clone(&self.0) }
    }
}

/// The service of [`JournalLayer`].
#[derive(Debug, Clone)]
pub struct JournalService<S> {
    inner: S,
    writer: Arc<JournalWriter>,
}

impl<S> Service<ToolRequest> for JournalService<S>
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
        let writer = Arc::clone(&self.writer);
        Box::pin(async move {
            let step = request.context.step;
            let intent = RecordBody::ToolIntended {
                step,
                tool: request.call.name.clone(),
                input_hash: cofferdam_journal::content_hash(request.call.input.as_bytes()),
                effects: request.effects,
                idempotency_key: format!("{}/{step}", request.context.run),
            };
            append(&writer, intent).await?;
            let result = match service.ready().await {
                Ok(ready) => ready.call(request).await,
                Err(error) => Err(error),
            };
            let finished = match &result {
                Ok(output) => {
                    RecordBody::ToolFinished { step, output: Some(output.clone()), error: None }
                }
                Err(error) => {
                    RecordBody::ToolFinished { step, output: None, error: Some(error.to_string()) }
                }
            };
            append(&writer, finished).await?;
            result
        })
    }
}

async fn append(writer: &JournalWriter, body: RecordBody) -> Result<(), ToolError> {
    writer.append(body).await.map(drop).map_err(|error| ToolError::Layer(Box::new(error)))
}

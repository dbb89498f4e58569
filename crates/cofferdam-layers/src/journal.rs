//! [`JournalLayer`]: the intent of a tool call is durable before it starts, its result before anybody hears of it.
//!
//! A call that ends with its sandbox or with the run has no result: what became of it is found out later, from what the tool
//! said with the intent.

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
            let (tool, context) = (Arc::clone(&request.tool), request.context.clone());
            let intent = RecordBody::ToolIntended {
                step,
                tool: request.call.name.clone(),
                input_hash: cofferdam_journal::content_hash(request.call.input.as_bytes()),
                effects: request.effects,
                idempotency_key: context.idempotency_key.to_string(),
                outside: !tool.touches_sandbox(&request.input),
                probe: tool.intend(&context, &request.input).await?,
            };
            append(&writer, intent).await?;
            let result = match service.ready().await {
                Ok(ready) => ready.call(request).await,
                Err(error) => Err(error),
            };
            let (output, error) = match &result {
                Ok(output) => (Some(output.clone()), None),
                Err(error) if leaves_outcome_open(error) => return result,
                Err(error) => (None, Some(error.to_string())),
            };
            append(&writer, RecordBody::ToolFinished { step, output, error }).await?;
            tool.settled(&context).await;
            result
        })
    }
}

/// Whether nobody knows what became of a call that failed like this: the journal then keeps the intent without a result.
fn leaves_outcome_open(error: &ToolError) -> bool {
    matches!(error, ToolError::Cancelled | ToolError::SandboxLost(_) | ToolError::Layer(_))
}

async fn append(writer: &JournalWriter, body: RecordBody) -> Result<(), ToolError> {
    writer.append(body).await.map(drop).map_err(|error| ToolError::Layer(Box::new(error)))
}

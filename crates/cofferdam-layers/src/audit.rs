//! [`AuditLayer`]: tells a sink of every call and its outcome. For people; replay reads the journal instead.

use std::{
    fmt::Debug,
    sync::Arc,
    task::{Context, Poll},
};

use cofferdam_model::ModelCall;
use cofferdam_tool::ToolRequest;
use tower::{Layer, Service};

use crate::service::BoxFuture;

/// Which kind of call an event is of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallKind {
    /// A model call.
    Model {
        /// The turn, from 1.
        turn: u32,
    },
    /// A tool call.
    Tool {
        /// Its place.
        step: cofferdam_core::StepId,
        /// The tool.
        tool: String,
    },
}

/// A call that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Which call.
    pub call: CallKind,
    /// `None` if it succeeded, else the failure in words with its causes.
    pub error: Option<String>,
    /// How long it took, waits and retries included.
    pub duration: std::time::Duration,
}

/// Someone who is told of every call.
pub trait AuditSink: Debug + Send + Sync + 'static {
    /// Takes an event; must not block.
    fn record(&self, event: AuditEvent);
}

/// A request that audit can name.
pub trait Audited {
    /// Returns which call this is.
    fn kind(&self) -> CallKind;
}

impl Audited for ModelCall {
    fn kind(&self) -> CallKind {
        CallKind::Model { turn: self.turn }
    }
}

impl Audited for ToolRequest {
    fn kind(&self) -> CallKind {
        CallKind::Tool { step: self.context.step, tool: self.call.name.clone() }
    }
}

/// Tells a sink of every call.
#[derive(Debug, Clone)]
pub struct AuditLayer(Arc<dyn AuditSink>);

impl AuditLayer {
    /// Makes a layer.
    pub fn new(sink: Arc<dyn AuditSink>) -> Self {
        Self(sink)
    }
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audit<S>;

    fn layer(&self, inner: S) -> Audit<S> {
        Audit { inner, sink: Arc::clone(&self.0) }
    }
}

/// The service of [`AuditLayer`].
#[derive(Debug, Clone)]
pub struct Audit<S> {
    inner: S,
    sink: Arc<dyn AuditSink>,
}

impl<S, R> Service<R> for Audit<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: std::error::Error + 'static,
    R: Audited,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let call = request.kind();
        let sink = Arc::clone(&self.sink);
        let start = tokio::time::Instant::now();
        let future = self.inner.call(request);
        Box::pin(async move {
            let result = future.await;
            sink.record(AuditEvent {
                call,
                error: result.as_ref().err().map(|error| with_causes(error)),
                duration: start.elapsed(),
            });
            result
        })
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

//! [`DeadlineLayer`]: bounds the time of what is inside it, with the error of the seam.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use cofferdam_model::{ModelCall, ModelError};
use cofferdam_tool::{ToolError, ToolRequest};
use tower::{Layer, Service};

use crate::service::BoxFuture;

/// A request whose seam has an error for "it took too long".
pub trait Timed {
    /// The error of the seam.
    type Error;

    /// Makes the error; `what` names what was bounded.
    fn timed_out(what: &'static str, limit: Duration) -> Self::Error;
}

impl Timed for ModelCall {
    type Error = ModelError;

    fn timed_out(what: &'static str, limit: Duration) -> ModelError {
        ModelError::Timeout { model: "the model".into(), what, limit }
    }
}

impl Timed for ToolRequest {
    type Error = ToolError;

    fn timed_out(_: &'static str, limit: Duration) -> ToolError {
        ToolError::Timeout { limit }
    }
}

/// Bounds the time of calls.
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer {
    what: &'static str,
    limit: Duration,
}

impl DeadlineLayer {
    /// Makes a layer; `what` names in errors what is bounded, such as `whole call`.
    #[must_use]
    pub fn new(what: &'static str, limit: Duration) -> Self {
        Self { what, limit }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, layer: *self }
    }
}

/// The service of [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
    layer: DeadlineLayer,
}

impl<S, R> Service<R> for Deadline<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
    R: Timed<Error = S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let DeadlineLayer { what, limit } = self.layer;
        let call = self.inner.call(request);
        Box::pin(async move {
            tokio::time::timeout(limit, call)
                .await
                .unwrap_or_else(|_| Err(R::timed_out(what, limit)))
        })
    }
}

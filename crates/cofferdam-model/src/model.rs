//! [`Model`]: what a provider implements, in its one general form, and [`ModelExt`] with the comfortable one.

use std::fmt::Debug;

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};

use crate::{ModelError, ModelEvent, ModelObserver, ModelRequest, ModelResponse};

/// A language model at some provider.
#[async_trait]
pub trait Model: Debug + Send + Sync + 'static {
    /// Returns the name for people and records, such as `openai:gpt-5.2`.
    fn name(&self) -> &str;

    /// Sends a request and streams the answer; a whole answer ends with [`ModelEvent::Completed`].
    ///
    /// One call is one attempt: providers do not retry, layers do.
    ///
    /// # Errors
    ///
    /// Before the first event, and as the last item of the stream.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future or the stream cuts the connection; the provider may still count the tokens.
    async fn stream(
        &self,
        request: ModelRequest,
    ) -> Result<BoxStream<'static, Result<ModelEvent, ModelError>>, ModelError>;
}

/// Comfortable forms over every [`Model`].
#[async_trait]
pub trait ModelExt: Model {
    /// Sends a request and returns the whole answer.
    ///
    /// # Errors
    ///
    /// As [`Model::stream`]; [`ModelError::StreamCut`] if the stream ended without an answer.
    async fn respond(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        self.respond_observed(request, 1, None).await
    }

    /// As [`ModelExt::respond`], and shows each event to an observer with the number of the attempt.
    ///
    /// # Errors
    ///
    /// As [`ModelExt::respond`].
    async fn respond_observed(
        &self,
        request: ModelRequest,
        attempt: u32,
        observer: Option<&dyn ModelObserver>,
    ) -> Result<ModelResponse, ModelError> {
        let mut events = self.stream(request).await?;
        let mut seen = 0;
        while let Some(event) = events.next().await {
            let event = event?;
            seen += 1;
            if let Some(observer) = observer {
                observer.observe(attempt, &event);
            }
            if let ModelEvent::Completed(response) = event {
                return Ok(response);
            }
        }
        Err(ModelError::StreamCut { model: self.name().to_owned(), events: seen, source: None })
    }
}

impl<T: Model + ?Sized> ModelExt for T {}

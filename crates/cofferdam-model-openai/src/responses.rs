//! [`ResponsesModel`]: a client of the Responses API.
//!
//! - [`items`]: conversation items to and from the wire, without loss.
//! - [`request`]: the body of a request.
//! - [`decoder`]: the events of an answer.

mod decoder;
mod items;
mod request;

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_core::Item;
use cofferdam_model::{Model, ModelError, ModelEvent, ModelRequest};
use futures::stream::BoxStream;
use serde_json::{Map, Value};

use self::decoder::ResponsesDecoder;
use crate::{
    endpoint::{Endpoint, EndpointError},
    transport::Transport,
};

/// The provider name in [`Item::Provider`] of items that this client keeps raw.
pub const RESPONSES_PROVIDER: &str = "openai-responses";

/// A model behind a Responses API: OpenAI's, or a server that speaks it.
///
/// **Stateless.** Each request carries the whole conversation with `store: false`; encrypted reasoning is asked for and
/// sent back. So a run can be replayed from a journal alone, and nothing of it stays at the provider.
///
/// **Lossless.** Items that are not known here, reasoning among them, are kept whole in [`Item::Provider`] and go back
/// as they came; known items keep their further fields. Items of other providers are left out of requests.
///
/// **Stale reasoning.** Encrypted reasoning can be read only by the organisation and model family that made it. If the
/// server answers `invalid_encrypted_content`, the same request is sent once more without reasoning, before anything was
/// streamed; it is another request rather than a retry, so no layer needs to know. If that fails too, or there was no
/// reasoning to leave out, the error is [`ModelError::StaleReasoning`].
///
/// **Unfinished calls.** An answer that was cut by a token bound may end in a tool call of which only a part was written.
/// It is left out: half a patch or half a command must not run.
#[derive(Debug, Clone)]
pub struct ResponsesModel {
    name: String,
    transport: Transport,
    options: RequestOptions,
}

/// What a request says beyond what a [`ModelRequest`] holds.
#[derive(Debug, Clone)]
pub(crate) struct RequestOptions {
    pub(crate) model: String,
    pub(crate) native_tools: NativeTools,
    pub(crate) extra_body: Map<String, Value>,
}

/// Which tools are offered in the provider's own form instead of as functions. Default: none.
///
/// A tool that is offered so is called with [`ToolCallKind::Shell`](cofferdam_core::ToolCallKind::Shell) and the name
/// `shell`, or [`ToolCallKind::ApplyPatch`](cofferdam_core::ToolCallKind::ApplyPatch) and the name `apply_patch`. The
/// call's input is the JSON of the provider's `action` or `operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NativeTools {
    /// Offers a tool named `shell` or `exec_command` as the built-in shell. Its result goes back from the output's
    /// `structured` field, `{"output": [{"stdout", "stderr", "outcome"}]}`; without one, the text goes back as error output.
    pub shell: bool,
    /// Offers a tool named `apply_patch` as the built-in patch tool.
    pub apply_patch: bool,
}

/// Sets a [`ResponsesModel`] up.
#[derive(Debug, Clone)]
pub struct ResponsesModelBuilder {
    name: Option<String>,
    options: RequestOptions,
}

impl ResponsesModel {
    /// Starts with the provider's name of the model, such as `gpt-5.2`.
    pub fn builder(model: impl Into<String>) -> ResponsesModelBuilder {
        ResponsesModelBuilder {
            name: None,
            options: RequestOptions {
                model: model.into(),
                native_tools: NativeTools::default(),
                extra_body: Map::new(),
            },
        }
    }

    async fn send(
        &self,
        request: &ModelRequest,
    ) -> Result<BoxStream<'static, Result<ModelEvent, ModelError>>, ModelError> {
        let body = request::body(&self.options, request);
        let decoder = ResponsesDecoder::new(&self.name, request.input.len());
        self.transport.stream(&self.name, &body, decoder).await
    }
}

impl ResponsesModelBuilder {
    /// Calls the model this in errors and records; default: `openai:<model>`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Offers these tools in the provider's own form.
    #[must_use]
    pub fn native_tools(mut self, native_tools: NativeTools) -> Self {
        self.options.native_tools = native_tools;
        self
    }

    /// Adds a field to each request body, in place of one that is there, such as `service_tier` or `reasoning`.
    #[must_use]
    pub fn body_field(mut self, name: impl Into<String>, value: Value) -> Self {
        self.options.extra_body.insert(name.into(), value);
        self
    }

    /// Makes the client.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if the endpoint's parts cannot be used together.
    pub fn build(self, endpoint: &Endpoint) -> Result<ResponsesModel, EndpointError> {
        Ok(ResponsesModel {
            name: self.name.unwrap_or_else(|| format!("openai:{}", self.options.model)),
            transport: Transport::new(endpoint, "responses")?,
            options: self.options,
        })
    }
}

#[async_trait]
impl Model for ResponsesModel {
    fn name(&self) -> &str {
        &self.name
    }

    async fn stream(
        &self,
        mut request: ModelRequest,
    ) -> Result<BoxStream<'static, Result<ModelEvent, ModelError>>, ModelError> {
        match self.send(&request).await {
            Err(ModelError::StaleReasoning { message, .. }) if drop_reasoning(&mut request) => {
                tracing::warn!(model = self.name, message, "sending again without stale reasoning");
                self.send(&request).await
            }
            answer => answer,
        }
    }
}

/// Drops all reasoning from a request and returns whether there was any.
///
/// Items that were written together with reasoning are refused without it, by their ids; so those ids go too.
fn drop_reasoning(request: &mut ModelRequest) -> bool {
    let before = request.input.len();
    request.input.retain(|item| !items::is_reasoning(item));
    if request.input.len() == before {
        return false;
    }
    for item in &mut request.input {
        if let Item::Message(_) | Item::ToolCall(_) = &**item {
            items::detach(Arc::make_mut(item));
        }
    }
    true
}

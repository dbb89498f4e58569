//! [`ChatModel`]: a client of Chat Completions, for vLLM, Ollama, llama.cpp and gateways.
//!
//! - [`messages`]: a conversation as chat messages.
//! - [`request`]: the body of a request.
//! - [`decoder`]: the chunks of an answer.
//! - [`forced_tools`]: tool calls as text that a schema holds to its form.

mod decoder;
mod forced_tools;
mod messages;
mod request;

use async_trait::async_trait;
use cofferdam_core::{ToolInputSpec, ToolSpec};
use cofferdam_model::{Model, ModelError, ModelEvent, ModelRequest};
use futures::stream::BoxStream;
use serde_json::{Map, Value, json};

use self::{decoder::ChatDecoder, forced_tools::ForcedTools};
use crate::{
    endpoint::{Endpoint, EndpointError},
    transport::Transport,
};

/// The field of `extra` under which this client keeps a server's further fields, apart from those of other providers.
pub(crate) const CHAT_FIELDS: &str = "openai_chat";

/// A model behind a Chat Completions API.
///
/// **Everything is a function.** A tool that takes free text is offered as a function with one string, `input`, and
/// called as [`ToolCallKind::Custom`](cofferdam_core::ToolCallKind::Custom) with that string. Images in the output of a
/// tool follow as a message of the user. Raw items of other providers (reasoning) are left out.
///
/// **Lenient.** Servers leave out or repeat indexes, ids, names and finish reasons, send arguments whole or as an object,
/// and break arguments off; each is understood. A call that a token bound cut in the middle is left out.
///
/// **Forced tools.** Small models behind small servers answer in prose although they must call a tool.
/// [`ChatModelBuilder::forced_tools`] holds them to it by a JSON schema.
#[derive(Debug, Clone)]
pub struct ChatModel {
    name: String,
    transport: Transport,
    options: ChatOptions,
}

#[derive(Debug, Clone)]
pub(crate) struct ChatOptions {
    model: String,
    forced_tools: bool,
    extra_body: Map<String, Value>,
}

/// Sets a [`ChatModel`] up.
#[derive(Debug, Clone)]
pub struct ChatModelBuilder {
    name: Option<String>,
    options: ChatOptions,
}

impl ChatModel {
    /// Starts with the server's name of the model.
    pub fn builder(model: impl Into<String>) -> ChatModelBuilder {
        ChatModelBuilder {
            name: None,
            options: ChatOptions {
                model: model.into(),
                forced_tools: false,
                extra_body: Map::new(),
            },
        }
    }
}

impl ChatModelBuilder {
    /// Calls the model this in errors and records; default: `chat:<model>`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Asks for tool calls by a JSON schema, for servers that ignore `tool_choice` or know no tools.
    ///
    /// The request then has no `tools`. The instructions list them, and a `response_format` leaves the model the choice
    /// between `{"tool", "tool_arguments"}` and `{"answer"}`: one tool call an answer, and no text beside it. A tool whose
    /// schema has a `$ref` cannot be offered so, as its root is elsewhere then.
    #[must_use]
    pub fn forced_tools(mut self, forced: bool) -> Self {
        self.options.forced_tools = forced;
        self
    }

    /// Adds a field to each request body, in place of one that is there, such as `chat_template_kwargs`.
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
    pub fn build(self, endpoint: &Endpoint) -> Result<ChatModel, EndpointError> {
        Ok(ChatModel {
            name: self.name.unwrap_or_else(|| format!("chat:{}", self.options.model)),
            transport: Transport::new(endpoint, "chat/completions")?,
            options: self.options,
        })
    }
}

#[async_trait]
impl Model for ChatModel {
    fn name(&self) -> &str {
        &self.name
    }

    async fn stream(
        &self,
        request: ModelRequest,
    ) -> Result<BoxStream<'static, Result<ModelEvent, ModelError>>, ModelError> {
        let forced =
            if self.options.forced_tools { ForcedTools::for_request(&request) } else { None };
        let body = request::body(&self.options, &request, forced.as_ref());
        let decoder = ChatDecoder::new(&self.name, &request, forced.is_some());
        self.transport.stream(&self.name, &body, decoder).await
    }
}

/// The schema of a tool's arguments; free text is an object with one string.
fn arguments_schema(spec: &ToolSpec) -> Value {
    match &spec.input {
        ToolInputSpec::Json { schema, .. } => schema.clone(),
        _ => json!({
            "type": "object",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
            "additionalProperties": false,
        }),
    }
}

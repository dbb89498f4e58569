//! Models behind OpenAI's wire forms: [`ResponsesModel`] for the Responses API and [`ChatModel`] for Chat Completions,
//! which vLLM, Ollama, llama.cpp and many gateways speak.
//!
//! - [`Endpoint`]: where a server is, the key for it, and how long to wait ([`Timeouts`]).
//! - [`ResponsesModel`]: stateless, with encrypted reasoning carried along; function, custom and [`NativeTools`].
//! - [`ChatModel`]: everything lowered to functions; forced tools for models that call none by themselves.
//!
//! A call is one attempt. What went wrong is a [`ModelError`](cofferdam_model::ModelError), and whether to try again is
//! its answer ([`ModelError::retry`](cofferdam_model::ModelError::retry)), by the rule of OpenAI's own clients: headers
//! first, then statuses. A broken stream may be tried again too, since nothing is done before an answer is whole.
//!
//! ```no_run
//! use cofferdam_core::{Item, Secret};
//! use cofferdam_model::{ModelExt, ModelRequest};
//! use cofferdam_model_openai::{ChatModel, Endpoint, ResponsesModel};
//!
//! # async fn example(key: Secret) -> Result<(), Box<dyn std::error::Error>> {
//! let openai = Endpoint::new(Endpoint::OPENAI)?.api_key(key);
//! let model = ResponsesModel::builder("gpt-5.2").build(&openai)?;
//! let request = ModelRequest { input: vec![Item::user("hi").into()], ..ModelRequest::default() };
//! println!("{}", model.respond(request.clone()).await?.text());
//!
//! let local = Endpoint::new("http://127.0.0.1:11434/v1")?;
//! let model = ChatModel::builder("qwen3:4b").forced_tools(true).build(&local)?;
//! println!("{}", model.respond(request).await?.text());
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod chat;
mod endpoint;
mod error_map;
mod json;
mod responses;
mod sse;
mod tls;
mod transport;

pub use chat::{ChatModel, ChatModelBuilder};
pub use endpoint::{Endpoint, EndpointError, Timeouts};
pub use responses::{NativeTools, RESPONSES_PROVIDER, ResponsesModel, ResponsesModelBuilder};

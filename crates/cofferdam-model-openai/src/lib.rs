//! OpenAI Responses and Chat Completions clients
#![forbid(unsafe_code)]

mod body;
mod chat;
mod endpoint;
mod error_map;
mod responses;
mod sse;
mod tls;
mod transport;

pub use endpoint::{Endpoint, EndpointError, Timeouts};
pub use responses::{NativeTools, RESPONSES_PROVIDER, ResponsesModel, ResponsesModelBuilder};

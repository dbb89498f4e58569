//! The model seam: what a provider implements ([`Model`]), what it is asked ([`ModelRequest`]) and what it streams
//! ([`ModelEvent`]).
//!
//! - [`model`]: [`Model`] and [`ModelExt`].
//! - [`request`]: [`ModelRequest`], [`ModelSettings`], [`ModelCall`].
//! - [`event`]: [`ModelEvent`], [`ModelResponse`], [`ModelObserver`].
//! - [`error`]: the failures, [`ModelError`], sorted by what the caller can do next.
//! - [`scripted`]: [`ScriptedModel`], whose words are fixed in advance, for demos and tests.
//!
//! ```
//! use cofferdam_core::Item;
//! use cofferdam_model::{ModelExt, ModelRequest, ScriptedModel};
//!
//! # futures::executor::block_on(async {
//! let model = ScriptedModel::from_yaml("name: demo\nturns: [{items: [{message: hello}]}]")?;
//! let request = ModelRequest { input: vec![Item::user("hi").into()], ..ModelRequest::default() };
//! let response = model.respond(request).await?;
//! assert_eq!(response.text(), "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
#![forbid(unsafe_code)]

pub mod error;
pub mod event;
pub mod model;
pub mod request;
pub mod scripted;

pub use error::ModelError;
pub use event::{ModelEvent, ModelObserver, ModelResponse, StopReason};
pub use model::{Model, ModelExt};
pub use request::{
    ModelCall, ModelRequest, ModelSettings, OutputFormat, ReasoningEffort, ToolChoice,
};
pub use scripted::{ScriptError, ScriptedModel};

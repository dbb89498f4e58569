//! The tool seam: an operation that a model may call.
//!
//! - [`tool`]: [`Tool`] and the context of a call.
//! - [`tool_set`]: [`ToolSet`], tools by name, and [`ToolRequest`], a call that is ready to run.
//! - [`error`]: the failures, [`ToolError`]; most are told to the model, which can act on them.
//!
//! A whole tool:
//!
//! ```
//! use cofferdam_core::{Effects, ToolInputSpec, ToolOutput, ToolSpec};
//! use cofferdam_tool::{Tool, ToolContext, ToolError, ToolInput};
//! use serde_json::json;
//!
//! #[derive(Debug)]
//! struct Add(ToolSpec);
//!
//! #[async_trait::async_trait]
//! impl Tool for Add {
//!     fn spec(&self) -> &ToolSpec {
//!         &self.0
//!     }
//!
//!     fn effects(&self, _input: &ToolInput) -> Effects {
//!         Effects::PURE
//!     }
//!
//!     async fn call(&self, _context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
//!         let numbers: Vec<i64> = input.decode_field("numbers")?;
//!         Ok(ToolOutput::text(numbers.iter().sum::<i64>().to_string()))
//!     }
//! }
//! # let _ = Add(ToolSpec { name: "add".into(), description: String::new(),
//! #     input: ToolInputSpec::Json { schema: json!({}), strict: false } });
//! ```
#![forbid(unsafe_code)]

pub mod error;
pub mod tool;
pub mod tool_set;

pub use error::ToolError;
pub use tool::{ApprovalState, ProbeOutcome, Recalled, Tool, ToolContext, ToolInput, ToolProgress};
pub use tool_set::{ToolRequest, ToolSet, ToolSetError};

//! The vocabulary that every Cofferdam crate shares: plain data, no I/O, no async.
//!
//! - [`ids`]: typed identifiers ([`RunId`], [`SandboxId`], [`CallId`]) and where they come from ([`Entropy`]).
//! - [`item`]: the conversation ([`Item`], [`Message`], [`ToolCall`], [`ToolResult`]) in a form that round-trips what
//!   it does not understand.
//! - [`tool_spec`]: what a model is told of a tool ([`ToolSpec`]).
//! - [`effects`]: what a tool call does to the world ([`Effects`]), and where in a run it stands ([`StepId`]).
//! - [`workspace_path`]: [`WorkspacePath`], a path that cannot leave the workspace by its spelling.
//! - [`secret`]: [`SecretRef`] names a secret; [`Secret`] holds one and cannot be printed or serialised.
//! - [`sandbox_limits`]: what bounds a sandbox ([`SandboxLimits`], [`NetworkAccess`]).
//! - [`clock`], [`retry`], [`usage`]: time, retry answers and token counts.
//!
//! Nothing here reads a clock, a file, the environment or a source of randomness; those are passed in.
//!
//! ```
//! use cofferdam_core::WorkspacePath;
//!
//! let path: WorkspacePath = "src/./main.rs".parse()?;
//! assert_eq!(path.as_str(), "src/main.rs");
//! assert!("../outside".parse::<WorkspacePath>().is_err());
//! # Ok::<(), cofferdam_core::WorkspacePathError>(())
//! ```
#![forbid(unsafe_code)]

pub mod clock;
pub mod effects;
pub mod ids;
pub mod item;
pub mod retry;
pub mod sandbox_limits;
pub mod secret;
pub mod tool_spec;
pub mod usage;
pub mod workspace_path;

pub use clock::{Clock, Timestamp};
pub use effects::{EffectClass, Effects, StepId};
pub use ids::{CallId, Entropy, RunId, SandboxId};
pub use item::{Content, Item, Message, Role, ToolCall, ToolCallKind, ToolOutput, ToolResult};
pub use retry::Retry;
pub use sandbox_limits::{NetworkAccess, SandboxLimits};
pub use secret::{Secret, SecretRef, SecretRefError};
pub use tool_spec::{Grammar, ToolInputSpec, ToolSpec};
pub use usage::Usage;
pub use workspace_path::{WorkspacePath, WorkspacePathError};

/// A boxed error that crosses threads, for the causes of typed errors.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

//! The tools with which a model works in a sandbox: commands, terminal sessions, files and images.
//!
//! Names, arguments and result texts are those of the tools that models are trained on. Whatever a command does, the
//! control plane's part is bounded: in output returned (tokens), output kept (bytes), sessions, and files written.
//!
//! - [`terminal`]: [`ExecCommandTool`], [`WriteStdinTool`] and the sessions behind them; [`NativeShellTool`].
//! - [`files`]: [`ReadFileTool`], [`ListDirTool`], [`GrepFilesTool`], [`ViewImageTool`].
//! - [`truncate`]: cutting text to a budget of tokens; pure.
//! - [`ShellOptions`], in [`options`].
//! - [`tool_groups`]: [`ShellTools`] and [`FileTools`], the tools that belong together.
//!
//! # What becomes of a command
//!
//! | It … | Then |
//! |---|---|
//! | ends within its yield time | the call returns its output and exit code (128 + n for signal n) |
//! | takes longer | it becomes a session; the call returns what there is and the session's id |
//! | prints forever | head and tail are kept in bounded memory, up to the sandbox's limit of output |
//! | leaves background processes | they are a session too, which can be polled and ended |
//! | ignores signals | nothing changes: it is killed as a tree, which cannot be ignored |
//! | is cancelled, or its call is dropped | it is killed with all its descendants, unless it is a session already |
//! | outlives the harness, in a sandbox that lingers | the next one joins it by the name of its call, and hears its real end |
//! | is a session, and outlives the harness so | the next one joins it at its first use, where the model stopped reading |
//! | is a session, and is left with its sandbox | the same ([`Terminal::leave`]) |
//! | is a session, and its sandbox is lost | `write_stdin` says that it ended with its sandbox |
//! | is the 65th session | the session used longest ago is ended for it; ended ones go first |
//!
//! # Examples
//!
//! ```
//! use std::sync::Arc;
//!
//! use cofferdam_sandbox::Sandbox;
//! use cofferdam_shell::{FileTools, ShellOptions, ShellTools};
//! use cofferdam_tool::{ToolSet, ToolSetError};
//!
//! fn tools(sandbox: &Arc<dyn Sandbox>) -> Result<ToolSet, ToolSetError> {
//!     let shell = ShellTools::new(Arc::clone(sandbox), ShellOptions::default());
//!     ToolSet::new(shell.into_iter().chain(FileTools::new(Arc::clone(sandbox))))
//! }
//! ```
#![forbid(unsafe_code)]

mod call;
mod commands;
mod earlier;
pub mod files;
mod ids;
pub mod options;
mod output_buffer;
mod output_files;
mod response;
mod session;
mod session_table;
pub mod terminal;
pub mod tool_groups;
pub mod truncate;

pub use files::{GrepFilesTool, ListDirTool, ReadFileTool, ViewImageTool, WorkspaceView};
pub use options::ShellOptions;
pub use terminal::{ExecCommandTool, NativeShellTool, Terminal, WriteStdinTool};
pub use tool_groups::{FileTools, ShellTools};

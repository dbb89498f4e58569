//! Shell, terminal-session, file and image tools over any sandbox.
#![forbid(unsafe_code)]

mod call;
mod ids;
pub mod options;
mod output_buffer;
mod output_files;
mod response;
mod session;
mod session_table;
pub mod terminal;
pub mod truncate;

pub use options::ShellOptions;
pub use terminal::{ExecCommandTool, Terminal, WriteStdinTool};

//! [`Sessions`]: commands that outlive a connection, found again by their names.
//!
//! A harness names a command ([`ExecRequest::id`](crate::ExecRequest::id)). If the harness dies, the command goes on for
//! as long as the sandbox lingers, and the next harness asks for it by that name: it hears what the command really
//! wrote and how it really ended, and starts nothing twice, since a name is used only once.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::{ExitStatus, Process, SandboxError};

/// The commands of a sandbox, those of earlier connections and those that have ended included.
///
/// Ended commands are kept with their status and the end of their output until they are forgotten, or until many others
/// have ended after them (64 with the guest of this crate).
#[async_trait]
pub trait Sessions: Debug + Send + Sync + 'static {
    /// Lists all commands that are known, in the order of their starts.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Lost`] or [`SandboxError::Protocol`].
    async fn list(&self) -> Result<Vec<CommandInfo>, SandboxError>;

    /// Joins a command. The events are those of [`crate::Sandbox::exec`], with output from the given position on;
    /// [`crate::ExecEvent::OutputLost`] comes first if some of it is no longer there.
    ///
    /// Only one [`Process`] hears a command: an earlier one ends with an error. Standard input goes on where it was.
    /// Dropping the process kills the command, as ever, unless it is detached.
    ///
    /// # Errors
    ///
    /// [`SandboxError::UnknownCommand`] if there is no such command.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the command may be killed.
    async fn attach(&self, id: &str, from: OutputPosition) -> Result<Process, SandboxError>;

    /// Gives up what is kept of a command that has ended, so that its name is free again.
    ///
    /// # Errors
    ///
    /// [`SandboxError::UnknownCommand`] if no command of this name has ended with its whole tree.
    async fn forget(&self, id: &str) -> Result<(), SandboxError>;
}

/// A position in the output of a command: bytes since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputPosition {
    /// In standard output.
    pub stdout: u64,
    /// In standard error.
    pub stderr: u64,
}

/// A command that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandInfo {
    /// Its name.
    pub id: String,
    /// Its process id inside; 0 if it is being started.
    pub pid: u32,
    /// How far it is.
    pub state: CommandState,
    /// How it ended, if it did.
    pub status: Option<ExitStatus>,
    /// What it wrote so far.
    pub written: OutputPosition,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandState {
    /// It is running.
    Running,
    /// It has ended, and processes that it started go on.
    Exited,
    /// It has ended and nothing of its tree is left.
    Finished,
}

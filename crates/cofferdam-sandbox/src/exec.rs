//! Commands in a sandbox: the request, the stream of events, and control of what runs.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use futures::{Stream, stream::BoxStream};
use serde::{Deserialize, Serialize};

use crate::SandboxError;

/// A command to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// A name by which [`Sessions`](crate::Sessions) find the command again, at most 256 bytes. A name that is known
    /// already is refused. Default: one that no other command of the sandbox has.
    pub id: Option<String>,
    /// Program and arguments; the program is looked up in the sandbox's `PATH`. Not empty.
    pub argv: Vec<Vec<u8>>,
    /// Variables besides those of the sandbox; these win.
    pub environment: BTreeMap<String, String>,
    /// Working directory. Default: the workspace.
    pub directory: WorkspacePath,
    /// Run on a terminal of this size; its output arrives as [`ExecEvent::Stdout`]. Default: pipes.
    pub terminal: Option<TerminalSize>,
    /// Keep standard input open for [`ProcessControl::write_stdin`]. Default: closed at once.
    pub stdin: bool,
}

impl ExecRequest {
    /// Makes a request to run a program with arguments.
    pub fn program<I, A>(argv: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: Into<Vec<u8>>,
    {
        Self {
            id: None,
            argv: argv.into_iter().map(Into::into).collect(),
            environment: BTreeMap::new(),
            directory: WorkspacePath::root(),
            terminal: None,
            stdin: false,
        }
    }

    /// Makes a request to run a script with `sh -c`.
    pub fn shell(script: impl Into<Vec<u8>>) -> Self {
        Self::program([b"sh".to_vec(), b"-c".to_vec(), script.into()])
    }
}

/// The size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// Something that a command did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecEvent {
    /// It runs, under this process id inside the sandbox. Always first.
    Started {
        /// Process id in the sandbox's own process namespace.
        pid: u32,
    },
    /// Output that a [`Sessions::attach`](crate::Sessions::attach) asked for and that is no longer there. At most once,
    /// before all output.
    OutputLost {
        /// Bytes of standard output.
        stdout: u64,
        /// Bytes of standard error.
        stderr: u64,
    },
    /// Bytes of standard output (of the terminal, if there is one).
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The command ended and the output that it wrote itself has been delivered. Output of background processes that
    /// hold its pipes may follow, until they close them.
    Exited(ExitStatus),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// A limit of the sandbox ended it.
    Limit(ExceededLimit),
}

/// Which limit ended a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExceededLimit {
    /// [`cofferdam_core::SandboxLimits::memory_bytes`].
    Memory,
    /// [`cofferdam_core::SandboxLimits::output_bytes`].
    Output,
}

impl ExitStatus {
    /// Returns the code that a POSIX shell would show: the exit code, or 128 + the signal; 137 for a limit.
    #[must_use]
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::Limit(_) => 128 + 9,
        }
    }

    /// Returns true for exit code 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Limit(ExceededLimit::Memory) => f.write_str("the sandbox's memory limit"),
            Self::Limit(ExceededLimit::Output) => f.write_str("the sandbox's output limit"),
        }
    }
}

/// A signal to send; numbers are those of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(pub i32);

impl Signal {
    /// Hang up.
    pub const HUP: Self = Self(1);
    /// Interrupt, as Ctrl-C does.
    pub const INT: Self = Self(2);
    /// Cannot be caught.
    pub const KILL: Self = Self(9);
    /// Please end.
    pub const TERM: Self = Self(15);
}

/// What can be done to a running command, from any task.
///
/// Every method is idempotent in effect and returns `Ok` when the command has already ended.
#[async_trait]
pub trait ProcessControl: Debug + Send + Sync + 'static {
    /// Writes to standard input; returns when the guest has taken all of it (not when the command has read it).
    ///
    /// # Errors
    ///
    /// [`SandboxError::StdinClosed`] if standard input is not open.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a prefix may have been written.
    async fn write_stdin(&self, bytes: Bytes) -> Result<(), SandboxError>;

    /// Closes standard input. On a terminal this sends the end-of-file character.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Lost`] only.
    async fn close_stdin(&self) -> Result<(), SandboxError>;

    /// Sends a signal to the command's process group.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Lost`] only.
    async fn signal(&self, signal: Signal) -> Result<(), SandboxError>;

    /// Kills the command and all its descendants, also those that left its session or were orphaned.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Lost`] only.
    async fn kill_tree(&self) -> Result<(), SandboxError>;

    /// Changes the size of the terminal; no effect without one.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Lost`] only.
    async fn resize(&self, size: TerminalSize) -> Result<(), SandboxError>;

    /// Lets the command go on when its [`Process`] is dropped; no events come any more.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Unsupported`] if the sandbox has no [`Sessions`](crate::Sessions) that could find it again.
    async fn detach(&self) -> Result<(), SandboxError> {
        Err(SandboxError::Unsupported { backend: "sandbox's", operation: "detaching commands" })
    }
}

/// A started command: a stream of [`ExecEvent`] and a handle to control it.
///
/// The stream ends after [`ExecEvent::Exited`], once nothing of the command's tree is left, or with an error. A reader
/// that does not poll stops the command at a full pipe; memory stays bounded. Dropping it kills the command with all
/// descendants, unless it was detached.
pub struct Process {
    events: BoxStream<'static, Result<ExecEvent, SandboxError>>,
    control: Arc<dyn ProcessControl>,
}

impl Process {
    /// Puts a process together from its parts; for backends. `events` must kill the tree when dropped.
    pub fn new(
        events: BoxStream<'static, Result<ExecEvent, SandboxError>>,
        control: Arc<dyn ProcessControl>,
    ) -> Self {
        Self { events, control }
    }

    /// Gives up the events and lets the command go on; [`Sessions::attach`](crate::Sessions::attach) finds it again.
    ///
    /// # Errors
    ///
    /// As [`ProcessControl::detach`]; the command is killed then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the command may be killed.
    pub async fn detach(self) -> Result<(), SandboxError> {
        self.control.detach().await
    }

    /// Returns the handle that controls the command; it may outlive the stream.
    #[must_use]
    pub fn control(&self) -> Arc<dyn ProcessControl> {
        Arc::clone(&self.control)
    }
}

impl Stream for Process {
    type Item = Result<ExecEvent, SandboxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("control", &self.control).finish_non_exhaustive()
    }
}

/// The collected output of a command that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutput {
    /// How it ended; `None` if the stream ended without saying.
    pub status: Option<ExitStatus>,
    /// What it wrote to standard output.
    pub stdout: CollectedStream,
    /// What it wrote to standard error.
    pub stderr: CollectedStream,
}

/// The beginning of a stream, and how much there was beyond.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CollectedStream {
    /// The bytes kept.
    pub bytes: Vec<u8>,
    /// The number of bytes dropped after them.
    pub dropped_bytes: u64,
}

impl CollectedStream {
    pub(crate) fn push(&mut self, bytes: &[u8], max_bytes: usize) {
        let keep = bytes.len().min(max_bytes.saturating_sub(self.bytes.len()));
        self.bytes.extend_from_slice(&bytes[..keep]);
        self.dropped_bytes += (bytes.len() - keep) as u64;
    }

    /// Returns the bytes as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn to_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

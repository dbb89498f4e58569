//! The exit codes of the command, and how an error becomes one.
//!
//! | Code | Meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the run or the command failed; the message tells how |
//! | 2 | the arguments or the agent file are wrong; nothing was started |
//! | 3 | this host cannot enforce what was asked; `cofferdam doctor` tells what is missing |
//! | 4 | the run ended well and an output that was declared is missing |
//! | 5 | the run waits for somebody; the message tells for what, and `cofferdam resume` goes on |
//! | 130 | cancelled |
//! | 141 | whoever read the output has stopped; nothing is said |
//!
//! `cofferdam exec` returns the exit code of the command that it ran, as a shell does; `cofferdam apply-patch` returns
//! 0, 1 or 2 as its peers do.

use std::process::ExitCode;

/// What is said where standard output cannot be written.
pub(crate) const NOT_WRITTEN: &str = "cannot write to standard output";

/// How the command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Failed,
    Usage,
    HostUnable,
    OutputMissing,
    Paused,
    Cancelled,
    /// Nobody reads the output any more.
    NobodyReads,
    /// The code of the command that was run.
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::HostUnable => 3,
            Exit::OutputMissing => 4,
            Exit::Paused => 5,
            Exit::Cancelled => 130,
            Exit::NobodyReads => 141,
            Exit::Code(code) => code,
        })
    }
}

/// An error with the exit code that it leads to.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }

    /// Whether the output could not be written because its reader has gone, as `head` does when it has enough.
    pub(crate) fn is_nobody_reading(&self) -> bool {
        let is_pipe = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
        self.error.to_string() == NOT_WRITTEN
            && self.error.root_cause().downcast_ref().is_some_and(is_pipe)
    }

    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Failed, error }
    }
}

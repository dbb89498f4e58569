//! [`ShellOptions`]: how the tools of this crate are set up.

use std::{collections::BTreeMap, time::Duration};

/// Choices for the tools of one sandbox. Every bound has a finite default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellOptions {
    /// Where the workspace is inside the sandbox, so that absolute paths below it are understood. Default `/workspace`.
    pub workspace_root: String,
    /// The shells that run a command whose call names none; the first that is in the sandbox is taken. Default `bash`,
    /// then `sh`.
    pub shells: Vec<String>,
    /// Whether commands can reach a network. What they did there is not undone with the workspace, so a run does not go back
    /// over such a command. Default false, as for a sealed sandbox.
    pub network: bool,
    /// Variables that each command gets besides those of the sandbox. Default: those that keep programs from colours,
    /// pagers and prompts, which only cost tokens; a command on a terminal gets `TERM` from the sandbox.
    pub environment: BTreeMap<String, String>,
    /// Tokens of output that one call returns if it asks for no other number. Default 10 000.
    pub default_output_tokens: usize,
    /// Tokens of output that one call can ask for at most. Default 50 000.
    pub max_output_tokens: usize,
    /// Bytes of output kept of one call, half from its beginning and half from its end. What a call does not return of
    /// them goes to a file. Default 16 MiB.
    pub max_call_bytes: usize,
    /// Bytes of output kept of a session while no call waits for it, split in the same way. Default 1 MiB.
    pub max_session_bytes: usize,
    /// Sessions at a time; a new one beyond ends the one used longest ago. Default 64.
    pub max_sessions: usize,
    /// The sessions used last, which are not ended to make room. Default 8.
    pub protected_sessions: usize,
    /// Output files kept in the workspace; the oldest are removed. Default 64.
    pub max_output_files: usize,
    /// Bytes of all output files together. Default 128 MiB.
    pub max_output_file_bytes: u64,
    /// Time that a command of the `shell` tool may take if its call asks for no other. Default 2 minutes.
    pub default_timeout: Duration,
    /// Time that a command of the `shell` tool can ask for at most. Default 1 hour.
    pub max_timeout: Duration,
    /// What chunk and session ids are made from. The same seed gives the same ids; a resumed run should pass another, so
    /// that ids which the model remembers are not given to new sessions. Default 0.
    pub seed: u64,
}

impl Default for ShellOptions {
    fn default() -> Self {
        let quiet = [
            ("COLORTERM", ""),
            ("GH_PAGER", "cat"),
            ("GIT_PAGER", "cat"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C.UTF-8"),
            ("NO_COLOR", "1"),
            ("PAGER", "cat"),
            ("TERM", "dumb"),
        ];
        Self {
            workspace_root: "/workspace".into(),
            shells: vec!["bash".into(), "sh".into()],
            network: false,
            environment: quiet.map(|(name, value)| (name.into(), value.into())).into(),
            default_output_tokens: 10_000,
            max_output_tokens: 50_000,
            max_call_bytes: 16 << 20,
            max_session_bytes: 1 << 20,
            max_sessions: 64,
            protected_sessions: 8,
            max_output_files: 64,
            max_output_file_bytes: 128 << 20,
            default_timeout: Duration::from_secs(120),
            max_timeout: Duration::from_secs(3600),
            seed: 0,
        }
    }
}

//! [`ExecCommandTool`]: starts a command, and lets go of it when it takes long.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cofferdam_core::{Effects, ToolOutput, ToolSpec};
use cofferdam_tool::{ProbeOutcome, Recalled, Tool, ToolContext, ToolError, ToolInput};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{CommandLine, NOBODY_KNOWS, Rejoined, Terminal, Watch};
use crate::{call::json_spec, commands::Command, session::Session};

const NAME: &str = "exec_command";
const MIN_YIELD_MS: u64 = 250;
const MAX_YIELD_MS: u64 = 30_000;

/// The tool `exec_command`: runs a shell command and returns its output, or, if it outlives its yield time, a session
/// that [`super::WriteStdinTool`] goes on with.
///
/// A cancelled run, or a call whose future is dropped, kills the command with all its descendants, unless it has become
/// a session.
#[derive(Debug)]
pub struct ExecCommandTool {
    spec: ToolSpec,
    terminal: Arc<Terminal>,
}

#[derive(Debug, Deserialize)]
struct Arguments {
    cmd: String,
    workdir: Option<String>,
    shell: Option<String>,
    #[serde(default = "yes")]
    login: bool,
    #[serde(default)]
    tty: bool,
    #[serde(default = "default_yield_ms")]
    yield_time_ms: u64,
    max_output_tokens: Option<usize>,
}

fn yes() -> bool {
    true
}

fn default_yield_ms() -> u64 {
    10_000
}

impl ExecCommandTool {
    /// Makes the tool.
    #[must_use]
    pub fn new(terminal: Arc<Terminal>) -> Self {
        let default_tokens = terminal.options.default_output_tokens;
        let spec = json_spec(
            NAME,
            "Runs a command in the sandbox, returning its output, or a session ID for ongoing interaction if it still \
             runs after yield_time_ms.",
            &["cmd"],
            json!({
                "cmd": {"type": "string", "description": "Shell command to execute."},
                "workdir": {
                    "type": "string",
                    "description": "Working directory, in the workspace. Defaults to the workspace.",
                },
                "shell": {
                    "type": "string",
                    "description": "Shell program to run the command with. Defaults to the sandbox's shell.",
                },
                "login": {
                    "type": "boolean",
                    "description": "Whether to run the shell as a login shell (-l). Defaults to true.",
                },
                "tty": {
                    "type": "boolean",
                    "description": "Whether to run the command on a terminal, which keeps its standard input open for \
                                    write_stdin. Defaults to false.",
                },
                "yield_time_ms": {
                    "type": "integer",
                    "description": "How long to wait (in milliseconds) for the command to end before returning a \
                                    session. Defaults to 10000; 250 to 30000.",
                },
                "max_output_tokens": {
                    "type": "integer",
                    "description": format!("Tokens of output to return. The middle of a longer output is left out and \
                                            all of it saved to a file. Defaults to {default_tokens}."),
                },
            }),
        );
        Self { spec, terminal }
    }
}

#[async_trait]
impl Tool for ExecCommandTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        self.terminal.effects()
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let arguments: Arguments = input.decode()?;
        if arguments.cmd.trim().is_empty() {
            return Err(ToolError::InvalidInput { reason: "`cmd` is empty".into() });
        }
        let started = Instant::now();
        let command = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(ToolError::Cancelled),
            command = self.terminal.start(arguments.command(), context) => command?,
        };
        self.watch(command, &arguments, started, context).await
    }

    async fn probe(
        &self,
        context: &ToolContext,
        input: &ToolInput,
        _: &Value,
    ) -> Result<ProbeOutcome, ToolError> {
        let arguments: Arguments = input.decode()?;
        let started = Instant::now();
        Ok(match self.terminal.rejoin(&arguments.command(), context).await? {
            Rejoined::Command(command) => {
                ProbeOutcome::Finished(self.watch(command, &arguments, started, context).await?)
            }
            Rejoined::NotStarted => ProbeOutcome::NotStarted,
            Rejoined::NobodyKnows => ProbeOutcome::Unknown { why: NOBODY_KNOWS.into() },
        })
    }

    async fn settled(&self, context: &ToolContext) {
        self.terminal.settled(context).await;
    }

    fn recall(&self, recalled: &Recalled<'_>) {
        self.terminal.recall(recalled);
    }
}

impl Arguments {
    fn command(&self) -> CommandLine<'_> {
        CommandLine {
            tool: NAME,
            script: &self.cmd,
            directory: self.workdir.as_deref(),
            shell: self.shell.as_deref(),
            is_login: self.login,
            has_terminal: self.tty,
            place: 0,
        }
    }
}

impl ExecCommandTool {
    /// Waits for a command's end, at most for its yield time, and describes what it did.
    async fn watch(
        &self,
        command: Command,
        arguments: &Arguments,
        started: Instant,
        context: &ToolContext,
    ) -> Result<ToolOutput, ToolError> {
        let sandbox = self.terminal.sandbox.id().clone();
        let session =
            Arc::new(Session::start(command, sandbox, arguments.tty, &self.terminal.options));
        let attached = session.attach(context);
        let watch = Watch {
            tool: NAME,
            session: &session,
            known_id: None,
            started,
            yield_time: Duration::from_millis(
                arguments.yield_time_ms.clamp(MIN_YIELD_MS, MAX_YIELD_MS),
            ),
            max_output_tokens: arguments.max_output_tokens,
        };
        let response = self.terminal.observe(watch, context).await?;
        drop(attached);
        Ok(response.into_output())
    }
}

//! [`ExecCommandTool`]: starts a command, and lets go of it when it takes long.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cofferdam_core::{Effects, ToolOutput, ToolSpec};
use cofferdam_sandbox::{ExecRequest, Process, SandboxError, TerminalSize};
use cofferdam_tool::{Tool, ToolContext, ToolError, ToolInput};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{COMMAND_EFFECTS, Terminal, Watch};
use crate::{
    call::{json_spec, tool_error, workspace_path},
    session::Session,
};

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

    async fn start(&self, arguments: &Arguments) -> Result<Process, ToolError> {
        let options = &self.terminal.options;
        let directory = workspace_path(
            arguments.workdir.as_deref().filter(|path| !path.is_empty()).unwrap_or("."),
            &options.workspace_root,
        )?;
        let mut environment = options.environment.clone();
        if arguments.tty {
            environment.remove("TERM");
        }
        let flag = if arguments.login { "-lc" } else { "-c" };
        let shells = match arguments.shell.as_deref().filter(|shell| !shell.is_empty()) {
            Some(shell) => vec![shell.to_owned()],
            None => options.shells.clone(),
        };
        let mut not_there = None;
        for shell in shells {
            let request = ExecRequest {
                environment: environment.clone(),
                directory: directory.clone(),
                terminal: arguments.tty.then(TerminalSize::default),
                stdin: arguments.tty,
                ..ExecRequest::program([shell.as_str(), flag, &arguments.cmd])
            };
            match self.terminal.sandbox.exec(request).await {
                Ok(process) => return Ok(process),
                Err(error) if is_missing_program(&error) => not_there = Some(error),
                Err(error) => return Err(tool_error(NAME, error)),
            }
        }
        Err(not_there.map_or_else(
            || ToolError::Failed {
                message: format!("{NAME} failed: no shell is configured; name one"),
            },
            |error| tool_error(NAME, error),
        ))
    }
}

fn is_missing_program(error: &SandboxError) -> bool {
    const NOT_FOUND: i32 = 2;
    matches!(error, SandboxError::NotStarted { errno: NOT_FOUND, .. })
}

#[async_trait]
impl Tool for ExecCommandTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        COMMAND_EFFECTS
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let arguments: Arguments = input.decode()?;
        if arguments.cmd.trim().is_empty() {
            return Err(ToolError::InvalidInput { reason: "`cmd` is empty".into() });
        }
        let started = Instant::now();
        let process = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(ToolError::Cancelled),
            process = self.start(&arguments) => process?,
        };
        let session = Arc::new(Session::start(process, arguments.tty, &self.terminal.options));
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

//! Commands: [`ExecCommandTool`] and [`WriteStdinTool`], whose commands may outlive the call that started them, and
//! [`NativeShellTool`], whose commands run to their end.

use std::{sync::Arc, time::Duration};

use cofferdam_core::{EffectClass, Effects};
use cofferdam_sandbox::{ExecRequest, ExitStatus, Process, Sandbox, SandboxError, TerminalSize};
use cofferdam_tool::{ToolContext, ToolError};
use tokio::time::Instant;

use crate::{
    call::{tool_error, workspace_path},
    ids::IdSource,
    options::ShellOptions,
    output_files::OutputFiles,
    response::CommandResponse,
    session::{Session, Waited},
    session_table::SessionTable,
};

mod exec_command;
mod native_shell;
mod write_stdin;

pub use exec_command::ExecCommandTool;
pub use native_shell::NativeShellTool;
pub use write_stdin::WriteStdinTool;

/// The commands of one sandbox: what [`ExecCommandTool`] and [`WriteStdinTool`] share.
///
/// Dropping the last handle ends every session.
#[derive(Debug)]
pub struct Terminal {
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) options: ShellOptions,
    sessions: SessionTable,
    ids: IdSource,
    files: OutputFiles,
}

impl Terminal {
    /// Makes the shared state of a sandbox's commands; nothing is started.
    pub fn new(sandbox: Arc<dyn Sandbox>, options: ShellOptions) -> Arc<Self> {
        Arc::new(Self {
            sessions: SessionTable::new(options.max_sessions, options.protected_sessions),
            ids: IdSource::new(options.seed),
            files: OutputFiles::new(&options),
            sandbox,
            options,
        })
    }

    /// Returns the number of sessions that were not yet polled to their end.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Starts a command with the first of its shells that is in the sandbox.
    async fn start(&self, command: CommandLine<'_>) -> Result<Process, ToolError> {
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let directory = given(command.directory).unwrap_or_else(|| ".".into());
        let directory = workspace_path(&directory, &self.options.workspace_root)?;
        let mut environment = self.options.environment.clone();
        if command.has_terminal {
            environment.remove("TERM");
        }
        let flag = if command.is_login { "-lc" } else { "-c" };
        let shells =
            given(command.shell).map_or_else(|| self.options.shells.clone(), |shell| vec![shell]);
        let mut not_there = None;
        for shell in shells {
            let request = ExecRequest {
                environment: environment.clone(),
                directory: directory.clone(),
                terminal: command.has_terminal.then(TerminalSize::default),
                stdin: command.has_terminal,
                ..ExecRequest::program([shell.as_str(), flag, command.script])
            };
            match self.sandbox.exec(request).await {
                Ok(process) => return Ok(process),
                Err(error) if is_missing_program(&error) => not_there = Some(error),
                Err(error) => return Err(tool_error(command.tool, error)),
            }
        }
        Err(not_there.map_or_else(
            || ToolError::Failed {
                message: format!("{} failed: no shell is configured; name one", command.tool),
            },
            |error| tool_error(command.tool, error),
        ))
    }

    /// Keeps output that is too long for the model; returns its path, or why it could not be kept.
    async fn save(&self, output: String) -> Result<String, String> {
        match self.files.write(&*self.sandbox, output).await {
            Ok(path) => Ok(path.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn session(&self, id: u32) -> Option<Arc<Session>> {
        self.sessions.get(id)
    }

    /// Waits for a command and describes what it did meanwhile.
    async fn observe(
        &self,
        watch: Watch<'_>,
        context: &ToolContext,
    ) -> Result<CommandResponse, ToolError> {
        let Watch { tool, session, known_id, started, yield_time, max_output_tokens } = watch;
        let (exit, still_runs): (Option<ExitStatus>, bool) =
            match session.wait(started + yield_time, context).await {
                Waited::Ended(exit) => (Some(exit), false),
                Waited::Background(exit) => (Some(exit), true),
                Waited::Running => (None, true),
                Waited::Cancelled => return Err(ToolError::Cancelled),
                Waited::Failed(error) => {
                    known_id.inspect(|id| self.sessions.remove(*id));
                    return Err(tool_error(tool, error));
                }
            };
        let wall_time = started.elapsed();
        let output = session.take_output();
        let session_id = match (still_runs, known_id) {
            (true, Some(id)) => Some(id),
            (true, None) => Some(self.sessions.insert(Arc::clone(session), &self.ids)),
            (false, id) => {
                id.inspect(|id| self.sessions.remove(*id));
                None
            }
        };
        let budget = max_output_tokens
            .unwrap_or(self.options.default_output_tokens)
            .min(self.options.max_output_tokens);
        let (text, is_cut) = output.truncate(budget);
        let text = text.into_owned();
        let whole_output = if is_cut { Some(self.save(output.text).await) } else { None };
        Ok(CommandResponse {
            chunk_id: self.ids.chunk_id(),
            wall_time,
            exit,
            session_id,
            original_bytes: output.original_bytes,
            output: text,
            whole_output,
        })
    }
}

/// A command to start.
#[derive(Debug, Clone, Copy)]
struct CommandLine<'a> {
    tool: &'static str,
    script: &'a str,
    directory: Option<&'a str>,
    shell: Option<&'a str>,
    is_login: bool,
    has_terminal: bool,
}

fn is_missing_program(error: &SandboxError) -> bool {
    const NOT_FOUND: i32 = 2;
    matches!(error, SandboxError::NotStarted { errno: NOT_FOUND, .. })
}

/// One call's view of a command.
struct Watch<'a> {
    tool: &'static str,
    session: &'a Arc<Session>,
    /// Its id, if it is a session already.
    known_id: Option<u32>,
    started: Instant,
    yield_time: Duration,
    max_output_tokens: Option<usize>,
}

/// Commands change the workspace in ways that nobody can ask for afterwards. They reach a network only if the sandbox
/// has one, which the policy knows.
const COMMAND_EFFECTS: Effects =
    Effects { class: EffectClass::Unknown, writes: true, network: false };

#[cfg(test)]
mod tests;

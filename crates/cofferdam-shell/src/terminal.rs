//! Commands: [`ExecCommandTool`] and [`WriteStdinTool`], whose commands may outlive the call that started them, and
//! [`NativeShellTool`], whose commands run to their end.

use std::{sync::Arc, time::Duration};

use cofferdam_core::{EffectClass, Effects, ToolOutput};
use cofferdam_sandbox::{
    ExecRequest, ExitStatus, OutputPosition, Sandbox, SandboxError, TerminalSize,
};
use cofferdam_tool::{Recalled, ToolContext, ToolError};
use serde::Deserialize as _;
use tokio::time::Instant;

use crate::{
    call::{tool_error, workspace_path},
    commands::{Command, Names, command_name},
    earlier::{EarlierSessions, SessionFacts, Whereabouts},
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
/// Dropping the last handle ends every session, unless they were left ([`Terminal::leave`]).
#[derive(Debug)]
pub struct Terminal {
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) options: ShellOptions,
    sessions: SessionTable,
    earlier: EarlierSessions,
    ids: IdSource,
    files: OutputFiles,
    names: Names,
}

impl Terminal {
    /// Makes the shared state of a sandbox's commands; nothing is started.
    pub fn new(sandbox: Arc<dyn Sandbox>, options: ShellOptions) -> Arc<Self> {
        Arc::new(Self {
            sessions: SessionTable::new(options.max_sessions, options.protected_sessions),
            earlier: EarlierSessions::default(),
            ids: IdSource::new(options.seed),
            files: OutputFiles::new(&options),
            names: Names::default(),
            sandbox,
            options,
        })
    }

    /// Returns the number of sessions that were not yet polled to their end.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Lets the sessions of now live on when this is dropped, where the sandbox finds commands again, for whoever goes on with
    /// the run: the sandbox ends them when it ends.
    pub fn leave(&self) {
        self.sessions.leave();
    }

    /// What commands do to the world: they change the workspace, and whether one ran can be asked of a sandbox that keeps its
    /// commands.
    pub(crate) fn effects(&self) -> Effects {
        Effects { class: EffectClass::Probe, writes: true, network: self.options.network }
    }

    /// Starts a command with the first of its shells that is in the sandbox.
    async fn start(
        &self,
        command: CommandLine<'_>,
        context: &ToolContext,
    ) -> Result<Command, ToolError> {
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
        for (attempt, shell) in (0..).zip(shells) {
            let name = self.name_of(&command, attempt, context);
            let request = ExecRequest {
                id: name.clone(),
                environment: environment.clone(),
                directory: directory.clone(),
                terminal: command.has_terminal.then(TerminalSize::default),
                stdin: command.has_terminal,
                ..ExecRequest::program([shell.as_str(), flag, command.script])
            };
            match self.sandbox.exec(request).await {
                Ok(process) => {
                    name.iter().for_each(|name| self.names.note(context, name));
                    return Ok(Command::new(process, name));
                }
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

    /// Joins a command that an earlier harness may have started, from the beginning of its output.
    async fn rejoin(
        &self,
        command: &CommandLine<'_>,
        context: &ToolContext,
    ) -> Result<Rejoined, ToolError> {
        let Some(sessions) = self.sandbox.sessions() else { return Ok(Rejoined::NobodyKnows) };
        let shells = if command.shell.is_some() { 1 } else { self.options.shells.len() };
        for attempt in 0..shells {
            let Some(name) = self.name_of(command, attempt, context) else {
                return Ok(Rejoined::NobodyKnows);
            };
            match sessions.attach(&name, OutputPosition::default()).await {
                Ok(process) => {
                    self.names.note(context, &name);
                    return Ok(Rejoined::Command(Command::new(process, Some(name))));
                }
                Err(SandboxError::UnknownCommand { .. }) => {}
                Err(error) => return Err(tool_error(command.tool, error)),
            }
        }
        Ok(Rejoined::NotStarted)
    }

    /// Returns a command's name. Each attempt has another, since a name is used only once, and a command on a terminal says so.
    fn name_of(
        &self,
        command: &CommandLine<'_>,
        attempt: usize,
        context: &ToolContext,
    ) -> Option<String> {
        let mut name = command_name(&*self.sandbox, context)?;
        if command.place > 0 {
            name.push_str(&format!("+{}", command.place));
        }
        if command.has_terminal {
            name.push_str(TERMINAL_MARK);
        }
        if attempt > 0 {
            name.push_str(&format!("~{attempt}"));
        }
        Some(name)
    }

    /// Gives up what was kept to find a call's commands again.
    async fn settled(&self, context: &ToolContext) {
        self.names.forget(&*self.sandbox, context).await;
    }

    /// Keeps output that is too long for the model; returns its path, or why it could not be kept.
    async fn save(&self, output: String) -> Result<String, String> {
        match self.files.write(&*self.sandbox, output).await {
            Ok(path) => Ok(path.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes in what a result said of a session, or that the sandbox of all of them is gone.
    fn recall(&self, recalled: &Recalled<'_>) {
        match recalled {
            Recalled::Result { output, .. } => self.recall_result(output),
            Recalled::SandboxLost => self.earlier.lose_all(),
            _ => {}
        }
    }

    fn recall_result(&self, output: &ToolOutput) {
        let Some(facts) = output.structured.get("session") else { return };
        let Ok(facts) = SessionFacts::deserialize(facts) else { return };
        // What is heard here is known better.
        if facts.ended || self.sessions.has(facts.id) {
            self.earlier.remove(facts.id);
        } else {
            self.earlier.note(facts.id, Whereabouts::In(self.sandbox.id().clone(), facts));
        }
    }

    /// Finds a session; one of an earlier process is joined.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the command of an earlier process may be killed.
    async fn session(&self, tool: &str, id: u32) -> Result<Found, ToolError> {
        if let Some(session) = self.sessions.get(id) {
            if session.sandbox() == self.sandbox.id() {
                return Ok(Found::Here(session));
            }
            self.lose(id);
        }
        let facts = match self.earlier.get(id) {
            None => return Ok(Found::Nowhere),
            Some(Whereabouts::In(sandbox, facts)) if &sandbox == self.sandbox.id() => facts,
            Some(_) => return Ok(Found::LostWithSandbox),
        };
        let Some(sessions) = self.sandbox.sessions() else { return Ok(Found::Nowhere) };
        let from = facts.told();
        match sessions.attach(&facts.command, from).await {
            Ok(process) => {
                let command = Command::new(process, Some(facts.command));
                let sandbox = self.sandbox.id().clone();
                let session =
                    Session::resume(command, sandbox, facts.terminal, from, &self.options);
                let session = Arc::new(session);
                self.sessions.insert_as(id, Arc::clone(&session));
                self.earlier.remove(id);
                Ok(Found::Here(session))
            }
            Err(SandboxError::UnknownCommand { .. }) => {
                self.earlier.remove(id);
                Ok(Found::Nowhere)
            }
            Err(error) => Err(tool_error(tool, error)),
        }
    }

    /// Says how a call ends by a failure of the sandbox, which ends its session too.
    fn failed(&self, tool: &str, session: Option<u32>, error: SandboxError) -> ToolError {
        match session {
            Some(id) if error.is_loss() => self.lose(id),
            Some(id) => self.sessions.remove(id),
            None => {}
        }
        tool_error(tool, error)
    }

    /// Notes that a session ended with its sandbox.
    fn lose(&self, id: u32) {
        self.sessions.remove(id);
        self.earlier.note(id, Whereabouts::LostWithSandbox);
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
                Waited::Failed(error) => return Err(self.failed(tool, known_id, error)),
            };
        let wall_time = started.elapsed();
        let output = session.take_output();
        let session_id = match (still_runs, known_id) {
            (true, Some(id)) => Some(id),
            (true, None) => {
                let known = |id| self.earlier.get(id).is_some();
                Some(self.sessions.insert(Arc::clone(session), &self.ids, known))
            }
            (false, id) => {
                if let Some(id) = id {
                    self.sessions.remove(id);
                    session.name().into_iter().for_each(|name| self.names.note(context, name));
                }
                None
            }
        };
        let told = session.taken();
        let facts = session_id.or(known_id).zip(session.name());
        let facts = facts.map(|(id, command)| SessionFacts {
            id,
            command: command.to_owned(),
            terminal: session.has_terminal(),
            stdout: told.stdout,
            stderr: told.stderr,
            ended: session_id.is_none(),
        });
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
            session: facts,
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
    /// Its place among the commands of its call.
    place: usize,
}

/// Where a session is.
enum Found {
    /// It is heard here.
    Here(Arc<Session>),
    /// It ended with its sandbox.
    LostWithSandbox,
    /// There is no such session, or it has ended.
    Nowhere,
}

/// What became of a command that an earlier harness may have started.
enum Rejoined {
    /// It is there, running or ended.
    Command(Command),
    /// The sandbox would know it, and does not.
    NotStarted,
    /// The sandbox does not keep its commands.
    NobodyKnows,
}

/// Why nobody can tell whether a command ran.
const NOBODY_KNOWS: &str =
    "the sandbox does not keep its commands, so nobody can tell whether this one ran";

/// Ends the names of commands on a terminal.
const TERMINAL_MARK: &str = ":tty";

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

#[cfg(test)]
mod tests;

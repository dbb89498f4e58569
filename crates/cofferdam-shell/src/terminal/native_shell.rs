//! [`NativeShellTool`]: a provider's built-in shell, run here.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use cofferdam_core::{Effects, ToolOutput, ToolSpec};
use cofferdam_sandbox::{ExecEvent, ExitStatus};
use cofferdam_tool::{ProbeOutcome, Tool, ToolContext, ToolError, ToolInput};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{CommandLine, NOBODY_KNOWS, Rejoined, Terminal};
use crate::{
    call::{json_spec, tool_error},
    commands::Command,
    output_buffer::{BufferLimits, OutputBuffer},
    truncate::BYTES_PER_TOKEN,
};

const NAME: &str = "shell";
/// More commands than a provider sends in one call.
const MAX_COMMANDS: usize = 32;

/// The tool `shell`: runs each of some commands to its end, one after the other, and answers in the form of the
/// providers' built-in shells (`structured` is `{"output": [{"stdout", "stderr", "outcome"}]}`).
///
/// A command that takes longer than its time is killed with all its descendants, and so is what a command leaves in the
/// background when it ends: commands that are to live on are for [`super::ExecCommandTool`].
#[derive(Debug)]
pub struct NativeShellTool {
    spec: ToolSpec,
    terminal: Arc<Terminal>,
}

#[derive(Debug, Deserialize)]
struct Arguments {
    commands: Vec<String>,
    timeout_ms: Option<u64>,
    max_output_length: Option<usize>,
}

/// What one command did.
#[derive(Debug)]
struct Ran {
    stdout: String,
    stderr: String,
    /// `None` if its time was over.
    exit: Option<ExitStatus>,
}

impl NativeShellTool {
    /// Makes the tool.
    #[must_use]
    pub fn new(terminal: Arc<Terminal>) -> Self {
        let spec = json_spec(
            NAME,
            "Runs shell commands in the sandbox, one after the other, each to its end.",
            &["commands"],
            json!({
                "commands": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "Shell commands to run, in order.",
                },
                "timeout_ms": {
                    "type": "integer",
                    "description": format!("Time that each command may take. Defaults to {}.",
                                           terminal.options.default_timeout.as_millis()),
                },
                "max_output_length": {
                    "type": "integer",
                    "description": "Bytes of output to return. The middle of a longer output is left out.",
                },
            }),
        );
        Self { spec, terminal }
    }

    /// Hears a command to its end, or kills it when its time is over.
    async fn run(
        &self,
        mut command: Command,
        timeout: Duration,
        max_bytes: usize,
        context: &ToolContext,
    ) -> Result<Ran, ToolError> {
        let options = &self.terminal.options;
        let limits = BufferLimits::halves_of(options.max_call_bytes / 2);
        let (mut stdout, mut stderr) = (OutputBuffer::new(limits), OutputBuffer::new(limits));
        let deadline = Instant::now() + timeout;
        let exit = loop {
            let event = tokio::select! {
                biased;
                () = sleep_until(deadline) => break None,
                event = command.next() => event,
            };
            let (buffer, bytes) =
                match event.transpose().map_err(|error| tool_error(NAME, error))? {
                    Some(ExecEvent::Stdout(bytes)) => (&mut stdout, bytes),
                    Some(ExecEvent::Stderr(bytes)) => (&mut stderr, bytes),
                    Some(ExecEvent::Exited(status)) => break Some(status),
                    Some(ExecEvent::OutputLost { stdout: of_stdout, stderr: of_stderr }) => {
                        stdout.lose(of_stdout);
                        stderr.lose(of_stderr);
                        continue;
                    }
                    Some(_) => continue,
                    None => {
                        let message = format!("{NAME} failed: the command's end was not told");
                        return Err(ToolError::Failed { message });
                    }
                };
            buffer.push(&bytes);
            if let Some(progress) = &context.progress {
                progress.output(context.step, &bytes);
            }
        };
        drop(command);
        Ok(Ran {
            stdout: self.bounded(stdout, max_bytes).await,
            stderr: self.bounded(stderr, max_bytes).await,
            exit,
        })
    }

    async fn bounded(&self, mut buffer: OutputBuffer, max_bytes: usize) -> String {
        let output = buffer.take(true);
        let (text, is_cut) = output.truncate_bytes(max_bytes);
        let mut text = text.into_owned();
        if is_cut {
            let note = match self.terminal.save(output.text).await {
                Ok(path) => format!("\nFull output saved to: {path}\n"),
                Err(reason) => format!("\nFull output could not be saved: {reason}\n"),
            };
            text.push_str(&note);
        }
        text
    }
}

impl Ran {
    fn structured(&self) -> Value {
        let outcome = match self.exit {
            Some(exit) => json!({"type": "exit", "exit_code": exit.shell_code()}),
            None => json!({"type": "timeout"}),
        };
        json!({"stdout": self.stdout, "stderr": self.stderr, "outcome": outcome})
    }

    fn describe(&self, script: &str, timeout: Duration) -> String {
        let mut text = format!("$ {script}\n");
        let ending = match self.exit {
            Some(exit) => format!("Process exited with code {}", exit.shell_code()),
            None => format!("Process killed after {:.1} seconds", timeout.as_secs_f64()),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{ending}\nOutput:\n{}", self.stdout);
        if !self.stderr.is_empty() {
            let _ = writeln!(text, "Error output:\n{}", self.stderr);
        }
        text
    }
}

#[async_trait]
impl Tool for NativeShellTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, _: &ToolInput) -> Effects {
        self.terminal.effects()
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let job = self.job(&input)?;
        self.go_on(&job, None, context).await
    }

    async fn probe(
        &self,
        context: &ToolContext,
        input: &ToolInput,
        _: &Value,
    ) -> Result<ProbeOutcome, ToolError> {
        let job = self.job(input)?;
        Ok(match self.terminal.rejoin(&job.command(0), context).await? {
            Rejoined::Command(first) => {
                ProbeOutcome::Finished(self.go_on(&job, Some(first), context).await?)
            }
            Rejoined::NotStarted => ProbeOutcome::NotStarted,
            Rejoined::NobodyKnows => ProbeOutcome::Unknown { why: NOBODY_KNOWS.into() },
        })
    }

    async fn settled(&self, context: &ToolContext) {
        self.terminal.settled(context).await;
    }
}

/// What one call is to do.
struct Job {
    commands: Vec<String>,
    timeout: Duration,
    /// Bytes of output of each command.
    max_bytes: usize,
    max_output_length: Option<usize>,
}

impl Job {
    fn command(&self, place: usize) -> CommandLine<'_> {
        CommandLine {
            tool: NAME,
            script: &self.commands[place],
            directory: None,
            shell: None,
            is_login: true,
            has_terminal: false,
            place,
        }
    }
}

impl NativeShellTool {
    fn job(&self, input: &ToolInput) -> Result<Job, ToolError> {
        let Arguments { commands, timeout_ms, max_output_length } = input.decode()?;
        if commands.is_empty() || commands.len() > MAX_COMMANDS {
            let reason = format!("`commands` must be 1 to {MAX_COMMANDS}, not {}", commands.len());
            return Err(ToolError::InvalidInput { reason });
        }
        let options = &self.terminal.options;
        let timeout = timeout_ms
            .map_or(options.default_timeout, Duration::from_millis)
            .min(options.max_timeout);
        let max_bytes = max_output_length
            .unwrap_or(options.default_output_tokens * BYTES_PER_TOKEN)
            .min(options.max_output_tokens * BYTES_PER_TOKEN)
            / commands.len();
        Ok(Job { commands, timeout, max_bytes, max_output_length })
    }

    /// Runs the commands. If the first was started by an earlier harness, each that was is joined, and the rest is run.
    async fn go_on(
        &self,
        job: &Job,
        first: Option<Command>,
        context: &ToolContext,
    ) -> Result<ToolOutput, ToolError> {
        let is_resumed = first.is_some();
        let mut joined = first;
        let mut output = Vec::new();
        let mut text = String::new();
        for (place, script) in job.commands.iter().enumerate() {
            let ran = async {
                let line = job.command(place);
                let joined = match joined.take() {
                    Some(command) => Some(command),
                    None if is_resumed => match self.terminal.rejoin(&line, context).await? {
                        Rejoined::Command(command) => Some(command),
                        _ => None,
                    },
                    None => None,
                };
                let command = match joined {
                    Some(command) => command,
                    None => self.terminal.start(line, context).await?,
                };
                self.run(command, job.timeout, job.max_bytes, context).await
            };
            let ran =
                context.cancel.run_until_cancelled(ran).await.ok_or(ToolError::Cancelled)??;
            text.push_str(&ran.describe(script, job.timeout));
            output.push(ran.structured());
        }
        let mut structured = json!({"output": output});
        if let Some(length) = job.max_output_length {
            structured["max_output_length"] = json!(length);
        }
        Ok(ToolOutput { structured, ..ToolOutput::text(text) })
    }
}

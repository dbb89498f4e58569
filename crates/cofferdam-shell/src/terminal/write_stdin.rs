//! [`WriteStdinTool`]: goes on with a session: writes to it, interrupts it, or looks what it has done.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::{EffectClass, Effects, ToolOutput, ToolSpec};
use cofferdam_sandbox::{SandboxError, Signal};
use cofferdam_tool::{ProbeOutcome, Recalled, Tool, ToolContext, ToolError, ToolInput};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Found, Terminal, Watch};
use crate::{
    call::{json_spec, tool_error},
    session::{Session, Waited},
};

const NAME: &str = "write_stdin";
const MIN_YIELD_MS: u64 = 250;
const MAX_YIELD_MS: u64 = 30_000;
const MIN_POLL_MS: u64 = 5_000;
const MAX_POLL_MS: u64 = 300_000;
/// What Ctrl-C sends.
const INTERRUPT: &str = "\u{3}";
const STDIN_CLOSED: &str = "write_stdin failed: stdin is closed for this session; rerun exec_command with tty=true to \
                            keep stdin open";

/// The tool `write_stdin`: writes to the standard input of a session of [`super::ExecCommandTool`], or polls it with no
/// characters, and returns the output that has come since the last call.
///
/// Without a terminal there is no standard input; `\u0003` alone then interrupts the command as Ctrl-C would, and kills
/// the background processes of a command that has ended.
///
/// A session that an earlier process of the run had is joined at its first use, where the model stopped reading. One whose
/// sandbox was lost is gone, and the model is told so.
///
/// A cancelled run, or a call whose future is dropped, leaves the session as it is.
#[derive(Debug)]
pub struct WriteStdinTool {
    spec: ToolSpec,
    terminal: Arc<Terminal>,
}

#[derive(Debug, Deserialize)]
struct Arguments {
    session_id: u32,
    #[serde(default)]
    chars: String,
    #[serde(default = "default_yield_ms")]
    yield_time_ms: u64,
    max_output_tokens: Option<usize>,
}

fn default_yield_ms() -> u64 {
    250
}

impl WriteStdinTool {
    /// Makes the tool.
    #[must_use]
    pub fn new(terminal: Arc<Terminal>) -> Self {
        let spec = json_spec(
            NAME,
            "Writes characters to an existing exec_command session and returns recent output. Empty chars poll without \
             writing; \\u0003 interrupts.",
            &["session_id"],
            json!({
                "session_id": {
                    "type": "integer",
                    "description": "Identifier of the running session, as exec_command returned it.",
                },
                "chars": {
                    "type": "string",
                    "description": "Characters to write to stdin. Omit them to poll without writing.",
                },
                "yield_time_ms": {
                    "type": "integer",
                    "description": "How long to wait (in milliseconds) for the command to end before returning. \
                                    Defaults to 250, 250 to 30000; without chars 5000 to 300000.",
                },
                "max_output_tokens": {
                    "type": "integer",
                    "description": "Tokens of output to return. The middle of a longer output is left out and all of \
                                    it saved to a file.",
                },
            }),
        );
        Self { spec, terminal }
    }
}

/// Passes characters on; returns false if standard input is closed.
async fn write(session: &Session, chars: String) -> Result<bool, SandboxError> {
    let control = session.control();
    match chars.as_str() {
        "" => {}
        // The command's own group is gone by then, and what is left is below it in the tree.
        INTERRUPT if session.exit().is_some() => control.kill_tree().await?,
        INTERRUPT if !session.has_terminal() => control.signal(Signal::INT).await?,
        _ if !session.has_terminal() => return Ok(false),
        _ => match control.write_stdin(Bytes::from(chars)).await {
            Err(SandboxError::StdinClosed) if session.exit().is_none() => return Ok(false),
            // It ended meanwhile: its last output says more than this.
            Err(SandboxError::StdinClosed) => {}
            written => written?,
        },
    }
    Ok(true)
}

/// Says what became of a session that is not here.
fn absence(id: u32, absent: &Found) -> String {
    match absent {
        Found::LostWithSandbox => format!(
            "{NAME} failed: session {id} ended with its sandbox, which was lost and replaced; no command of before runs any \
             more: start the command again if it is still needed"
        ),
        _ => format!(
            "{NAME} failed: PTY session not found: {id}; it has ended, or there never was one: start the command again if it \
             is still needed"
        ),
    }
}

#[async_trait]
impl Tool for WriteStdinTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effects(&self, input: &ToolInput) -> Effects {
        let is_poll = input.decode::<Arguments>().is_ok_and(|arguments| arguments.chars.is_empty());
        // Looking again shows what has come meanwhile; what was typed must not be typed twice.
        let class = if is_poll { EffectClass::Idempotent } else { EffectClass::Probe };
        Effects { class, ..self.terminal.effects() }
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let Arguments { session_id, chars, yield_time_ms, max_output_tokens } = input.decode()?;
        let session = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(ToolError::Cancelled),
            found = self.terminal.session(NAME, session_id) => match found? {
                Found::Here(session) => session,
                absent => return Ok(ToolOutput::error(absence(session_id, &absent))),
            },
        };
        let yield_ms = if chars.is_empty() {
            yield_time_ms.clamp(MIN_POLL_MS, MAX_POLL_MS)
        } else {
            yield_time_ms.clamp(MIN_YIELD_MS, MAX_YIELD_MS)
        };
        let started = Instant::now();
        let attached = session.attach(context);
        let is_written = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(ToolError::Cancelled),
            // A command that does not read lets the write wait; the model is then shown what there is.
            () = tokio::time::sleep(Duration::from_millis(yield_ms)) => true,
            written = write(&session, chars) => written.map_err(|error| {
                if error.is_loss() {
                    self.terminal.lose(session_id);
                }
                tool_error(NAME, error)
            })?,
        };
        if !is_written {
            return Ok(ToolOutput::error(STDIN_CLOSED));
        }
        let watch = Watch {
            tool: NAME,
            session: &session,
            known_id: Some(session_id),
            started,
            yield_time: Duration::from_millis(yield_ms),
            max_output_tokens,
        };
        let response = self.terminal.observe(watch, context).await?;
        drop(attached);
        Ok(response.into_output())
    }

    async fn probe(
        &self,
        context: &ToolContext,
        input: &ToolInput,
        _: &Value,
    ) -> Result<ProbeOutcome, ToolError> {
        let Arguments { session_id, max_output_tokens, .. } = input.decode()?;
        let started = Instant::now();
        let Found::Here(session) = self.terminal.session(NAME, session_id).await? else {
            // There is nothing that could be typed into twice, and the call itself says so.
            return Ok(ProbeOutcome::NotStarted);
        };
        let yield_time = Duration::from_millis(MIN_YIELD_MS);
        match session.wait(started + yield_time, context).await {
            Waited::Cancelled => Err(ToolError::Cancelled),
            Waited::Failed(error) => Err(self.terminal.failed(NAME, Some(session_id), error)),
            Waited::Running => {
                let why =
                    "characters may or may not have reached the session; look at what it shows";
                Ok(ProbeOutcome::Unknown { why: why.into() })
            }
            // Nothing can be typed any more, and what it wrote last is the result either way.
            Waited::Ended(_) | Waited::Background(_) => {
                let watch = Watch {
                    tool: NAME,
                    session: &session,
                    known_id: Some(session_id),
                    started,
                    yield_time,
                    max_output_tokens,
                };
                let response = self.terminal.observe(watch, context).await?;
                Ok(ProbeOutcome::Finished(response.into_output()))
            }
        }
    }

    async fn settled(&self, context: &ToolContext) {
        self.terminal.settled(context).await;
    }

    fn recall(&self, recalled: &Recalled<'_>) {
        self.terminal.recall(recalled);
    }
}

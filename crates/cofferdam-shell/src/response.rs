//! What a model reads of a command: the peers' lines, and the same facts for programs.

use std::time::Duration;

use cofferdam_core::ToolOutput;
use cofferdam_sandbox::{ExitStatus, exec::ExceededLimit};
use serde_json::{Value, json};

use crate::{earlier::SessionFacts, truncate::approximate_tokens};

/// The outcome of one call on a command.
#[derive(Debug)]
pub(crate) struct CommandResponse {
    pub(crate) chunk_id: String,
    pub(crate) wall_time: Duration,
    /// How the command ended; `None` if it still runs.
    pub(crate) exit: Option<ExitStatus>,
    /// The session that holds what still runs.
    pub(crate) session_id: Option<u32>,
    /// How another process finds the session, where one can.
    pub(crate) session: Option<SessionFacts>,
    pub(crate) original_bytes: u64,
    /// The output, within its budget.
    pub(crate) output: String,
    /// Where the whole output is, or why it is not, if it was cut.
    pub(crate) whole_output: Option<Result<String, String>>,
}

impl CommandResponse {
    pub(crate) fn into_output(self) -> ToolOutput {
        let text = self.text();
        ToolOutput { structured: self.structured(), ..ToolOutput::text(text) }
    }

    fn text(&self) -> String {
        let mut lines = vec![
            format!("Chunk ID: {}", self.chunk_id),
            format!("Wall time: {:.4} seconds", self.wall_time.as_secs_f64()),
        ];
        if let Some(exit) = self.exit {
            lines.push(format!("Process exited with code {}", exit.shell_code()));
            lines.extend(cause(exit));
        }
        match (self.session_id, self.exit) {
            (Some(id), None) => lines.push(format!("Process running with session ID {id}")),
            (Some(id), Some(_)) => lines.push(format!(
                "Background processes still running with session ID {id}; write_stdin with chars \"\\u0003\" ends them"
            )),
            (None, _) => {}
        }
        lines.push(format!("Original token count: {}", approximate_tokens(self.original_bytes)));
        match &self.whole_output {
            Some(Ok(path)) => lines.push(format!("Full output saved to: {path}")),
            Some(Err(reason)) => lines.push(format!("Full output could not be saved: {reason}")),
            None => {}
        }
        format!("{}\nOutput:\n{}", lines.join("\n"), self.output)
    }

    fn structured(&self) -> Value {
        let path = self.whole_output.as_ref().and_then(|whole| whole.as_ref().ok());
        let mut facts = json!({
            "chunk_id": self.chunk_id,
            "wall_time_seconds": self.wall_time.as_secs_f64(),
            "exit_code": self.exit.map(ExitStatus::shell_code),
            "session_id": self.session_id,
            "original_token_count": approximate_tokens(self.original_bytes),
            "output_file": path,
        });
        if let Some(session) = &self.session {
            facts["session"] = json!(session);
        }
        facts
    }
}

/// Says in words what a code alone does not tell.
fn cause(exit: ExitStatus) -> Option<String> {
    match exit {
        ExitStatus::Limit(ExceededLimit::Memory) => {
            Some("The sandbox's memory limit was exceeded, so the process was killed".into())
        }
        ExitStatus::Limit(ExceededLimit::Output) => Some(
            "The sandbox's limit of output for one command was exceeded, so the process was killed"
                .into(),
        ),
        ExitStatus::Limit(_) => {
            Some("A limit of the sandbox was exceeded, so the process was killed".into())
        }
        ExitStatus::Signal(signal) => Some(format!("It was ended by signal {signal}")),
        _ => None,
    }
}

//! Asking the person at the terminal about a tool call.

use std::io::Write as _;

use async_trait::async_trait;
use cofferdam::{
    layers::{Approval, Approver},
    tool::ToolRequest,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Asks on standard error and reads the answer from standard input; anything but `y` or `yes` refuses.
#[derive(Debug)]
pub(super) struct TerminalApprover;

/// Leaves the answer to somebody who comes later: `cofferdam resume RUN --approve`.
#[derive(Debug)]
pub(super) struct LaterApprover;

#[async_trait]
impl Approver for LaterApprover {
    async fn approve(&self, _: &ToolRequest, _: &[String]) -> Approval {
        Approval::Later
    }
}

/// Characters of the input shown in a question.
const SHOWN: usize = 2000;

#[async_trait]
impl Approver for TerminalApprover {
    async fn approve(&self, request: &ToolRequest, reasons: &[String]) -> Approval {
        let input: String = request
            .call
            .input
            .chars()
            .take(SHOWN)
            .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
            .collect();
        let _ = write!(
            std::io::stderr().lock(),
            "\n{} wants to run ({}):\n{input}\nallow? [y/N] ",
            request.call.name,
            reasons.join("; ")
        );
        let mut answer = String::new();
        let read = BufReader::new(tokio::io::stdin()).read_line(&mut answer).await;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" if read.is_ok() => Approval::Approved,
            _ => Approval::Refused { reason: "the person at the terminal refused it".into() },
        }
    }
}

//! [`Sessions`] over the guest.

use async_trait::async_trait;
use cofferdam_guest::{Attach, Failure, HostMessage};

use super::{
    GuestClient,
    operation::{failure_text, unsupported},
    process::from_guest,
};
use crate::{CommandInfo, CommandState, OutputPosition, Process, SandboxError, Sessions};

/// What a guest answers about a command that it does not know.
const NO_SUCH_PROCESS: i32 = 3;

#[async_trait]
impl Sessions for GuestClient {
    async fn list(&self) -> Result<Vec<CommandInfo>, SandboxError> {
        let operation = self.connection.open(&HostMessage::ListCommands).await?;
        let commands = operation.commands().await?;
        let commands =
            commands.map_err(|failure| refused("listing commands", String::new(), &failure))?;
        Ok(commands.into_iter().map(describe).collect())
    }

    async fn attach(&self, id: &str, from: OutputPosition) -> Result<Process, SandboxError> {
        let request = Attach {
            exec_id: id.as_bytes().to_vec(),
            stdout_from: from.stdout,
            stderr_from: from.stderr,
        };
        let operation = self.connection.open(&HostMessage::Attach(request)).await?;
        // Whether standard input is open is known to the guest, which drops what nobody takes.
        self.follow(operation, true)
            .await?
            .map_err(|failure| refused("attaching to commands", id.to_owned(), &failure))
    }

    async fn forget(&self, id: &str) -> Result<(), SandboxError> {
        let request = HostMessage::Forget { exec_id: id.as_bytes().to_vec() };
        let operation = self.connection.open(&request).await?;
        operation
            .done()
            .await?
            .map(drop)
            .map_err(|failure| refused("forgetting commands", id.to_owned(), &failure))
    }
}

fn refused(operation: &'static str, id: String, failure: &Failure) -> SandboxError {
    if let Some(error) = unsupported(operation, failure) {
        return error;
    }
    match failure.errno {
        NO_SUCH_PROCESS => SandboxError::UnknownCommand { id },
        _ => SandboxError::InvalidRequest { reason: failure_text(failure) },
    }
}

fn describe(command: cofferdam_guest::CommandInfo) -> CommandInfo {
    let state = match command.state {
        cofferdam_guest::CommandState::Running => CommandState::Running,
        cofferdam_guest::CommandState::Finished => CommandState::Finished,
        cofferdam_guest::CommandState::Exited | cofferdam_guest::CommandState::Unknown(_) => {
            CommandState::Exited
        }
    };
    CommandInfo {
        id: String::from_utf8_lossy(&command.exec_id).into_owned(),
        pid: command.pid,
        state,
        status: command.status.map(from_guest),
        written: OutputPosition { stdout: command.stdout_bytes, stderr: command.stderr_bytes },
    }
}

//! Commands over the guest: the stream of events, and the control of what runs.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_guest::{Exec, Failure, FailureReason, HostMessage, MAX_EXEC_ID};
use futures::stream;
use tokio::sync::Mutex;

use super::{
    GuestClient,
    operation::{CommandEvent, Handle, Operation, failure_text},
};
use crate::{
    ExecEvent, ExecRequest, ExitStatus, Process, ProcessControl, SandboxError, Signal,
    TerminalSize, exec::ExceededLimit, spec_check::check_variables,
};

impl GuestClient {
    /// Starts a command and waits until it runs.
    pub(super) async fn start(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        let Some(program) = request.argv.first() else {
            return Err(SandboxError::InvalidRequest {
                reason: "a command needs at least the name of a program".to_owned(),
            });
        };
        let program = String::from_utf8_lossy(program).into_owned();
        let exec_id = match request.id {
            Some(id) if id.is_empty() || id.len() > MAX_EXEC_ID => {
                return Err(SandboxError::InvalidRequest {
                    reason: format!(
                        "a command's name has 1 to {MAX_EXEC_ID} bytes, not {}",
                        id.len()
                    ),
                });
            }
            Some(id) => id,
            // A later connection counts from 1 again, and commands of the earlier ones keep their names.
            None => match self.guest.session {
                Some(session) => {
                    format!("command-{}-{}", session.connection, self.connection.next_command())
                }
                None => format!("command-{}", self.connection.next_command()),
            },
        };
        let mut environment: BTreeMap<_, _> = self.options.environment.clone();
        environment.extend(request.environment);
        check_variables(&environment)?;
        let exec = Exec {
            exec_id: exec_id.into_bytes(),
            argv: request.argv,
            environment: environment
                .into_iter()
                .map(|(name, value)| (name.into_bytes(), value.into_bytes()))
                .collect(),
            directory: request.directory.as_str().as_bytes().to_vec(),
            terminal: request.terminal.map(to_guest),
            stdin: request.stdin,
            resource_limits: Vec::new(),
        };
        let stdin = request.stdin || request.terminal.is_some();
        let operation = self.connection.open(&HostMessage::Exec(exec)).await?;
        self.follow(operation, stdin).await?.map_err(|failure| SandboxError::NotStarted {
            program,
            reason: failure_text(&failure),
            errno: failure.errno,
        })
    }

    /// Waits until a command is told to run, and makes a process of it.
    pub(super) async fn follow(
        &self,
        operation: Operation,
        stdin: bool,
    ) -> Result<Result<Process, Failure>, SandboxError> {
        let pid = match operation.started().await? {
            Ok(pid) => pid,
            Err(failure) => return Ok(Err(failure)),
        };
        let control = Arc::new(Control {
            handle: operation.handle().clone(),
            stdin: Mutex::new(stdin),
            may_detach: self.guest.session.is_some(),
        });
        let events = Events {
            operation,
            pid: Some(pid),
            output_left: self.options.max_output_bytes,
            over: false,
            ended: false,
        };
        Ok(Ok(Process::new(Box::pin(stream::unfold(events, Events::next)), control)))
    }
}

/// The events of one command. Dropping it kills the command: see [`Operation`].
struct Events {
    operation: Operation,
    /// To be told first.
    pid: Option<u32>,
    output_left: u64,
    /// The command wrote more than it may, and is being killed.
    over: bool,
    ended: bool,
}

impl Events {
    async fn next(mut self) -> Option<(Result<ExecEvent, SandboxError>, Self)> {
        if self.ended {
            return None;
        }
        if let Some(pid) = self.pid.take() {
            return Some((Ok(ExecEvent::Started { pid }), self));
        }
        loop {
            let event = match self.operation.command_event().await {
                Ok(Ok(None)) => return None,
                Ok(Ok(Some(event))) => event,
                Ok(Err(failure)) => {
                    self.ended = true;
                    let error = if failure.reason == FailureReason::Cancelled {
                        let reason = "the command was detached, or is heard by another process";
                        SandboxError::InvalidRequest { reason: reason.to_owned() }
                    } else {
                        let detail = format!("a running command failed: {}", failure.message);
                        SandboxError::Protocol { detail }
                    };
                    return Some((Err(error), self));
                }
                Err(error) => {
                    self.ended = true;
                    return Some((Err(error), self));
                }
            };
            let event = match event {
                CommandEvent::Stdout(bytes) => self.bound(bytes).await.map(ExecEvent::Stdout),
                CommandEvent::Stderr(bytes) => self.bound(bytes).await.map(ExecEvent::Stderr),
                CommandEvent::OutputLost([stdout, stderr]) => {
                    Some(ExecEvent::OutputLost { stdout, stderr })
                }
                CommandEvent::Exited(_) if self.over => {
                    Some(ExecEvent::Exited(ExitStatus::Limit(ExceededLimit::Output)))
                }
                CommandEvent::Exited(status) => Some(ExecEvent::Exited(from_guest(status))),
            };
            if let Some(event) = event {
                return Some((Ok(event), self));
            }
        }
    }

    /// Cuts output at the limit; the command is killed when it goes beyond.
    async fn bound(&mut self, mut bytes: Bytes) -> Option<Bytes> {
        let length = bytes.len() as u64;
        if length <= self.output_left {
            self.output_left -= length;
        } else {
            bytes.truncate(usize::try_from(self.output_left).unwrap_or(usize::MAX));
            self.output_left = 0;
            if !self.over {
                self.over = true;
                // If the connection is lost, the next event says so.
                let _ = self.operation.handle().send(&HostMessage::KillTree).await;
            }
        }
        (!bytes.is_empty()).then_some(bytes)
    }
}

#[derive(Debug)]
struct Control {
    handle: Handle,
    /// Whether standard input is open; locked while it is written, so that pieces stay in order.
    stdin: Mutex<bool>,
    may_detach: bool,
}

#[async_trait]
impl ProcessControl for Control {
    async fn write_stdin(&self, bytes: Bytes) -> Result<(), SandboxError> {
        let open = self.stdin.lock().await;
        if !*open {
            return Err(SandboxError::StdinClosed);
        }
        self.handle.send_data(&bytes).await
    }

    async fn close_stdin(&self) -> Result<(), SandboxError> {
        let mut open = self.stdin.lock().await;
        if !*open {
            return Ok(());
        }
        self.handle.send(&HostMessage::EndOfData).await?;
        *open = false;
        Ok(())
    }

    async fn signal(&self, signal: Signal) -> Result<(), SandboxError> {
        self.handle.send(&HostMessage::Signal(signal.0)).await
    }

    async fn kill_tree(&self) -> Result<(), SandboxError> {
        self.handle.send(&HostMessage::KillTree).await
    }

    async fn resize(&self, size: TerminalSize) -> Result<(), SandboxError> {
        self.handle.send(&HostMessage::Resize(to_guest(size))).await
    }

    async fn detach(&self) -> Result<(), SandboxError> {
        if !self.may_detach {
            return Err(SandboxError::Unsupported {
                backend: "guest's",
                operation: "detaching commands without a session",
            });
        }
        self.handle.send(&HostMessage::Detach).await
    }
}

fn to_guest(size: TerminalSize) -> cofferdam_guest::TerminalSize {
    cofferdam_guest::TerminalSize { rows: size.rows, columns: size.columns }
}

/// Reads how a command ended. A way that this version does not know is told as a signal: it was no exit.
pub(super) fn from_guest(status: cofferdam_guest::ExitStatus) -> ExitStatus {
    match status {
        cofferdam_guest::ExitStatus::Code(code) => ExitStatus::Code(code),
        cofferdam_guest::ExitStatus::Signal(signal)
        | cofferdam_guest::ExitStatus::Unknown(_, signal) => ExitStatus::Signal(signal),
    }
}

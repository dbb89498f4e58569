//! Defects of commands.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    ExecEvent, ExecRequest, ExitStatus, Process, ProcessControl, Sandbox, SandboxError, Signal,
    TerminalSize,
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use super::Defect;
use crate::file_tree::errno::ENOENT;

type Events = BoxStream<'static, Result<ExecEvent, SandboxError>>;

/// Starts a command with the defect.
pub(super) async fn start(
    defect: Defect,
    inner: &dyn Sandbox,
    mut request: ExecRequest,
) -> Result<Process, SandboxError> {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned().into_bytes();
    match defect {
        Defect::ArgumentsAreText => request.argv = request.argv.iter().map(text).collect(),
        Defect::DirectoryIsIgnored => request.directory = WorkspacePath::root(),
        Defect::EnvironmentOfRequestIsLost => request.environment.clear(),
        Defect::ImpossibleVariablesAreDropped => {
            request.environment.retain(|name, _| !name.is_empty() && !name.contains('='));
        }
        Defect::StdinIsAlwaysOpen => request.stdin = true,
        _ => {}
    }
    let process = match inner.exec(request).await {
        Err(SandboxError::NotStarted { .. }) if defect == Defect::NotStartedIsExit127 => {
            let exited = Ok(ExecEvent::Exited(ExitStatus::Code(127)));
            let events = stream::iter([Ok(ExecEvent::Started { pid: 2 }), exited]);
            return Ok(Process::new(events.boxed(), Arc::new(Ended)));
        }
        Err(SandboxError::NotStarted { program, reason, .. })
            if defect == Defect::NotStartedIsAlwaysMissing =>
        {
            return Err(SandboxError::NotStarted { program, reason, errno: ENOENT });
        }
        started => started?,
    };
    let control = Arc::new(FaultyControl { defect, inner: process.control() });
    Ok(Process::new(events(defect, process), control))
}

/// Puts the defect into what a command says.
fn events(defect: Defect, process: Process) -> Events {
    let mut told = 0;
    match defect {
        Defect::DroppedCommandRunsOn => return RunsOn(Some(process)).events(),
        Defect::ExitedTwice => {
            let twice = |event| match event {
                Ok(ExecEvent::Exited(status)) => {
                    vec![Ok(ExecEvent::Exited(status)), Ok(ExecEvent::Exited(status))]
                }
                event => vec![event],
            };
            return process.map(twice).map(stream::iter).flatten().boxed();
        }
        _ => {}
    }
    let changed = process.filter_map(move |event| {
        told += 1;
        let event = match (defect, event) {
            (Defect::ExitCodeIsZero, Ok(ExecEvent::Exited(ExitStatus::Code(_)))) => {
                Some(Ok(ExecEvent::Exited(ExitStatus::Code(0))))
            }
            (Defect::OutputIsText, Ok(ExecEvent::Stdout(bytes))) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                Some(Ok(ExecEvent::Stdout(text.into())))
            }
            (Defect::OutputLosesAPiece, Ok(ExecEvent::Stdout(_))) if told == 5 => None,
            (Defect::SignalIsExitCode, Ok(ExecEvent::Exited(ExitStatus::Signal(signal)))) => {
                Some(Ok(ExecEvent::Exited(ExitStatus::Code(128 + signal))))
            }
            (Defect::StartedIsMissing, Ok(ExecEvent::Started { .. })) => None,
            (Defect::StderrIsStdout, Ok(ExecEvent::Stderr(bytes))) => {
                Some(Ok(ExecEvent::Stdout(bytes)))
            }
            (_, event) => Some(event),
        };
        async move { event }
    });
    changed.boxed()
}

/// A command that goes on when nobody listens to it any more.
struct RunsOn(Option<Process>);

impl RunsOn {
    fn events(self) -> Events {
        stream::unfold(self, |mut running| async move {
            let event = running.0.as_mut()?.next().await?;
            Some((event, running))
        })
        .boxed()
    }
}

impl Drop for RunsOn {
    fn drop(&mut self) {
        if let (Some(process), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(process.for_each(|_| async {}));
        }
    }
}

#[derive(Debug)]
struct FaultyControl {
    defect: Defect,
    inner: Arc<dyn ProcessControl>,
}

#[async_trait]
impl ProcessControl for FaultyControl {
    async fn write_stdin(&self, mut bytes: Bytes) -> Result<(), SandboxError> {
        if self.defect == Defect::StdinIsCut {
            bytes.truncate(64 << 10);
        }
        self.inner.write_stdin(bytes).await
    }

    async fn close_stdin(&self) -> Result<(), SandboxError> {
        if self.defect == Defect::CloseStdinIsIgnored {
            return Ok(());
        }
        self.inner.close_stdin().await
    }

    async fn signal(&self, signal: Signal) -> Result<(), SandboxError> {
        match self.defect {
            Defect::SignalsAreIgnored if signal != Signal::KILL => Ok(()),
            Defect::ImpossibleSignalKills if !(1..=64).contains(&signal.0) => {
                self.inner.signal(Signal::KILL).await
            }
            _ => self.inner.signal(signal).await,
        }
    }

    async fn kill_tree(&self) -> Result<(), SandboxError> {
        if self.defect == Defect::TreeIsNotKilled {
            return self.inner.signal(Signal::KILL).await;
        }
        self.inner.kill_tree().await
    }

    async fn resize(&self, size: TerminalSize) -> Result<(), SandboxError> {
        self.inner.resize(size).await
    }
}

/// The control of a command that never was.
#[derive(Debug)]
struct Ended;

#[async_trait]
impl ProcessControl for Ended {
    async fn write_stdin(&self, _bytes: Bytes) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn close_stdin(&self) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn signal(&self, _signal: Signal) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn kill_tree(&self) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn resize(&self, _size: TerminalSize) -> Result<(), SandboxError> {
        Ok(())
    }
}

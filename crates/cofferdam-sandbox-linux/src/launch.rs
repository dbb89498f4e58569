//! Asks the launcher for sandboxes and follows each: reports become results, and the end is always awaited.

use std::{
    fs::File,
    io::{self, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    sync::Arc,
    time::Duration,
};

use cofferdam_sandbox::{LossReason, SandboxError};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::{net::UnixStream, sync::watch};

use crate::{
    cgroups::Group,
    encode::encode,
    launcher::{Launcher, Launchers},
    plan::Plan,
    report::{self, EndCause, Step},
    report_stream::{Report, ReportStream},
    setup::{self, HostSettings},
    workspace::LinuxWorkspace,
};

/// How long a killed sandbox may take to leave its cgroups.
pub(crate) const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a sandbox is.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// The launcher builds.
    Building,
    /// A step failed; nothing is left.
    Failed(Arc<SetupFailure>),
    /// The guest was started.
    Ready {
        /// The Landlock version, 0 for none.
        landlock_abi: i32,
    },
    /// It has ended, and the launcher with it.
    Ended(LossReason),
}

impl Stage {
    /// Returns what this stage means for a caller that wants a sandbox.
    fn error(&self) -> SandboxError {
        match self {
            Self::Failed(failure) => failure.explain(),
            Self::Ended(reason) => SandboxError::Lost { reason: reason.clone() },
            Self::Building | Self::Ready { .. } => launcher_died(),
        }
    }
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct SetupFailure {
    code: u8,
    errno: i32,
    object: String,
}

impl SetupFailure {
    /// Returns the error to report.
    pub(crate) fn explain(&self) -> SandboxError {
        match Step::from_code(self.code) {
            Some(step) => setup::explain(step, self.errno, &self.object, HostSettings::read()),
            None => launcher_died(),
        }
    }
}

/// A sandbox that was asked for. Dropping it ends the sandbox in the background.
#[derive(Debug)]
pub(crate) struct Launched {
    control: Arc<StdStream>,
    stage: watch::Receiver<Stage>,
    workspace: LinuxWorkspace,
    /// The launcher lives as long as somebody may want something of it.
    _launcher: Arc<Launcher>,
}

impl Launched {
    /// Hands a plan to the launcher, which is started if there is none, and returns the sandbox with the stream of the
    /// guest. Blocks for less than a millisecond; must be called in a runtime.
    pub(crate) fn start(
        launchers: &Launchers,
        plan: &Plan,
        group: Group,
    ) -> io::Result<(Self, StdStream)> {
        let (host_stream, guest_stream) = StdStream::pair()?;
        let (control, launcher_control) = StdStream::pair()?;
        let report = control.try_clone()?;
        report.set_nonblocking(true)?;
        let report = ReportStream::new(UnixStream::from_std(report)?);
        let workspace = LinuxWorkspace::default();
        host_stream.set_nonblocking(true)?;
        let mut file = File::from(memfd_create(c"cofferdam-plan", MemfdFlags::CLOEXEC)?);
        file.write_all(&encode(plan))?;
        let launcher = launchers.request([
            OwnedFd::from(guest_stream).as_fd(),
            OwnedFd::from(launcher_control).as_fd(),
            file.as_fd(),
        ])?;
        let (publish, stage) = watch::channel(Stage::Building);
        tokio::spawn(follow(report, group, workspace.clone(), publish));
        let control = Arc::new(control);
        Ok((Self { control, stage, workspace, _launcher: launcher }, host_stream))
    }

    /// Returns a handle that waits for the launcher without keeping the sandbox alive.
    pub(crate) fn watch(&self) -> Watch {
        Watch(self.stage.clone())
    }

    /// Returns the workspace as the host sees it, from [`Stage::Ready`] on.
    pub(crate) fn workspace(&self) -> &LinuxWorkspace {
        &self.workspace
    }

    /// Asks the launcher to end the sandbox. Idempotent.
    pub(crate) fn stop(&self) {
        // Fails only if it is closed already.
        let _ = self.control.shutdown(Shutdown::Write);
    }

    /// Returns what does [`Launched::stop`] without keeping the sandbox alive.
    pub(crate) fn stopper(&self) -> impl FnOnce() + Send + 'static + use<> {
        let control = Arc::downgrade(&self.control);
        move || {
            if let Some(control) = control.upgrade() {
                let _ = control.shutdown(Shutdown::Write);
            }
        }
    }
}

/// Waits for what a launcher has to say.
#[derive(Debug, Clone)]
pub(crate) struct Watch(watch::Receiver<Stage>);

impl Watch {
    /// Waits until the guest was started, and returns the Landlock version.
    pub(crate) async fn ready(mut self) -> Result<i32, SandboxError> {
        match self.0.wait_for(|stage| !matches!(stage, Stage::Building)).await.as_deref() {
            Ok(Stage::Ready { landlock_abi }) => Ok(*landlock_abi),
            Ok(stage) => Err(stage.error()),
            Err(_) => Err(launcher_died()),
        }
    }

    /// Returns the step that has failed and its error number, if one has.
    pub(crate) fn failed_step(&self) -> Option<(Step, i32)> {
        match &*self.0.borrow() {
            Stage::Failed(failure) => Some((Step::from_code(failure.code)?, failure.errno)),
            _ => None,
        }
    }

    /// Waits until a step has failed or the sandbox has ended.
    pub(crate) async fn failed_or_ended(mut self) -> SandboxError {
        let over = |stage: &Stage| matches!(stage, Stage::Failed(_) | Stage::Ended(_));
        self.0.wait_for(over).await.map_or_else(|_| launcher_died(), |stage| stage.error())
    }

    /// Waits until the launcher has ended, and returns why.
    pub(crate) async fn ended(mut self) -> Result<LossReason, SandboxError> {
        match self.0.wait_for(|stage| matches!(stage, Stage::Ended(_))).await.as_deref() {
            Ok(Stage::Ended(reason)) => Ok(reason.clone()),
            _ => Err(launcher_died()),
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.stop();
    }
}

fn launcher_died() -> SandboxError {
    SandboxError::Host {
        operation: "keep the sandbox's launcher alive",
        source: "it ended, or took no request".into(),
    }
}

/// Reads reports until the launcher has closed its end, which it does when nothing of the sandbox is left, or dies.
async fn follow(
    mut reports: ReportStream,
    group: Group,
    workspace: LinuxWorkspace,
    publish: watch::Sender<Stage>,
) {
    let mut failure = None;
    let mut told = false;
    while let Some(mut message) = reports.next().await {
        match message.kind {
            report::WORKSPACE => {
                if let Some(directory) = message.descriptor.take() {
                    workspace.take(message.code, directory);
                }
            }
            report::READY => {
                publish.send_replace(Stage::Ready { landlock_abi: message.number });
            }
            // The first failure is the cause; what follows from it is not told.
            report::FAILED if failure.is_none() => failure = Some(message),
            // The launcher says this last: the processes and the cgroups are gone.
            report::ENDED if failure.is_none() => {
                publish.send_replace(Stage::Ended(loss_reason(&message)));
                told = true;
            }
            _ => {}
        }
    }
    // The launcher has removed them, unless it was killed; then what it has started is being killed by the kernel.
    if let Err(error) = group.remove_when_empty(REMOVE_TIMEOUT).await {
        tracing::warn!(%group, %error, "could not remove the cgroups of a sandbox");
    }
    if told {
        return;
    }
    publish.send_replace(match failure {
        Some(message) => Stage::Failed(Arc::new(SetupFailure {
            code: message.code,
            errno: message.number,
            object: message.detail,
        })),
        None => {
            Stage::Ended(LossReason::GuestEnded { detail: "its launcher was killed".to_owned() })
        }
    });
}

fn loss_reason(message: &Report) -> LossReason {
    let said = match message.detail.trim() {
        "" => String::new(),
        said => format!(": {said}"),
    };
    let causes = [
        EndCause::Exited,
        EndCause::Signalled,
        EndCause::WallTime,
        EndCause::HostClosed,
        EndCause::OutOfMemory,
    ];
    match causes.into_iter().find(|&cause| cause as u8 == message.code) {
        Some(EndCause::WallTime) => LossReason::WallTime,
        Some(EndCause::HostClosed) => LossReason::Closed,
        Some(EndCause::OutOfMemory) => LossReason::OutOfMemory,
        Some(EndCause::Exited) => {
            LossReason::GuestEnded { detail: format!("exit code {}{said}", message.number) }
        }
        Some(EndCause::Signalled) | None => {
            LossReason::GuestEnded { detail: format!("signal {}{said}", message.number) }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::numbers;

    #[test]
    fn the_launchers_numbers_are_those_of_the_kernel() {
        for (ours, theirs) in [
            (numbers::CLONE, libc::SYS_clone),
            (numbers::CLONE3, libc::SYS_clone3),
            (numbers::PIDFD_OPEN, libc::SYS_pidfd_open),
            (numbers::CAPSET, libc::SYS_capset),
            (numbers::PIVOT_ROOT, libc::SYS_pivot_root),
            (numbers::EXECVEAT, libc::SYS_execveat),
            (numbers::PIDFD_SEND_SIGNAL, libc::SYS_pidfd_send_signal),
            (numbers::OPEN_TREE, libc::SYS_open_tree),
            (numbers::MOVE_MOUNT, libc::SYS_move_mount),
            (numbers::CLOSE_RANGE, libc::SYS_close_range),
            (numbers::MOUNT_SETATTR, libc::SYS_mount_setattr),
            (numbers::LANDLOCK_CREATE_RULESET, libc::SYS_landlock_create_ruleset),
            (numbers::LANDLOCK_ADD_RULE, libc::SYS_landlock_add_rule),
            (numbers::LANDLOCK_RESTRICT_SELF, libc::SYS_landlock_restrict_self),
        ] {
            assert_eq!(ours, theirs);
        }
    }
}

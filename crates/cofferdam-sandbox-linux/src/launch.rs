//! Asks the launcher for sandboxes and follows each: reports become results, and the end is always awaited.

use std::{
    fs::File,
    io::{self, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cofferdam_sandbox::{LossReason, SandboxError};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::{net::UnixStream, sync::watch};

use crate::{
    cgroups::Group,
    encode::encode,
    launcher::{Launcher, Launchers, Supervisor},
    plan::Plan,
    private_directory::PrivateDirectory,
    report::{self, EndCause, Step},
    report_stream::{Report, ReportStream},
    setup::{self, HostSettings},
    state_directory::{Entry, Made},
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

/// A sandbox that was asked for. Dropping it ends the sandbox in the background, unless it lingers and this process is
/// attached to it: then it is left.
#[derive(Debug)]
pub(crate) struct Launched {
    control: Arc<StdStream>,
    stage: watch::Receiver<Stage>,
    workspace: LinuxWorkspace,
    maker: Maker,
}

/// Who has made a sandbox.
#[derive(Debug)]
enum Maker {
    /// The launcher of this process, which lives as long as somebody may want something of it.
    Launcher { _launcher: Arc<Launcher> },
    /// A supervisor of its own.
    Supervisor(Arc<Lingering>),
}

/// What is known here of a sandbox that lingers.
#[derive(Debug)]
pub(crate) struct Lingering {
    pub(crate) entry: Entry,
    /// Whether it goes on without this process.
    attached: AtomicBool,
    /// Whether this process has turned away from it.
    left: AtomicBool,
}

/// The sockets of a new sandbox.
struct Sockets {
    stream: StdStream,
    guest_stream: OwnedFd,
    control: StdStream,
    launcher_control: OwnedFd,
    plan: File,
}

impl Sockets {
    fn make(plan: &Plan) -> io::Result<Self> {
        let (stream, guest_stream) = StdStream::pair()?;
        let (control, launcher_control) = StdStream::pair()?;
        stream.set_nonblocking(true)?;
        let mut file = File::from(memfd_create(c"cofferdam-plan", MemfdFlags::CLOEXEC)?);
        file.write_all(&encode(plan))?;
        let (guest_stream, launcher_control) = (guest_stream.into(), launcher_control.into());
        Ok(Self { stream, guest_stream, control, launcher_control, plan: file })
    }
}

impl Launched {
    /// Hands a plan to the launcher, which is started if there is none, and returns the sandbox with the stream of the
    /// guest. Blocks for less than a millisecond; must be called in a runtime.
    pub(crate) fn start(
        launchers: &Launchers,
        plan: &Plan,
        group: Group,
        private: Option<Arc<PrivateDirectory>>,
    ) -> io::Result<(Self, StdStream)> {
        let sockets = Sockets::make(plan)?;
        let launcher = launchers.request([
            sockets.guest_stream.as_fd(),
            sockets.launcher_control.as_fd(),
            sockets.plan.as_fd(),
        ])?;
        let launched =
            Self::follow(sockets.control, group, Maker::Launcher { _launcher: launcher }, private)?;
        Ok((launched, sockets.stream))
    }

    /// Hands a plan to a supervisor, which from then on lives as long as the sandbox and keeps `kept` open.
    pub(crate) fn start_lingering(
        supervisor: Supervisor,
        plan: &Plan,
        group: Group,
        made: Made,
        kept: &[OwnedFd],
    ) -> io::Result<(Self, StdStream)> {
        let sockets = Sockets::make(plan)?;
        let descriptors = [
            sockets.guest_stream.as_fd(),
            sockets.launcher_control.as_fd(),
            sockets.plan.as_fd(),
            made.door.as_fd(),
            made.supervisor.as_fd(),
        ];
        supervisor.request(descriptors, kept)?;
        let launched =
            Self::follow(sockets.control, group, Maker::supervisor(made.entry, false), None)?;
        Ok((launched, sockets.stream))
    }

    /// Attaches to a sandbox that lingers, over a connection to its supervisor.
    pub(crate) fn attach(control: StdStream, group: Group, entry: Entry) -> io::Result<Self> {
        (&control).write_all(&[report::ATTACH])?;
        Self::follow(control, group, Maker::supervisor(entry, true), None)
    }

    /// `private` is kept at least until nothing of the sandbox lives any more.
    fn follow(
        control: StdStream,
        group: Group,
        maker: Maker,
        private: Option<Arc<PrivateDirectory>>,
    ) -> io::Result<Self> {
        let report = control.try_clone()?;
        report.set_nonblocking(true)?;
        let reports = ReportStream::new(UnixStream::from_std(report)?);
        let workspace = LinuxWorkspace::default();
        let (publish, stage) = watch::channel(Stage::Building);
        let lingering = match &maker {
            Maker::Launcher { .. } => None,
            Maker::Supervisor(lingering) => Some(Arc::clone(lingering)),
        };
        let following = follow(reports, group, workspace.clone(), publish, lingering);
        tokio::spawn(async move {
            following.await;
            drop(private);
        });
        Ok(Self { control: Arc::new(control), stage, workspace, maker })
    }

    /// Returns what is known of the sandbox if it lingers.
    pub(crate) fn lingering(&self) -> Option<&Lingering> {
        match &self.maker {
            Maker::Launcher { .. } => None,
            Maker::Supervisor(lingering) => Some(lingering),
        }
    }

    /// From now on the sandbox goes on without this process, if it lingers.
    pub(crate) fn keep(&self) -> io::Result<()> {
        let Some(lingering) = self.lingering() else { return Ok(()) };
        (&*self.control).write_all(&[report::ATTACH])?;
        lingering.attached.store(true, Ordering::Relaxed);
        Ok(())
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
        stop(&self.control, self.lingering().is_some());
    }

    /// Returns what does [`Launched::stop`] without keeping the sandbox alive.
    pub(crate) fn stopper(&self) -> impl FnOnce() + Send + 'static + use<> {
        let (control, lingers) = (Arc::downgrade(&self.control), self.lingering().is_some());
        move || {
            if let Some(control) = control.upgrade() {
                stop(&control, lingers);
            }
        }
    }
}

/// Asks for the end. It fails only if there is nobody to ask any more.
fn stop(mut control: &StdStream, lingers: bool) {
    if lingers {
        let _ = control.write_all(&[report::END]);
    } else {
        let _ = control.shutdown(Shutdown::Write);
    }
}

impl Maker {
    fn supervisor(entry: Entry, attached: bool) -> Self {
        let (attached, left) = (attached.into(), false.into());
        Self::Supervisor(Arc::new(Lingering { entry, attached, left }))
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
        let how = match self.lingering() {
            Some(lingering) if lingering.attached.load(Ordering::Relaxed) => {
                lingering.left.store(true, Ordering::Relaxed);
                Shutdown::Both
            }
            _ => Shutdown::Write,
        };
        // Fails only if it is closed already.
        let _ = self.control.shutdown(how);
    }
}

fn launcher_died() -> SandboxError {
    SandboxError::Host {
        operation: "keep the sandbox's launcher alive",
        source: "it ended, or took no request".into(),
    }
}

/// Reads reports until the launcher has closed its end, which it does when nothing of the sandbox is left, or dies; or until
/// this process has turned away.
async fn follow(
    mut reports: ReportStream,
    group: Group,
    workspace: LinuxWorkspace,
    publish: watch::Sender<Stage>,
    lingering: Option<Arc<Lingering>>,
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
            report::READY | report::STATUS => {
                publish.send_replace(Stage::Ready { landlock_abi: message.number });
            }
            // The first failure is the cause; what follows from it is not told.
            report::FAILED if failure.is_none() => failure = Some(message),
            // The launcher says this last: the processes and the cgroups are gone.
            report::ENDED if failure.is_none() => {
                publish.send_replace(Stage::Ended(match loss_reason(&message) {
                    // Whoever asked for it knows that.
                    LossReason::Closed if lingering.is_some() => {
                        LossReason::Removed { detail: "another process ended it".to_owned() }
                    }
                    reason => reason,
                }));
                told = true;
            }
            _ => {}
        }
    }
    if lingering.as_ref().is_some_and(|lingering| lingering.left.load(Ordering::Relaxed)) {
        return;
    }
    // The launcher has removed them, unless it was killed; then what it has started is being killed by the kernel.
    if let Err(error) = group.remove_when_empty(REMOVE_TIMEOUT).await {
        tracing::warn!(%group, %error, "could not remove the cgroups of a sandbox");
    }
    if let Some(lingering) = &lingering
        && let Err(error) = lingering.entry.remove()
    {
        tracing::warn!(%error, "could not remove the state of a sandbox");
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

/// Returns why a sandbox has ended.
pub(crate) fn loss_reason(message: &Report) -> LossReason {
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
        EndCause::Left,
    ];
    match causes.into_iter().find(|&cause| cause as u8 == message.code) {
        Some(EndCause::WallTime) => LossReason::WallTime,
        Some(EndCause::HostClosed) => LossReason::Closed,
        Some(EndCause::OutOfMemory) => LossReason::OutOfMemory,
        Some(EndCause::Left) => LossReason::Removed {
            detail: "nobody was connected to it for its linger time".to_owned(),
        },
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

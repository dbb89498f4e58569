//! [`LinuxSandbox`]: the guest's stream and the launcher's handle as one live sandbox.

use std::{
    collections::BTreeMap, os::unix::net::UnixStream as StdStream, sync::Arc, time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::SandboxId;
use cofferdam_sandbox::{
    ExecEvent, ExecRequest, ExitStatus, Files, Freezer, GuestClient, GuestOptions, HostWorkspace,
    LossReason, Ports, Process, Sandbox, SandboxError, SandboxSpec, SandboxState, Sessions, Tree,
    Watcher, exec::ExceededLimit,
};
use futures::{FutureExt, StreamExt};
use tokio::net::UnixStream;

use crate::{
    cgroups::Group,
    freeze::LinuxFreezer,
    idle::{EndOfUse, is_end},
    launch::{Launched, REMOVE_TIMEOUT, Watch},
    layout::Places,
    private_directory::PrivateDirectory,
    rootfs::ImageLease,
    setup::{BACKEND, host},
};

/// A live sandbox of [`crate::LinuxBackend`].
#[derive(Debug)]
pub(crate) struct LinuxSandbox {
    state: SandboxState,
    client: GuestClient,
    launched: Launched,
    group: Arc<Group>,
    freezer: Option<LinuxFreezer>,
    _end: EndOfUse,
    /// What it has in the place of namespaces, if it has none.
    confined: Option<Confined>,
    /// The image that its root is from.
    _image: Option<ImageLease>,
}

/// How long the launcher may take to tell why the guest's stream ended. It tells at once, unless a hostile guest has
/// closed its stream and lives on.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

/// A sandbox that was started and not greeted.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) state: SandboxState,
    pub(crate) options: GuestOptions,
    pub(crate) launched: Launched,
    pub(crate) stream: StdStream,
    pub(crate) group: Group,
    pub(crate) confined: Option<Confined>,
}

/// A sandbox without namespaces.
#[derive(Debug, Clone)]
pub(crate) struct Confined {
    pub(crate) directory: Arc<PrivateDirectory>,
    /// Whether it may have terminals: only a user of its own, since there are those of the host too.
    pub(crate) terminals: bool,
}

impl LinuxSandbox {
    /// Greets the guest. If this fails or is dropped, the launcher ends the sandbox.
    pub(crate) async fn connect(started: Started) -> Result<Self, SandboxError> {
        let Started { state, options, launched, stream, group, confined } = started;
        let stream = UnixStream::from_std(stream).map_err(host("use the guest's stream"))?;
        let client = match GuestClient::connect(stream, options).await {
            Ok(client) => client,
            // A step that failed has also ended the stream; its name is the better answer.
            Err(error) if error.is_loss() => {
                launched.stop();
                return Err(better_reason(error, launched.watch()).await);
            }
            Err(error) => return Err(error),
        };
        // Said before the guest was started, but it may not have been read yet.
        launched.watch().ready().await?;
        Ok(Self { confined, ..Self::new(state, client, launched, group) })
    }

    /// Greets the guest of a sandbox that lingers. If this fails or is dropped, the sandbox is left.
    pub(crate) async fn resume(started: Started) -> Result<Self, SandboxError> {
        let Started { state, options, launched, stream, group, .. } = started;
        let stream = UnixStream::from_std(stream).map_err(host("use the guest's stream"))?;
        let client = match GuestClient::resume(stream, options).await {
            Ok(client) => client,
            Err(error) => return Err(better_reason(error, launched.watch()).await),
        };
        launched.watch().ready().await?;
        Ok(Self::new(state, client, launched, group))
    }

    fn new(state: SandboxState, client: GuestClient, launched: Launched, group: Group) -> Self {
        let (lost, watch) = (client.lost(), launched.watch());
        // The launcher may know why, if it is not told to stop first.
        let reason = async move { better_reason(lost.await, watch).await };
        let lingers = launched.lingering().is_some();
        let end = EndOfUse::watch(reason, lingers, launched.stopper());
        let group = Arc::new(group);
        let freezer = LinuxFreezer::of(&group);
        Self { state, client, launched, group, freezer, confined: None, _image: None, _end: end }
    }

    /// From now on it goes on without this process, if it lingers.
    pub(crate) fn keep(&self) -> Result<(), SandboxError> {
        self.launched.keep().map_err(host("attach to the supervisor of a sandbox"))
    }

    /// Keeps the image that its root is from as long as the sandbox.
    pub(crate) fn keeping(self, image: Option<ImageLease>) -> Self {
        Self { _image: image, ..self }
    }
}

/// What each command gets: a few variables, then those of the spec.
pub(crate) fn options(spec: &SandboxSpec, places: &Places) -> GuestOptions {
    let mut environment: BTreeMap<String, String> = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", &*places.home),
        ("LANG", "C.UTF-8"),
        ("TERM", "xterm"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let temporary = places.temporary.iter().map(|place| ("TMPDIR".to_owned(), place.clone()));
    environment.extend(temporary);
    environment.extend(spec.environment.clone());
    GuestOptions {
        workspace: places.workspace.clone(),
        environment,
        max_output_bytes: spec.limits.output_bytes,
        idle_time: spec.limits.idle_time,
        ..GuestOptions::default()
    }
}

/// Replaces "the stream broke" by what the launcher knows of it.
async fn better_reason(error: SandboxError, watch: Watch) -> SandboxError {
    if !matches!(error, SandboxError::Lost { reason: LossReason::StreamBroken { .. } }) {
        return error;
    }
    match tokio::time::timeout(REASON_TIMEOUT, watch.failed_or_ended()).await {
        // It ended because it was told to, which is not why the stream broke.
        Ok(SandboxError::Lost { reason: LossReason::Closed }) | Err(_) => error,
        Ok(better) => better,
    }
}

#[async_trait]
impl Sandbox for LinuxSandbox {
    fn id(&self) -> &SandboxId {
        &self.state.id
    }

    fn state(&self) -> SandboxState {
        self.state.clone()
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        if request.terminal.is_some() && self.confined.as_ref().is_some_and(|c| !c.terminals) {
            // Those of the host's would be within reach with its own.
            return Err(SandboxError::Unsupported {
                backend: BACKEND,
                operation: "a terminal in a sandbox without namespaces that has the user of this process",
            });
        }
        let kills_before = self.group.oom_kills();
        let process = match self.client.exec(request).await {
            Ok(process) => process,
            Err(error) => return Err(better_reason(error, self.launched.watch()).await),
        };
        let control = process.control();
        let group = Arc::clone(&self.group);
        let watch = self.launched.watch();
        let events = process.then(move |event| {
            let (group, watch) = (Arc::clone(&group), watch.clone());
            async move {
                match event {
                    Ok(ExecEvent::Exited(status)) => {
                        Ok(ExecEvent::Exited(name_limit(status, kills_before, &group)))
                    }
                    Err(error) => Err(better_reason(error, watch).await),
                    event => event,
                }
            }
        });
        Ok(Process::new(events.boxed(), control))
    }

    fn files(&self) -> &dyn Files {
        &self.client
    }

    fn tree(&self) -> &dyn Tree {
        &self.client
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.client.sessions()
    }

    fn ports(&self) -> Option<&dyn Ports> {
        // There is no network of its own to have ports in.
        self.confined.is_none().then_some(&self.client as &dyn Ports)
    }

    fn watcher(&self) -> Option<&dyn Watcher> {
        // The kernel's watches would show what happens in the host's directories.
        self.confined.is_none().then_some(&self.client as &dyn Watcher)
    }

    fn host_workspace(&self) -> Option<&dyn HostWorkspace> {
        Some(self.launched.workspace())
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        self.freezer.as_ref().map(|freezer| freezer as &dyn Freezer)
    }

    async fn lost(&self) -> SandboxError {
        tokio::select! {
            ended = self.launched.watch().failed_or_ended() => {
                // A guest ends by itself when its stream is closed, which the launcher cannot tell from another end.
                match self.client.lost().now_or_never() {
                    Some(
                        meant @ SandboxError::Lost {
                            reason: LossReason::Closed | LossReason::IdleTime,
                        },
                    ) => meant,
                    _ => ended,
                }
            }
            error = self.client.lost() => {
                // Nobody can talk to the sandbox any more, so it must not go on, unless it lingers.
                let error = better_reason(error, self.launched.watch()).await;
                if self.launched.lingering().is_none() || is_end(&error) {
                    self.launched.stop();
                }
                error
            }
        }
    }

    async fn close(&self) -> Result<(), SandboxError> {
        self.client.end(LossReason::Closed);
        self.launched.stop();
        self.launched.workspace().release();
        self.launched.watch().ended().await?;
        let removed = self.group.remove_when_empty(REMOVE_TIMEOUT).await;
        removed.map_err(|source| cleanup(self.group.to_string(), source))?;
        if let Some(confined) = &self.confined {
            let directory = Arc::clone(&confined.directory);
            let removed = tokio::task::spawn_blocking(move || directory.remove()).await;
            let removed = removed.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            removed.map_err(|source| cleanup(confined.directory.to_string(), source))?;
        }
        if let Some(lingering) = self.launched.lingering() {
            let directory = lingering.entry.directory.display().to_string();
            lingering.entry.remove().map_err(|source| cleanup(directory, source))?;
        }
        Ok(())
    }
}

/// Makes the error for what is left of a sandbox.
pub(crate) fn cleanup(what: String, source: std::io::Error) -> SandboxError {
    SandboxError::Cleanup { what, source: Box::new(source) }
}

/// Tells a kill by the kernel for memory from any other. The guest cannot see it: the counter is outside of its walls.
///
/// A shell reports a killed child as exit code 137. If two commands run and one of them is killed for memory while the
/// other is killed for another reason, both are told as the limit: the counter is of the sandbox.
fn name_limit(status: ExitStatus, kills_before: u64, group: &Group) -> ExitStatus {
    match status {
        ExitStatus::Signal(9) | ExitStatus::Code(137) if group.oom_kills() > kills_before => {
            ExitStatus::Limit(ExceededLimit::Memory)
        }
        status => status,
    }
}

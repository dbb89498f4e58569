//! [`DockerSandbox`]: the guest's stream and the container around it as one live sandbox.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bollard::query_parameters::RemoveContainerOptions;
use cofferdam_core::SandboxId;
use cofferdam_sandbox::{
    ExecEvent, ExecRequest, ExitStatus, Files, GuestClient, LossReason, Ports, Process, Sandbox,
    SandboxError, SandboxState, Sessions, Tree, Watcher, exec::ExceededLimit,
};
use futures::StreamExt as _;

use crate::{
    engine::{Engine, refusal},
    events::Following,
    held::Held,
    stream::Said,
};

/// How long the engine may take to tell why a stream has ended.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the engine may take to tell that a killed command was killed for memory. Only commands that were killed wait.
const MEMORY_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the engine may take to remove a container after it agreed to.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A container, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Container {
    engine: Engine,
    name: String,
    following: Following,
    /// Whether it is left alone when this is dropped, for another connection to find.
    lingers: AtomicBool,
}

impl Container {
    /// Takes responsibility for a container that is about to be made.
    pub(crate) fn new(engine: Engine, name: String, following: Following) -> Self {
        Self { engine, name, following, lingers: AtomicBool::new(false) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn following(&self) -> &Following {
        &self.following
    }

    /// Leaves it to another connection when this is dropped.
    pub(crate) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    /// Kills and removes it. That it is gone already is no error.
    pub(crate) async fn remove(&self) -> Result<(), SandboxError> {
        // An engine that is removing it already, because the guest has ended, answers at once, and not always well.
        let asked = remove(&self.engine, &self.name).await;
        let gone = tokio::time::timeout(REMOVE_TIMEOUT, async {
            tokio::select! {
                () = self.following.removed() => {}
                () = is_gone(&self.engine, &self.name) => {}
            }
        });
        let Err(_elapsed) = gone.await else { return Ok(()) };
        asked?;
        let source = format!("the engine has not removed it within {REMOVE_TIMEOUT:?}").into();
        Err(SandboxError::Cleanup { what: format!("the container {}", self.name), source })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.following.now().removed || self.lingers.load(Ordering::Relaxed) {
            return;
        }
        // Without a runtime, cutting the stream ends the guest, and the engine removes its container.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (engine, name) = (self.engine.clone(), self.name.clone());
            runtime.spawn(async move {
                if let Err(error) = remove(&engine, &name).await {
                    tracing::warn!(name, %error, "could not remove the container of a sandbox");
                }
            });
        }
    }
}

/// Asks the engine to kill and remove a container.
pub(crate) async fn remove(engine: &Engine, name: &str) -> Result<(), SandboxError> {
    let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
    let removed = engine.client().remove_container(name, Some(options));
    match engine.call("remove a container", removed).await {
        Ok(()) => Ok(()),
        Err(error) => match refusal(&error) {
            // Not there, or being removed.
            Some((404 | 409, _)) => Ok(()),
            _ => Err(SandboxError::Cleanup {
                what: format!("the container {name}"),
                source: Box::new(error),
            }),
        },
    }
}

/// Waits until the engine does not know a container: the slower way, for when it does not tell.
async fn is_gone(engine: &Engine, name: &str) {
    loop {
        let inspected = engine.client().inspect_container(name, None);
        if let Err(error) = engine.call("look for a container", inspected).await
            && refusal(&error).is_some_and(|(status, _)| status == 404)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A live sandbox of [`crate::DockerBackend`].
#[derive(Debug)]
pub(crate) struct DockerSandbox {
    state: SandboxState,
    inside: Arc<Inside>,
    wall_time: tokio::task::JoinHandle<()>,
    _held: Held,
}

/// What commands under way need of their sandbox.
#[derive(Debug)]
struct Inside {
    // The stream goes first: the guest that ends by itself is the faster way.
    client: GuestClient,
    said: Said,
    container: Container,
}

impl DockerSandbox {
    /// Wraps a container whose guest has answered.
    pub(crate) fn new(
        state: SandboxState,
        client: GuestClient,
        said: Said,
        container: Container,
        wall_time: Duration,
    ) -> Self {
        let inside = Arc::new(Inside { client, said, container });
        let watched = Arc::downgrade(&inside);
        let wall_time = tokio::spawn(async move {
            tokio::time::sleep(wall_time).await;
            if let Some(inside) = watched.upgrade() {
                inside.client.end(LossReason::WallTime);
                if let Err(error) = inside.container.remove().await {
                    tracing::warn!(%error, "a sandbox has outlived its wall time");
                }
            }
        });
        let held = Held::new(&state.id);
        Self { state, inside, wall_time, _held: held }
    }
}

impl DockerSandbox {
    /// Leaves the container to another connection when this is dropped; closing removes it all the same.
    pub(crate) fn linger(&self) {
        self.inside.container.linger();
    }
}

impl Drop for DockerSandbox {
    fn drop(&mut self) {
        self.wall_time.abort();
        // Commands under way hold what is inside; their sandbox is closed all the same.
        self.inside.client.end(LossReason::Closed);
    }
}

impl Inside {
    /// Replaces "the stream broke" by what the engine knows of it.
    async fn better_reason(&self, error: SandboxError) -> SandboxError {
        better_reason(error, &self.container.following, &self.said).await
    }

    /// Tells a kill by the kernel for memory from any other. The guest cannot see it: the counter is outside of its walls.
    async fn name_limit(&self, status: ExitStatus, kills_before: u64) -> ExitStatus {
        let killed = matches!(status, ExitStatus::Signal(9) | ExitStatus::Code(137));
        let following = &self.container.following;
        if killed && following.out_of_memory_since(kills_before, MEMORY_TIMEOUT).await {
            return ExitStatus::Limit(ExceededLimit::Memory);
        }
        status
    }
}

/// Replaces "the stream broke" by what the engine tells of the container.
pub(crate) async fn better_reason(
    error: SandboxError,
    following: &Following,
    said: &Said,
) -> SandboxError {
    if !matches!(error, SandboxError::Lost { reason: LossReason::StreamBroken { .. } }) {
        return error;
    }
    match tokio::time::timeout(REASON_TIMEOUT, following.ended()).await {
        Ok(LossReason::GuestEnded { detail }) if !said.text().is_empty() => {
            let detail = format!("{detail}: {}", said.text());
            SandboxError::Lost { reason: LossReason::GuestEnded { detail } }
        }
        Ok(reason) => SandboxError::Lost { reason },
        Err(_elapsed) => error,
    }
}

#[async_trait]
impl Sandbox for DockerSandbox {
    fn id(&self) -> &SandboxId {
        &self.state.id
    }

    fn state(&self) -> SandboxState {
        self.state.clone()
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        let kills_before = self.inside.container.following.now().out_of_memory;
        let process = match self.inside.client.exec(request).await {
            Ok(process) => process,
            Err(error) => return Err(self.inside.better_reason(error).await),
        };
        let control = process.control();
        // A command under way does not keep its sandbox: dropping the sandbox closes it.
        let inside = Arc::downgrade(&self.inside);
        let events = process.then(move |event| {
            let inside = inside.upgrade();
            async move {
                let Some(inside) = inside else { return event };
                match event {
                    Ok(ExecEvent::Exited(status)) => {
                        Ok(ExecEvent::Exited(inside.name_limit(status, kills_before).await))
                    }
                    Err(error) => Err(inside.better_reason(error).await),
                    event => event,
                }
            }
        });
        Ok(Process::new(events.boxed(), control))
    }

    fn files(&self) -> &dyn Files {
        &self.inside.client
    }

    fn tree(&self) -> &dyn Tree {
        &self.inside.client
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.inside.client.sessions()
    }

    fn ports(&self) -> Option<&dyn Ports> {
        Some(&self.inside.client)
    }

    fn watcher(&self) -> Option<&dyn Watcher> {
        Some(&self.inside.client)
    }

    async fn lost(&self) -> SandboxError {
        let inside = &self.inside;
        tokio::select! {
            biased;
            error = inside.client.lost() => inside.better_reason(error).await,
            reason = inside.container.following.ended() => {
                // Ended on purpose, the container says the same of its end as ended by others.
                inside.client.end(reason);
                inside.client.lost().await
            }
        }
    }

    async fn close(&self) -> Result<(), SandboxError> {
        self.wall_time.abort();
        self.inside.client.end(LossReason::Closed);
        self.inside.container.remove().await
    }
}

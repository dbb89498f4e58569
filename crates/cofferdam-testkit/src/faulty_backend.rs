//! [`FaultyBackend`]: any backend with one planted defect, to see whether a suite finds it.
//!
//! A defect is put into what goes to the backend or into what comes from it, so it is what a caller of a backend with
//! that fault would meet. `process`, `files` and `tree` hold those of each seam.

mod defect;
mod files;
mod process;
mod tree;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::{NetworkAccess, SandboxId};
use cofferdam_sandbox::{
    Capabilities, Enforcement, ExecRequest, Files, Freezer, Frozen, Guarantees, HostWorkspace,
    ListedSandbox, LossReason, Process, Sandbox, SandboxBackend, SandboxError, SandboxSpec,
    SandboxState, Tree,
};
use tokio::sync::{OnceCell, Semaphore};

pub use self::defect::Defect;

/// A backend with a defect.
#[derive(Debug)]
pub struct FaultyBackend {
    defect: Defect,
    inner: Arc<dyn SandboxBackend>,
    shared: OnceCell<Arc<dyn Sandbox>>,
}

impl FaultyBackend {
    /// Plants a defect in a backend.
    #[must_use]
    pub fn new(inner: Arc<dyn SandboxBackend>, defect: Defect) -> Self {
        Self { defect, inner, shared: OnceCell::new() }
    }

    fn wrap(&self, inner: Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
        let id = match self.defect {
            Defect::IdsRepeat => SandboxId::new("the-same"),
            _ => inner.id().clone(),
        };
        let leaking = Arc::new(Semaphore::new(16));
        Arc::new(FaultySandbox {
            defect: self.defect,
            id,
            inner,
            closed: AtomicBool::new(false),
            leaking,
        })
    }
}

#[async_trait]
impl SandboxBackend for FaultyBackend {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn guarantees(&self) -> Result<Guarantees, SandboxError> {
        let mut found = self.inner.guarantees().await?;
        match self.defect {
            Defect::GuaranteesBoast => {
                for wall in &mut found.walls {
                    let mechanism = "a claim".to_owned();
                    wall.enforcement = Enforcement::Full { mechanism };
                }
            }
            Defect::GuaranteesAreUnsorted => found.walls.reverse(),
            _ => {}
        }
        Ok(found)
    }

    async fn capabilities(&self) -> Result<Capabilities, SandboxError> {
        let mut found = self.inner.capabilities().await?;
        if self.defect == Defect::CapabilitiesBoast {
            (found.workspace_base, found.host_workspace, found.freeze) = (true, true, true);
        }
        Ok(found)
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let default = SandboxSpec::default().limits;
        let mut spec = spec.clone();
        let limits = &mut spec.limits;
        match self.defect {
            Defect::DiskLimitIsIgnored => {
                (limits.disk_bytes, limits.disk_inodes) = (default.disk_bytes, default.disk_inodes);
            }
            Defect::BaseIsIgnored => spec.base = None,
            Defect::EnvironmentLeaks => {
                spec.environment.insert("LEAKED".to_owned(), "from the host".to_owned());
            }
            Defect::NetworkIsOpen => spec.network = NetworkAccess::Host,
            Defect::OutputLimitIsIgnored => limits.output_bytes = limits.output_bytes.max(8 << 20),
            Defect::ProcessLimitIsIgnored => limits.processes = default.processes,
            Defect::StrictIsIgnored => {
                spec.strict = false;
                spec.require.clear();
            }
            Defect::WallTimeIsIgnored => limits.wall_time = default.wall_time,
            Defect::ZeroIsUnlimited if limits.memory_bytes == 0 => {
                limits.memory_bytes = default.memory_bytes;
            }
            _ => {}
        }
        let inner = if self.defect == Defect::OneWorkspaceForAll {
            Arc::clone(self.shared.get_or_try_init(|| self.inner.create(&spec)).await?)
        } else {
            self.inner.create(&spec).await?
        };
        Ok(self.wrap(inner))
    }

    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError> {
        match self.inner.attach(state).await {
            Err(_) if self.defect == Defect::AttachMakesANewOne => {
                Ok(self.wrap(self.inner.create(&SandboxSpec::default()).await?))
            }
            attached => attached,
        }
    }

    async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        let mut found = self.inner.list().await?;
        match self.defect {
            Defect::ListForgetsLabels => {
                for listed in &mut found {
                    listed.labels.clear();
                }
            }
            Defect::ListNamesAnother => {
                for listed in &mut found {
                    listed.state.id = SandboxId::new("another");
                }
            }
            _ => {}
        }
        Ok(found)
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        match self.defect {
            Defect::RemoveDoesNothing => Ok(()),
            Defect::RemoveOfNobodyFails
                if self.inner.list().await?.iter().all(|listed| listed.id != *id) =>
            {
                let source = "there is no such sandbox".into();
                Err(SandboxError::Cleanup { what: id.to_string(), source })
            }
            _ => self.inner.remove(id).await,
        }
    }
}

/// A sandbox with a defect.
#[derive(Debug)]
struct FaultySandbox {
    defect: Defect,
    id: SandboxId,
    inner: Arc<dyn Sandbox>,
    closed: AtomicBool,
    /// Places that dropped calls do not give back.
    leaking: Arc<Semaphore>,
}

impl FaultySandbox {
    fn has(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// Gives an error the reason that the defect tells.
    fn tell(&self, error: SandboxError) -> SandboxError {
        match error {
            SandboxError::Lost { .. } if self.has(Defect::LossHasNoReason) => {
                let detail = "the stream ended".to_owned();
                SandboxError::Lost { reason: LossReason::StreamBroken { detail } }
            }
            error => error,
        }
    }
}

#[async_trait]
impl Freezer for FaultySandbox {
    async fn freeze(&self, max: Duration) -> Result<Frozen, SandboxError> {
        let Some(freezer) = self.inner.freezer() else {
            let operation = "freezing";
            return Err(SandboxError::Unsupported { backend: "faulty", operation });
        };
        match self.defect {
            Defect::FreezeIsNothing => Ok(Frozen::hold(max, async { Ok(true) })),
            Defect::FreezeAlwaysLasts => {
                let frozen = freezer.freeze(max).await?;
                let longer = max.saturating_add(Duration::from_secs(60));
                Ok(Frozen::hold(longer, async { frozen.thaw().await.map(|_| true) }))
            }
            _ => freezer.freeze(max).await,
        }
    }
}

#[async_trait]
impl Sandbox for FaultySandbox {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    fn state(&self) -> SandboxState {
        let mut state = self.inner.state();
        match self.defect {
            Defect::StateNamesAnother => state.backend = "another".to_owned(),
            Defect::IdsRepeat => state.id = self.id.clone(),
            _ => {}
        }
        state
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        process::start(self.defect, &*self.inner, request).await.map_err(|error| self.tell(error))
    }

    fn files(&self) -> &dyn Files {
        self
    }

    fn tree(&self) -> &dyn Tree {
        self
    }

    fn host_workspace(&self) -> Option<&dyn HostWorkspace> {
        self.inner.host_workspace()
    }

    fn freezer(&self) -> Option<&dyn Freezer> {
        self.inner.freezer().map(|_| self as &dyn Freezer)
    }

    async fn lost(&self) -> SandboxError {
        self.tell(self.inner.lost().await)
    }

    async fn close(&self) -> Result<(), SandboxError> {
        if self.closed.swap(true, Ordering::Relaxed) && self.has(Defect::SecondCloseFails) {
            let source = "it is closed".into();
            return Err(SandboxError::Cleanup { what: "nothing".to_owned(), source });
        }
        match self.defect {
            // What stays usable is ended by being dropped.
            Defect::ClosedStaysUsable | Defect::OneWorkspaceForAll => return Ok(()),
            Defect::DroppedCloseStops => tokio::task::yield_now().await,
            _ => {}
        }
        self.inner.close().await
    }
}

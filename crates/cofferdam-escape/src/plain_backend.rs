//! [`PlainBackend`]: a backend without walls, for the suite's own test.
//!
//! It runs the guest as a plain process of the caller in a directory of the host. Most attacks must work on it: an attack
//! that does not is either broken or proves nothing on this host.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use cofferdam_core::SandboxId;
use cofferdam_sandbox::{
    Enforcement, ExecRequest, Files, Guarantee, Guarantees, GuestClient, GuestOptions,
    ListedSandbox, LossReason, Process, Sandbox, SandboxBackend, SandboxError, SandboxSpec,
    SandboxState, Tree, Wall,
};
use tokio::net::UnixStream;

const NAME: &str = "plain";

/// A backend that keeps nothing apart. Never for anything but the suite's own test.
#[derive(Debug, Default)]
pub struct PlainBackend {
    made: AtomicU32,
}

#[derive(Debug)]
struct PlainSandbox {
    id: SandboxId,
    client: GuestClient,
    guest: Mutex<Child>,
    _place: tempfile::TempDir,
}

fn host(operation: &'static str, error: impl Into<cofferdam_core::BoxError>) -> SandboxError {
    SandboxError::Host { operation, source: error.into() }
}

#[async_trait]
impl SandboxBackend for PlainBackend {
    fn name(&self) -> &str {
        NAME
    }

    async fn guarantees(&self) -> Result<Guarantees, SandboxError> {
        let missing = |wall| Guarantee {
            wall,
            enforcement: Enforcement::Missing { reason: "there is none".to_owned(), remedy: None },
        };
        let walls = [Wall::Filesystem, Wall::Network, Wall::Processes, Wall::Privileges];
        Ok(Guarantees { backend: NAME.to_owned(), walls: walls.map(missing).to_vec() })
    }

    #[expect(clippy::disallowed_methods, reason = "a backend starts the guest")]
    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        if let Some(weak) = self.guarantees().await?.unmet(spec) {
            let reason = "there is none".to_owned();
            return Err(SandboxError::Unenforceable { backend: NAME, wall: weak.wall, reason });
        }
        let place = tempfile::tempdir().map_err(|error| host("make a directory", error))?;
        let program = place.path().join("cofferdam-guest");
        let workspace = place.path().join("workspace");
        let placed = std::fs::write(&program, cofferdam_guest::PROGRAM)
            .and_then(|()| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(&program, mode)
            })
            .and_then(|()| std::fs::create_dir(&workspace));
        placed.map_err(|error| host("place the guest", error))?;
        // As a careless host would: commands work in the shared directory itself.
        let workspace = spec.base.as_ref().map_or(workspace, |base| base.directory.clone());
        let (ours, theirs) = StdStream::pair().map_err(|error| host("make a stream", error))?;
        let guest = Command::new(&program)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .map_err(|error| host("start the guest", error))?;
        ours.set_nonblocking(true).map_err(|error| host("use the stream", error))?;
        let stream = UnixStream::from_std(ours).map_err(|error| host("use the stream", error))?;
        // As a careless host would: the commands get its whole environment.
        let environment = std::env::vars().chain(spec.environment.clone()).collect();
        let options = GuestOptions {
            workspace: workspace.display().to_string(),
            environment,
            ..GuestOptions::default()
        };
        let client = GuestClient::connect(stream, options).await?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let id = SandboxId::new(format!("plain-{}-{number}", std::process::id()));
        Ok(Arc::new(PlainSandbox { id, client, guest: Mutex::new(guest), _place: place }))
    }

    async fn attach(&self, _state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError> {
        Err(SandboxError::Unsupported { backend: NAME, operation: "attaching" })
    }

    async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        Ok(Vec::new())
    }

    async fn remove(&self, _id: &SandboxId) -> Result<(), SandboxError> {
        Ok(())
    }
}

#[async_trait]
impl Sandbox for PlainSandbox {
    fn id(&self) -> &SandboxId {
        &self.id
    }

    fn state(&self) -> SandboxState {
        SandboxState {
            version: 1,
            backend: NAME.to_owned(),
            id: self.id.clone(),
            data: serde_json::Value::Null,
        }
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        self.client.exec(request).await
    }

    fn files(&self) -> &dyn Files {
        &self.client
    }

    fn tree(&self) -> &dyn Tree {
        &self.client
    }

    async fn lost(&self) -> SandboxError {
        self.client.lost().await
    }

    async fn close(&self) -> Result<(), SandboxError> {
        self.client.end(LossReason::Closed);
        let mut guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = guest.kill();
        let _ = guest.wait();
        Ok(())
    }
}

//! [`MemoryBackend`]: sandboxes in memory that keep every promise of the seam, more strictly than real ones do.
//!
//! It passes the conformance suite with `Options { shell: false, .. }`. Commands are those of its own few programs:
//! `cat`, `echo`, `env`, `false`, `head -c`, `sleep`, `true` and `wc -c`; there is no shell and no terminal. Stricter than a real
//! sandbox is that
//!
//! - each call waits at least once before and once after its effect, so that dropping a future at any of its poll points
//!   is something that tests meet;
//! - it does at most [`OPERATIONS`] things at a time and as many commands as its limit says, so that a place which is
//!   not given back soon shows as a test that hangs;
//! - a command goes on only while its events are awaited, and output is handed out in small pieces;
//! - a stream or future that is polled after its end panics;
//! - what a real backend would do somehow and the seam does not define is refused as an invalid request: mode bits
//!   beyond the permissions, listings of no levels or no entries, variables that no environment can hold;
//! - everything after its end is [`SandboxError::Lost`], with the first reason;
//! - [`MemoryBackend::open_sandboxes`] tells what was neither closed nor dropped.
//!
//! Parts: `live` (what a sandbox is made of), `sandbox` (the seams), `process` and `program` (commands).
//!
//! ```
//! use cofferdam_core::WorkspacePath;
//! use cofferdam_sandbox::{ExecRequest, SandboxBackend, SandboxExt, SandboxSpec};
//! use cofferdam_testkit::MemoryBackend;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let backend = MemoryBackend::default();
//! let sandbox = backend.create(&SandboxSpec::default()).await.unwrap();
//! let file = WorkspacePath::new("file").unwrap();
//! sandbox.files().write(&file, "text".into(), &Default::default()).await.unwrap();
//! let output = sandbox.run(ExecRequest::program(["cat", "file"]), 100).await.unwrap();
//! assert_eq!(output.stdout.bytes, b"text");
//! sandbox.close().await.unwrap();
//! assert_eq!(backend.open_sandboxes(), 0);
//! # });
//! ```

mod live;
mod process;
mod program;
mod sandbox;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use async_trait::async_trait;
use cofferdam_core::{NetworkAccess, SandboxId};
use cofferdam_sandbox::{
    Enforcement, Guarantee, Guarantees, ListedSandbox, LossReason, RootFilesystem, Sandbox,
    SandboxBackend, SandboxError, SandboxSpec, SandboxState, SystemCallProfile, Wall,
};

pub use self::live::OPERATIONS;
use self::sandbox::MemorySandbox;

/// Its name in states and errors.
pub(crate) const BACKEND: &str = "memory";

/// Makes sandboxes in memory.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    count: u64,
    sandboxes: BTreeMap<SandboxId, Weak<MemorySandbox>>,
}

impl MemoryBackend {
    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many sandboxes have neither ended nor been dropped.
    #[must_use]
    pub fn open_sandboxes(&self) -> usize {
        self.open().len()
    }

    fn open(&self) -> Vec<Arc<MemorySandbox>> {
        // Collected first: what is dropped here for the last time must not find the table locked.
        let made: Vec<_> = self.made().sandboxes.values().filter_map(Weak::upgrade).collect();
        made.into_iter().filter(|sandbox| sandbox.loss().is_none()).collect()
    }
}

#[async_trait]
impl SandboxBackend for MemoryBackend {
    fn name(&self) -> &str {
        BACKEND
    }

    async fn guarantees(&self) -> Result<Guarantees, SandboxError> {
        tokio::task::yield_now().await;
        Ok(guarantees())
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        tokio::task::yield_now().await;
        check(spec)?;
        let sandbox = {
            let mut made = self.made();
            made.sandboxes.retain(|_, sandbox| sandbox.strong_count() > 0);
            made.count += 1;
            let id = SandboxId::new(format!("memory-{}", made.count));
            let sandbox = Arc::new(MemorySandbox::new(id.clone(), spec));
            made.sandboxes.insert(id, Arc::downgrade(&sandbox));
            sandbox
        };
        tokio::task::yield_now().await;
        Ok(sandbox)
    }

    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError> {
        tokio::task::yield_now().await;
        if (state.version, &*state.backend) != (1, BACKEND) {
            return Err(invalid("the state is of another backend or release".to_owned()));
        }
        let found = self.made().sandboxes.get(&state.id).and_then(Weak::upgrade);
        match found.as_ref().map(|sandbox| sandbox.loss()) {
            Some(None) => found
                .map(|sandbox| sandbox as Arc<dyn Sandbox>)
                .ok_or(SandboxError::Lost { reason: LossReason::Closed }),
            Some(Some(reason)) => Err(SandboxError::Lost { reason }),
            None => Err(SandboxError::Lost { reason: LossReason::Closed }),
        }
    }

    async fn list(&self) -> Result<Vec<ListedSandbox>, SandboxError> {
        tokio::task::yield_now().await;
        let listed = self.open().iter().map(|sandbox| sandbox.listed()).collect();
        tokio::task::yield_now().await;
        Ok(listed)
    }

    async fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        tokio::task::yield_now().await;
        let found = self.made().sandboxes.get(id).and_then(Weak::upgrade);
        match found {
            Some(sandbox) => sandbox.close().await,
            None => Ok(()),
        }
    }
}

/// What stands: there is no host to reach, and what is counted is bounded.
fn guarantees() -> Guarantees {
    let full = |wall, mechanism: &str| Guarantee {
        wall,
        enforcement: Enforcement::Full { mechanism: mechanism.to_owned() },
    };
    let missing = |wall| Guarantee {
        wall,
        enforcement: Enforcement::Missing {
            reason: "a double in memory has nothing to bound".to_owned(),
            remedy: Some("use a backend with real processes".to_owned()),
        },
    };
    let walls = vec![
        full(Wall::Filesystem, "files in memory"),
        full(Wall::Network, "no sockets"),
        full(Wall::Processes, "no processes"),
        full(Wall::Privileges, "no processes"),
        missing(Wall::SystemCalls),
        missing(Wall::FilesystemSecondWall),
        missing(Wall::MemoryLimit),
        full(Wall::ProcessLimit, "a count of commands"),
        missing(Wall::CpuLimit),
        full(Wall::DiskLimit, "a count of pages and names"),
        missing(Wall::OpenFileLimit),
        full(Wall::OutputLimit, "a count of bytes"),
        full(Wall::WallTimeLimit, "a timer"),
        missing(Wall::IdleTimeLimit),
        full(Wall::Teardown, "memory"),
    ];
    Guarantees { backend: BACKEND.to_owned(), walls }
}

/// Refuses what makes no sense, and by name what the double does not do.
fn check(spec: &SandboxSpec) -> Result<(), SandboxError> {
    spec.check()?;
    let limits = &spec.limits;
    if limits.output_bytes == 0 || limits.wall_time.is_zero() {
        return Err(invalid(format!("a limit is 0: {limits:?}")));
    }
    let unenforceable = |wall| {
        let reason = "a double in memory does not do this".to_owned();
        Err(SandboxError::Unenforceable { backend: BACKEND, wall, reason })
    };
    if let Some(unmet) = guarantees().unmet(spec) {
        return unenforceable(unmet.wall);
    }
    if spec.network != NetworkAccess::None {
        return unenforceable(Wall::Network);
    }
    if spec.system_calls != SystemCallProfile::Default {
        return unenforceable(Wall::SystemCalls);
    }
    if limits.cpu_millis.is_some() || limits.cpu_weight.is_some() {
        return unenforceable(Wall::CpuLimit);
    }
    if limits.idle_time.is_some() {
        return unenforceable(Wall::IdleTimeLimit);
    }
    if !spec.read_only.is_empty() {
        return unenforceable(Wall::Filesystem);
    }
    if spec.root != RootFilesystem::HostSystem || !spec.linger.is_zero() || spec.base.is_some() {
        let operation = "root file systems, lingering and bases";
        return Err(SandboxError::Unsupported { backend: BACKEND, operation });
    }
    Ok(())
}

fn invalid(reason: String) -> SandboxError {
    SandboxError::InvalidRequest { reason }
}

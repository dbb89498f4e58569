//! What a sandbox in memory is made of, shared by its handle and its commands.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use cofferdam_core::SandboxLimits;
use cofferdam_sandbox::{LossReason, SandboxError, SandboxSpec};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::invalid;
use crate::file_tree::{FileTree, Use};

/// Operations of one sandbox at a time; more wait.
pub const OPERATIONS: usize = 8;

/// The state of one sandbox.
#[derive(Debug)]
pub(super) struct Live {
    tree: Mutex<FileTree>,
    loss: watch::Sender<Option<LossReason>>,
    places: Arc<Semaphore>,
    pub(super) limits: SandboxLimits,
    pub(super) environment: BTreeMap<String, String>,
    commands: AtomicU32,
    last_pid: AtomicU32,
}

impl Live {
    pub(super) fn new(spec: &SandboxSpec) -> Self {
        let limits = spec.limits.clone();
        let bounds = Use { bytes: limits.disk_bytes, nodes: limits.disk_inodes };
        let mut environment: BTreeMap<String, String> =
            [("HOME", "/workspace"), ("LANG", "C.UTF-8"), ("PATH", "/bin"), ("TERM", "dumb")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        environment.extend(spec.environment.clone());
        Self {
            tree: Mutex::new(FileTree::new(bounds, now())),
            loss: watch::Sender::new(None),
            places: Arc::new(Semaphore::new(OPERATIONS)),
            limits,
            environment,
            commands: AtomicU32::new(0),
            last_pid: AtomicU32::new(1),
        }
    }

    pub(super) fn tree(&self) -> MutexGuard<'_, FileTree> {
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        tree.advance(now());
        tree
    }

    /// Ends the sandbox; the first reason stays.
    pub(super) fn end(&self, reason: LossReason) {
        self.loss.send_if_modified(|loss| {
            let first = loss.is_none();
            if first {
                *loss = Some(reason);
            }
            first
        });
    }

    pub(super) fn loss(&self) -> Option<LossReason> {
        self.loss.borrow().clone()
    }

    pub(super) fn alive(&self) -> Result<(), SandboxError> {
        self.loss().map_or(Ok(()), |reason| Err(SandboxError::Lost { reason }))
    }

    /// Waits for the end.
    pub(super) async fn lost(&self) -> SandboxError {
        let mut loss = self.loss.subscribe();
        let reason = match loss.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            // The sender is this sandbox's own.
            Err(_closed) => None,
        };
        SandboxError::Lost { reason: reason.unwrap_or(LossReason::Closed) }
    }

    /// Waits for a place among the operations.
    pub(super) async fn enter(&self) -> Result<OwnedSemaphorePermit, SandboxError> {
        self.pause().await?;
        tokio::select! {
            biased;
            error = self.lost() => Err(error),
            place = Arc::clone(&self.places).acquire_owned() => place
                .map_err(|_closed| SandboxError::Lost { reason: LossReason::Closed }),
        }
    }

    /// Lets others go first; here a caller may be dropped, and here it learns of the end.
    pub(super) async fn pause(&self) -> Result<(), SandboxError> {
        tokio::task::yield_now().await;
        self.alive()
    }

    /// Does something to the files, with a pause before and after it.
    pub(super) async fn change<T>(
        &self,
        operation: &'static str,
        path: &str,
        work: impl FnOnce(&mut FileTree) -> Result<T, i32> + Send,
    ) -> Result<T, SandboxError> {
        let _place = self.enter().await?;
        self.pause().await?;
        let result = work(&mut self.tree());
        self.pause().await?;
        result.map_err(|errno| file_error(operation, path, errno))
    }

    /// Takes a place among the commands, if there is one.
    pub(super) fn start_command(self: &Arc<Self>) -> Option<CommandPlace> {
        let limit = self.limits.processes;
        self.commands
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1))
            .ok()
            .map(|_| CommandPlace(Arc::clone(self)))
    }

    pub(super) fn next_pid(&self) -> u32 {
        self.last_pid.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A place among the commands; dropping it gives it back.
#[derive(Debug)]
pub(super) struct CommandPlace(pub(super) Arc<Live>);

impl Drop for CommandPlace {
    fn drop(&mut self) {
        self.0.commands.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn file_error(operation: &'static str, path: &str, errno: i32) -> SandboxError {
    SandboxError::File { operation, path: path.to_owned(), reason: errno_text(errno), errno }
}

pub(super) fn errno_text(errno: i32) -> String {
    io::Error::from_raw_os_error(errno).to_string()
}

/// Refuses a variable that no environment can hold.
pub(super) fn check_variable(name: &str, value: &str) -> Result<(), SandboxError> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(invalid(format!("no environment can hold {name:?}={value:?}")));
    }
    Ok(())
}

/// Nanoseconds since the Unix epoch, as files are stamped.
pub(super) fn now() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

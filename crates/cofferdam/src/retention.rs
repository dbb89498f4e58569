//! [`AutomaticCleanUp`]: a state directory that does not grow for ever.
//!
//! A kept run looks, once its sandbox is there, whether the directory was cleaned up within the interval. If not, it is done
//! in the background, by one process at a time. Nothing waits for it, and nothing is lost if the process ends before: the next run
//! looks again.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    sync::Arc,
    time::Duration,
};

use cofferdam_checkpoint::{
    CleanUpError, GoneOptions, GoneReport, Retention, RetentionReport, apply_retention,
    forget_gone, gone,
};
use cofferdam_core::{Clock as _, SandboxId};
use cofferdam_sandbox::SandboxBackend;

use crate::{StateDirectory, StateError, SystemClock};

/// What a state directory is cleaned up to by itself, and how often at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutomaticCleanUp {
    /// What is kept. The default keeps every run.
    pub retention: Retention,
    /// The least time between two clean-ups. Default six hours.
    pub interval: Duration,
}

impl Default for AutomaticCleanUp {
    fn default() -> Self {
        Self { retention: Retention::default(), interval: Duration::from_secs(6 * 60 * 60) }
    }
}

impl From<Retention> for AutomaticCleanUp {
    fn from(retention: Retention) -> Self {
        Self { retention, ..Self::default() }
    }
}

/// What a clean-up has done, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CleanedUp {
    /// Runs, checkpoints and snapshots.
    pub kept: RetentionReport,
    /// What was kept for sandboxes that are gone.
    pub gone: GoneReport,
}

impl StateDirectory {
    /// Sets what the directory is cleaned up to by itself, beside kept runs of this process; `None`: nothing. Default:
    /// [`AutomaticCleanUp::default`].
    #[must_use]
    pub fn automatic_clean_up(mut self, automatic: Option<AutomaticCleanUp>) -> Self {
        self.automatic = automatic;
        self
    }

    /// Returns what the directory is cleaned up to by itself.
    #[must_use]
    pub fn automatic(&self) -> Option<&AutomaticCleanUp> {
        self.automatic.as_ref()
    }

    /// Removes what a policy does not keep, frees what nothing needs any more, and forgets sandboxes of these backends that are
    /// gone. With `dry_run` nothing is changed. May be called at any time, also beside runs.
    ///
    /// # Errors
    ///
    /// [`StateError::CleanUp`]; calling again goes on.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the next call goes on.
    pub async fn clean_up_to(
        &self,
        retention: &Retention,
        backends: &[Arc<dyn SandboxBackend>],
        dry_run: bool,
    ) -> Result<CleanedUp, StateError> {
        // First: what loses its pin here may go with this very call.
        let gone = self.gone(backends, dry_run).await?;
        let snapshots = self.snapshots().await.map_err(CleanUpError::from)?;
        let (checkpoints, journal) = (self.checkpoints(), &**self.journal());
        let (checkpoints, clock) = (&*checkpoints, &SystemClock);
        let kept =
            apply_retention(retention, &snapshots, checkpoints, journal, clock, dry_run).await?;
        Ok(CleanedUp { kept, gone })
    }

    /// Frees what is kept for sandboxes of these backends that ended while nobody was there, an hour after that was seen first.
    ///
    /// # Errors
    ///
    /// [`StateError::CleanUp`]; calling again goes on.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the next call goes on.
    pub async fn forget_gone(
        &self,
        backends: &[Arc<dyn SandboxBackend>],
    ) -> Result<GoneReport, StateError> {
        self.gone(backends, false).await
    }

    async fn gone(
        &self,
        backends: &[Arc<dyn SandboxBackend>],
        dry_run: bool,
    ) -> Result<GoneReport, StateError> {
        let snapshots = self.snapshots().await.map_err(CleanUpError::from)?;
        let mut options = GoneOptions::default();
        options.dry_run = dry_run;
        let scratch = self.scratch();
        let gone = forget_gone(&snapshots, &scratch, backends, &SystemClock, options).await;
        Ok(gone.map_err(CleanUpError::from)?)
    }

    /// Frees what is kept for one sandbox, which is known to be gone. Idempotent.
    ///
    /// # Errors
    ///
    /// [`StateError::CleanUp`]; calling again goes on.
    pub async fn forget_sandbox(&self, sandbox: &SandboxId) -> Result<(), StateError> {
        let snapshots = self.snapshots().await.map_err(CleanUpError::from)?;
        let forgotten = gone::forget(&snapshots, &self.scratch(), sandbox).await;
        Ok(forgotten.map_err(CleanUpError::from)?)
    }

    /// Does the automatic clean-up if it is due and nobody else does it; `None` if not.
    ///
    /// # Errors
    ///
    /// As [`StateDirectory::clean_up_to`]; the next one is due after the interval all the same.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, it stays due.
    pub async fn clean_up_if_due(
        &self,
        backends: &[Arc<dyn SandboxBackend>],
    ) -> Result<Option<CleanedUp>, StateError> {
        let Some(automatic) = &self.automatic else { return Ok(None) };
        let Some(mut turn) = self.turn(automatic.interval)? else { return Ok(None) };
        let done = self.clean_up_to(&automatic.retention, backends, false).await;
        self.failed(turn.taken())?;
        done.map(Some)
    }

    /// Does [`StateDirectory::clean_up_if_due`] while the process goes on with something else.
    pub(crate) fn clean_up_in_background(&self, backend: &Arc<dyn SandboxBackend>) {
        if self.automatic.is_none() {
            return;
        }
        let (state, backends) = (self.clone(), [Arc::clone(backend)]);
        tokio::spawn(async move {
            match state.clean_up_if_due(&backends).await {
                Ok(None) => {}
                Ok(Some(done)) => tracing::info!(?done, "the state directory was cleaned up"),
                Err(error) => {
                    tracing::warn!(%error, "the state directory could not be cleaned up");
                }
            }
        });
    }

    /// Takes the turn to clean up, if it is time and nobody else has it. A directory that was never cleaned up has its first turn
    /// after the interval: nothing in it is old.
    fn turn(&self, interval: Duration) -> Result<Option<Turn>, StateError> {
        let path = self.workspaces().join("cleaned-up");
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = self.failed(file)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let mut turn = Turn(file);
        let mut text = String::new();
        // What is no number is of a process that died while it wrote.
        let last = turn.0.read_to_string(&mut text).ok().and_then(|_| text.parse::<u64>().ok());
        let Some(last) = last else {
            self.failed(turn.taken())?;
            return Ok(None);
        };
        let now = SystemClock.now().as_millis();
        // A time that is still to come is of a clock that was set back.
        let is_due = last > now || u128::from(now - last) >= interval.as_millis();
        Ok(is_due.then_some(turn))
    }

    fn failed<T>(&self, result: io::Result<T>) -> Result<T, StateError> {
        result
            .map_err(|source| StateError::Directory { path: self.workspaces().to_owned(), source })
    }
}

/// The right to clean up, as long as the file is open.
struct Turn(File);

impl Turn {
    fn taken(&mut self) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(SystemClock.now().as_millis().to_string().as_bytes())
    }
}

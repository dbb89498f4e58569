//! What the tests of this crate share.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use cofferdam_core::Clock;
use cofferdam_journal::{
    Journal, JournalError, MemoryJournal, SqliteJournal, conformance::Subject,
};
use tempfile::TempDir;

/// Stores in memory.
pub(crate) struct Memory;

#[async_trait]
impl Subject for Memory {
    async fn fresh(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Journal>, JournalError> {
        Ok(Arc::new(MemoryJournal::new(clock)))
    }
}

/// Stores in databases in a directory of the build, which is on a real disk.
pub(crate) struct Sqlite {
    directory: TempDir,
    made: AtomicU64,
    open: Mutex<Vec<Arc<SqliteJournal>>>,
}

/// Makes an empty directory on the disk that the build is on.
pub(crate) fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

impl Sqlite {
    pub(crate) fn new() -> Self {
        Self { directory: directory(), made: AtomicU64::new(0), open: Mutex::default() }
    }

    pub(crate) fn fresh_path(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.directory.path().join(format!("journal-{number}.db"))
    }

    fn open(&self, path: &Path, clock: Arc<dyn Clock>) -> Result<Arc<dyn Journal>, JournalError> {
        let journal = Arc::new(SqliteJournal::open(path, clock)?);
        self.open.lock().unwrap().push(Arc::clone(&journal));
        Ok(journal)
    }
}

#[async_trait]
impl Subject for Sqlite {
    async fn fresh(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Journal>, JournalError> {
        self.open.lock().unwrap().clear();
        self.open(&self.fresh_path(), clock)
    }

    async fn reopen(
        &self,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Arc<dyn Journal>>, JournalError> {
        drop(journal);
        let last = self.open.lock().unwrap().pop().unwrap();
        last.close().await;
        self.open(last.path(), clock).map(Some)
    }
}

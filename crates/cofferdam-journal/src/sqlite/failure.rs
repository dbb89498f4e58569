//! What a failure of SQLite or of the file system means for the caller.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::ErrorCode;

use crate::JournalError;

/// Where a journal is, for messages and for the names of the files beside it.
#[derive(Debug, Clone)]
pub(super) struct Location(Arc<Path>);

impl Location {
    pub(super) fn of(path: &Path) -> Self {
        Self(path.into())
    }

    pub(super) fn database(&self) -> &Path {
        &self.0
    }

    /// Returns the path of a file beside the database, which has the database's name and an ending.
    pub(super) fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.0.as_os_str().to_owned();
        path.push(ending);
        path.into()
    }

    pub(super) fn text(&self) -> String {
        self.0.display().to_string()
    }

    pub(super) fn damaged(&self, detail: impl Into<String>) -> JournalError {
        JournalError::Damaged { location: self.text(), detail: detail.into() }
    }

    pub(super) fn foreign(&self, detail: impl Into<String>) -> JournalError {
        JournalError::Foreign { location: self.text(), detail: detail.into() }
    }

    /// Sorts a failure of SQLite by what the caller can do.
    pub(super) fn sqlite(&self, operation: &'static str, error: rusqlite::Error) -> JournalError {
        let extended = error.sqlite_error().map(|error| error.extended_code);
        let location = self.text();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => JournalError::Full { location },
            // The index of the log could not be made longer.
            _ if extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => {
                JournalError::Full { location }
            }
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                JournalError::ReadOnly { location, detail: error.to_string() }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                JournalError::Busy { location }
            }
            // What is written was looked for first, so only a damaged table or index says that it is there.
            Some(
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation,
            ) => self.damaged(error.to_string()),
            _ => JournalError::store(operation, error),
        }
    }

    /// Sorts a failure of the file system by what the caller can do.
    pub(super) fn io(&self, operation: &'static str, error: io::Error) -> JournalError {
        let location = self.text();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                JournalError::Full { location }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                JournalError::ReadOnly { location, detail: error.to_string() }
            }
            _ => JournalError::store(operation, error),
        }
    }
}

/// Why one operation on the tables did not come to its end.
#[derive(Debug)]
pub(super) enum Failure {
    /// It must not be done. Nothing was written, and what shares its transaction goes on.
    Refused(JournalError),
    /// SQLite failed. The transaction is rolled back.
    Sqlite(rusqlite::Error),
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

//! [`Holds`]: files that are locked for as long as somebody has a lease, so that the kernel tells who has died.
//!
//! A holder locks its file before the lease is written to the database, in the transaction that does it. So of a lease
//! that can be seen, the file is locked, or its holder is gone. Whoever looks takes a *shared* lock, so that two who look at
//! the same time do not take each other for a holder.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use super::failure::Location;
use crate::{Epoch, JournalError};

/// The directory of the files.
#[derive(Debug, Clone)]
pub(super) struct Holds {
    directory: PathBuf,
}

/// Somebody has a lease for as long as this is there.
#[derive(Debug)]
pub(super) struct Hold {
    /// Locked; the kernel frees it when it is closed.
    _file: File,
    path: PathBuf,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A file that stays is not locked any more, so it says the same as none; it is swept by who opens the journal next.
        let _ = fs::remove_file(&self.path);
    }
}

impl Holds {
    pub(super) fn open(location: &Location) -> Result<Self, JournalError> {
        let directory = location.beside("-leases");
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(location.io("make the directory of its leases", error))
            }
            _ => Ok(Self { directory }),
        }
    }

    fn path(&self, epoch: Epoch) -> PathBuf {
        self.directory.join(epoch.to_string())
    }

    /// Locks the file of a new lease. The caller has the database's write lock.
    pub(super) fn take(&self, epoch: Epoch) -> io::Result<Hold> {
        let path = self.path(epoch);
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Hold { _file: file, path }),
            Err(TryLockError::Error(error)) => Err(error),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        }
    }

    /// Returns whether somebody has this lease.
    pub(super) fn is_held(&self, epoch: Epoch) -> io::Result<bool> {
        let file = match File::open(self.path(epoch)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Removes the file of a lease that nobody has.
    pub(super) fn forget(&self, epoch: Epoch) {
        // What stays is swept later.
        let _ = fs::remove_file(self.path(epoch));
    }

    /// Removes the files of holders that are gone and whose lease is not in use. The caller has the database's write lock.
    pub(super) fn sweep(&self, used: &HashSet<u64>) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let epoch = entry?.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(epoch) = epoch.filter(|epoch| !used.contains(epoch)) else { continue };
            if !self.is_held(Epoch(epoch))? {
                self.forget(Epoch(epoch));
            }
        }
        Ok(())
    }
}

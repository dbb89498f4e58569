//! Plans on a host directory, without following a link.
//!
//! Every path is walked from a handle of the root, one component at a time, with `O_NOFOLLOW`, and every change is made
//! relative to the handle of the directory that was reached. A link that is put in place meanwhile makes a step fail; it
//! cannot lead outside.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::path::PatchPath;
use crate::plan::{FileContent, FileState};
use crate::transaction::{Step, StepDone, Target};

const DIRECTORY: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);
const PERMISSION_BITS: u32 = 0o7777;

/// A directory of the host as the workspace.
///
/// Files are replaced by rename: mode bits are kept, and owner and group where the process may set them. A file with
/// several hard links loses the connection to the others.
#[derive(Debug)]
pub struct HostDirectory {
    root: OwnedFd,
    max_file_bytes: u64,
    is_durable: bool,
}

impl HostDirectory {
    /// Opens a directory. Links in `root` itself are followed: it is the caller's word, not the patch's.
    ///
    /// # Errors
    /// The system's error when `root` is not a directory that can be opened.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(
            root,
            OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY,
            Mode::empty(),
        )?;
        Ok(Self { root, max_file_bytes: 256 * 1024 * 1024, is_durable: false })
    }

    /// Sets the largest file that is read, in bytes. Default: 256 MiB.
    #[must_use]
    pub fn max_file_bytes(mut self, max_file_bytes: u64) -> Self {
        self.max_file_bytes = max_file_bytes;
        self
    }

    /// Sets whether new content and renames are flushed to the disk before the next step. Default: no.
    #[must_use]
    pub fn durable(mut self, is_durable: bool) -> Self {
        self.is_durable = is_durable;
        self
    }

    /// Reads what is at a path, for [`crate::plan`]. Nothing: no such file.
    ///
    /// # Errors
    /// The system's error; also when a directory on the way is a link, and when the file is larger than allowed.
    pub fn read(&self, path: &PatchPath) -> io::Result<Option<FileState>> {
        let parent = match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let stat = match rustix::fs::statat(&parent, path.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(Some(FileState::Directory)),
            FileType::Symlink => return Ok(Some(FileState::Symlink)),
            _ => return Ok(Some(FileState::Other)),
        }
        // Between the two calls the file may have become a pipe, on which an open would wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&parent, path.file_name(), flags, Mode::empty())?);
        let stat = rustix::fs::fstat(&file)?;
        let length = file.metadata()?.len();
        let mut bytes =
            Vec::with_capacity(usize::try_from(length.min(self.max_file_bytes)).unwrap_or(0));
        file.take(self.max_file_bytes + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > self.max_file_bytes {
            let message = format!("the file is larger than {} bytes", self.max_file_bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(Some(FileState::File(FileContent::new(bytes, Some(stat.st_mode & PERMISSION_BITS)))))
    }

    /// Opens the directory of a path.
    fn parent(&self, path: &PatchPath) -> io::Result<OwnedFd> {
        let root = self.root.try_clone()?;
        path.parents().try_fold(root, |directory, name| {
            rustix::fs::openat(&directory, name, DIRECTORY, Mode::empty())
                .map_err(|error| refuse_link(error, path))
        })
    }

    fn make_parents(&self, path: &PatchPath) -> io::Result<StepDone> {
        let mut done = StepDone::default();
        let outcome = self.make_each_parent(path, &mut done.created_directories);
        if outcome.is_err() {
            for made in done.created_directories.iter().rev() {
                // The step's own error is the one to tell; a directory that is not empty is no longer ours.
                let _ = self.remove(made, AtFlags::REMOVEDIR);
            }
        }
        outcome.map(|()| done)
    }

    fn make_each_parent(&self, path: &PatchPath, made: &mut Vec<PatchPath>) -> io::Result<()> {
        let mut directory = self.root.try_clone()?;
        let mut so_far = String::new();
        for name in path.parents() {
            so_far.push_str(if so_far.is_empty() { "" } else { "/" });
            so_far.push_str(name);
            match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o777)) {
                Ok(()) => made.push(PatchPath::new(&so_far).map_err(io::Error::other)?),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            directory = rustix::fs::openat(&directory, name, DIRECTORY, Mode::empty())
                .map_err(|error| refuse_link(error, path))?;
        }
        Ok(())
    }

    fn write(
        &self,
        path: &PatchPath,
        destination: &PatchPath,
        content: &[u8],
        mode: Option<u32>,
    ) -> io::Result<()> {
        let parent = self.parent(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Until the final mode is set, a file that has one is readable by nobody else.
        let first_mode = Mode::from_raw_mode(if mode.is_some() { 0o600 } else { 0o666 });
        let mut file =
            File::from(rustix::fs::openat(&parent, path.file_name(), flags, first_mode)?);
        file.write_all(content)?;
        if let Some(mode) = mode {
            if let Ok(old) =
                rustix::fs::statat(&parent, destination.file_name(), AtFlags::SYMLINK_NOFOLLOW)
            {
                copy_owner(&file, &old)?;
            }
            // After the owner, because a change of owner clears the set-id bits.
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & PERMISSION_BITS))?;
        }
        if self.is_durable { file.sync_all() } else { Ok(()) }
    }

    fn keep(&self, path: &PatchPath, backup: &PatchPath) -> io::Result<()> {
        let parent = self.parent(path)?;
        match rustix::fs::linkat(
            &parent,
            path.file_name(),
            &parent,
            backup.file_name(),
            AtFlags::empty(),
        ) {
            // Some file systems have no hard links, and some systems guard files of other owners against them.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::ACCESS) => {
                match self.read(path)? {
                    Some(FileState::File(content)) => {
                        self.write(backup, path, &content.bytes, content.mode)
                    }
                    _ => Err(io::Error::other(format!("{path} is no longer a regular file"))),
                }
            }
            other => Ok(other?),
        }
    }

    fn rename(&self, from: &PatchPath, to: &PatchPath, replace: bool) -> io::Result<()> {
        let parent = self.parent(from)?;
        let (old, new) = (from.file_name(), to.file_name());
        if replace {
            rustix::fs::renameat(&parent, old, &parent, new)?;
        } else {
            rename_without_replacing(&parent, old, new)?;
        }
        if self.is_durable { Ok(rustix::fs::fsync(&parent)?) } else { Ok(()) }
    }

    fn remove(&self, path: &PatchPath, flags: AtFlags) -> io::Result<()> {
        match rustix::fs::unlinkat(self.parent(path)?, path.file_name(), flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Target for HostDirectory {
    fn perform(&mut self, step: &Step) -> io::Result<StepDone> {
        match step {
            Step::MakeParents { path } => return self.make_parents(path),
            Step::Write { path, destination, content, mode } => {
                self.write(path, destination, content, *mode)?
            }
            Step::Keep { path, backup } => self.keep(path, backup)?,
            Step::Rename { from, to, replace } => self.rename(from, to, *replace)?,
            Step::Remove { path } => self.remove(path, AtFlags::empty())?,
            Step::RemoveDirectory { path } => self.remove(path, AtFlags::REMOVEDIR)?,
        }
        Ok(StepDone::default())
    }
}

/// Renames within a directory where the new name must be free.
fn rename_without_replacing(parent: &OwnedFd, old: &str, new: &str) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    match rustix::fs::renameat_with(parent, old, parent, new, rustix::fs::RenameFlags::NOREPLACE) {
        // A file system or kernel without the flag.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        other => return Ok(other?),
    }
    match rustix::fs::statat(parent, new, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(rustix::fs::renameat(parent, old, parent, new)?),
        Ok(_) => Err(Errno::EXIST.into()),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file the owner and group of another, as far as the process may.
fn copy_owner(file: &File, old: &Stat) -> io::Result<()> {
    let new = rustix::fs::fstat(file)?;
    if (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid) {
        return Ok(());
    }
    match rustix::fs::fchown(
        file.as_fd(),
        Some(Uid::from_raw(old.st_uid)),
        Some(Gid::from_raw(old.st_gid)),
    ) {
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Says which path has a link or a file where a directory should be.
fn refuse_link(error: Errno, path: &PatchPath) -> io::Error {
    match error {
        // With O_DIRECTORY a link is reported as "not a directory" on Linux and as a loop elsewhere.
        Errno::NOTDIR | Errno::LOOP => io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("a directory of {path} is a symbolic link or a file; links are not followed"),
        ),
        other => other.into(),
    }
}

//! Trees of the host that cases begin a workspace with or look at: made for one case, read back as lines, gone after it.

use std::{
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{support::mismatch, trial::Stop};
use crate::HostLayer;

/// A directory of the host. Dropping it removes it with all that is in it.
pub(super) struct HostTree(PathBuf);

impl HostTree {
    /// Makes what a list says below `parent`, one entry each: `directory/`, `mode ./` for the mode of the tree's own
    /// directory, `link -> target`, `name = other name` for a hard link, or `mode file: content`.
    pub(super) fn new(parent: &Path, entries: &[&str]) -> Result<Self, Stop> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("cofferdam-conformance-{}-{number}", std::process::id());
            let tree = match fs::create_dir(parent.join(&name)) {
                Ok(()) => Self(parent.join(name)),
                // Of a process that was killed and had this number before.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(host_failed(&error)),
            };
            entries.iter().try_for_each(|entry| tree.make(entry)).map_err(|e| host_failed(&e))?;
            return Ok(tree);
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn make(&self, entry: &str) -> io::Result<()> {
        let at = |name: &str| self.0.join(name);
        let mode_of = |mode: &str| -> io::Result<_> {
            let mode = u32::from_str_radix(mode, 8).map_err(io::Error::other)?;
            Ok(fs::Permissions::from_mode(mode))
        };
        if let Some(mode) = entry.strip_suffix(" ./") {
            return fs::set_permissions(&self.0, mode_of(mode)?);
        }
        if let Some(name) = entry.strip_suffix('/') {
            return fs::create_dir(at(name));
        }
        if let Some((name, target)) = entry.split_once(" -> ") {
            return symlink(target, at(name));
        }
        if let Some((name, other)) = entry.split_once(" = ") {
            return fs::hard_link(at(other), at(name));
        }
        let (head, content) = entry.split_once(": ").unwrap_or((entry, ""));
        let (mode, name) = head.split_once(' ').unwrap_or(("644", head));
        fs::write(at(name), content)?;
        fs::set_permissions(at(name), mode_of(mode)?)
    }

    /// Returns all of it, as [`lines`] does.
    pub(super) fn lines(&self) -> Result<Vec<String>, Stop> {
        lines(&self.0)
    }
}

impl Drop for HostTree {
    fn drop(&mut self) {
        // What cannot be removed is found by whoever looks at the directory of the host, not by a case.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns a line for each entry of a layer, as [`lines`] does.
pub(super) fn layer_lines(layer: &HostLayer) -> Result<Vec<String>, Stop> {
    lines(Path::new(&format!("/proc/self/fd/{}/.", layer.directory.as_raw_fd())))
}

/// Returns a line for each entry below a directory, sorted: its name, its kind, and of a file its mode and content.
fn lines(directory: &Path) -> Result<Vec<String>, Stop> {
    let mut found = Vec::new();
    collect(directory, "", &mut found).map_err(|error| host_failed(&error))?;
    found.sort();
    Ok(found)
}

fn collect(directory: &Path, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = fs::symlink_metadata(entry.path())?;
        let kind = metadata.file_type();
        let line = if kind.is_dir() {
            collect(&entry.path(), &format!("{name}/"), found)?;
            format!("{name}/")
        } else if kind.is_symlink() {
            format!("{name} -> {}", fs::read_link(entry.path())?.display())
        } else if kind.is_char_device() && metadata.rdev() == 0 {
            format!("{name} removed")
        } else if kind.is_file() {
            let content = fs::read(entry.path())?;
            let mode = metadata.mode() & 0o7777;
            format!("{name} {mode:o}: {}", String::from_utf8_lossy(&content))
        } else {
            format!("{name} {kind:?}")
        };
        found.push(line);
    }
    Ok(())
}

pub(super) fn host_failed(error: &io::Error) -> Stop {
    mismatch("the host's files", "to be made and read", error)
}

//! [`PrivateDirectory`]: a directory of the host for the files of one sandbox that has no file system of its own.
//!
//! What is in it was made by untrusted code, which may still run. So it is removed by descriptors: no name is followed that
//! could have been replaced by a link meanwhile, and nothing outside is named. Deep trees are flattened, not descended.

use std::{
    ffi::CStr,
    fmt,
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, chown},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, fchmod, openat, renameat, unlinkat},
    io::Errno,
};

use crate::cgroups::Owner;

/// Where it is made if nobody says where: the first of these in which it can be. The first one is no memory.
const PARENTS: [&str; 2] = ["/var/tmp", "/tmp"];

/// How long a removal goes on while somebody adds to what is removed.
const PATIENCE: Duration = Duration::from_secs(300);

/// A directory that is removed with all that is in it when the last owner drops it.
#[derive(Debug)]
pub(crate) struct PrivateDirectory {
    path: PathBuf,
}

impl PrivateDirectory {
    /// Makes one that only its user may enter: `owner`, or that of this process.
    pub(crate) fn make(
        parent: Option<&Path>,
        name: &str,
        owner: Option<(u32, u32)>,
    ) -> io::Result<Self> {
        let mut answer = io::Error::from(io::ErrorKind::NotFound);
        for parent in parents(parent) {
            let path = parent.join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let made = Self { path };
                    if let Some((user, group)) = owner {
                        chown(&made.path, Some(user), Some(group))?;
                    }
                    return Ok(made);
                }
                Err(error) => answer = error,
            }
        }
        Err(answer)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it with all that is in it; nothing is done if it is gone.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

impl fmt::Display for PrivateDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if !self.path.exists() {
            return;
        }
        let path = std::mem::take(&mut self.path);
        // It may hold much, and this may be a thread of a runtime.
        let removing = thread::Builder::new().name("cofferdam-remove".to_owned()).spawn(move || {
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(directory = %path.display(), %error, "could not remove the files of a sandbox");
            }
        });
        if let Err(error) = removing {
            tracing::warn!(%error, "the files of a sandbox stay until the next start");
        }
    }
}

fn parents(given: Option<&Path>) -> Vec<&Path> {
    given.map_or_else(|| PARENTS.map(Path::new).into(), |given| vec![given])
}

/// Removes the directories of processes that are dead, and returns how many there were.
pub(crate) fn sweep(parent: Option<&Path>) -> usize {
    let own = rustix::process::geteuid().as_raw();
    let mut swept = 0;
    for parent in parents(parent) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let orphaned = entry
                .file_name()
                .to_str()
                .and_then(Owner::of_directory)
                .is_some_and(Owner::is_dead);
            // Those of other users are theirs to remove; root's sandboxes are other users.
            let ours = || entry.metadata().is_ok_and(|found| own == 0 || found.uid() == own);
            if orphaned && ours() {
                match remove_tree(&entry.path()) {
                    Ok(()) => swept += 1,
                    Err(error) => {
                        tracing::warn!(directory = %entry.path().display(), %error, "could not remove the files of a dead process's sandbox");
                    }
                }
            }
        }
    }
    swept
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open_directory(CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let deadline = Instant::now() + PATIENCE;
    let mut moved = 0;
    while empty(&top, &mut moved)? {
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        removed => Ok(removed?),
    }
}

/// Removes the entries of a directory; what is in its directories becomes entries of its own. Returns false when there was
/// none.
fn empty(top: &OwnedFd, moved: &mut u64) -> io::Result<bool> {
    let mut found = false;
    for name in names(top)? {
        found = true;
        let Some(below) = remove_or_open(top, &name)? else { continue };
        for inner in names(&below)? {
            if remove_or_open(&below, &inner)?.is_none() {
                continue;
            }
            *moved += 1;
            match renameat(&below, &*inner, top, format!("{moved}.moved")) {
                // Somebody has the name; the next pass takes another one.
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match unlinkat(top, &*name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Removes what is no directory, and opens what is one.
fn remove_or_open(directory: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match open_directory(directory, name) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// Opens a directory, and makes it one that its owner may change.
fn open_directory(
    at: impl AsFd + Copy,
    name: impl rustix::path::Arg + Copy,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let owner = Mode::RWXU;
    match openat(at, name, OFlags::RDONLY | flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let closed = openat(at, name, OFlags::PATH | flags, Mode::empty())?;
            // The link leads to this very directory.
            let link = format!("/proc/self/fd/{}", closed.as_raw_fd());
            chmodat(CWD, link, owner, AtFlags::empty())?;
            openat(at, name, OFlags::RDONLY | flags, Mode::empty())
        }
        opened => {
            let opened = opened?;
            fchmod(&opened, owner)?;
            Ok(opened)
        }
    }
}

/// Names that one pass looks at, so that what is held in memory has a bound.
const PASS: usize = 4096;

fn names(directory: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    let entries = Dir::read_from(directory)?.filter_map(|entry| match entry {
        Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => None,
        Ok(entry) => Some(Ok(entry.file_name().to_owned())),
        Err(error) => Some(Err(error.into())),
    });
    entries.take(PASS).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_hostile_tree_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().expect("a directory");
        let outside = place.path().join("outside");
        fs::create_dir(&outside).expect("made");
        fs::write(outside.join("file"), "kept").expect("written");
        let private = PrivateDirectory::make(Some(place.path()), "private", None).expect("made");
        // Deeper than a path may be long, and than descriptors may be open.
        let mut at = openat(CWD, private.path(), OFlags::DIRECTORY, Mode::empty()).expect("opens");
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "deep", Mode::RWXU).expect("made");
            at = openat(&at, "deep", OFlags::DIRECTORY, Mode::empty()).expect("opens");
        }
        symlink(&outside, private.path().join("link")).expect("linked");
        let closed = private.path().join("closed");
        fs::create_dir(&closed).expect("made");
        symlink(&outside, closed.join("link")).expect("linked");
        fs::create_dir(closed.join("inner")).expect("made");
        fs::create_dir(private.path().join("1.moved")).expect("made");
        fs::write(private.path().join("1.moved/file"), "x").expect("written");
        for path in [closed.join("inner"), closed] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("closed");
        }
        for number in 0..2 * PASS {
            fs::write(private.path().join(format!("many{number}")), "").expect("written");
        }
        private.remove().expect("removed");
        assert!(!private.path().exists());
        assert_eq!(fs::read_to_string(outside.join("file")).expect("there"), "kept");
        assert_eq!(fs::metadata(&outside).expect("there").mode() & 0o777, 0o755);
        private.remove().expect("it is gone already");
    }

    #[test]
    fn it_goes_with_its_last_owner_and_is_closed_to_others() {
        let place = tempfile::tempdir().expect("a directory");
        let private = PrivateDirectory::make(Some(place.path()), "private", None).expect("made");
        let path = private.path().to_owned();
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o700);
        let error = PrivateDirectory::make(Some(place.path()), "private", None).expect_err("there");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        drop(private);
        let deadline = Instant::now() + Duration::from_secs(20);
        while path.exists() {
            assert!(Instant::now() < deadline, "it is still there");
            thread::yield_now();
        }
    }

    #[test]
    fn what_a_dead_process_left_is_swept() {
        let place = tempfile::tempdir().expect("a directory");
        let current = Owner::current();
        let names = [
            Owner::before(current).directory_name("a"),
            current.directory_name("b"),
            "other".to_owned(),
        ];
        for name in &names {
            fs::create_dir_all(place.path().join(name).join("workspace")).expect("made");
        }
        assert_eq!(sweep(Some(place.path())), 1);
        assert_eq!(names.map(|name| place.path().join(name).exists()), [false, true, true]);
    }
}

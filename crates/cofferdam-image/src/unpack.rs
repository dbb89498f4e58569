//! Unpacks one layer into an empty directory, in the form that overlay file systems stack.
//!
//! A whiteout becomes a character device 0:0, which the kernel lets anybody make; an opaque directory gets the attribute
//! `user.overlay.opaque`, which overlays in a user namespace read. Everything becomes readable for all and writable for
//! its owner, without set-id bits: who runs in the sandbox is not who owned the files where the image was built, and the
//! tree is only ever shown read-only. Owners are not kept. Device nodes and fifos are left out.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, Timespec, Timestamps, XattrFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    EntryProblem, ImageError, ImageLimits, confine,
    member_path::{self, Name},
    members::{self, Kind, Member},
};

/// What overlays in a user namespace read as "nothing of the layers below".
const OPAQUE_ATTRIBUTE: &str = "user.overlay.opaque";
/// What a file or directory takes besides its content, in bytes, as far as the size of the cache is concerned.
pub(crate) const ENTRY_BYTES: u64 = 4096;

/// What is known of an unpacked layer; written beside its tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LayerFacts {
    /// Files, links and directories, whiteouts included.
    pub(crate) entries: u64,
    /// Bytes of the disk, estimated.
    pub(crate) disk_bytes: u64,
    /// Whether nothing of the layers below is seen.
    pub(crate) hides_all: bool,
    /// Directories in which nothing of the layers below is seen.
    pub(crate) opaque: BTreeSet<PathBuf>,
    /// Whiteouts.
    pub(crate) whiteouts: u64,
    /// Whether the tree itself carries the marks, so that an overlay can stack it.
    pub(crate) stackable: bool,
    /// Device nodes and fifos that were left out.
    pub(crate) left_out: u64,
}

/// Unpacks the members of a tar stream into the empty directory `tree`.
///
/// # Errors
///
/// [`ImageError::Entry`] for the first entry that is refused. Nothing was made outside of `tree`; what is in it is
/// useless.
pub(crate) fn unpack(
    stream: impl Read,
    what: &str,
    tree: &OwnedFd,
    limits: &ImageLimits,
) -> Result<LayerFacts, ImageError> {
    let facts = LayerFacts { stackable: true, ..LayerFacts::default() };
    let mut unpacker = Unpacker { tree, limits, facts, parent: None };
    let mut archive = tar::Archive::new(stream);
    let entries = archive.entries().map_err(|error| members::broken(what, error))?;
    members::walk(entries, what, |member, content| unpacker.add(member, content, what))?;
    Ok(unpacker.facts)
}

struct Unpacker<'a> {
    tree: &'a OwnedFd,
    limits: &'a ImageLimits,
    facts: LayerFacts,
    /// The directory of the last entry: most entries are in the same one as the entry before. Directories are never
    /// removed here, so it stays the right one.
    parent: Option<(PathBuf, OwnedFd)>,
}

/// Why an entry was not made.
enum Trouble {
    Refused(EntryProblem),
    Host(Errno),
    Failed(ImageError),
}

impl From<EntryProblem> for Trouble {
    fn from(problem: EntryProblem) -> Self {
        Self::Refused(problem)
    }
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Host(errno)
    }
}

impl From<ImageError> for Trouble {
    fn from(error: ImageError) -> Self {
        Self::Failed(error)
    }
}

impl Unpacker<'_> {
    fn add(
        &mut self,
        member: &Member,
        content: &mut dyn Read,
        what: &str,
    ) -> Result<(), ImageError> {
        self.make(member, content, what).map_err(|trouble| match trouble {
            Trouble::Refused(problem) => member.refused(problem),
            Trouble::Failed(error) => error,
            Trouble::Host(errno) => {
                ImageError::Cache { operation: "unpack a layer", source: errno.into() }
            }
        })
    }

    fn make(&mut self, member: &Member, content: &mut dyn Read, what: &str) -> Result<(), Trouble> {
        let path = member_path::parse(&member.path)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        match member_path::classify(&path)? {
            Name::Bookkeeping => Ok(()),
            Name::Root if member.kind == Kind::Directory => Ok(()),
            Name::Root => Err(EntryProblem::NoName.into()),
            Name::Opaque => self.make_opaque(directory),
            Name::Whiteout(name) => self.hide(directory, name.as_ref()),
            Name::Plain => self.make_plain(&path, member, content, what),
        }
    }

    fn make_plain(
        &mut self,
        path: &Path,
        member: &Member,
        content: &mut dyn Read,
        what: &str,
    ) -> Result<(), Trouble> {
        if member.kind == Kind::Directory {
            return self.make_directory(path, &member.attributes);
        }
        if member.kind == Kind::Special {
            self.facts.left_out += 1;
            return Ok(());
        }
        let Some(name) = path.file_name() else { return Err(EntryProblem::NoName.into()) };
        self.count(member.size)?;
        // The parent is made first, so that a link to a directory that was not listed finds it.
        self.enter(path.parent().unwrap_or(Path::new("")))?;
        let made = match member.kind {
            Kind::File => self.once(name, |parent| confine::create_file(parent, name)).map(Some),
            Kind::Symlink => {
                let target = symlink_target(&member.link)?;
                self.once(name, |parent| {
                    rustix::fs::symlinkat(target, parent, Path::new(name)).map(|()| None)
                })
            }
            _ => {
                let target = self.link_target(&member.link)?;
                self.once(name, |parent| {
                    let (source, source_name) = &target;
                    let name = Path::new(name);
                    rustix::fs::linkat(source, source_name, parent, name, AtFlags::empty())
                        .map(|()| None)
                })
            }
        };
        match made? {
            Some(file) => write_file(file, member, content, what),
            None => Ok(()),
        }
    }

    /// Makes a directory and those above it; one that is there stays.
    fn make_directory(
        &mut self,
        path: &Path,
        attributes: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), Trouble> {
        self.enter(path)?;
        if let Some((_, opened)) = &self.parent {
            set_attributes(opened, attributes)?;
        }
        Ok(())
    }

    /// Makes the directory `path` the one in which names are made; makes it and those above it if they are not there.
    fn enter(&mut self, path: &Path) -> Result<(), Trouble> {
        if self.parent.as_ref().is_some_and(|(entered, _)| entered == path) {
            return Ok(());
        }
        let opened = match confine::open_directory(self.tree, path) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(EntryProblem::ThroughLink.into());
                };
                self.enter(above)?;
                self.count(0)?;
                let parent = self.entered()?;
                match confine::make_directory(parent, name) {
                    // A whiteout of this layer, which says that what was there before is gone, or what no directory
                    // may lead through.
                    Err(Errno::EXIST) if !remove_whiteout(parent, name)? => {
                        return Err(EntryProblem::ThroughLink.into());
                    }
                    Err(Errno::EXIST) => {
                        let made = confine::make_directory(parent, name)?;
                        self.facts.whiteouts = self.facts.whiteouts.saturating_sub(1);
                        self.mark_opaque(path)?;
                        made
                    }
                    made => made?,
                }
            }
            Err(Errno::NAMETOOLONG) => return Err(EntryProblem::TooLong.into()),
            Err(errno) => return Err(errno.into()),
        };
        self.parent = Some((path.to_owned(), opened));
        Ok(())
    }

    fn entered(&self) -> Result<&OwnedFd, Trouble> {
        match &self.parent {
            Some((_, opened)) => Ok(opened),
            None => Ok(self.tree),
        }
    }

    /// Makes a name that is not there yet, or only as a whiteout of this layer.
    fn once<T>(
        &mut self,
        name: &std::ffi::OsStr,
        make: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, Trouble> {
        let parent = self.entered()?;
        match make(parent) {
            Err(Errno::EXIST) if remove_whiteout(parent, name)? => {
                let made = make(parent)?;
                self.facts.whiteouts = self.facts.whiteouts.saturating_sub(1);
                Ok(made)
            }
            Err(Errno::EXIST) => Err(EntryProblem::Duplicate.into()),
            Err(Errno::NAMETOOLONG) => Err(EntryProblem::TooLong.into()),
            made => Ok(made?),
        }
    }

    /// Finds the target of a hard link: a file or symbolic link that this layer has made.
    fn link_target(&self, link: &[u8]) -> Result<(OwnedFd, PathBuf), Trouble> {
        let path = member_path::parse(link)?;
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(EntryProblem::LinkTarget.into());
        };
        let parent = match confine::open_directory(self.tree, above) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return Err(EntryProblem::LinkTarget.into());
            }
            opened => opened?,
        };
        let found = confine::stat_here(&parent, name)?;
        match found.as_ref().map(confine::kind_of) {
            Some(FileType::RegularFile | FileType::Symlink) => Ok((parent, name.into())),
            _ => Err(EntryProblem::LinkTarget.into()),
        }
    }

    /// Makes a whiteout. What this layer itself has under the name stays.
    fn hide(&mut self, directory: &Path, name: &Path) -> Result<(), Trouble> {
        self.count(0)?;
        self.enter(directory)?;
        let parent = self.entered()?;
        match confine::make_whiteout(parent, name.as_os_str()) {
            Ok(()) => {
                self.facts.whiteouts += 1;
                Ok(())
            }
            Err(Errno::EXIST) => {
                let found = confine::stat_here(parent, name.as_os_str())?;
                if found.is_some_and(|stat| confine::kind_of(&stat) == FileType::Directory) {
                    self.mark_opaque(&directory.join(name))?;
                }
                Ok(())
            }
            Err(Errno::NAMETOOLONG) => Err(EntryProblem::TooLong.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn make_opaque(&mut self, directory: &Path) -> Result<(), Trouble> {
        if directory.as_os_str().is_empty() {
            self.facts.hides_all = true;
            return Ok(());
        }
        self.count(0)?;
        self.enter(directory)?;
        self.mark_opaque(directory)
    }

    fn mark_opaque(&mut self, directory: &Path) -> Result<(), Trouble> {
        if self.facts.opaque.contains(directory) {
            return Ok(());
        }
        let opened = confine::open_directory(self.tree, directory)?;
        match rustix::fs::fsetxattr(&opened, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty()) {
            Ok(()) => {}
            // The list says it as well, and then the layers are merged instead of stacked.
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::NOSPC) => self.facts.stackable = false,
            Err(errno) => return Err(errno.into()),
        }
        self.facts.opaque.insert(directory.to_owned());
        Ok(())
    }

    fn count(&mut self, content: u64) -> Result<(), ImageError> {
        self.facts.entries += 1;
        self.facts.disk_bytes = self
            .facts
            .disk_bytes
            .saturating_add(ENTRY_BYTES)
            .saturating_add(content.next_multiple_of(ENTRY_BYTES));
        if self.facts.entries > self.limits.layer_entries {
            return Err(ImageError::TooLarge {
                what: "the number of files in a layer",
                limit: self.limits.layer_entries,
            });
        }
        Ok(())
    }
}

/// Removes a whiteout that this layer has made; false if what is there is something else.
fn remove_whiteout(parent: &OwnedFd, name: &std::ffi::OsStr) -> Result<bool, Errno> {
    match confine::stat_here(parent, name)? {
        Some(stat) if confine::is_whiteout(&stat) => {
            rustix::fs::unlinkat(parent, Path::new(name), AtFlags::empty()).map(|()| true)
        }
        _ => Ok(false),
    }
}

/// Where a symbolic link leads is decided inside the sandbox, whose root is the only one there.
fn symlink_target(link: &[u8]) -> Result<&[u8], EntryProblem> {
    if link.is_empty() || link.contains(&0) || link.len() >= 4096 {
        return Err(EntryProblem::SymbolicLink);
    }
    Ok(link)
}

fn write_file(
    mut file: File,
    member: &Member,
    content: &mut dyn Read,
    what: &str,
) -> Result<(), Trouble> {
    let written = copy(content, &mut file, what)?;
    if written != member.size {
        return Err(EntryProblem::Truncated.into());
    }
    set_attributes(file.as_fd(), &member.attributes)?;
    let executable = if member.mode & 0o111 == 0 { 0 } else { 0o111 };
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644 | executable))?;
    // Compilers and interpreters compare it. What no file system can hold is left as it is.
    let seconds = i64::try_from(member.modified).unwrap_or(0).min(1 << 33);
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
    Ok(())
}

/// Copies, and tells a failure to read from a failure to write.
fn copy(content: &mut dyn Read, file: &mut File, what: &str) -> Result<u64, ImageError> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let count = match content.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(members::broken(what, error)),
        };
        io::Write::write_all(file, &buffer[..count])
            .map_err(|source| ImageError::Cache { operation: "write a file", source })?;
        total += count as u64;
    }
}

/// Keeps the user's own attributes. All others are the kernel's (capabilities, labels) or an overlay's, for which an
/// image has no say here.
fn set_attributes(file: impl AsFd, attributes: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Errno> {
    for (name, value) in attributes {
        if !name.starts_with(b"user.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        match rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()) {
            // They matter to nobody who cannot do without them.
            Ok(())
            | Err(Errno::OPNOTSUPP | Errno::RANGE | Errno::INVAL | Errno::NOSPC | Errno::TOOBIG) => {
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

//! File operations: the small ones at once, reading and writing as tasks that the server advances piece by piece.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, OwnedFd},
};

use cofferdam_guest::{FileRequest, Metadata, ReadFile, WriteFile};

use crate::{
    outcome::{Outcome, bad_request, limit, refused},
    sys,
    workspace::{MODE_BITS, Workspace, c_string, metadata_of},
};

/// Does a small file operation; `Some` is what to answer besides the end.
pub(crate) fn perform(workspace: &Workspace, request: &FileRequest) -> Outcome<Option<Metadata>> {
    match request {
        FileRequest::Stat { path, follow } => {
            workspace.describe(path, *follow).map(Some).map_err(refused("describe", path))
        }
        FileRequest::ReadLink { path } => match workspace.describe(path, false) {
            Ok(found) if found.link_target.is_empty() => {
                Err(refused("read link", path)(sys::error(sys::EINVAL)))
            }
            result => result.map(Some).map_err(refused("read link", path)),
        },
        FileRequest::MakeDirectory { path, mode, parents } => {
            make_directory(workspace, path, *mode, *parents)
                .map(|()| None)
                .map_err(refused("make directory", path))
        }
        FileRequest::Rename { from, to, replace } => {
            let (old_parent, old) =
                workspace.parent(from, false).map_err(refused("rename", from))?;
            let (new_parent, new) =
                workspace.parent(to, false).map_err(refused("rename to", to))?;
            sys::rename(old_parent.as_fd(), &old, new_parent.as_fd(), &new, *replace)
                .map_err(refused("rename", from))?;
            Ok(None)
        }
        FileRequest::SetMode { path, mode } => {
            set_mode(workspace, path, *mode).map(|()| None).map_err(refused("set mode", path))
        }
        FileRequest::Symlink { path, target } => workspace
            .parent(path, false)
            .and_then(|(parent, name)| sys::make_symlink(&c_string(target)?, parent.as_fd(), &name))
            .map(|()| None)
            .map_err(refused("make link", path)),
        FileRequest::Remove { path, .. } => {
            remove_one(workspace, path).map(|()| None).map_err(refused("remove", path))
        }
    }
}

fn make_directory(workspace: &Workspace, path: &[u8], mode: u32, parents: bool) -> io::Result<()> {
    if parents {
        workspace.make_path(path, mode).map(drop)
    } else {
        let (parent, name) = workspace.parent(path, false)?;
        sys::make_directory(parent.as_fd(), &name, mode)
    }
}

fn set_mode(workspace: &Workspace, path: &[u8], mode: u32) -> io::Result<()> {
    let file = workspace.open_as(path, sys::O_PATH | sys::O_NOFOLLOW, 0)?;
    let found = sys::stat_open(file.as_fd())?;
    if found.is(sys::S_IFLNK) {
        return Err(sys::error(sys::ELOOP));
    }
    // By descriptor, if it can be opened: there may be no `/proc` with a name for it.
    if (found.is(sys::S_IFREG) || found.is(sys::S_IFDIR))
        && let Ok(open) =
            workspace.open_as(path, sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOFOLLOW, 0)
    {
        return sys::set_mode_open(open.as_fd(), mode & MODE_BITS);
    }
    sys::set_mode_of(file.as_fd(), mode & MODE_BITS)
}

fn remove_one(workspace: &Workspace, path: &[u8]) -> io::Result<()> {
    let (parent, name) = workspace.parent(path, false)?;
    let is_directory = sys::stat_name(parent.as_fd(), &name)?.is(sys::S_IFDIR);
    sys::remove_name(parent.as_fd(), &name, is_directory)
}

/// A file being read.
#[derive(Debug)]
pub(crate) struct Reading {
    file: File,
    path: Vec<u8>,
    left: u64,
}

impl Reading {
    pub(crate) fn open(workspace: &Workspace, request: ReadFile) -> Outcome<(Self, Metadata)> {
        let (file, found) =
            workspace.open_file(&request.path).map_err(refused("read", &request.path))?;
        let metadata =
            metadata_of(&found, file.as_fd(), c"").map_err(refused("read", &request.path))?;
        let mut file = File::from(file);
        file.seek(SeekFrom::Start(request.offset)).map_err(refused("read", &request.path))?;
        let reading = Self { file, left: request.max_bytes, path: request.path };
        Ok((reading, metadata))
    }

    /// Reads the next piece; 0 is the end of what was asked.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let length = self.file.read(&mut buffer[..wanted]).map_err(refused("read", &self.path))?;
        self.left -= length as u64;
        Ok(length)
    }
}

/// A file being written beside the one that it will replace. Dropping it before the end removes it.
#[derive(Debug)]
pub(crate) struct Writing {
    file: File,
    parent: OwnedFd,
    /// The name of the unfinished file; `None` once it has its final one.
    temporary: Option<CString>,
    name: CString,
    mode: u32,
    written: u64,
    request: WriteFile,
}

impl Writing {
    /// Starts to write. `serial` must differ between calls of one guest.
    pub(crate) fn open(workspace: &Workspace, request: WriteFile, serial: u64) -> Outcome<Self> {
        let path = request.path.clone();
        Self::open_beside(workspace, request, serial).map_err(refused("write", &path))
    }

    fn open_beside(workspace: &Workspace, request: WriteFile, serial: u64) -> io::Result<Self> {
        let (parent, name) = workspace.parent(&request.path, request.make_parents)?;
        let mut mode = request.mode & MODE_BITS;
        match sys::stat_name(parent.as_fd(), &name) {
            Ok(_) if request.must_be_new => return Err(sys::error(sys::EEXIST)),
            Ok(found) if found.is(sys::S_IFDIR) => return Err(sys::error(sys::EISDIR)),
            Ok(found) if found.is(sys::S_IFREG) && request.keep_mode => {
                mode = found.mode & MODE_BITS
            }
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(sys::ENOENT) => {}
            Err(error) => return Err(error),
        }
        let temporary = c_string(format!(".cofferdam-{}-{serial}", std::process::id()).as_bytes())?;
        let flags = sys::O_WRONLY | sys::O_CREAT | sys::O_EXCL;
        let file = match sys::open_name(parent.as_fd(), &temporary, flags, 0o600) {
            // Only something that wants to be in the way has this name.
            Err(error) if error.raw_os_error() == Some(sys::EEXIST) => {
                sys::remove_name(parent.as_fd(), &temporary, false)?;
                sys::open_name(parent.as_fd(), &temporary, flags, 0o600)?
            }
            result => result?,
        };
        Ok(Self {
            file: File::from(file),
            parent,
            temporary: Some(temporary),
            name,
            mode,
            written: 0,
            request,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.written += bytes.len() as u64;
        if self.request.expected_size.is_some_and(|size| self.written > size) {
            return Err(limit("more content than announced", &self.request.path, 0));
        }
        self.file.write_all(bytes).map_err(refused("write", &self.request.path))
    }

    /// Gives the file its mode and its name.
    pub(crate) fn finish(mut self) -> Outcome<()> {
        if self.request.expected_size.is_some_and(|size| self.written != size) {
            return Err(bad_request("less content than announced"));
        }
        let Some(temporary) = self.temporary.take() else {
            return Ok(());
        };
        let replace = !self.request.must_be_new;
        let parent = self.parent.as_fd();
        sys::set_mode_open(self.file.as_fd(), self.mode)
            .and_then(|()| sys::rename(parent, &temporary, parent, &self.name, replace))
            .map_err(|error| {
                self.temporary = Some(temporary);
                refused("write", &self.request.path)(error)
            })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // If even this fails the directory is gone or full of surprises; the next write uses another name.
            let _ = sys::remove_name(self.parent.as_fd(), temporary, false);
        }
    }
}

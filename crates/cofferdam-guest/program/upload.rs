//! Making a tree from a tree stream, beneath one directory and through no link.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt as _,
    },
};

use cofferdam_guest::{
    FileKind, Metadata, NO_TIME, TreeDecoder, TreeEntry, TreeRecord, UploadTree,
};

use crate::{
    outcome::{Outcome, bad_request, bad_stream, limit, refused},
    sys,
    workspace::{MODE_BITS, Workspace, c_string, check_path, require_regular},
};

/// Directories whose mode and time wait for the end.
const MAX_DIRECTORIES: usize = 1 << 18;

/// Whole blocks of zeros are not written, so that a file with holes occupies what its content does.
const BLOCK: usize = 4096;

const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A tree being made.
#[derive(Debug)]
pub(crate) struct Upload {
    decoder: TreeDecoder,
    root: Workspace,
    entries: u64,
    file: Option<OpenFile>,
    /// The directory of the last entry, since files of one directory come together.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Set at the end: a directory may be read-only, and filling it changes its time.
    directories: Vec<(Vec<u8>, u32, i64)>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    path: Vec<u8>,
    size: u64,
    left: u64,
    /// How much of a block has come since the last border of one.
    in_block: usize,
    /// Zeros at the end of what has come, not written yet.
    zeros: usize,
    mode: u32,
    modified_ns: i64,
}

impl Upload {
    pub(crate) fn open(workspace: &Workspace, request: &UploadTree) -> Outcome<Self> {
        let root = workspace
            .make_path(&request.path, 0o755)
            .and_then(|_| workspace.beneath(&request.path))
            .map_err(refused("upload to", &request.path))?;
        Ok(Self {
            decoder: TreeDecoder::with_content(),
            root,
            entries: 0,
            file: None,
            parent: None,
            directories: Vec::new(),
        })
    }

    /// Takes a piece of the stream.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        let mut decoder = std::mem::replace(&mut self.decoder, TreeDecoder::with_content());
        decoder.push(bytes);
        let result = loop {
            let step = match decoder.next_record() {
                Ok(None) => break Ok(()),
                Ok(Some(record)) => self.apply(record),
                Err(error) => Err(bad_stream(&error)),
            };
            if step.is_err() {
                break step;
            }
        };
        self.decoder = decoder;
        result
    }

    /// Sets what had to wait, and returns the number of entries made.
    pub(crate) fn finish(mut self) -> Outcome<u64> {
        if !self.decoder.ended() {
            return Err(bad_request("the tree stream is cut short"));
        }
        for (path, mode, modified_ns) in std::mem::take(&mut self.directories).iter().rev() {
            let set = || -> io::Result<()> {
                let directory = self.open_parent_of(path, sys::O_RDONLY)?;
                sys::set_mode_open(directory.as_fd(), *mode)?;
                if *modified_ns != NO_TIME {
                    sys::set_time_open(directory.as_fd(), *modified_ns)?;
                }
                Ok(())
            };
            set().map_err(refused("set mode of directory", path))?;
        }
        Ok(self.entries)
    }

    fn apply(&mut self, record: TreeRecord<'_>) -> Outcome<()> {
        match record {
            TreeRecord::Entry(entry) => {
                self.entries += 1;
                self.make(entry)
            }
            TreeRecord::Content(bytes) => {
                let Some(open) = &mut self.file else {
                    return Err(bad_request("content without a file"));
                };
                open.write(bytes).map_err(refused("write", &open.path))?;
                if open.left == 0 { self.close_file() } else { Ok(()) }
            }
            TreeRecord::HardLink { path, to } => {
                self.entries += 1;
                self.make_hard_link(&path, &to)
            }
            TreeRecord::Scanned(_) => Err(bad_request("a scanned entry cannot be made")),
            TreeRecord::Skipped { .. } | TreeRecord::End { .. } => Ok(()),
        }
    }

    fn make(&mut self, entry: TreeEntry) -> Outcome<()> {
        let TreeEntry { path, metadata } = entry;
        check_path(&path).map_err(refused("make", &path))?;
        if metadata.kind == FileKind::Directory {
            return self.make_directory(path, &metadata);
        }
        let fail = || refused("make", &path);
        let (parent, name) = self.free_name(&path).map_err(fail())?;
        match metadata.kind {
            FileKind::Symlink => {
                c_string(&metadata.link_target)
                    .and_then(|target| sys::make_symlink(&target, parent.as_fd(), &name))
                    .map_err(fail())?;
                set_link_time(&parent, &name, metadata.modified_ns).map_err(fail())
            }
            FileKind::Regular => {
                let flags = sys::O_WRONLY | sys::O_CREAT | sys::O_EXCL;
                let file = sys::open_name(parent.as_fd(), &name, flags, 0o600).map_err(fail())?;
                self.file = Some(OpenFile {
                    file: File::from(file),
                    path,
                    size: metadata.size,
                    left: metadata.size,
                    in_block: 0,
                    zeros: 0,
                    mode: metadata.mode & MODE_BITS,
                    modified_ns: metadata.modified_ns,
                });
                if metadata.size == 0 { self.close_file() } else { Ok(()) }
            }
            _ => Err(bad_request("only directories, files and links can be made")),
        }
    }

    fn make_directory(&mut self, path: Vec<u8>, metadata: &Metadata) -> Outcome<()> {
        let fail = || refused("make directory", &path);
        if self.directories.len() == MAX_DIRECTORIES {
            return Err(limit("too many directories", &path, 0));
        }
        let (above, name) = split(&path);
        if !name.is_empty() {
            let parent = self.parent_directory(above).map_err(fail())?;
            let name = c_string(name).map_err(fail())?;
            match sys::stat_name(parent.as_fd(), &name) {
                Ok(found) if found.is(sys::S_IFDIR) => {}
                Ok(_) => {
                    sys::remove_name(parent.as_fd(), &name, false).map_err(fail())?;
                    sys::make_directory(parent.as_fd(), &name, 0o700).map_err(fail())?;
                }
                Err(_) => sys::make_directory(parent.as_fd(), &name, 0o700).map_err(fail())?,
            }
        }
        self.directories.push((path, metadata.mode & MODE_BITS, metadata.modified_ns));
        Ok(())
    }

    fn make_hard_link(&mut self, path: &[u8], to: &[u8]) -> Outcome<()> {
        let fail = || refused("link", path);
        check_path(path).map_err(fail())?;
        check_path(to).map_err(refused("link to", to))?;
        let (above, name) = split(to);
        let old = c_string(name).map_err(fail())?;
        let from = self.open_parent_of(above, sys::O_PATH).map_err(refused("link to", to))?;
        let found = sys::stat_name(from.as_fd(), &old).map_err(refused("link to", to))?;
        require_regular(&found).map_err(refused("link to", to))?;
        if path == to {
            return Err(fail()(sys::error(sys::EINVAL)));
        }
        let (parent, name) = self.free_name(path).map_err(fail())?;
        sys::make_hard_link(from.as_fd(), &old, parent.as_fd(), &name).map_err(fail())
    }

    /// Removes a file or link of this name if there is one, and opens the directory that it belongs into.
    fn free_name(&mut self, path: &[u8]) -> io::Result<(OwnedFd, CString)> {
        let (above, name) = split(path);
        let name = c_string(name)?;
        if name.is_empty() {
            return Err(sys::error(sys::EINVAL));
        }
        let parent = self.parent_directory(above)?;
        match sys::remove_name(parent.as_fd(), &name, false) {
            Err(error) if error.raw_os_error() != Some(sys::ENOENT) => Err(error),
            _ => Ok((parent, name)),
        }
    }

    fn close_file(&mut self) -> Outcome<()> {
        let Some(open) = self.file.take() else {
            return Ok(());
        };
        // What ends in a hole has its size by this alone.
        open.file
            .set_len(open.size)
            .and_then(|()| sys::set_mode_open(open.file.as_fd(), open.mode))
            .and_then(|()| match open.modified_ns {
                NO_TIME => Ok(()),
                modified_ns => sys::set_time_open(open.file.as_fd(), modified_ns),
            })
            .map_err(refused("write", &open.path))
    }

    /// Opens the directory of an entry; directories that the stream does not mention are made.
    fn parent_directory(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        if let Some((last, directory)) = &self.parent
            && last == path
        {
            return directory.try_clone();
        }
        let directory = match self.open_parent_of(path, sys::O_PATH) {
            Err(error) if error.raw_os_error() == Some(sys::ENOENT) => {
                self.root.make_path(path, 0o755)?;
                self.open_parent_of(path, sys::O_PATH)?
            }
            result => result?,
        };
        self.parent = Some((path.to_vec(), directory.try_clone()?));
        Ok(directory)
    }

    fn open_parent_of(&self, path: &[u8], access: i32) -> io::Result<OwnedFd> {
        self.root.open_as(path, access | sys::O_DIRECTORY, sys::RESOLVE_NO_SYMLINKS)
    }
}

impl OpenFile {
    /// Writes the next bytes, without the whole blocks of zeros among them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let start = self.size - self.left;
        // What is to be written at once; it ends where the last piece with more than zeros did.
        let mut run = 0..0;
        let mut position = 0;
        while position < bytes.len() {
            let at = start + position as u64;
            let end = bytes.len().min(position + BLOCK - self.in_block);
            if bytes[position..end] == ZEROS[..end - position] {
                self.zeros = self.zeros.saturating_add(end - position);
            } else {
                if self.zeros > 0 {
                    self.file.write_all_at(&bytes[run.clone()], start + run.start as u64)?;
                    // Zeros of this very block are no hole; those of blocks before are.
                    let held = self.zeros.min(self.in_block);
                    self.file.write_all_at(&ZEROS[..held], at - held as u64)?;
                    self.zeros = 0;
                    run.start = position;
                }
                run.end = end;
            }
            self.in_block = (self.in_block + end - position) % BLOCK;
            position = end;
        }
        self.left -= bytes.len() as u64;
        self.file.write_all_at(&bytes[run.clone()], start + run.start as u64)
    }
}

/// Sets the time of a link, which cannot be opened. Where nothing may be changed by name, it has the time at which it was made.
fn set_link_time(parent: &OwnedFd, name: &CString, modified_ns: i64) -> io::Result<()> {
    if modified_ns == NO_TIME {
        return Ok(());
    }
    match sys::set_time(parent.as_fd(), name, modified_ns) {
        Err(error) if error.raw_os_error() == Some(sys::EPERM) => Ok(()),
        set => set,
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

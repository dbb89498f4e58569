//! [`Bundle`]: where the parts of an image lie, a directory or one tar file.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::{fs::FileType, io::Errno};

use crate::{
    Digest, Fetch, ImageError, ImageLimits, confine,
    document::malformed,
    members::{self, Kind},
};

/// A part of an image, to be read once.
pub(crate) struct Part {
    pub(crate) reader: Box<dyn Read + Send>,
    /// Not known of what is fetched.
    pub(crate) size: Option<u64>,
}

/// Files by name.
#[derive(Debug)]
pub(crate) enum Bundle {
    Directory {
        path: PathBuf,
        root: OwnedFd,
    },
    Archive {
        path: PathBuf,
        file: Arc<File>,
        index: HashMap<PathBuf, Place>,
    },
    /// Parts by their digests, under the names that a layout gives them.
    Elsewhere {
        name: PathBuf,
        fetch: Arc<dyn Fetch>,
    },
}

/// Where a file of an archive is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    At {
        offset: u64,
        size: u64,
    },
    /// As its content lies elsewhere in the archive: `docker save` writes equal layers once.
    SameAs(PathBuf),
}

impl Bundle {
    pub(crate) fn directory(path: &Path) -> Result<Self, ImageError> {
        let root = confine::open_host_directory(path).map_err(source(path))?;
        Ok(Self::Directory { path: path.to_owned(), root })
    }

    /// Reads the names in a tar file that is not compressed.
    pub(crate) fn archive(
        path: &Path,
        file: File,
        limits: &ImageLimits,
    ) -> Result<Self, ImageError> {
        let what = path.display().to_string();
        let mut index = HashMap::new();
        let length = file.metadata().map_err(source(path))?.len();
        let mut reader = tar::Archive::new(&file);
        (&file).rewind().map_err(source(path))?;
        let entries = reader.entries_with_seek().map_err(|error| members::broken(&what, error))?;
        members::walk(entries, &what, |member, _| {
            let name = crate::member_path::parse(&member.path)
                .map_err(|problem| member.refused(problem))?;
            let place = match member.kind {
                Kind::File if member.offset.saturating_add(member.size) > length => {
                    return Err(member.refused(crate::EntryProblem::Truncated));
                }
                Kind::File => Place::At { offset: member.offset, size: member.size },
                Kind::Symlink | Kind::HardLink => Place::SameAs(target(&name, member)),
                Kind::Directory | Kind::Special => return Ok(()),
            };
            if index.len() >= limits.archive_files {
                let limit = limits.archive_files as u64;
                return Err(ImageError::TooLarge {
                    what: "the number of files in an archive",
                    limit,
                });
            }
            if index.insert(name, place).is_some() {
                return Err(member.refused(crate::EntryProblem::Duplicate));
            }
            Ok(())
        })?;
        Ok(Self::Archive { path: path.to_owned(), file: Arc::new(file), index })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Directory { path, .. }
            | Self::Archive { path, .. }
            | Self::Elsewhere { name: path, .. } => path,
        }
    }

    /// Opens a file; `None` if there is none of this name.
    pub(crate) fn open(&self, name: &Path) -> Result<Option<Part>, ImageError> {
        match self {
            Self::Directory { root, path } => {
                let opened = match confine::open_following(root, name) {
                    Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                    opened => opened.map_err(|errno| source(&path.join(name))(errno.into()))?,
                };
                let found = rustix::fs::fstat(&opened)
                    .map_err(|errno| source(&path.join(name))(errno.into()))?;
                if confine::kind_of(&found) != FileType::RegularFile {
                    return Err(malformed(&name.display().to_string(), "it is no file".to_owned()));
                }
                let size = u64::try_from(found.st_size).ok();
                Ok(Some(Part { reader: Box::new(File::from(opened)), size }))
            }
            Self::Archive { file, index, .. } => {
                // One step: an archive in which links lead to links is made by nobody.
                let place = match index.get(name) {
                    Some(Place::SameAs(other)) => index.get(other),
                    place => place,
                };
                let Some(&Place::At { offset, size }) = place else { return Ok(None) };
                let section = Section { file: Arc::clone(file), at: offset, end: offset + size };
                Ok(Some(Part { reader: Box::new(section), size: Some(size) }))
            }
            Self::Elsewhere { fetch, .. } => {
                let digits = name.file_name().and_then(|name| name.to_str());
                let Some(digest) = digits.and_then(Digest::from_hex) else { return Ok(None) };
                Ok(Some(Part { reader: fetch.blob(&digest)?, size: None }))
            }
        }
    }

    /// Reads a small file whole; `None` if there is none of this name.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(part) = self.open(Path::new(name))? else { return Ok(None) };
        let too_large = ImageError::TooLarge { what: "a document of an image, in bytes,", limit };
        if part.size.is_some_and(|size| size > limit) {
            return Err(too_large);
        }
        let mut bytes = Vec::new();
        let mut reader = part.reader.take(limit + 1);
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| members::broken(&self.path().join(name).to_string_lossy(), error))?;
        // It may have grown since.
        if bytes.len() as u64 > limit { Err(too_large) } else { Ok(Some(bytes)) }
    }

    /// Reads an index or a manifest; `None` if it is not there.
    pub(crate) fn read_manifest(
        &self,
        digest: &Digest,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, ImageError> {
        match self {
            // Registries keep them apart from all else.
            Self::Elsewhere { fetch, .. } => fetch.manifest(digest, limit).map(Some),
            _ => self.read(&Self::blob_name(digest), limit),
        }
    }

    /// Returns the name under which an image layout keeps what has this digest.
    pub(crate) fn blob_name(digest: &Digest) -> String {
        format!("blobs/sha256/{}", digest.hex())
    }
}

/// Returns the name in the archive that a link stands for. What leads out of the archive names nothing in it.
fn target(name: &Path, member: &members::Member) -> PathBuf {
    let link = String::from_utf8_lossy(&member.link);
    let mut path = match member.kind {
        Kind::Symlink => name.parent().unwrap_or(Path::new("")).to_owned(),
        _ => PathBuf::new(),
    };
    for component in Path::new(link.as_ref()).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path
}

/// A part of a file, read where it lies.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let count = self.file.read_at(&mut buffer[..length], self.at)?;
        if count == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

/// Makes the error for a source that cannot be read.
pub(crate) fn source(path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Source { path, source }
}

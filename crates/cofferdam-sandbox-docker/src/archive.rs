//! Root file systems and image files as streams of bytes with a name that says what is in them.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use futures::{Stream, stream};
use tokio::sync::mpsc;

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// Something that an engine can take in.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    hash: blake3::Hash,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    /// A directory that is packed on the way.
    Directory(PathBuf),
    /// A directory as it is, and one file that is not in it.
    DirectoryWith(PathBuf, &'static str, Vec<u8>),
    Bytes(Vec<u8>),
}

/// Reads a file once, to know what is in it; again only after it has changed.
pub(crate) async fn of_file(file: &Path) -> io::Result<Packed> {
    of(Source::File(file.to_owned())).await
}

/// Reads a directory once, to know what is in it; again only after something in it has changed.
pub(crate) async fn of_directory(directory: &Path) -> io::Result<Packed> {
    of(Source::Directory(directory.to_owned())).await
}

/// A directory with a file more than it has.
pub(crate) async fn of_directory_with(
    directory: &Path,
    name: &'static str,
    content: Vec<u8>,
) -> io::Result<Packed> {
    of(Source::DirectoryWith(directory.to_owned(), name, content)).await
}

/// A root file system with one empty directory.
pub(crate) fn empty() -> io::Result<Packed> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    builder.append_data(&mut header, "etc", io::empty())?;
    let bytes = builder.into_inner()?;
    Ok(Packed { hash: blake3::hash(&bytes), source: Source::Bytes(bytes) })
}

async fn of(source: Source) -> io::Result<Packed> {
    tokio::task::spawn_blocking(move || {
        /// Hashes of what was read, by what the file system says of it.
        static KNOWN: OnceLock<Mutex<HashMap<blake3::Hash, blake3::Hash>>> = OnceLock::new();
        /// More than one process uses; then it is forgotten and read again.
        const MOST: usize = 1024;
        let known = KNOWN.get_or_init(Mutex::default);
        let print = source.fingerprint()?;
        let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&hash) = lock().get(&print) {
            return Ok(Packed { hash, source });
        }
        let mut hasher = blake3::Hasher::new();
        source.write(&mut hasher)?;
        let hash = hasher.finalize();
        let mut known = lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(print, hash);
        Ok(Packed { hash, source })
    })
    .await
    .map_err(io::Error::other)?
}

impl Packed {
    /// Returns a tag for the content, and for a part of it that is named.
    pub(crate) fn tag(&self, part: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.hash.as_bytes()).update(part.as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Reads it again, for the engine. If the reader goes, reading stops.
    pub(crate) fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (sender, receiver) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || {
            let mut writer = Pieces { sender: sender.clone(), piece: Vec::with_capacity(PIECE) };
            let written = self.source.write(&mut writer).and_then(|()| writer.flush());
            if let Err(error) = written {
                // Nobody is left to be told, if that is why it failed.
                let _ = sender.blocking_send(Err(error));
            }
        });
        stream::unfold(
            receiver,
            |mut receiver| async move { Some((receiver.recv().await?, receiver)) },
        )
    }
}

impl Source {
    /// What the file system says: path, size, times and number of each file. Reads nothing.
    fn fingerprint(&self) -> io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        match self {
            Self::Bytes(bytes) => {
                hasher.update(bytes);
            }
            Self::File(file) => {
                let file = file.canonicalize()?;
                print(&mut hasher, &file, &file.metadata()?);
            }
            Self::Directory(directory) | Self::DirectoryWith(directory, _, _) => {
                let top = directory.canonicalize()?;
                hasher.update(b"directory");
                walk(&top, &mut |path, metadata| {
                    print(&mut hasher, path, metadata);
                    Ok(())
                })?;
            }
        }
        if let Self::DirectoryWith(_, name, content) = self {
            hasher.update(name.as_bytes()).update(content);
        }
        Ok(hasher.finalize())
    }

    fn write(&self, writer: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => writer.write_all(bytes),
            Self::File(file) => io::copy(&mut File::open(file)?, writer).map(drop),
            Self::Directory(directory) => pack(directory, None, writer),
            Self::DirectoryWith(directory, name, content) => {
                pack(directory, Some((name, content)), writer)
            }
        }
    }
}

/// Writes a tar file of a directory, names in order, so that the same content has the same hash.
fn pack(directory: &Path, more: Option<(&str, &[u8])>, writer: &mut dyn Write) -> io::Result<()> {
    let top = directory.canonicalize()?;
    let mut builder = tar::Builder::new(writer);
    builder.follow_symlinks(false);
    walk(&top, &mut |path, metadata| {
        let kind = metadata.file_type();
        let ordinary = kind.is_dir() || kind.is_file() || kind.is_symlink();
        match path.strip_prefix(&top) {
            // Sockets, fifos and devices are nothing that a sandbox's root needs.
            Ok(name) if ordinary && name != Path::new("") => {
                builder.append_path_with_name(path, name)
            }
            _ => Ok(()),
        }
    })?;
    if let Some((name, content)) = more {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content)?;
    }
    builder.finish()
}

/// Visits everything below a directory, in the order of names, and passes through no link.
fn walk(
    path: &Path,
    visit: &mut dyn FnMut(&Path, &std::fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    // Directories nest deeper than a stack reaches.
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata()?;
        visit(&path, &metadata)?;
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path()));
            let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
            entries.sort_unstable_by(|a, b| b.cmp(a));
            left.append(&mut entries);
        }
    }
    Ok(())
}

fn print(hasher: &mut blake3::Hasher, path: &Path, metadata: &std::fs::Metadata) {
    let name = path.as_os_str().as_encoded_bytes();
    hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified = modified.unwrap_or_default().as_nanos();
    hasher.update(&metadata.len().to_le_bytes()).update(&modified.to_le_bytes());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        for number in [metadata.ino(), metadata.dev(), metadata.mode().into()] {
            hasher.update(&number.to_le_bytes());
        }
        for time in [metadata.ctime(), metadata.ctime_nsec()] {
            hasher.update(&time.to_le_bytes());
        }
    }
}

/// Cuts what is written to pieces for the engine, and waits for it.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(Ok(piece.into())).map_err(gone)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_directory_is_packed_in_order_and_its_tag_follows_its_content() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        std::fs::create_dir(path.join("b")).expect("a directory");
        std::fs::write(path.join("b/file"), "one").expect("a file");
        std::os::unix::fs::symlink("/etc/passwd", path.join("a")).expect("a link");
        let packed = of_directory(path).await.expect("packed");
        let bytes: Vec<Bytes> = packed.clone().stream().try_collect().await.expect("bytes");
        let bytes = bytes.concat();
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<_> = archive
            .entries()
            .expect("entries")
            .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
            .collect();
        assert_eq!(names, ["a", "b", "b/file"]);

        assert_eq!(of_directory(path).await.expect("packed").tag(""), packed.tag(""));
        assert_ne!(packed.tag("part"), packed.tag(""));
        std::fs::write(path.join("b/file"), "two").expect("a file");
        assert_ne!(of_directory(path).await.expect("packed").tag(""), packed.tag(""));
    }

    #[tokio::test]
    async fn a_reader_that_goes_stops_the_reading() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("big"), vec![1; 4 * PIECE]).expect("a file");
        let packed = of_directory(directory.path()).await.expect("packed");
        let first = Box::pin(packed.stream()).try_next().await.expect("no error");
        assert!(first.is_some_and(|piece| piece.len() >= PIECE));
    }
}

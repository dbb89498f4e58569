//! [`DurableLocal`]: an object store in a directory, whose objects are on the disk when a put returns.
//!
//! A put writes a file aside, has it written to the disk (`fsync`), gives it its name in one step (`rename`, or `link` where
//! nothing may be replaced), and has the directory written. That makes two requests to the disk for an object; puts into one directory at the same time share the
//! second.
//!
//! # Why not the local store of `object_store`?
//!
//! It does not ask the disk unless it is told to (`with_fsync`). Then it asks for each directory once for each object; what a
//! crash leaves aside stays for ever, and no list shows it; who finds an object that is there already knows nothing of the
//! disk; and files are for everybody to read. Reading and listing are left to it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path as FilePath, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    local::LocalFileSystem, path::Path,
};

const NAME: &str = "DurableLocal";
/// Where files are written before they have their name.
const STAGING: &str = ".staging";

/// An object store in a directory of this host, durable on return.
///
/// Several processes may use one directory at the same time. Files and directories are for their owner alone. There are no
/// multipart uploads and no copies: what stores snapshots needs neither.
#[derive(Debug, Clone)]
pub struct DurableLocal {
    reads: Arc<LocalFileSystem>,
    disk: Arc<Disk>,
}

#[derive(Debug)]
struct Disk {
    root: PathBuf,
    /// Directories that are there and on the disk.
    known: Mutex<HashSet<PathBuf>>,
    directories: Mutex<HashMap<PathBuf, Arc<DirectorySync>>>,
    next: AtomicU64,
    syncs: AtomicU64,
}

/// Puts a directory on the disk, once for all who wait.
#[derive(Debug, Default)]
struct DirectorySync {
    asked: AtomicU64,
    done: Mutex<u64>,
}

impl DurableLocal {
    /// Opens or makes a store in a directory, and removes what a crash has left aside.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made or written to.
    pub fn open(directory: impl AsRef<FilePath>) -> io::Result<Self> {
        let directory = directory.as_ref();
        private().recursive(true).create(directory.join(STAGING))?;
        let root = directory.canonicalize()?;
        let reads = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        let disk = Disk {
            known: Mutex::default(),
            directories: Mutex::default(),
            next: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            root,
        };
        disk.sweep()?;
        // The root itself may be new.
        if let Some(parent) = disk.root.parent() {
            disk.sync_directory(parent)?;
        }
        disk.sync_directory(&disk.root)?;
        Ok(Self { reads: Arc::new(reads), disk: Arc::new(disk) })
    }

    /// Returns how often the disk was asked to write something, for those who count.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.disk.syncs.load(Ordering::Relaxed)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        location: &Path,
        work: impl FnOnce(&Disk) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = Arc::clone(&self.disk);
        let done = tokio::task::spawn_blocking(move || work(&disk)).await?;
        done.map_err(|error| failed(location, error))
    }
}

impl Disk {
    /// Removes files aside that no living process writes: those have a lock.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(STAGING))? {
            let path = entry?.path();
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() {
                ignore_missing(fs::remove_file(&path))?;
            }
        }
        Ok(())
    }

    fn path(&self, location: &Path) -> PathBuf {
        location.parts().fold(self.root.clone(), |path, part| path.join(part.as_ref()))
    }

    fn put(&self, location: &Path, payload: &PutPayload, replace: bool) -> io::Result<()> {
        let to = self.path(location);
        let directory = to.parent().unwrap_or(&self.root);
        let (staged, file) = self.stage()?;
        let written = self.write(&file, payload).and_then(|()| {
            self.make_directory(directory)?;
            match name(&staged, &to, replace) {
                // Somebody has removed the directory meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    lock(&self.known).clear();
                    self.make_directory(directory)?;
                    name(&staged, &to, replace)
                }
                // It may be there and not on the disk: who finds it takes it for durable.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.sync_directory(directory)?;
                    Err(error)
                }
                named => named,
            }
        });
        if written.is_err() {
            ignore_missing(fs::remove_file(&staged))?;
        }
        written?;
        self.sync_directory(directory)
    }

    /// Makes a file aside, locked as long as it is open. Its name has a `#`, which keeps it out of lists.
    fn stage(&self) -> io::Result<(PathBuf, File)> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(STAGING).join(format!("{number}#{}", std::process::id()));
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let file = match made {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            file.lock()?;
            // Between the two, another process may have taken it for what a crash has left.
            if path.try_exists()? {
                return Ok((path, file));
            }
        }
    }

    fn write(&self, mut file: &File, payload: &PutPayload) -> io::Result<()> {
        payload.iter().try_for_each(|part: &Bytes| file.write_all(part))?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        file.sync_all()
    }

    /// Makes a directory and those above it, each on the disk before anything is in it.
    fn make_directory(&self, directory: &FilePath) -> io::Result<()> {
        if directory == self.root || lock(&self.known).contains(directory) {
            return Ok(());
        }
        let parent = directory.parent().unwrap_or(&self.root);
        self.make_directory(parent)?;
        match private().create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Also if it was there: whoever made it may not have come so far.
        self.sync_directory(parent)?;
        lock(&self.known).insert(directory.to_owned());
        Ok(())
    }

    /// Has a directory written to the disk, with all changes that were made to it before this call.
    fn sync_directory(&self, directory: &FilePath) -> io::Result<()> {
        let sync = Arc::clone(lock(&self.directories).entry(directory.to_owned()).or_default());
        let ticket = sync.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = lock(&sync.done);
        if *done >= ticket {
            return Ok(());
        }
        let upto = sync.asked.load(Ordering::SeqCst);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        File::open(directory)?.sync_all()?;
        *done = upto;
        Ok(())
    }

    fn delete(&self, location: &Path) -> io::Result<()> {
        let path = self.path(location);
        fs::remove_file(&path)?;
        self.sync_directory(path.parent().unwrap_or(&self.root))
    }
}

fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives a file its name. A link never takes the place of what is there.
fn name(staged: &FilePath, to: &FilePath, replace: bool) -> io::Result<()> {
    if replace {
        return fs::rename(staged, to);
    }
    fs::hard_link(staged, to)?;
    ignore_missing(fs::remove_file(staged))
}

fn failed(location: &Path, error: io::Error) -> Error {
    let path = location.to_string();
    let kind = error.kind();
    let source = Box::new(error);
    match kind {
        io::ErrorKind::NotFound => Error::NotFound { path, source },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::PermissionDenied { path, source }
        }
        _ => Error::Generic { store: NAME, source },
    }
}

fn not_there(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: NAME.to_owned() }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}({})", self.disk.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let replace = match options.mode {
            PutMode::Overwrite => true,
            PutMode::Create => false,
            PutMode::Update(_) => return Err(not_there("put_opts with update")),
        };
        if !options.attributes.is_empty() {
            return Err(not_there("put_opts with attributes"));
        }
        let to = location.clone();
        self.blocking(location, move |disk| disk.put(&to, &payload, replace)).await?;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(not_there("put_multipart_opts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .map(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let gone = location.clone();
                    store.blocking(&location, move |disk| disk.delete(&gone)).await?;
                    Ok(location)
                }
            })
            .buffered(16)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // What is aside has names that the local store leaves out.
        self.reads.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.reads.list_with_delimiter(prefix).await?;
        listed.common_prefixes.retain(|prefix| prefix.as_ref() != STAGING);
        Ok(listed)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        self.list(prefix)
            .try_filter(move |meta| futures::future::ready(meta.location > offset))
            .boxed()
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(not_there("copy_opts"))
    }
}

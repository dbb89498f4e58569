//! [`Materializer`]: puts a manifest's entries into a sandbox.

use std::{
    fmt, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cofferdam_core::{BoxError, Secret, SecretRef, WorkspacePath};
use cofferdam_manifest::{
    ByteSize, Entry, EntrySource, GitSource, LocalDir, LocalFile, Manifest, Mode, RootSource,
};
use cofferdam_sandbox::{ImageSource, RootFilesystem, Sandbox, SandboxError, SandboxSpec, Tree};
use futures::StreamExt;
use rustix::{fs::FileType, io::Errno};
use tokio::sync::mpsc;

use crate::{
    HostFileError, MaterializeError, Materialized, MaterializedEntry, beneath,
    git::{self, Clone as GitClone},
    host_file::{blocking, joined},
    local_tree::{ScanOptions, modified_ns, scan},
    plan::{Content, Item, Plan},
};

/// Pieces of a stream that wait for a slow sandbox; with 128 KiB each this is 1 MiB.
const WAITING_PIECES: usize = 8;

/// Looks up a secret's value in the control plane.
pub type SecretResolver = Arc<dyn Fn(&SecretRef) -> Result<Secret, BoxError> + Send + Sync>;

/// Puts a manifest's entries into a sandbox.
///
/// Default: sources beneath the base directory only, no secrets, five minutes for git.
///
/// ```no_run
/// # async fn example(manifest: &cofferdam_manifest::Manifest, sandbox: &dyn cofferdam_sandbox::Sandbox)
/// # -> Result<(), cofferdam_workspace::MaterializeError> {
/// use cofferdam_workspace::Materializer;
///
/// let receipt = Materializer::new("agents/reviewer")
///     .allow_source("/srv/protocols")
///     .materialize(manifest, sandbox)
///     .await?;
/// for entry in &receipt.entries {
///     println!("{}: {} files, {}", entry.path, entry.files, entry.digest);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Materializer {
    base: PathBuf,
    allowed: Vec<PathBuf>,
    secrets: Option<SecretResolver>,
    git_program: PathBuf,
    git_timeout: Duration,
}

impl fmt::Debug for Materializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Materializer")
            .field("base", &self.base)
            .field("allowed", &self.allowed)
            .finish_non_exhaustive()
    }
}

impl Materializer {
    /// Makes one for manifests whose sources are relative to `base`, the directory of the manifest's file.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self {
            base: base.into(),
            allowed: Vec::new(),
            secrets: None,
            git_program: PathBuf::from("git"),
            git_timeout: Duration::from_secs(300),
        }
    }

    /// Allows sources at or beneath a path of the host, `file://` repositories included. An opening that a reviewer
    /// should question.
    #[must_use]
    pub fn allow_source(mut self, path: impl Into<PathBuf>) -> Self {
        self.allowed.push(path.into());
        self
    }

    /// Supplies the values of secrets that sources need, such as the token of a git server.
    #[must_use]
    pub fn secrets(mut self, resolver: SecretResolver) -> Self {
        self.secrets = Some(resolver);
        self
    }

    /// Uses this git program. Default: `git` in the system's directories.
    #[must_use]
    pub fn git_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.git_program = program.into();
        self
    }

    /// Sets the time that cloning one repository may take. Default five minutes.
    #[must_use]
    pub fn git_timeout(mut self, timeout: Duration) -> Self {
        self.git_timeout = timeout;
        self
    }

    /// Returns what the manifest asks of a sandbox: limits, network, environment, programs, read-only paths.
    ///
    /// # Errors
    ///
    /// [`MaterializeError::NotGranted`] for a root directory, archive or image that nothing allows.
    pub fn sandbox_spec(&self, manifest: &Manifest) -> Result<SandboxSpec, MaterializeError> {
        Ok(SandboxSpec {
            limits: manifest.sandbox_limits(),
            network: manifest.network,
            environment: manifest.environment.clone(),
            root: self.root_filesystem(&manifest.root)?,
            read_only: manifest.read_only_paths(),
            ..SandboxSpec::default()
        })
    }

    /// Returns where programs come from, with paths of the host as they are.
    fn root_filesystem(&self, root: &RootSource) -> Result<RootFilesystem, MaterializeError> {
        let found = |path: &str| -> Result<PathBuf, MaterializeError> {
            let place = self
                .sources()?
                .find(path)
                .ok_or_else(|| self.not_granted("the root of the sandbox".to_owned(), path))?;
            Ok(place.root.join(place.relative))
        };
        Ok(match root {
            RootSource::Directory(path) => RootFilesystem::Directory(found(path)?),
            RootSource::Archive(path) => RootFilesystem::Archive(found(path)?),
            RootSource::Layout { path, name } => RootFilesystem::Image(ImageSource::Layout {
                directory: found(path)?,
                name: name.clone(),
            }),
            RootSource::Saved { path, name } => RootFilesystem::Image(ImageSource::Archive {
                file: found(path)?,
                name: name.clone(),
            }),
            RootSource::Image(name) => RootFilesystem::Image(ImageSource::Reference(name.clone())),
            _ => RootFilesystem::HostSystem,
        })
    }

    /// Puts every entry into the sandbox's workspace.
    ///
    /// # Errors
    ///
    /// Every source is resolved, listed and held against its cap before anything is uploaded, so that most refusals
    /// leave the workspace as it was. [`MaterializeError::Changed`] and [`MaterializeError::Sandbox`] may leave a part.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, git is killed, temporary files are removed, and a part of the entries may be there.
    pub async fn materialize(
        &self,
        manifest: &Manifest,
        sandbox: &dyn Sandbox,
    ) -> Result<Materialized, MaterializeError> {
        self.materialize_into(manifest, sandbox.tree()).await
    }

    /// As [`Materializer::materialize`], into anything that takes trees, such as a directory from which workspaces begin.
    ///
    /// # Errors
    ///
    /// As [`Materializer::materialize`].
    ///
    /// # Cancel safety
    ///
    /// As [`Materializer::materialize`].
    pub async fn materialize_into(
        &self,
        manifest: &Manifest,
        tree: &dyn Tree,
    ) -> Result<Materialized, MaterializeError> {
        let mut clones = Vec::new();
        for (path, entry) in &manifest.entries {
            if let EntrySource::Git(source) = &entry.source {
                clones.push((path.clone(), self.clone_repository(path, source).await?));
            }
        }
        let (this, entries) = (self.clone(), manifest.entries.clone());
        let (plan, clones) = blocking(move || {
            let sources = this.sources()?;
            let mut plan = Plan::default();
            for (path, entry) in &entries {
                let clone = clones.iter().find(|(place, _)| place == path).map(|(_, clone)| clone);
                this.add_entry(&sources, path, entry, clone, &mut plan)?;
            }
            Ok::<_, MaterializeError>((plan, clones))
        })
        .await?;
        // The clones live until everything is sent.
        upload(plan, clones, tree).await
    }

    fn add_entry(
        &self,
        sources: &Sources,
        path: &WorkspacePath,
        entry: &Entry,
        clone: Option<&GitClone>,
        plan: &mut Plan,
    ) -> Result<(), MaterializeError> {
        let mode = entry.options.mode.map(Mode::bits);
        let mut receipt = MaterializedEntry {
            path: path.clone(),
            kind: entry.source.kind(),
            source: None,
            revision: None,
            files: 0,
            directories: 0,
            links: 0,
            bytes: 0,
            ignored: 0,
            digest: String::new(),
        };
        let item = |mode, content| Item { path: Vec::new(), mode, modified_ns: None, content };
        let mut items = match &entry.source {
            EntrySource::File(file) => {
                let content = Content::Inline(file.content.clone().into());
                vec![item(mode.unwrap_or(Mode::FILE.bits()), content)]
            }
            EntrySource::Dir => {
                vec![item(mode.unwrap_or(Mode::DIRECTORY.bits()), Content::Directory)]
            }
            EntrySource::LocalFile(file) => {
                receipt.source = Some(file.source.clone());
                vec![self.local_file(sources, path, file, mode)?]
            }
            EntrySource::LocalDir(dir) => {
                receipt.source = Some(dir.source.clone());
                let scan = scan(
                    self.open_directory(sources, path, dir)?,
                    &ScanOptions {
                        entry: path,
                        source: &dir.source,
                        ignore: &dir.ignore,
                        gitignore: dir.gitignore,
                        skip_git: false,
                        max_files: dir.max_files.unwrap_or(Entry::DEFAULT_MAX_FILES),
                        max_bytes: bytes_cap(dir.max_bytes),
                        mode,
                        keep_times: true,
                    },
                )?;
                receipt.ignored = scan.ignored;
                scan.items
            }
            EntrySource::Git(source) => {
                let Some(clone) = clone else { return Ok(()) };
                receipt.source = Some(source.url.clone());
                receipt.revision = Some(clone.revision.clone());
                scan(
                    clone.open(path, source)?,
                    &ScanOptions {
                        entry: path,
                        source: &source.url,
                        ignore: &source.ignore,
                        gitignore: false,
                        skip_git: !source.keep_git,
                        max_files: source.max_files.unwrap_or(Entry::DEFAULT_MAX_FILES),
                        max_bytes: bytes_cap(source.max_bytes),
                        mode,
                        keep_times: false,
                    },
                )?
                .items
            }
            _ => return Ok(()),
        };
        if path.is_root() && mode.is_none() {
            // The workspace's own mode is the sandbox's business, unless the manifest says otherwise.
            items.retain(|item| !item.path.is_empty());
        }
        plan.add(receipt, items)
    }

    fn local_file(
        &self,
        sources: &Sources,
        entry: &WorkspacePath,
        file: &LocalFile,
        mode: Option<u32>,
    ) -> Result<Item, MaterializeError> {
        let place = self.place(sources, entry, &file.source)?;
        let (root, stat) = place
            .open_root()
            .and_then(|root| {
                beneath::stat_following(&root, &place.relative).map(|stat| (root, stat))
            })
            .map_err(|error| self.refused(entry, &file.source, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.wrong_kind(entry, &file.source, beneath::kind_of(&stat), "file"));
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let cap = bytes_cap(file.max_bytes);
        if size > cap {
            return Err(MaterializeError::OverCap {
                entry: entry.clone(),
                source_path: file.source.clone(),
                cap,
                unit: "bytes",
                found: size,
                field: "max_bytes",
                path: file.source.clone(),
            });
        }
        let path = place.relative.as_os_str().as_bytes().to_vec();
        Ok(Item {
            path: Vec::new(),
            mode: mode.unwrap_or(stat.st_mode & 0o1777),
            modified_ns: Some(modified_ns(&stat)),
            content: Content::Host { root: Arc::new(root), path, size, follow: true },
        })
    }

    fn open_directory(
        &self,
        sources: &Sources,
        entry: &WorkspacePath,
        dir: &LocalDir,
    ) -> Result<OwnedFd, MaterializeError> {
        let place = self.place(sources, entry, &dir.source)?;
        let open = || -> io::Result<Result<OwnedFd, &'static str>> {
            let root = place.open_root()?;
            let stat = beneath::stat_following(&root, &place.relative)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(Err(beneath::kind_of(&stat)));
            }
            beneath::open_following(&root, &place.relative).map(Ok)
        };
        open()
            .map_err(|error| self.refused(entry, &dir.source, error))?
            .map_err(|kind| self.wrong_kind(entry, &dir.source, kind, "directory"))
    }

    fn place(
        &self,
        sources: &Sources,
        entry: &WorkspacePath,
        source: &str,
    ) -> Result<Place, MaterializeError> {
        sources.find(source).ok_or_else(|| self.not_granted(format!("entry {entry}"), source))
    }

    async fn clone_repository(
        &self,
        entry: &WorkspacePath,
        source: &GitSource,
    ) -> Result<GitClone, MaterializeError> {
        if let Some(path) = source.url.strip_prefix("file://")
            && self.sources()?.find(path).is_none()
        {
            return Err(self.not_granted(format!("entry {entry}"), &source.url));
        }
        let token = match &source.token {
            None => None,
            Some(reference) => {
                let failed = |source| MaterializeError::Secret {
                    entry: entry.clone(),
                    reference: reference.clone(),
                    source,
                };
                let resolver = self
                    .secrets
                    .as_ref()
                    .ok_or_else(|| failed("no secrets were supplied to the materializer".into()))?;
                Some(resolver(reference).map_err(failed)?)
            }
        };
        git::clone(entry, source, token.as_ref(), &self.git_program, self.git_timeout).await
    }

    /// Finds the directories that sources may be beneath.
    fn sources(&self) -> Result<Sources, MaterializeError> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| HostFileError { operation: "find", path, source }
        };
        let base = std::path::absolute(&self.base).map_err(failed(&self.base))?;
        let mut roots = Vec::new();
        for path in std::iter::once(&self.base).chain(&self.allowed) {
            let given = std::path::absolute(path).map_err(failed(path))?;
            let real = std::fs::canonicalize(path).map_err(failed(path))?;
            roots.push(Root { given: normalise(&given), real });
        }
        Ok(Sources { base, roots })
    }

    fn not_granted(&self, what: String, source: &str) -> MaterializeError {
        MaterializeError::NotGranted {
            what,
            source_path: source.to_owned(),
            base: self.base.clone(),
        }
    }

    fn wrong_kind(
        &self,
        entry: &WorkspacePath,
        source: &str,
        found: &'static str,
        expected: &'static str,
    ) -> MaterializeError {
        let source_path = source.to_owned();
        MaterializeError::WrongKind { entry: entry.clone(), source_path, found, expected }
    }

    fn refused(&self, entry: &WorkspacePath, source: &str, error: io::Error) -> MaterializeError {
        let (entry, source_path, base) = (entry.clone(), source.to_owned(), self.base.clone());
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR) => {
                MaterializeError::SourceMissing { entry, source_path, base }
            }
            Some(Errno::XDEV | Errno::LOOP) => {
                MaterializeError::SourceEscapes { entry, source_path, base }
            }
            _ => HostFileError {
                operation: "open",
                path: format!("{source_path} of entry {entry}"),
                source: error,
            }
            .into(),
        }
    }
}

/// The directories (or single files) that sources may be at or beneath.
struct Sources {
    base: PathBuf,
    roots: Vec<Root>,
}

struct Root {
    /// As it was given, absolute.
    given: PathBuf,
    /// With all links resolved.
    real: PathBuf,
}

/// A source as a path beneath a root.
struct Place {
    root: PathBuf,
    relative: PathBuf,
}

impl Place {
    fn open_root(&self) -> io::Result<OwnedFd> {
        beneath::open_root(&self.root)
    }
}

impl Sources {
    /// Finds the root that a source is beneath, by spelling; links are a matter of opening it.
    fn find(&self, source: &str) -> Option<Place> {
        let path = normalise(&self.base.join(source));
        self.roots.iter().find_map(|root| {
            let relative =
                path.strip_prefix(&root.given).or_else(|_| path.strip_prefix(&root.real)).ok()?;
            if relative.as_os_str().is_empty() && root.real.is_file() {
                let (parent, name) = (root.real.parent()?, root.real.file_name()?);
                return Some(Place { root: parent.to_owned(), relative: name.into() });
            }
            Some(Place { root: root.real.clone(), relative: relative.to_owned() })
        })
    }
}

/// Removes `.` and resolves `..` of an absolute path, by spelling.
fn normalise(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

fn bytes_cap(bytes: Option<ByteSize>) -> u64 {
    bytes.unwrap_or(Entry::DEFAULT_MAX_BYTES).bytes()
}

/// Sends a plan to a tree; reading runs on a thread of its own and is held back by a slow tree.
async fn upload(
    plan: Plan,
    clones: Vec<(WorkspacePath, GitClone)>,
    tree: &dyn Tree,
) -> Result<Materialized, MaterializeError> {
    let (sender, mut receiver) = mpsc::channel(WAITING_PIECES);
    let reading = tokio::task::spawn_blocking(move || {
        let sent = plan.send(&sender);
        if sent.is_err() {
            // Ends the upload with an error, so that no sandbox takes a part for the whole.
            let source = "a source could not be read".into();
            let _ = sender
                .blocking_send(Err(SandboxError::Host { operation: "read a source", source }));
        }
        drop(clones);
        sent
    });
    let events = futures::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed();
    let uploaded = tree.upload(&WorkspacePath::root(), events).await;
    let entries = joined(reading.await)?;
    let uploaded = uploaded.map_err(MaterializeError::Sandbox)?;
    Ok(Materialized { entries, uploaded })
}

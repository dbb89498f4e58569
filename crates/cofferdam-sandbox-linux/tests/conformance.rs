//! The conformance suite on this backend, and the suite itself on the same backend with one planted defect at a time.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use cofferdam_core::{SandboxId, WorkspacePath};
use cofferdam_sandbox::{
    DownloadOptions, ExecEvent, ExecRequest, ExitStatus, FileMetadata, Files, Guarantees,
    ListOptions, Listing, Process, ProcessControl, Sandbox, SandboxBackend, SandboxError,
    SandboxSpec, SandboxState, Signal, TerminalSize, Tree, TreeEvent, WriteOptions,
    conformance::{self, Options},
};
use cofferdam_sandbox_linux::LinuxBackend;
use futures::{StreamExt, stream::BoxStream};

#[tokio::test(flavor = "multi_thread")]
async fn conformance() {
    let report = conformance::run(&LinuxBackend::default(), &Options::default()).await;
    println!("{report}");
    report.assert_passed();
}

/// Something that a backend may get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    ExitCodeIsZero,
    StderrIsStdout,
    EnvironmentLeaks,
    TreeIsNotKilled,
    ReadIgnoresOffset,
    ListingIsUnsorted,
    NewFileReplaces,
    RemoveIsRecursive,
    WriteFollowsFinalLink,
    UploadLosesModes,
    DownloadHasNoBound,
    ClosedStaysUsable,
    OneWorkspaceForAll,
    NetworkIsOpen,
    OutputLimitIsIgnored,
    ReadPanics,
}

/// The Linux backend with a defect.
#[derive(Debug)]
struct Faulty {
    defect: Defect,
    inner: LinuxBackend,
    shared: tokio::sync::OnceCell<Arc<dyn Sandbox>>,
}

impl Faulty {
    fn new(defect: Defect) -> Self {
        Self { defect, inner: LinuxBackend::default(), shared: tokio::sync::OnceCell::new() }
    }
}

#[async_trait]
impl SandboxBackend for Faulty {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn guarantees(&self) -> Result<Guarantees, SandboxError> {
        self.inner.guarantees().await
    }

    async fn create(&self, spec: &SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let mut spec = spec.clone();
        match self.defect {
            Defect::EnvironmentLeaks => {
                spec.environment.insert("LEAKED".to_owned(), "from the host".to_owned());
            }
            Defect::NetworkIsOpen => spec.network = cofferdam_core::NetworkAccess::Host,
            Defect::OutputLimitIsIgnored => spec.limits.output_bytes = 8 << 20,
            _ => {}
        }
        let inner = if self.defect == Defect::OneWorkspaceForAll {
            Arc::clone(self.shared.get_or_try_init(|| self.inner.create(&spec)).await?)
        } else {
            self.inner.create(&spec).await?
        };
        Ok(Arc::new(FaultySandbox { defect: self.defect, inner, closed: AtomicBool::new(false) }))
    }

    async fn attach(&self, state: &SandboxState) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.inner.attach(state).await
    }
}

#[derive(Debug)]
struct FaultySandbox {
    defect: Defect,
    inner: Arc<dyn Sandbox>,
    closed: AtomicBool,
}

#[async_trait]
impl Sandbox for FaultySandbox {
    fn id(&self) -> &SandboxId {
        self.inner.id()
    }

    fn state(&self) -> SandboxState {
        self.inner.state()
    }

    async fn exec(&self, request: ExecRequest) -> Result<Process, SandboxError> {
        let process = self.inner.exec(request).await?;
        let control = process.control();
        let defect = self.defect;
        let events = process.map(move |event| match (defect, event?) {
            (Defect::ExitCodeIsZero, ExecEvent::Exited(ExitStatus::Code(_))) => {
                Ok(ExecEvent::Exited(ExitStatus::Code(0)))
            }
            (Defect::StderrIsStdout, ExecEvent::Stderr(bytes)) => Ok(ExecEvent::Stdout(bytes)),
            (_, event) => Ok(event),
        });
        let control: Arc<dyn ProcessControl> = match defect {
            Defect::TreeIsNotKilled => Arc::new(KillsOnlyTheCommand(control)),
            _ => control,
        };
        Ok(Process::new(events.boxed(), control))
    }

    fn files(&self) -> &dyn Files {
        self
    }

    fn tree(&self) -> &dyn Tree {
        self
    }

    async fn lost(&self) -> SandboxError {
        self.inner.lost().await
    }

    async fn close(&self) -> Result<(), SandboxError> {
        // What stays usable is ended by dropping it.
        let stays = matches!(self.defect, Defect::ClosedStaysUsable | Defect::OneWorkspaceForAll);
        self.closed.store(true, Ordering::Relaxed);
        if stays { Ok(()) } else { self.inner.close().await }
    }
}

#[async_trait]
impl Files for FaultySandbox {
    async fn read(
        &self,
        path: &WorkspacePath,
        offset: u64,
        max_bytes: u64,
    ) -> Result<Bytes, SandboxError> {
        assert!(self.defect != Defect::ReadPanics, "a defect that was planted");
        let offset = if self.defect == Defect::ReadIgnoresOffset { 0 } else { offset };
        self.inner.files().read(path, offset, max_bytes).await
    }

    async fn write(
        &self,
        path: &WorkspacePath,
        content: Bytes,
        options: &WriteOptions,
    ) -> Result<(), SandboxError> {
        let mut options = *options;
        if self.defect == Defect::NewFileReplaces {
            options.must_be_new = false;
        }
        if self.defect == Defect::WriteFollowsFinalLink {
            let link = self.inner.files().stat(path).await.ok().and_then(|m| m.link_target);
            if link.is_some() {
                let script = format!("printf %s {:?} > {path}", String::from_utf8_lossy(&content));
                let process = self.inner.exec(ExecRequest::shell(script)).await?;
                process.for_each(|_| async {}).await;
                return Ok(());
            }
        }
        self.inner.files().write(path, content, &options).await
    }

    async fn list(
        &self,
        path: &WorkspacePath,
        options: &ListOptions,
    ) -> Result<Listing, SandboxError> {
        let mut listing = self.inner.files().list(path, options).await?;
        if self.defect == Defect::ListingIsUnsorted {
            listing.entries.reverse();
        }
        Ok(listing)
    }

    async fn stat(&self, path: &WorkspacePath) -> Result<FileMetadata, SandboxError> {
        self.inner.files().stat(path).await
    }

    async fn make_directory(&self, path: &WorkspacePath, mode: u32) -> Result<(), SandboxError> {
        self.inner.files().make_directory(path, mode).await
    }

    async fn rename(
        &self,
        from: &WorkspacePath,
        to: &WorkspacePath,
        replace: bool,
    ) -> Result<(), SandboxError> {
        self.inner.files().rename(from, to, replace).await
    }

    async fn remove(&self, path: &WorkspacePath, recursive: bool) -> Result<(), SandboxError> {
        let recursive = recursive || self.defect == Defect::RemoveIsRecursive;
        self.inner.files().remove(path, recursive).await
    }
}

#[async_trait]
impl Tree for FaultySandbox {
    async fn upload(
        &self,
        target: &WorkspacePath,
        entries: BoxStream<'static, Result<TreeEvent, SandboxError>>,
    ) -> Result<u64, SandboxError> {
        let loses_modes = self.defect == Defect::UploadLosesModes;
        let entries = entries.map(move |event| match event? {
            TreeEvent::Entry(mut entry) if loses_modes => {
                entry.mode = 0o755;
                Ok(TreeEvent::Entry(entry))
            }
            event => Ok(event),
        });
        self.inner.tree().upload(target, entries.boxed()).await
    }

    async fn download(
        &self,
        source: &WorkspacePath,
        options: &DownloadOptions,
    ) -> Result<BoxStream<'static, Result<TreeEvent, SandboxError>>, SandboxError> {
        let options = match self.defect {
            Defect::DownloadHasNoBound => DownloadOptions::default(),
            _ => *options,
        };
        self.inner.tree().download(source, &options).await
    }
}

/// Forgets the descendants, as a backend does that signals only the process it started.
#[derive(Debug)]
struct KillsOnlyTheCommand(Arc<dyn ProcessControl>);

#[async_trait]
impl ProcessControl for KillsOnlyTheCommand {
    async fn write_stdin(&self, bytes: Bytes) -> Result<(), SandboxError> {
        self.0.write_stdin(bytes).await
    }

    async fn close_stdin(&self) -> Result<(), SandboxError> {
        self.0.close_stdin().await
    }

    async fn signal(&self, signal: Signal) -> Result<(), SandboxError> {
        self.0.signal(signal).await
    }

    async fn kill_tree(&self) -> Result<(), SandboxError> {
        self.0.signal(Signal::KILL).await
    }

    async fn resize(&self, size: TerminalSize) -> Result<(), SandboxError> {
        self.0.resize(size).await
    }
}

/// Demands that the cases whose name contains `filter` and that fail on a backend with a defect are exactly these.
async fn check(defect: Defect, filter: &str, expect: &[&str]) {
    let options = Options { filter: Some(filter.to_owned()), ..Options::default() };
    let report = conformance::run(&Faulty::new(defect), &options).await;
    let failed: Vec<_> = report.failed().map(|case| case.name).collect();
    assert_eq!(failed, expect, "{defect:?}: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_of_commands_are_found() {
    check(Defect::StderrIsStdout, "exec::streams_apart", &["exec::streams_apart"]).await;
    check(Defect::EnvironmentLeaks, "exec::", &["exec::environment"]).await;
    check(Defect::TreeIsNotKilled, "exec::", &["exec::kill_tree"]).await;
    check(
        Defect::ExitCodeIsZero,
        "exec::",
        &["exec::exit_codes", "exec::signal_is_caught", "exec::parallel"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_of_files_are_found() {
    check(Defect::ReadIgnoresOffset, "files::", &["files::ranges", "files::sparse_file"]).await;
    check(Defect::ListingIsUnsorted, "files::", &["files::odd_names", "files::listing_sorted"])
        .await;
    check(Defect::NewFileReplaces, "files::", &["files::must_be_new"]).await;
    check(Defect::RemoveIsRecursive, "files::", &["files::remove"]).await;
    check(Defect::WriteFollowsFinalLink, "files::", &["files::final_link_is_replaced"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_of_trees_are_found() {
    check(Defect::UploadLosesModes, "tree::", &["tree::round_trip"]).await;
    check(Defect::DownloadHasNoBound, "tree::", &["tree::bounds"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_of_life_and_limits_are_found() {
    check(Defect::ClosedStaysUsable, "lifecycle::closed_is_lost", &["lifecycle::closed_is_lost"])
        .await;
    check(
        Defect::OneWorkspaceForAll,
        "lifecycle::workspaces_apart",
        &["lifecycle::workspaces_apart"],
    )
    .await;
    check(Defect::NetworkIsOpen, "limits::", &["limits::network_none"]).await;
    check(Defect::OutputLimitIsIgnored, "limits::", &["limits::output"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_failure_of_its_case() {
    check(Defect::ReadPanics, "files::must_be_new", &["files::must_be_new"]).await;
    let options = Options { filter: Some("files::ranges".to_owned()), ..Options::default() };
    let report = conformance::run(&Faulty::new(Defect::ReadPanics), &options).await;
    let text = report.to_string();
    assert!(text.contains("panicked: a defect that was planted"), "{text}");
}

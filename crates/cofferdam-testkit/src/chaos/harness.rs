//! The harness: uses sandboxes in every way at once, and bears witness if it lives.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    DownloadOptions, ExecEvent, ExecRequest, ListOptions, Process, Sandbox, SandboxBackend,
    SandboxError, SandboxExt as _, SandboxSpec, TerminalSize, TreeEntry, TreeEntryKind, TreeEvent,
    WriteOptions,
};
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout};

use super::{Subject, outcome::Testimony};
use crate::random::Random;

/// Begins a line that is for the director.
pub(super) const MARK: &str = "chaos: ";
/// Said when the operations begin.
pub(super) const BEGIN: &str = "begin";
/// Said at the end, before the testimony.
pub(super) const END: &str = "end ";

/// How long any call may take, on a machine that does a hundred other things.
const BOUND: Duration = Duration::from_secs(30);
/// How long to wait for what the backend stands on before the next attempt.
const RETRY: Duration = Duration::from_millis(50);
/// Tasks that use sandboxes at the same time.
const LANES: usize = 3;
/// How much shorter than its length a harness's patience with a creation is that it gives up.
const PATIENCE_PART: u32 = 60;
/// How long what is closed may keep its descriptors.
const RELEASE: Duration = Duration::from_secs(5);

/// What is done with a sandbox.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Run,
    Kill,
    Drop,
    Flood,
    LeaveBehind,
    Terminal,
    WriteAndRead,
    List,
    UploadAndDownload,
    Remove,
}

const OPERATIONS: [Operation; 10] = [
    Operation::Run,
    Operation::Kill,
    Operation::Drop,
    Operation::Flood,
    Operation::LeaveBehind,
    Operation::Terminal,
    Operation::WriteAndRead,
    Operation::List,
    Operation::UploadAndDownload,
    Operation::Remove,
];

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Kill => "kill",
            Self::Drop => "drop",
            Self::Flood => "flood",
            Self::LeaveBehind => "leave behind",
            Self::Terminal => "terminal",
            Self::WriteAndRead => "write, read",
            Self::List => "list",
            Self::UploadAndDownload => "up, download",
            Self::Remove => "remove",
        }
    }
}

/// Plays one round to its end, or until it is killed.
#[expect(clippy::expect_used, reason = "a harness that cannot begin has failed its round")]
#[expect(clippy::print_stdout, reason = "the director reads it")]
pub(super) fn play(subject: &dyn Subject, seed: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let testimony = runtime.block_on(async {
        let backend = subject.backend();
        let witness = Arc::new(Witness::default());
        let spec = subject.spec();
        // What is made once for a process is made before its descriptors are counted.
        witness.whole_life(&backend, &spec, "at first").await;
        let before = descriptors();
        println!("\n{MARK}{BEGIN}");
        let mut random = Random::new(seed);
        let length = subject.length();
        let until = Instant::now() + length;
        let lanes = (0..LANES).map(|_| {
            let (backend, witness, spec) =
                (Arc::clone(&backend), Arc::clone(&witness), spec.clone());
            let random = random.fork();
            tokio::spawn(
                async move { witness.lane(&backend, &spec, random, (until, length)).await },
            )
        });
        for lane in futures::future::join_all(lanes).await {
            if let Err(panic) = lane {
                witness.violation(format!("a lane broke: {panic}"));
            }
        }
        // Whatever was killed: the next sandbox of the same process works.
        witness.whole_life(&backend, &spec, "at last").await;
        let deadline = Instant::now() + RELEASE;
        while descriptors() > before && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        let after = descriptors();
        if after > before {
            witness.violation(format!("{before} descriptors before, {after} after"));
        }
        witness.testimony()
    });
    let text = serde_json::to_string(&testimony).expect("counts and texts");
    println!("\n{MARK}{END}{text}");
}

/// Returns the number of descriptors of this process.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Writes down what happens.
#[derive(Debug, Default)]
struct Witness(Mutex<Testimony>);

impl Witness {
    fn testimony(&self) -> Testimony {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn violation(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).violations.push(what);
    }

    fn count(&self, operation: &str, ending: &str) {
        let mut testimony = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let endings = testimony.endings.entry(operation.to_owned()).or_default();
        *endings.entry(ending.to_owned()).or_default() += 1;
    }

    /// Waits for a call and writes down how it ended. Returns its answer, if it is one of the operation.
    async fn call<T>(
        &self,
        operation: &str,
        call: impl Future<Output = Result<T, SandboxError>>,
    ) -> Option<T> {
        match timeout(BOUND, call).await {
            Ok(Ok(answer)) => {
                self.count(operation, "done");
                Some(answer)
            }
            Ok(Err(SandboxError::Lost { .. })) => {
                self.count(operation, "lost");
                None
            }
            // Only while it is made may a sandbox fail for want of a helper that was killed.
            Ok(Err(SandboxError::Host { .. })) if operation == "create" => {
                self.count(operation, "host");
                None
            }
            Ok(Err(SandboxError::HostUnable { .. })) if operation == "create" => {
                self.count(operation, "unable");
                None
            }
            // Nor can one be made while what the backend stands on is down. Another attempt at once would tell nothing new.
            Ok(Err(SandboxError::Unavailable { .. })) if operation == "create" => {
                self.count(operation, "unavailable");
                sleep(RETRY).await;
                None
            }
            Ok(Err(error)) => {
                self.count(operation, "wrong");
                self.violation(format!("{operation}: {}", with_causes(&error)));
                None
            }
            Err(_elapsed) => {
                self.count(operation, "hung");
                self.violation(format!("{operation}: no answer within {BOUND:?}"));
                None
            }
        }
    }

    /// Makes a sandbox, uses it once and closes it. One is killed in a round: if it is this, another one must work.
    async fn whole_life(&self, backend: &Arc<dyn SandboxBackend>, spec: &SandboxSpec, when: &str) {
        let mut lost = false;
        let deadline = Instant::now() + BOUND;
        loop {
            let life = async {
                let sandbox = backend.create(spec).await?;
                let output = sandbox.run(ExecRequest::shell("echo alive"), 64).await?;
                sandbox.close().await?;
                Ok::<_, SandboxError>(output.stdout.to_text().into_owned())
            };
            match timeout(BOUND, life).await {
                // The victim may be the shell.
                Ok(Ok(text)) if text == "alive\n" || (text.is_empty() && !lost) => {
                    return self.count("whole life", "done");
                }
                Ok(Ok(text)) => {
                    return self.violation(format!("{when} a command said {text:?}"));
                }
                Ok(Err(SandboxError::Lost { .. })) if !lost => {
                    self.count("whole life", "lost");
                    lost = true;
                }
                Ok(Err(SandboxError::Unavailable { .. })) if Instant::now() < deadline => {
                    self.count("whole life", "unavailable");
                    sleep(RETRY).await;
                }
                Ok(Err(error)) => {
                    let error = with_causes(&error);
                    return self.violation(format!("{when} no sandbox works: {error}"));
                }
                Err(_elapsed) => {
                    return self.violation(format!("{when} a sandbox took more than {BOUND:?}"));
                }
            }
        }
    }

    /// Uses one sandbox after another.
    async fn lane(
        &self,
        backend: &Arc<dyn SandboxBackend>,
        spec: &SandboxSpec,
        mut random: Random,
        (until, length): (Instant, Duration),
    ) {
        while Instant::now() < until {
            let creation = backend.create(spec);
            if random.below(8) == 0 {
                // Given up half-way.
                let patience = (length / PATIENCE_PART).as_micros();
                let patience =
                    Duration::from_micros(random.below(u64::try_from(patience).unwrap_or(0)));
                let _ = timeout(patience, creation).await;
                self.count("create", "given up");
                continue;
            }
            let Some(sandbox) = self.call("create", creation).await else { continue };
            for _ in 0..random.below(8) {
                let operation = random.pick(&OPERATIONS).unwrap_or(Operation::Run);
                let done = perform(&*sandbox, operation, random.fork());
                if self.call(operation.name(), done).await.is_none() {
                    break;
                }
            }
            match random.below(4) {
                // Closed in the background.
                0 => drop(sandbox),
                1 => {
                    let (once, again) = tokio::join!(
                        self.call("close", sandbox.close()),
                        self.call("close", sandbox.close())
                    );
                    if once.is_none() || again.is_none() {
                        self.violation("closing failed".to_owned());
                    }
                    let lost = async { Ok(sandbox.lost().await) };
                    let reason = self.call("lost", lost).await;
                    if !reason.is_some_and(|reason| reason.is_loss()) {
                        self.violation("a closed sandbox is not lost".to_owned());
                    }
                }
                _ => {
                    if self.call("close", sandbox.close()).await.is_none() {
                        self.violation("closing failed".to_owned());
                    }
                }
            }
        }
    }
}

fn with_causes(error: &SandboxError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What was read is not what was written: worse than any loss.
fn wrong(what: &str) -> SandboxError {
    SandboxError::Protocol { detail: what.to_owned() }
}

fn path(text: &str) -> Result<WorkspacePath, SandboxError> {
    WorkspacePath::new(text).map_err(|error| wrong(&error.to_string()))
}

async fn drain(mut process: Process) -> Result<u64, SandboxError> {
    let mut bytes = 0;
    while let Some(event) = process.next().await {
        match event? {
            ExecEvent::Stdout(piece) | ExecEvent::Stderr(piece) => bytes += piece.len() as u64,
            _ => {}
        }
    }
    Ok(bytes)
}

async fn perform(
    sandbox: &dyn Sandbox,
    operation: Operation,
    mut random: Random,
) -> Result<(), SandboxError> {
    let files = sandbox.files();
    let pause = Duration::from_millis(random.below(60));
    match operation {
        Operation::Run => {
            let request = ExecRequest::shell("echo a; (echo b; sleep 0.01) & wait");
            sandbox.run(request, 1 << 10).await.map(drop)
        }
        Operation::Kill => {
            let request = ExecRequest::shell("trap '' TERM; sleep 600 & sleep 600");
            let process = sandbox.exec(request).await?;
            let control = process.control();
            sleep(pause).await;
            control.kill_tree().await?;
            drain(process).await.map(drop)
        }
        Operation::Drop => {
            let process = sandbox.exec(ExecRequest::shell("sleep 600 & sleep 600")).await?;
            sleep(pause).await;
            drop(process);
            Ok(())
        }
        Operation::Flood => {
            let request = ExecRequest::program(["head", "-c", "3000000", "/dev/zero"]);
            drain(sandbox.exec(request).await?).await.map(drop)
        }
        Operation::LeaveBehind => {
            let request = ExecRequest::shell("trap '' HUP; sleep 600 </dev/null >/dev/null 2>&1 &");
            sandbox.run(request, 1 << 10).await.map(drop)
        }
        Operation::Terminal => {
            let mut request = ExecRequest::program(["sh"]);
            request.terminal = Some(TerminalSize::default());
            let process = sandbox.exec(request).await?;
            let control = process.control();
            control.resize(TerminalSize { rows: 40, columns: 120 }).await?;
            // Somebody inside may be the victim, and its terminal goes with it.
            match control.write_stdin(Bytes::from_static(b"sleep 0.01; exit\n")).await {
                Ok(()) | Err(SandboxError::StdinClosed) => {}
                Err(error) => return Err(error),
            }
            drain(process).await.map(drop)
        }
        Operation::WriteAndRead => {
            let (at, content) =
                (path("some/file")?, vec![7; 20_000 + pause.subsec_micros() as usize]);
            files.write(&at, content.clone().into(), &WriteOptions::default()).await?;
            let read = files.read(&at, 0, 1 << 20).await?;
            if read == content { Ok(()) } else { Err(wrong("a file is not what was written")) }
        }
        Operation::List => {
            let options = ListOptions { depth: 3, ..ListOptions::default() };
            files.list(&WorkspacePath::root(), &options).await.map(drop)
        }
        Operation::UploadAndDownload => {
            let target = path("tree")?;
            files.make_directory(&target, 0o755).await?;
            let names = (0..200).map(|number| format!("f{number:03}").into_bytes());
            let events: Vec<_> = names
                .flat_map(|path| {
                    let kind = TreeEntryKind::File { size: 500 };
                    let entry = TreeEntry { path, mode: 0o644, modified_ns: None, kind };
                    let content = Bytes::from(vec![3; 500]);
                    [Ok(TreeEvent::Entry(entry)), Ok(TreeEvent::Content(content))]
                })
                .collect();
            let made = sandbox.tree().upload(&target, stream::iter(events).boxed()).await?;
            let mut tree = sandbox.tree().download(&target, &DownloadOptions::default()).await?;
            let mut files = 0;
            while let Some(event) = tree.next().await {
                if let TreeEvent::Entry(TreeEntry { kind: TreeEntryKind::File { .. }, .. }) = event?
                {
                    files += 1;
                }
            }
            if (made, files) == (200, 200) {
                Ok(())
            } else {
                Err(wrong(&format!("{made} entries up, {files} files down")))
            }
        }
        Operation::Remove => {
            let at = path("gone")?;
            files.make_directory(&at, 0o755).await?;
            files.remove(&at, true).await
        }
    }
}

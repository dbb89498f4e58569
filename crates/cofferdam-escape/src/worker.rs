//! A backend under attack, in a process of its own that `probe stage` started: a careless host with open descriptors, a
//! terminal and a secret in its environment.

use std::{io::Write as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use cofferdam_core::{SandboxLimits, WorkspacePath};
use cofferdam_sandbox::{
    ExecEvent, ExecRequest, Process, Sandbox, SandboxBackend, SandboxSpec, WriteOptions,
};
use cofferdam_sandbox_docker::DockerBackend;
use cofferdam_sandbox_linux::LinuxBackend;
use futures::StreamExt as _;

use crate::{PROGRAM, PROGRAM_NAME, harness, plain_backend::PlainBackend, report::Answer};

/// How long a neighbour may take to be there.
const NEIGHBOUR_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of one line of an answer.
const MAX_LINE: usize = 8192;

/// Returns a backend by the words that columns use: `linux`, `plain`, or `docker`, an engine's address and an image, with
/// commas between them.
///
/// # Errors
///
/// Words that are not known.
pub fn backend(words: &str) -> Result<Arc<dyn SandboxBackend>> {
    Ok(match words.split(',').collect::<Vec<_>>()[..] {
        ["linux"] => Arc::new(LinuxBackend::new()),
        ["plain"] => Arc::new(PlainBackend::default()),
        ["docker", engine, image] => {
            let backend = DockerBackend::builder().endpoint(engine.parse()?).default_image(image);
            Arc::new(backend.build())
        }
        _ => bail!("no backend {words}"),
    })
}

/// What sandboxes under attack are: sealed, with limits that the bombs exceed.
#[must_use]
pub fn spec() -> SandboxSpec {
    SandboxSpec {
        limits: SandboxLimits {
            memory_bytes: 512 << 20,
            processes: 256,
            disk_bytes: 64 << 20,
            disk_inodes: 4_000,
            ..SandboxLimits::default()
        },
        ..SandboxSpec::default()
    }
}

/// Attacks a backend and prints a line of JSON for each answer.
///
/// # Errors
///
/// If no sandbox can be made, or it is lost on the way; what was answered until then has been printed.
pub async fn attack(words: &str, targets: &Path, ids: &[String]) -> Result<()> {
    let backend = backend(words)?;
    let text = std::fs::read_to_string(targets)?;
    let (through, inside): (Vec<_>, Vec<_>) =
        ids.iter().map(String::as_str).partition(|id| harness::find(id).is_some());
    if !inside.is_empty() {
        from_inside(&*backend, &text, &inside).await?;
    }
    for id in through {
        let answer = harness::attack(&backend, words, &text, id).await;
        print(&answer)?;
    }
    Ok(())
}

async fn from_inside(backend: &dyn SandboxBackend, targets: &str, ids: &[&str]) -> Result<()> {
    let spec = spec();
    let neighbour = prepared(backend, &spec, targets).await?;
    // Under attack is not the first sandbox of its backend: only a later one may get what was made ahead.
    let sandbox = prepared(backend, &spec, targets).await?;
    // Kept until the attacks are over: dropping it would end it.
    let _beside = start_neighbour(&*neighbour).await?;
    let mut words = vec!["run", "targets"];
    words.extend(ids);
    let mut process = sandbox.exec(program(&words)).await?;
    let mut line = Vec::new();
    while let Some(event) = process.next().await {
        let bytes = match event? {
            ExecEvent::Stdout(bytes) => bytes,
            ExecEvent::Stderr(bytes) => bail!("the probe: {}", String::from_utf8_lossy(&bytes)),
            ExecEvent::Exited(_) => break,
            _ => continue,
        };
        for byte in bytes {
            if byte != b'\n' {
                line.push(byte);
                anyhow::ensure!(line.len() <= MAX_LINE, "an answer of more than {MAX_LINE} bytes");
            } else if let Ok(answer) = serde_json::from_slice::<Answer>(&std::mem::take(&mut line))
            {
                print(&answer)?;
            }
        }
    }
    sandbox.close().await?;
    neighbour.close().await?;
    Ok(())
}

/// Makes a sandbox with the program and its targets in the workspace.
pub(crate) async fn prepared(
    backend: &dyn SandboxBackend,
    spec: &SandboxSpec,
    targets: &str,
) -> Result<Arc<dyn Sandbox>> {
    let sandbox = backend.create(spec).await.context("could not make a sandbox")?;
    let executable = WriteOptions { mode: 0o755, ..WriteOptions::default() };
    let name = WorkspacePath::new(PROGRAM_NAME)?;
    sandbox.files().write(&name, Bytes::from_static(PROGRAM), &executable).await?;
    let file = WorkspacePath::new("targets")?;
    let text = Bytes::copy_from_slice(targets.as_bytes());
    sandbox.files().write(&file, text, &WriteOptions::default()).await?;
    Ok(sandbox)
}

/// A request to run the program.
pub(crate) fn program(words: &[&str]) -> ExecRequest {
    let first = format!("./{PROGRAM_NAME}").into_bytes();
    let words = words.iter().map(|word| word.as_bytes().to_vec());
    ExecRequest::program([first].into_iter().chain(words))
}

async fn start_neighbour(sandbox: &dyn Sandbox) -> Result<Process> {
    let mut request = program(&["neighbour", "targets"]);
    request.stdin = true;
    let mut process = sandbox.exec(request).await?;
    wait_for(&mut process, "ready").await.context("the neighbour did not start")?;
    Ok(process)
}

/// Waits until a command has printed a word.
pub(crate) async fn wait_for(process: &mut Process, word: &str) -> Result<()> {
    let mut seen = String::new();
    let reading = async {
        while let Some(event) = process.next().await {
            match event? {
                ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes) => {
                    seen.push_str(&String::from_utf8_lossy(&bytes));
                }
                ExecEvent::Exited(status) => bail!("it ended with {status}: {seen}"),
                _ => {}
            }
            if seen.contains(word) {
                return Ok(());
            }
            anyhow::ensure!(seen.len() <= MAX_LINE, "it printed too much");
        }
        bail!("it ended: {seen}")
    };
    tokio::time::timeout(NEIGHBOUR_TIMEOUT, reading).await?
}

fn print(answer: &Answer) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(answer)?)?;
    Ok(stdout.flush()?)
}

//! `cofferdam exec`: one command, or a shell, in a sealed sandbox.

use std::{
    io::{IsTerminal as _, Write as _},
    os::unix::ffi::OsStringExt,
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use cofferdam::{
    agent::default_backend,
    core::WorkspacePath,
    manifest::Manifest,
    sandbox::{
        ExecEvent, ExecRequest, ExitStatus, Process, ProcessControl, Sandbox, SandboxError,
        SandboxSpec, TerminalSize,
    },
    secrets::resolver,
    workspace::Materializer,
};
use futures::StreamExt as _;
use rustix::termios;
use tokio::io::AsyncReadExt as _;

use super::file::{Document, parse, read};
use crate::{
    arguments::ExecArguments,
    exit::{Exit, Failure},
};

pub(crate) async fn exec(arguments: ExecArguments) -> Result<Exit, Failure> {
    let (manifest, base) = match &arguments.manifest {
        None => (Manifest::default(), ".".into()),
        Some(file) => {
            let source = read(file)?;
            let manifest = match parse(&source)? {
                Document::Agent(agent) => agent.workspace,
                Document::Manifest(manifest) => *manifest,
            };
            (manifest, source.base)
        }
    };
    let backend = default_backend().ok_or_else(|| {
        Failure::new(Exit::HostUnable, anyhow::anyhow!("this build has no sandbox backend"))
    })?;
    let materializer = Materializer::new(base).secrets(resolver());
    let spec = SandboxSpec {
        strict: arguments.strict,
        ..materializer.sandbox_spec(&manifest).map_err(Failure::usage)?
    };
    let sandbox = backend.create(&spec).await.map_err(failure)?;
    let result = run(&*sandbox, arguments, &manifest, &materializer).await;
    sandbox.close().await.map_err(failure)?;
    result
}

async fn run(
    sandbox: &dyn Sandbox,
    arguments: ExecArguments,
    manifest: &Manifest,
    materializer: &Materializer,
) -> Result<Exit, Failure> {
    materializer.materialize(manifest, sandbox).await.map_err(Failure::usage)?;
    let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let argv: Vec<Vec<u8>> = if arguments.command.is_empty() {
        vec![b"sh".to_vec()]
    } else {
        arguments.command.into_iter().map(OsStringExt::into_vec).collect()
    };
    let request = ExecRequest {
        directory: WorkspacePath::root(),
        terminal: on_terminal.then(window_size),
        stdin: true,
        ..ExecRequest::program(argv)
    };
    let process = sandbox.exec(request).await.map_err(failure)?;
    let _raw = if on_terminal { RawMode::enter() } else { None };
    let input = tokio::spawn(forward_input(process.control()));
    let resize = tokio::spawn(forward_size(process.control()));
    let status = show(process).await;
    input.abort();
    resize.abort();
    Ok(Exit::Code(u8::try_from(status?.shell_code()).unwrap_or(1)))
}

/// Writes the command's output where it belongs until it exits.
async fn show(mut process: Process) -> Result<ExitStatus, Failure> {
    while let Some(event) = process.next().await {
        match event.map_err(failure)? {
            ExecEvent::Stdout(bytes) => {
                let mut out = std::io::stdout().lock();
                out.write_all(&bytes)
                    .and_then(|()| out.flush())
                    .context("cannot write to standard output")?;
            }
            ExecEvent::Stderr(bytes) => {
                std::io::stderr()
                    .lock()
                    .write_all(&bytes)
                    .context("cannot write to standard error")?;
            }
            ExecEvent::Exited(status) => return Ok(status),
            _ => {}
        }
    }
    Err(anyhow::anyhow!("the command's stream ended without an exit status").into())
}

async fn forward_input(control: Arc<dyn ProcessControl>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                let _ = control.close_stdin().await;
                return;
            }
            Ok(read) => {
                if control.write_stdin(Bytes::copy_from_slice(&buffer[..read])).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn forward_size(control: Arc<dyn ProcessControl>) {
    let kind = tokio::signal::unix::SignalKind::window_change();
    let Ok(mut changes) = tokio::signal::unix::signal(kind) else { return };
    while changes.recv().await.is_some() {
        if control.resize(window_size()).await.is_err() {
            return;
        }
    }
}

fn window_size() -> TerminalSize {
    termios::tcgetwinsize(rustix::stdio::stdin())
        .map(|size| TerminalSize { rows: size.ws_row, columns: size.ws_col })
        .unwrap_or_default()
}

/// The terminal in raw mode; dropping it brings back the mode before.
struct RawMode(termios::Termios);

impl RawMode {
    fn enter() -> Option<Self> {
        let before = termios::tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(rustix::stdio::stdin(), termios::OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(rustix::stdio::stdin(), termios::OptionalActions::Now, &self.0);
    }
}

fn failure(error: SandboxError) -> Failure {
    let exit = match &error {
        SandboxError::HostUnable { .. } | SandboxError::Unenforceable { .. } => Exit::HostUnable,
        SandboxError::InvalidRequest { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}

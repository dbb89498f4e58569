//! `cofferdam exec` and `cofferdam shell`: one command, or an interactive shell, in a sealed sandbox.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    os::unix::ffi::OsStringExt,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use cofferdam::{
    core::{NetworkAccess, WorkspacePath},
    manifest::Manifest,
    sandbox::{
        ExecEvent, ExecRequest, ExitStatus, Guarantees, Process, ProcessControl, Sandbox,
        SandboxBackend, SandboxError, SandboxSpec, TerminalSize,
    },
    secrets::resolver,
    workspace::Materializer,
};
use futures::StreamExt as _;
use rustix::termios;
use tokio::io::AsyncReadExt as _;

use super::file::{Document, parse, read};
use crate::{
    arguments::{ExecArguments, PlaceArguments, ShellArguments},
    exit::{Exit, Failure},
};

pub(crate) async fn exec(arguments: ExecArguments) -> Result<Exit, Failure> {
    let argv: Vec<Vec<u8>> = if arguments.command.is_empty() {
        vec![b"sh".to_vec()]
    } else {
        arguments.command.into_iter().map(OsStringExt::into_vec).collect()
    };
    in_sandbox(arguments.manifest.as_deref(), &arguments.place, &argv, |_| Ok(())).await
}

/// The best shell that there is, started with a prompt that says where one is.
const SHELL: &str = r#"PS1='sealed:\w\$ '; export PS1
command -v bash >/dev/null 2>&1 && exec bash --norc --noprofile -i
PS1='sealed:$PWD$ '; exec sh -i"#;

pub(crate) async fn shell(arguments: ShellArguments) -> Result<Exit, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow::anyhow!(
            "`cofferdam shell` is for a terminal; `cofferdam exec -- sh` reads a script from standard input"
        )));
    }
    let argv = ["sh", "-c", SHELL].map(|word| word.as_bytes().to_vec());
    in_sandbox(arguments.manifest.as_deref(), &arguments.place, &argv, greet).await
}

/// Says what the shell is shut in, before it takes the terminal.
fn greet(opened: &Opened<'_>) -> Result<(), Failure> {
    let network = match opened.spec.network {
        NetworkAccess::None => "no network",
        _ => "the host's network",
    };
    let entries = match opened.manifest.entries.len() {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    };
    let mut text = format!(
        "A sealed shell of the {} backend: {network}, a workspace of {entries}. It ends, and all in it is gone, with \
         `exit`.\n",
        opened.backend.name()
    );
    for weakness in opened.guarantees.weaknesses() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "Weaker than it could be here: {}; see `cofferdam doctor`.",
            weakness.wall
        );
    }
    std::io::stderr()
        .lock()
        .write_all(text.as_bytes())
        .context("cannot write to standard error")?;
    Ok(())
}

/// What a command is about to run in.
struct Opened<'a> {
    backend: &'a dyn SandboxBackend,
    guarantees: Guarantees,
    spec: &'a SandboxSpec,
    manifest: &'a Manifest,
}

/// Makes a sandbox, fills it, runs a command in it and closes it.
async fn in_sandbox(
    file: Option<&Path>,
    place: &PlaceArguments,
    argv: &[Vec<u8>],
    tell: fn(&Opened<'_>) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let (manifest, base) = match file {
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
    let backend = place.backend()?;
    let materializer = Materializer::new(base).secrets(resolver());
    let declared = materializer.sandbox_spec(&manifest).map_err(Failure::usage)?;
    let spec = SandboxSpec {
        strict: place.strict,
        root: place.root().unwrap_or(declared.root),
        ..declared
    };
    let sandbox = backend.create(&spec).await.map_err(failure)?;
    let run = async {
        materializer.materialize(&manifest, &*sandbox).await.map_err(Failure::usage)?;
        let guarantees = backend.guarantees().await.map_err(failure)?;
        tell(&Opened { backend: &*backend, guarantees, spec: &spec, manifest: &manifest })?;
        run(&*sandbox, argv.to_vec()).await
    };
    let result = run.await;
    sandbox.close().await.map_err(failure)?;
    result
}

async fn run(sandbox: &dyn Sandbox, argv: Vec<Vec<u8>>) -> Result<Exit, Failure> {
    let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
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
                    .context(crate::exit::NOT_WRITTEN)?;
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
        SandboxError::HostUnable { .. }
        | SandboxError::Unenforceable { .. }
        | SandboxError::Unavailable { .. } => Exit::HostUnable,
        SandboxError::InvalidRequest { .. } | SandboxError::Image { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}

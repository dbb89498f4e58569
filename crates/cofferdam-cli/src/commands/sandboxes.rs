//! `cofferdam sandboxes`: the sandboxes that live on this host or engine, also those of processes that have died.

use std::{fmt::Write as _, io::Write as _, sync::Arc};

use anyhow::Context as _;
use cofferdam::{
    SystemClock, backends,
    core::{Clock as _, SandboxId, Timestamp},
    sandbox::{ListedSandbox, SandboxBackend, SandboxError},
};

use crate::{
    arguments::{SandboxesCommand, StateArguments},
    exit::{Exit, Failure},
    state::State,
};

pub(crate) async fn run(command: SandboxesCommand) -> Result<Exit, Failure> {
    match command {
        SandboxesCommand::List { backend, json } => list(backend.as_deref(), json).await,
        SandboxesCommand::Reap { names, all, backend, state } => {
            reap(backend.as_deref(), &names, all, &state).await
        }
    }
}

/// Lists sandboxes of one backend, or of all that can be asked.
async fn list(backend: Option<&str>, json: bool) -> Result<Exit, Failure> {
    let now = SystemClock.now();
    let mut text = String::new();
    for (_, sandbox) in find(backend).await? {
        let line = if json {
            serde_json::to_string(&sandbox).context("cannot write JSON")?
        } else {
            describe(&sandbox, now)
        };
        let _ = writeln!(text, "{line}");
    }
    if text.is_empty() && !json {
        text = "no sandboxes live here\n".to_owned();
    }
    write(&text)?;
    Ok(Exit::Done)
}

/// Ends sandboxes: those named, else those that nobody is connected to and that have expired; with `all` every one that nobody
/// is connected to. What was kept for them is freed, and so is what was kept for others that have ended alone.
async fn reap(
    backend: Option<&str>,
    names: &[String],
    all: bool,
    state: &StateArguments,
) -> Result<Exit, Failure> {
    let state = State::find(state)?;
    let now = SystemClock.now();
    let found = find(backend).await?;
    if let Some(missing) =
        names.iter().find(|name| found.iter().all(|(_, it)| it.id.as_str() != name.as_str()))
    {
        return Err(Failure::usage(anyhow::anyhow!(
            "no sandbox {missing} lives here; `cofferdam sandboxes list` shows which do"
        )));
    }
    let mut failed = None;
    let mut ended = 0;
    for (maker, sandbox) in found {
        if !chosen(&sandbox, names, all, now) {
            continue;
        }
        match maker.remove(&sandbox.id).await {
            Ok(()) => {
                ended += 1;
                if let Some(state) = &state {
                    let forgotten = state.directory().forget_sandbox(&sandbox.id).await;
                    forgotten.map_err(|error| Failure::new(Exit::Failed, error))?;
                }
                write(&format!("ended {}\n", describe(&sandbox, now)))?;
            }
            Err(error) => failed = Some(Failure::new(Exit::Failed, error)),
        }
    }
    if let Some(state) = state.filter(|_| names.is_empty()) {
        let gone = state.directory().forget_gone(&open(backend)?).await;
        let gone = gone.map_err(|error| Failure::new(Exit::Failed, error))?;
        if gone.freed > 0 {
            write(&format!("forgot {} that had ended alone\n", gone.freed))?;
        }
    }
    if ended == 0 && failed.is_none() {
        write("nothing to end\n")?;
    }
    failed.map_or(Ok(Exit::Done), Err)
}

fn chosen(sandbox: &ListedSandbox, names: &[String], all: bool, now: Timestamp) -> bool {
    if names.is_empty() {
        let expired = sandbox.expires.is_some_and(|expires| expires <= now);
        !sandbox.connected && (all || expired)
    } else {
        names.iter().any(|name| SandboxId::new(name.as_str()) == sandbox.id)
    }
}

/// Opens one backend, or all that there are.
fn open(backend: Option<&str>) -> Result<Vec<Arc<dyn SandboxBackend>>, Failure> {
    let names: Vec<&str> = match backend {
        Some(name) => vec![name],
        None => backends::names().collect(),
    };
    names.into_iter().map(|name| backends::open(name).map_err(Failure::usage)).collect()
}

async fn find(
    backend: Option<&str>,
) -> Result<Vec<(Arc<dyn SandboxBackend>, ListedSandbox)>, Failure> {
    let mut found = Vec::new();
    for opened in open(backend)? {
        match opened.list().await {
            Ok(listed) => found.extend(listed.into_iter().map(|it| (Arc::clone(&opened), it))),
            // An engine that is not there has no sandboxes, unless it was asked for by name.
            Err(SandboxError::Unavailable { .. }) if backend.is_none() => {}
            Err(error) => return Err(Failure::new(Exit::Failed, error)),
        }
    }
    Ok(found)
}

fn describe(sandbox: &ListedSandbox, now: Timestamp) -> String {
    let mut line = format!("{} {} made {}", sandbox.id, sandbox.backend, sandbox.created);
    if sandbox.connected {
        line += ", in use";
    } else {
        line += match sandbox.expires {
            Some(expires) if expires <= now => ", expired",
            _ => ", nobody is connected",
        };
    }
    if let Some(expires) = sandbox.expires.filter(|expires| *expires > now) {
        let _ = write!(line, ", until {expires}");
    }
    for (name, value) in &sandbox.labels {
        let _ = write!(line, ", {name} {value}");
    }
    line
}

fn write(text: &str) -> Result<(), Failure> {
    std::io::stdout().lock().write_all(text.as_bytes()).context(crate::exit::NOT_WRITTEN)?;
    Ok(())
}

//! Cases on what only some sandboxes can: sessions, ports and the watching of files. Skipped where a sandbox has none.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future::try_join, stream::BoxStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    case_table,
    layout::lay,
    support::{
        CaseResult, alive, collect, content_of, equal, errno, holds, mismatch, path, pattern,
        read_until, refused, senseless, shell, write,
    },
    trial::{Stop, Trial},
};
use crate::{
    CommandInfo, CommandState, ExecRequest, ExitStatus, OutputPosition, PortAddress, PortStream,
    Sandbox, SandboxError, WatchEvent, WatchOptions, WriteOptions,
};

case_table! { "capabilities":
    sessions_list: "a named command is listed with its state, its status and how much it wrote",
    sessions_names: "a name is used once, and again when it was forgotten",
    sessions_attach: "a detached command is found again, with its output from any position",
    sessions_unknown: "a command that nobody knows is `UnknownCommand`",
    sessions_outlive: "a command outlives the handle of its sandbox, and attaching to the sandbox finds both",
    ports_both_ways: "a connection carries 1 MiB each way, and each way is shut down alone",
    ports_refused: "where nobody listens, connecting fails and says so; a port is taken once",
    ports_listener_dropped: "dropping a listener ends the listening",
    ports_unix: "a path that is no socket, or leads out, is not connected to",
    watch_changes: "making, changing, moving and removing are told",
    watch_below: "directories that appear are watched too",
    watch_dropped: "300 watches that were dropped are no burden; what is not there is not watched",
}

fn skip<T>(what: &str) -> Result<T, Stop> {
    Err(Stop::Skipped(format!("sandboxes of this backend have no {what}")))
}

/// Makes a sandbox whose commands may outlive a connection, and demands nothing if there is none such.
async fn lingering(trial: &Trial<'_>) -> Result<Arc<dyn Sandbox>, Stop> {
    let made = trial.sandbox_with(|spec| spec.linger = Duration::from_secs(60)).await;
    match made {
        Ok(sandbox) if sandbox.sessions().is_some() => Ok(sandbox),
        Ok(_) => skip("sessions"),
        Err(error @ (SandboxError::Unsupported { .. } | SandboxError::Unenforceable { .. })) => {
            Err(Stop::Skipped(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

fn named(name: &str, script: &str) -> ExecRequest {
    ExecRequest { id: Some(name.to_owned()), ..ExecRequest::shell(script) }
}

async fn sessions_list(trial: &Trial<'_>) -> CaseResult {
    let sandbox = lingering(trial).await?;
    let Some(sessions) = sandbox.sessions() else { return skip("sessions") };
    let script = "printf 12345; printf 123 >&2; until [ -e go ]; do sleep 0.02; done; exit 7";
    let mut process = sandbox.exec(named("job", script)).await?;
    read_until(&mut process, "12345").await?;
    let found = |list: Vec<CommandInfo>| list.into_iter().find(|info| info.id == "job");
    let Some(info) = found(sessions.list().await?) else {
        return Err(mismatch("the list", "the command", &"none"));
    };
    equal("its state", (info.state, info.status), (CommandState::Running, None))?;
    holds("its process id", info.pid > 1, "above 1", &info.pid)?;
    write(&*sandbox, "go", "").await?;
    collect(process).await?;
    let info = found(sessions.list().await?);
    let ended = info.map(|info| (info.state, info.status, info.written));
    let written = OutputPosition { stdout: 5, stderr: 3 };
    equal("at its end", ended, Some((CommandState::Finished, Some(ExitStatus::Code(7)), written)))
}

async fn sessions_names(trial: &Trial<'_>) -> CaseResult {
    let sandbox = lingering(trial).await?;
    let Some(sessions) = sandbox.sessions() else { return skip("sessions") };
    collect(sandbox.exec(named("job", "echo first")).await?).await?;
    senseless("the same name", sandbox.exec(named("job", "echo second > trace")).await)?;
    sessions.forget("job").await?;
    let told = collect(sandbox.exec(named("job", "echo third")).await?).await?;
    equal("a forgotten name", told.text(), "third\n")?;
    equal("what did not run", shell(&*sandbox, "ls -A").await?, "")
}

async fn sessions_attach(trial: &Trial<'_>) -> CaseResult {
    let sandbox = lingering(trial).await?;
    let Some(sessions) = sandbox.sessions() else { return skip("sessions") };
    let script = "printf one; echo > told; until [ -e go ]; do sleep 0.02; done; printf two";
    sandbox.exec(named("job", script)).await?.detach().await?;
    content_of(&*sandbox, "told").await?;
    let mut process = sessions.attach("job", OutputPosition::default()).await?;
    equal("from the start", read_until(&mut process, "one").await?, "one")?;
    process.detach().await?;
    let later = OutputPosition { stdout: 3, stderr: 0 };
    let process = sessions.attach("job", later).await?;
    write(&*sandbox, "go", "").await?;
    let told = collect(process).await?;
    equal(
        "from a position",
        (told.text(), told.status),
        ("two".to_owned(), Some(ExitStatus::Code(0))),
    )?;
    let told = collect(sessions.attach("job", OutputPosition::default()).await?).await?;
    equal(
        "after its end",
        (told.text(), told.status),
        ("onetwo".to_owned(), Some(ExitStatus::Code(0))),
    )
}

async fn sessions_unknown(trial: &Trial<'_>) -> CaseResult {
    let sandbox = lingering(trial).await?;
    let Some(sessions) = sandbox.sessions() else { return skip("sessions") };
    let unknown = |error: Option<SandboxError>| {
        let expected =
            matches!(&error, Some(SandboxError::UnknownCommand { id }) if id == "nobody");
        holds("the error", expected, "SandboxError::UnknownCommand", &error)
    };
    unknown(sessions.attach("nobody", OutputPosition::default()).await.err())?;
    unknown(sessions.forget("nobody").await.err())?;
    alive(&*sandbox).await
}

async fn sessions_outlive(trial: &Trial<'_>) -> CaseResult {
    // Looks whether there is any such thing.
    lingering(trial).await?.close().await?;
    let mut spec = trial.spec.clone();
    spec.linger = Duration::from_secs(60);
    let sandbox = trial.backend.create(&spec).await?;
    let state = sandbox.state();
    let script = "until [ -e go ]; do sleep 0.02; done; echo done";
    sandbox.exec(named("job", script)).await?.detach().await?;
    drop(sandbox);
    let sandbox = trial.adopt(trial.backend.attach(&state).await?);
    equal("the name", sandbox.id(), &state.id)?;
    let Some(sessions) = sandbox.sessions() else { return skip("sessions") };
    let process = sessions.attach("job", OutputPosition::default()).await?;
    write(&*sandbox, "go", "").await?;
    let told = collect(process).await?;
    equal(
        "what it says",
        (told.text(), told.status),
        ("done\n".to_owned(), Some(ExitStatus::Code(0))),
    )
}

fn port_failed(what: &str, error: io::Error) -> Stop {
    mismatch(what, "to go on", &error)
}

async fn ports_both_ways(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let Some(ports) = sandbox.ports() else { return skip("ports") };
    let mut listener = ports.listen(0).await?;
    holds("the port", listener.port() != 0, "a real one", &listener.port())?;
    let address = PortAddress::Tcp(listener.port());
    let (outer, inner) = tokio::join!(ports.connect(&address), listener.next());
    let Some(inner) = inner else {
        return Err(mismatch("the listener", "a connection", &"the end"));
    };
    let content = pattern(1 << 20);
    // Each end sends all and shuts its way down, and reads the other's to the end.
    let talk = async |stream: PortStream, what: &str| {
        let (mut reading, mut writing) = tokio::io::split(stream);
        let send = async {
            writing.write_all(&content).await?;
            writing.shutdown().await
        };
        let receive = async {
            let mut found = Vec::new();
            reading.read_to_end(&mut found).await?;
            Ok::<_, io::Error>(found)
        };
        let ((), found) = try_join(send, receive).await.map_err(|e| port_failed(what, e))?;
        holds(what, found == content, "what was sent", &found.len())
    };
    let (one, two) = tokio::join!(talk(outer?, "the outer end"), talk(inner?, "the inner end"));
    one.and(two)
}

async fn ports_refused(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let Some(ports) = sandbox.ports() else { return skip("ports") };
    let port_error = |what: &str, error: Option<SandboxError>| {
        holds(what, matches!(error, Some(SandboxError::Port { .. })), "SandboxError::Port", &error)
    };
    port_error("nobody", ports.connect(&PortAddress::Tcp(1)).await.err())?;
    let listener = ports.listen(0).await?;
    port_error("a port that is taken", ports.listen(listener.port()).await.err())?;
    alive(&*sandbox).await
}

async fn ports_listener_dropped(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let Some(ports) = sandbox.ports() else { return skip("ports") };
    let port = ports.listen(0).await?.port();
    for _ in 0..200 {
        if let Err(SandboxError::Port { .. }) = ports.connect(&PortAddress::Tcp(port)).await {
            return alive(&*sandbox).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(mismatch("the port of a dropped listener", "free within 2 s", &port))
}

async fn ports_unix(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let Some(ports) = sandbox.ports() else { return skip("ports") };
    lay(&*sandbox, &["file: x", "out -> /tmp/socket"]).await?;
    for name in ["missing", "file", "out"] {
        let error = ports.connect(&PortAddress::Unix(path(name)?)).await.err();
        let expected = matches!(error, Some(SandboxError::Port { .. } | SandboxError::File { .. }));
        holds(name, expected, "SandboxError::Port or File", &error)?;
    }
    alive(&*sandbox).await
}

type Changes = BoxStream<'static, Result<WatchEvent, SandboxError>>;

/// Reads changes until one is what is looked for.
async fn until(
    changes: &mut Changes,
    what: &str,
    wanted: impl Fn(&WatchEvent) -> bool,
) -> CaseResult {
    let mut seen = Vec::new();
    while let Some(event) = changes.next().await {
        let event = event?;
        if wanted(&event) {
            return Ok(());
        }
        seen.push(event);
    }
    Err(mismatch(what, "to be told", &seen))
}

async fn watch_changes(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let Some(watcher) = sandbox.watcher() else { return skip("watcher") };
    let mut changes = watcher.watch(&path(".")?, &WatchOptions::default()).await?;
    let is = |event: &WatchEvent, name: &[u8]| match event {
        WatchEvent::Created { path } | WatchEvent::Modified { path } => path == name,
        _ => false,
    };
    shell(&*sandbox, "echo x > file").await?;
    until(&mut changes, "making", |event| is(event, b"file")).await?;
    shell(&*sandbox, "echo y >> file").await?;
    until(&mut changes, "changing", |event| is(event, b"file")).await?;
    shell(&*sandbox, "mv file moved").await?;
    until(&mut changes, "moving", |event| {
        matches!(event, WatchEvent::Moved { from, to } if from == b"file" && to == b"moved")
    })
    .await?;
    sandbox
        .files()
        .write(&path("moved")?, Bytes::from_static(b"z"), &WriteOptions::default())
        .await?;
    until(&mut changes, "replacing", |event| match event {
        WatchEvent::Moved { to, .. } => to == b"moved",
        event => is(event, b"moved"),
    })
    .await?;
    sandbox.files().remove(&path("moved")?, false).await?;
    until(
        &mut changes,
        "removing",
        |event| matches!(event, WatchEvent::Removed { path } if path == b"moved"),
    )
    .await
}

async fn watch_below(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let Some(watcher) = sandbox.watcher() else { return skip("watcher") };
    let mut changes = watcher.watch(&path(".")?, &WatchOptions::default()).await?;
    write(&*sandbox, "a/b/c/file", "x").await?;
    // What was made before its directory was watched is told, too.
    until(&mut changes, "a file three levels down", |event| match event {
        WatchEvent::Created { path }
        | WatchEvent::Modified { path }
        | WatchEvent::Moved { to: path, .. } => path == b"a/b/c/file",
        _ => false,
    })
    .await
}

async fn watch_dropped(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let Some(watcher) = sandbox.watcher() else { return skip("watcher") };
    let options = WatchOptions::default();
    for _ in 0..300 {
        drop(watcher.watch(&path(".")?, &options).await?);
    }
    let missing = watcher.watch(&path("missing")?, &options).await.map(drop);
    refused("what is not there", missing, Some(errno::ENOENT))?;
    alive(&*sandbox).await
}

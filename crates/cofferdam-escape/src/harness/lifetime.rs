//! What a command can leave behind, kill or flood.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cofferdam_core::{SandboxId, SandboxLimits};
use cofferdam_sandbox::{
    Enforcement, ExecEvent, ExitStatus, SandboxBackend, SandboxError, SandboxSpec, Wall,
    exec::ExceededLimit,
};
use cofferdam_sandbox_linux::LinuxBackend;
use futures::StreamExt as _;

use super::{Found, Trial, attack_table, denied, naive, open};
use crate::worker;

attack_table! {
    after_close "outlive-close" "live on after the sandbox is closed (setsid, orphaned)", naive::survivor;
    after_drop "outlive-command" "live on after the command that started it is dropped", naive::survivor;
    after_kill "outlive-maker" "live on after the process that made the sandbox is killed", naive::survivor;
    after_launcher "outlive-launcher" "live on after the launcher of the sandbox is killed", naive::survivor;
    after_linger "outlive-linger" "live on beyond the time for which a sandbox waits for its next harness", naive::survivor;
    after_remove "outlive-remove" "live on after a sandbox to which nobody is connected is removed", naive::survivor;
    kill_all "kill-all" "kill every process in sight, and be taken for a success", naive::never;
    flood "output-flood" "fill the harness's memory with output", naive::flood;
    weak_walls "weak-walls" "get a sandbox with weaker walls than were demanded", naive::undemanding;
}

/// How long the end of a process may take to be seen.
const GONE: Duration = Duration::from_secs(10);

/// How many processes on the host are `probe linger WORD`.
fn lingering(word: &str) -> usize {
    let arguments = format!("linger\0{word}\0");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|words| words.ends_with(arguments.as_bytes()))
        .count()
}

/// Waits until they are gone.
async fn gone(word: &str) -> Result<Found> {
    let start = Instant::now();
    loop {
        let left = lingering(word);
        if left == 0 {
            return denied(format!("gone after {} ms", start.elapsed().as_millis()));
        }
        if start.elapsed() > GONE {
            return open(format!("{left} processes live on"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether they can be counted from here at all.
fn must_linger(word: &str) -> Result<()> {
    anyhow::ensure!(lingering(word) > 0, "the process that should live on is not seen on the host");
    Ok(())
}

async fn after_close(trial: &Trial) -> Result<Found> {
    let word = format!("close-{}", trial.targets.token);
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(worker::program(&["linger", &word])).await?;
    worker::wait_for(&mut process, "ready").await?;
    must_linger(&word)?;
    sandbox.close().await?;
    gone(&word).await
}

async fn after_drop(trial: &Trial) -> Result<Found> {
    let word = format!("drop-{}", trial.targets.token);
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(worker::program(&["linger", &word])).await?;
    worker::wait_for(&mut process, "ready").await?;
    must_linger(&word)?;
    drop(process);
    let found = gone(&word).await;
    sandbox.close().await?;
    found
}

/// Makes a sandbox that waits so long for its next harness, starts what should live on in it, and leaves it. `None` if sandboxes
/// of this backend wait for nobody.
async fn leave(
    backend: &dyn SandboxBackend,
    trial: &Trial,
    word: &str,
    linger: Duration,
) -> Result<Option<SandboxId>> {
    if !backend.capabilities().await?.linger {
        return Ok(None);
    }
    let spec = SandboxSpec { linger, ..worker::spec() };
    let sandbox = worker::prepared(backend, &spec, &trial.text).await?;
    let mut process = sandbox.exec(worker::program(&["linger", word])).await?;
    worker::wait_for(&mut process, "ready").await?;
    must_linger(word)?;
    process.detach().await?;
    Ok(Some(sandbox.id().clone()))
}

/// Returns the backend with a place for sandboxes that wait, which is there as long as what comes with it.
fn lingering_backend(trial: &Trial) -> Result<(Arc<dyn SandboxBackend>, tempfile::TempDir)> {
    let place = tempfile::tempdir()?;
    let backend: Arc<dyn SandboxBackend> = match &*trial.words {
        "linux" => Arc::new(LinuxBackend::new().with_state_directory(place.path().join("state"))),
        _ => Arc::clone(&trial.backend),
    };
    Ok((backend, place))
}

async fn after_linger(trial: &Trial) -> Result<Found> {
    let word = format!("left-{}", trial.targets.token);
    let (backend, _place) = lingering_backend(trial)?;
    match leave(&*backend, trial, &word, Duration::from_secs(2)).await? {
        Some(_) => gone(&word).await,
        None => denied("its sandboxes wait for nobody"),
    }
}

async fn after_remove(trial: &Trial) -> Result<Found> {
    let word = format!("removed-{}", trial.targets.token);
    let (backend, _place) = lingering_backend(trial)?;
    match leave(&*backend, trial, &word, Duration::from_secs(60)).await? {
        Some(id) => {
            backend.remove(&id).await?;
            gone(&word).await
        }
        None => denied("its sandboxes wait for nobody"),
    }
}

/// Makes a sandbox in which something lingers, says so, and waits to be killed.
pub(crate) async fn hold(trial: &Trial, word: &str) -> Result<()> {
    use std::io::Write as _;
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(worker::program(&["linger", word])).await?;
    worker::wait_for(&mut process, "ready").await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

/// Starts this program again as one that holds a sandbox in which something lingers under `word`.
#[expect(clippy::disallowed_methods, reason = "it is this program again, to be killed")]
fn start_holder(trial: &Trial, word: &str) -> Result<Child> {
    let mut holder = Command::new(std::env::current_exe()?)
        .args(["hold", &trial.words, "targets", word])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = holder.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let lingers = must_linger(word);
    if lingers.is_err() || line.trim() != "ready" {
        holder.kill()?;
        holder.wait()?;
    }
    anyhow::ensure!(line.trim() == "ready", "the holder said {line:?}");
    lingers.map(|()| holder)
}

async fn after_kill(trial: &Trial) -> Result<Found> {
    let word = format!("kill-{}", trial.targets.token);
    let mut holder = start_holder(trial, &word)?;
    holder.kill()?;
    holder.wait()?;
    gone(&word).await
}

async fn after_launcher(trial: &Trial) -> Result<Found> {
    let word = format!("launcher-{}", trial.targets.token);
    let mut holder = start_holder(trial, &word)?;
    let launchers = children(holder.id());
    let killed = launchers.iter().filter(|pid| kill(**pid)).count();
    let found = if killed > 0 {
        gone(&word).await
    } else {
        denied("the process that made the sandbox has no other beside it")
    };
    holder.kill()?;
    holder.wait()?;
    found
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let above = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        above.is_some_and(|above| above.trim() == parent.to_string())
    };
    numbers.filter(is_child).collect()
}

#[expect(clippy::disallowed_methods, reason = "the only way to a signal without unsafe code")]
fn kill(pid: u32) -> bool {
    Command::new("kill").args(["-9", &pid.to_string()]).status().is_ok_and(|it| it.success())
}

async fn kill_all(trial: &Trial) -> Result<Found> {
    let guarantees = trial.backend.guarantees().await?;
    if !matches!(guarantees.enforcement(Wall::Processes), Enforcement::Full { .. }) {
        return denied("not tried without a wall around processes");
    }
    let sandbox = trial.sandbox().await?;
    let mut process = sandbox.exec(worker::program(&["kill-all"])).await?;
    let ended = async {
        while let Some(event) = process.next().await {
            match event {
                Ok(ExecEvent::Exited(status)) => return Ok(status),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ExitStatus::Code(0))
    };
    let Ok(ended) = tokio::time::timeout(GONE, ended).await else {
        return open("the command neither ended nor failed");
    };
    let said = match &ended {
        Ok(status) if status.success() => return open("it was told as a success"),
        Ok(status) => format!("the command: {status}"),
        Err(error) => format!("the command: {error}"),
    };
    // Whether it is lost or goes on, the next one must say.
    let next = tokio::time::timeout(GONE, trial.run(&*sandbox, &["list"])).await;
    let Ok(next) = next else { return open("the next command neither ended nor failed") };
    sandbox.close().await?;
    denied(match next {
        Ok(_) => format!("{said}; the next one runs"),
        Err(error) => format!("{said}; the next: {error:#}"),
    })
}

/// Bytes of memory that this process has.
fn resident() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).context("no resident pages")?.parse()?;
    Ok(pages * 4096)
}

async fn flood(trial: &Trial) -> Result<Found> {
    const LIMIT: u64 = 64 << 20;
    const SLACK: u64 = 32 << 20;
    let spec = worker::spec();
    let limits = SandboxLimits { output_bytes: LIMIT, ..spec.limits.clone() };
    let spec = SandboxSpec { limits, ..spec };
    let sandbox = worker::prepared(&*trial.backend, &spec, &trial.text).await?;
    let before = resident()?;
    let mut process = sandbox.exec(worker::program(&["flood"])).await?;
    // A reader that does not read: what comes meanwhile must wait in the sandbox.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = resident()?.saturating_sub(before);
    let (mut bytes, mut status) = (0_u64, None);
    while let Some(event) = process.next().await {
        match event? {
            ExecEvent::Stdout(piece) => bytes += piece.len() as u64,
            ExecEvent::Exited(exit) => status = Some(exit),
            _ => {}
        }
        if bytes > LIMIT + SLACK {
            return open(format!("{} MiB came, of {} allowed", bytes >> 20, LIMIT >> 20));
        }
    }
    let grown = grown.max(resident()?.saturating_sub(before));
    sandbox.close().await?;
    if grown > SLACK {
        return open(format!("the harness grew by {} MiB", grown >> 20));
    }
    if status != Some(ExitStatus::Limit(ExceededLimit::Output)) {
        return open(format!("it ended with {status:?} after {} MiB", bytes >> 20));
    }
    denied(format!("stopped after {} MiB; the harness grew by {} KiB", bytes >> 20, grown >> 10))
}

async fn weak_walls(trial: &Trial) -> Result<Found> {
    let guarantees = trial.backend.guarantees().await?;
    let weak: Vec<Wall> = guarantees.weaknesses().map(|weakness| weakness.wall).collect();
    let strict = SandboxSpec { strict: true, ..worker::spec() };
    let mut demands = vec![("strict".to_owned(), strict)];
    for wall in &weak {
        let require = [*wall].into();
        demands.push((wall.to_string(), SandboxSpec { require, ..worker::spec() }));
    }
    for (demand, spec) in demands {
        match trial.backend.create(&spec).await {
            Ok(sandbox) => {
                sandbox.close().await?;
                if !weak.is_empty() {
                    return open(format!("{demand} was demanded, and it started"));
                }
            }
            Err(SandboxError::Unenforceable { .. }) if !weak.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if weak.is_empty() {
        return denied("no wall is weaker here, and a strict sandbox starts");
    }
    let names: Vec<String> = weak.iter().map(Wall::to_string).collect();
    denied(format!("told as weaker and refused when demanded: {}", names.join(", ")))
}

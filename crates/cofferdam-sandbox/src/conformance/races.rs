//! Cases on links that are swapped in while the host works: nothing outside of the workspace is read or changed.
//!
//! A command swaps a directory for a link to one outside, as fast as it can, while the host does one operation through
//! that name again and again. Each single try may succeed or be refused; none may lead out.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{
    CaseFailure, case_table,
    layout::{download_or_skip, file, upload},
    support::{CaseResult, equal, holds, mismatch, path, read_until, run, shell},
    trial::{Stop, Trial},
};
use crate::{ExecRequest, ListOptions, Sandbox, SandboxError, TreeEntryKind, WriteOptions};

case_table! { "races":
    reading: "reading through a name that is swapped for a link never reads outside",
    writing: "writing through a name that is swapped for a link never writes outside",
    listing: "listing and describing through a swapped name never shows what is outside",
    renaming: "renaming through a swapped name moves nothing in or out",
    removing: "removing a directory that is swapped for a link removes nothing outside",
    uploading: "uploading through a swapped name makes nothing outside",
    downloading: "downloading a tree with a swapped name never brings what is outside",
    starting: "a command whose directory is swapped for a link does not start outside",
}

/// How long one operation is tried.
const TIME: Duration = Duration::from_millis(700);

/// Lays out the place outside and swaps `name` between a directory and a link to it, without end.
const SWAP: &str =
    "out=${TMPDIR:-/tmp}/outside; mkdir -p $out && echo outside > $out/file && echo outside > $out/only
mkdir -p name && echo inside > name/file
echo ready
while :; do
  mv name aside 2>&- || mkdir aside
  ln -s $out name 2>&-
  rm -rf name
  mv aside name 2>&-
done";

/// Tries an operation while the name is swapped, and looks at what is outside then.
///
/// The operation says whether it did something; a refusal of the file is as good.
async fn tried<F>(trial: &Trial<'_>, mut operation: F) -> CaseResult
where
    F: for<'s> FnMut(&'s dyn Sandbox, u32) -> BoxFuture<'s, Result<(), Stop>>,
{
    let sandbox = trial.sandbox().await?;
    let mut swapping = sandbox.exec(ExecRequest::shell(SWAP)).await?;
    read_until(&mut swapping, "ready\n").await?;
    let start = Instant::now();
    let (mut done, mut turn) = (0_u32, 0);
    while start.elapsed() < TIME || (done == 0 && turn < 100_000) {
        turn += 1;
        match operation(&*sandbox, turn).await {
            Ok(()) => done += 1,
            Err(Stop::Failed(CaseFailure::Call(
                SandboxError::File { .. } | SandboxError::NotStarted { .. },
            ))) => {}
            Err(other) => return Err(other),
        }
    }
    swapping.control().kill_tree().await?;
    holds("tries that succeeded", done > 0, "some", &done)?;
    let script = "cd ${TMPDIR:-/tmp}/outside && ls -A && cat file only";
    equal("what is outside", shell(&*sandbox, script).await?, "file\nonly\noutside\noutside\n")
}

fn inside(what: &str, found: &[u8]) -> CaseResult {
    if found.windows(7).any(|part| part == b"outside") {
        return Err(mismatch(what, "nothing from outside", &Bytes::copy_from_slice(found)));
    }
    Ok(())
}

async fn reading(trial: &Trial<'_>) -> CaseResult {
    tried(trial, |sandbox, _| {
        Box::pin(async move {
            inside("a file", &sandbox.files().read(&path("name/file")?, 0, 100).await?)
        })
    })
    .await
}

async fn writing(trial: &Trial<'_>) -> CaseResult {
    tried(trial, |sandbox, turn| {
        Box::pin(async move {
            let options = WriteOptions { make_parents: turn % 2 == 0, ..WriteOptions::default() };
            let name = if turn % 3 == 0 { "name/file" } else { "name/sub/new" };
            Ok(sandbox.files().write(&path(name)?, Bytes::from_static(b"inside"), &options).await?)
        })
    })
    .await
}

async fn listing(trial: &Trial<'_>) -> CaseResult {
    tried(trial, |sandbox, turn| {
        Box::pin(async move {
            if turn % 2 == 0 {
                let found = sandbox.files().stat(&path("name/only")?).await;
                return match found {
                    Ok(found) => Err(mismatch("a file that is only outside", "none", &found)),
                    Err(error) => Err(error.into()),
                };
            }
            let depth = if turn % 3 == 0 { 3 } else { 1 };
            let options = ListOptions { depth, ..ListOptions::default() };
            let at = if depth == 1 { "name" } else { "." };
            let found = sandbox.files().list(&path(at)?, &options).await?;
            let leads = found.entries.iter().any(|entry| entry.path.ends_with(b"only"));
            holds("a listing", !leads, "nothing that is only outside", &found)
        })
    })
    .await
}

async fn renaming(trial: &Trial<'_>) -> CaseResult {
    tried(trial, |sandbox, turn| {
        Box::pin(async move {
            let (mine, there) = (path("mine")?, path("name/taken")?);
            let options = WriteOptions::default();
            sandbox.files().write(&mine, Bytes::from_static(b"inside"), &options).await?;
            if turn % 2 == 0 {
                return Ok(sandbox.files().rename(&mine, &there, true).await?);
            }
            match sandbox.files().rename(&path("name/only")?, &mine, true).await {
                Ok(()) => Err(mismatch("a file that is only outside", "not moved", &"moved")),
                Err(error) => Err(error.into()),
            }
        })
    })
    .await
}

async fn removing(trial: &Trial<'_>) -> CaseResult {
    tried(trial, |sandbox, turn| {
        Box::pin(async move {
            let name = if turn % 4 == 0 { "name" } else { "name/file" };
            Ok(sandbox.files().remove(&path(name)?, true).await?)
        })
    })
    .await
}

async fn uploading(trial: &Trial<'_>) -> CaseResult {
    tried(trial, |sandbox, turn| {
        Box::pin(async move {
            let (target, name) =
                if turn % 2 == 0 { (".", "name/up/loaded") } else { ("name", "up/loaded") };
            upload(sandbox, target, file(name, 0o644, b"inside")).await?;
            Ok(())
        })
    })
    .await
}

async fn downloading(trial: &Trial<'_>) -> CaseResult {
    tried(trial, |sandbox, turn| {
        Box::pin(async move {
            let source = if turn % 2 == 0 { "." } else { "name" };
            let (found, skipped) = download_or_skip(sandbox, source).await?;
            // What was a directory when it was looked at and a link when it was opened is left out by name. Both names of the swap
            // are now the one, now the other.
            let swapped = skipped.iter().all(|entry| matches!(&*entry.path, b"name" | b"aside"));
            holds("what was left out", swapped, "the swapped names", &skipped)?;
            for (entry, content) in found {
                if let TreeEntryKind::File { .. } = entry.kind {
                    inside("a file", &content)?;
                    holds("a path", !entry.path.ends_with(b"only"), "none outside", &entry.path)?;
                }
            }
            Ok(())
        })
    })
    .await
}

async fn starting(trial: &Trial<'_>) -> CaseResult {
    tried(trial, |sandbox, _| {
        Box::pin(async move {
            let request =
                ExecRequest { directory: path("name")?, ..ExecRequest::program(["ls", "-A"]) };
            let told = run(sandbox, request).await?;
            holds("the directory", !told.text().contains("only"), "not the one outside", &told)
        })
    })
    .await
}

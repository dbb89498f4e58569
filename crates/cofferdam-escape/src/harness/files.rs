//! Files and trees that a command has prepared.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use cofferdam_core::WorkspacePath;
use cofferdam_sandbox::{
    DownloadOptions, ListOptions, Sandbox, SandboxError, TreeEntry, TreeEntryKind, TreeEvent,
    WriteOptions,
};
use futures::{StreamExt as _, stream};

use super::{Found, Trial, attack_table, denied, naive, open, text_of};
use crate::worker;

attack_table! {
    read_link "link-read" "have the harness read a host file through a link", naive::read_link;
    write_link "link-write" "have the harness write, rename or remove on the host through a link", naive::write_link;
    swap_race "link-race" "swap a directory for a link while the harness reads and writes", naive::race;
    special_files "special-files" "have the harness hang on a fifo, a socket or a terminal", naive::fifo;
    tree_entries "tree-entries" "have an uploaded tree leave the workspace by `..`, an absolute name or a link", naive::unpack;
    sparse "sparse-file" "have the harness take a file of 1 TiB that holds nothing", naive::sparse;
    odd_names "odd-names" "confuse the harness by odd names and 2 000 directories in each other", naive::odd_names;
    set_id "set-id-upload" "keep set-id bits through an upload", naive::set_id;
}

/// Anything that takes longer hangs.
const PROMPT: Duration = Duration::from_secs(10);

fn path(text: &str) -> Result<WorkspacePath> {
    Ok(WorkspacePath::new(text)?)
}

fn entry(path: &[u8], mode: u32, kind: TreeEntryKind) -> TreeEvent {
    TreeEvent::Entry(TreeEntry { path: path.to_vec(), mode, modified_ns: None, kind })
}

fn file(path: &[u8], mode: u32) -> [TreeEvent; 2] {
    [
        entry(path, mode, TreeEntryKind::File { size: 1 }),
        TreeEvent::Content(Bytes::from_static(b"x")),
    ]
}

fn link(path: &[u8], target: Vec<u8>) -> TreeEvent {
    entry(path, 0o777, TreeEntryKind::Link { target })
}

async fn upload(
    sandbox: &dyn Sandbox,
    entries: impl IntoIterator<Item = TreeEvent>,
) -> Result<u64, SandboxError> {
    let entries: Vec<_> = entries.into_iter().map(Ok).collect();
    sandbox.tree().upload(&WorkspacePath::root(), stream::iter(entries).boxed()).await
}

/// A sandbox in whose workspace `file` leads to the host's secret and `out` to its directory.
async fn with_links(trial: &Trial) -> Result<std::sync::Arc<dyn Sandbox>> {
    let sandbox = trial.sandbox().await?;
    let links = [
        link(b"file", text_of(&trial.targets.canary())),
        link(b"out", text_of(&trial.targets.outside)),
    ];
    upload(&*sandbox, links).await.context("could not plant the links")?;
    Ok(sandbox)
}

async fn read_link(trial: &Trial) -> Result<Found> {
    let sandbox = with_links(trial).await?;
    let mut last = String::new();
    for name in ["file", "out/canary"] {
        match sandbox.files().read(&path(name)?, 0, 4096).await {
            Ok(bytes) if trial.targets.is_canary(&bytes) => return open(format!("read {name}")),
            Ok(_) => last = "it read something else".to_owned(),
            Err(error) => last = error.to_string(),
        }
    }
    let list = sandbox.files().list(&path("out")?, &ListOptions::default()).await;
    if list.is_ok_and(|list| list.entries.iter().any(|it| it.path.ends_with(b"canary"))) {
        return open("listed the host's directory");
    }
    let downloaded = download(&*sandbox, "out").await;
    if downloaded.is_ok_and(|tree| tree.iter().any(|(_, bytes)| trial.targets.is_canary(bytes))) {
        return open("downloaded the host's directory");
    }
    sandbox.close().await?;
    denied(last)
}

/// Everything below a directory: paths and contents.
async fn download(sandbox: &dyn Sandbox, source: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let options = DownloadOptions { max_bytes: 16 << 20, max_entries: 10_000, hard_links: false };
    let mut events = sandbox.tree().download(&path(source)?, &options).await?;
    let mut tree: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    while let Some(event) = events.next().await {
        match event? {
            TreeEvent::Entry(entry) => tree.push((entry.path, Vec::new())),
            TreeEvent::Content(bytes) => {
                if let Some((_, content)) = tree.last_mut() {
                    content.extend(bytes);
                }
            }
            TreeEvent::Skipped(skipped) => tree.push((skipped.path, Vec::new())),
            _ => {}
        }
    }
    Ok(tree)
}

async fn write_link(trial: &Trial) -> Result<Found> {
    let sandbox = with_links(trial).await?;
    let files = sandbox.files();
    let (new, content) = (path("out/made-by-files")?, Bytes::from_static(b"x"));
    let written = files.write(&new, content.clone(), &WriteOptions::default()).await;
    let mut opened = trial.targets.take("made-by-files");
    let _ = files.make_directory(&path("out/made-directory")?, 0o755).await;
    opened |= trial.targets.take("made-directory");
    files.write(&path("inside")?, content.clone(), &WriteOptions::default()).await?;
    let _ = files.rename(&path("inside")?, &path("out/made-by-rename")?, true).await;
    opened |= trial.targets.take("made-by-rename");
    let _ = files.remove(&path("out/canary")?, true).await;
    // A final link is replaced, not followed.
    let _ = files.write(&path("file")?, content, &WriteOptions::default()).await;
    let kept = std::fs::read(trial.targets.canary()).is_ok_and(|it| trial.targets.is_canary(&it));
    sandbox.close().await?;
    if opened || !kept {
        return open(if kept { "made something on the host" } else { "the host's file is gone" });
    }
    denied(written.map_or_else(|error| error.to_string(), |()| "written inside".to_owned()))
}

async fn swap_race(trial: &Trial) -> Result<Found> {
    let sandbox = with_links(trial).await?;
    let outside = trial.targets.outside.display().to_string();
    let mut racer = sandbox.exec(worker::program(&["swap", &outside])).await?;
    worker::wait_for(&mut racer, "ready").await?;
    // Its output is not read any more, and it writes none.
    let start = Instant::now();
    let (mut tries, mut inside) = (0_u32, 0_u32);
    let (target, made) = (path("swapped/canary")?, path("swapped/made-in-race")?);
    while start.elapsed() < trial.targets.race {
        tries += 1;
        if let Ok(bytes) = sandbox.files().read(&target, 0, 4096).await {
            if trial.targets.is_canary(&bytes) {
                return open(format!("read the host's file at try {tries}"));
            }
            inside += 1;
        }
        let content = Bytes::from_static(b"x");
        let _ = sandbox.files().write(&made, content, &WriteOptions::default()).await;
        if trial.targets.take("made-in-race") {
            return open(format!("wrote on the host at try {tries}"));
        }
    }
    drop(racer);
    sandbox.close().await?;
    anyhow::ensure!(inside > 0 && inside < tries, "the swap did not happen: {inside} of {tries}");
    denied(format!("{tries} tries, {inside} of them read the file inside"))
}

async fn special_files(trial: &Trial) -> Result<Found> {
    let sandbox = trial.sandbox().await?;
    trial.run(&*sandbox, &["plant", "special"]).await?;
    let mut seen = Vec::new();
    for name in ["special/fifo", "special/socket", "special/terminal"] {
        let start = Instant::now();
        let read = tokio::time::timeout(PROMPT, sandbox.files().read(&path(name)?, 0, 16)).await;
        match read {
            Err(_) => return open(format!("reading {name} hung")),
            Ok(Ok(_)) => return open(format!("read {name}")),
            Ok(Err(SandboxError::File { errno, .. })) => {
                seen.push(format!("errno {errno} after {} ms", start.elapsed().as_millis()));
            }
            Ok(Err(error)) => return Err(error.into()),
        }
    }
    let Ok(tree) = tokio::time::timeout(PROMPT, download(&*sandbox, "special")).await else {
        return open("downloading them hung");
    };
    let count = tree?.len();
    sandbox.close().await?;
    denied(format!("{}; {count} entries told in a download", seen.join(", ")))
}

async fn tree_entries(trial: &Trial) -> Result<Found> {
    let sandbox = with_links(trial).await?;
    let absolute = trial.targets.outside.join("made-absolute");
    let up =
        format!("{}{}", "../".repeat(12), absolute.display().to_string().trim_start_matches('/'));
    let names: [&[u8]; 6] = [
        absolute.as_os_str().as_encoded_bytes(),
        up.as_bytes(),
        b"../made-above",
        b"a/../../made-above",
        b"out/made-by-entry",
        b"./../made-above",
    ];
    let mut refused = 0;
    for name in names {
        refused += u32::from(upload(&*sandbox, file(name, 0o644)).await.is_err());
        for made in ["made-absolute", "made-by-entry"] {
            if trial.targets.take(made) {
                return open(format!("{} was made on the host", String::from_utf8_lossy(name)));
            }
        }
    }
    // A link and a file through it, in one stream.
    let entries = [link(b"later", text_of(&trial.targets.outside))];
    let entries = entries.into_iter().chain(file(b"later/made-by-entry", 0o644));
    refused += u32::from(upload(&*sandbox, entries).await.is_err());
    let made = trial.targets.take("made-by-entry");
    sandbox.close().await?;
    if made {
        return open("wrote through a link of the same upload");
    }
    anyhow::ensure!(refused >= 6, "only {refused} of 7 uploads were refused");
    denied(format!("{refused} of 7 uploads were refused"))
}

async fn sparse(trial: &Trial) -> Result<Found> {
    let sandbox = trial.sandbox().await?;
    if let Err(error) = trial.run(&*sandbox, &["plant", "sparse"]).await {
        // A bound on the size of files stands before.
        return denied(format!("it cannot be made: {error:#}"));
    }
    let start = Instant::now();
    let outcome = tokio::time::timeout(PROMPT, download(&*sandbox, "sparse")).await;
    sandbox.close().await?;
    match outcome {
        Err(_) => open("downloading it did not end"),
        Ok(Ok(_)) => open("all of it was downloaded"),
        Ok(Err(error)) => denied(format!("{error:#} after {} ms", start.elapsed().as_millis())),
    }
}

async fn odd_names(trial: &Trial) -> Result<Found> {
    let sandbox = trial.sandbox().await?;
    let planted = trial.run(&*sandbox, &["plant", "names"]).await?;
    let planted: usize = planted.trim().parse().context("the number of planted names")?;
    let listed = sandbox.files().list(&path("names")?, &ListOptions::default()).await?;
    let whole = download(&*sandbox, "names").await?;
    // 2 000 levels: told in full, or refused by name; not a crash, and not silently cut.
    let deep = tokio::time::timeout(PROMPT, download(&*sandbox, "deep")).await;
    let Ok(deep) = deep else { return open("downloading deep directories hung") };
    let alive = trial.run(&*sandbox, &["list"]).await.is_ok();
    sandbox.close().await?;
    if !alive {
        return open("the sandbox was lost over it");
    }
    // A directory's own entry comes first in a download.
    if listed.entries.len() != planted || whole.len() < planted || whole.len() > planted + 1 {
        return open(format!(
            "{planted} names became {} in a list and {} in a download",
            listed.entries.len(),
            whole.len()
        ));
    }
    match deep {
        Ok(tree) if tree.len() < 2_000 => open(format!("2 000 levels became {}", tree.len())),
        Ok(tree) => denied(format!("{planted} names as they are, {} levels", tree.len())),
        Err(error) => denied(format!("{planted} names as they are; deep: {error:#}")),
    }
}

async fn set_id(trial: &Trial) -> Result<Found> {
    let sandbox = trial.sandbox().await?;
    upload(&*sandbox, file(b"tool", 0o6755)).await?;
    let options = WriteOptions { mode: 0o6755, ..WriteOptions::default() };
    let written = sandbox.files().write(&path("other")?, Bytes::from_static(b"x"), &options).await;
    let mut seen = Vec::new();
    for name in ["tool", "other"] {
        if let Ok(stat) = sandbox.files().stat(&path(name)?).await {
            if stat.mode & 0o6000 != 0 {
                return open(format!("{name} has mode {:o}", stat.mode));
            }
            seen.push(format!("{name} has mode {:o}", stat.mode & 0o7777));
        }
    }
    sandbox.close().await?;
    anyhow::ensure!(!seen.is_empty(), "nothing was uploaded: {written:?}");
    denied(seen.join(", "))
}

//! Cases on whole trees: what goes in comes out, and nothing goes anywhere else.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::{
    case_table,
    support::{CaseResult, equal, errno, holds, mismatch, path, pattern, refused, shell, write},
    trial::{Stop, Trial},
};
use crate::{DownloadOptions, Sandbox, SandboxError, TreeEntry, TreeEntryKind, TreeEvent};

case_table! { "tree":
    round_trip: "2 000 files, links, modes, times and empty directories come out as they went in",
    order: "a download tells each directory before what is in it, with names sorted",
    replaces: "an upload replaces files and links, and keeps directories",
    set_id_is_dropped: "an upload drops set-id bits",
    leaving_paths_are_refused: "an upload refuses `..` and absolute paths",
    links_are_not_followed: "an upload refuses a path through a link, also one that it brought itself",
    wrong_size_is_refused: "an upload with less or more content than it said is refused",
    source_error_is_passed_on: "an error of the uploaded stream is the error of the upload",
    bounds: "a download ends with an error at its bounds",
    download_of_links: "a download takes links as links, and refuses to start behind one that leads out",
    special_is_skipped: "a download skips fifos and says so",
}

fn entry(path: &str, mode: u32, kind: TreeEntryKind) -> TreeEvent {
    let modified_ns = Some(1_600_000_000_123_456_789);
    TreeEvent::Entry(TreeEntry { path: path.as_bytes().to_vec(), mode, modified_ns, kind })
}

fn directory(path: &str) -> TreeEvent {
    entry(path, 0o755, TreeEntryKind::Directory)
}

fn link(path: &str, target: &str) -> TreeEvent {
    entry(path, 0o777, TreeEntryKind::Link { target: target.as_bytes().to_vec() })
}

/// A file as the two events that it is; content may come in pieces.
fn file(path: &str, mode: u32, content: &[u8]) -> Vec<TreeEvent> {
    let mut events = vec![entry(path, mode, TreeEntryKind::File { size: content.len() as u64 })];
    events.extend(
        content.chunks(50_000).map(|piece| TreeEvent::Content(Bytes::copy_from_slice(piece))),
    );
    events
}

async fn upload(
    sandbox: &dyn Sandbox,
    target: &str,
    events: Vec<TreeEvent>,
) -> Result<u64, SandboxError> {
    sandbox.tree().upload(&path(target)?, stream::iter(events.into_iter().map(Ok)).boxed()).await
}

/// An entry with its content.
type Whole = (TreeEntry, Vec<u8>);

/// Downloads a tree without the entry of its root.
async fn download(sandbox: &dyn Sandbox, source: &str) -> Result<Vec<Whole>, Stop> {
    let mut events = sandbox.tree().download(&path(source)?, &DownloadOptions::default()).await?;
    let mut found: Vec<Whole> = Vec::new();
    while let Some(event) = events.next().await {
        match (event?, found.last_mut()) {
            (TreeEvent::Entry(entry), _) => found.push((entry, Vec::new())),
            (TreeEvent::Content(bytes), Some((_, content))) => content.extend(bytes),
            (other, _) => return Err(mismatch("an event", "an entry and its content", &other)),
        }
    }
    found.retain(|(entry, _)| !entry.path.is_empty());
    Ok(found)
}

async fn round_trip(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut events = Vec::new();
    for group in 0..40 {
        events.push(directory(&format!("d{group:02}")));
        for number in 0..50_usize {
            let mode = [0o644, 0o755, 0o600, 0o444][number % 4];
            events.extend(file(&format!("d{group:02}/f{number:02}"), mode, &pattern(number * 7)));
        }
    }
    events.push(entry("empty", 0o700, TreeEntryKind::Directory));
    events.push(link("l-absolute", "/nowhere/at/all"));
    events.push(link("l-dangling", "gone"));
    events.push(link("l-relative", "d00/f01"));
    events.push(link("l-up", "../.."));
    events.extend(file("large", 0o644, &pattern(2 << 20)));
    events.extend(file("ünï\ncode", 0o644, b"name"));
    let mut expected = BTreeMap::<Vec<u8>, Whole>::new();
    let mut last = Vec::new();
    for event in &events {
        match event {
            TreeEvent::Entry(entry) => {
                last.clone_from(&entry.path);
                expected.insert(last.clone(), (entry.clone(), Vec::new()));
            }
            TreeEvent::Content(bytes) => {
                if let Some((_, content)) = expected.get_mut(&last) {
                    content.extend(bytes);
                }
            }
            TreeEvent::Skipped(_) => {}
        }
    }
    let made = upload(&*sandbox, "target", events).await?;
    equal("the number of entries made", made, expected.len() as u64)?;
    let found = download(&*sandbox, "target").await?;
    equal("the number of entries found", found.len(), expected.len())?;
    for (mut entry, content) in found {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let Some((wanted, wanted_content)) = expected.get(&entry.path) else {
            return Err(mismatch("a path", "one that was uploaded", &name));
        };
        // A directory changes when something is put into it, and a link's own mode and time mean nothing.
        match &entry.kind {
            TreeEntryKind::File { .. } => {}
            TreeEntryKind::Directory => entry.modified_ns = wanted.modified_ns,
            TreeEntryKind::Link { .. } => {
                (entry.mode, entry.modified_ns) = (wanted.mode, wanted.modified_ns);
            }
        }
        equal(&name, &entry, wanted)?;
        holds(&name, content == *wanted_content, "the content uploaded", &content.len())?;
    }
    Ok(())
}

async fn order(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "mkdir -p t/b/y t/b/x t/a; : > t/b/x/2; : > t/b/x/10; : > t/c; : > t/B")
        .await?;
    let found = download(&*sandbox, "t").await?;
    let names: Vec<_> = found.iter().map(|(e, _)| String::from_utf8_lossy(&e.path)).collect();
    equal("the paths", names, ["B", "a", "b", "b/x", "b/x/10", "b/x/2", "b/y", "c"])
}

async fn replaces(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script =
        "mkdir -p dir; echo kept > dir/kept; echo old > file; echo x > other; ln -s other link";
    shell(&*sandbox, script).await?;
    let mut events = vec![directory("dir")];
    events.extend(file("dir/new", 0o644, b"new\n"));
    events.extend(file("file", 0o644, b"new\n"));
    events.extend(file("link", 0o644, b"new\n"));
    upload(&*sandbox, ".", events).await?;
    let found =
        shell(&*sandbox, "cat dir/kept dir/new file link other; [ -L link ] && echo link; :");
    equal("the workspace", found.await?, "kept\nnew\nnew\nnew\nx\n")
}

async fn set_id_is_dropped(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    upload(&*sandbox, ".", file("program", 0o6755, b"x")).await?;
    equal("the mode", sandbox.files().stat(&path("program")?).await?.mode, 0o755)
}

async fn leaving_paths_are_refused(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "mkdir dir").await?;
    for name in ["../escaped", "a/../../../tmp/escaped", "..", "/tmp/escaped", "a/./b/../../../e"] {
        let result = upload(&*sandbox, "dir", file(name, 0o644, b"x")).await;
        let expected =
            matches!(result, Err(SandboxError::File { .. } | SandboxError::InvalidRequest { .. }));
        holds(name, expected, "SandboxError::File or InvalidRequest", &result)?;
    }
    let found = shell(&*sandbox, "ls; ls -d /tmp/escaped ../escaped 2>&-; :").await?;
    equal("what is there", found, "dir\n")
}

async fn links_are_not_followed(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "mkdir /tmp/outside; ln -s /tmp/outside there").await?;
    refused("through a link", upload(&*sandbox, ".", file("there/x", 0o644, b"x")).await, None)?;
    refused("below a link", upload(&*sandbox, "there", file("x", 0o644, b"x")).await, None)?;
    let mut events = vec![link("own", "/tmp/outside")];
    events.extend(file("own/x", 0o644, b"x"));
    refused("through its own link", upload(&*sandbox, ".", events).await, None)?;
    equal("what is outside", shell(&*sandbox, "ls -A /tmp/outside").await?, "")
}

async fn wrong_size_is_refused(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = || TreeEvent::Content(Bytes::from_static(b"12345"));
    for size in [4, 6] {
        let events = vec![entry("file", 0o644, TreeEntryKind::File { size }), content()];
        let result = upload(&*sandbox, ".", events).await;
        let what = format!("5 bytes for a file of {size}");
        let expected =
            matches!(result, Err(SandboxError::File { .. } | SandboxError::InvalidRequest { .. }));
        holds(&what, expected, "SandboxError::File or InvalidRequest", &result)?;
    }
    upload(&*sandbox, ".", file("later", 0o644, b"fine")).await?;
    equal("a later upload", shell(&*sandbox, "cat later").await?, "fine")
}

async fn source_error_is_passed_on(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let error = SandboxError::InvalidRequest { reason: "the source broke".to_owned() };
    let events = stream::iter([Ok(directory("dir")), Err(error)]).boxed();
    let result = sandbox.tree().upload(&path(".")?, events).await;
    let expected = matches!(&result, Err(SandboxError::InvalidRequest { reason }) if reason == "the source broke");
    holds("the upload", expected, "the error of the stream", &result)?;
    upload(&*sandbox, ".", file("later", 0o644, b"fine")).await?;
    equal("a later upload", shell(&*sandbox, "cat later").await?, "fine")
}

async fn bounds(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for name in ["a", "b", "c"] {
        write(&*sandbox, &format!("tree/{name}"), pattern(1000)).await?;
    }
    let all = DownloadOptions::default();
    for (options, fits) in [
        (DownloadOptions { max_bytes: 3000, max_entries: 3 }, true),
        (DownloadOptions { max_bytes: 2999, ..all }, false),
        (DownloadOptions { max_entries: 2, ..all }, false),
    ] {
        let what = format!("{options:?}");
        let events = sandbox.tree().download(&path("tree")?, &options).await?;
        let events: Vec<_> = events.collect().await;
        if fits {
            holds(&what, events.iter().all(Result::is_ok), "the whole tree", &events)?;
        } else {
            let last = events.into_iter().last();
            let expected = matches!(last, Some(Err(SandboxError::File { .. })));
            holds(&what, expected, "SandboxError::File at the end", &last)?;
        }
    }
    Ok(())
}

async fn download_of_links(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "mkdir tree; ln -s /tmp tree/out; ln -s /tmp out").await?;
    let found = download(&*sandbox, "tree").await?;
    let kinds: Vec<_> = found.into_iter().map(|(entry, _)| entry.kind).collect();
    equal("the entries", kinds, [TreeEntryKind::Link { target: b"/tmp".to_vec() }])?;
    let first = match sandbox.tree().download(&path("out")?, &DownloadOptions::default()).await {
        Ok(mut events) => events.next().await.transpose().map(drop),
        Err(error) => Err(error),
    };
    refused("behind a link", first, None)?;
    let missing = match sandbox.tree().download(&path("no")?, &DownloadOptions::default()).await {
        Ok(mut events) => events.next().await.transpose().map(drop),
        Err(error) => Err(error),
    };
    refused("nothing", missing, Some(errno::ENOENT))
}

async fn special_is_skipped(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "mkdir tree; mkfifo tree/fifo; echo x > tree/file").await?;
    let events = sandbox.tree().download(&path("tree")?, &DownloadOptions::default()).await?;
    let events: Vec<_> = events.collect().await;
    let skipped: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Ok(TreeEvent::Skipped(skipped)) => Some((skipped.path.as_slice(), &*skipped.reason)),
            _ => None,
        })
        .collect();
    equal("what was skipped", skipped, [(b"fifo".as_slice(), "fifo")])?;
    holds("the rest", events.iter().all(Result::is_ok), "no error", &events)
}

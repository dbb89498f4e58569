//! Cases on scans, and on second names and holes: what a snapshot of a workspace is made from.

use futures::StreamExt as _;

use super::{
    case_table,
    layout::{TIME, directory, download, entry, file, lay, link, upload},
    support::{CaseResult, equal, errno, holds, mismatch, path, read, refused, shell},
    trial::{Stop, Trial},
};
use crate::{
    DownloadOptions, Sandbox, SandboxError, ScanEntry, ScanEvent, ScanKind, ScanOptions,
    TreeEntryKind, TreeEvent,
};

case_table! { "scan":
    tells_what_is_there: "a scan tells kinds, sizes, modes, times and targets, each directory before what is in it",
    tells_what_is_forged: "a scan tells that a file changed, whatever was done to its size and time",
    tells_a_forged_time: "a time set from inside shows in no other time",
    tells_special_files: "a scan tells fifos as such and opens none",
    bound: "a scan of 3 000 files is whole at its bound, and ends with an error below it",
    odd_roots: "a scan of a file is that file; a scan of nothing or behind a link that leads out is refused",
    hard_links: "a second name goes up and comes down as one, if that is asked for",
    hard_links_stay_inside: "a hard link through a link, to a link, to a directory or to nothing is refused",
    zeros: "a file of zeros is whole, and occupies no room",
}

/// Scans a tree in which everything can be told.
async fn scan(sandbox: &dyn Sandbox, root: &str) -> Result<Vec<ScanEntry>, Stop> {
    let mut events = sandbox.tree().scan(&path(root)?, &ScanOptions::default()).await?;
    let mut entries = Vec::new();
    while let Some(event) = events.next().await {
        match event? {
            ScanEvent::Entry(entry) => entries.push(entry),
            other => return Err(mismatch("an event", "an entry", &other)),
        }
    }
    Ok(entries)
}

/// The end of a scan that fails, at its start or later.
async fn failure(
    sandbox: &dyn Sandbox,
    root: &str,
    max_entries: u64,
) -> Result<usize, SandboxError> {
    let root = path(root)?;
    let mut events = sandbox.tree().scan(&root, &ScanOptions { max_entries }).await?;
    let mut count = 0;
    while let Some(event) = events.next().await {
        event?;
        count += 1;
    }
    Ok(count)
}

async fn tells_what_is_there(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut events = vec![directory("b"), entry("b-", 0o1770, TreeEntryKind::Directory)];
    events.extend(file("b/file", 0o640, b"content"));
    events.extend(file(b"\xfc\n".to_vec(), 0o755, b""));
    events.push(link("a", "../nowhere"));
    upload(&*sandbox, "t", events).await?;
    let entries = scan(&*sandbox, "t").await?;
    let names: Vec<_> = entries.iter().map(|entry| String::from_utf8_lossy(&entry.path)).collect();
    equal("the paths", names, ["", "a", "b", "b/file", "b-", "\u{fffd}\n"])?;
    let target = b"../nowhere".to_vec();
    let kinds: Vec<_> = entries.iter().map(|entry| entry.kind.clone()).collect();
    use ScanKind::{Directory, File};
    equal(
        "the kinds",
        kinds,
        [Directory, ScanKind::Link { target }, Directory, File, Directory, File],
    )?;
    let file = &entries[3];
    let told = (file.size, file.mode, file.modified_ns, file.links);
    equal("the file", told, (7, 0o640, TIME, 1))?;
    equal("the sticky directory", entries[4].mode, 0o1770)?;
    let mut numbers: Vec<_> = entries.iter().map(|entry| (entry.device, entry.inode)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    equal("different numbers", numbers.len(), entries.len())
}

async fn tells_what_is_forged(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut found = Vec::new();
    for content in [b"good", b"evil"] {
        upload(&*sandbox, "t", file("file", 0o644, content)).await?;
        found.push(scan(&*sandbox, "t").await?.remove(1));
    }
    let shown = |entry: &ScanEntry| (entry.size, entry.mode, entry.modified_ns);
    equal("what can be set", shown(&found[1]), shown(&found[0]))?;
    holds("the time of change", found[0].changed_ns > TIME, "when it was made", &found[0])?;
    let hidden = |entry: &ScanEntry| (entry.inode, entry.changed_ns);
    holds("the rest", hidden(&found[0]) != hidden(&found[1]), "another", &found)
}

async fn tells_a_forged_time(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "mkdir t; echo good > t/file; touch -r t/file stamp").await?;
    let before = scan(&*sandbox, "t").await?.remove(1);
    // In place, so that the number stays; later than a tick of the kernel's clock.
    shell(&*sandbox, "sleep 0.02; echo evil > t/file; touch -r stamp t/file").await?;
    let after = scan(&*sandbox, "t").await?.remove(1);
    let shown = |entry: &ScanEntry| (entry.inode, entry.size, entry.modified_ns);
    equal("what can be set", shown(&after), shown(&before))?;
    holds(
        "the time of change",
        after.changed_ns > before.changed_ns,
        "a later one",
        &(before, after),
    )
}

async fn tells_special_files(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "mkdir t; mkfifo t/fifo; ln -s fifo t/link").await?;
    let kinds: Vec<_> = scan(&*sandbox, "t").await?.into_iter().map(|entry| entry.kind).collect();
    let target = b"fifo".to_vec();
    equal("the kinds", kinds, [ScanKind::Directory, ScanKind::Fifo, ScanKind::Link { target }])
}

async fn bound(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let files = (0..3000).flat_map(|number| file(format!("f{number}"), 0o644, b"x"));
    upload(&*sandbox, "t", files.collect()).await?;
    equal("the entries at the bound", failure(&*sandbox, "t", 3000).await?, 3001)?;
    refused("the bound", failure(&*sandbox, "t", 2999).await, None)?;
    equal("a later scan", scan(&*sandbox, "t").await?.len(), 3001)
}

async fn odd_roots(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["file: content", "out -> /tmp"]).await?;
    let entries = scan(&*sandbox, "file").await?;
    equal("a file", entries.len(), 1)?;
    equal("its path", &*entries[0].path, b"")?;
    equal("its size", entries[0].size, 7)?;
    refused("nothing", failure(&*sandbox, "none", 9).await, Some(errno::ENOENT))?;
    refused("behind a link", failure(&*sandbox, "out", 9).await, None)
}

fn hard_link(path: &str, to: &str) -> TreeEvent {
    entry(path, 0, TreeEntryKind::HardLink { to: to.as_bytes().to_vec() })
}

async fn hard_links(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut events = file("a/first", 0o640, b"content");
    events.push(hard_link("b/second", "a/first"));
    equal("the entries made", upload(&*sandbox, "t", events).await?, 2)?;
    let entries = scan(&*sandbox, "t").await?;
    let files: Vec<_> = entries.iter().filter(|entry| entry.kind == ScanKind::File).collect();
    let told: Vec<_> = files.iter().map(|file| (file.links, file.mode, file.size)).collect();
    equal("the names", told, [(2, 0o640, 7); 2])?;
    equal("their number", files[0].inode, files[1].inode)?;
    let options = DownloadOptions { hard_links: true, max_bytes: 7, ..DownloadOptions::default() };
    let events = sandbox.tree().download(&path("t")?, &options).await?;
    let events: Vec<_> = events.collect().await;
    let links: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Ok(TreeEvent::Entry(entry)) => match &entry.kind {
                TreeEntryKind::HardLink { to } => Some((&*entry.path, &**to)),
                _ => None,
            },
            _ => None,
        })
        .collect();
    equal("the links", links, [(b"b/second".as_slice(), b"a/first".as_slice())])?;
    holds("the rest", events.iter().all(Result::is_ok), "no error", &events)?;
    let plain = download(&*sandbox, "t").await?;
    equal("files of one who did not ask", plain.iter().filter(|(_, c)| c == b"content").count(), 2)
}

async fn hard_links_stay_inside(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["dir/", "file: x", "out -> /tmp", "link -> file"]).await?;
    for (name, to) in
        [("a", "out/x"), ("a", "link"), ("a", "dir"), ("a", "none"), ("out/a", "file")]
    {
        let what = format!("{name} to {to}");
        refused(&what, upload(&*sandbox, ".", vec![hard_link(name, to)]).await, None)?;
    }
    for (name, to) in [("a", "../x"), ("a", "/etc/passwd"), ("../a", "file")] {
        let result = upload(&*sandbox, ".", vec![hard_link(name, to)]).await;
        let expected =
            matches!(result, Err(SandboxError::File { .. } | SandboxError::InvalidRequest { .. }));
        holds(to, expected, "SandboxError::File or InvalidRequest", &result)?;
    }
    upload(&*sandbox, ".", vec![hard_link("second", "file")]).await?;
    equal("a good one", read(&*sandbox, "second").await?, "x")
}

async fn zeros(trial: &Trial<'_>) -> CaseResult {
    const SIZE: usize = 24 << 20;
    let sandbox = trial.sandbox().await?;
    let mut content = vec![0; SIZE];
    content[SIZE / 2 + 5] = 7;
    upload(&*sandbox, "t", file("sparse", 0o644, &content)).await?;
    let found = download(&*sandbox, "t").await?;
    holds("the content", found[0].1 == content, "what was uploaded", &found[0].1.len())?;
    let kibibytes = shell(&*sandbox, "du -k t/sparse | cut -f1").await?;
    let occupied: usize = kibibytes.trim().parse().unwrap_or(usize::MAX);
    holds("the room", occupied <= 64, "a few blocks", &kibibytes)
}

//! Cases on whole trees: what goes in comes out, and nothing goes anywhere else.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt as _, stream};

use super::{
    case_table,
    layout::{Whole, directory, download, entry, file, first_event, lay, link, upload},
    support::{
        CaseResult, alive, equal, errno, holds, mismatch, names, path, pattern, read, read_until,
        refused, shell, write,
    },
    trial::{Stop, Trial},
};
use crate::{
    DownloadOptions, ExecRequest, FileKind, SandboxError, TreeEntry, TreeEntryKind, TreeEvent,
};

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
    one_file: "a download of a file is that file, with an empty path",
    root_entry: "an upload's entry with an empty path sets the mode of the target",
    nothing: "an upload of nothing makes the target and no entry",
    kinds_change: "a directory replaces a file or link that is there; nothing replaces a full directory",
    content_out_of_place: "content that belongs to no file is refused",
    missing_parents: "directories that an upload does not mention are made",
    target_is_a_file: "an upload below a file is ENOTDIR",
    sticky_stays: "an upload keeps the sticky bit and drops set-id bits, of directories too",
    time_left_out: "an entry without a time gets that of its making",
    unfinished_source: "an upload whose source ends in an error has made what came before",
    slow_source: "an upload whose source waits holds up nobody else",
    unread_download: "a download that nobody reads holds up nobody else",
    growing_file: "a file that grows or shrinks while it is downloaded does not break the stream",
}

async fn round_trip(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut events = Vec::new();
    for group in 0..40 {
        events.push(directory(&format!("d{group:02}")));
        for number in 0..50_usize {
            let mode = [0o644, 0o755, 0o600, 0o444][number % 4];
            events.extend(file(format!("d{group:02}/f{number:02}"), mode, &pattern(number * 7)));
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
            TreeEntryKind::File { .. } | TreeEntryKind::HardLink { .. } => {}
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
    lay(
        &*sandbox,
        &["t/", "t/c", "t/b/", "t/b/y/", "t/b/x/", "t/b/x/2", "t/b/x/10", "t/b-", "t/B", "t/a/"],
    )
    .await?;
    let found = download(&*sandbox, "t").await?;
    let names: Vec<_> = found.iter().map(|(e, _)| String::from_utf8_lossy(&e.path)).collect();
    equal("the paths", names, ["B", "a", "b", "b/x", "b/x/10", "b/x/2", "b/y", "b-", "c"])
}

async fn replaces(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["dir/", "dir/kept: kept", "file: old", "other: x", "link -> other"]).await?;
    lay(&*sandbox, &["dir/", "dir/new: new", "file: new", "link: new"]).await?;
    for (name, content) in
        [("dir/kept", "kept"), ("dir/new", "new"), ("file", "new"), ("link", "new"), ("other", "x")]
    {
        equal(name, read(&*sandbox, name).await?, content)?;
    }
    equal("the link", sandbox.files().stat(&path("link")?).await?.kind, FileKind::File)
}

async fn set_id_is_dropped(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    upload(&*sandbox, ".", file("program", 0o6755, b"x")).await?;
    equal("the mode", sandbox.files().stat(&path("program")?).await?.mode, 0o755)
}

async fn leaving_paths_are_refused(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["dir/"]).await?;
    for name in ["../escaped", "a/../../../tmp/escaped", "..", "/tmp/escaped", "a/./b/../../../e"] {
        let result = upload(&*sandbox, "dir", file(name, 0o644, b"x")).await;
        let expected =
            matches!(result, Err(SandboxError::File { .. } | SandboxError::InvalidRequest { .. }));
        holds(name, expected, "SandboxError::File or InvalidRequest", &result)?;
    }
    equal("what is there", names(&*sandbox, ".").await?, ["dir"])?;
    let found = shell(&*sandbox, "ls -d /tmp/escaped ../escaped 2>&-; :").await?;
    equal("what is outside", found, "")
}

async fn links_are_not_followed(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "mkdir ${TMPDIR:-/tmp}/outside; ln -s ${TMPDIR:-/tmp}/outside there").await?;
    let outside = shell(&*sandbox, "echo ${TMPDIR:-/tmp}/outside").await?;
    refused("through a link", upload(&*sandbox, ".", file("there/x", 0o644, b"x")).await, None)?;
    refused("below a link", upload(&*sandbox, "there", file("x", 0o644, b"x")).await, None)?;
    let mut events = vec![link("own", outside.trim_end())];
    events.extend(file("own/x", 0o644, b"x"));
    refused("through its own link", upload(&*sandbox, ".", events).await, None)?;
    equal("what is outside", shell(&*sandbox, "ls -A ${TMPDIR:-/tmp}/outside").await?, "")
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
    equal("a later upload", read(&*sandbox, "later").await?, "fine")
}

async fn source_error_is_passed_on(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let error = SandboxError::InvalidRequest { reason: "the source broke".to_owned() };
    let events = stream::iter([Ok(directory("dir")), Err(error)]).boxed();
    let result = sandbox.tree().upload(&path(".")?, events).await;
    let expected = matches!(&result, Err(SandboxError::InvalidRequest { reason }) if reason == "the source broke");
    holds("the upload", expected, "the error of the stream", &result)?;
    upload(&*sandbox, ".", file("later", 0o644, b"fine")).await?;
    equal("a later upload", read(&*sandbox, "later").await?, "fine")
}

async fn bounds(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for name in ["a", "b", "c"] {
        write(&*sandbox, &format!("tree/{name}"), pattern(1000)).await?;
    }
    let all = DownloadOptions::default();
    for (options, fits) in [
        (DownloadOptions { max_bytes: 3000, max_entries: 3, ..all }, true),
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
    lay(&*sandbox, &["tree/", "tree/out -> /tmp", "out -> /tmp"]).await?;
    let found = download(&*sandbox, "tree").await?;
    let kinds: Vec<_> = found.into_iter().map(|(entry, _)| entry.kind).collect();
    equal("the entries", kinds, [TreeEntryKind::Link { target: b"/tmp".to_vec() }])?;
    refused("behind a link", first_event(&*sandbox, "out").await, None)?;
    refused("nothing", first_event(&*sandbox, "no").await, Some(errno::ENOENT))
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

async fn one_file(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "dir/file", "content").await?;
    let options = DownloadOptions::default();
    let events = sandbox.tree().download(&path("dir/file")?, &options).await?;
    let events: Vec<_> = events.collect().await;
    let mut content = Vec::new();
    for (number, event) in events.into_iter().enumerate() {
        match event? {
            TreeEvent::Entry(entry) if number == 0 => {
                equal("the path", &*entry.path, b"")?;
                equal("the kind", entry.kind, TreeEntryKind::File { size: 7 })?;
            }
            TreeEvent::Content(bytes) => content.extend(bytes),
            other => return Err(mismatch("an event", "the entry, then its content", &other)),
        }
    }
    equal("the content", content, b"content")
}

async fn root_entry(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut events = vec![entry("", 0o750, TreeEntryKind::Directory)];
    events.extend(file("file", 0o644, b"x"));
    equal("entries made", upload(&*sandbox, "target", events).await?, 2)?;
    equal("the mode", sandbox.files().stat(&path("target")?).await?.mode, 0o750)
}

async fn nothing(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    equal("entries made", upload(&*sandbox, "a/b", Vec::new()).await?, 0)?;
    equal("the target", names(&*sandbox, "a/b").await?, Vec::<String>::new())?;
    equal("a download of it", download(&*sandbox, "a/b").await?, [])
}

async fn kinds_change(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["one: x", "two -> one", "full/", "full/file: y"]).await?;
    lay(&*sandbox, &["two/", "two/file: z", "one/", "one/file: z"]).await?;
    equal("below what was a file", read(&*sandbox, "one/file").await?, "z")?;
    equal("below what was a link", read(&*sandbox, "two/file").await?, "z")?;
    refused("a file", upload(&*sandbox, ".", file("full", 0o644, b"x")).await, None)?;
    refused("a link", upload(&*sandbox, ".", vec![link("full", "one")]).await, None)?;
    equal("the full directory", read(&*sandbox, "full/file").await?, "y")
}

async fn content_out_of_place(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = || TreeEvent::Content(Bytes::from_static(b"x"));
    for events in [vec![content()], vec![directory("dir"), content()]] {
        let result = upload(&*sandbox, ".", events).await;
        let expected =
            matches!(result, Err(SandboxError::File { .. } | SandboxError::InvalidRequest { .. }));
        holds("content", expected, "SandboxError::File or InvalidRequest", &result)?;
    }
    alive(&*sandbox).await
}

async fn missing_parents(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    equal("entries made", upload(&*sandbox, "t", file("a/b/c", 0o644, b"x")).await?, 1)?;
    equal("the file", read(&*sandbox, "t/a/b/c").await?, "x")?;
    equal("the mode above", sandbox.files().stat(&path("t/a")?).await?.mode, 0o755)
}

async fn target_is_a_file(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "file", "x").await?;
    let number = Some(errno::ENOTDIR);
    refused("to a file", upload(&*sandbox, "file", file("a", 0o644, b"")).await, number)?;
    refused("through a file", upload(&*sandbox, ".", file("file/a", 0o644, b"")).await, number)?;
    equal("the file", read(&*sandbox, "file").await?, "x")
}

async fn sticky_stays(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut events = vec![entry("dir", 0o7755, TreeEntryKind::Directory)];
    events.extend(file("dir/file", 0o7711, b"x"));
    upload(&*sandbox, ".", events).await?;
    equal("the directory", sandbox.files().stat(&path("dir")?).await?.mode, 0o1755)?;
    equal("the file", sandbox.files().stat(&path("dir/file")?).await?.mode, 0o1711)
}

async fn time_left_out(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "before", "").await?;
    let kind = TreeEntryKind::File { size: 0 };
    let now = TreeEntry { path: b"file".to_vec(), mode: 0o644, modified_ns: None, kind };
    upload(&*sandbox, ".", vec![TreeEvent::Entry(now)]).await?;
    let before = sandbox.files().stat(&path("before")?).await?.modified_ns;
    let found = sandbox.files().stat(&path("file")?).await?.modified_ns;
    holds("the time", found >= before, "not before what was made before", &(before, found))
}

async fn unfinished_source(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let mut events: Vec<_> = file("whole", 0o644, b"x").into_iter().map(Ok).collect();
    events.push(Ok(entry("half", 0o644, TreeEntryKind::File { size: 100 })));
    events.push(Err(SandboxError::InvalidRequest { reason: "the source broke".to_owned() }));
    let result = sandbox.tree().upload(&path(".")?, stream::iter(events).boxed()).await;
    let expected = matches!(&result, Err(SandboxError::InvalidRequest { reason }) if reason == "the source broke");
    holds("the upload", expected, "the error of the stream", &result)?;
    // The half of a file that had begun is no matter; no operation stays open.
    lay(&*sandbox, &["later: fine"]).await?;
    equal("a later upload", read(&*sandbox, "later").await?, "fine")
}

async fn slow_source(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let events = stream::iter([Ok(directory("dir"))]).chain(stream::pending()).boxed();
    let slow = path("slow")?;
    let waiting = sandbox.tree().upload(&slow, events);
    let others = async {
        for turn in 0..10 {
            lay(&*sandbox, &[&format!("file: {turn}")]).await?;
            equal("another's file", read(&*sandbox, "file").await?, turn.to_string())?;
        }
        Ok::<_, Stop>(())
    };
    match futures::future::select(Box::pin(waiting), Box::pin(others)).await {
        futures::future::Either::Left((ended, _)) => {
            Err(mismatch("an upload whose source waits", "to wait", &ended))
        }
        futures::future::Either::Right((done, _)) => done,
    }
}

async fn unread_download(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = pattern(16 << 20);
    write(&*sandbox, "dir/large", content.clone()).await?;
    let options = DownloadOptions::default();
    let mut unread = sandbox.tree().download(&path("dir")?, &options).await?;
    equal("the first event is there", unread.next().await.transpose()?.is_some(), true)?;
    for turn in 0..10 {
        lay(&*sandbox, &[&format!("file: {turn}")]).await?;
        equal("another's file", read(&*sandbox, "file").await?, turn.to_string())?;
    }
    let mut length = 0;
    while let Some(event) = unread.next().await {
        if let TreeEvent::Content(bytes) = event? {
            length += bytes.len();
        }
    }
    equal("the content, read late", length, content.len())
}

async fn growing_file(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script =
        "echo ready; while :; do head -c 300000 /dev/zero > tree/file; : > tree/file; done";
    lay(&*sandbox, &["tree/", "tree/file: x", "tree/other: y"]).await?;
    let mut process = sandbox.exec(ExecRequest::shell(script)).await?;
    read_until(&mut process, "ready\n").await?;
    for _ in 0..50 {
        for (entry, content) in download(&*sandbox, "tree").await? {
            let size = TreeEntryKind::File { size: content.len() as u64 };
            equal("the size that was told and came", entry.kind, size)?;
        }
    }
    Ok(())
}

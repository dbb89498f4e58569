//! Cases on single files: what is read, written, listed and refused.

use bytes::Bytes;
use futures::future;

use super::{
    CaseFailure, case_table,
    layout::{file, lay, upload},
    support::{
        CaseResult, collect, equal, errno, holds, mismatch, names, path, pattern, read, refused,
        run, shell, shown_names, write,
    },
    trial::{Stop, Trial},
};
use crate::{ExecRequest, FileKind, ListOptions, Sandbox, SandboxError, WriteOptions};

case_table! { "files":
    round_trip: "what is written is read back, by the seam and by commands",
    replace_is_atomic: "a reader sees the old content or the new one",
    must_be_new: "`must_be_new` refuses with EEXIST and changes nothing",
    modes: "a new file has the mode asked for; `keep_mode` keeps that of one that is there",
    parents: "missing directories are made only if asked for",
    ranges: "reads have an offset and a bound; past the end there is nothing",
    missing: "what is not there is ENOENT",
    odd_names: "names with spaces, line ends and other alphabets work, and are listed as bytes",
    listing_sorted: "a listing is sorted, as deep as asked for",
    listing_truncated: "a listing is cut at its bound and says so",
    stat_kinds: "files, directories, links and fifos are told apart, and links not followed",
    make_directory: "directories are made with those above, and may be there already",
    rename: "renaming moves, and replaces only if asked to",
    remove: "removing takes a full directory only if recursive",
    link_inside_is_followed: "a link that stays in the workspace is followed",
    link_outside_is_refused: "no operation follows a link out of the workspace",
    final_link_is_replaced: "writing to a link replaces the link, not what it points to",
    remove_does_not_follow: "removing a link, or a tree with links, leaves alone what they point to",
    fifo_is_refused: "a fifo is refused without waiting for its other end",
    deep_directories: "100 levels of directories work",
    sparse_file: "a sparse file has its full size and reads as zeros",
    set_id_is_dropped: "writing drops set-id bits, as an upload does",
    large: "64 MiB are written and read back",
    atomic_for_commands: "a command that reads sees the old content or the new one",
    one_is_first: "of many that write a new file at a time, one succeeds and the others learn EEXIST",
    last_wins: "of many that write a file at a time, one content stays, whole",
    refused_leaves_nothing: "a writing that is refused leaves nothing beside the file",
    other_names_stay: "writing a file does not change what another name of it holds",
    rename_directories: "a directory replaces an empty one, never a full one, never itself or what is in it",
    rename_files_and_directories: "a file does not replace a directory, nor a directory a file",
    rename_links: "a link is moved as a link, and replaced as one",
    reading_while_removed: "a file that is replaced or removed while it is read is read whole",
    listing_while_changing: "a listing beside changes tells each entry that stays, once",
}

async fn round_trip(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    equal("entries of a new workspace", names(&*sandbox, ".").await?, Vec::<String>::new())?;
    for length in [0, 1, 65_536, (3 << 20) + 7] {
        let content = pattern(length);
        write(&*sandbox, "file", content.clone()).await?;
        let found = read(&*sandbox, "file").await?;
        holds(&format!("{length} bytes"), found == content, "what was written", &found.len())?;
    }
    write(&*sandbox, "text", "from outside\n").await?;
    let told = run(&*sandbox, ExecRequest::program(["cat", "text"])).await?;
    equal("read by a command", told.text(), "from outside\n")?;
    shell(&*sandbox, "printf 'from inside' > text").await?;
    equal("written by a command", read(&*sandbox, "text").await?, "from inside")
}

async fn replace_is_atomic(trial: &Trial<'_>) -> CaseResult {
    const LENGTH: usize = 256 * 1024;
    let sandbox = trial.sandbox().await?;
    let content = |turn: u8| Bytes::from(vec![turn; LENGTH]);
    write(&*sandbox, "file", content(0)).await?;
    let writing = async {
        for turn in 1..=50 {
            write(&*sandbox, "file", content(turn)).await?;
        }
        Ok::<_, Stop>(())
    };
    let reading = async {
        let mut last = 0;
        while last < 50 {
            let found = read(&*sandbox, "file").await?;
            equal("the length", found.len(), LENGTH)?;
            let first = found[0];
            let whole = found.iter().all(|byte| *byte == first);
            holds("the content", whole, "of one writing", &"a mixture")?;
            holds("the order", first >= last, "no older content than before", &first)?;
            last = first;
        }
        Ok(())
    };
    future::try_join(writing, reading).await.map(|_| ())
}

async fn must_be_new(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let options = WriteOptions { must_be_new: true, ..WriteOptions::default() };
    let new = |content: &'static str| {
        let (sandbox, options) = (&sandbox, &options);
        async move { sandbox.files().write(&path("file")?, Bytes::from(content), options).await }
    };
    new("first").await?;
    refused("writing again", new("second").await, Some(errno::EEXIST))?;
    equal("the content", read(&*sandbox, "file").await?, "first")
}

async fn modes(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let file = path("file")?;
    for (mode, keep_mode, expected) in
        [(0o755, true, 0o755), (0o600, true, 0o755), (0o666, false, 0o666)]
    {
        let options = WriteOptions { mode, keep_mode, ..WriteOptions::default() };
        sandbox.files().write(&file, Bytes::from_static(b"#!/bin/sh\n"), &options).await?;
        let found = sandbox.files().stat(&file).await?.mode;
        holds("the mode", found == expected, &format!("{expected:o}"), &format!("{found:o}"))?;
    }
    Ok(())
}

async fn parents(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let options = WriteOptions { make_parents: false, ..WriteOptions::default() };
    let written = sandbox.files().write(&path("a/b/file")?, Bytes::new(), &options).await;
    refused("without parents", written, Some(errno::ENOENT))?;
    write(&*sandbox, "a/b/file", "x").await?;
    equal("with parents", read(&*sandbox, "a/b/file").await?, "x")
}

async fn ranges(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = pattern(300_000);
    write(&*sandbox, "file", content.clone()).await?;
    for (offset, max_bytes) in
        [(0, 10), (5, 1), (100_000, 150_000), (299_990, 100), (300_000, 10), (1 << 40, 10), (7, 0)]
    {
        let found = sandbox.files().read(&path("file")?, offset, max_bytes).await?;
        let rest = content.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let length = rest.len().min(usize::try_from(max_bytes).unwrap_or(usize::MAX));
        let what = format!("{max_bytes} bytes from {offset}");
        holds(&what, found == rest[..length], "that part of the file", &found)?;
    }
    Ok(())
}

async fn missing(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let (files, nothing) = (sandbox.files(), path("nothing")?);
    let number = Some(errno::ENOENT);
    refused("read", files.read(&nothing, 0, 1).await, number)?;
    refused("list", files.list(&nothing, &ListOptions::default()).await, number)?;
    refused("stat", files.stat(&nothing).await, number)?;
    refused("rename", files.rename(&nothing, &path("other")?, true).await, number)?;
    refused("remove", files.remove(&nothing, false).await, number)
}

async fn odd_names(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let odd = ["-rf", " space ", "*", "line\nend", "quote'\"", "ünïcödé 日本"];
    for name in odd {
        write(&*sandbox, name, name).await?;
        equal(name, read(&*sandbox, name).await?, name)?;
    }
    upload(&*sandbox, ".", file(b"\xff\xfe", 0o644, b"x")).await?;
    let listing = sandbox.files().list(&path(".")?, &ListOptions::default()).await?;
    let found: Vec<_> = listing.entries.into_iter().map(|entry| entry.path).collect();
    let mut expected: Vec<_> = odd.iter().map(|name| name.as_bytes().to_vec()).collect();
    expected.push(b"\xff\xfe".to_vec());
    expected.sort();
    equal("the listing", found, expected)
}

async fn listing_sorted(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for name in ["c", "a/2", "a/1/x", "b", "B", "é", "a/10"] {
        write(&*sandbox, name, "").await?;
    }
    let listed = |depth| {
        let sandbox = &sandbox;
        async move {
            let options = ListOptions { depth, ..ListOptions::default() };
            let listing = sandbox.files().list(&path(".")?, &options).await?;
            equal("truncated", listing.truncated, false)?;
            Ok::<_, Stop>(shown_names(&listing))
        }
    };
    equal("one level", listed(1).await?, ["B", "a", "b", "c", "é"])?;
    equal("two levels", listed(2).await?, ["B", "a", "a/1", "a/10", "a/2", "b", "c", "é"])?;
    equal("a directory below", names(&*sandbox, "a").await?, ["1", "10", "2"])
}

async fn listing_truncated(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for number in 10..30 {
        write(&*sandbox, &format!("f{number}"), "").await?;
    }
    for (max_entries, count, truncated) in [(7, 7, true), (20, 20, false), (21, 20, false)] {
        let options = ListOptions { max_entries, ..ListOptions::default() };
        let listing = sandbox.files().list(&path(".")?, &options).await?;
        equal("the number of entries", listing.entries.len(), count)?;
        equal(&format!("truncated at {max_entries}"), listing.truncated, truncated)?;
    }
    Ok(())
}

async fn stat_kinds(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script =
        "printf 12345 > file; chmod 640 file; mkdir -m 750 dir; ln -s nowhere link; mkfifo fifo";
    shell(&*sandbox, script).await?;
    let at = |name: &'static str| {
        let sandbox = &sandbox;
        async move { sandbox.files().stat(&path(name)?).await.map_err(Stop::from) }
    };
    let file = at("file").await?;
    equal("the file", (file.kind, file.size, file.mode), (FileKind::File, 5, 0o640))?;
    equal("the file's link", file.link_target, None::<Vec<u8>>)?;
    let directory = at("dir").await?;
    equal("the directory", (directory.kind, directory.mode), (FileKind::Directory, 0o750))?;
    let link = at("link").await?;
    equal("the link", (link.kind, link.size), (FileKind::Link, 7))?;
    equal("its target", link.link_target, Some(b"nowhere".to_vec()))?;
    equal("the fifo", at("fifo").await?.kind, FileKind::Special)?;
    equal("the workspace", at(".").await?.kind, FileKind::Directory)
}

async fn make_directory(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for _ in 0..2 {
        sandbox.files().make_directory(&path("a/b/c")?, 0o755).await?;
    }
    let found = sandbox.files().stat(&path("a/b/c")?).await?;
    equal("the directory", (found.kind, found.mode), (FileKind::Directory, 0o755))?;
    write(&*sandbox, "file", "x").await?;
    refused("over a file", sandbox.files().make_directory(&path("file")?, 0o755).await, None)?;
    refused("below a file", sandbox.files().make_directory(&path("file/a")?, 0o755).await, None)?;
    equal("the file", read(&*sandbox, "file").await?, "x")
}

async fn rename(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let (one, two) = (path("one")?, path("two")?);
    write(&*sandbox, "one", "1").await?;
    write(&*sandbox, "two", "2").await?;
    refused("onto a file", sandbox.files().rename(&one, &two, false).await, Some(errno::EEXIST))?;
    equal("the source", read(&*sandbox, "one").await?, "1")?;
    equal("the target", read(&*sandbox, "two").await?, "2")?;
    sandbox.files().rename(&one, &two, true).await?;
    equal("the target, replaced", read(&*sandbox, "two").await?, "1")?;
    refused("the source", sandbox.files().stat(&one).await, Some(errno::ENOENT))?;
    sandbox.files().make_directory(&path("dir/sub")?, 0o755).await?;
    sandbox.files().rename(&two, &path("dir/sub/three")?, false).await?;
    sandbox.files().rename(&path("dir")?, &path("moved")?, false).await?;
    equal("through a moved directory", read(&*sandbox, "moved/sub/three").await?, "1")
}

async fn remove(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "dir/sub/file", "x").await?;
    write(&*sandbox, "file", "x").await?;
    let files = sandbox.files();
    refused("a full directory", files.remove(&path("dir")?, false).await, Some(errno::ENOTEMPTY))?;
    equal("its file", read(&*sandbox, "dir/sub/file").await?, "x")?;
    files.remove(&path("file")?, false).await?;
    files.remove(&path("dir/sub")?, true).await?;
    files.remove(&path("dir")?, false).await?;
    equal("what is left", names(&*sandbox, ".").await?, Vec::<String>::new())
}

async fn link_inside_is_followed(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["dir/", "dir/file: x", "there -> dir", "dir/up -> ../dir/file"]).await?;
    equal("through a directory", read(&*sandbox, "there/file").await?, "x")?;
    equal("a final link", read(&*sandbox, "dir/up").await?, "x")
}

/// Makes a directory outside of the workspace and links to it, absolute, relative and in two steps.
const LINKS: &str = "out=${TMPDIR:-/tmp}/outside; mkdir -p $out/dir && echo outside > $out/file && \
                     ln -s $out absolute && ln -s ../../../../../..$out relative && \
                     ln -s absolute second && ln -s $out/file final";

async fn untouched(sandbox: &dyn Sandbox) -> CaseResult {
    let script = "cd ${TMPDIR:-/tmp}/outside && find . | sort && cat file";
    let found = shell(sandbox, script).await?;
    equal("what is outside", found, ".\n./dir\n./file\noutside\n")
}

async fn link_outside_is_refused(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, LINKS).await?;
    write(&*sandbox, "mine", "x").await?;
    let (files, mine) = (sandbox.files(), path("mine")?);
    refused("reading a final link", files.read(&path("final")?, 0, 10).await, None)?;
    for link in ["absolute", "relative", "second"] {
        let (file, new) = (path(link)?.join("file"), path(link)?.join("new"));
        let (Ok(file), Ok(new)) = (file, new) else {
            return Err(mismatch("a path", "one that is valid", &link));
        };
        let options = WriteOptions::default();
        refused("read", files.read(&file, 0, 10).await, None)?;
        refused("write", files.write(&new, Bytes::from_static(b"x"), &options).await, None)?;
        refused("overwrite", files.write(&file, Bytes::from_static(b"x"), &options).await, None)?;
        refused("list", files.list(&path(link)?, &ListOptions::default()).await, None)?;
        refused("stat", files.stat(&file).await, None)?;
        refused("make a directory", files.make_directory(&new, 0o755).await, None)?;
        refused("rename out", files.rename(&mine, &new, false).await, None)?;
        refused("rename in", files.rename(&file, &path("taken")?, false).await, None)?;
        refused("remove", files.remove(&file, true).await, None)?;
    }
    untouched(&*sandbox).await
}

async fn final_link_is_replaced(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, LINKS).await?;
    write(&*sandbox, "final", "new").await?;
    equal("its kind", sandbox.files().stat(&path("final")?).await?.kind, FileKind::File)?;
    equal("its content", read(&*sandbox, "final").await?, "new")?;
    untouched(&*sandbox).await
}

async fn remove_does_not_follow(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, LINKS).await?;
    shell(&*sandbox, "mkdir -p tree/sub && ln -s ${TMPDIR:-/tmp}/outside tree/sub/link").await?;
    for (name, recursive) in
        [("final", false), ("absolute", true), ("relative", false), ("tree", true)]
    {
        sandbox.files().remove(&path(name)?, recursive).await?;
        refused(name, sandbox.files().stat(&path(name)?).await, Some(errno::ENOENT))?;
    }
    untouched(&*sandbox).await
}

async fn fifo_is_refused(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "mkfifo fifo").await?;
    refused("reading", sandbox.files().read(&path("fifo")?, 0, 1).await, None)?;
    sandbox.files().remove(&path("fifo")?, false).await?;
    Ok(())
}

async fn deep_directories(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let file = format!("{}file", "level/".repeat(100));
    write(&*sandbox, &file, "deep").await?;
    equal("the content", read(&*sandbox, &file).await?, "deep")?;
    let options = ListOptions { depth: 200, ..ListOptions::default() };
    let listing = sandbox.files().list(&path(".")?, &options).await?;
    equal("the number of entries", listing.entries.len(), 101)?;
    sandbox.files().remove(&path("level")?, true).await?;
    refused("after removal", sandbox.files().stat(&path("level")?).await, Some(errno::ENOENT))
}

async fn sparse_file(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "truncate -s 67108864 sparse").await?;
    equal("the size", sandbox.files().stat(&path("sparse")?).await?.size, 64 << 20)?;
    let end = sandbox.files().read(&path("sparse")?, (64 << 20) - 5, 100).await?;
    equal("the last bytes", end, [0_u8; 5].as_slice())
}

async fn set_id_is_dropped(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let options = WriteOptions { mode: 0o6755, ..WriteOptions::default() };
    sandbox.files().write(&path("file")?, Bytes::new(), &options).await?;
    equal("the mode", sandbox.files().stat(&path("file")?).await?.mode, 0o755)
}

async fn large(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    // Made fast, and each MiB another one.
    let mut content = pattern(1 << 20).repeat(64);
    for (number, piece) in content.chunks_mut(1 << 20).enumerate() {
        piece[..8].copy_from_slice(&(number as u64).to_le_bytes());
    }
    let content = Bytes::from(content);
    write(&*sandbox, "large", content.clone()).await?;
    let found = sandbox.files().read(&path("large")?, 0, u64::MAX).await?;
    equal("the length", found.len(), content.len())?;
    holds("the content", found == content, "what was written", &"something else")
}

async fn atomic_for_commands(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let contents = [vec![b'a'; 300_000], vec![b'b'; 100_000]];
    let mut sums = Vec::new();
    for content in &contents {
        write(&*sandbox, "file", content.clone()).await?;
        sums.push(shell(&*sandbox, "cksum < file").await?);
    }
    let script = "until [ -e stop ]; do cksum < file; done";
    let process = sandbox.exec(ExecRequest::shell(script)).await?;
    for turn in 0..100 {
        write(&*sandbox, "file", contents[turn % 2].clone()).await?;
    }
    write(&*sandbox, "stop", "").await?;
    let text = collect(process).await?.text();
    let odd = text.split_inclusive('\n').find(|line| !sums.iter().any(|sum| sum == line));
    equal("a sum that is of neither content", odd, None::<&str>)
}

async fn one_is_first(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let options = WriteOptions { must_be_new: true, ..WriteOptions::default() };
    for turn in 0..10 {
        let file = path(&format!("file{turn}"))?;
        let writes = (0..20_u8)
            .map(|writer| sandbox.files().write(&file, Bytes::from(vec![writer; 1000]), &options));
        let mut first = None;
        for (writer, result) in (0..).zip(future::join_all(writes).await) {
            match result {
                Ok(()) => {
                    equal("another that succeeded", first, None)?;
                    first = Some(writer);
                }
                refusal => refused("a later writer", refusal, Some(errno::EEXIST))?,
            }
        }
        let found = read(&*sandbox, file.as_str()).await?;
        equal("the content is of", found.first().copied(), first)?;
    }
    Ok(())
}

async fn last_wins(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let writes = (0..20_u8).map(|writer| write(&*sandbox, "file", vec![writer; 100_000]));
    future::try_join_all(writes).await?;
    let found = read(&*sandbox, "file").await?;
    let whole = found.len() == 100_000 && found.iter().all(|byte| *byte == found[0]);
    holds("the content", whole, "of one writer", &found.len())?;
    equal("the names", names(&*sandbox, ".").await?, ["file"])
}

async fn refused_leaves_nothing(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["dir/", "dir/file: x"]).await?;
    let new = WriteOptions { must_be_new: true, ..WriteOptions::default() };
    let content = || Bytes::from(pattern(100_000));
    let files = sandbox.files();
    refused("not new", files.write(&path("dir/file")?, content(), &new).await, None)?;
    refused("a directory", files.write(&path("dir")?, content(), &new).await, None)?;
    let old = WriteOptions::default();
    refused("a directory again", files.write(&path("dir")?, content(), &old).await, None)?;
    refused("below a file", files.write(&path("dir/file/a/b")?, content(), &old).await, None)?;
    equal("the names", names(&*sandbox, ".").await?, ["dir"])?;
    equal("the names below", names(&*sandbox, "dir").await?, ["file"])
}

async fn other_names_stay(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "one", "old").await?;
    shell(&*sandbox, "ln one two").await?;
    write(&*sandbox, "one", "new").await?;
    equal("the name that was written", read(&*sandbox, "one").await?, "new")?;
    equal("the other name", read(&*sandbox, "two").await?, "old")
}

async fn rename_directories(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["a/", "a/file: x", "empty/", "full/", "full/file: y"]).await?;
    let rename = async |from: &str, to: &str, replace: bool| {
        sandbox.files().rename(&path(from)?, &path(to)?, replace).await
    };
    refused("onto a full one", rename("a", "full", true).await, Some(errno::ENOTEMPTY))?;
    refused("into itself", rename("a", "a/b", true).await, Some(errno::EINVAL))?;
    refused("onto an empty one", rename("a", "empty", false).await, Some(errno::EEXIST))?;
    rename("a", "empty", true).await?;
    rename("full", "full", true).await?;
    equal("the moved one", read(&*sandbox, "empty/file").await?, "x")?;
    equal("the full one", read(&*sandbox, "full/file").await?, "y")?;
    equal("the names", names(&*sandbox, ".").await?, ["empty", "full"])
}

async fn rename_files_and_directories(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["file: x", "dir/"]).await?;
    let (file, dir) = (path("file")?, path("dir")?);
    refused("a file", sandbox.files().rename(&file, &dir, true).await, Some(errno::EISDIR))?;
    refused("a directory", sandbox.files().rename(&dir, &file, true).await, Some(errno::ENOTDIR))?;
    equal("the names", names(&*sandbox, ".").await?, ["dir", "file"])
}

async fn rename_links(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    lay(&*sandbox, &["target: x", "link -> target", "other -> nowhere", "file: y"]).await?;
    let files = sandbox.files();
    files.rename(&path("link")?, &path("moved")?, false).await?;
    equal(
        "where it points",
        files.stat(&path("moved")?).await?.link_target,
        Some(b"target".to_vec()),
    )?;
    files.rename(&path("file")?, &path("moved")?, true).await?;
    equal("what replaced it", read(&*sandbox, "moved").await?, "y")?;
    equal("what it pointed to", read(&*sandbox, "target").await?, "x")?;
    files.rename(&path("other")?, &path("moved")?, true).await?;
    equal("a link again", files.stat(&path("moved")?).await?.kind, FileKind::Link)
}

async fn reading_while_removed(trial: &Trial<'_>) -> CaseResult {
    const LENGTH: usize = 2 << 20;
    let sandbox = trial.sandbox().await?;
    for turn in 1..=10_u8 {
        write(&*sandbox, "file", vec![turn; LENGTH]).await?;
        let reading = read(&*sandbox, "file");
        let replacing = async {
            tokio::task::yield_now().await;
            if turn % 2 == 0 {
                write(&*sandbox, "file", vec![0; LENGTH]).await
            } else {
                Ok(sandbox.files().remove(&path("file")?, false).await?)
            }
        };
        let (found, replaced) = future::join(reading, replacing).await;
        replaced?;
        match found {
            Ok(found) => {
                equal("the length", found.len(), LENGTH)?;
                let whole = found.iter().all(|byte| *byte == found[0]);
                holds("the content", whole, "of one writing", &"a mixture")?;
            }
            // It was removed before it was opened.
            Err(Stop::Failed(CaseFailure::Call(SandboxError::File {
                errno: errno::ENOENT,
                ..
            }))) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

async fn listing_while_changing(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    for number in 0..50 {
        write(&*sandbox, &format!("stays{number:02}"), "").await?;
    }
    let expected: Vec<_> = (0..50).map(|number| format!("stays{number:02}")).collect();
    let changing = async {
        for number in 0..50 {
            write(&*sandbox, &format!("goes{number}"), "").await?;
            sandbox.files().remove(&path(&format!("goes{number}"))?, false).await?;
        }
        Ok::<_, Stop>(())
    };
    let listing = async {
        for _ in 0..30 {
            let mut found = names(&*sandbox, ".").await?;
            found.retain(|name| name.starts_with("stays"));
            equal("the entries that stay", found, &expected[..])?;
        }
        Ok(())
    };
    future::try_join(changing, listing).await.map(|_| ())
}

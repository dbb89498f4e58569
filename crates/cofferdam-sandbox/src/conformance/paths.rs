//! Cases on odd paths and odd files: long, deep, strange, special.

use bytes::Bytes;
use futures::StreamExt as _;

use super::{
    case_table,
    layout::{download, file, first_event, lay, upload},
    support::{
        CaseResult, equal, errno, holds, names, path, pattern, read, refused, run, shell, write,
    },
    trial::{Stop, Trial},
};
use crate::{
    DownloadOptions, ExecRequest, ExitStatus, FileKind, ListOptions, SandboxError, TreeEvent,
    WriteOptions,
};

case_table! { "paths":
    long_name: "a name of 255 bytes works in every operation",
    long_path: "a path of 4 000 bytes works in every operation",
    deep: "2 000 levels of directories are made, read, listed, downloaded and removed",
    invalid_utf8: "names that are no UTF-8 come out of a listing and a download as they went in",
    no_normalisation: "names that look alike or differ in case are different files",
    dots: "names of dots and spaces are names",
    below_a_file: "a path through a file is ENOTDIR, also for what would be made",
    directories_are_no_files: "reading or writing a directory as a file is EISDIR",
    files_are_no_directories: "listing a file is ENOTDIR",
    special_files: "a fifo is listed and described, never opened, replaced by writing, moved and removed",
    socket: "a socket is listed as special, refused for reading, and skipped by a download",
    device_link: "a link to a device is refused without being opened",
    sparse_file: "a sparse file of 512 MiB has its size, is read where it is asked for, and counts in full",
    many_names: "a directory of 3 000 names is listed whole and removed",
}

async fn every_operation(trial: &Trial<'_>, name: &str, other: &str) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let (files, at, to) = (sandbox.files(), path(name)?, path(other)?);
    write(&*sandbox, name, "content").await?;
    equal("read", read(&*sandbox, name).await?, "content")?;
    equal("stat", files.stat(&at).await?.size, 7)?;
    files.rename(&at, &to, false).await?;
    equal("read after rename", read(&*sandbox, other).await?, "content")?;
    let found = download(&*sandbox, ".").await?;
    let files_found = found.iter().filter(|(_, content)| content == b"content").count();
    equal("files of a download", files_found, 1)?;
    files.remove(&to, false).await?;
    refused("after removal", files.stat(&to).await, Some(errno::ENOENT))
}

async fn long_name(trial: &Trial<'_>) -> CaseResult {
    every_operation(trial, &"n".repeat(255), &"ü".repeat(127)).await
}

async fn long_path(trial: &Trial<'_>) -> CaseResult {
    let above = format!("{}/", "d".repeat(249)).repeat(15);
    every_operation(trial, &format!("{above}{}", "a".repeat(240)), &format!("{above}b")).await
}

async fn deep(trial: &Trial<'_>) -> CaseResult {
    const LEVELS: usize = 2000;
    let sandbox = trial.sandbox().await?;
    let name = format!("{}f", "d/".repeat(LEVELS));
    write(&*sandbox, &name, "deep").await?;
    equal("the content", read(&*sandbox, &name).await?, "deep")?;
    let options = ListOptions { depth: u32::MAX, ..ListOptions::default() };
    let listing = sandbox.files().list(&path(".")?, &options).await?;
    equal("the entries of a listing", listing.entries.len(), LEVELS + 1)?;
    equal("the entries of a download", download(&*sandbox, ".").await?.len(), LEVELS + 1)?;
    sandbox.files().remove(&path("d")?, true).await?;
    refused("after removal", sandbox.files().stat(&path("d")?).await, Some(errno::ENOENT))
}

async fn invalid_utf8(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let odd: [&[u8]; 4] = [b"\x80", b"a\xffb", b"\xc3", b"\xed\xa0\x80"];
    for name in odd {
        upload(&*sandbox, ".", file(name, 0o644, name)).await?;
    }
    let mut expected: Vec<Vec<u8>> = odd.iter().map(|name| name.to_vec()).collect();
    expected.sort();
    let listing = sandbox.files().list(&path(".")?, &ListOptions::default()).await?;
    let listed: Vec<_> = listing.entries.into_iter().map(|entry| entry.path).collect();
    equal("the listing", listed, &expected[..])?;
    let found = download(&*sandbox, ".").await?;
    let (paths, contents): (Vec<_>, Vec<_>) =
        found.into_iter().map(|(entry, content)| (entry.path, content)).unzip();
    equal("the download", paths, &expected[..])?;
    equal("its content", contents, &expected[..])
}

async fn no_normalisation(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let alike = ["\u{e9}", "e\u{301}", "E", "e", "\u{212b}", "\u{c5}"];
    for name in alike {
        write(&*sandbox, name, name).await?;
    }
    for name in alike {
        equal(name, read(&*sandbox, name).await?, name)?;
    }
    equal("the number of names", names(&*sandbox, ".").await?.len(), alike.len())
}

async fn dots(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let odd = ["...", ".hidden", ". ", " .", "-", "--", "~", "#", "\t", "ab:c", "\u{7f}"];
    for name in odd {
        write(&*sandbox, name, name).await?;
        equal(name, read(&*sandbox, name).await?, name)?;
    }
    let mut expected = odd.map(str::to_owned);
    expected.sort();
    equal("the listing", names(&*sandbox, ".").await?, expected)
}

async fn below_a_file(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "file", "x").await?;
    let (files, below, number) = (sandbox.files(), path("file/below")?, Some(errno::ENOTDIR));
    refused("read", files.read(&below, 0, 1).await, number)?;
    refused("write", files.write(&below, Bytes::new(), &WriteOptions::default()).await, number)?;
    refused("list", files.list(&below, &ListOptions::default()).await, number)?;
    refused("stat", files.stat(&below).await, number)?;
    refused("make a directory", files.make_directory(&below, 0o755).await, number)?;
    refused("rename", files.rename(&below, &path("other")?, false).await, number)?;
    refused("remove", files.remove(&below, true).await, number)?;
    refused("download", first_event(&*sandbox, "file/below").await, number)?;
    equal("the file", read(&*sandbox, "file").await?, "x")
}

async fn directories_are_no_files(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "dir/file", "x").await?;
    let (files, at, number) = (sandbox.files(), path("dir")?, Some(errno::EISDIR));
    let options = WriteOptions::default();
    refused("read", files.read(&at, 0, 1).await, number)?;
    refused("write", files.write(&at, Bytes::new(), &options).await, number)?;
    refused(
        "write to the workspace",
        files.write(&path(".")?, Bytes::new(), &options).await,
        None,
    )?;
    refused("remove the workspace", files.remove(&path(".")?, true).await, None)?;
    refused("move the workspace", files.rename(&path(".")?, &path("x")?, true).await, None)?;
    equal("what is in it", read(&*sandbox, "dir/file").await?, "x")
}

async fn files_are_no_directories(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    write(&*sandbox, "file", "x").await?;
    let listed = sandbox.files().list(&path("file")?, &ListOptions::default()).await;
    refused("list", listed, Some(errno::ENOTDIR))
}

async fn special_files(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, "mkdir dir; mkfifo fifo dir/fifo").await?;
    let (files, fifo) = (sandbox.files(), path("fifo")?);
    let listing = files.list(&path(".")?, &ListOptions::default()).await?;
    let kinds: Vec<_> = listing.entries.iter().map(|entry| entry.metadata.kind).collect();
    equal("the kinds", kinds, [FileKind::Directory, FileKind::Special])?;
    refused("read", files.read(&fifo, 0, 1).await, None)?;
    refused("list", files.list(&fifo, &ListOptions::default()).await, None)?;
    refused("download", first_event(&*sandbox, "fifo").await, None)?;
    let started = sandbox.exec(ExecRequest::program(["./fifo"])).await;
    let expected = matches!(started, Err(SandboxError::NotStarted { errno: errno::EACCES, .. }));
    holds("run", expected, "NotStarted with EACCES", &started)?;
    files.rename(&fifo, &path("moved")?, false).await?;
    write(&*sandbox, "moved", "a file now").await?;
    equal("written over", read(&*sandbox, "moved").await?, "a file now")?;
    upload(&*sandbox, ".", file("dir/fifo", 0o644, b"a file too")).await?;
    equal("uploaded over", read(&*sandbox, "dir/fifo").await?, "a file too")?;
    shell(&*sandbox, "mkfifo dir/again").await?;
    files.remove(&path("dir")?, true).await?;
    equal("what is left", names(&*sandbox, ".").await?, ["moved"])
}

async fn socket(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let script = "if command -v python3 >&2; then python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")' || echo none
         elif command -v perl >&2; then perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un(\"socket\")) or exit 1' || echo none
         else echo none; fi";
    if shell(&*sandbox, script).await? == "none\n" {
        let reason = "there is no python3 or perl to make a socket with, or no socket can be made";
        return Err(Stop::Skipped(reason.to_owned()));
    }
    let at = path("socket")?;
    equal("its kind", sandbox.files().stat(&at).await?.kind, FileKind::Special)?;
    refused("reading", sandbox.files().read(&at, 0, 1).await, None)?;
    refused("downloading it", first_event(&*sandbox, "socket").await, None)?;
    let mut events = sandbox.tree().download(&path(".")?, &DownloadOptions::default()).await?;
    let mut skipped = Vec::new();
    while let Some(event) = events.next().await {
        if let TreeEvent::Skipped(entry) = event? {
            skipped.push((entry.path, entry.reason));
        }
    }
    equal("what was skipped", skipped, [(b"socket".to_vec(), "socket".to_owned())])
}

async fn device_link(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let links =
        ["zero -> /dev/zero", "tty -> /dev/tty", "self -> /proc/self/mem", "fd -> /dev/stdin"];
    lay(&*sandbox, &links).await?;
    for name in ["zero", "tty", "self", "fd"] {
        refused(name, sandbox.files().read(&path(name)?, 0, 1).await, None)?;
        refused(name, first_event(&*sandbox, name).await, None)?;
        equal(name, sandbox.files().stat(&path(name)?).await?.kind, FileKind::Link)?;
    }
    let told = run(&*sandbox, ExecRequest::shell("mknod device b 7 0")).await?;
    holds("making a device", told.status != Some(ExitStatus::Code(0)), "a failure", &told)
}

async fn sparse_file(trial: &Trial<'_>) -> CaseResult {
    const SIZE: u64 = 512 << 20;
    let sandbox = trial.sandbox().await?;
    shell(&*sandbox, &format!("truncate -s {SIZE} sparse")).await?;
    let at = path("sparse")?;
    equal("the size", sandbox.files().stat(&at).await?.size, SIZE)?;
    let end = sandbox.files().read(&at, SIZE - 5, 100).await?;
    equal("the last bytes", end, [0_u8; 5].as_slice())?;
    let options = DownloadOptions { max_bytes: 1 << 20, ..DownloadOptions::default() };
    let first = match sandbox.tree().download(&at, &options).await {
        Ok(mut events) => events.next().await.transpose(),
        Err(error) => Err(error),
    };
    refused("a download beyond its bound", first, None)
}

async fn many_names(trial: &Trial<'_>) -> CaseResult {
    let sandbox = trial.sandbox().await?;
    let content = pattern(3);
    let events = (0..3000).flat_map(|n| file(format!("dir/{n}"), 0o644, &content)).collect();
    upload(&*sandbox, ".", events).await?;
    equal("the number of names", names(&*sandbox, "dir").await?.len(), 3000)?;
    sandbox.files().remove(&path("dir")?, true).await?;
    equal("what is left", names(&*sandbox, ".").await?, Vec::<String>::new())
}

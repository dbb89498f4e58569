//! Whole trees through the real program.

#![cfg(all(feature = "program", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use cofferdam_guest::{
    DownloadTree, Failure, FailureReason, FileKind, HostMessage, Metadata, NO_TIME, SkipReason,
    TreeDecoder, TreeEntry, TreeRecord, UploadTree, encode_end, encode_entry,
};
use support::{Event, Guest, pattern, tree_of};

fn entry(path: &str, kind: FileKind, mode: u32, content: &[u8]) -> (TreeEntry, Vec<u8>) {
    let link = kind == FileKind::Symlink;
    let metadata = Metadata {
        kind,
        mode,
        size: if link { 0 } else { content.len() as u64 },
        modified_ns: 1_600_000_000_123_456_789,
        link_target: if link { content.to_vec() } else { Vec::new() },
    };
    let content = if link { Vec::new() } else { content.to_vec() };
    (TreeEntry { path: path.as_bytes().to_vec(), metadata }, content)
}

fn stream(entries: &[(TreeEntry, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (entry, content) in entries {
        encode_entry(&entry.path, &entry.metadata, &mut bytes);
        bytes.extend_from_slice(content);
    }
    encode_end(false, &mut bytes);
    bytes
}

fn upload(guest: &mut Guest, target: &str, bytes: &[u8]) -> Result<u64, Failure> {
    let request = UploadTree { path: target.as_bytes().to_vec() };
    let channel = guest.open(&HostMessage::UploadTree(request));
    guest.send_data(channel, bytes);
    guest.send(channel, &HostMessage::EndOfData);
    match guest.next(channel) {
        Event::Uploaded(entries) => Ok(entries),
        Event::Failed(failure) => Err(failure),
        other => panic!("unexpected {other:?}"),
    }
}

fn download(path: &str) -> DownloadTree {
    DownloadTree { path: path.as_bytes().to_vec(), max_bytes: 1 << 30, max_entries: 100_000 }
}

#[test]
fn two_thousand_files_come_back_as_they_went() {
    let mut guest = Guest::start();
    let mut entries = vec![entry("", FileKind::Directory, 0o755, b"")];
    for directory in 0..20 {
        let name = format!("d{directory:02}");
        entries.push(entry(&name, FileKind::Directory, 0o750, b""));
        for file in 0..100 {
            let content = pattern(file * 37);
            let mode = if file % 2 == 0 { 0o644 } else { 0o755 };
            entries.push(entry(&format!("{name}/f{file:03}"), FileKind::Regular, mode, &content));
        }
    }
    entries.push(entry("empty", FileKind::Directory, 0o711, b""));
    entries.push(entry("huge", FileKind::Regular, 0o600, &pattern(3 << 20)));
    entries.push(entry("link", FileKind::Symlink, 0o777, b"../dangling target"));
    entries.push(entry("read-only", FileKind::Directory, 0o555, b""));
    entries.push(entry("read-only/inner", FileKind::Regular, 0o444, b"inner"));
    assert_eq!(upload(&mut guest, "target/tree", &stream(&entries)), Ok(entries.len() as u64));

    let channel = guest.open(&HostMessage::DownloadTree(download("target/tree")));
    let content = guest.collect(channel).unwrap();
    let mut back = tree_of(&content, TreeDecoder::with_content());
    for (entry, _) in &mut back {
        // A directory and a link have a size of their own, which nobody asked for.
        if entry.metadata.kind != FileKind::Regular {
            entry.metadata.size = 0;
        }
    }
    assert_eq!(back.len(), entries.len());
    for (back, sent) in back.iter().zip(&entries) {
        assert!(back == sent, "{:?} is not {:?}", back.0, sent.0);
    }
    // A second time over what is there.
    assert_eq!(upload(&mut guest, "target/tree", &stream(&entries)), Ok(entries.len() as u64));
    fs::set_permissions(guest.path("target/tree/read-only"), fs::Permissions::from_mode(0o755))
        .unwrap();
}

#[test]
fn an_upload_replaces_files_and_passes_through_no_link() {
    let mut guest = Guest::start();
    let outside = tempfile::TempDir::new().unwrap();
    symlink(outside.path(), guest.path("out")).unwrap();
    symlink(outside.path().join("new"), guest.path("file")).unwrap();
    fs::create_dir(guest.path("real")).unwrap();
    symlink("real", guest.path("alias")).unwrap();
    let mut check = |entries: &[(TreeEntry, Vec<u8>)], expect: Result<u64, i32>| {
        let result = upload(&mut guest, "", &stream(entries)).map_err(|failure| failure.errno);
        assert_eq!(result, expect, "{:?}", entries[0].0.path);
    };
    let regular = |path| entry(path, FileKind::Regular, 0o6755, b"x");
    check(&[regular("file")], Ok(1));
    check(&[regular("made/on/the/way")], Ok(1));
    check(&[regular("out/x")], Err(40));
    check(&[regular("alias/x")], Err(40));
    check(&[regular("../x")], Err(22));
    check(&[regular("/tmp/x")], Err(22));
    check(&[regular("a/../b")], Err(22));
    check(&[entry("..", FileKind::Directory, 0o777, b"")], Err(22));
    check(&[entry("fifo", FileKind::Fifo, 0o777, b"")], Err(22));
    check(&[regular("real")], Err(21));
    let escape = [entry("late", FileKind::Symlink, 0o777, b"/tmp"), regular("late/x")];
    check(&escape, Err(40));
    // A link where a directory is wanted is replaced.
    check(&[entry("out", FileKind::Directory, 0o755, b""), regular("out/x")], Ok(2));
    let mut timeless = regular("timeless");
    timeless.0.metadata.modified_ns = NO_TIME;
    check(&[timeless], Ok(1));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let found = fs::metadata(guest.path("file")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.mtime()), (0o755, 1_600_000_000));
    assert!(fs::metadata(guest.path("timeless")).unwrap().mtime() > 1_600_000_000);
}

#[test]
fn a_broken_tree_stream_fails_the_upload_alone() {
    let mut guest = Guest::start();
    let whole = stream(&[entry("file", FileKind::Regular, 0o644, b"content")]);
    for length in [0, 1, 20, whole.len() - 1] {
        let failure = upload(&mut guest, "", &whole[..length]).unwrap_err();
        assert_eq!(failure.reason, FailureReason::BadRequest, "{length}");
    }
    let failure = upload(&mut guest, "", &[whole.as_slice(), b"more"].concat()).unwrap_err();
    assert_eq!(failure.message, "tree stream has 4 bytes too many");
    assert_eq!(upload(&mut guest, "", &whole), Ok(1));
}

#[test]
fn a_download_skips_what_cannot_be_read_and_keeps_its_bounds() {
    let mut guest = Guest::start();
    let script = "mkdir t && cd t && mkfifo fifo && echo abc > file && ln -s /etc/passwd link";
    assert!(guest.run(script).stderr.is_empty());
    let _socket = std::os::unix::net::UnixListener::bind(guest.path("t/socket")).unwrap();
    let channel = guest.open(&HostMessage::DownloadTree(download("t")));
    let content = guest.collect(channel).unwrap();
    let mut decoder = TreeDecoder::with_content();
    decoder.push(&content);
    let mut seen = Vec::new();
    while let Some(record) = decoder.next_record().unwrap() {
        seen.push(match record {
            TreeRecord::Entry(entry) => {
                format!("{} {:?}", String::from_utf8_lossy(&entry.path), entry.metadata.kind)
            }
            TreeRecord::Content(bytes) => format!("= {}", String::from_utf8_lossy(bytes).trim()),
            TreeRecord::Skipped { path, reason } => {
                assert!(matches!(reason, SkipReason::Fifo | SkipReason::Socket));
                format!("{} skipped", String::from_utf8_lossy(&path))
            }
            TreeRecord::End { truncated } => format!("end {truncated}"),
        });
    }
    assert_eq!(
        seen,
        [
            " Directory",
            "fifo skipped",
            "file Regular",
            "= abc",
            "link Symlink",
            "socket skipped",
            "end false"
        ]
    );
    for request in [
        DownloadTree { max_bytes: 3, ..download("t") },
        DownloadTree { max_entries: 1, ..download("t") },
    ] {
        let failure = guest.failure(&HostMessage::DownloadTree(request));
        assert_eq!(failure.reason, FailureReason::Limit);
    }
    // A single file is a tree of one.
    let channel = guest.open(&HostMessage::DownloadTree(download("t/file")));
    let content = guest.collect(channel).unwrap();
    let single = tree_of(&content, TreeDecoder::with_content());
    assert_eq!(
        (single.len(), single[0].0.path.len(), single[0].1.as_slice()),
        (1, 0, b"abc\n".as_slice())
    );
}

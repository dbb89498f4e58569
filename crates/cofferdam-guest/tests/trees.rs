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
    DownloadTree, Failure, FailureReason, FileKind, HostMessage, Metadata, NO_TIME, ScanEntry,
    ScanTree, SkipReason, TreeDecoder, TreeEntry, TreeRecord, UploadTree, encode_end, encode_entry,
    encode_hard_link,
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
    let path = path.as_bytes().to_vec();
    DownloadTree { path, max_bytes: 1 << 30, max_entries: 100_000, hard_links: false }
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
            other => panic!("unexpected {other:?}"),
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

fn scan(guest: &mut Guest, path: &str) -> Vec<ScanEntry> {
    let request = ScanTree { path: path.as_bytes().to_vec(), max_entries: 100_000 };
    let channel = guest.open(&HostMessage::ScanTree(request));
    let content = guest.collect(channel).unwrap();
    let mut decoder = TreeDecoder::without_content();
    decoder.push(&content);
    let mut entries = Vec::new();
    while let Some(record) = decoder.next_record().unwrap() {
        match record {
            TreeRecord::Scanned(entry) => entries.push(entry),
            TreeRecord::End { truncated } => assert!(!truncated),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(decoder.ended());
    entries
}

#[test]
fn a_scan_tells_what_the_file_system_tells() {
    let mut guest = Guest::start();
    let script = "mkdir t t/d && cd t && mkfifo fifo && echo abc > d/file && ln d/file d/second && ln -s d/file link";
    assert!(guest.run(script).stderr.is_empty());
    let _socket = std::os::unix::net::UnixListener::bind(guest.path("t/socket")).unwrap();
    let entries = scan(&mut guest, "t");
    let names: Vec<_> = entries.iter().map(|e| String::from_utf8_lossy(&e.path)).collect();
    assert_eq!(names, ["", "d", "d/file", "d/second", "fifo", "link", "socket"]);
    let kinds: Vec<_> = entries.iter().map(|entry| entry.kind).collect();
    use FileKind::{Directory, Fifo, Regular, Socket, Symlink};
    assert_eq!(kinds, [Directory, Directory, Regular, Regular, Fifo, Symlink, Socket]);
    for entry in &entries {
        let path = format!("t/{}", String::from_utf8_lossy(&entry.path));
        let found = fs::symlink_metadata(guest.path(&path)).unwrap();
        let ns = |seconds: i64, ns: i64| seconds * 1_000_000_000 + ns;
        assert_eq!(
            (entry.inode, entry.size, entry.links, entry.mode),
            (
                found.ino(),
                found.size(),
                u32::try_from(found.nlink()).unwrap(),
                found.mode() & 0o7777
            )
        );
        assert_eq!(entry.modified_ns, ns(found.mtime(), found.mtime_nsec()));
        assert_eq!(entry.changed_ns, ns(found.ctime(), found.ctime_nsec()));
    }
    assert_eq!((entries[2].inode, entries[2].device), (entries[3].inode, entries[3].device));
    assert_eq!(entries[5].link_target, b"d/file");
    // A single file is a tree of one, and the bound is one.
    assert_eq!(scan(&mut guest, "t/d/file").len(), 1);
    let few = ScanTree { path: b"t".to_vec(), max_entries: 5 };
    assert_eq!(guest.failure(&HostMessage::ScanTree(few)).reason, FailureReason::Limit);
    let nothing = ScanTree { path: b"none".to_vec(), max_entries: 5 };
    assert_eq!(guest.failure(&HostMessage::ScanTree(nothing)).errno, 2);
}

#[test]
fn a_scan_notices_what_was_forged() {
    let mut guest = Guest::start();
    assert!(guest.run("mkdir t && echo good > t/file && touch -r t/file stamp").stderr.is_empty());
    let before = scan(&mut guest, "t");
    // The same size and, for whoever looks at it, the same time.
    assert!(guest.run("sleep 0.01; echo evil > t/file && touch -r stamp t/file").stderr.is_empty());
    let after = scan(&mut guest, "t");
    let [before, after] = [&before[1], &after[1]];
    assert_eq!(
        (before.size, before.modified_ns, before.inode),
        (after.size, after.modified_ns, after.inode)
    );
    assert_ne!(before.changed_ns, after.changed_ns);
}

#[test]
fn a_scan_of_what_no_request_can_name_says_so() {
    let mut guest = Guest::start();
    // Two trees, each of which a path can name, and one hung into the other.
    let deep = vec!["d".repeat(100); 30].join("/");
    for root in ["t", "other"] {
        fs::create_dir_all(guest.path(root).join(&deep)).unwrap();
    }
    fs::rename(guest.path("other"), guest.path("t").join(&deep).join("other")).unwrap();
    let failure =
        guest.failure(&HostMessage::ScanTree(ScanTree { path: b"t".to_vec(), max_entries: 1000 }));
    assert_eq!((failure.reason, failure.errno), (FailureReason::Limit, 36));
}

#[test]
fn hard_links_go_up_and_come_down_as_such() {
    let mut guest = Guest::start();
    let (first, content) = entry("a/first", FileKind::Regular, 0o644, b"one content");
    let mut bytes = Vec::new();
    encode_entry(&first.path, &first.metadata, &mut bytes);
    bytes.extend(content);
    encode_hard_link(b"b/second", b"a/first", &mut bytes);
    encode_end(false, &mut bytes);
    assert_eq!(upload(&mut guest, "t", &bytes), Ok(2));
    let [one, two] =
        ["t/a/first", "t/b/second"].map(|name| fs::metadata(guest.path(name)).unwrap());
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));

    let linked = DownloadTree { hard_links: true, max_bytes: 11, ..download("t") };
    let channel = guest.open(&HostMessage::DownloadTree(linked));
    let content = guest.collect(channel).unwrap();
    let mut decoder = TreeDecoder::with_content();
    decoder.push(&content);
    let mut links = Vec::new();
    while let Some(record) = decoder.next_record().unwrap() {
        if let TreeRecord::HardLink { path, to } = record {
            links.push((path, to));
        }
    }
    assert_eq!(links, [(b"b/second".to_vec(), b"a/first".to_vec())]);
    // Who did not ask for links gets two files, as ever.
    let channel = guest.open(&HostMessage::DownloadTree(download("t")));
    let plain = tree_of(&guest.collect(channel).unwrap(), TreeDecoder::with_content());
    assert_eq!(plain.iter().filter(|(_, content)| content == b"one content").count(), 2);
}

#[test]
fn a_hard_link_leads_to_a_file_beneath_and_nowhere_else() {
    let mut guest = Guest::start();
    let outside = tempfile::TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), guest.path("out")).unwrap();
    symlink(outside.path().join("secret"), guest.path("link")).unwrap();
    fs::write(guest.path("file"), "x").unwrap();
    let mut check = |path: &str, to: &str, expect: Result<u64, i32>| {
        let mut bytes = Vec::new();
        encode_hard_link(path.as_bytes(), to.as_bytes(), &mut bytes);
        encode_end(false, &mut bytes);
        let result = upload(&mut guest, "", &bytes).map_err(|failure| failure.errno);
        assert_eq!(result, expect, "{path} to {to}");
    };
    check("second", "file", Ok(1));
    check("a", "out/secret", Err(40));
    check("a", "link", Err(22));
    check("a", "../file", Err(22));
    check("a", "/etc/passwd", Err(22));
    check("a", "none", Err(2));
    check("a", "", Err(2));
    check("../a", "file", Err(22));
    check("out/a", "file", Err(40));
    check("file", "file", Err(22));
    assert_eq!(fs::read(guest.path("file")).unwrap(), b"x");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn whole_blocks_of_zeros_become_holes() {
    const SIZE: usize = 64 << 20;
    let mut guest = Guest::start();
    let mut content = vec![0; SIZE + 5];
    // At odd places: within a block, over a border, and a last byte.
    for (at, length) in [(4000, 200), (1 << 20, 1), ((2 << 20) - 1, 2), (SIZE + 4, 1)] {
        content[at..at + length].fill(7);
    }
    let entries = [
        entry("sparse", FileKind::Regular, 0o644, &content),
        entry("empty", FileKind::Regular, 0o644, &[0; 9000]),
    ];
    assert_eq!(upload(&mut guest, "", &stream(&entries)), Ok(2));
    assert!(fs::read(guest.path("sparse")).unwrap() == content);
    assert_eq!(fs::read(guest.path("empty")).unwrap(), [0; 9000]);
    let blocks = |name| fs::metadata(guest.path(name)).unwrap().blocks() * 512;
    assert!(blocks("sparse") <= 8 * 4096, "{} bytes on disk", blocks("sparse"));
    assert_eq!(blocks("empty"), 0);
}

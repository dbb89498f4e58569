//! File operations of the real program, with everything that a hostile command may put in their way.

#![cfg(all(feature = "program", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test says no more than that it failed"
)]

mod support;

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink},
    sync::atomic::{AtomicBool, Ordering},
};

use cofferdam_guest::{
    FailureReason, FileKind, FileRequest, HostMessage, INITIAL_WINDOW, ListDirectory, MAX_WINDOW,
    ReadFile, TreeDecoder, WriteFile,
};
use support::{Event, Guest, pattern};

fn read(path: &str) -> ReadFile {
    ReadFile { path: path.as_bytes().to_vec(), offset: 0, max_bytes: u64::MAX }
}

fn write(path: &str) -> WriteFile {
    WriteFile {
        path: path.as_bytes().to_vec(),
        mode: 0o644,
        keep_mode: true,
        must_be_new: false,
        make_parents: true,
        expected_size: None,
    }
}

fn do_write(guest: &mut Guest, request: WriteFile, content: &[u8]) -> Result<(), i32> {
    let channel = guest.open(&HostMessage::WriteFile(request));
    guest.send_data(channel, content);
    guest.send(channel, &HostMessage::EndOfData);
    match guest.next(channel) {
        Event::Done => Ok(()),
        Event::Failed(failure) => Err(failure.errno),
        other => panic!("unexpected {other:?}"),
    }
}

fn do_read(guest: &mut Guest, path: &str) -> Result<Vec<u8>, i32> {
    let channel = guest.open(&HostMessage::ReadFile(read(path)));
    guest.collect(channel).map_err(|failure| failure.errno)
}

fn file(guest: &mut Guest, request: FileRequest) -> Result<(), i32> {
    match guest.ask(&HostMessage::File(request)) {
        Event::Done => Ok(()),
        Event::Failed(failure) => Err(failure.errno),
        other => panic!("unexpected {other:?}"),
    }
}

fn bytes(path: &str) -> Vec<u8> {
    path.as_bytes().to_vec()
}

#[test]
fn sixty_four_mebibytes_go_in_and_out() {
    let mut guest = Guest::start();
    let content = pattern(64 << 20);
    do_write(&mut guest, write("deep/below/big"), &content).unwrap();
    assert!(fs::read(guest.path("deep/below/big")).unwrap() == content);
    assert!(do_read(&mut guest, "deep/below/big").unwrap() == content);
    let resident = guest.resident_bytes();
    assert!(resident < 4 << 20, "{resident} bytes resident");
}

#[test]
fn a_host_that_reads_slowly_costs_bounded_memory() {
    let mut guest = Guest::start();
    guest.generous = false;
    support::write_file(&guest.path("big"), &pattern(24 << 20));
    let channel = guest.open(&HostMessage::ReadFile(read("big")));
    // So much credit that only the stream itself holds the guest up.
    for _ in 0..2 {
        guest.send(channel, &HostMessage::Window(MAX_WINDOW / 2 - INITIAL_WINDOW));
        let mut seen = 0;
        while seen < 7 << 20 {
            if let Event::Data(bytes) = guest.next(channel) {
                seen += bytes.len();
            }
        }
    }
    let resident = guest.resident_bytes();
    assert!(resident < 4 << 20, "{resident} bytes resident");
}

#[test]
fn a_range_is_read() {
    let mut guest = Guest::start();
    support::write_file(&guest.path("file"), b"0123456789");
    for (offset, max_bytes, expect) in
        [(0, 4, "0123"), (4, 100, "456789"), (10, 5, ""), (100, 5, ""), (3, 0, "")]
    {
        let request = ReadFile { path: bytes("file"), offset, max_bytes };
        let channel = guest.open(&HostMessage::ReadFile(request));
        assert_eq!(guest.collect(channel).unwrap(), expect.as_bytes(), "{offset} {max_bytes}");
    }
}

#[test]
fn a_write_is_atomic_and_keeps_what_it_should() {
    let mut guest = Guest::start();
    support::write_file(&guest.path("script"), b"old");
    fs::set_permissions(guest.path("script"), fs::Permissions::from_mode(0o755)).unwrap();

    // Half a write changes nothing, and leaves nothing.
    let channel = guest.open(&HostMessage::WriteFile(write("script")));
    guest.send(channel, &HostMessage::Data(b"half"));
    guest.send(channel, &HostMessage::Close);
    assert!(matches!(guest.next(channel), Event::Failed(_)));
    assert_eq!(fs::read(guest.path("script")).unwrap(), b"old");
    assert_eq!(fs::read_dir(guest.workspace.path()).unwrap().count(), 1);

    do_write(&mut guest, write("script"), b"new").unwrap();
    assert_eq!(fs::read(guest.path("script")).unwrap(), b"new");
    assert_eq!(fs::metadata(guest.path("script")).unwrap().permissions().mode() & 0o7777, 0o755);
    do_write(&mut guest, WriteFile { keep_mode: false, mode: 0o600, ..write("script") }, b"new")
        .unwrap();
    assert_eq!(fs::metadata(guest.path("script")).unwrap().permissions().mode() & 0o7777, 0o600);
    // Set-id bits are never given, whoever asks.
    do_write(&mut guest, WriteFile { keep_mode: false, mode: 0o6755, ..write("script") }, b"new")
        .unwrap();
    assert_eq!(fs::metadata(guest.path("script")).unwrap().permissions().mode() & 0o7777, 0o755);

    let new = WriteFile { must_be_new: true, ..write("script") };
    assert_eq!(do_write(&mut guest, new, b"x"), Err(17));
    let orphan = WriteFile { make_parents: false, ..write("no/where") };
    assert_eq!(do_write(&mut guest, orphan, b"x"), Err(2));
    fs::create_dir(guest.path("directory")).unwrap();
    assert_eq!(do_write(&mut guest, write("directory"), b"x"), Err(21));

    for (size, content, good) in [(3, "abc", true), (2, "abc", false), (4, "abc", false)] {
        let request = WriteFile { expected_size: Some(size), ..write("sized") };
        assert_eq!(do_write(&mut guest, request, content.as_bytes()).is_ok(), good, "{size}");
    }
    assert_eq!(fs::read(guest.path("sized")).unwrap(), b"abc");

    // A link is replaced, not followed.
    symlink("sized", guest.path("link")).unwrap();
    do_write(&mut guest, write("link"), b"own").unwrap();
    assert_eq!(fs::read(guest.path("sized")).unwrap(), b"abc");
    assert!(fs::symlink_metadata(guest.path("link")).unwrap().is_file());
}

#[test]
fn no_path_leads_out() {
    let mut guest = Guest::start();
    let outside = tempfile::TempDir::new().unwrap();
    support::write_file(&outside.path().join("secret"), b"secret");
    symlink(outside.path(), guest.path("out")).unwrap();
    symlink("/etc", guest.path("etc")).unwrap();
    symlink("../..", guest.path("up")).unwrap();
    symlink("/proc/self/root", guest.path("magic")).unwrap();
    let up = format!("up/{}/secret", outside.path().file_name().unwrap().to_str().unwrap());
    for path in [
        "out/secret",
        "etc/passwd",
        &up,
        "magic/etc/passwd",
        "../x",
        "a/../../x",
        "/etc/passwd",
        "x\0y",
        "up",
    ] {
        assert!(do_read(&mut guest, path).is_err(), "read {path:?}");
        if path != "up" {
            assert!(do_write(&mut guest, write(path), b"x").is_err(), "write {path:?}");
            for request in [
                FileRequest::Remove { path: bytes(path), recursive: true },
                FileRequest::Remove { path: bytes(path), recursive: false },
                FileRequest::SetMode { path: bytes(path), mode: 0o777 },
                FileRequest::Symlink { path: bytes(path), target: bytes("x") },
                FileRequest::Rename { from: bytes("etc"), to: bytes(path), replace: true },
                FileRequest::Rename { from: bytes(path), to: bytes("here"), replace: true },
                FileRequest::MakeDirectory { path: bytes(path), mode: 0o755, parents: true },
            ] {
                assert!(file(&mut guest, request.clone()).is_err(), "{request:?}");
            }
        }
        let failure = guest.failure(&HostMessage::List(ListDirectory {
            path: bytes(path),
            depth: 1,
            max_entries: 10,
        }));
        assert_eq!(failure.reason, FailureReason::System, "{path:?}");
    }
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(fs::symlink_metadata(guest.path("out")).unwrap().is_symlink());

    // A link that stays inside is followed.
    fs::create_dir(guest.path("real")).unwrap();
    support::write_file(&guest.path("real/file"), b"inside");
    symlink("real", guest.path("alias")).unwrap();
    symlink("../real/../real/file", guest.path("real/twisted")).unwrap();
    assert_eq!(do_read(&mut guest, "alias/file").unwrap(), b"inside");
    assert_eq!(do_read(&mut guest, "real/twisted").unwrap(), b"inside");
    // Absolute, even if it happens to lead inside: refused.
    symlink(guest.path("real"), guest.path("absolute")).unwrap();
    assert_eq!(do_read(&mut guest, "absolute/file"), Err(18));
}

#[test]
fn a_swapped_directory_does_not_lead_out() {
    let mut guest = Guest::start();
    let outside = tempfile::TempDir::new().unwrap();
    support::write_file(&outside.path().join("file"), b"secret");
    fs::create_dir(guest.path("inner")).unwrap();
    support::write_file(&guest.path("inner/file"), b"inside");
    let (inner, parked, link) = (guest.path("inner"), guest.path("parked"), guest.path("link"));
    symlink(outside.path(), &link).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&inner, &parked).unwrap();
                fs::rename(&link, &inner).unwrap();
                fs::rename(&inner, &link).unwrap();
                fs::rename(&parked, &inner).unwrap();
            }
        });
        let mut good = 0;
        for turn in 0..400 {
            if let Ok(content) = do_read(&mut guest, "inner/file") {
                assert_eq!(content, b"inside");
                good += 1;
            }
            let request = WriteFile { make_parents: false, ..write(&format!("inner/new-{turn}")) };
            // Which of the two directories it met is the racer's doing; where it may write is not.
            let _ = do_write(&mut guest, request, b"new");
            let _ = file(
                &mut guest,
                FileRequest::Remove { path: bytes("inner/file-x"), recursive: false },
            );
        }
        stop.store(true, Ordering::Relaxed);
        assert!(good > 0, "the race was never won by the reader");
    });
    let names: Vec<_> =
        fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
}

#[test]
fn special_files_are_described_and_never_opened() {
    let mut guest = Guest::start();
    assert!(guest.run("mkfifo fifo && mknod null c 1 3").status.is_some());
    let _socket = std::os::unix::net::UnixListener::bind(guest.path("socket")).unwrap();
    for (name, kind) in [("fifo", FileKind::Fifo), ("socket", FileKind::Socket)] {
        assert_eq!(do_read(&mut guest, name), Err(22), "{name}");
        let request = FileRequest::Stat { path: bytes(name), follow: true };
        match guest.ask(&HostMessage::File(request)) {
            Event::Metadata(metadata) => assert_eq!(metadata.kind, kind),
            other => panic!("unexpected {other:?}"),
        }
    }
    if fs::symlink_metadata(guest.path("null"))
        .is_ok_and(|found| found.file_type().is_char_device())
    {
        assert_eq!(do_read(&mut guest, "null"), Err(22));
    }
    assert_eq!(do_read(&mut guest, "."), Err(21));
}

#[test]
fn the_small_operations_do_what_they_say() {
    let mut guest = Guest::start();
    let make = |path: &str, parents| FileRequest::MakeDirectory {
        path: bytes(path),
        mode: 0o750,
        parents,
    };
    assert_eq!(file(&mut guest, make("a/b/c", false)), Err(2));
    assert_eq!(file(&mut guest, make("a/b/c", true)), Ok(()));
    assert_eq!(file(&mut guest, make("a/b/c", true)), Ok(()));
    assert_eq!(file(&mut guest, make("a/b/c", false)), Err(17));
    assert_eq!(fs::metadata(guest.path("a/b/c")).unwrap().permissions().mode() & 0o7777, 0o750);
    assert_eq!(file(&mut guest, make("", true)), Ok(()));

    support::write_file(&guest.path("one"), b"1");
    support::write_file(&guest.path("two"), b"2");
    let rename = |from: &str, to: &str, replace| FileRequest::Rename {
        from: bytes(from),
        to: bytes(to),
        replace,
    };
    assert_eq!(file(&mut guest, rename("one", "two", false)), Err(17));
    assert_eq!(file(&mut guest, rename("one", "two", true)), Ok(()));
    assert_eq!(fs::read(guest.path("two")).unwrap(), b"1");
    assert_eq!(file(&mut guest, rename("two", "two", true)), Ok(()));
    assert_eq!(file(&mut guest, rename("two", "a/b/three", false)), Ok(()));

    assert_eq!(
        file(&mut guest, FileRequest::Symlink { path: bytes("link"), target: bytes("/any where") }),
        Ok(())
    );
    match guest.ask(&HostMessage::File(FileRequest::ReadLink { path: bytes("link") })) {
        Event::Metadata(metadata) => assert_eq!(metadata.link_target, b"/any where"),
        other => panic!("unexpected {other:?}"),
    }
    assert_eq!(file(&mut guest, FileRequest::ReadLink { path: bytes("a") }), Err(22));
    assert_eq!(
        file(&mut guest, FileRequest::SetMode { path: bytes("link"), mode: 0o600 }),
        Err(40)
    );
    assert_eq!(
        file(&mut guest, FileRequest::SetMode { path: bytes("a/b/three"), mode: 0o400 }),
        Ok(())
    );
    assert_eq!(fs::metadata(guest.path("a/b/three")).unwrap().permissions().mode() & 0o7777, 0o400);

    let remove = |path: &str, recursive| FileRequest::Remove { path: bytes(path), recursive };
    assert_eq!(file(&mut guest, remove("a", false)), Err(39));
    assert_eq!(file(&mut guest, remove("", true)), Err(22));
    assert_eq!(file(&mut guest, remove("link", true)), Ok(()));
    assert_eq!(file(&mut guest, remove("a", true)), Ok(()));
    assert_eq!(file(&mut guest, remove("a", true)), Err(2));
    assert_eq!(fs::read_dir(guest.workspace.path()).unwrap().count(), 0);
}

#[test]
fn a_removal_follows_no_link_and_takes_many_files() {
    let mut guest = Guest::start();
    let outside = tempfile::TempDir::new().unwrap();
    support::write_file(&outside.path().join("keep"), b"");
    let script = "mkdir -p t/a/b/c/d && cd t && i=0 && while [ $i -lt 1500 ]; do : > a/f$i; i=$((i+1)); done";
    assert!(guest.run(script).stderr.is_empty());
    symlink(outside.path(), guest.path("t/a/b/link")).unwrap();
    assert_eq!(file(&mut guest, FileRequest::Remove { path: bytes("t"), recursive: true }), Ok(()));
    assert!(!guest.path("t").exists());
    assert!(outside.path().join("keep").exists());
}

#[test]
fn a_listing_is_sorted_and_bounded() {
    let mut guest = Guest::start();
    let script = "mkdir -p b/deep && : > a && : > b/x && : > b/deep/y && ln -s a c && mkfifo d";
    assert!(guest.run(script).stderr.is_empty());
    let mut list = |depth, max_entries| {
        let request = ListDirectory { path: Vec::new(), depth, max_entries };
        let channel = guest.open(&HostMessage::List(request));
        let content = guest.collect(channel).unwrap();
        let truncated = content.last() == Some(&1);
        let names: Vec<_> = support::tree_of(&content, TreeDecoder::without_content())
            .into_iter()
            .map(|(entry, _)| String::from_utf8(entry.path).unwrap())
            .collect();
        (names.join(" "), truncated)
    };
    assert_eq!(list(1, 100), ("a b c d".to_owned(), false));
    assert_eq!(list(2, 100), ("a b b/deep b/x c d".to_owned(), false));
    assert_eq!(list(9, 100), ("a b b/deep b/deep/y b/x c d".to_owned(), false));
    assert_eq!(list(9, 3), ("a b b/deep".to_owned(), true));
    assert_eq!(list(1, 4), ("a b c d".to_owned(), false));
    assert_eq!(list(1, 0), (String::new(), true));
}

//! What is read again, what is left out, and what is noticed.

use std::collections::BTreeSet;

use futures::StreamExt as _;

use super::support::{Place, collect, path};
use crate::{
    Detection, DirectoryOptions, DirectorySource,
    source::{Content, FileEnd, SkipReason, Source as _, SourceError, Wanted},
};

const NONE: [&str; 0] = [];

/// Takes a tree until it is all remembered: the first time it is too fresh.
async fn remembered(script: &str) -> Place {
    let mut place = Place::new();
    place.sh(script);
    place.settle();
    assert!(!place.take().await.read.is_empty());
    place.settle();
    assert_eq!(place.take().await.read, NONE);
    place
}

#[tokio::test]
async fn what_changed_is_read_and_nothing_else() {
    let mut place =
        remembered("mkdir -p a/b; for f in 1 2 3; do echo $f > a/$f; echo $f > a/b/$f; done").await;
    place.sh("echo more >> a/b/2; echo new > a/new; rm a/3; mv a/1 a/moved");
    let found = place.take().await;
    assert_eq!(found.read, ["a/moved", "a/new", "a/b/2"]);
    assert!(!found.entries.contains_key(&path("a/3")));
    place.settle();
    // The fresh ones once more, since they could have changed within a tick of the clock.
    place.take().await;
    place.settle();
    assert_eq!(place.take().await.read, NONE);
}

#[tokio::test]
async fn forged_times_are_noticed() {
    let mut place = remembered("echo good > file; echo same > other").await;
    place.sh("touch -r file /tmp/cofferdam-stamp-$$; echo evil > file; touch -r /tmp/cofferdam-stamp-$$ file; rm /tmp/cofferdam-stamp-$$");
    assert_eq!(place.take().await.read, ["file"]);
}

#[tokio::test]
async fn a_time_in_the_future_is_never_trusted() {
    let mut place = Place::new();
    place.sh("echo x > file; touch -d 2100-01-01 file");
    for _ in 0..3 {
        place.settle();
        assert_eq!(place.take().await.read, ["file"]);
    }
}

#[tokio::test]
async fn changes_within_a_tick_are_read() {
    let mut place = remembered("echo 10 > file").await;
    // Of one length, and some of one time: the walk between them must not trust that.
    for number in 11..60 {
        std::fs::write(place.tree().join("file"), format!("{number}\n")).unwrap();
        assert_eq!(place.take().await.read, ["file"], "{number}");
    }
}

#[tokio::test]
async fn files_that_changed_places_are_noticed() {
    let mut place =
        remembered("mkdir a b; echo 1 > a/f; echo 2 > b/f; touch -d 2001-01-01 a/f b/f").await;
    place.sh("mv a c; mv b a; mv c b");
    assert_eq!(place.take().await.read, ["a/f", "b/f"]);
}

#[tokio::test]
async fn a_damaged_memory_is_no_memory_and_no_error() {
    let mut place =
        remembered("for d in 1 2 3; do mkdir $d; for f in 1 2 3; do echo $f > $d/$f; done; done")
            .await;
    let cache = place.directory.path().join("cache");
    let whole = std::fs::read(&cache).unwrap();
    let source = |place: &Place| DirectorySource::open(&place.tree(), place.options()).unwrap();
    for at in (0..whole.len()).step_by(13) {
        for damaged in [
            {
                let mut flipped = whole.clone();
                flipped[at] ^= 0x10;
                flipped
            },
            whole[..at].to_vec(),
        ] {
            std::fs::write(&cache, &damaged).unwrap();
            // Not committed, so that the memory stays as it is.
            let found = collect(&source(&place), place.previous()).await.unwrap();
            assert_eq!(found.entries.len(), 12, "damaged at {at}");
            for read in &found.read {
                let (_, kept) = &found.entries[&path(read)];
                let super::support::Kept::File { content: Some(content), .. } = kept else {
                    panic!("{read} was not read");
                };
                assert_eq!(content, &std::fs::read(place.tree().join(read)).unwrap());
            }
        }
    }
    std::fs::remove_file(&cache).unwrap();
    assert_eq!(place.take().await.read.len(), 9);
}

#[tokio::test]
async fn the_memory_of_another_tree_is_none() {
    let mut place = remembered("echo x > file").await;
    place.forget_one();
    assert_eq!(place.take().await.read, ["file"]);
}

#[tokio::test]
async fn what_is_taken_and_not_kept_is_not_remembered() {
    let mut place = Place::new();
    place.sh("echo x > file");
    place.settle();
    let source = DirectorySource::open(&place.tree(), place.options()).unwrap();
    collect(&source, None).await.unwrap();
    drop(source);
    assert!(!place.directory.path().join("cache").exists());
    assert!(!place.directory.path().join("cache.new").exists());
    assert_eq!(place.take().await.read, ["file"]);
}

#[tokio::test]
async fn who_trusts_nothing_reads_everything() {
    let mut place = remembered("echo 1 > a; echo 2 > b").await;
    let options = DirectoryOptions { read_all: true, ..place.options() };
    let source = DirectorySource::open(&place.tree(), options).unwrap();
    assert_eq!(place.take_of(&source).await.read, ["a", "b"]);
    assert_eq!(source.facts().detection, Detection::Content);
    // What it saw is remembered.
    let source = DirectorySource::open(&place.tree(), place.options()).unwrap();
    assert_eq!(place.take_of(&source).await.read, NONE);
    assert_eq!(source.facts().detection, Detection::Stat);
}

#[tokio::test]
async fn what_is_no_file_is_left_out_and_told() {
    let mut place = Place::new();
    place.sh("mkdir -p d/e; mkfifo d/pipe; echo x > d/e/f; echo y > d/secret; mkdir m; ln -s pipe d/link");
    let _socket = std::os::unix::net::UnixListener::bind(place.tree().join("socket")).unwrap();
    let exclude = BTreeSet::from([path("d/secret"), path("m")]);
    let options = DirectoryOptions { exclude, ..place.options() };
    let source = DirectorySource::open(&place.tree(), options).unwrap();
    let found = place.take_of(&source).await;
    let mut told: Vec<_> =
        found.skipped.iter().map(|(path, why)| format!("{path}: {why}")).collect();
    told.sort();
    let special = "a socket, pipe or device";
    assert_eq!(
        told,
        [
            &format!("d/pipe: {special}"),
            "d/secret: excluded",
            "m: excluded",
            &format!("socket: {special}"),
        ]
    );
    assert_eq!(found.read, ["d/e/f"]);
}

/// Reads a file of many pieces, and changes it so many times while it is read: after the first piece of each time.
async fn read_while_it_changes(
    place: &Place,
    source: &DirectorySource,
    changes: usize,
) -> (usize, FileEnd) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::options().write(true).open(place.tree().join("file")).unwrap();
    let mut contents = source.read(vec![Wanted { path: path("file"), size: 16 << 20 }]);
    let (mut again, mut changed, mut fresh) = (0, 0, true);
    loop {
        match contents.next().await.unwrap().unwrap() {
            // The reader is a bounded number of pieces ahead, and not at the end.
            Content::Data(_) if fresh && changed < changes => {
                changed += 1;
                fresh = false;
                file.write_all_at(b"y", 5).unwrap();
            }
            Content::Again => {
                again += 1;
                fresh = true;
            }
            Content::End(end) => return (again, end),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_is_read_again_and_one_that_never_rests_is_told() {
    let place = Place::new();
    place.sh("head -c 16777216 /dev/zero | tr '\\0' x > file");
    for (changes, again, kept) in [(0, 0, true), (1, 1, true), (3, 3, true), (9, 4, false)] {
        let source = DirectorySource::open(&place.tree(), place.options()).unwrap();
        let (found, end) = read_while_it_changes(&place, &source, changes).await;
        assert_eq!(found, again, "{changes} changes");
        match end {
            FileEnd::Whole(_) => assert!(kept),
            FileEnd::Skipped(reason) => assert_eq!((reason, kept), (SkipReason::Unstable, false)),
        }
    }
}

#[tokio::test]
async fn a_file_that_is_not_in_the_last_snapshot_is_read() {
    let mut place =
        remembered("head -c 16777216 /dev/zero | tr '\\0' x > file; echo calm > calm").await;
    place.sh("touch file");
    place.settle();
    let source = DirectorySource::open(&place.tree(), place.options()).unwrap();
    let mut walk = source.begin(place.previous()).await.unwrap();
    while walk.listings.next().await.is_some() {}
    drop(walk);
    let (_, end) = read_while_it_changes(&place, &source, 9).await;
    assert_eq!(end, FileEnd::Skipped(SkipReason::Unstable));
    place.commit(&source).await;
    place.settle();
    assert_eq!(place.take().await.read, ["file"]);
}

#[tokio::test]
async fn bounds_are_errors() {
    let place = Place::new();
    place.sh("for f in 1 2 3; do echo > $f; done");
    for (max_entries, fits) in [(3, true), (2, false)] {
        let options = DirectoryOptions { max_entries, ..DirectoryOptions::default() };
        let source = DirectorySource::open(&place.tree(), options).unwrap();
        let found = collect(&source, None).await;
        assert_eq!(found.is_ok(), fits);
        if let Err(error) = found {
            assert!(matches!(error, SourceError::TooLarge { limit: 2, .. }), "{error}");
        }
    }
    let gone = DirectorySource::open(&place.tree().join("none"), DirectoryOptions::default());
    assert!(matches!(gone, Err(SourceError::Gone { .. })));
}

#[tokio::test]
async fn a_tree_deeper_than_a_path_is_told() {
    let mut place = Place::new();
    // Two trees, each of which a path can name, one hung into the other.
    let deep = vec!["d".repeat(100); 30].join("/");
    for root in ["t", "other"] {
        std::fs::create_dir_all(place.tree().join(root).join(&deep)).unwrap();
    }
    std::fs::rename(place.tree().join("other"), place.tree().join("t").join(&deep).join("o"))
        .unwrap();
    let found = place.take().await;
    assert_eq!(found.skipped.len(), 1);
    assert!(matches!(found.skipped[0].1, SkipReason::Unsupported(_)), "{:?}", found.skipped);
    assert!(found.entries.len() > 35);
    crate::directory::remove::remove_tree(&place.tree()).unwrap();
    assert!(!place.tree().exists());
}

#[tokio::test]
async fn what_is_mounted_is_left_out() {
    // No mount of the test's own is needed: `/` has some, as every Linux has.
    let exclude = std::fs::read_dir("/")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_encoded_bytes())
        .filter(|name| name != b"proc")
        .map(|name| path(std::str::from_utf8(&name).unwrap()))
        .collect();
    let options = DirectoryOptions { exclude, ..DirectoryOptions::default() };
    let source = DirectorySource::open(std::path::Path::new("/"), options).unwrap();
    let found = collect(&source, None).await.unwrap();
    assert!(found.skipped.contains(&("proc".to_owned(), SkipReason::Mount)));
    assert_eq!(found.entries.len(), 0);
}

#[tokio::test]
async fn names_that_are_swapped_for_links_lead_nowhere() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let place = Place::new();
    let outside = tempfile::TempDir::new().unwrap();
    std::fs::create_dir(outside.path().join("below")).unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    std::fs::write(outside.path().join("below/secret"), "secret").unwrap();
    place.sh("mkdir -p d/below; echo inner > d/inner; echo inner > d/below/inner; echo inner > f");
    std::os::unix::fs::symlink(outside.path(), place.tree().join("to-directory")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), place.tree().join("to-file"))
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swaps = std::thread::spawn({
        let (stop, tree) = (Arc::clone(&stop), std::fs::File::open(place.tree()).unwrap());
        move || {
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                for (one, other) in [("d", "to-directory"), ("f", "to-file")] {
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(&tree, one, &tree, other, flags).unwrap();
                    count += 1;
                }
            }
            count
        }
    });
    let source = DirectorySource::open(&place.tree(), place.options()).unwrap();
    for _ in 0..300 {
        let found = collect(&source, None).await.unwrap();
        for (path, (_, kept)) in &found.entries {
            assert!(!path.to_string().contains("secret"), "{path} is outside");
            if let super::support::Kept::File { content: Some(content), .. } = kept {
                assert_eq!(content, b"inner\n", "{path}");
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(swaps.join().unwrap() > 0);
}

//! Streams that nobody honest sends: each is refused, and nothing is made outside or left behind.

use std::{fs, path::Path};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use proptest::prelude::*;
use tempfile::TempDir;

use super::support::{path, restore};
use crate::{
    DirectoryTarget, Metadata, RestorePlan, SnapshotError, Target as _, TargetEntry, TargetError,
    TargetOptions, Totals,
    path::{Name, TreePath},
};

fn metadata() -> Metadata {
    Metadata { mode: 0o755, modified_ns: 1, xattrs: Vec::new() }
}

fn directory(name: &str) -> TargetEntry {
    TargetEntry::Directory { path: path(name), metadata: metadata() }
}

fn file(name: &str, size: u64) -> TargetEntry {
    TargetEntry::File { path: path(name), metadata: metadata(), size }
}

fn link(name: &str, target: &str) -> TargetEntry {
    let target = target.as_bytes().to_vec();
    TargetEntry::SymbolicLink { path: path(name), metadata: metadata(), target }
}

fn hard_link(name: &str, to: &str) -> TargetEntry {
    TargetEntry::HardLink { path: path(name), to: path(to) }
}

fn data(content: &'static str) -> TargetEntry {
    TargetEntry::Data(Bytes::from_static(content.as_bytes()))
}

/// A plan that allows much.
fn plan() -> RestorePlan {
    let totals = Totals { files: 1000, directories: 5000, symbolic_links: 1000, bytes: 1 << 20 };
    RestorePlan { totals, root: metadata() }
}

/// Everything in a directory, by name.
fn below(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

async fn check(entries: Vec<TargetEntry>, expect: &str) {
    let directory = TempDir::new().unwrap();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let shown = format!("{entries:?}");
    let error = restore(&directory.path().join("place"), &plan(), entries).await.unwrap_err();
    assert!(error.to_string().contains(expect), "{shown:.300}: {error}");
    assert_eq!(below(directory.path()), ["outside"], "{shown:.300}");
    assert_eq!(below(&outside), ["secret"]);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
}

#[tokio::test]
async fn what_has_no_place_in_a_tree_is_refused() {
    let no_parent = "no directory came before";
    let no_directory = "is no directory";
    check(vec![file("a/b", 0)], no_parent).await;
    // Files are made by other threads, so that this one may not be there yet.
    check(vec![file("a", 0), file("a/b", 0)], "a/b is refused").await;
    check(vec![link("a", "../outside"), file("a/b", 0)], no_directory).await;
    check(vec![link("a", "."), directory("a/b")], no_directory).await;
    check(vec![directory("d"), link("d/a", ".."), file("d/a/x", 0)], no_directory).await;
    check(vec![link("a", "../outside/secret"), file("a", 1), data("x")], "its name is taken").await;
    check(vec![directory("a"), directory("a")], "its name is taken").await;
    check(vec![file("a", 0), file("a", 0)], "its name is taken").await;
    check(vec![file("a", 0), link("a", "x")], "its name is taken").await;
    check(vec![file("", 0)], "the root itself").await;
    check(vec![directory("")], "the root itself").await;
    check(vec![hard_link("", "a")], "the root itself").await;
    let of_no_file = "of something that is no file";
    check(vec![hard_link("b", "a")], of_no_file).await;
    check(vec![directory("a"), hard_link("b", "a")], of_no_file).await;
    check(vec![link("a", "../outside/secret"), hard_link("b", "a")], of_no_file).await;
    check(vec![link("a", "../outside"), hard_link("b", "a/secret")], no_directory).await;
    check(vec![file("a", 0), hard_link("a", "a")], "its name is taken").await;
    check(vec![file("a", 2), data("x"), file("b", 0)], "before all of its content").await;
    check(vec![file("a", 2), data("x")], "before all of its content").await;
    check(vec![file("a", 2), data("xyz")], "more content than its size").await;
    check(vec![file("a", 2), TargetEntry::Hole(u64::MAX)], "more content than its size").await;
    check(vec![data("x")], "more content than its size").await;
    // Less than the plan says.
    check(vec![file("a", 0)], "was made, and the snapshot holds").await;
}

#[tokio::test]
async fn a_path_without_end_is_refused() {
    let name = Name::new("d".repeat(200).into_bytes()).unwrap();
    let mut path = TreePath::root();
    let mut entries = Vec::new();
    for _ in 0..3000 {
        path = path.join(&name);
        entries.push(TargetEntry::Directory { path: path.clone(), metadata: metadata() });
    }
    check(entries, "longer than 4095 bytes").await;
}

#[tokio::test]
async fn a_tree_as_deep_as_a_path_is_made_and_removed() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().join("place");
    let mut path = TreePath::root();
    let name = Name::new(*b"d").unwrap();
    let mut entries = Vec::new();
    for _ in 0..2048 {
        path = path.join(&name);
        let mut metadata = metadata();
        metadata.mode = 0;
        entries.push(TargetEntry::Directory { path: path.clone(), metadata });
    }
    let totals = Totals { directories: 2048, ..Totals::default() };
    let plan = RestorePlan { totals, root: metadata() };
    assert_eq!(restore(&place, &plan, entries).await.unwrap(), totals);
    crate::directory::remove::remove_tree(&place).unwrap();
    assert_eq!(below(directory.path()), Vec::<String>::new());
}

#[tokio::test]
async fn more_than_was_announced_stops_early() {
    let directory = TempDir::new().unwrap();
    let mut made = 0_u64;
    // Without end: only the count stops it.
    let endless = stream::repeat_with(move || {
        made += 1;
        Ok(file(&format!("f{made}"), 0))
    });
    let mut target = DirectoryTarget::new(directory.path().join("place"), TargetOptions::default());
    let error = target.restore(&plan(), endless.boxed()).await.unwrap_err();
    assert!(matches!(error, TargetError::Incomplete { .. }), "{error}");
    let options = TargetOptions { max_entries: 10, ..TargetOptions::default() };
    let mut target = DirectoryTarget::new(directory.path().join("place"), options);
    let error = target.restore(&plan(), stream::empty().boxed()).await.unwrap_err();
    assert!(error.to_string().contains("larger than what this target takes"), "{error}");
    assert_eq!(below(directory.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_broken_stream_and_a_dropped_restore_leave_nothing() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().join("place");
    let mut target = DirectoryTarget::new(&place, TargetOptions::default());
    let missing =
        || SnapshotError::Missing { object: "packs/x".to_owned(), holds: "a chunk".to_owned() };
    let entries = stream::iter([Ok(file("a", 5)), Ok(data("xy")), Err(missing())]);
    let error = target.restore(&plan(), entries.boxed()).await.unwrap_err();
    assert!(matches!(error, TargetError::Snapshot(_)), "{error}");
    assert_eq!(below(directory.path()), Vec::<String>::new());

    let entries = stream::iter([Ok(directory_entry())]).chain(stream::pending()).boxed();
    let plan = plan();
    let restoring = target.restore(&plan, entries);
    let dropped = tokio::time::timeout(std::time::Duration::from_millis(50), restoring).await;
    assert!(dropped.is_err());
    // The thread notices by itself.
    while !below(directory.path()).is_empty() {
        tokio::task::yield_now().await;
    }
}

fn directory_entry() -> TargetEntry {
    directory("d")
}

#[tokio::test]
async fn what_is_there_is_in_the_way() {
    let place = TempDir::new().unwrap();
    let nothing = RestorePlan { totals: Totals::default(), root: metadata() };
    // An empty directory is replaced.
    restore(place.path(), &nothing, Vec::new()).await.unwrap();
    fs::write(place.path().join("mine"), "mine").unwrap();
    let error = restore(place.path(), &nothing, Vec::new()).await.unwrap_err();
    assert!(matches!(error, TargetError::InTheWay { .. }), "{error}");
    assert_eq!(fs::read(place.path().join("mine")).unwrap(), b"mine");
    let file = place.path().join("mine");
    let error = restore(&file, &nothing, Vec::new()).await.unwrap_err();
    assert!(matches!(error, TargetError::InTheWay { .. }), "{error}");
    let gone = place.path().join("none/place");
    let error = restore(&gone, &nothing, Vec::new()).await.unwrap_err();
    assert!(matches!(error, TargetError::Gone { .. }), "{error}");
}

/// Entries over few names, so that they get into each other's way.
fn entry() -> impl Strategy<Value = Vec<TargetEntry>> {
    let name = prop_oneof![
        Just("a"),
        Just("b"),
        Just("a/a"),
        Just("a/b"),
        Just("b/a"),
        Just("a/b/c"),
        Just("")
    ];
    let target = prop_oneof![
        Just("a"),
        Just(".."),
        Just("../outside"),
        Just("../../outside"),
        Just("/"),
        Just(".")
    ];
    prop_oneof![
        name.clone().prop_map(|name| vec![directory(name)]),
        name.clone().prop_map(|name| vec![file(name, 0)]),
        name.clone().prop_map(|name| vec![file(name, 1), data("x")]),
        (name.clone(), target).prop_map(|(name, target)| vec![link(name, target)]),
        (name.clone(), name).prop_map(|(name, to)| vec![hard_link(name, to)]),
        (0_u64..3).prop_map(|length| vec![TargetEntry::Hole(length)]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes: all of it is made, or nothing is there; and nothing is made anywhere else.
    #[test]
    fn any_stream_is_made_whole_or_not_at_all(entries in prop::collection::vec(entry(), 0..8)) {
        let entries: Vec<_> = entries.into_iter().flatten().collect();
        let mut totals = Totals::default();
        for entry in &entries {
            match entry {
                TargetEntry::Directory { .. } => totals.directories += 1,
                TargetEntry::File { size, .. } => {
                    totals.files += 1;
                    totals.bytes += size;
                }
                TargetEntry::SymbolicLink { .. } => totals.symbolic_links += 1,
                TargetEntry::HardLink { .. } => totals.files += 1,
                _ => {}
            }
        }
        let directory = TempDir::new().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let place = directory.path().join("place");
        let plan = RestorePlan { totals, root: metadata() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let made = runtime.block_on(restore(&place, &plan, entries));
        match made {
            Ok(made) => {
                prop_assert_eq!(made, totals);
                prop_assert_eq!(below(directory.path()), ["outside", "place"]);
            }
            Err(_) => prop_assert_eq!(below(directory.path()), ["outside"]),
        }
        prop_assert_eq!(below(&outside), Vec::<String>::new());
    }
}

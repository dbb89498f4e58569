//! Trees that are uploaded into a directory of the host.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use cofferdam_core::WorkspacePath;
use cofferdam_manifest::{Entry, Manifest};
use cofferdam_sandbox::{SandboxError, Tree, TreeEntry, TreeEntryKind, TreeEvent};
use cofferdam_workspace::{HostTree, HostTreeLimits, Materializer};
use futures::StreamExt;

fn entry(path: &str, mode: u32, kind: TreeEntryKind) -> TreeEvent {
    let modified_ns = Some(1_500_000_000_123_456_789);
    TreeEvent::Entry(TreeEntry { path: path.into(), mode, modified_ns, kind })
}

fn file(path: &str, content: &'static str) -> Vec<TreeEvent> {
    let size = content.len() as u64;
    let mut events = vec![entry(path, 0o640, TreeEntryKind::File { size })];
    if size > 0 {
        events.push(TreeEvent::Content(content.into()));
    }
    events
}

async fn upload(
    tree: &HostTree,
    events: impl IntoIterator<Item = TreeEvent>,
) -> Result<u64, SandboxError> {
    let events: Vec<_> = events.into_iter().map(Ok).collect();
    tree.upload(&WorkspacePath::root(), futures::stream::iter(events).boxed()).await
}

/// Each path with its mode and, for a file, its content, or where a link points to.
fn listing(directory: &Path) -> String {
    let mut lines = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for item in fs::read_dir(next).unwrap() {
            let path = item.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_dir() {
                waiting.push(path.clone());
                String::new()
            } else if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else {
                fs::read_to_string(&path).unwrap()
            };
            let mode = if metadata.is_symlink() { 0 } else { metadata.mode() & 0o7777 };
            let relative = path.strip_prefix(directory).unwrap().display();
            lines.push(format!("{relative} {mode:04o} {content}"));
        }
    }
    lines.sort();
    lines.join("\n")
}

fn tree_in(base: &tempfile::TempDir) -> HostTree {
    HostTree::create(base.path().join("tree"), HostTreeLimits::default()).unwrap()
}

#[tokio::test]
async fn a_tree_is_made_as_it_was_sent() {
    let base = tempfile::tempdir().unwrap();
    let tree = tree_in(&base);
    let closed = TreeEntryKind::Directory;
    let mut events = vec![entry("closed", 0o555, closed)];
    events.extend(file("closed/inner", "x"));
    events.extend(file("empty", ""));
    events.extend(file("deep/er/file", "first"));
    events.extend(file("deep/er/file", "second"));
    events.push(entry("out", 0o777, TreeEntryKind::Link { target: b"/etc/passwd".to_vec() }));
    events.push(entry("run", 0o6755, TreeEntryKind::File { size: 0 }));
    assert_eq!(upload(&tree, events).await.unwrap(), 7);
    assert_eq!(
        listing(tree.directory()),
        "closed 0555 \nclosed/inner 0640 x\ndeep 0755 \ndeep/er 0755 \ndeep/er/file 0640 second\n\
         empty 0640 \nout 0000 -> /etc/passwd\nrun 0755 "
    );
    for path in ["closed", "closed/inner", "out"] {
        let metadata = tree.directory().join(path).symlink_metadata().unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_500_000_000, 123_456_789));
    }
    fs::set_permissions(tree.directory().join("closed"), fs::Permissions::from_mode(0o755))
        .unwrap();
}

#[tokio::test]
async fn nothing_is_made_outside() {
    let check = async |events: Vec<TreeEvent>, expect: &str| {
        let base = tempfile::tempdir().unwrap();
        let outside = base.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let tree = tree_in(&base);
        let error = upload(&tree, events).await.unwrap_err().to_string();
        assert_eq!(error, format!("cannot {expect}"));
        assert_eq!(listing(&outside), "");
    };
    let unsound = "in the workspace: it is no path inside of a workspace";
    check(file("../outside/x", "x"), &format!("make \"../outside/x\" {unsound}")).await;
    check(file("/etc/x", "x"), &format!("make \"/etc/x\" {unsound}")).await;
    check(file("a/./x", "x"), &format!("make \"a/./x\" {unsound}")).await;
    let mut through = vec![entry("a", 0, TreeEntryKind::Link { target: b"../outside".to_vec() })];
    through.extend(file("a/x", "x"));
    let refused = "in the workspace: Too many levels of symbolic links (os error 40)";
    check(through, &format!("open \"a\" {refused}")).await;
}

#[tokio::test]
async fn a_directory_takes_the_place_of_a_link() {
    let base = tempfile::tempdir().unwrap();
    let tree = tree_in(&base);
    let link = entry("a", 0, TreeEntryKind::Link { target: b"..".to_vec() });
    let directory = entry("a", 0o700, TreeEntryKind::Directory);
    upload(&tree, [link, directory].into_iter().chain(file("a/x", "x"))).await.unwrap();
    assert_eq!(listing(tree.directory()), "a 0700 \na/x 0640 x");
}

#[tokio::test]
async fn bounds_and_broken_streams_are_refused() {
    let check = async |events: Vec<TreeEvent>, expect: &str| {
        let base = tempfile::tempdir().unwrap();
        let limits = HostTreeLimits { max_bytes: 8, max_entries: 2 };
        let tree = HostTree::create(base.path().join("tree"), limits).unwrap();
        let error = upload(&tree, events).await.unwrap_err().to_string();
        assert_eq!(error, format!("cannot make {expect}"));
    };
    let three = ["a", "b", "c"].into_iter().flat_map(|name| file(name, "x")).collect();
    check(three, "\"c\" in the workspace: more entries than it may have").await;
    check(file("a", "123456789"), "\"a\" in the workspace: more bytes than it may have").await;
    let cut = file("a", "1234").into_iter().take(1).collect();
    check(cut, "\"a\" in the workspace: it ends before its size").await;
    let mut long = file("a", "1");
    long[1] = TreeEvent::Content("12".into());
    check(long, "\"a\" in the workspace: it goes on after its size").await;
}

#[tokio::test]
async fn a_manifest_fills_a_directory() {
    let base = tempfile::tempdir().unwrap();
    let tree = tree_in(&base);
    let manifest = Manifest::builder()
        .entry("in/note", Entry::file("buy milk\n"))
        .entry("out", Entry::dir())
        .build()
        .unwrap();
    let receipt = Materializer::new(base.path()).materialize_into(&manifest, &tree).await.unwrap();
    assert_eq!(receipt.entries.len(), 2);
    assert_eq!(listing(tree.directory()), "in 0755 \nin/note 0644 buy milk\n\nout 0755 ");
}

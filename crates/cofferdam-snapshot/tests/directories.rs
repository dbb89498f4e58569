//! Directories of this host, their snapshots in a store, and bases made of these.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::disallowed_methods,
    reason = "trees are changed by programs as they are in a sandbox"
)]

mod kit;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use cofferdam_snapshot::{
    BaseCache, BaseCacheOptions, Detection, DirectoryOptions, DirectorySource, DirectoryTarget,
    Lineage, Receipt, SnapshotId, SnapshotOptions, SnapshotStore, TargetOptions,
};
use kit::Bench;
use tempfile::TempDir;

/// A tree, a store, and places beside them.
struct Place {
    directory: TempDir,
    store: Arc<SnapshotStore>,
    lineage: Lineage,
}

impl Place {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("tree")).unwrap();
        let store = Arc::new(Bench::new().open().await);
        Self { directory, store, lineage: "line".parse().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn options(&self) -> DirectoryOptions {
        DirectoryOptions { cache: Some(self.path("cache")), ..DirectoryOptions::default() }
    }

    async fn take(&self) -> Receipt {
        let source = DirectorySource::open(&self.path("tree"), self.options()).unwrap();
        self.store.snapshot(&self.lineage, &source, SnapshotOptions::default()).await.unwrap()
    }

    async fn restore(&self, snapshot: &SnapshotId, name: &str) -> PathBuf {
        let place = self.path(name);
        let mut target = DirectoryTarget::new(&place, TargetOptions::default());
        self.store.restore(snapshot, &mut target).await.unwrap();
        place
    }

    fn bases(&self, max_bytes: u64) -> BaseCache {
        let options = BaseCacheOptions { max_bytes, ..BaseCacheOptions::default() };
        BaseCache::open(self.path("bases"), options).unwrap()
    }
}

fn sh(directory: &Path, script: &str) {
    let output = Command::new("sh").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Demands that two trees are the same in everything that a snapshot keeps.
fn same(one: &Path, other: &Path) {
    let list = "{ find . -printf '%P %y %m %s %T@ %l %n\\n' | sed 's/^\\(.* d [0-7]* \\)[0-9]*/\\1/'; find . -type f -exec sha256sum {} +; } | LC_ALL=C sort";
    let tell = |directory: &Path| {
        let output =
            Command::new("sh").args(["-euc", list]).current_dir(directory).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(tell(one), tell(other));
}

/// Waits until the file system's clock has gone on.
fn settle(place: &Place) {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |name: &str| {
        fs::write(place.path(name), "").unwrap();
        let found = fs::metadata(place.path(name)).unwrap();
        (found.ctime(), found.ctime_nsec())
    };
    let first = stamp("settle-first");
    while stamp("settle-later") <= first {}
}

const TREE: &str = "mkdir -p a/b c; for f in 1 2 3; do echo $f > a/$f; head -c 100000 /dev/urandom > a/b/$f; done
    ln -s ../a c/link; ln a/1 c/hard; printf x > c/x; chmod 600 c/x; truncate -s 10M c/sparse; touch -d 2020-01-01 a";

#[tokio::test]
async fn a_directory_comes_back_as_it_was_at_each_snapshot() {
    let place = Place::new().await;
    let tree = place.path("tree");
    sh(&tree, TREE);
    sh(place.directory.path(), "cp -a tree first");
    let first = place.take().await;
    assert_eq!(first.detection, Detection::Content);
    settle(&place);
    sh(&tree, "echo more >> a/2; rm -r a/b; mkdir c/new; mv c/x c/new/y");
    let second = place.take().await;
    assert_eq!(second.detection, Detection::Stat);
    same(&place.restore(&first.snapshot, "one").await, &place.path("first"));
    same(&place.restore(&second.snapshot, "two").await, &tree);
    // Nothing changed: nothing is read that is not too fresh to tell, and the tree is the same.
    settle(&place);
    let third = place.take().await;
    settle(&place);
    let fourth = place.take().await;
    assert_eq!((third.tree, fourth.tree), (second.tree, second.tree));
    assert_eq!(fourth.stored.files_read, 0);
}

#[tokio::test]
async fn who_restores_takes_the_same_tree_again() {
    let place = Place::new().await;
    sh(&place.path("tree"), TREE);
    let first = place.take().await;
    let restored = place.restore(&first.snapshot, "restored").await;
    let source = DirectorySource::open(&restored, DirectoryOptions::default()).unwrap();
    let other = "other".parse().unwrap();
    let again = place.store.snapshot(&other, &source, SnapshotOptions::default()).await.unwrap();
    assert_eq!((again.tree, again.totals), (first.tree, first.totals));
}

/// Runs a script in an overlay over a base, whose upper directory is `upper`; or says why it cannot be mounted.
fn in_overlay(place: &Place, base: &Path, script: &str) -> Result<(), String> {
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(place.path(name)).unwrap();
    }
    let script = format!(
        "mount -t overlay overlay -o lowerdir={},upperdir=upper,workdir=work,userxattr merged && cd merged && {script}",
        base.display()
    );
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-euc", &script])
        .current_dir(place.directory.path())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[tokio::test]
async fn an_overlay_over_a_base_is_taken_by_what_changed() {
    let place = Place::new().await;
    sh(&place.path("tree"), TREE);
    let first = place.take().await;
    let bases = place.bases(u64::MAX);
    let base = bases.make(&place.store, &first.snapshot).await.unwrap();
    same(base.directory(), &place.path("tree"));
    let changes = [
        "echo more >> a/2; rm -r a/b; mkdir -p c/new; echo z > c/new/z; rm c/hard",
        // What was made above the base goes without a trace; a directory that was there comes back with less in it.
        "rm c/new/z; echo w > c/new/w; mkdir a/b; echo 1 > a/b/1; echo 4 > a/4",
        "rm a/4; rm -r c; echo file > c",
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let merged = place.path(&format!("merged-{number}"));
        let copy = format!("{change}; cp -a . {}", merged.display());
        if let Err(why) = in_overlay(&place, base.directory(), &copy) {
            println!("skipped: no overlay can be mounted: {why}");
            return;
        }
        let upper = fs::File::open(place.path("upper")).unwrap().into();
        let options = DirectoryOptions {
            cache: Some(place.path("upper-cache")),
            ..DirectoryOptions::default()
        };
        let source = DirectorySource::upper(upper, first.snapshot.clone(), options);
        let receipt = place
            .store
            .snapshot(&place.lineage, &source, SnapshotOptions::default())
            .await
            .unwrap();
        assert_eq!(receipt.detection, Detection::Layer);
        assert!(receipt.stored.files_read <= 4, "{:?}", receipt.stored);
        let restored = place.restore(&receipt.snapshot, &format!("restored-{number}")).await;
        // Links of the base are files of their own in the copy's eyes only where the overlay broke them.
        sh(&restored, &format!("diff -r --no-dereference . {}", merged.display()));
    }
}

#[tokio::test]
async fn a_base_is_made_once_and_found_by_snapshots_that_follow() {
    let place = Place::new().await;
    sh(&place.path("tree"), TREE);
    let first = place.take().await;
    sh(&place.path("tree"), "echo changed > a/1");
    let second = place.take().await;
    let bases = place.bases(u64::MAX);
    assert!(bases.get(&first.tree).unwrap().is_none());
    assert!(bases.base_for(&place.store, &second.snapshot).await.unwrap().is_none());
    let made = bases.make(&place.store, &first.snapshot).await.unwrap();
    let again = bases.make(&place.store, &first.snapshot).await.unwrap();
    assert_eq!((made.directory(), made.totals()), (again.directory(), &first.totals));
    // Of another process, after all was forgotten.
    let (of, found) =
        place.bases(u64::MAX).base_for(&place.store, &second.snapshot).await.unwrap().unwrap();
    assert_eq!((of, found.tree()), (first.snapshot, &first.tree));
}

#[tokio::test]
async fn many_who_want_one_base_get_one() {
    let place = Place::new().await;
    sh(&place.path("tree"), TREE);
    let first = place.take().await;
    let bases = place.bases(u64::MAX);
    let makers = (0..4).map(|_| {
        let (bases, store, snapshot) =
            (bases.clone(), Arc::clone(&place.store), first.snapshot.clone());
        tokio::spawn(async move { bases.make(&store, &snapshot).await.unwrap() })
    });
    for maker in makers.collect::<Vec<_>>() {
        assert_eq!(maker.await.unwrap().tree(), &first.tree);
    }
    let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
    let names: Vec<_> =
        fs::read_dir(place.path("bases")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.iter().filter(|name| !hidden(name)).count(), 1, "{names:?}");
    assert_eq!(names.len(), 2, "only the lock besides: {names:?}");
}

#[tokio::test]
async fn bases_above_the_bound_go_unless_they_are_in_use() {
    let place = Place::new().await;
    let bases = place.bases(0);
    let mut receipts = Vec::new();
    for number in 0..3 {
        fs::write(place.path("tree/file"), format!("{number}")).unwrap();
        // So that no directory can be removed by who is not root before its mode is set.
        sh(
            &place.path("tree"),
            "mkdir -p locked/inner; chmod 700 locked; chmod 0 locked/inner; chmod 500 locked",
        );
        receipts.push(place.take().await);
    }
    let used = bases.make(&place.store, &receipts[0].snapshot).await.unwrap();
    let dropped = bases.make(&place.store, &receipts[1].snapshot).await.unwrap();
    let held = rustix::io::dup(dropped.lock()).unwrap();
    drop(dropped);
    drop(bases.make(&place.store, &receipts[2].snapshot).await.unwrap());
    // A process that another test is starting holds all locks until it is a program of its own.
    let trim = || while bases.trim().unwrap() == 0 {};
    trim();
    // One is used, and one by whoever has inherited its lock.
    let there = |number: usize| bases.get(&receipts[number].tree).unwrap().is_some();
    assert_eq!([there(0), there(1), there(2)], [true, true, false]);
    drop(held);
    trim();
    assert_eq!([there(0), there(1)], [true, false]);
    assert_eq!(fs::read(used.directory().join("file")).unwrap(), b"0");
    drop(used);
    trim();
    assert!(!there(0));
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_never_used() {
    let place = Place::new().await;
    sh(&place.path("tree"), TREE);
    let first = place.take().await;
    let bases = place.path("bases");
    // A base that was being made, one that was being removed, and one without its marker.
    for name in [".new-1-1", ".old-1-2", &first.tree.to_string()] {
        fs::create_dir_all(bases.join(name).join("tree/half")).unwrap();
    }
    let cache = place.bases(u64::MAX);
    assert!(!bases.join(".new-1-1").exists());
    assert!(!bases.join(".old-1-2").exists());
    assert!(cache.get(&first.tree).unwrap().is_none());
    let base = cache.make(&place.store, &first.snapshot).await.unwrap();
    same(base.directory(), &place.path("tree"));
    drop(base);
    for marker in ["", "{}", "{\"version\":9}", "garbage"] {
        fs::write(bases.join(first.tree.to_string()).join("base.json"), marker).unwrap();
        assert!(cache.get(&first.tree).unwrap().is_none(), "{marker}");
    }
    let base = cache.make(&place.store, &first.snapshot).await.unwrap();
    same(base.directory(), &place.path("tree"));
}

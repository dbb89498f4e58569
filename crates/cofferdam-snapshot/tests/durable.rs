//! `DurableLocal`: the object store in a directory, and snapshots in it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use std::{path::Path as FilePath, sync::Arc};

use cofferdam_snapshot::{DurableLocal, SnapshotOptions};
use futures::{StreamExt as _, TryStreamExt as _};
use kit::{Bench, MemorySource, Thing, Tree, lineage, noise, restored};
use object_store::{
    Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, path::Path,
};

async fn create(store: &DurableLocal, at: &str, bytes: &'static [u8]) -> object_store::Result<()> {
    let options = PutOptions::from(PutMode::Create);
    store.put_opts(&Path::from(at), PutPayload::from_static(bytes), options).await.map(|_| ())
}

fn aside(directory: &FilePath) -> usize {
    std::fs::read_dir(directory.join(".staging")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_made_once_and_nothing_is_left_aside() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableLocal::open(directory.path()).unwrap();
    create(&store, "a/b", b"one").await.unwrap();
    let again = create(&store, "a/b", b"two").await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    let read = |at: &str| {
        let at = Path::from(at);
        let store = &store;
        async move { store.get(&at).await?.bytes().await }
    };
    assert_eq!(read("a/b").await.unwrap(), &b"one"[..]);
    store.put(&Path::from("a/b"), PutPayload::from_static(b"three")).await.unwrap();
    assert_eq!(read("a/b").await.unwrap(), &b"three"[..]);
    assert_eq!(store.get_range(&Path::from("a/b"), 2..99).await.unwrap(), &b"ree"[..]);
    assert_eq!(aside(directory.path()), 0);
    let listed = store.list_with_delimiter(None).await.unwrap();
    assert_eq!(listed.common_prefixes, [Path::from("a")]);
    store.delete(&Path::from("a/b")).await.unwrap();
    assert!(matches!(read("a/b").await, Err(Error::NotFound { .. })));
    let gone = store.delete(&Path::from("a/b")).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_make_one_object_one_does() {
    let directory = tempfile::tempdir().unwrap();
    // Two handles, as two processes have.
    let stores = [(); 2].map(|()| DurableLocal::open(directory.path()).unwrap());
    for round in 0..10 {
        let at = format!("heads/{round}");
        let tries = futures::stream::iter(0..16)
            .map(|one| {
                let (store, at) = (stores[one % 2].clone(), at.clone());
                async move { create(&store, &at, b"same").await }
            })
            .buffer_unordered(16)
            .collect::<Vec<_>>()
            .await;
        assert_eq!(tries.iter().filter(|result| result.is_ok()).count(), 1, "{tries:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_aside_is_removed_and_what_is_being_written_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableLocal::open(directory.path()).unwrap();
    let left = directory.path().join(".staging/7#1");
    let busy = directory.path().join(".staging/8#1");
    std::fs::write(&left, "half").unwrap();
    let writing = std::fs::File::create(&busy).unwrap();
    writing.lock().unwrap();
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    DurableLocal::open(directory.path()).unwrap();
    assert!(!left.exists() && busy.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_checkpoint_asks_the_disk_twice() {
    let directory = tempfile::tempdir().unwrap();
    let local = DurableLocal::open(directory.path()).unwrap();
    let bench = Bench::over(Arc::new(local.clone()));
    let store = bench.open().await;
    let run = lineage("run");
    let mut tree = Tree::default();
    for file in 0..30 {
        tree.put(&format!("{file}"), Thing::file(noise(file, 100_000)));
    }
    let options = SnapshotOptions::default;
    store.snapshot(&run, &MemorySource::whole(&tree), options()).await.unwrap();
    let before = tree.clone();
    tree.put("7", Thing::file("changed"));
    let asked = local.syncs();
    let source = MemorySource::since(&tree, &before);
    let receipt = store.snapshot(&run, &source, options()).await.unwrap();
    // The head, and the directory that it is in.
    assert_eq!(local.syncs() - asked, 2);
    assert_eq!(restored(&store, &receipt.snapshot).await.unwrap(), tree.normal());

    // One with packs: two packs at the same time, their directory, the head and its directory.
    for file in 0..30 {
        tree.put(&format!("more/{file}"), Thing::file(noise(1000 + file, 100_000)));
    }
    let asked = local.syncs();
    store.snapshot(&run, &MemorySource::since(&tree, &before), options()).await.unwrap();
    assert!(local.syncs() - asked <= 6, "{}", local.syncs() - asked);
    assert_eq!(aside(directory.path()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_at_the_same_time_share_what_can_be_shared() {
    let directory = tempfile::tempdir().unwrap();
    let store = DurableLocal::open(directory.path()).unwrap();
    create(&store, "packs/first", b"x").await.unwrap();
    let before = store.syncs();
    let puts = (0..32).map(|at| {
        let store = store.clone();
        async move { create(&store, &format!("packs/{at}"), b"pack").await }
    });
    let results = futures::future::join_all(puts).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let asked = store.syncs() - before;
    // Each file needs its own; never more than one more for each.
    assert!((33..=64).contains(&asked), "{asked}");
}

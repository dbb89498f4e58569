//! Encrypted stores.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use std::sync::Arc;

use cofferdam_core::Secret;
use cofferdam_snapshot::{SnapshotError, SnapshotOptions, SnapshotStore, StoreOptions};
use kit::{Bench, MemorySource, Thing, Tree, lineage, noise, restored, snapshot, take};
use object_store::{ObjectStoreExt as _, path::Path};

const KEY: &str = "correct horse battery staple, and then some more";

fn with_key(bench: &Bench, key: &str) -> StoreOptions {
    StoreOptions { key: Some(Arc::new(Secret::new(key))), ..bench.options() }
}

async fn open(bench: &Bench, prefix: &str, key: &str) -> Result<SnapshotStore, SnapshotError> {
    SnapshotStore::open(bench.objects.clone(), prefix, with_key(bench, key)).await
}

fn tree() -> Tree {
    let mut tree = Tree::default();
    tree.put("a-telling-name", Thing::file("a telling text ".repeat(3000)))
        .put("tiny", Thing::file("a small secret"))
        .put("link", Thing::link("a-telling-target"));
    for file in 0..10 {
        tree.put(&format!("d/{file}"), Thing::file(noise(file, 90_000)));
    }
    tree
}

async fn all_bytes(bench: &Bench) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for (object, _) in bench.objects("").await {
        let bytes = bench.objects.get(&Path::from(object.clone())).await.unwrap();
        all.push((object, bytes.bytes().await.unwrap().to_vec()));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_store_shows_nothing_and_opens_with_its_key() {
    let bench = Bench::new();
    let store = open(&bench, "store", KEY).await.unwrap();
    let source = MemorySource::whole(&tree());
    let options =
        SnapshotOptions { note: "a telling note".to_owned(), ..SnapshotOptions::default() };
    store.snapshot(&lineage("run"), &source, options).await.unwrap();
    let store = open(&bench, "store", KEY).await.unwrap();
    assert_eq!(restored(&store, &snapshot("run@1")).await.unwrap(), tree().normal());
    assert!(store.verify_all().await.unwrap().is_clean());
    // Noise is not compressed, so its bytes would be seen.
    let known = [&b"telling"[..], b"secret", &noise(3, 90_000)[100..132], KEY.as_bytes()];
    for (object, bytes) in all_bytes(&bench).await {
        for known in known {
            let seen = bytes.windows(known.len()).any(|window| window == known);
            assert!(!seen, "{object} shows {:?}", String::from_utf8_lossy(known));
        }
    }
    assert!(!format!("{store:?}").contains("horse"), "the key is not shown");
}

#[tokio::test]
async fn other_keys_and_no_key_are_refused() {
    let bench = Bench::new();
    open(&bench, "sealed", KEY).await.unwrap();
    SnapshotStore::open(bench.objects.clone(), "plain", bench.options()).await.unwrap();
    let check = async |prefix: &str, key: Option<&str>| {
        let mut options = bench.options();
        options.key = key.map(|key| Arc::new(Secret::new(key)) as _);
        let error = SnapshotStore::open(bench.objects.clone(), prefix, options).await.unwrap_err();
        assert!(matches!(error, SnapshotError::Key { .. }), "{error:?}");
        error.to_string()
    };
    let other = KEY.replace('c', "k");
    insta::assert_snapshot!(check("sealed", Some(&other)).await, @"the store cannot be opened: the key is not that of the store");
    insta::assert_snapshot!(check("sealed", None).await, @"the store cannot be opened: it is sealed, and no key was given");
    insta::assert_snapshot!(check("plain", Some(KEY)).await, @"the store cannot be opened: it is not sealed, and a key was given");
    insta::assert_snapshot!(check("sealed", Some("short")).await, @"the store cannot be opened: a key has at least 32 characters");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_content_of_two_keys_has_nothing_in_common() {
    let bench = Bench::new();
    let mut trees = Vec::new();
    for (prefix, key) in [("one", KEY.to_owned()), ("two", KEY.replace('c', "k"))] {
        let store = open(&bench, prefix, &key).await.unwrap();
        trees.push(take(&store, "run", &tree()).await.tree);
    }
    assert_ne!(trees[0], trees[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_cannot_take_each_others_place() {
    let bench = Bench::new();
    let store = open(&bench, "store", KEY).await.unwrap();
    for _ in 0..2 {
        take(&store, "run", &tree()).await;
    }
    let heads = bench.objects("heads").await;
    let [first, second] = [0, 1].map(|at: usize| Path::from(heads[at].0.clone()));
    let old = bench.objects.get(&first).await.unwrap().bytes().await.unwrap();
    bench.objects.put(&second, old.into()).await.unwrap();
    let error = store.get(&snapshot("run@2")).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Corrupt { .. }), "{error:?}");
}

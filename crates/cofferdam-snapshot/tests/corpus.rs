//! Stores that earlier releases wrote are read by this one.
//!
//! `tests/corpus/format-N` holds stores of format N, plain and sealed, as directories. They are never written again: a new
//! format gets a directory of its own. `COFFERDAM_WRITE_CORPUS=1` writes that of the present format if it is not there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::disallowed_methods,
    reason = "whether the corpus is written is asked for by hand"
)]

mod kit;

use std::{path::PathBuf, sync::Arc};

use cofferdam_core::Secret;
use cofferdam_snapshot::{DurableLocal, GcOptions, SnapshotStore};
use kit::{Bench, Thing, Tree, lineage, noise, restored, snapshot, take};

/// The key of the sealed store, which keeps no secret.
const KEY: &str = "this key is for everybody to read";

/// The formats that there are: that of a store, and that of one in which packs were repacked.
const FORMATS: [u32; 2] = [1, 2];

fn corpus(format: u32) -> PathBuf {
    let all = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"));
    all.join(format!("format-{format}"))
}

/// Some of everything: inline content, chunks in heads and in packs, lists of chunks, holes, pages, links.
fn trees() -> [Tree; 3] {
    let mut first = Tree::default();
    first
        .put("tiny", Thing::file("tiny"))
        .put("a/chunk", Thing::file("words ".repeat(3000)))
        .put("a/sparse", Thing::file([b"x".repeat(10), vec![0; 200_000], b"y".to_vec()].concat()))
        .put("a/link", Thing::link("../tiny"))
        .put("one", Thing::linked("both", 1))
        .put("two", Thing::linked("both", 1));
    let mut second = first.clone();
    for file in 0..600 {
        second.put(&format!("many/{file:03}"), Thing::file(format!("{file}")));
    }
    // More than a head holds, in more pieces than an entry does; repeated words keep the corpus small.
    let large: Vec<u8> = (0..90_u64)
        .flat_map(|at| [noise(at, 7000), format!("{at} ").repeat(20_000).into_bytes()].concat())
        .collect();
    second.put("large", Thing::file(large));
    let mut third = second.clone();
    third.put("many/300", Thing::file("changed")).remove("a/link");
    [first, second, third]
}

async fn open(format: u32, name: &str, key: Option<&str>) -> SnapshotStore {
    // The corpus itself is not written to.
    let bench = Bench::over(Arc::new(object_store::memory::InMemory::new()));
    let from = object_store::local::LocalFileSystem::new_with_prefix(corpus(format).join(name));
    let from = from.unwrap();
    copy(&from, &*bench.objects).await;
    let mut options = bench.options();
    options.key = key.map(|key| Arc::new(Secret::new(key)) as _);
    SnapshotStore::open(bench.objects, "store", options).await.unwrap()
}

async fn copy(from: &dyn object_store::ObjectStore, to: &dyn object_store::ObjectStore) {
    use futures::TryStreamExt as _;
    use object_store::{GetOptions, PutOptions};
    let all: Vec<_> = from.list(None).try_collect().await.unwrap();
    assert!(!all.is_empty());
    for meta in all {
        let got = from.get_opts(&meta.location, GetOptions::default()).await.unwrap();
        let bytes = got.bytes().await.unwrap();
        to.put_opts(&meta.location, bytes.into(), PutOptions::default()).await.unwrap();
    }
}

/// Writes the store of a format, if it is not there.
async fn write(format: u32) {
    if corpus(format).exists() {
        return;
    }
    for (name, key) in [("plain", None), ("sealed", Some(KEY))] {
        let bench = Bench::over(Arc::new(DurableLocal::open(corpus(format).join(name)).unwrap()));
        let mut options = bench.options();
        options.key = key.map(|key| Arc::new(Secret::new(key)) as _);
        let store = SnapshotStore::open(bench.objects.clone(), "store", options).await.unwrap();
        if format > 1 {
            // What the others have is beside much that goes with this one.
            let mut more = trees()[1].clone();
            more.put("more", Thing::file(noise(99, 3_000_000)));
            take(&store, "gone", &more).await;
        }
        for tree in trees() {
            take(&store, "run", &tree).await;
        }
        store.fork(&snapshot("run@2"), &lineage("side")).await.unwrap();
        store.pin(&lineage("kept"), &snapshot("run@1")).await.unwrap();
        if format > 1 {
            let mut options = GcOptions::default();
            options.drop.insert(lineage("gone"));
            for _ in 0..3 {
                bench.clock.advance(25 * 3600 * 1000);
                store.gc(&options).await.unwrap();
            }
        }
        std::fs::remove_dir(corpus(format).join(name).join(".staging")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_is_read() {
    if std::env::var_os("COFFERDAM_WRITE_CORPUS").is_some() {
        for format in FORMATS {
            write(format).await;
        }
    }
    for format in FORMATS {
        for (name, key) in [("plain", None), ("sealed", Some(KEY))] {
            check(format, name, key).await;
        }
    }
}

async fn check(format: u32, name: &str, key: Option<&str>) {
    let store = open(format, name, key).await;
    for (at, tree) in trees().iter().enumerate() {
        let id = snapshot(&format!("run@{}", at + 1));
        assert_eq!(restored(&store, &id).await.unwrap(), tree.normal(), "{format} {name} {id}");
    }
    assert_eq!(restored(&store, &snapshot("side@1")).await.unwrap(), trees()[1].normal());
    assert_eq!(store.pins().await.unwrap(), [(lineage("kept"), snapshot("run@1"))]);
    let report = store.verify_all().await.unwrap();
    assert!(report.is_clean(), "{format} {name}: {:?}", report.problems);
    assert_eq!(corpus(format).join(name).join("store/moved").exists(), format > 1);
    // Today's trees have the ids that they had, so that nothing is stored again.
    let again = take(&store, "run", &trees()[2]).await;
    assert_eq!(again.tree, store.get(&snapshot("run@3")).await.unwrap().tree, "{format} {name}");
    assert_eq!((again.stored.new_chunks, again.stored.new_nodes), (0, 0), "{format} {name}");
}

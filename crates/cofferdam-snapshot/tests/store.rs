//! Snapshots of trees in memory, through the public interface, over an object store in memory.

mod kit;

use cofferdam_snapshot::{Parent, SnapshotError, SnapshotOptions, SnapshotStore, TargetError};
use kit::{Bench, MemorySource, Thing, Tree, lineage, noise, restored, snapshot};

fn default() -> SnapshotOptions {
    SnapshotOptions::default()
}

/// A tree with some of everything.
fn mixed() -> Tree {
    let mut tree = Tree::default();
    tree.put("empty", Thing::file(""))
        .put("tiny", Thing::file("hello\n"))
        .put("a/small", Thing::file(noise(1, 30_000)))
        .put("a/b/large", Thing::file(noise(2, 3_000_000)))
        .put("a/b/sparse", Thing::file([noise(3, 70_000), vec![0; 400_000], noise(4, 5)].concat()))
        .put("a/link", Thing::link("../tiny"))
        .put("a/dangling", Thing::link("/nowhere/at/all"))
        .put("a/first", Thing::linked(noise(5, 1000), 9))
        .put("second", Thing::linked(noise(5, 1000), 9))
        .put("void", Thing::directory())
        .put("set-id", Thing::File { mode: 0o4755, content: "x".into(), link: None });
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_comes_back_as_it_was() {
    let store = Bench::new().open().await;
    let tree = mixed();
    let source = MemorySource::whole(&tree);
    let receipt = store.snapshot(&lineage("run"), &source, default()).await.unwrap();
    assert_eq!(receipt.totals, tree.totals());
    assert_eq!(receipt.snapshot, snapshot("run@1"));
    assert_eq!(receipt.skipped.count, 0);
    assert_eq!(restored(&store, &receipt.snapshot).await.unwrap(), tree.normal());
}

#[tokio::test]
async fn an_empty_tree_is_a_tree() {
    let store = Bench::new().open().await;
    let source = MemorySource::whole(&Tree::default());
    let receipt = store.snapshot(&lineage("run"), &source, default()).await.unwrap();
    assert_eq!(restored(&store, &receipt.snapshot).await.unwrap(), Tree::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_change_costs_one_small_object() {
    let bench = Bench::new();
    let store = bench.open().await;
    let mut tree = mixed();
    let run = lineage("run");
    store.snapshot(&run, &MemorySource::whole(&tree), default()).await.unwrap();
    for round in 0..3 {
        let before = tree.clone();
        tree.put("a/b/note", Thing::file(noise(100 + round, 2000)));
        let source = MemorySource::since(&tree, &before);
        let receipt = store.snapshot(&run, &source, default()).await.unwrap();
        assert_eq!(source.reads.lock().unwrap().len(), 1, "only what changed is read");
        assert_eq!(receipt.stored.objects_put, 1);
        assert!(receipt.stored.bytes_put < 16_000, "{:?}", receipt.stored);
        assert_eq!(receipt.stored.new_chunks, 1);
        assert_eq!(restored(&store, &receipt.snapshot).await.unwrap(), tree.normal());
    }
    // What is as it was costs a head and nothing else.
    let source = MemorySource::since(&tree, &tree);
    let receipt = store.snapshot(&run, &source, default()).await.unwrap();
    assert_eq!((receipt.stored.new_nodes, receipt.stored.new_chunks), (0, 0));
    assert_eq!(receipt.stored.objects_put, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_trees_have_equal_ids_wherever_they_are_stored() {
    let tree = mixed();
    let mut ids = Vec::new();
    for detour in [false, true] {
        let store = Bench::new().open().await;
        let run = lineage("run");
        if detour {
            let mut other = tree.clone();
            other.put("more", Thing::file(noise(77, 900_000))).remove("a/b");
            store.snapshot(&run, &MemorySource::whole(&other), default()).await.unwrap();
        }
        ids.push(store.snapshot(&run, &MemorySource::whole(&tree), default()).await.unwrap().tree);
    }
    assert_eq!(ids[0], ids[1]);
    let mut other = tree.clone();
    other.put("tiny", Thing::file("hello!"));
    let store = Bench::new().open().await;
    let receipt =
        store.snapshot(&lineage("run"), &MemorySource::whole(&other), default()).await.unwrap();
    assert_ne!(receipt.tree, ids[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_there_is_not_stored_again() {
    let bench = Bench::new();
    let store = bench.open().await;
    let run = lineage("run");
    let mut tree = Tree::default();
    for file in 0..40 {
        tree.put(&format!("old/{file}"), Thing::file(noise(file, 60_000)));
    }
    let first = store.snapshot(&run, &MemorySource::whole(&tree), default()).await.unwrap();
    assert_eq!(first.stored.new_chunks, 40);
    // Moved: other paths, so the source cannot know, and everything is read.
    let mut moved = Tree::default();
    for file in 0..40 {
        moved.put(&format!("new/place/{file}"), Thing::file(noise(file, 60_000)));
    }
    // A store that was just opened knows it from the index alone.
    let store = bench.open().await;
    let second = store.snapshot(&run, &MemorySource::whole(&moved), default()).await.unwrap();
    assert_eq!(second.stored.files_read, 40);
    assert_eq!(second.stored.new_chunks, 0);
    assert_eq!(restored(&store, &second.snapshot).await.unwrap(), moved.normal());
    // So it is for another sandbox, of which nothing is known.
    let other = bench.open().await;
    let other_run = lineage("other");
    let elsewhere =
        other.snapshot(&other_run, &MemorySource::whole(&moved), default()).await.unwrap();
    assert_eq!((elsewhere.stored.files_read, elsewhere.stored.new_chunks), (40, 0));
    assert!(elsewhere.stored.bytes_put * 100 < first.stored.bytes_put, "{:?}", elsewhere.stored);
    assert_eq!(restored(&other, &elsewhere.snapshot).await.unwrap(), moved.normal());
    // An edit in a large file stores what is around it.
    let mut large = noise(1000, 5_000_000);
    tree.put("large", Thing::file(large.clone()));
    store.snapshot(&run, &MemorySource::whole(&tree), default()).await.unwrap();
    large.splice(2_500_000..2_500_000, *b"an edit");
    tree.put("large", Thing::file(large));
    let receipt = store.snapshot(&run, &MemorySource::whole(&tree), default()).await.unwrap();
    assert!(receipt.stored.new_chunks <= 3, "{:?}", receipt.stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_apply_to_their_base_and_not_to_the_newest() {
    let store = Bench::new().open().await;
    let run = lineage("run");
    let base_tree = mixed();
    let base = store.snapshot(&run, &MemorySource::whole(&base_tree), default()).await.unwrap();
    let mut tree = base_tree.clone();
    tree.put("made/and/gone", Thing::file(noise(50, 9000))).remove("void").remove("a/b/large");
    let mut before = base_tree.clone();
    for round in 0..3 {
        let source = MemorySource::changes(&tree, &before, &base.snapshot, &base_tree);
        let receipt = store.snapshot(&run, &source, default()).await.unwrap();
        assert_eq!(receipt.totals, tree.totals());
        assert_eq!(restored(&store, &receipt.snapshot).await.unwrap(), tree.normal(), "{round}");
        assert!(source.reads.lock().unwrap().len() <= 1, "what is unchanged is not read");
        before = tree.clone();
        // Made in the upper layer, and gone from it without a trace.
        tree.remove("made").put("a/b/new", Thing::file(noise(60 + round, 700)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_files_and_large_directories() {
    let bench = Bench::new();
    let store = bench.open().await;
    let run = lineage("run");
    let mut tree = Tree::default();
    for file in 0..3000_u64 {
        tree.put(&format!("flat/file-{file:05}"), Thing::file(noise(file, 40)));
    }
    let first = store.snapshot(&run, &MemorySource::whole(&tree), default()).await.unwrap();
    assert_eq!(restored(&store, &first.snapshot).await.unwrap(), tree.normal());
    let before = tree.clone();
    tree.put("flat/file-01500", Thing::file("changed"));
    let source = MemorySource::since(&tree, &before);
    let second = store.snapshot(&run, &source, default()).await.unwrap();
    // A page, the list of pages, the root.
    assert_eq!(second.stored.new_nodes, 3);
    assert_eq!(restored(&store, &second.snapshot).await.unwrap(), tree.normal());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_copies_nothing_and_goes_its_own_way() {
    let bench = Bench::new();
    let store = bench.open().await;
    let (run, side) = (lineage("run"), lineage("side"));
    let mut tree = mixed();
    store.snapshot(&run, &MemorySource::whole(&tree), default()).await.unwrap();
    let packs = bench.objects("packs").await;
    let forked = store.fork(&snapshot("run@1"), &side).await.unwrap();
    assert_eq!(forked, snapshot("side@1"));
    assert_eq!(bench.objects("packs").await, packs);
    let original = tree.clone();
    tree.put("only/here", Thing::file("x"));
    let receipt =
        store.snapshot(&side, &MemorySource::since(&tree, &original), default()).await.unwrap();
    assert_eq!(receipt.parent, Some(forked));
    assert_eq!(restored(&store, &receipt.snapshot).await.unwrap(), tree.normal());
    assert_eq!(restored(&store, &snapshot("run@1")).await.unwrap(), original.normal());
    let again = store.fork(&snapshot("run@1"), &side).await;
    assert!(matches!(again, Err(SnapshotError::Conflict { .. })), "{again:?}");
    // The first snapshot of a lineage may have a parent in another, too.
    let options = SnapshotOptions { parent: Parent::At(snapshot("run@1")), ..default() };
    let receipt =
        store.snapshot(&lineage("third"), &MemorySource::since(&tree, &original), options).await;
    assert_eq!(receipt.unwrap().parent, Some(snapshot("run@1")));
    assert_eq!(
        store.lineages().await.unwrap(),
        [lineage("run"), lineage("side"), lineage("third")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_one_lineage_are_told_apart() {
    let bench = Bench::new();
    let (one, other) = (bench.open().await, bench.open().await);
    let run = lineage("run");
    let mut trees = [Tree::default(), Tree::default()];
    trees[0].put("one", Thing::file("1"));
    trees[1].put("other", Thing::file("2"));
    let sources = [MemorySource::whole(&trees[0]), MemorySource::whole(&trees[1])];
    let (first, second) = tokio::join!(
        one.snapshot(&run, &sources[0], default()),
        other.snapshot(&run, &sources[1], default())
    );
    let won: Vec<_> = [first, second].into_iter().collect();
    let newest = one.newest(&run).await.unwrap().unwrap();
    for (result, tree) in won.iter().zip(&trees) {
        match result {
            Ok(receipt) => {
                assert_eq!(restored(&one, &receipt.snapshot).await.unwrap(), tree.normal());
            }
            Err(error) => assert!(matches!(error, SnapshotError::Conflict { .. }), "{error}"),
        }
    }
    assert!(newest.seq == won.iter().filter(|result| result.is_ok()).count() as u64);
    // Whoever builds upon what is not the newest is told.
    let options = SnapshotOptions { parent: Parent::At(snapshot("run@1")), ..default() };
    one.snapshot(&run, &sources[0], default()).await.unwrap();
    let late = one.snapshot(&run, &sources[1], options).await;
    assert!(matches!(late, Err(SnapshotError::Conflict { .. })), "{late:?}");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let store: SnapshotStore = Bench::new().open().await;
    let error = restored(&store, &snapshot("run@3")).await.unwrap_err();
    let TargetError::Snapshot(SnapshotError::NotFound { .. }) = &error else { panic!("{error}") };
    insta::assert_snapshot!(error, @"there is no snapshot run@3");
    let error = store.log(&lineage("run"), 3).await.unwrap_err();
    insta::assert_snapshot!(error, @"there is no lineage run");
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_say_what_was_done() {
    let store = Bench::new().open().await;
    let mut options = default();
    options.note = "checkpoint 7".to_owned();
    let source = MemorySource::whole(&mixed());
    let receipt = store.snapshot(&lineage("run"), &source, options).await.unwrap();
    insta::assert_json_snapshot!(receipt, {".took" => "[ms]", ".stored.bytes_put" => "[bytes]"});
    insta::assert_json_snapshot!(store.log(&lineage("run"), 5).await.unwrap());
}

/// Everything can be driven by any thread.
#[tokio::test]
async fn futures_can_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    let store = Bench::new().open().await;
    let (run, first) = (lineage("run"), snapshot("run@1"));
    let tree = Tree::default();
    let source = MemorySource::whole(&tree);
    let mut target = kit::MemoryTarget::default();
    let gc_options = cofferdam_snapshot::GcOptions::default();
    is_send(&store.snapshot(&run, &source, default()));
    is_send(&store.restore(&first, &mut target));
    is_send(&store.fork(&first, &run));
    is_send(&store.diff(&first, &first));
    is_send(&store.entries(&first));
    is_send(&store.gc(&gc_options));
    is_send(&store.log(&run, 1));
    is_send(&store.pin(&run, &first));
    is_send(&store.verify(&first));
    is_send(&store.verify_all());
    assert!(store.lineages().await.unwrap().is_empty(), "nothing was run");
}

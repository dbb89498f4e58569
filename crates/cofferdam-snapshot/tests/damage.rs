//! What is corrupt or missing is named, and nothing that was stored before is lost with it.

mod kit;

use cofferdam_snapshot::{ChangeKind, SnapshotError, TargetError};
use futures::TryStreamExt as _;
use kit::{Bench, Thing, Tree, noise, restored, snapshot, take};
use object_store::{ObjectStoreExt as _, PutPayload, path::Path};

/// A store with two snapshots that have packs and parts in heads.
async fn filled() -> (Bench, Tree) {
    let bench = Bench::new();
    let store = bench.open().await;
    let mut tree = Tree::default();
    for file in 0..20 {
        tree.put(&format!("d{}/f{file}", file % 3), Thing::file(noise(file, 100_000)));
    }
    take(&store, "run", &tree).await;
    tree.put("d1/note", Thing::file(noise(99, 5000)));
    take(&store, "run", &tree).await;
    (bench, tree)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_store_is_found_whole() {
    let (bench, _) = filled().await;
    let report = bench.open().await.verify_all().await.unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!((report.snapshots, report.bytes), (2, 2_005_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_noticed_by_verify_and_by_restore() {
    let (bench, tree) = filled().await;
    let whole = restored(&bench.open().await, &snapshot("run@2")).await.unwrap();
    assert_eq!(whole, tree.normal());
    let mut noticed = 0;
    let objects = [bench.objects("packs").await, bench.objects("heads").await].concat();
    for (object, size) in objects {
        let at = Path::from(object.clone());
        let good = bench.objects.get(&at).await.unwrap().bytes().await.unwrap();
        let footer = if object.contains("/packs/") { 1500 } else { 0 };
        for damage in 0..12 {
            let mut bad = good.to_vec();
            let position = usize::try_from(size * damage / 12).unwrap();
            match damage {
                0 => bad.truncate(bad.len() / 2),
                // Footers are hints, and not part of any snapshot.
                _ if position + footer > bad.len() => continue,
                _ => bad[position] ^= 0x55,
            }
            bench.objects.put(&at, PutPayload::from(bad)).await.unwrap();
            let store = bench.open().await;
            let report = store.verify_all().await.unwrap();
            assert!(!report.is_clean(), "damage {damage} of {object} is not noticed");
            let named = report.problems.iter().all(|problem| {
                let SnapshotError::Corrupt { object: named, .. } = &problem.error else {
                    return false;
                };
                object.ends_with(named.as_str())
            });
            assert!(named, "{:?} for {object}", report.problems);
            // A restore gives the tree as it was, or fails: never anything else.
            match restored(&store, &snapshot("run@2")).await {
                Ok(got) => assert_eq!(got, whole),
                Err(TargetError::Snapshot(SnapshotError::Corrupt { .. })) => noticed += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
        bench.objects.delete(&at).await.unwrap();
        let report = bench.open().await.verify_all().await.unwrap();
        let gone_head = object.contains("/heads/");
        assert!(gone_head || !report.is_clean(), "nobody misses {object}");
        bench.objects.put(&at, PutPayload::from_bytes(good)).await.unwrap();
    }
    assert!(noticed > 10, "{noticed}");
    assert!(bench.open().await.verify_all().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_the_object_and_what_it_holds() {
    let (bench, _) = filled().await;
    for (object, _) in bench.objects("packs").await {
        bench.objects.delete(&Path::from(object)).await.unwrap();
    }
    let error = restored(&bench.open().await, &snapshot("run@1")).await.unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("the object packs/"), "{message}");
    assert!(
        message.contains("which holds the node") && message.ends_with("is missing"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_lists_what_differs() {
    let (bench, mut tree) = filled().await;
    let store = bench.open().await;
    tree.put("d0/f0", Thing::file(noise(500, 100_000)))
        .put("d0/f3", Thing::File { mode: 0o600, content: noise(3, 100_000).into(), link: None })
        .put("d1/note", Thing::link("elsewhere"))
        .put("new/deep/file", Thing::file("x"))
        .remove("d2");
    take(&store, "run", &tree).await;
    let list = |from: &'static str, to: &'static str| {
        let store = &store;
        async move {
            let changes = store.diff(&snapshot(from), &snapshot(to)).await.unwrap();
            changes
                .map_ok(|change| format!("{:?} {}", change.kind, change.path))
                .try_collect::<Vec<_>>()
                .await
                .unwrap()
        }
    };
    insta::assert_snapshot!(list("run@2", "run@3").await.join("\n"), @r"
    Removed d2
    Added new
    Changed { content: true, mode: false, other: false } d0/f0
    Changed { content: false, mode: true, other: false } d0/f3
    Replaced d1/note
    Removed d2/f11
    Removed d2/f14
    Removed d2/f17
    Removed d2/f2
    Removed d2/f5
    Removed d2/f8
    Added new/deep
    Added new/deep/file
    ");
    assert_eq!(list("run@1", "run@2").await, ["Added d1/note"]);
    assert_eq!(list("run@2", "run@2").await, [""; 0]);
    let changes = store.diff(&snapshot("run@3"), &snapshot("run@2")).await.unwrap();
    let back: Vec<_> = changes.try_collect().await.unwrap();
    let removed = back.iter().filter(|change| change.kind == ChangeKind::Removed).count();
    assert_eq!(removed, 3, "{back:?}");
    assert!(store.diff(&snapshot("run@1"), &snapshot("run@9")).await.is_err());
}

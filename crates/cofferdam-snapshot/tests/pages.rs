//! A large directory of which a part was listed is the same, node for node, as if all of it had been.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod kit;

use cofferdam_snapshot::{SnapshotOptions, TreePath};
use kit::{Bench, MemorySource, Thing, Tree, lineage, path, restored, take};
use proptest::{collection::vec, prelude::*, sample::Index};

/// Names of files, by what pages they make.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// As they come: a page has some 256.
    Usual,
    /// With none of them a page begins, so that pages are full.
    NoneBegins,
    /// With each of them a page begins, as somebody could choose who wants many.
    EachBegins,
}

impl Names {
    fn make(self, count: usize) -> Vec<String> {
        let fits = |name: &String| {
            let begins = blake3::hash(name.as_bytes()).as_bytes()[0] == 0;
            match self {
                Self::Usual => true,
                Self::NoneBegins => !begins,
                Self::EachBegins => begins,
            }
        };
        (0..).map(|at| format!("name-{at:07}")).filter(fits).take(count).collect()
    }
}

/// A change to a run of neighbours among all names there could be.
#[derive(Debug, Clone)]
struct Edit {
    at: Index,
    run: usize,
    /// Otherwise they are taken away.
    put: bool,
}

fn edit() -> impl Strategy<Value = Edit> {
    let run = prop_oneof![4 => 1_usize..4, 1 => 1_usize..400];
    (any::<Index>(), run, any::<bool>()).prop_map(|(at, run, put)| Edit { at, run, put })
}

fn place(name: &str) -> TreePath {
    path(&format!("large/{name}"))
}

async fn check(names: Names, count: usize, every: usize, edits: Vec<Edit>) {
    let names = names.make(count);
    let mut before = Tree::default();
    before.put("large", Thing::directory()).put("other", Thing::file("untouched"));
    // Between those that are there, others can be put.
    for name in names.iter().filter(|name| !name.ends_with('5')).step_by(every) {
        before.put_at(&place(name), Thing::link("before"));
    }
    let mut after = before.clone();
    for Edit { at, run, put } in edits {
        for name in names.iter().skip(at.index(names.len())).take(run) {
            let place = place(name);
            match put {
                true => after.put_at(&place, Thing::link("after")),
                false if after.0.contains_key(&place) => after.remove_at(&place),
                false => {}
            }
        }
    }
    let store = Bench::new().open().await;
    let base = take(&store, "changes", &before).await;
    let changes = MemorySource::changes(&after, &before, &base.snapshot, &before);
    let by_changes =
        store.snapshot(&lineage("changes"), &changes, SnapshotOptions::default()).await.unwrap();
    let whole = take(&Bench::new().open().await, "whole", &after).await;
    assert_eq!(by_changes.tree, whole.tree);
    assert_eq!(by_changes.totals, whole.totals);
    let report = store.verify(&by_changes.snapshot).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(restored(&store, &by_changes.snapshot).await.unwrap(), after.normal());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_directory_is_the_same_however_much_of_it_was_read(
        names in prop_oneof![
            (Just(Names::Usual), 300_usize..3000),
            (Just(Names::NoneBegins), 300_usize..3500),
            (Just(Names::EachBegins), 2_usize..900),
        ],
        every in 1_usize..3,
        edits in vec(edit(), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(names.0, names.1, every, edits));
    }
}

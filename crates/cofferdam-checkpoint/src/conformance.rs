//! The conformance suite of [`CheckpointStore`]: what every store must do, as cases that run on an empty one each.
//!
//! ```no_run
//! # async fn conformance(make: impl AsyncFn() -> std::sync::Arc<dyn cofferdam_checkpoint::CheckpointStore>) {
//! cofferdam_checkpoint::conformance::run(make).await; // panics at the first rule that does not hold
//! # }
//! ```

use std::sync::Arc;

use cofferdam_core::{RunId, Timestamp};
use cofferdam_journal::Seq;
use serde_json::json;

use crate::{
    Checkpoint, CheckpointError, CheckpointId, CheckpointStore, CheckpointStoreExt, FORMAT_VERSION,
};

/// Runs every case, each on a store of its own that `make` returns, empty.
///
/// # Panics
///
/// At the first rule that does not hold, in words.
pub async fn run(make: impl AsyncFn() -> Arc<dyn CheckpointStore>) {
    what_is_put_is_got(&*make().await).await;
    putting_again_does_nothing(&*make().await).await;
    what_is_not_there_has_a_name(&*make().await).await;
    runs_are_apart_and_sorted(&*make().await).await;
    odd_runs_are_names_too(&*make().await).await;
    a_fork_is_a_second_child(&*make().await).await;
    what_forks_need_stays(&*make().await).await;
    pruning_keeps_heads_and_the_newest(&*make().await).await;
    history_walks_through_forks(&*make().await).await;
}

fn checkpoint(run: &str, at: u64, parents: &[CheckpointId]) -> Checkpoint {
    Checkpoint {
        format: FORMAT_VERSION,
        run: RunId::new(run),
        at: Seq(at),
        turn: 1,
        time: Timestamp(at),
        parents: parents.to_vec(),
        workspace: None,
        sandbox: json!({ "at": at }),
        running: Vec::new(),
    }
}

async fn put(
    store: &dyn CheckpointStore,
    run: &str,
    at: u64,
    parents: &[CheckpointId],
) -> CheckpointId {
    succeed(store.put(&checkpoint(run, at, parents)).await)
}

#[expect(clippy::panic, reason = "a rule that does not hold ends the suite")]
fn succeed<T>(result: Result<T, CheckpointError>) -> T {
    result.unwrap_or_else(|error| panic!("a call that must succeed failed: {error}"))
}

async fn is_missing(store: &dyn CheckpointStore, id: &CheckpointId) -> bool {
    matches!(store.get(id).await, Err(CheckpointError::NotFound { id: named }) if named == *id)
}

async fn what_is_put_is_got(store: &dyn CheckpointStore) {
    let first = checkpoint("r", 1, &[]);
    let id = succeed(store.put(&first).await);
    assert_eq!(succeed(store.get(&id).await), first, "what is got is what was put");
    assert_eq!((id.run(), id.at()), (&first.run, first.at), "the name tells run and position");
}

async fn putting_again_does_nothing(store: &dyn CheckpointStore) {
    let first = put(store, "r", 1, &[]).await;
    assert_eq!(put(store, "r", 1, &[]).await, first, "the same content has the same name");
    assert_eq!(succeed(store.list(&RunId::new("r")).await), [first], "and is there once");
}

async fn what_is_not_there_has_a_name(store: &dyn CheckpointStore) {
    let id = put(store, "r", 1, &[]).await;
    succeed(store.remove(&id).await);
    assert!(is_missing(store, &id).await, "what was removed is missing, by name");
    succeed(store.remove(&id).await);
    assert!(succeed(store.list(&RunId::new("r")).await).is_empty(), "and in no list");
    assert!(succeed(store.forks(&id).await).is_empty(), "nothing comes from it");
}

async fn runs_are_apart_and_sorted(store: &dyn CheckpointStore) {
    let mut expect = Vec::new();
    // Numbers that sort otherwise as text.
    for at in [100, 9, 20, 1_000_000] {
        expect.push(put(store, "r", at, &[]).await);
    }
    put(store, "r2", 5, &[]).await;
    expect.sort_by_key(CheckpointId::at);
    let run = RunId::new("r");
    assert_eq!(succeed(store.list(&run).await), expect, "a list is sorted by position");
    let newest = succeed(store.newest(&run).await).map(|(id, _)| id);
    assert_eq!(newest.as_ref(), expect.last(), "the newest is the last");
    let nobody = RunId::new("nobody");
    assert!(succeed(store.list(&nobody).await).is_empty(), "a run that is not there has none");
    assert!(succeed(store.newest(&nobody).await).is_none(), "and no newest");
}

async fn odd_runs_are_names_too(store: &dyn CheckpointStore) {
    for run in ["a/b", "..", "a.1", "ü n", "%2F", "a"] {
        let id = put(store, run, 1, &[]).await;
        assert_eq!(
            succeed(store.list(&RunId::new(run)).await),
            std::slice::from_ref(&id),
            "run {run:?}"
        );
        assert_eq!(succeed(store.get(&id).await).run.as_str(), run, "run {run:?}");
    }
}

async fn a_fork_is_a_second_child(store: &dyn CheckpointStore) {
    let root = put(store, "r", 1, &[]).await;
    let next = put(store, "r", 2, std::slice::from_ref(&root)).await;
    let fork = put(store, "f", 1, std::slice::from_ref(&root)).await;
    let forks = succeed(store.forks(&root).await);
    assert_eq!(forks, std::slice::from_ref(&fork), "forks are of other runs");
    assert_eq!(succeed(store.children(&root).await), [next.clone(), fork], "children are of both");
    assert!(succeed(store.children(&next).await).is_empty(), "a head has none");
    let back = put(store, "r", 3, std::slice::from_ref(&root)).await;
    let heads = succeed(store.heads(&RunId::new("r")).await);
    assert_eq!(heads, [next, back], "a run that was taken back has a head more");
}

async fn what_forks_need_stays(store: &dyn CheckpointStore) {
    let root = put(store, "r", 1, &[]).await;
    let fork = put(store, "f", 1, std::slice::from_ref(&root)).await;
    let refused = store.remove(&root).await;
    assert!(matches!(refused, Err(CheckpointError::Needed { .. })), "it is needed: {refused:?}");
    succeed(store.remove(&fork).await);
    succeed(store.remove(&root).await);
    assert!(is_missing(store, &root).await, "nothing needs it any more");
}

async fn pruning_keeps_heads_and_the_newest(store: &dyn CheckpointStore) {
    let mut line = vec![put(store, "r", 1, &[]).await];
    for at in 2..=6 {
        let parent = line.last().cloned();
        line.push(put(store, "r", at, parent.as_slice()).await);
    }
    let left = put(store, "r", 3, &line[..1]).await;
    let fork = put(store, "f", 1, &line[1..2]).await;
    let removed = succeed(store.prune(&RunId::new("r"), 2).await);
    assert_eq!(removed, [line[0].clone(), line[2].clone(), line[3].clone()], "what nothing needs");
    let rest = succeed(store.list(&RunId::new("r")).await);
    let mut expect = [line[1].clone(), left, line[4].clone(), line[5].clone()];
    expect.sort();
    let mut sorted = rest;
    sorted.sort();
    assert_eq!(sorted, expect, "heads, what forks come from, and the newest stay");
    assert_eq!(succeed(store.get(&fork).await).parents, line[1..2], "a fork stays whole");
}

async fn history_walks_through_forks(store: &dyn CheckpointStore) {
    let root = put(store, "r", 1, &[]).await;
    let next = put(store, "r", 2, std::slice::from_ref(&root)).await;
    let fork = put(store, "f", 1, std::slice::from_ref(&next)).await;
    let names = |walk: Vec<(CheckpointId, Checkpoint)>| -> Vec<CheckpointId> {
        walk.into_iter().map(|(id, _)| id).collect()
    };
    let walk = succeed(store.history(&fork, 10).await);
    assert_eq!(names(walk), [fork.clone(), next.clone(), root.clone()], "to the first");
    let walk = succeed(store.history(&fork, 2).await);
    assert_eq!(names(walk), [fork.clone(), next.clone()], "no further than asked");
    succeed(store.remove(&root).await);
    let walk = succeed(store.history(&fork, 10).await);
    assert_eq!(names(walk), [fork, next], "it ends where a parent is gone");
    assert!(store.history(&root, 10).await.is_err(), "what is not there has no history");
}

//! What is freed, and what is kept: runs, checkpoints, young snapshots and a policy decide.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod kit;

use std::time::Duration;

use cofferdam_checkpoint::{CheckpointId, CheckpointStore as _, Retention, clean_up};
use cofferdam_core::RunId;
use cofferdam_journal::Journal as _;
use cofferdam_snapshot::{DirectoryTarget, SnapshotId, TargetOptions};
use kit::{DAY, DAY_MS, Kept, noise};

fn retention(change: impl FnOnce(&mut Retention)) -> Retention {
    let mut retention = Retention::never();
    change(&mut retention);
    retention
}

#[tokio::test]
async fn what_no_run_and_no_checkpoint_needs_is_freed_in_two_steps() {
    let state = Kept::new().await;
    let known = RunId::new("known");
    let lease = state.journal.lease(&known, "test", DAY).await.unwrap();
    for lineage in ["known", "known-start", "gone", "gone-lost-1"] {
        state.snapshot(lineage, &noise(lineage)).await;
    }
    let needed = state.checkpoint("needed", 1, &[]).await;
    let clean_up = async || {
        clean_up(&state.snapshots, &state.checkpoints, &state.journal, &*state.clock).await
    };

    // Whatever is young is left alone.
    let report = clean_up().await.unwrap();
    assert_eq!((report.kept, report.dropped), (5, 0), "{report:?}");

    state.clock.advance(DAY_MS);
    state.snapshot("begins", b"a run that has no record yet").await;
    let marked = clean_up().await.unwrap();
    assert_eq!((marked.kept, marked.dropped, marked.deleted), (4, 2, 0), "{marked:?}");
    assert!(marked.condemned > 0, "{marked:?}");
    state.clock.advance(DAY_MS);
    let deleted = clean_up().await.unwrap();
    assert!(deleted.deleted > 0 && deleted.deleted_bytes > 0, "{deleted:?}");
    assert_eq!(deleted.deleted_bytes, marked.condemned_bytes);

    let place = tempfile::tempdir().unwrap();
    let mut target = DirectoryTarget::new(place.path().join("restored"), TargetOptions::default());
    state.snapshots.restore(&needed_snapshot(&state, &needed).await, &mut target).await.unwrap();
    state.journal.release(&lease).await.unwrap();
}

async fn needed_snapshot(state: &Kept, id: &CheckpointId) -> SnapshotId {
    state.checkpoints.get(id).await.unwrap().workspace.unwrap().snapshot
}

#[tokio::test]
async fn the_newest_checkpoints_stay_and_those_that_somebody_needs() {
    let state = Kept::new().await;
    let made = state.ended("main", 6).await;
    // Another run comes from the second, and somebody pinned the third.
    state.checkpoint("side", 9, &made[1..2]).await;
    state.goes_on("side").await;
    let pinned = needed_snapshot(&state, &made[2]).await;
    state.snapshots.pin(&"release".parse().unwrap(), &pinned).await.unwrap();

    let two = retention(|it| it.checkpoints = Some(2));
    let planned = state.apply(&two, true).await;
    assert_eq!((planned.checkpoints, state.positions("main").await.len()), (2, 6));
    let done = state.apply(&two, false).await;
    assert_eq!(done, planned);
    assert_eq!(state.positions("main").await, [2, 3, 5, 6]);
    assert_eq!(state.positions("side").await, [9]);
    assert_eq!(state.runs().await, ["main", "side"]);
    assert_eq!(state.apply(&two, false).await.checkpoints, 0);
}

#[tokio::test]
async fn runs_go_by_age_number_and_size_and_only_when_they_have_ended() {
    let check = async |retention: Retention, expect: &[&str]| {
        let state = Kept::new().await;
        for run in ["a", "b", "c", "d"] {
            state.ended(run, 1).await;
            state.clock.advance(DAY_MS);
        }
        // The oldest of all, but somebody may go on with it, or does.
        state.checkpoint("open", 1, &[]).await;
        state.goes_on("open").await;
        let lease = state.journal.lease(&RunId::new("a"), "somebody", DAY).await.unwrap();

        let planned = state.apply(&retention, true).await;
        assert_eq!(state.runs().await.len(), 5);
        let done = state.apply(&retention, false).await;
        assert_eq!(done.runs, planned.runs);
        assert_eq!(done.snapshots.dropped, planned.snapshots.dropped);
        assert_eq!(done.snapshots.condemned_bytes, planned.snapshots.condemned_bytes);
        assert_eq!(state.runs().await, expect, "{retention:?}");
        state.journal.release(&lease).await.unwrap();
    };
    check(Retention::never(), &["a", "b", "c", "d", "open"]).await;
    check(Retention::default(), &["a", "b", "c", "d", "open"]).await;
    let age = Duration::from_millis(2 * DAY_MS + 1);
    check(retention(|it| it.runs_for = Some(age)), &["a", "c", "d", "open"]).await;
    check(retention(|it| it.runs = Some(1)), &["a", "d", "open"]).await;
    check(retention(|it| it.runs = Some(0)), &["a", "open"]).await;
    // Each run has two mebibytes.
    check(retention(|it| it.max_bytes = Some(9 << 20)), &["a", "c", "d", "open"]).await;
    check(retention(|it| it.max_bytes = Some(1 << 20)), &["a", "open"]).await;
}

#[tokio::test]
async fn a_bound_on_bytes_holds_after_the_grace_and_says_what_it_cannot_free() {
    let state = Kept::new().await;
    for run in ["a", "b", "c"] {
        state.ended(run, 1).await;
    }
    state.checkpoint("open", 1, &[]).await;
    state.goes_on("open").await;
    state.clock.advance(DAY_MS);
    let most = 5 << 20;
    let bounded = retention(|it| it.max_bytes = Some(most));
    let first = state.apply(&bounded, false).await;
    assert_eq!((first.runs.len(), first.excess_bytes), (2, 0));
    // What is condemned counts as gone: a second call takes no further run.
    assert_eq!(state.apply(&bounded, false).await.runs, []);
    state.clock.advance(DAY_MS);
    state.apply(&bounded, false).await;
    let usage = state.snapshots.usage().await.unwrap();
    assert!(usage.bytes <= most, "{usage:?}");
    assert_eq!(state.runs().await, ["c", "open"]);

    let nothing = retention(|it| it.max_bytes = Some(0));
    let report = state.apply(&nothing, false).await;
    assert_eq!(report.runs.len(), 1);
    assert!(report.excess_bytes > 1 << 20, "{report:?}");
    assert_eq!(state.runs().await, ["open"]);
}

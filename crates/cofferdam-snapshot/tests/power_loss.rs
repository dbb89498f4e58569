//! Snapshots in a directory whose disk lost power: at each flush, and at moments between, with any part kept of what had not
//! been flushed.

#![expect(clippy::unwrap_used, reason = "a test, and a process that is a part of it")]
#![expect(clippy::disallowed_methods, reason = "what is recorded is a process of its own")]

mod kit;

use std::{io::Write as _, path::Path, process::Command, sync::Arc};

use cofferdam_snapshot::{DurableLocal, GcOptions};
use cofferdam_testkit::{
    power_loss::{self, CrashState, Error},
    skip,
};
use kit::{Bench, Thing, Tree, lineage, noise, restored, snapshot, take};

/// Names the directory in the environment of the process that is recorded.
const DIRECTORY: &str = "COFFERDAM_TEST_POWER_LOSS";

const ROUNDS: u64 = 5;

/// The tree of a round: small changes, that lie in heads, and large ones, that fill packs.
fn tree(round: u64) -> Tree {
    let mut tree = Tree::default();
    for old in 0..=round {
        let size = if old % 2 == 0 { 3000 } else { 700_000 };
        tree.put(&format!("d{}/{old}", old % 3), Thing::file(noise(old, size)));
    }
    tree
}

/// Not a test of its own: the process that is recorded, when the test below starts this program again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let bench = Bench::over(Arc::new(DurableLocal::open(&directory).unwrap()));
    let store = bench.open().await;
    for round in 0..ROUNDS {
        let receipt = take(&store, "run", &tree(round)).await;
        writeln!(std::io::stdout().lock(), "\nacknowledged {}", receipt.snapshot).unwrap();
        bench.clock.advance(1000 * 3600 * 50);
        let mut options = GcOptions::default();
        options.keep_last = 2;
        store.gc(&options).await.unwrap();
    }
}

async fn check(state: &CrashState) {
    let acknowledged =
        state.acknowledged.lines().filter(|line| line.starts_with("acknowledged ")).count() as u64;
    let bench = Bench::over(Arc::new(DurableLocal::open(state.directory.path()).unwrap()));
    let what = &state.description;
    let store = bench.open().await;
    let report = store.verify_all().await.unwrap();
    assert!(report.is_clean(), "{what}: {:?}", report.problems);
    let newest = store.newest(&lineage("run")).await.unwrap().map_or(0, |newest| newest.seq);
    assert!(newest >= acknowledged, "{what}: {newest} is there, {acknowledged} was acknowledged");
    if newest > 0 {
        let there = restored(&store, &snapshot(&format!("run@{newest}"))).await.unwrap();
        assert_eq!(there, tree(newest - 1).normal(), "{what}");
    }
    // And it goes on from there.
    take(&store, "run", &tree(newest)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_loss_of_power() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["recorded", "--exact", "--nocapture"]).env(DIRECTORY, directory.path());
    let path: &Path = directory.path();
    let log = match power_loss::record(&mut child, path, &[]) {
        Ok(log) => log,
        Err(error @ Error::NoCompiler) => {
            return skip("what_was_acknowledged_survives_the_loss_of_power", &error.to_string());
        }
        Err(error) => panic!("{error} ({error:?})"),
    };
    assert!(log.flushes() > 10, "{}", log.flushes());
    let mut states = 0;
    for state in log.crash_states(7, 20) {
        check(&state).await;
        states += 1;
    }
    assert!(states > 100, "{states}");
}

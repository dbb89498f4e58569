//! The suite in its short form, and the suite's own test: that it notices what is broken.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{num::NonZeroUsize, path::Path};

use cofferdam_crash::{
    defect::Defect,
    process::Blow,
    scenario::Outcome,
    suite::{Suite, Summary},
    world::World,
};
use cofferdam_testkit::skip;

const CRASHES: u64 = 30;

fn suite<'a>(worlds: &'a [World], defect: Option<Defect>) -> Suite<'a> {
    Suite {
        program: Path::new(env!("CARGO_BIN_EXE_cofferdam-crash")),
        worlds,
        crashes: CRASHES,
        seed: 1,
        parallel: NonZeroUsize::new(2).unwrap(),
        defect,
    }
}

fn told(summary: &Summary) -> String {
    format!("{}\n{:#?}", summary.table, summary.failures)
}

fn play(worlds: &[World]) {
    let summary = suite(worlds, None).play().unwrap();
    assert!(summary.failures.is_empty(), "{}", told(&summary));
    let sum = summary.table.sum();
    assert!(sum.crashes >= CRASHES, "{}", told(&summary));
    assert_eq!(sum.crashes, sum.exactly_once + sum.ambiguous, "{}", told(&summary));
}

#[test]
fn a_run_without_a_sandbox_goes_on() {
    play(&[World::Bare]);
}

#[test]
fn a_run_whose_sandbox_dies_with_it_goes_on() {
    in_a_sandbox("a_run_whose_sandbox_dies_with_it_goes_on", World::Sealed, || {
        play(&[World::Sealed]);
    });
}

#[test]
fn a_run_whose_sandbox_lives_on_goes_on() {
    in_a_sandbox("a_run_whose_sandbox_lives_on_goes_on", World::Lingering, || {
        play(&[World::Lingering]);
    });
}

#[test]
fn a_run_whose_sandbox_dies_under_it_goes_on() {
    in_a_sandbox("a_run_whose_sandbox_dies_under_it_goes_on", World::Sealed, || {
        for blow in ["lose:sandbox.exec.after#1", "lose:sandbox.file.rename.after#1"] {
            let blows = [blow.parse().unwrap()];
            let outcome = suite(&[World::Sealed], None).again(World::Sealed, &blows).unwrap();
            assert_eq!(outcome.wrong, [""; 0], "{blow}");
            assert_eq!(outcome.blows, blows, "the sandbox was not lost");
        }
    });
}

fn in_a_sandbox(name: &str, world: World, test: impl FnOnce()) {
    match world.missing() {
        Some(why) => skip(name, &why),
        None => test(),
    }
}

/// Plays one scenario with a defect in it, and then the same one without.
fn check(defect: Defect, world: World, blow: &str, expect: &str) {
    let blows: Vec<Blow> = blow.split(',').map(|blow| blow.parse().unwrap()).collect();
    let play = |defect| -> Outcome {
        let worlds = [world];
        suite(&worlds, defect).again(world, &blows).unwrap()
    };
    let broken = play(Some(defect)).wrong.join("; ");
    assert!(broken.contains(expect), "{defect}: {broken:?} does not say {expect:?}");
    let sound = play(None);
    assert!(sound.wrong.is_empty(), "{:?}", sound.wrong);
    assert_eq!(sound.blows, blows);
}

#[test]
fn a_journal_that_acknowledges_early_is_noticed() {
    let expect = "took effect and the journal has no intent of it";
    check(Defect::EarlyJournal, World::Bare, "tool.set.call.after#1", expect);
}

#[test]
fn a_tool_that_runs_before_its_intent_is_noticed() {
    let expect = "took effect and the journal has no intent of it";
    check(Defect::LateIntent, World::Bare, "tool.transfer.call.after#1", expect);
}

#[test]
fn a_tool_that_lies_of_itself_is_noticed() {
    let expect = "`send: a letter` took effect 2 times";
    check(Defect::LyingTool, World::Bare, "tool.send.call.after#1", expect);
}

#[test]
fn a_journal_that_forgets_an_answer_is_noticed() {
    let expect = "the model was asked again for answer 1, which was in the journal";
    let blow = "journal.append.model_responded.after#1";
    check(Defect::ForgottenAnswer, World::Bare, blow, expect);
}

#[test]
fn a_journal_that_forgets_a_result_is_noticed() {
    let blow = "tool.book.settled.before#1";
    check(Defect::ForgottenResult, World::Bare, blow, "step 4.0 was not in doubt");
}

#[test]
fn a_key_that_changes_is_noticed() {
    let blow = "tool.transfer.call.after#1";
    check(
        Defect::NewKeys,
        World::Bare,
        blow,
        "`transfer: 1000 to the landlord` took effect 2 times",
    );
}

#[test]
fn a_call_of_unknown_outcome_is_reported_and_not_repeated() {
    for blow in ["tool.send.call.before#1", "tool.send.call.after#1"] {
        let outcome = suite(&[World::Bare], None).again(World::Bare, &[blow.parse().unwrap()]);
        let outcome = outcome.unwrap();
        assert_eq!(outcome.wrong, [""; 0]);
        assert_eq!(outcome.ambiguous, [(1, "send".to_owned())]);
    }
}

#[test]
fn an_object_store_that_acknowledges_early_is_noticed() {
    in_a_sandbox("an_object_store_that_acknowledges_early_is_noticed", World::Sealed, || {
        let blow = "sandbox.exec.after#1";
        check(Defect::EarlyObjects, World::Sealed, blow, "there is no checkpoint");
    });
}

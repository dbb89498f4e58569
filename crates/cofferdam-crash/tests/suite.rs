//! The suite in its short form, and the suite's own test: that it notices what is broken.
#![cfg(target_os = "linux")]

use std::{num::NonZeroUsize, path::Path};

use cofferdam_crash::{
    defect::Defect,
    process::Blow,
    scenario::Outcome,
    suite::{Suite, Summary},
    world::World,
};

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
    println!("{}", summary.table);
    assert!(summary.failures.is_empty(), "{}", told(&summary));
    let sum = summary.table.sum();
    assert!(sum.crashes >= CRASHES, "{}", told(&summary));
    assert_eq!(sum.crashes, sum.exactly_once + sum.ambiguous, "{}", told(&summary));
}

#[test]
fn a_run_whose_process_dies_goes_on() {
    play(&[World::Bare]);
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

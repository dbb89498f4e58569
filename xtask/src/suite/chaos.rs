//! `chaos`: parts of a backend are killed at random moments, and nothing may be left.
//!
//! `cargo test` plays a few rounds of it; the suite plays many. Both say the seed of each round that failed.

use std::hash::{BuildHasher, RandomState};

use anyhow::Result;

use super::Suite;
use crate::command::cargo_in;
use crate::context::Context;
use crate::report::Report;
use crate::test::cargo_test;

pub(crate) const SUITE: Suite = Suite {
    name: "chaos",
    about: "harness, launcher, engine, guest and commands are killed at random; --rounds N (500, docker 60), --seed N",
    package: "cofferdam-sandbox-linux",
    within_cargo_test: true,
    run,
};

/// The backends, and the rounds of each test of theirs if nothing else is asked for. A container is dearer.
const BACKENDS: [(&str, u64); 2] = [(SUITE.package, 500), ("cofferdam-sandbox-docker", 60)];

fn run(context: &Context, report: &mut Report) -> Result<()> {
    let seed = context.rounds.seed.unwrap_or_else(|| {
        // Few digits, so that a person can type it.
        RandomState::new().hash_one("chaos") % 1_000_000_000
    });
    for (package, usual) in BACKENDS {
        let rounds = context.rounds.number.unwrap_or(usual);
        println!(
            "{package}: {rounds} rounds from seed {seed}; one of them again: --rounds 1 --seed SEED"
        );
        let mut command = cargo_in(&context.workspace.root);
        command
            .args(["test", "--all-features", "-p", package, "--test", "chaos"])
            .args(["--", "--nocapture"])
            .env("COFFERDAM_CHAOS_ROUNDS", rounds.to_string())
            .env("COFFERDAM_CHAOS_SEED", seed.to_string());
        cargo_test(&mut command, report)?;
    }
    Ok(())
}

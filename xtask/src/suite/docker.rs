//! `docker`: the Docker backend keeps its promises, on an engine that its tests start.
//!
//! They are tests of the crate, so `cargo xtask test` has run them already; this runs those of one kind on their own.

use anyhow::Result;

use super::Suite;
use crate::command::cargo_in;
use crate::context::Context;
use crate::report::Report;
use crate::test::cargo_test;

const PACKAGE: &str = "cofferdam-sandbox-docker";

pub(crate) const SUITE: Suite = Suite {
    name: "docker",
    about: "the Docker backend does what every backend must do, and nothing gets out of its containers",
    package: PACKAGE,
    within_cargo_test: true,
    run,
};

fn run(context: &Context, report: &mut Report) -> Result<()> {
    let mut command = cargo_in(&context.workspace.root);
    command.args(["test", "--all-features", "-p", PACKAGE, "--test", "suite"]);
    cargo_test(&mut command, report)
}

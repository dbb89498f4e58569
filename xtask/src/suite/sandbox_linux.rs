//! `conformance`: the Linux sandbox keeps its promises, to whoever starts it.
//!
//! It is tests of the crate, so `cargo xtask test` has run them already. Where the caller is root, the crate's `ordinary_user`
//! test runs them once more as one, because another set of mechanisms holds the walls then. What a command must not be able
//! to do is tried by the suite `security`.

use anyhow::Result;

use super::Suite;
use crate::command::cargo_in;
use crate::context::Context;
use crate::report::Report;
use crate::test::cargo_test;

const PACKAGE: &str = "cofferdam-sandbox-linux";

pub(crate) const SUITE: Suite = Suite {
    name: "conformance",
    about: "the Linux backend does what every backend must do, and its limits hold",
    package: PACKAGE,
    within_cargo_test: true,
    run,
};

fn run(context: &Context, report: &mut Report) -> Result<()> {
    let mut command = cargo_in(&context.workspace.root);
    command.args(["test", "--all-features", "-p", PACKAGE, "--test", "*", "--"]);
    // The tests whose path holds one of the words.
    command.args(["conformance", "limits", "ordinary_user"]);
    cargo_test(&mut command, report)
}

//! `conformance` and `isolation`: the Linux sandbox keeps its promises, to whoever starts it.
//!
//! Both are tests of the crate, so `cargo xtask test` has run them already. Where the caller is root, the crate's
//! `ordinary_user` test runs them once more as one, because another set of mechanisms holds the walls then.

use anyhow::Result;

use super::Suite;
use crate::command::cargo_in;
use crate::context::Context;
use crate::report::Report;
use crate::test::cargo_test;

const PACKAGE: &str = "cofferdam-sandbox-linux";

pub(crate) const CONFORMANCE: Suite = Suite {
    name: "conformance",
    about: "the Linux backend does what every backend must do",
    package: PACKAGE,
    within_cargo_test: true,
    run: |context, report| run(&["conformance", "ordinary_user"], context, report),
};

pub(crate) const ISOLATION: Suite = Suite {
    name: "isolation",
    about: "what a sandboxed command must not be able to do, tried",
    package: PACKAGE,
    within_cargo_test: true,
    run: |context, report| run(&["isolation", "limits", "ordinary_user"], context, report),
};

/// Runs the tests whose path holds one of the words.
fn run(words: &[&str], context: &Context, report: &mut Report) -> Result<()> {
    let mut command = cargo_in(&context.workspace.root);
    command.args(["test", "--all-features", "-p", PACKAGE, "--test", "*", "--"]).args(words);
    cargo_test(&mut command, report)
}

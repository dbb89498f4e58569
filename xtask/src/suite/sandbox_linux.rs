//! `conformance` and `isolation`: the Linux sandbox keeps its promises, to whoever starts it.
//!
//! Both are test programs of the crate, so `cargo test` runs them as the user who calls it. Where that is root, they
//! run once more as an ordinary user, because another set of mechanisms holds the walls then.

use anyhow::Result;

use super::{Scope, Suite, ordinary_user};
use crate::command::cargo_in;
use crate::context::Context;
use crate::report::Report;
use crate::test::cargo_test;

const PACKAGE: &str = "cofferdam-sandbox-linux";

pub(crate) const CONFORMANCE: Suite = Suite {
    name: "conformance",
    about: "the Linux backend does what every backend must do",
    package: PACKAGE,
    run: |context, scope, report| run("conformance", context, scope, report),
};

pub(crate) const ISOLATION: Suite = Suite {
    name: "isolation",
    about: "what a sandboxed command must not be able to do, tried",
    package: PACKAGE,
    run: |context, scope, report| run("isolation", context, scope, report),
};

fn run(test: &'static str, context: &Context, scope: Scope, report: &mut Report) -> Result<()> {
    if scope == Scope::Alone {
        let mut command = cargo_in(&context.workspace.root);
        command.args(["test", "--all-features", "-p", PACKAGE, "--test", test]);
        cargo_test(context, &mut command, report)?;
    }
    ordinary_user::run(context, PACKAGE, test, report)
}

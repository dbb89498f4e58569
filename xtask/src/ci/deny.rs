//! Licences, banned crates and sources of the whole lock file, by cargo-deny and `deny.toml`.

use anyhow::Result;

use crate::command::{cargo_in, find_program, run as run_command};
use crate::context::Context;
use crate::report::Report;

pub(crate) fn run(context: &Context, _packages: &[String], report: &mut Report) -> Result<()> {
    if find_program("cargo-deny").is_none() {
        report.skip("deny", "cargo-deny is not installed; cargo xtask setup installs it");
        return Ok(());
    }
    // Offline and without advisories: those come from a database that is fetched from outside the registry, and a
    // build must not change its answer from one hour to the next. `cargo deny check advisories` is for a person.
    let mut command = cargo_in(&context.workspace.root);
    command.args([
        "deny",
        "--offline",
        "--all-features",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]);
    report.check("deny", run_command(&mut command)?);
    Ok(())
}

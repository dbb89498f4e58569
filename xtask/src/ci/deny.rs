//! Licences, banned crates and sources of the whole lock file, by cargo-deny and `deny.toml`.

use std::process::Command;

use anyhow::Result;

use crate::command::run as run_command;
use crate::context::Context;
use crate::report::Report;

pub(crate) fn run(context: &Context, _packages: &[String], report: &mut Report) -> Result<()> {
    let Some(program) = context.cargo_deny() else {
        report.skip("deny", "cargo-deny is not installed; cargo xtask setup installs it");
        return Ok(());
    };
    // Offline and without advisories: those come from a database that is fetched from outside the registry, and a
    // build must not change its answer from one hour to the next. `cargo deny check advisories` is for a person.
    let mut command = Command::new(program);
    command.current_dir(&context.workspace.root).args([
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

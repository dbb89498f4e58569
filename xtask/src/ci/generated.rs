//! Files that a program of this repository writes and that are checked in must be what it writes now.

use anyhow::Result;

use crate::command::{cargo_in, output, run as run_command};
use crate::context::Context;
use crate::report::Report;

const SCHEMA: &str = "docs/reference/agent.schema.json";

/// The JSON Schema of the agent file against `cofferdam manifest schema`.
pub(crate) fn schema(context: &Context, packages: &[String], report: &mut Report) -> Result<()> {
    if !concerns(packages, &["cofferdam-cli", "cofferdam-manifest"]) {
        return Ok(());
    }
    let file = context.path(SCHEMA);
    if !file.exists() {
        report.skip("schema", format!("{SCHEMA} does not exist"));
        return Ok(());
    }
    let mut command = context.program("cofferdam-cli", "cofferdam");
    command.args(["manifest", "schema"]);
    let fresh = output(&mut command)?;
    let good = std::fs::read_to_string(&file)?.trim_end() == fresh;
    if !good {
        println!("to write it anew: cargo run -p cofferdam-cli -- manifest schema > {SCHEMA}");
    }
    report.check(&format!("schema: {SCHEMA} is stale"), good);
    Ok(())
}

/// The records of the example against their generator.
pub(crate) fn example(context: &Context, packages: &[String], report: &mut Report) -> Result<()> {
    if !concerns(packages, &["clinical-records-generator"]) {
        return Ok(());
    }
    let mut command = cargo_in(&context.workspace.root);
    command.args(["run", "--quiet", "-p", "clinical-records-generator", "--"]);
    command.args(["--check", "examples/clinical-records"]);
    report.check("example: examples/clinical-records is stale", run_command(&mut command)?);
    Ok(())
}

/// Whether a run that is limited to some packages is about one of these.
fn concerns(packages: &[String], names: &[&str]) -> bool {
    packages.is_empty() || packages.iter().any(|package| names.contains(&package.as_str()))
}

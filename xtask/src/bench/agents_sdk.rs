//! Files and snapshots of the local sandbox of OpenAI's Agents SDK for Python, for the cases of `cofferdam` that are held against it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{case::Case, read_cases};
use crate::command::succeeds;
use crate::context::Context;
use crate::report::Report;

/// Files, and a workspace that is kept after a change.
const SCRIPTS: [&str; 2] =
    ["xtask/suites/agents_sdk_files.py", "xtask/suites/agents_sdk_snapshots.py"];

/// Runs the scripts in the Python that has the SDK: that of `AGENTS_SDK_PYTHON`, else the one that was set up here.
pub(crate) fn files(context: &Context, report: &mut Report) -> Result<Vec<Case>> {
    let has_sdk =
        |python: &PathBuf| succeeds(Command::new(python).args(["-c", "import agents.sandbox"]));
    let named = std::env::var_os("AGENTS_SDK_PYTHON").map(PathBuf::from);
    let Some(python) = named.or_else(|| context.python()).filter(has_sdk) else {
        report.skip(
            "bench of the Agents SDK",
            "no Python with `openai-agents`; name one with AGENTS_SDK_PYTHON",
        );
        return Ok(Vec::new());
    };
    let mut cases = Vec::new();
    for script in SCRIPTS {
        cases.extend(read_cases(Command::new(&python).arg(context.path(script)), report)?);
    }
    Ok(cases)
}

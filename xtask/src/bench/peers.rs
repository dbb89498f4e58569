//! What peers need for the same work, measured in the same run. A peer that is not installed is a skip.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::case::Case;
use crate::command::find_program;
use crate::context::Context;
use crate::report::Report;

const ROUNDS: usize = 100;
const FLOOR: &str = "fork+exec+wait of true";

/// Starting `true` in a fresh sandbox, against starting it in none.
pub(crate) fn start(_context: &Context, report: &mut Report) -> Result<Vec<Case>> {
    let floor = measure(|| Command::new("/bin/true"))?;
    let mut cases = vec![case("true without a sandbox", &floor, &floor)?];
    match find_program("bwrap") {
        Some(bwrap) => cases.push(case(
            "bwrap --unshare-all true",
            &measure(|| sealed_bwrap(&bwrap))?,
            &floor,
        )?),
        None => report
            .skip("bench of bwrap", "bubblewrap is not installed; cargo xtask setup installs it"),
    }
    match codex() {
        Some(codex) => cases.push(case(
            "codex sandbox true",
            &measure(|| {
                let mut command = Command::new(&codex);
                command.args(["sandbox", "--", "/bin/true"]);
                command
            })?,
            &floor,
        )?),
        None => report.skip(
            "bench of codex",
            "no `codex` on the path or in CODEX; the npm package @openai/codex has it",
        ),
    }
    Ok(cases)
}

/// The program that `CODEX` names, else the one on the path.
pub(crate) fn codex() -> Option<PathBuf> {
    std::env::var_os("CODEX").map(PathBuf::from).or_else(|| find_program("codex"))
}

/// The walls that `bwrap` offers and a sealed sandbox also has.
fn sealed_bwrap(bwrap: &Path) -> Command {
    let mut command = Command::new(bwrap);
    command.args(["--unshare-all", "--new-session", "--die-with-parent", "--ro-bind", "/", "/"]);
    command.args(["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--", "/bin/true"]);
    command
}

/// The sorted times of running the command to its end.
fn measure(command: impl Fn() -> Command) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let mut command = command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        times.push(start.elapsed());
        ensure!(status.success(), "{} ended with {status}", crate::command::shown(&command));
    }
    times.sort();
    Ok(times)
}

fn case(name: &str, times: &[Duration], floor: &[Duration]) -> Result<Case> {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let median = |times: &[Duration]| milliseconds(times[times.len() / 2]);
    Case::from_json(json!({
        "case": format!("peer: {name}"),
        "median_ms": median(times),
        "min_ms": milliseconds(times[0]),
        "n": times.len(),
        "floor": FLOOR,
        "ratio": median(times) / median(floor),
    }))
}

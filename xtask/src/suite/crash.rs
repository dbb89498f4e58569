//! `crash`: the process of an agent is killed at every named point, and its run must go on as if nothing had been.
//!
//! The suite is a program of `cofferdam-crash`, which starts itself as the process that is killed. `cargo test` plays a short
//! form of it.

use anyhow::Result;

use super::Suite;
use super::script::run_script;
use crate::context::Context;
use crate::report::Report;

const PACKAGE: &str = "cofferdam-crash";

pub(crate) const SUITE: Suite = Suite {
    name: "crash",
    about: "a process is killed at every step of a run, and the run goes on: no effect lost, none repeated; --rounds N (1000), --seed N",
    package: PACKAGE,
    within_cargo_test: false,
    run,
};

fn run(context: &Context, report: &mut Report) -> Result<()> {
    if !cfg!(target_os = "linux") {
        report.skip("suite crash", "its processes are killed as Linux kills them");
        return Ok(());
    }
    let mut command = context.program(PACKAGE, PACKAGE);
    for (option, number) in [("--crashes", context.rounds.number), ("--seed", context.rounds.seed)]
    {
        command.args(
            number.map(|number| [option.to_owned(), number.to_string()]).into_iter().flatten(),
        );
    }
    run_script(SUITE.name, &mut command, report)
}

//! `cargo xtask suite`: test suites that need something beyond cargo, each in a file of its own.
//!
//! To add one, write the file with its `SUITE` and name it in [`SUITES`].

mod chaos;
mod crash;
mod docker;
mod example;
mod fuzz;
mod local_model;
mod openai_python;
mod sandbox_linux;
mod script;
mod security;

use std::process::Command;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::context::{Context, Rounds};
use crate::report::Report;
use crate::table;

/// A suite: it counts what it ran in the report, and says there what it could not run and why.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// The crate that it tests.
    pub(crate) package: &'static str,
    /// Whether `cargo test` on the package runs it too, so that `cargo xtask test` need not.
    pub(crate) within_cargo_test: bool,
    pub(crate) run: fn(&Context, &mut Report) -> Result<()>,
}

const SUITES: &[Suite] = &[
    sandbox_linux::SUITE,
    docker::SUITE,
    chaos::SUITE,
    crash::SUITE,
    security::SUITE,
    openai_python::SUITE,
    local_model::SUITE,
    example::SUITE,
    fuzz::SUITE,
];

impl Suite {
    /// Runs the suite; that it could not be run is a failure in the report.
    pub(crate) fn run_into(&self, context: &Context, report: &mut Report) {
        println!("\n=== suite {}: {}", self.name, self.about);
        if let Err(error) = (self.run)(context, report) {
            report.fail(format!("suite {}: {error:#}", self.name));
        }
    }
}

pub(crate) fn run(context: &Context, mut arguments: Arguments) -> Result<bool> {
    let rounds =
        Rounds { number: arguments.number("--rounds")?, seed: arguments.number("--seed")? };
    let context = &Context { rounds, ..context.clone() };
    let update = arguments.flag("--update");
    let names = arguments.names()?;
    if names.is_empty() {
        let rows: Vec<_> =
            SUITES.iter().map(|suite| [suite.name.to_owned(), suite.about.to_owned()]).collect();
        print!("{}", table::render(["suite", "what it shows"], &rows));
        return Ok(true);
    }
    let mut report = Report::default();
    if update {
        if names != [security::SUITE.name] {
            bail!(
                "`--update` writes the table of the suite {}; name it alone",
                security::SUITE.name
            );
        }
        security::update(context, &mut report)?;
        return Ok(report.print(true));
    }
    for name in &names {
        let Some(suite) = SUITES.iter().find(|suite| suite.name == name) else {
            bail!("no suite `{name}`; `cargo xtask suite` lists them");
        };
        suite.run_into(context, &mut report);
        // What was asked for by name and found nothing to run did not show what it should.
        if report.is_empty() {
            report.fail(format!("suite {name}: ran no test"));
        }
    }
    Ok(report.print(true))
}

/// What suites build and no test does, so that it can be built before their turn.
pub(crate) fn builds(context: &Context) -> Vec<Command> {
    let fuzz = fuzz::can_be_built().then(|| fuzz::build(context));
    std::iter::once(example::build(context)).chain(fuzz).collect()
}

/// The suites of the packages, of all where none is named, that `cargo test` does not run.
pub(crate) fn beyond_cargo_test(packages: &[String]) -> impl Iterator<Item = &'static Suite> {
    let concerned = |suite: &&Suite| {
        packages.is_empty() || packages.iter().any(|package| package == suite.package)
    };
    SUITES.iter().filter(|suite| !suite.within_cargo_test).filter(concerned)
}

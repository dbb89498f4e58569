//! `cargo xtask suite`: test suites that need something beyond cargo, each in a file of its own.
//!
//! To add one, write the file with its `SUITE` and name it in [`SUITES`].

mod example;
mod local_model;
mod openai_python;
mod ordinary_user;
mod sandbox_linux;

use anyhow::{Result, bail};

use crate::arguments::Arguments;
use crate::context::Context;
use crate::report::Report;
use crate::table;

/// A suite: it counts what it ran in the report, and says there what it could not run and why.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// The crate that it tests.
    pub(crate) package: &'static str,
    pub(crate) run: fn(&Context, Scope, &mut Report) -> Result<()>,
}

/// What went before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Nothing: the suite runs all it has.
    Alone,
    /// The tests of its package: it leaves out what they ran already.
    AfterCargoTest,
}

const SUITES: &[Suite] = &[
    sandbox_linux::CONFORMANCE,
    sandbox_linux::ISOLATION,
    openai_python::SUITE,
    local_model::SUITE,
    example::SUITE,
];

impl Suite {
    /// Runs the suite; that it could not be run is a failure in the report.
    pub(crate) fn run_into(&self, context: &Context, scope: Scope, report: &mut Report) {
        println!("\n=== suite {}: {}", self.name, self.about);
        if let Err(error) = (self.run)(context, scope, report) {
            report.fail(format!("suite {}: {error:#}", self.name));
        }
    }
}

pub(crate) fn run(context: &Context, arguments: Arguments) -> Result<bool> {
    let names = arguments.names()?;
    if names.is_empty() {
        let rows: Vec<_> =
            SUITES.iter().map(|suite| [suite.name.to_owned(), suite.about.to_owned()]).collect();
        print!("{}", table::render(["suite", "what it shows"], &rows));
        return Ok(true);
    }
    let mut report = Report::default();
    for name in &names {
        let Some(suite) = SUITES.iter().find(|suite| suite.name == name) else {
            bail!("no suite `{name}`; `cargo xtask suite` lists them");
        };
        suite.run_into(context, Scope::Alone, &mut report);
    }
    Ok(report.print(true))
}

/// The suites of the packages; all of them where none is named.
pub(crate) fn of_packages(packages: &[String]) -> impl Iterator<Item = &'static Suite> {
    SUITES.iter().filter(|suite| {
        packages.is_empty() || packages.iter().any(|package| package == suite.package)
    })
}

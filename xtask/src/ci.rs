//! `cargo xtask ci`: every check that a change must pass, as steps that can be chosen by name.

mod alone;
mod beside;
mod deny;
mod generated;
mod tracked;

use std::time::Instant;

use anyhow::{Result, bail};

use self::beside::Beside;
use crate::arguments::Arguments;
use crate::command::{cargo_in, run as run_command};
use crate::context::Context;
use crate::report::Report;
use crate::suite;
use crate::test::{select, test, tests_of};

/// One step: it counts what it checked in the report.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Context, &[String], &mut Report) -> Result<()>,
}

/// In the order of their cost, so that the cheap answers come first.
const STEPS: &[Step] = &[
    Step { name: "fmt", about: "the sources are formatted", run: fmt },
    Step {
        name: "tracked",
        about: "no path of this machine and no big file is tracked",
        run: tracked::run,
    },
    Step { name: "layers", about: "crates and sources keep to layers.toml", run: layers },
    Step {
        name: "deny",
        about: "licences, banned crates and sources of dependencies",
        run: deny::run,
    },
    Step { name: "clippy", about: "no lint is raised", run: clippy },
    Step {
        name: "build",
        about: "all tests build; what follows runs the programs that are built with them",
        run: build,
    },
    Step { name: "doc", about: "the documentation builds and its links lead somewhere", run: doc },
    Step {
        name: "schema",
        about: "the published schema of the agent file is fresh",
        run: generated::schema,
    },
    Step {
        name: "example",
        about: "the generated data of the example is fresh",
        run: generated::example,
    },
    Step {
        name: "alone",
        about: "each crate builds alone, with each of its features; beside `test` where both are chosen",
        run: alone::run,
    },
    Step { name: "test", about: "every test that this machine can run", run: tests },
];

pub(crate) fn run(context: &Context, mut arguments: Arguments) -> Result<bool> {
    let packages = arguments.packages()?;
    context.workspace.require_members(&packages)?;
    let chosen = choose(&arguments.names()?)?;
    let mut report = Report::default();
    let mut context = context.clone();
    let is_chosen = |wanted| chosen.iter().any(|step| step.name == wanted);
    let alone_beside_test = is_chosen("alone") && is_chosen("test");
    for Step { name, about, run } in &chosen {
        if *name == "alone" && alone_beside_test {
            continue;
        }
        println!("\n=== {name}: {about}");
        let start = Instant::now();
        let failures = report.failures.len();
        let beside = (*name == "test" && alone_beside_test).then(|| {
            // First what the last suites wait for.
            let suites = if packages.is_empty() { suite::builds(&context) } else { Vec::new() };
            Beside::start(suites.into_iter().chain(alone::commands(&context, &packages)).collect())
        });
        if let Err(error) = run(&context, &packages, &mut report) {
            report.fail(format!("{name}: {error:#}"));
        }
        if let Some(beside) = beside {
            println!("\n=== alone, beside the tests");
            beside.finish(&mut report);
        }
        context.built |=
            *name == "build" && packages.is_empty() && report.failures.len() == failures;
        println!("--- {name}: {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(report.print(true))
}

/// The named steps in their usual order; all of them where none is named.
fn choose(names: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(unknown) =
        names.iter().find(|name| STEPS.iter().all(|step| step.name != name.as_str()))
    {
        let known: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        bail!("no step `{unknown}`; there are {}", known.join(", "));
    }
    Ok(STEPS
        .iter()
        .filter(|step| names.is_empty() || names.iter().any(|name| name == step.name))
        .collect())
}

fn fmt(context: &Context, packages: &[String], report: &mut Report) -> Result<()> {
    let mut command = cargo_in(&context.workspace.root);
    command.arg("fmt");
    if packages.is_empty() {
        command.arg("--all");
    }
    for package in packages {
        command.args(["-p", package]);
    }
    report.check("fmt", run_command(command.args(["--", "--check"]))?);
    if packages.is_empty() {
        let mut fuzz = cargo_in(&context.path("fuzz"));
        report.check("fmt of fuzz", run_command(fuzz.args(["fmt", "--", "--check"]))?);
    }
    Ok(())
}

fn clippy(context: &Context, packages: &[String], report: &mut Report) -> Result<()> {
    let mut command = cargo_in(&context.workspace.root);
    command.arg("clippy");
    select(&mut command, packages);
    command.args(["--all-targets", "--all-features", "--", "-D", "warnings"]);
    report.check("clippy", run_command(&mut command)?);
    Ok(())
}

fn build(context: &Context, packages: &[String], report: &mut Report) -> Result<()> {
    let mut command = tests_of(context, packages);
    report.check("build", run_command(command.arg("--no-run"))?);
    Ok(())
}

fn doc(context: &Context, packages: &[String], report: &mut Report) -> Result<()> {
    let mut command = cargo_in(&context.workspace.root);
    command.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--no-deps", "--all-features"]);
    select(&mut command, packages);
    report.check("doc", run_command(&mut command)?);
    Ok(())
}

fn layers(context: &Context, _packages: &[String], report: &mut Report) -> Result<()> {
    report.check("layers", crate::layers::check(context)?);
    Ok(())
}

fn tests(context: &Context, packages: &[String], report: &mut Report) -> Result<()> {
    test(context, packages, true, report)
}

#[cfg(test)]
mod choosing {
    use super::choose;

    #[test]
    fn steps_keep_their_order() {
        let names = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            choose(&words).map(|steps| steps.iter().map(|step| step.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["clippy", "fmt"]).unwrap(), ["fmt", "clippy"]);
        assert!(names(&[]).unwrap().len() >= 10);
        let message = names(&["lint"]).unwrap_err().to_string();
        assert!(message.starts_with("no step `lint`; there are fmt, "), "{message}");
    }
}

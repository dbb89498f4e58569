//! `cargo xtask layers`: compares the crates and their sources with `layers.toml`.

mod graph;
mod rules;
mod sources;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::context::Context;
use rules::Rules;

pub(crate) fn run(context: &Context, arguments: Arguments) -> Result<bool> {
    arguments.finish()?;
    check(context)
}

/// Prints each violation, and answers whether there was none.
pub(crate) fn check(context: &Context) -> Result<bool> {
    let rules = Rules::load(&context.path("layers.toml"))?;
    let mut violations = graph::check(&rules, &context.workspace);
    violations.extend(sources::check(&rules, &context.workspace)?);
    for violation in &violations {
        println!("layers: {violation}");
    }
    for allowance in graph::unused(&rules, &context.workspace) {
        println!("note: {allowance}");
    }
    if violations.is_empty() {
        println!("layers: {} crates keep to layers.toml", rules.crates.len());
    }
    Ok(violations.is_empty())
}

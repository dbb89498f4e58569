//! Each crate builds with `-p` alone: with its default features, with none, with each by itself, and with all.

use std::process::Command;

use anyhow::Result;

use crate::command::{cargo_in, run as run_command, shown};
use crate::context::Context;
use crate::metadata::Package;
use crate::report::Report;

pub(crate) fn run(context: &Context, packages: &[String], report: &mut Report) -> Result<()> {
    for mut command in commands(context, packages) {
        let good = run_command(&mut command)?;
        report.check(&format!("alone: {}", shown(&command)), good);
    }
    Ok(())
}

/// The builds of the packages, or of all where none is named.
pub(super) fn commands(context: &Context, packages: &[String]) -> Vec<Command> {
    let members = context.workspace.members().into_iter().map(|(_, package)| package);
    let chosen = members.filter(|it| packages.is_empty() || packages.contains(&it.name));
    let check = |package: &Package, variant: &[String]| {
        let mut command = cargo_in(&context.workspace.root);
        command.args(["check", "--quiet", "-p", &package.name]).args(variant);
        command
    };
    chosen
        .flat_map(|package| variants(package).into_iter().map(move |it| check(package, &it)))
        .collect()
}

/// The feature flags of each build that differs from the others.
fn variants(package: &Package) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let mut variants = vec![words(&[])];
    if package.features.is_empty() {
        return variants;
    }
    variants.push(words(&["--no-default-features"]));
    for feature in &package.features {
        variants.push(words(&["--no-default-features", "--features", feature]));
    }
    if package.features.len() > 1 {
        variants.push(words(&["--all-features"]));
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::variants;
    use crate::metadata::tests::workspace;

    fn check(features: &[&str], expect: &[&str]) {
        let mut workspace = workspace("a");
        let package = workspace.packages.get_mut("a").unwrap();
        package.features = features.iter().map(|&name| name.to_owned()).collect();
        let shown: Vec<String> = variants(package).iter().map(|words| words.join(" ")).collect();
        assert_eq!(shown, expect);
    }

    #[test]
    fn each_feature_has_its_own_build() {
        check(&[], &[""]);
        check(&["x"], &["", "--no-default-features", "--no-default-features --features x"]);
        check(
            &["x", "y"],
            &[
                "",
                "--no-default-features",
                "--no-default-features --features x",
                "--no-default-features --features y",
                "--all-features",
            ],
        );
    }
}

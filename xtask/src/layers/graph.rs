//! The rules on the dependency graph: levels, allowed edges, absences.

use std::collections::{BTreeMap, VecDeque};

use super::rules::{Forbid, Place, Rules};
use crate::metadata::{Edge, Kind, Package, Workspace};

/// Every violation, one sentence each.
pub(crate) fn check(rules: &Rules, workspace: &Workspace) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, _) in rules.crates.iter().filter(|(name, _)| workspace.member(name).is_none()) {
        violations.push(format!("`{name}` is in layers.toml and not in the workspace"));
    }
    for (_, package) in workspace.members() {
        match rules.crates.get(&package.name) {
            Some(place) => check_edges(rules, workspace, package, place, &mut violations),
            None => violations.push(format!(
                "`{}` is not in layers.toml: give it a level and a role",
                package.name
            )),
        }
    }
    for forbid in &rules.forbid {
        check_absence(forbid, workspace, &mut violations);
    }
    violations
}

fn check_edges(
    rules: &Rules,
    workspace: &Workspace,
    package: &Package,
    place: &Place,
    violations: &mut Vec<String>,
) {
    let from = &package.name;
    if place.role.trim().is_empty() {
        violations.push(format!("`{from}` has no role in layers.toml"));
    }
    for to in own_dependencies(workspace, package) {
        // A crate without a place is reported once, by itself.
        let Some(target) = rules.crates.get(to) else { continue };
        if target.dev_only {
            violations
                .push(format!("`{from}` depends on `{to}`, which is for [dev-dependencies] only"));
        } else if target.level > place.level {
            let (low, high) = (place.level, target.level);
            violations
                .push(format!("`{from}` (level {low}) depends upwards on `{to}` (level {high})"));
        } else if target.level == place.level && !place.sideways.iter().any(|name| name == to) {
            violations.push(format!(
                "`{from}` depends on `{to}` of its own level {}; if that must be, name it under `sideways`",
                place.level
            ));
        } else if target.level < place.level && !place.uses.iter().any(|name| name == to) {
            violations.push(format!(
                "`{from}` depends on `{to}`, which its `uses` in layers.toml does not name"
            ));
        }
    }
}

fn check_absence(forbid: &Forbid, workspace: &Workspace, violations: &mut Vec<String>) {
    let concerned = |name: &String| {
        if forbid.from.is_empty() {
            !forbid.except.contains(name)
        } else {
            forbid.from.contains(name)
        }
    };
    for name in &forbid.from {
        if workspace.member(name).is_none() {
            violations
                .push(format!("a `forbid` rule names `{name}`, which is not in the workspace"));
        }
    }
    for (id, package) in
        workspace.members().into_iter().filter(|(_, package)| concerned(&package.name))
    {
        let paths = paths_from(workspace, id, forbid.features_off);
        for target in &forbid.to {
            if let Some(path) = paths.get(target.as_str()) {
                violations.push(format!(
                    "`{}` must not reach `{target}` ({}): {}",
                    package.name,
                    forbid.reason,
                    path.join(" -> ")
                ));
            }
        }
    }
}

/// The shortest path to each package that is reached through normal and build dependencies, by name.
fn paths_from<'w>(
    workspace: &'w Workspace,
    start: &'w str,
    features_off: bool,
) -> BTreeMap<&'w str, Vec<&'w str>> {
    let mut paths: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::from([start]);
    let mut queue = VecDeque::from([(start, Vec::new())]);
    while let Some((id, before)) = queue.pop_front() {
        let Some(package) = workspace.packages.get(id) else { continue };
        let mut path = before;
        path.push(package.name.as_str());
        let wanted = |edge: &&Edge| {
            edge.kind != Kind::Dev && !(features_off && id == start && edge.optional)
        };
        for edge in package.edges.iter().filter(wanted) {
            if seen.insert(&edge.to) {
                queue.push_back((&edge.to, path.clone()));
            }
        }
        paths.entry(&package.name).or_insert(path);
    }
    // A crate does not reach itself; what it reaches under its own name is another version.
    if let Some(package) = workspace.packages.get(start) {
        paths.remove(package.name.as_str());
    }
    paths
}

/// What `layers.toml` allows and nobody uses: not wrong, and worth removing.
pub(crate) fn unused(rules: &Rules, workspace: &Workspace) -> Vec<String> {
    let mut notes = Vec::new();
    for (_, package) in workspace.members() {
        let Some(place) = rules.crates.get(&package.name) else { continue };
        let used: Vec<&str> = own_dependencies(workspace, package).collect();
        let allowed = place.uses.iter().chain(&place.sideways);
        let idle: Vec<&str> =
            allowed.map(String::as_str).filter(|name| !used.contains(name)).collect();
        if !idle.is_empty() {
            notes.push(format!(
                "layers.toml lets `{}` use what it does not: {}",
                package.name,
                idle.join(", ")
            ));
        }
    }
    notes
}

/// The crates of the workspace that the package names in `[dependencies]` and `[build-dependencies]`.
fn own_dependencies<'w>(
    workspace: &'w Workspace,
    package: &'w Package,
) -> impl Iterator<Item = &'w str> {
    let normal = package.edges.iter().filter(|edge| edge.kind != Kind::Dev);
    let members =
        normal.filter_map(|edge| workspace.packages.get(&edge.to)).filter(|package| package.member);
    members.map(|package| package.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::{check, unused};
    use crate::layers::rules::Rules;
    use crate::metadata::tests::workspace;

    const RULES: &str = "
        [crates.core]
        level = 0
        role = 'vocabulary'
        [crates.model]
        level = 1
        role = 'the seam'
        uses = ['core']
        [crates.tool]
        level = 1
        role = 'the other seam'
        uses = ['core']
        sideways = ['model']
        [crates.testkit]
        level = 3
        role = 'doubles'
        uses = ['core']
        dev_only = true
        [crates.harness]
        level = 2
        role = 'the loop'
        uses = ['core', 'model']
        [[forbid]]
        from = ['harness']
        to = ['reqwest']
        reason = 'the harness is given its provider'
        [[forbid]]
        except = ['tool']
        to = ['rustix']
        reason = 'only tools call the system'
        [[forbid]]
        from = ['core']
        to = ['tokio']
        features_off = true
        reason = 'core is pure'
    ";

    const GOOD: &str = "
        core: serde dev/testkit
        model: core dev/harness
        tool: core model rustix
        testkit: core
        harness: core model dev/testkit
        [rustix]
        [serde]
    ";

    fn check_with(change: impl Fn(&str) -> String, expect: &[&str]) {
        assert_eq!(check(&Rules::parse(RULES).unwrap(), &workspace(&change(GOOD))), expect);
    }

    #[test]
    fn a_good_graph_has_no_violation() {
        check_with(str::to_owned, &[]);
    }

    #[test]
    fn an_edge_must_be_listed() {
        let rules = RULES.replace("uses = ['core', 'model']", "uses = ['core']");
        assert_eq!(
            check(&Rules::parse(&rules).unwrap(), &workspace(GOOD)),
            ["`harness` depends on `model`, which its `uses` in layers.toml does not name"]
        );
    }

    #[test]
    fn an_edge_goes_down() {
        check_with(
            |graph| graph.replace("model: core", "model: core harness"),
            &["`model` (level 1) depends upwards on `harness` (level 2)"],
        );
        check_with(
            |graph| {
                graph
                    .replace("model: core", "model: core build/tool")
                    .replace("tool: core model", "tool: core")
            },
            &[
                "`model` depends on `tool` of its own level 1; if that must be, name it under `sideways`",
                "`harness` must not reach `rustix` (only tools call the system): harness -> model -> tool -> rustix",
                "`model` must not reach `rustix` (only tools call the system): model -> tool -> rustix",
            ],
        );
    }

    #[test]
    fn every_crate_has_a_place_and_every_place_a_crate() {
        check_with(
            |graph| graph.replace("testkit: core", "").replace("dev/testkit", "") + "\nextra: core",
            &[
                "`testkit` is in layers.toml and not in the workspace",
                "`extra` is not in layers.toml: give it a level and a role",
            ],
        );
        let rules = RULES.replace("role = 'doubles'", "role = ' '");
        assert_eq!(
            check(&Rules::parse(&rules).unwrap(), &workspace(GOOD)),
            ["`testkit` has no role in layers.toml"]
        );
    }

    #[test]
    fn test_doubles_stay_in_tests() {
        check_with(
            |graph| graph.replace("model dev/testkit", "model testkit"),
            &["`harness` depends on `testkit`, which is for [dev-dependencies] only"],
        );
    }

    #[test]
    fn absences_hold_through_others() {
        check_with(
            |graph| graph.replace("[serde]", "[serde]: hyper\n[hyper]: reqwest\n[reqwest]"),
            &["`harness` must not reach `reqwest` (the harness is given its provider): \
               harness -> core -> serde -> hyper -> reqwest"],
        );
        check_with(|graph| graph.replace("[serde]", "[serde]: dev/reqwest\n[reqwest]"), &[]);
    }

    #[test]
    fn an_absence_without_from_is_for_all_but_the_exceptions() {
        check_with(
            |graph| graph.replace("testkit: core", "testkit: core rustix"),
            &["`testkit` must not reach `rustix` (only tools call the system): testkit -> rustix"],
        );
    }

    #[test]
    fn optional_dependencies_count_where_the_rule_says_so() {
        let pure = "`core` must not reach `tokio` (core is pure): core -> tokio";
        check_with(
            |graph| graph.replace("core: serde", "core: serde tokio") + "\n[tokio]",
            &[pure],
        );
        check_with(
            |graph| graph.replace("core: serde", "core: serde optional/tokio") + "\n[tokio]",
            &[],
        );
        check_with(
            |graph| graph.replace("testkit: core", "testkit: core optional/rustix"),
            &["`testkit` must not reach `rustix` (only tools call the system): testkit -> rustix"],
        );
    }

    #[test]
    fn a_rule_about_nobody_is_a_mistake() {
        let rules = RULES.replace("from = ['harness']", "from = ['harnes']");
        assert_eq!(
            check(&Rules::parse(&rules).unwrap(), &workspace(GOOD)),
            ["a `forbid` rule names `harnes`, which is not in the workspace"]
        );
    }

    #[test]
    fn allowances_that_nobody_uses_are_noted() {
        let graph = GOOD.replace("harness: core model", "harness: core");
        assert_eq!(
            unused(&Rules::parse(RULES).unwrap(), &workspace(&graph)),
            ["layers.toml lets `harness` use what it does not: model"]
        );
    }
}

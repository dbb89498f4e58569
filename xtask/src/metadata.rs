//! The crates of the workspace and what they depend on, from `cargo metadata`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::command::cargo_in;

/// The resolved workspace: its own crates and everything below them, with every feature on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    /// By cargo's package id: two versions of one crate are two packages.
    pub(crate) packages: BTreeMap<String, Package>,
}

/// One package of the graph.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Whether it is one of ours.
    pub(crate) member: bool,
    pub(crate) directory: PathBuf,
    /// Without `default`.
    pub(crate) features: Vec<String>,
    pub(crate) edges: Vec<Edge>,
}

/// A dependency of one package on another.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    /// The id of the other package.
    pub(crate) to: String,
    pub(crate) kind: Kind,
    /// Off unless a feature asks for it.
    pub(crate) optional: bool,
}

/// What a dependency is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

impl Workspace {
    /// Asks cargo for the workspace of the current directory: the alias works inside a crate, too.
    pub(crate) fn load() -> Result<Self> {
        let output = cargo_in(Path::new("."))
            .args(["metadata", "--format-version=1", "--all-features"])
            .output()
            .context("could not start cargo")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Self::from_json(&output.stdout)
    }

    fn from_json(json: &[u8]) -> Result<Self> {
        let raw: RawMetadata =
            serde_json::from_slice(json).context("cargo metadata printed something else")?;
        let mut packages = BTreeMap::new();
        let mut declared = BTreeMap::new();
        for package in raw.packages {
            declared.insert(package.id.clone(), package.dependencies);
            packages.insert(
                package.id.clone(),
                Package {
                    name: package.name,
                    member: raw.workspace_members.contains(&package.id),
                    directory: package
                        .manifest_path
                        .parent()
                        .map(Path::to_path_buf)
                        .unwrap_or_default(),
                    features: package
                        .features
                        .into_keys()
                        .filter(|name| name != "default")
                        .collect(),
                    edges: Vec::new(),
                },
            );
        }
        for node in raw.resolve.nodes {
            let mut edges = Vec::new();
            for dependency in node.deps {
                let name = packages
                    .get(&dependency.pkg)
                    .map(|package| package.name.clone())
                    .unwrap_or_default();
                for kind in dependency.dep_kinds.iter().map(|raw| Kind::parse(raw.kind.as_deref()))
                {
                    let optional = declared.get(&node.id).into_iter().flatten().any(|declared| {
                        declared.name == name
                            && Kind::parse(declared.kind.as_deref()) == kind
                            && declared.optional
                    });
                    edges.push(Edge { to: dependency.pkg.clone(), kind, optional });
                }
            }
            if let Some(package) = packages.get_mut(&node.id) {
                package.edges = edges;
            }
        }
        Ok(Self { root: raw.workspace_root, target: raw.target_directory, packages })
    }

    /// Our own crates, by name.
    pub(crate) fn members(&self) -> Vec<(&str, &Package)> {
        let mut members: Vec<_> = self
            .packages
            .iter()
            .filter(|(_, package)| package.member)
            .map(|(id, package)| (id.as_str(), package))
            .collect();
        members.sort_by(|left, right| left.1.name.cmp(&right.1.name));
        members
    }

    /// The crate of the workspace with that name.
    pub(crate) fn member(&self, name: &str) -> Option<(&str, &Package)> {
        self.members().into_iter().find(|(_, package)| package.name == name)
    }

    /// Refuses names that are no crate of the workspace.
    pub(crate) fn require_members(&self, names: &[String]) -> Result<()> {
        for name in names {
            if self.member(name).is_none() {
                bail!("no crate `{name}` in the workspace");
            }
        }
        Ok(())
    }
}

impl Kind {
    fn parse(raw: Option<&str>) -> Self {
        match raw {
            Some("dev") => Self::Dev,
            Some("build") => Self::Build,
            _ => Self::Normal,
        }
    }
}

#[derive(Deserialize)]
struct RawMetadata {
    packages: Vec<RawPackage>,
    workspace_members: Vec<String>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
    resolve: RawResolve,
}

#[derive(Deserialize)]
struct RawPackage {
    name: String,
    id: String,
    manifest_path: PathBuf,
    features: BTreeMap<String, Vec<String>>,
    dependencies: Vec<RawDependency>,
}

#[derive(Deserialize)]
struct RawDependency {
    name: String,
    kind: Option<String>,
    optional: bool,
}

#[derive(Deserialize)]
struct RawResolve {
    nodes: Vec<RawNode>,
}

#[derive(Deserialize)]
struct RawNode {
    id: String,
    deps: Vec<RawNodeDependency>,
}

#[derive(Deserialize)]
struct RawNodeDependency {
    pkg: String,
    dep_kinds: Vec<RawKind>,
}

#[derive(Deserialize)]
struct RawKind {
    kind: Option<String>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{BTreeMap, Edge, Kind, Package, Workspace};

    /// A made-up workspace. A line is `name: dependency dependency`; a name in brackets is not ours; a dependency may
    /// carry `dev/`, `build/` and `optional/` in front.
    pub(crate) fn workspace(lines: &str) -> Workspace {
        let mut packages = BTreeMap::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, dependencies) = line.split_once(':').unwrap_or((line, ""));
            let outside = name.starts_with('[');
            let name = name.trim_matches(['[', ']']).to_owned();
            let edges = dependencies.split_whitespace().map(edge).collect();
            let package = Package {
                name: name.clone(),
                member: !outside,
                directory: name.clone().into(),
                features: Vec::new(),
                edges,
            };
            packages.insert(name, package);
        }
        Workspace { packages, ..Workspace::default() }
    }

    fn edge(word: &str) -> Edge {
        let parts: Vec<&str> = word.split('/').collect();
        let kind = match parts.as_slice() {
            parts if parts.contains(&"dev") => Kind::Dev,
            parts if parts.contains(&"build") => Kind::Build,
            _ => Kind::Normal,
        };
        Edge {
            to: (*parts.last().unwrap()).to_owned(),
            kind,
            optional: parts.contains(&"optional"),
        }
    }

    #[test]
    fn reads_what_cargo_prints() {
        let json = br#"{
            "packages": [
                {"name": "a", "id": "path#a", "manifest_path": "/w/a/Cargo.toml",
                 "features": {"default": ["x"], "x": ["dep:b"]},
                 "dependencies": [{"name": "b", "kind": null, "optional": true}, {"name": "b", "kind": "dev", "optional": false}]},
                {"name": "b", "id": "registry#b", "manifest_path": "/r/b/Cargo.toml", "features": {}, "dependencies": []}
            ],
            "workspace_members": ["path#a"], "workspace_root": "/w", "target_directory": "/w/target",
            "resolve": {"nodes": [
                {"id": "path#a", "deps": [{"pkg": "registry#b", "dep_kinds": [{"kind": null}, {"kind": "dev"}]}]},
                {"id": "registry#b", "deps": []}
            ]}
        }"#;
        let workspace = Workspace::from_json(json).unwrap();
        let (_, a) = workspace.member("a").unwrap();
        assert_eq!(a.features, ["x"]);
        let edges: Vec<_> =
            a.edges.iter().map(|edge| (edge.to.as_str(), edge.kind, edge.optional)).collect();
        assert_eq!(edges, [("registry#b", Kind::Normal, true), ("registry#b", Kind::Dev, false)]);
        assert!(workspace.member("b").is_none(), "b is not ours");
        assert_eq!(
            workspace.require_members(&["b".into()]).unwrap_err().to_string(),
            "no crate `b` in the workspace"
        );
    }
}

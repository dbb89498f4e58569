//! Reads a manifest: the field `workspace` of an agent file, or a file of its own.

use std::collections::BTreeMap;

use cofferdam_core::NetworkAccess;

use super::{
    Fields, agent::version, choice, entry::entries, list, mapping, number, positive_duration,
    positive_size, root::root, text, whole, workspace_path,
};
use crate::{FieldPath, Manifest, WorkspaceLimits, node::Node, problem::Problems, validate};

/// Reads a file that is a manifest alone.
pub(crate) fn standalone(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
) -> Option<Manifest> {
    let mut fields = Fields::open(node, path, problems)?;
    fields.required("version", "1", version);
    let manifest = known_fields(&mut fields);
    fields.close();
    validate::manifest(&manifest, path, problems);
    Some(manifest)
}

/// Reads the field `workspace`.
pub(super) fn manifest(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<Manifest> {
    let mut fields = Fields::open(node, path, problems)?;
    let manifest = known_fields(&mut fields);
    fields.close();
    validate::manifest(&manifest, path, problems);
    Some(manifest)
}

fn known_fields(fields: &mut Fields<'_, '_>) -> Manifest {
    const NETWORKS: [(&str, NetworkAccess); 2] =
        [("none", NetworkAccess::None), ("host", NetworkAccess::Host)];
    Manifest {
        entries: fields.optional("entries", entries).unwrap_or_default(),
        environment: fields.optional("environment", environment).unwrap_or_default(),
        limits: fields.optional("limits", limits).unwrap_or_default(),
        network: fields
            .optional("network", |node, path, problems| choice(node, path, problems, &NETWORKS))
            .unwrap_or_default(),
        root: fields.optional("root", root).unwrap_or_default(),
        read_only: fields
            .optional("read_only", |node, path, problems| {
                list(node, path, problems, workspace_path)
            })
            .unwrap_or_default(),
    }
}

fn environment(
    node: &Node,
    path: &FieldPath,
    problems: &mut Problems,
) -> Option<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (name, node) in mapping(node, path, problems)? {
        let path = path.key(name);
        if let Node::Map(fields) = node
            && fields.iter().any(|(key, _)| key == "secret")
        {
            problems.key(
                &path,
                "this would place a secret's value in the sandbox, where every command of the agent can read it; \
                 secrets stay in the control plane: remove the variable, and name the secret where the control plane \
                 uses it (`model.api_key`, `token` of a git entry)",
            );
        } else if let Some(value) = text(node, &path, problems) {
            variables.insert(name.clone(), value);
        }
    }
    Some(variables)
}

fn limits(node: &Node, path: &FieldPath, problems: &mut Problems) -> Option<WorkspaceLimits> {
    let mut fields = Fields::open(node, path, problems)?;
    let limits = WorkspaceLimits {
        memory: fields.optional("memory", positive_size),
        processes: fields.optional("processes", |n, path, p| whole(n, path, p, 1..=u32::MAX)),
        cpu: fields.optional("cpu", |n, path, p| number(n, path, p, 0.001..=1024.0)),
        cpu_weight: fields.optional("cpu_weight", |n, path, p| whole(n, path, p, 1..=10_000)),
        disk: fields.optional("disk", positive_size),
        inodes: fields.optional("inodes", |n, path, p| whole(n, path, p, 1..=u64::MAX)),
        open_files: fields.optional("open_files", |n, path, p| whole(n, path, p, 1..=u32::MAX)),
        output: fields.optional("output", positive_size),
        wall_time: fields.optional("wall_time", positive_duration),
        idle_time: fields.optional("idle_time", positive_duration),
    };
    fields.close();
    Some(limits)
}

//! [`Manifest`]: everything that a workspace holds at the start, and what bounds its sandbox.

use std::collections::BTreeMap;

use cofferdam_core::{NetworkAccess, SandboxLimits, WorkspacePath};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    AgentFileError, ByteSize, Entry, FieldPath, HumanDuration, Owner, RootSource, Warning, decode,
    entry::is_default, problem::Problems, schema, validate, warnings,
};

/// A declared workspace: entries, environment, limits, network, programs.
///
/// The default is an empty workspace in a sealed sandbox. It is the field `workspace` of an agent file, stands alone in
/// a file of its own ([`Manifest::parse`]), or is made in code ([`Manifest::builder`]); the checks are the same.
///
/// ```
/// use cofferdam_manifest::{Entry, Manifest};
///
/// let manifest = Manifest::builder()
///     .entry("notes/today.txt", Entry::file("buy milk\n"))
///     .entry("out", Entry::dir())
///     .environment("TZ", "UTC")
///     .build()?;
/// assert_eq!(manifest.entries.len(), 2);
/// # Ok::<(), cofferdam_manifest::AgentFileError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Manifest {
    /// What the workspace holds at the start, by path. Parents come before what is in them, so an entry below a
    /// directory from elsewhere adds to it or replaces in it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default, schema_with = "schema::entries")]
    pub entries: BTreeMap<WorkspacePath, Entry>,
    /// Variables of every command, as literal text. Secrets are refused: they stay in the control plane.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default, schema_with = "schema::environment")]
    pub environment: BTreeMap<String, String>,
    /// Bounds on what the sandbox may use.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(default)]
    pub limits: WorkspaceLimits,
    /// What the sandbox may reach over the network. Default `none`.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(default, schema_with = "schema::network")]
    pub network: NetworkAccess,
    /// Where programs and libraries come from. Default `host_system`.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(default)]
    pub root: RootSource,
    /// Paths that commands can read and not change, besides the entries of owner `control_plane`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, schema_with = "schema::workspace_paths")]
    pub read_only: Vec<WorkspacePath>,
}

/// Bounds on what a sandbox may use; what is not given has the default of
/// [`cofferdam_core::SandboxLimits`], which is finite.
#[derive(Debug, Clone, PartialEq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkspaceLimits {
    /// Memory of all processes and of the in-memory workspace together. Default `2GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processes and threads at a time. Default 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub processes: Option<u32>,
    /// Share of processors: `1` is one whole processor, `0.5` half of one. Default: no quota, only fair weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 1024.0))]
    pub cpu: Option<f64>,
    /// Weight when processors are wanted by more than there are; other work has 100. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub cpu_weight: Option<u32>,
    /// Bytes that the workspace and the other writable places may hold together. Default `1GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
    /// Files and directories that the writable places may hold. Default 200 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub inodes: Option<u64>,
    /// Open files of one process. Default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub open_files: Option<u32>,
    /// Output that one command may produce before it is stopped. Default `1GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<ByteSize>,
    /// Time after which the sandbox is closed. Default `1d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time: Option<HumanDuration>,
    /// Time without any operation and any running command after which the sandbox is closed. Default: only `wall_time`
    /// closes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_time: Option<HumanDuration>,
}

impl Manifest {
    /// Parses a file that is a manifest alone: the fields of `workspace`, and `version: 1`.
    ///
    /// `name` is the file's name in messages; nothing is read.
    ///
    /// # Errors
    ///
    /// Reports every problem found, each with its line.
    pub fn parse(yaml: &str, name: &str) -> Result<Self, AgentFileError> {
        decode::document(yaml, name, decode::manifest::standalone)
    }

    /// Starts an empty manifest.
    #[must_use]
    pub fn builder() -> ManifestBuilder {
        ManifestBuilder::default()
    }

    /// Checks what the types cannot express: overlapping entries, names, addresses, sizes.
    ///
    /// Parsing and building have done it; it is here for manifests whose fields were changed.
    ///
    /// # Errors
    ///
    /// Reports every problem found.
    pub fn validate(&self) -> Result<(), AgentFileError> {
        let mut problems = Problems::default();
        validate::manifest(self, &FieldPath::root(), &mut problems);
        problems.into_result("manifest", |_, _| None)
    }

    /// Returns what deserves a second look although it is allowed, such as text that looks like a secret.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        warnings::manifest(self, &FieldPath::root())
    }

    /// Returns the paths that commands can read and not change, sorted.
    #[must_use]
    pub fn read_only_paths(&self) -> Vec<WorkspacePath> {
        let owned = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.options.owner == Owner::ControlPlane)
            .map(|(path, _)| path.clone());
        let mut paths: Vec<WorkspacePath> = self.read_only.iter().cloned().chain(owned).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Returns the paths of the ephemeral entries, sorted: what is not copied out of the workspace.
    #[must_use]
    pub fn ephemeral_paths(&self) -> Vec<WorkspacePath> {
        let ephemeral = self.entries.iter().filter(|(_, entry)| entry.options.ephemeral);
        ephemeral.map(|(path, _)| path.clone()).collect()
    }

    /// Returns the sandbox's limits, with defaults for what is not given.
    #[must_use]
    pub fn sandbox_limits(&self) -> SandboxLimits {
        self.limits.to_sandbox_limits()
    }
}

impl WorkspaceLimits {
    /// Returns the limits in the form that sandboxes take, with defaults for what is not given.
    #[must_use]
    pub fn to_sandbox_limits(&self) -> SandboxLimits {
        let default = SandboxLimits::default();
        SandboxLimits {
            memory_bytes: self.memory.map_or(default.memory_bytes, ByteSize::bytes),
            processes: self.processes.unwrap_or(default.processes),
            cpu_millis: self.cpu.map(cpu_millis),
            disk_bytes: self.disk.map_or(default.disk_bytes, ByteSize::bytes),
            disk_inodes: self.inodes.unwrap_or(default.disk_inodes),
            open_files: self.open_files.unwrap_or(default.open_files),
            output_bytes: self.output.map_or(default.output_bytes, ByteSize::bytes),
            wall_time: self.wall_time.map_or(default.wall_time, HumanDuration::as_duration),
            cpu_weight: self.cpu_weight,
            idle_time: self.idle_time.map(HumanDuration::as_duration),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float to integer cast saturates, and the value is checked to be 0.001 to 1024"
)]
fn cpu_millis(processors: f64) -> u32 {
    (processors * 1000.0).round().max(1.0) as u32
}

/// Makes a [`Manifest`] in code; paths are checked when it is built.
#[derive(Debug, Default)]
pub struct ManifestBuilder {
    manifest: Manifest,
    problems: Problems,
}

impl ManifestBuilder {
    /// Adds an entry at a path of the workspace.
    #[must_use]
    pub fn entry(mut self, path: &str, entry: impl Into<Entry>) -> Self {
        let field = FieldPath::root().key("entries").key(path);
        decode::entry::insert(
            &mut self.manifest.entries,
            path,
            entry.into(),
            &field,
            &mut self.problems,
        );
        self
    }

    /// Gives every command a variable with a literal value.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.manifest.environment.insert(name.into(), value.into());
        self
    }

    /// Sets the bounds on what the sandbox may use.
    #[must_use]
    pub fn limits(mut self, limits: WorkspaceLimits) -> Self {
        self.manifest.limits = limits;
        self
    }

    /// Opens the network.
    #[must_use]
    pub fn network(mut self, network: NetworkAccess) -> Self {
        self.manifest.network = network;
        self
    }

    /// Takes programs and libraries from elsewhere.
    #[must_use]
    pub fn root(mut self, root: RootSource) -> Self {
        self.manifest.root = root;
        self
    }

    /// Checks all and returns the manifest.
    ///
    /// # Errors
    ///
    /// Reports every problem found.
    pub fn build(self) -> Result<Manifest, AgentFileError> {
        let Self { manifest, mut problems } = self;
        validate::manifest(&manifest, &FieldPath::root(), &mut problems);
        problems.into_result("manifest", |_, _| None)?;
        Ok(manifest)
    }
}

//! [`Entry`]: one thing that is put into a workspace before the agent starts.

use cofferdam_core::{SecretRef, WorkspacePath};
use schemars::JsonSchema;
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{ByteSize, Mode, schema};

/// One thing that is put into a workspace: where it comes from, and how it is to look there.
///
/// ```
/// use cofferdam_manifest::{Entry, Mode};
///
/// let script = Entry::file("#!/bin/sh\necho hello\n").mode("0755".parse()?).describe("says hello");
/// assert_eq!(script.options.mode, Some(Mode::DIRECTORY));
/// # Ok::<(), cofferdam_manifest::ModeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where the content comes from.
    #[serde(flatten)]
    pub source: EntrySource,
    /// How it is to look in the workspace.
    #[serde(flatten)]
    pub options: EntryOptions,
}

/// How an entry is to look in the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct EntryOptions {
    /// What it is, for people and for the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Permission bits of the file, or of the directory itself. Default: those of the source; `0644` for inline files
    /// and `0755` for directories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Who may change it. Default `agent`.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(default)]
    pub owner: Owner,
    /// Leave it out of what is copied out of the workspace, and out of snapshots. Default false.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(default)]
    pub ephemeral: bool,
}

/// Who may change an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Owner {
    /// The agent's commands may change and remove it.
    #[default]
    Agent,
    /// The agent's commands can read it and not change it.
    ControlPlane,
}

/// Where an entry's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EntrySource {
    /// A file whose content is written here.
    File(InlineFile),
    /// An empty directory.
    Dir,
    /// One file of the host.
    LocalFile(LocalFile),
    /// A directory of the host with all in it: modes, empty directories and the links that stay inside are kept.
    LocalDir(LocalDir),
    /// A revision of a git repository, cloned by the control plane.
    Git(GitSource),
}

/// A file whose content is written in the manifest, as `content` or as `content_base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// The content.
    pub content: Vec<u8>,
}

/// One file of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct LocalFile {
    /// Path on the host, relative to the directory of this file. What is not beneath it needs the caller's grant.
    pub source: String,
    /// Bytes that it may have. Default `1GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
}

/// A directory of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct LocalDir {
    /// Path on the host, relative to the directory of this file. What is not beneath it needs the caller's grant.
    pub source: String,
    /// Patterns of what is left out, in the notation of `.gitignore`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub ignore: Vec<String>,
    /// Also leave out `.git` and what the `.gitignore` files in the directory name. Default false.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(default)]
    pub gitignore: bool,
    /// Files, directories and links that it may hold. Default 100 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u64>,
    /// Bytes that its files may have together. Default `1GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
}

/// A revision of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct GitSource {
    /// `https://` or `http://` address of the repository; `file://` needs the caller's grant.
    pub url: String,
    /// Branch, tag or full commit id. Default: the repository's default branch.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The part of the repository that is wanted. Default: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "schema::workspace_path")]
    pub subpath: Option<WorkspacePath>,
    /// Keep the `.git` directory, if all of the repository is wanted. Default false.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(default)]
    pub keep_git: bool,
    /// Patterns of what is left out, in the notation of `.gitignore`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub ignore: Vec<String>,
    /// Token for the server, which must be `https`. Only the control plane reads it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "serialize_secret")]
    #[schemars(default, schema_with = "schema::secret")]
    pub token: Option<SecretRef>,
    /// Files, directories and links that it may hold. Default 100 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_files: Option<u64>,
    /// Bytes that its files may have together. Default `1GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<ByteSize>,
}

impl Entry {
    /// Files, directories and links that one entry may hold, if it says nothing else.
    pub const DEFAULT_MAX_FILES: u64 = 100_000;
    /// Bytes that the files of one entry may have together, if it says nothing else.
    pub const DEFAULT_MAX_BYTES: ByteSize = ByteSize::from_bytes(1 << 30);

    /// Makes a file with this content.
    pub fn file(content: impl Into<Vec<u8>>) -> Self {
        EntrySource::File(InlineFile { content: content.into() }).into()
    }

    /// Makes an empty directory.
    #[must_use]
    pub fn dir() -> Self {
        EntrySource::Dir.into()
    }

    /// Makes a copy of a file of the host.
    pub fn local_file(source: impl Into<String>) -> Self {
        EntrySource::LocalFile(LocalFile { source: source.into(), max_bytes: None }).into()
    }

    /// Makes a copy of a directory of the host, with nothing ignored.
    pub fn local_dir(source: impl Into<String>) -> Self {
        EntrySource::LocalDir(LocalDir {
            source: source.into(),
            ignore: Vec::new(),
            gitignore: false,
            max_files: None,
            max_bytes: None,
        })
        .into()
    }

    /// Makes a copy of the default branch of a git repository.
    pub fn git(url: impl Into<String>) -> Self {
        EntrySource::Git(GitSource {
            url: url.into(),
            reference: None,
            subpath: None,
            keep_git: false,
            ignore: Vec::new(),
            token: None,
            max_files: None,
            max_bytes: None,
        })
        .into()
    }

    /// Says what it is, for people and for the model.
    #[must_use]
    pub fn describe(mut self, description: impl Into<String>) -> Self {
        self.options.description = Some(description.into());
        self
    }

    /// Gives it these permission bits.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.options.mode = Some(mode);
        self
    }

    /// Keeps the agent's commands from changing it.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.options.owner = Owner::ControlPlane;
        self
    }

    /// Leaves it out of outputs and snapshots.
    #[must_use]
    pub fn ephemeral(mut self) -> Self {
        self.options.ephemeral = true;
        self
    }
}

impl From<EntrySource> for Entry {
    fn from(source: EntrySource) -> Self {
        Self { source, options: EntryOptions::default() }
    }
}

impl EntrySource {
    /// Returns the name of the kind, as in the field `type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Dir => "dir",
            Self::LocalFile(_) => "local_file",
            Self::LocalDir(_) => "local_dir",
            Self::Git(_) => "git",
        }
    }

    /// Returns true for what becomes a single file, so that nothing can be inside of it.
    #[must_use]
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File(_) | Self::LocalFile(_))
    }
}

impl Serialize for InlineFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let mut map = serializer.serialize_map(Some(1))?;
        match std::str::from_utf8(&self.content) {
            Ok(text) => map.serialize_entry("content", text)?,
            Err(_) => map.serialize_entry("content_base64", &STANDARD.encode(&self.content))?,
        }
        map.end()
    }
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Writes a reference in the one form that files use: `{secret: "env:NAME"}`.
pub(crate) fn serialize_secret<S: Serializer>(
    secret: &Option<SecretRef>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry("secret", secret)?;
    map.end()
}

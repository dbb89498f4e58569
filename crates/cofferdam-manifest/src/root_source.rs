//! [`RootSource`]: where the programs of a sandbox come from.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// Where the programs and libraries of a sandbox come from; always read-only inside.
///
/// Paths are relative to the directory of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RootSource {
    /// The host's system directories: `host_system`.
    #[default]
    HostSystem,
    /// A directory of the host that holds a root file system: `{directory: PATH}`.
    Directory(String),
    /// A tar file of a root file system, which may be packed with gzip or zstd: `{archive: PATH}`.
    Archive(String),
    /// An image in a directory in OCI image layout: `{layout: PATH, name: NAME}`.
    Layout {
        /// The directory.
        path: String,
        /// The name of the image in it. Default: the only one.
        name: Option<String>,
    },
    /// An image in a file of `docker save` or `podman save`: `{saved: PATH, name: NAME}`.
    Saved {
        /// The file.
        path: String,
        /// The name of the image in it. Default: the only one.
        name: Option<String>,
    },
    /// An image that a container engine or a registry knows by this name: `{image: NAME}`.
    Image(String),
}

impl Serialize for RootSource {
    /// Writes the form that files use; a derived form would be a YAML tag.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, value, name) = match self {
            Self::HostSystem => return serializer.serialize_str("host_system"),
            Self::Directory(path) => ("directory", path, None),
            Self::Archive(path) => ("archive", path, None),
            Self::Layout { path, name } => ("layout", path, name.as_ref()),
            Self::Saved { path, name } => ("saved", path, name.as_ref()),
            Self::Image(name) => ("image", name, None),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(key, value)?;
        if let Some(name) = name {
            map.serialize_entry("name", name)?;
        }
        map.end()
    }
}

impl JsonSchema for RootSource {
    fn schema_name() -> Cow<'static, str> {
        "RootSource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |key: &str, description: &str| {
            json_schema!({
                "description": description,
                "type": "object",
                "properties": { key: { "type": "string", "minLength": 1 } },
                "required": [key],
                "additionalProperties": false,
            })
        };
        let named = |key: &str, description: &str| {
            json_schema!({
                "description": description,
                "type": "object",
                "properties": {
                    key: { "type": "string", "minLength": 1 },
                    "name": {
                        "description": "The name of the image in it. Default: the only one.",
                        "type": ["string", "null"],
                    },
                },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "description": "Where the programs and libraries of a sandbox come from; always read-only inside. Paths are \
                            relative to the directory of this file.",
            "oneOf": [
                { "const": "host_system", "description": "The host's system directories.", "type": "string" },
                one("directory", "A directory of the host that holds a root file system."),
                one("archive", "A tar file of a root file system, which may be packed with gzip or zstd."),
                named("layout", "An image in a directory in OCI image layout."),
                named("saved", "An image in a file of `docker save` or `podman save`."),
                one("image", "An image that a container engine or a registry knows by this name."),
            ],
        })
    }
}

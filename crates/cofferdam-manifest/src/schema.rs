//! The JSON Schema of the agent file, made from the types so that the two cannot drift apart.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Map, Value, json};

use crate::{AgentFile, Entry, EntryOptions, EntrySource, entry::InlineFile};

/// Where the schema is published.
const ID: &str = "https://cofferdam.dev/schemas/agent.schema.json";

/// Returns the JSON Schema (draft 2020-12) of the agent file; the same value on every call.
#[must_use]
pub fn json_schema() -> Value {
    let schema =
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<AgentFile>();
    let mut value = Value::from(schema);
    if let Value::Object(root) = &mut value {
        root.insert("$id".to_owned(), ID.into());
    }
    value
}

pub(crate) fn workspace_path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Path inside the workspace: relative, `/` between names, no `..`.",
        "type": "string",
        "pattern": r"^(?!/)(?![A-Za-z]:)(?!(.*/)?\.\.(/|$))[^\\]+$",
    })
}

pub(crate) fn workspace_paths(generator: &mut SchemaGenerator) -> Schema {
    let item = workspace_path(generator);
    json_schema!({ "type": "array", "items": item })
}

pub(crate) fn secret(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "secret": {
                "description": "Name of the secret: `env:NAME` or `file:PATH`.",
                "type": "string",
                "pattern": "^(env|file):.+$",
            },
        },
        "required": ["secret"],
        "additionalProperties": false,
    })
}

pub(crate) fn network(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "oneOf": [
            { "const": "none", "description": "Nothing but a loopback interface of its own." },
            { "const": "host", "description": "The host's network, as any process of the user has it." },
        ],
    })
}

pub(crate) fn environment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
        "additionalProperties": { "type": "string" },
    })
}

pub(crate) fn entries(generator: &mut SchemaGenerator) -> Schema {
    let entry = generator.subschema_for::<Entry>();
    let path = workspace_path(generator);
    json_schema!({ "type": "object", "propertyNames": path, "additionalProperties": entry })
}

impl JsonSchema for InlineFile {
    fn schema_name() -> Cow<'static, str> {
        "InlineFile".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {
                "content": { "description": "The content as text.", "type": "string" },
                "content_base64": {
                    "description": "The content in standard base64, for what is not text.",
                    "type": "string",
                    "contentEncoding": "base64",
                },
            },
            "oneOf": [{ "required": ["content"] }, { "required": ["content_base64"] }],
        })
    }
}

impl JsonSchema for Entry {
    fn schema_name() -> Cow<'static, str> {
        "Entry".into()
    }

    /// Gives each kind of entry the common fields and closes it, which editors understand better than
    /// `unevaluatedProperties`.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let common = properties(EntryOptions::json_schema(generator).into());
        let mut kinds = Value::from(EntrySource::json_schema(generator));
        if let Some(kinds) = kinds.get_mut("oneOf").and_then(Value::as_array_mut) {
            for kind in kinds.iter_mut().filter_map(Value::as_object_mut) {
                if let Some(Value::Object(fields)) = kind.get_mut("properties") {
                    fields.extend(common.clone());
                }
                kind.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        let mut schema = Schema::default();
        schema.insert("description".to_owned(), "One thing that is put into a workspace.".into());
        schema.insert("oneOf".to_owned(), kinds["oneOf"].take());
        schema
    }
}

fn properties(mut schema: Value) -> Map<String, Value> {
    match schema["properties"].take() {
        Value::Object(properties) => properties,
        _ => Map::new(),
    }
}

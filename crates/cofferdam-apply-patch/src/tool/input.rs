//! The forms in which a patch comes: the envelope, or operations as JSON.

use cofferdam_tool::ToolInput;
use serde::Deserialize;
use serde_json::Value;

use crate::parse::{MAX_PATCH_BYTES, ParseError, parse_with};
use crate::patch::{Operation, Patch};
use crate::path::PathRules;

/// One operation of a built-in patch tool.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
enum JsonOperation {
    #[serde(rename = "create_file")]
    Create { path: String, diff: String },
    #[serde(rename = "update_file")]
    Update { path: String, diff: String, move_to: Option<String> },
    #[serde(rename = "delete_file")]
    Delete { path: String },
}

impl JsonOperation {
    fn read(self, rules: &PathRules) -> Result<Operation, ParseError> {
        match self {
            Self::Create { path, diff } => Operation::create(&path, &diff, rules),
            Self::Update { path, diff, move_to } => {
                Operation::update(&path, &diff, move_to.as_deref(), rules)
            }
            Self::Delete { path } => Operation::delete(&path, rules),
        }
    }
}

/// Reads a patch, or says what is wrong with it.
pub(super) fn patch(input: &ToolInput, rules: &PathRules) -> Result<Patch, String> {
    match input {
        ToolInput::Json(value) => from_json(value, rules),
        ToolInput::Text(text) if text.trim_start().starts_with(['{', '[']) => {
            if text.len() > MAX_PATCH_BYTES {
                let error = ParseError::TooLarge { bytes: text.len(), limit: MAX_PATCH_BYTES };
                return Err(error.to_string());
            }
            match serde_json::from_str(text) {
                Ok(value) => from_json(&value, rules),
                Err(error) => Err(format!("the input is neither a patch nor JSON: {error}")),
            }
        }
        ToolInput::Text(text) => from_text(text, rules),
        other => Err(format!("the input is neither text nor JSON: {other:?}")),
    }
}

fn from_text(text: &str, rules: &PathRules) -> Result<Patch, String> {
    parse_with(text, rules).map_err(|error| error.to_string())
}

/// Takes one operation, a list of them, either under its name, or the envelope in a string.
fn from_json(value: &Value, rules: &PathRules) -> Result<Patch, String> {
    let field = |names: &[&str]| names.iter().find_map(|name| value.get(name));
    if let Some(Value::String(text)) = field(&["input", "patch"]) {
        return from_text(text, rules);
    }
    let operations = match field(&["operations", "operation"]).unwrap_or(value) {
        Value::Array(operations) => operations.as_slice(),
        one => std::slice::from_ref(one),
    };
    if operations.is_empty() {
        return Err(ParseError::NoOperations.to_string());
    }
    let operations = (1..).zip(operations).map(|(number, operation)| {
        let read = JsonOperation::deserialize(operation).map_err(|error| error.to_string());
        read.and_then(|operation| operation.read(rules).map_err(|error| error.to_string()))
            .map_err(|message| format!("operation {number}: {message}"))
    });
    Ok(Patch { operations: operations.collect::<Result<_, _>>()? })
}

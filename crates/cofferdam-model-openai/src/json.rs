//! Helpers around JSON: [`Body`], the fields of a request, and [`take`], a field of what a server sent.

use serde::Serialize;
use serde_json::{Map, Value};

/// Takes a field out of a value; null if there is none or the value is no object, which indexing would panic at.
pub(crate) fn take(value: &mut Value, field: &str) -> Value {
    value.get_mut(field).map(Value::take).unwrap_or_default()
}

/// A request body in the making; fields without a value are left out.
#[derive(Debug, Default)]
pub(crate) struct Body(Map<String, Value>);

impl Body {
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Sets a field if there is a value; values are plain data, whose form cannot fail.
    pub(crate) fn set_some<T: Serialize>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value.and_then(|value| serde_json::to_value(value).ok()) {
            self.set(name, value);
        }
    }

    /// Returns the body, with the user's own fields over the others.
    pub(crate) fn finish(mut self, extra: &Map<String, Value>) -> Value {
        self.0.extend(extra.clone());
        Value::Object(self.0)
    }
}

/// What hostile and broken servers send, for the tests of the decoders.
#[cfg(test)]
pub(crate) mod strategy {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// Makes JSON of any shape that uses the fields and words of the two wire forms.
    pub(crate) fn any_event() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(vec![
            "response.created",
            "response.completed",
            "response.incomplete",
            "response.failed",
            "response.output_item.added",
            "response.output_item.done",
            "response.output_text.delta",
            "response.function_call_arguments.delta",
            "error",
            "message",
            "function_call",
            "custom_tool_call",
            "shell_call",
            "apply_patch_call",
            "reasoning",
            "assistant",
            "incomplete",
            "length",
            "a",
            "",
        ]);
        let field = prop::sample::select(vec![
            "type",
            "response",
            "item",
            "items",
            "output",
            "output_index",
            "item_id",
            "call_id",
            "id",
            "name",
            "arguments",
            "input",
            "action",
            "operation",
            "role",
            "content",
            "text",
            "status",
            "usage",
            "sequence_number",
            "delta",
            "error",
            "code",
            "message",
            "choices",
            "tool_calls",
            "function",
            "index",
            "finish_reason",
            "incomplete_details",
            "reason",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-2..9i64).prop_map(Value::from),
            word.prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((field.clone(), inner), 0..6).prop_map(|fields| {
                    fields.into_iter().fold(json!({}), |mut object, (name, value)| {
                        object[name] = value;
                        object
                    })
                }),
            ]
        })
    }
}

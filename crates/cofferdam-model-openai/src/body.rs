//! [`Body`]: the fields of a request, of which those without a value are left out.

use serde::Serialize;
use serde_json::{Map, Value};

/// A request body in the making.
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

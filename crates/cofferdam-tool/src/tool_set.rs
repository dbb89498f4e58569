//! [`ToolSet`]: tools by name, and the way from a model's call to a [`ToolRequest`] that is ready to run.

use std::{collections::BTreeMap, sync::Arc};

use cofferdam_core::{Effects, ToolCall, ToolInputSpec, ToolSpec};
use serde_json::Value;

use crate::{Tool, ToolContext, ToolError, ToolInput};

/// Tools by name, in the order in which they were added.
#[derive(Debug, Clone, Default)]
pub struct ToolSet {
    by_name: BTreeMap<String, Arc<dyn Tool>>,
    specs: Arc<[ToolSpec]>,
}

/// Why tools cannot be one set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToolSetError {
    /// Two tools have one name: rename one.
    #[error("two tools are named {name:?}; rename one of them")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Providers would refuse the name: choose another.
    #[error("tool name {name:?} is not 1 to 64 letters, digits, `_` and `-`")]
    BadName {
        /// The name.
        name: String,
    },
}

/// A tool call that is ready to run: its input decoded, its effects known.
#[derive(Debug, Clone)]
pub struct ToolRequest {
    /// The call as the model made it.
    pub call: ToolCall,
    /// Its input, decoded.
    pub input: ToolInput,
    /// What it does to the world.
    pub effects: Effects,
    /// What surrounds it.
    pub context: ToolContext,
    /// The tool.
    pub tool: Arc<dyn Tool>,
}

impl ToolSet {
    /// Makes a set.
    ///
    /// # Errors
    ///
    /// Refuses two tools of one name, and names that providers refuse.
    pub fn new(tools: impl IntoIterator<Item = Arc<dyn Tool>>) -> Result<Self, ToolSetError> {
        let mut by_name: BTreeMap<String, Arc<dyn Tool>> = BTreeMap::new();
        let mut specs = Vec::new();
        for tool in tools {
            let spec = tool.spec().clone();
            let fits = (1..=64).contains(&spec.name.len())
                && spec.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            if !fits {
                return Err(ToolSetError::BadName { name: spec.name });
            }
            if by_name.insert(spec.name.clone(), tool).is_some() {
                return Err(ToolSetError::Duplicate { name: spec.name });
            }
            specs.push(spec);
        }
        Ok(Self { by_name, specs: specs.into() })
    }

    /// Returns what a model is told of the tools.
    #[must_use]
    pub fn specs(&self) -> Arc<[ToolSpec]> {
        Arc::clone(&self.specs)
    }

    /// Returns a tool.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        self.by_name.get(name)
    }

    /// Decodes a call and asks its tool for the effects.
    ///
    /// # Errors
    ///
    /// [`ToolError::UnknownTool`] with the known names, [`ToolError::InvalidInput`] for broken JSON; both are for the
    /// model.
    pub fn prepare(&self, call: ToolCall, context: ToolContext) -> Result<ToolRequest, ToolError> {
        let tool = self.get(&call.name).ok_or_else(|| ToolError::UnknownTool {
            name: call.name.clone(),
            known: self.by_name.keys().cloned().collect(),
        })?;
        let input = decode(&tool.spec().input, &call.input)?;
        let effects = tool.effects(&input);
        Ok(ToolRequest { call, input, effects, context, tool: Arc::clone(tool) })
    }
}

/// Decodes what the model wrote. A free-text tool also takes `{"input": "…"}`, since providers without free-text tools
/// lower them to that.
fn decode(spec: &ToolInputSpec, raw: &str) -> Result<ToolInput, ToolError> {
    match spec {
        ToolInputSpec::Text { .. } => {
            if raw.trim_start().starts_with('{')
                && let Ok(Value::Object(object)) = serde_json::from_str(raw)
                && object.len() == 1
                && let Some(Value::String(text)) = object.get("input")
            {
                return Ok(ToolInput::Text(text.clone()));
            }
            Ok(ToolInput::Text(raw.to_owned()))
        }
        _ if raw.trim().is_empty() => Ok(ToolInput::Json(Value::Object(serde_json::Map::new()))),
        _ => serde_json::from_str(raw).map(ToolInput::Json).map_err(|error| {
            ToolError::InvalidInput { reason: format!("the arguments are not JSON: {error}") }
        }),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use cofferdam_core::{CallId, RunId, StepId, ToolCallKind, ToolOutput};
    use serde_json::json;

    use super::*;

    #[derive(Debug)]
    struct Echo(ToolSpec);

    #[async_trait]
    impl Tool for Echo {
        fn spec(&self) -> &ToolSpec {
            &self.0
        }

        async fn call(&self, _: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
            Ok(ToolOutput::text(format!("{input:?}")))
        }
    }

    fn echo(name: &str, input: ToolInputSpec) -> Arc<dyn Tool> {
        Arc::new(Echo(ToolSpec { name: name.into(), description: String::new(), input }))
    }

    fn set() -> ToolSet {
        ToolSet::new([
            echo("json", ToolInputSpec::Json { schema: json!({}), strict: false }),
            echo("text", ToolInputSpec::Text { grammar: None }),
        ])
        .unwrap()
    }

    fn check(name: &str, input: &str, expect: &str) {
        let call = ToolCall {
            call_id: CallId::new("c"),
            name: name.into(),
            kind: ToolCallKind::Function,
            input: input.into(),
            extra: serde_json::Map::new(),
        };
        let step = StepId { turn: 1, call: 0 };
        let context = ToolContext::new(RunId::new("r"), step, CallId::new("c"));
        let got = match set().prepare(call, context) {
            Ok(request) => format!("{:?}", request.input),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect);
    }

    #[test]
    fn prepares_calls() {
        check("json", r#"{"a":1}"#, r#"Json(Object {"a": Number(1)})"#);
        check("json", " ", "Json(Object {})");
        check(
            "json",
            "{",
            "invalid input: the arguments are not JSON: EOF while parsing an object at line 1 column 1",
        );
        check("text", "*** Begin", r#"Text("*** Begin")"#);
        check("text", r#"{"input":"x"}"#, r#"Text("x")"#);
        check("text", r#"{"operations":[]}"#, r#"Text("{\"operations\":[]}")"#);
        check("nope", "", "there is no tool named \"nope\"; the tools are: json, text");
    }

    #[test]
    fn refuses_bad_sets() {
        let text = || ToolInputSpec::Text { grammar: None };
        assert_eq!(
            ToolSet::new([echo("a", text()), echo("a", text())]).unwrap_err(),
            ToolSetError::Duplicate { name: "a".into() }
        );
        assert_eq!(
            ToolSet::new([echo("a b", text())]).unwrap_err(),
            ToolSetError::BadName { name: "a b".into() }
        );
    }
}

//! [`ForcedTools`]: tool calls as text that a JSON schema holds to its form.

use cofferdam_model::{ModelRequest, OutputFormat, ToolChoice};
use serde_json::{Value, json};

use super::arguments_schema;
use crate::json::take;

/// The field of a call's arguments. Fields are written in the order of the alphabet, and a model that chooses the tool
/// before it writes the arguments chooses better.
const ARGUMENTS: &str = "tool_arguments";

/// What a request with forced tools says of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ForcedTools {
    schema: Value,
    instructions: String,
}

/// What the model chose.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ForcedReply {
    Call { tool: String, arguments: Value },
    Answer(String),
}

impl ForcedTools {
    /// Returns `None` if the request lets the model call nothing, so that there is nothing to force.
    pub(super) fn for_request(request: &ModelRequest) -> Option<Self> {
        let choice = &request.settings.tool_choice;
        if request.tools.is_empty() || *choice == ToolChoice::None {
            return None;
        }
        let mut forms = Vec::new();
        let mut list = String::new();
        for spec in request.tools.iter() {
            if matches!(choice, ToolChoice::Tool(name) if *name != spec.name) {
                continue;
            }
            let arguments = arguments_schema(spec);
            list += &format!("\n- {}: {}\n  arguments: {arguments}", spec.name, spec.description);
            forms.push(object([("tool", json!({"const": spec.name})), (ARGUMENTS, arguments)]));
        }
        let may_answer = *choice == ToolChoice::Auto;
        if may_answer {
            let answer = match &request.settings.output_format {
                OutputFormat::JsonSchema { schema, .. } => schema.clone(),
                _ => json!({"type": "string"}),
            };
            forms.push(object([("answer", answer)]));
        }
        let answer = if may_answer {
            " When the work is done, reply with {\"answer\": ...} instead."
        } else {
            ""
        };
        let instructions = format!(
            "Reply with one JSON object and nothing else. To use a tool, reply with \
             {{\"tool\": NAME, \"{ARGUMENTS}\": {{...}}}}; its output comes next.{answer}\n\nTools:{list}"
        );
        Some(Self { schema: json!({"anyOf": forms}), instructions })
    }

    pub(super) fn schema(&self) -> &Value {
        &self.schema
    }

    pub(super) fn instructions(&self) -> &str {
        &self.instructions
    }

    /// Writes a call of the past as the model wrote it.
    pub(super) fn call_text(tool: &str, arguments: &str) -> String {
        let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
        json!({"tool": tool, ARGUMENTS: arguments}).to_string()
    }

    /// Writes an answer of the past as the model wrote it.
    pub(super) fn answer_text(answer: &str) -> String {
        json!({"answer": answer}).to_string()
    }

    /// Reads a reply; text of another form, from a server that ignores schemas, is an answer as it is.
    pub(super) fn read(text: &str) -> ForcedReply {
        let mut reply: Value = serde_json::from_str(text.trim()).unwrap_or_default();
        let mut field = |name| take(&mut reply, name);
        match (field("tool"), field(ARGUMENTS), field("answer")) {
            (Value::String(tool), arguments, _) => ForcedReply::Call { tool, arguments },
            (_, _, Value::Null) => ForcedReply::Answer(text.to_owned()),
            (_, _, Value::String(answer)) => ForcedReply::Answer(answer),
            (_, _, answer) => ForcedReply::Answer(answer.to_string()),
        }
    }
}

fn object<const N: usize>(properties: [(&str, Value); N]) -> Value {
    let required: Vec<_> = properties.iter().map(|(name, _)| *name).collect();
    let required = json!(required);
    let properties: Value =
        properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({"type": "object", "properties": properties, "required": required,
           "additionalProperties": false})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        let check = |text: &str, expect: ForcedReply| {
            assert_eq!(ForcedTools::read(text), expect, "{text}");
        };
        let call = |arguments| ForcedReply::Call { tool: "t".into(), arguments };
        check(r#"{"tool":"t","tool_arguments":{"a":1}}"#, call(json!({"a": 1})));
        check("\n {\"tool\":\"t\"} ", call(Value::Null));
        check(r#"{"answer":"done"}"#, ForcedReply::Answer("done".into()));
        check(r#"{"answer":{"n":1}}"#, ForcedReply::Answer(r#"{"n":1}"#.into()));
        check("Sure! I will", ForcedReply::Answer("Sure! I will".into()));
        check(r#"{"tool":"t","argu"#, ForcedReply::Answer(r#"{"tool":"t","argu"#.into()));
        check("[1]", ForcedReply::Answer("[1]".into()));
    }
}

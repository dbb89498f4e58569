//! The body of a request to the Responses API.

use cofferdam_core::{ToolInputSpec, ToolSpec};
use cofferdam_model::{ModelRequest, OutputFormat, ToolChoice};
use serde_json::{Value, json};

use super::{NativeTools, RequestOptions, items};
use crate::json::Body;

/// Writes a request.
pub(super) fn body(options: &RequestOptions, request: &ModelRequest) -> Value {
    let settings = &request.settings;
    let mut body = Body::default();
    body.set("model", options.model.as_str());
    body.set_some("instructions", request.instructions.as_deref());
    body.set("input", items::write_all(&request.input));
    body.set("store", false);
    body.set("stream", true);
    body.set("include", json!(["reasoning.encrypted_content"]));
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|spec| tool(spec, options.native_tools));
        body.set("tools", tools.collect::<Value>());
        body.set_some("tool_choice", tool_choice(options.native_tools, request));
        body.set_some("parallel_tool_calls", settings.parallel_tool_calls);
    }
    body.set_some("max_output_tokens", settings.max_output_tokens);
    body.set_some("temperature", settings.temperature);
    body.set_some("reasoning", settings.reasoning_effort.map(|effort| json!({"effort": effort})));
    if let OutputFormat::JsonSchema { name, schema } = &settings.output_format {
        let format = json!({"type": "json_schema", "name": name, "schema": schema, "strict": true});
        body.set("text", json!({"format": format}));
    }
    body.set_some("prompt_cache_key", settings.prompt_cache_key.as_deref());
    body.finish(&options.extra_body)
}

/// The type of the provider's own tool that a tool is offered as, if it is.
fn native_type(name: &str, native: NativeTools) -> Option<&'static str> {
    match name {
        "shell" | "exec_command" if native.shell => Some("shell"),
        "apply_patch" if native.apply_patch => Some("apply_patch"),
        _ => None,
    }
}

fn tool(spec: &ToolSpec, native: NativeTools) -> Value {
    match (native_type(&spec.name, native), &spec.input) {
        (Some("shell"), _) => json!({"type": "shell", "environment": {"type": "local"}}),
        (Some(native), _) => json!({"type": native}),
        (None, ToolInputSpec::Json { schema, strict }) => json!({
            "type": "function",
            "name": spec.name,
            "description": spec.description,
            "parameters": schema,
            "strict": strict,
        }),
        (None, ToolInputSpec::Text { grammar: Some(grammar) }) => json!({
            "type": "custom",
            "name": spec.name,
            "description": spec.description,
            "format": {
                "type": "grammar",
                "syntax": grammar.syntax,
                "definition": grammar.definition,
            },
        }),
        (None, _) => json!({
            "type": "custom",
            "name": spec.name,
            "description": spec.description,
            "format": {"type": "text"},
        }),
    }
}

fn tool_choice(native: NativeTools, request: &ModelRequest) -> Option<Value> {
    match &request.settings.tool_choice {
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Tool(name) => Some(match native_type(name, native) {
            Some(native) => json!({"type": native}),
            None => {
                let text = request.tools.iter().any(|spec| {
                    spec.name == *name && matches!(spec.input, ToolInputSpec::Text { .. })
                });
                json!({"type": if text { "custom" } else { "function" }, "name": name})
            }
        }),
        _ => None,
    }
}

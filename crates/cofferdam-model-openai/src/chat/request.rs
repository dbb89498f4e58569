//! The body of a request to Chat Completions.

use cofferdam_core::{ToolInputSpec, ToolSpec};
use cofferdam_model::{ModelRequest, OutputFormat, ToolChoice};
use serde_json::{Value, json};

use super::{ChatOptions, arguments_schema, forced_tools::ForcedTools, messages};
use crate::json::Body;

/// Writes a request.
pub(super) fn body(
    options: &ChatOptions,
    request: &ModelRequest,
    forced: Option<&ForcedTools>,
) -> Value {
    let settings = &request.settings;
    let mut body = Body::default();
    body.set("model", options.model.as_str());
    body.set("messages", messages::write(request, forced));
    body.set("stream", true);
    body.set("stream_options", json!({"include_usage": true}));
    if forced.is_none() && !request.tools.is_empty() {
        body.set("tools", request.tools.iter().map(tool).collect::<Value>());
        body.set_some("tool_choice", tool_choice(&settings.tool_choice));
        body.set_some("parallel_tool_calls", settings.parallel_tool_calls);
    }
    // The newer `max_completion_tokens` is OpenAI's own; servers for local models know this one.
    body.set_some("max_tokens", settings.max_output_tokens);
    body.set_some("temperature", settings.temperature);
    body.set_some("reasoning_effort", settings.reasoning_effort);
    match (forced, &settings.output_format) {
        (Some(forced), _) => body.set("response_format", json_schema("reply", forced.schema())),
        (None, OutputFormat::JsonSchema { name, schema }) => {
            body.set("response_format", json_schema(name, schema));
        }
        _ => {}
    }
    body.set_some("prompt_cache_key", settings.prompt_cache_key.as_deref());
    body.finish(&options.extra_body)
}

fn json_schema(name: &str, schema: &Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": true}})
}

fn tool(spec: &ToolSpec) -> Value {
    let mut function = json!({
        "name": spec.name,
        "description": spec.description,
        "parameters": arguments_schema(spec),
    });
    if let ToolInputSpec::Json { strict: true, .. } = spec.input {
        function["strict"] = json!(true);
    }
    json!({"type": "function", "function": function})
}

fn tool_choice(choice: &ToolChoice) -> Option<Value> {
    match choice {
        ToolChoice::Required => Some(json!("required")),
        ToolChoice::None => Some(json!("none")),
        ToolChoice::Tool(name) => Some(json!({"type": "function", "function": {"name": name}})),
        _ => None,
    }
}

//! Conversation items to and from the Responses API's items.
//!
//! Reading loses nothing: what has no place in an [`Item`] goes to `extra`, with the wire's own field names, and writing
//! puts it back over what it would write by itself. Where the neutral form of a message cannot give its content back
//! exactly (annotations, refusals), `extra` keeps the content as it came.

use std::{collections::HashMap, sync::Arc};

use cofferdam_core::{
    CallId, Content, Item, Message, Role, ToolCall, ToolCallKind, ToolOutput, ToolResult,
};
use serde_json::{Map, Value, json};

use super::RESPONSES_PROVIDER;
use crate::chat::CHAT_FIELDS;

/// Reads an item of an answer; `fallback_id` names a call whose server gave it no id.
pub(super) fn read(raw: Value, fallback_id: &str) -> Item {
    let Value::Object(fields) = raw else { return provider(raw) };
    let kind = fields.get("type").and_then(Value::as_str);
    let item = match kind {
        Some("message") | None => read_message(&fields),
        Some("function_call") => read_call(&fields, fallback_id, ToolCallKind::Function),
        Some("custom_tool_call") => read_call(&fields, fallback_id, ToolCallKind::Custom),
        // A call in the provider's own container has run there; its output comes as an item, too.
        Some("shell_call") if !in_container(&fields) => {
            read_call(&fields, fallback_id, ToolCallKind::Shell)
        }
        Some("apply_patch_call") => read_call(&fields, fallback_id, ToolCallKind::ApplyPatch),
        _ => None,
    };
    item.unwrap_or_else(|| provider(Value::Object(fields)))
}

fn provider(raw: Value) -> Item {
    Item::Provider { provider: RESPONSES_PROVIDER.to_owned(), raw }
}

fn in_container(fields: &Map<String, Value>) -> bool {
    fields.get("environment").and_then(|e| e.get("type")).is_some_and(|kind| kind != "local")
}

fn read_message(fields: &Map<String, Value>) -> Option<Item> {
    let mut extra = fields.clone();
    let (Some(Value::String(role)), Some(raw)) = (extra.remove("role"), extra.remove("content"))
    else {
        return None;
    };
    extra.remove("type");
    let role = match role.as_str() {
        "assistant" => Role::Assistant,
        "user" => Role::User,
        "developer" => Role::Developer,
        _ => Role::Unknown(role),
    };
    let content = match &raw {
        Value::String(text) => vec![Content::text(text.as_str())],
        Value::Array(parts) => parts.iter().map(read_part).collect(),
        _ => return None,
    };
    if write_parts(&role, &content) != raw {
        extra.insert("content".to_owned(), raw);
    }
    Some(Item::Message(Message { role, content, extra }))
}

fn read_part(part: &Value) -> Content {
    let text = match part.get("type").and_then(Value::as_str) {
        Some("refusal") => part.get("refusal"),
        _ => part.get("text"),
    };
    match text {
        Some(Value::String(text)) => Content::text(text.as_str()),
        _ => Content::Unknown(part.clone()),
    }
}

fn read_call(fields: &Map<String, Value>, fallback_id: &str, kind: ToolCallKind) -> Option<Item> {
    let mut extra = fields.clone();
    extra.remove("type");
    let mut take_text = |name: &str| match extra.remove(name) {
        Some(Value::String(text)) => Some(text),
        Some(other) => Some(other.to_string()),
        None => None,
    };
    let (name, input) = match kind {
        ToolCallKind::Function => (take_text("name")?, take_text("arguments").unwrap_or_default()),
        ToolCallKind::Custom => (take_text("name")?, take_text("input").unwrap_or_default()),
        ToolCallKind::Shell => ("shell".to_owned(), take_text("action")?),
        _ => ("apply_patch".to_owned(), take_text("operation")?),
    };
    let call_id = take_text("call_id").filter(|id| !id.is_empty());
    let call_id = CallId::new(call_id.as_deref().unwrap_or(fallback_id));
    Some(Item::ToolCall(ToolCall { call_id, name, kind, input, extra }))
}

/// Returns whether an item is reasoning of this provider.
pub(super) fn is_reasoning(item: &Item) -> bool {
    matches!(item, Item::Provider { provider, raw }
        if provider == RESPONSES_PROVIDER && raw.get("type").is_some_and(|kind| kind == "reasoning"))
}

/// Takes the provider's ids from an item, so that it stands alone.
pub(super) fn detach(item: &mut Item) {
    let extra = match item {
        Item::Message(message) => &mut message.extra,
        Item::ToolCall(call) => &mut call.extra,
        _ => return,
    };
    // The content that was kept belongs to the form of a message that has an id.
    for field in ["id", "status", "content"] {
        extra.remove(field);
    }
}

/// Returns whether the server says that it did not finish writing an item.
pub(super) fn is_unfinished(item: &Item) -> bool {
    let Item::ToolCall(call) = item else { return false };
    match call.extra.get("status").and_then(Value::as_str) {
        Some("incomplete") => true,
        // The status of shell and patch calls tells how far running them has come, which is our part.
        Some("in_progress") => {
            matches!(call.kind, ToolCallKind::Function | ToolCallKind::Custom)
        }
        _ => false,
    }
}

/// Writes a conversation as the `input` of a request.
pub(super) fn write_all(items: &[Arc<Item>]) -> Vec<Value> {
    let calls: HashMap<_, _> = items
        .iter()
        .filter_map(|item| match &**item {
            Item::ToolCall(call) => Some((&call.call_id, call)),
            _ => None,
        })
        .collect();
    items
        .iter()
        .filter_map(|item| match &**item {
            Item::Message(message) => Some(write_message(message)),
            Item::ToolCall(call) => Some(write_call(call)),
            Item::ToolResult(result) => {
                Some(write_result(result, calls.get(&result.call_id).copied()))
            }
            Item::Provider { provider, raw } if provider == RESPONSES_PROVIDER => Some(raw.clone()),
            _ => None,
        })
        .collect()
}

fn write_message(message: &Message) -> Value {
    let role = role_name(&message.role);
    // Without an id, what the model said takes the form that a person's words have.
    let content = if message.role == Role::Assistant && !message.extra.contains_key("id") {
        Value::String(message.to_text().into_owned())
    } else {
        write_parts(&message.role, &message.content)
    };
    with_extra(json!({"type": "message", "role": role, "content": content}), &message.extra)
}

fn role_name(role: &Role) -> &str {
    match role {
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Developer => "developer",
        Role::Unknown(role) => role,
        _ => "user",
    }
}

fn write_parts(role: &Role, content: &[Content]) -> Value {
    let parts = content.iter().filter_map(|part| match part {
        Content::Text { text } if *role == Role::Assistant => {
            Some(json!({"type": "output_text", "text": text, "annotations": []}))
        }
        Content::Image { .. } if *role == Role::Assistant => None,
        part => Some(write_input_part(part)),
    });
    parts.collect()
}

fn write_input_part(part: &Content) -> Value {
    match part {
        Content::Text { text } => json!({"type": "input_text", "text": text}),
        Content::Image { media_type, data_base64 } => json!({
            "type": "input_image",
            "detail": "auto",
            "image_url": format!("data:{media_type};base64,{data_base64}"),
        }),
        Content::Unknown(raw) => raw.clone(),
        other => json!({"type": "input_text", "text": format!("{other:?}")}),
    }
}

fn write_call(call: &ToolCall) -> Value {
    let call_id = call.call_id.as_str();
    let base = match call.kind {
        ToolCallKind::Custom => json!({"type": "custom_tool_call", "call_id": call_id,
                                       "name": call.name, "input": call.input}),
        ToolCallKind::Shell => json!({"type": "shell_call", "call_id": call_id,
                                      "action": parse(&call.input)}),
        ToolCallKind::ApplyPatch => json!({"type": "apply_patch_call", "call_id": call_id,
                                           "operation": parse(&call.input)}),
        _ => json!({"type": "function_call", "call_id": call_id, "name": call.name,
                    "arguments": call.input}),
    };
    with_extra(base, &call.extra)
}

fn parse(input: &str) -> Value {
    serde_json::from_str(input).unwrap_or_else(|_| Value::String(input.to_owned()))
}

fn write_result(result: &ToolResult, call: Option<&ToolCall>) -> Value {
    let call_id = result.call_id.as_str();
    let mut value = match result.kind {
        ToolCallKind::Custom => json!({"type": "custom_tool_call_output", "call_id": call_id,
                                       "output": write_output(&result.output)}),
        ToolCallKind::Shell => json!({"type": "shell_call_output", "call_id": call_id,
                                      "output": write_shell_output(&result.output, call)}),
        ToolCallKind::ApplyPatch => json!({
            "type": "apply_patch_call_output",
            "call_id": call_id,
            "status": if result.output.is_error { "failed" } else { "completed" },
            "output": result.output.to_text(),
        }),
        _ => json!({"type": "function_call_output", "call_id": call_id,
                    "output": write_output(&result.output)}),
    };
    let Some(call) = call else { return value };
    // A program that the provider runs made the call and waits for the answer under its own name.
    if let Some(caller) = call.extra.get("caller").filter(|caller| !caller.is_null()) {
        value["caller"] = caller.clone();
    }
    // The provider wants the bound that the model set back.
    if call.kind == ToolCallKind::Shell
        && let Some(bound) = parse(&call.input).get("max_output_length").filter(|v| !v.is_null())
    {
        value["max_output_length"] = bound.clone();
    }
    value
}

fn write_output(output: &ToolOutput) -> Value {
    if output.content.iter().all(|part| matches!(part, Content::Text { .. })) {
        return Value::String(output.to_text().into_owned());
    }
    output.content.iter().map(write_input_part).collect()
}

fn write_shell_output(output: &ToolOutput, call: Option<&ToolCall>) -> Value {
    if let Some(Value::Array(entries)) = output.structured.get("output") {
        return Value::Array(entries.clone());
    }
    // The tool did not run (refused, failed to start): the model reads why as error output, once a command.
    let action = call.map_or(Value::Null, |call| parse(&call.input));
    let commands = action["commands"].as_array().map_or(1, Vec::len).max(1);
    let entry = json!({"stdout": "", "stderr": output.to_text(),
                       "outcome": {"type": "exit", "exit_code": i32::from(output.is_error)}});
    Value::Array(vec![entry; commands])
}

fn with_extra(mut base: Value, extra: &Map<String, Value>) -> Value {
    if let Value::Object(fields) = &mut base {
        let known = extra.iter().filter(|(name, _)| *name != CHAT_FIELDS);
        fields.extend(known.map(|(name, value)| (name.clone(), value.clone())));
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(raw: &Value) -> Value {
        write_all(&[Arc::new(read(raw.clone(), "call_x"))]).remove(0)
    }

    #[test]
    fn items_go_back_as_they_came() {
        let check = |raw: Value| assert_eq!(round_trip(&raw), raw);
        check(json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                     "phase": "final_answer", "future": [1],
                     "content": [{"type": "output_text", "text": "a", "annotations": []}]}));
        check(json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                     "content": [{"type": "output_text", "text": "a", "logprobs": [],
                                  "annotations": [{"type": "url_citation", "url": "u"}]},
                                 {"type": "refusal", "refusal": "no"}, {"type": "hologram"}]}));
        check(json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f",
                     "arguments": "{\"a\": 1}", "status": "completed", "namespace": "n"}));
        check(json!({"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "f",
                     "input": "free"}));
        check(json!({"type": "shell_call", "id": "sh_1", "call_id": "c", "status": "completed",
                     "environment": null,
                     "action": {"commands": ["ls"], "timeout_ms": null, "max_output_length": 9}}));
        check(json!({"type": "shell_call", "id": "sh_1", "call_id": "c", "status": "completed",
                     "environment": {"type": "container_reference", "container_id": "x"},
                     "action": {"commands": ["ls"]}}));
        check(
            json!({"type": "apply_patch_call", "id": "apc_1", "call_id": "c", "status": "completed",
                     "operation": {"type": "delete_file", "path": "a"}}),
        );
        check(
            json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x=="}),
        );
        check(json!({"type": "hologram", "w": {"deep": [null]}}));
        check(json!("not even an object"));
    }

    #[test]
    fn reads_what_lenient_servers_send() {
        let check = |raw: Value, expect: Value| assert_eq!(round_trip(&raw), expect);
        check(
            json!({"type": "function_call", "name": "f", "arguments": {"a": 1}}),
            json!({"type": "function_call", "call_id": "call_x", "name": "f",
                   "arguments": "{\"a\":1}"}),
        );
        check(
            json!({"role": "assistant", "content": "hi"}),
            json!({"type": "message", "role": "assistant", "content": "hi"}),
        );
    }

    #[test]
    fn a_call_in_the_providers_container_is_not_ours() {
        let raw = json!({"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]},
                         "environment": {"type": "container_reference", "container_id": "x"}});
        assert!(matches!(read(raw, ""), Item::Provider { .. }));
    }

    #[test]
    fn results_take_the_form_of_their_calls() {
        let check = |call: Value, output: ToolOutput, expect: Value| {
            let Item::ToolCall(call) = read(call, "") else { panic!("not a call") };
            let result = Item::ToolResult(ToolResult {
                call_id: call.call_id.clone(),
                name: call.name.clone(),
                kind: call.kind.clone(),
                output,
            });
            let items = [Arc::new(Item::ToolCall(call)), Arc::new(result)];
            assert_eq!(write_all(&items)[1], expect);
        };
        let function = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "",
                              "caller": {"type": "program", "caller_id": "p"}});
        check(
            function,
            ToolOutput::text("ok"),
            json!({"type": "function_call_output", "call_id": "c", "output": "ok",
                   "caller": {"type": "program", "caller_id": "p"}}),
        );
        let custom = json!({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": ""});
        let image = Content::Image { media_type: "image/png".into(), data_base64: "AA==".into() };
        check(
            custom,
            ToolOutput { content: vec![Content::text("see"), image], ..ToolOutput::default() },
            json!({"type": "custom_tool_call_output", "call_id": "c", "output": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AA=="}]}),
        );
        let shell = json!({"type": "shell_call", "call_id": "c",
                           "action": {"commands": ["ls"], "max_output_length": 9}});
        let entry = json!({"stdout": "a", "stderr": "", "outcome": {"type": "timeout"}});
        check(
            shell.clone(),
            ToolOutput { structured: json!({"output": [entry]}), ..ToolOutput::default() },
            json!({"type": "shell_call_output", "call_id": "c", "output": [entry],
                   "max_output_length": 9}),
        );
        check(
            shell,
            ToolOutput::error("denied"),
            json!({"type": "shell_call_output", "call_id": "c", "max_output_length": 9, "output": [
                {"stdout": "", "stderr": "denied", "outcome": {"type": "exit", "exit_code": 1}}]}),
        );
        let patch = json!({"type": "apply_patch_call", "call_id": "c", "status": "completed",
                           "operation": {"type": "delete_file", "path": "a"}});
        check(
            patch.clone(),
            ToolOutput::text("Done!"),
            json!({"type": "apply_patch_call_output", "call_id": "c", "status": "completed",
                   "output": "Done!"}),
        );
        check(
            patch,
            ToolOutput::error("no such file"),
            json!({"type": "apply_patch_call_output", "call_id": "c", "status": "failed",
                   "output": "no such file"}),
        );
    }

    #[test]
    fn items_of_other_providers_stay_here() {
        let foreign =
            Item::Provider { provider: "anthropic".into(), raw: json!({"type": "thinking"}) };
        assert!(write_all(&[Arc::new(foreign)]).is_empty());
    }
}

//! The wire form of an answer: the whole object, and the events of a stream.

use serde_json::{Map, Value, json};

use super::{Api, MockItem};

/// The time at which all answers were made.
pub(super) const CREATED: u64 = 1_700_000_000;

/// An answer in both forms.
#[derive(Debug)]
pub(super) struct Rendered {
    /// What is sent without a stream.
    pub(super) whole: Value,
    /// The events of a stream.
    pub(super) events: Vec<Value>,
    /// Whether events are named and the stream ends with the last, or are bare and end with `[DONE]`.
    pub(super) named: bool,
}

/// Renders a turn.
pub(super) fn answer(api: Api, turn: usize, items: &[MockItem], delta_chars: usize) -> Rendered {
    let items: Vec<_> =
        items.iter().enumerate().map(|(place, item)| wire_item(turn, place, item)).collect();
    match api {
        Api::Responses => Rendered {
            whole: response(turn, &items, "completed"),
            events: response_events(turn, &items, delta_chars),
            named: true,
        },
        Api::ChatCompletions => chat(turn, &items, delta_chars),
    }
}

fn wire_item(turn: usize, place: usize, item: &MockItem) -> Value {
    let id = format!("item_t{turn}_{place}");
    let call_id = format!("call_t{turn}_{place}");
    match item {
        MockItem::Message { text } => json!({
            "type": "message", "id": format!("msg_t{turn}_{place}"), "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": text, "annotations": []}]}),
        MockItem::FunctionCall { name, arguments } => json!({
            "type": "function_call", "id": id, "status": "completed", "call_id": call_id,
            "name": name, "arguments": arguments_text(arguments)}),
        MockItem::CustomToolCall { name, input } => json!({
            "type": "custom_tool_call", "id": id, "status": "completed", "call_id": call_id,
            "name": name, "input": input}),
        MockItem::ShellCall { commands } => json!({
            "type": "shell_call", "id": id, "status": "completed", "call_id": call_id,
            "environment": null,
            "action": {"commands": commands, "timeout_ms": null, "max_output_length": 4096}}),
        MockItem::ApplyPatchCall { operation } => json!({
            "type": "apply_patch_call", "id": id, "status": "completed", "call_id": call_id,
            "operation": operation}),
        MockItem::Reasoning { encrypted_content } => json!({
            "type": "reasoning", "id": id, "summary": [], "encrypted_content": encrypted_content}),
        MockItem::Raw { item } => item.clone(),
    }
}

fn arguments_text(arguments: &Value) -> String {
    match arguments {
        Value::String(raw) => raw.clone(),
        Value::Null => "{}".to_owned(),
        object => object.to_string(),
    }
}

/// The text by which an item's size is counted.
fn text_of(item: &Value) -> &str {
    let text = match item["type"].as_str() {
        Some("message") => &item["content"][0]["text"],
        Some("function_call") => &item["arguments"],
        _ => &item["input"],
    };
    text.as_str().unwrap_or_default()
}

fn usage(turn: usize, items: &[Value]) -> (usize, usize) {
    let chars: usize = items.iter().map(|item| text_of(item).chars().count()).sum();
    (200 + 60 * turn, (chars / 4).max(1))
}

fn response(turn: usize, items: &[Value], status: &str) -> Value {
    let done = status == "completed";
    let (input, output) = usage(turn, items);
    let usage = json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input + output});
    json!({
        "id": format!("resp_t{turn}_0"), "object": "response", "created_at": CREATED,
        "status": status, "model": "mock", "output": if done { items } else { &[] },
        "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
        "parallel_tool_calls": true, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto",
        "tools": [], "usage": if done { usage } else { Value::Null }})
}

fn pieces(text: &str, chars: usize) -> Vec<String> {
    let text: Vec<char> = text.chars().collect();
    text.chunks(chars).map(|piece| piece.iter().collect()).collect()
}

/// Numbers events as they are added.
#[derive(Default)]
struct Events(Vec<Value>);

impl Events {
    fn add(&mut self, kind: &str, place: Option<&Value>, fields: Value) {
        let mut event = Map::new();
        event.insert("type".to_owned(), json!(kind));
        event.insert("sequence_number".to_owned(), json!(self.0.len()));
        for part in [place, Some(&fields)].into_iter().flatten() {
            event.extend(part.as_object().cloned().unwrap_or_default());
        }
        self.0.push(Value::Object(event));
    }
}

fn response_events(turn: usize, items: &[Value], delta_chars: usize) -> Vec<Value> {
    let mut events = Events::default();
    for kind in ["response.created", "response.in_progress"] {
        let response = response(turn, items, "in_progress");
        events.add(kind, None, json!({"response": response}));
    }
    for (index, item) in items.iter().enumerate() {
        let mut begun = item.clone();
        if begun.get("status").is_some() {
            begun["status"] = json!("in_progress");
        }
        let place = json!({"item_id": item["id"], "output_index": index});
        let deltas = pieces(text_of(item), delta_chars);
        let added = |begun: Value, events: &mut Events| {
            events.add(
                "response.output_item.added",
                None,
                json!({"output_index": index, "item": begun}),
            );
        };
        match item["type"].as_str() {
            Some("message") => {
                begun["content"] = json!([]);
                added(begun, &mut events);
                let place =
                    json!({"item_id": item["id"], "output_index": index, "content_index": 0});
                let part = &item["content"][0];
                let mut empty = part.clone();
                empty["text"] = json!("");
                events.add("response.content_part.added", Some(&place), json!({"part": empty}));
                for delta in deltas {
                    events.add(
                        "response.output_text.delta",
                        Some(&place),
                        json!({"delta": delta, "logprobs": []}),
                    );
                }
                events.add(
                    "response.output_text.done",
                    Some(&place),
                    json!({"text": part["text"], "logprobs": []}),
                );
                events.add("response.content_part.done", Some(&place), json!({"part": part}));
            }
            Some("function_call") => {
                begun["arguments"] = json!("");
                added(begun, &mut events);
                for delta in deltas {
                    let delta = json!({"delta": delta});
                    events.add("response.function_call_arguments.delta", Some(&place), delta);
                }
                events.add(
                    "response.function_call_arguments.done",
                    Some(&place),
                    json!({"name": item["name"], "arguments": item["arguments"]}),
                );
            }
            Some("custom_tool_call") => {
                begun["input"] = json!("");
                added(begun, &mut events);
                for delta in deltas {
                    let delta = json!({"delta": delta});
                    events.add("response.custom_tool_call_input.delta", Some(&place), delta);
                }
                let input = json!({"input": item["input"]});
                events.add("response.custom_tool_call_input.done", Some(&place), input);
            }
            _ => added(begun, &mut events),
        }
        events.add("response.output_item.done", None, json!({"output_index": index, "item": item}));
    }
    let response = response(turn, items, "completed");
    events.add("response.completed", None, json!({"response": response}));
    events.0
}

fn chat(turn: usize, items: &[Value], delta_chars: usize) -> Rendered {
    let id = format!("chatcmpl_t{turn}_0");
    let messages = items.iter().filter(|item| item["type"] == "message");
    let text: String = messages.map(text_of).collect();
    let calls: Vec<_> = items
        .iter()
        .filter_map(|item| {
            let arguments = match item["type"].as_str()? {
                "function_call" => item["arguments"].clone(),
                "custom_tool_call" => json!(json!({"input": item["input"]}).to_string()),
                _ => return None,
            };
            Some(json!({"id": item["call_id"], "type": "function",
                        "function": {"name": item["name"], "arguments": arguments}}))
        })
        .collect();
    let (prompt, completion) = usage(turn, items);
    let usage = json!({"prompt_tokens": prompt, "completion_tokens": completion,
                       "total_tokens": prompt + completion});
    let finish = if calls.is_empty() { "stop" } else { "tool_calls" };
    let mut message = json!({"role": "assistant", "content": null});
    if !text.is_empty() {
        message["content"] = json!(text);
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    let chunk = |choices: Value, usage: &Value| {
        json!({"id": id, "object": "chat.completion.chunk", "created": CREATED, "model": "mock",
               "choices": choices, "usage": usage})
    };
    let mut events = Vec::new();
    let mut add = |delta: Value, finish: Value| {
        let choice = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        events.push(chunk(choice, &Value::Null));
    };
    add(json!({"role": "assistant", "content": ""}), Value::Null);
    for piece in pieces(&text, delta_chars) {
        add(json!({"content": piece}), Value::Null);
    }
    for (index, call) in calls.iter().enumerate() {
        let mut begun = call.clone();
        begun["index"] = json!(index);
        begun["function"]["arguments"] = json!("");
        add(json!({"tool_calls": [begun]}), Value::Null);
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        for piece in pieces(arguments, delta_chars) {
            let call = json!({"index": index, "function": {"arguments": piece}});
            add(json!({"tool_calls": [call]}), Value::Null);
        }
    }
    add(json!({}), json!(finish));
    events.push(chunk(json!([]), &usage));
    let whole = json!({
        "id": id, "object": "chat.completion", "created": CREATED, "model": "mock", "usage": usage,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}]});
    Rendered { whole, events, named: false }
}

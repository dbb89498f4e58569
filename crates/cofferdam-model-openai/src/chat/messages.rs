//! A conversation as chat messages.
//!
//! Chat templates are strict where the neutral conversation is not: one message of the model holds its words and all its
//! calls, outputs follow at once, roles alternate, and arguments are JSON. So neighbours of one role are joined.

use cofferdam_core::{Content, Item, Message, Role, ToolCall, ToolCallKind, ToolResult};
use cofferdam_model::ModelRequest;
use serde_json::{Value, json};

use super::{CHAT_FIELDS, forced_tools::ForcedTools};

/// Writes the messages of a request.
pub(super) fn write(request: &ModelRequest, forced: Option<&ForcedTools>) -> Value {
    let mut messages = Messages::default();
    let instructions = request.instructions.as_deref();
    let parts = [instructions, forced.map(ForcedTools::instructions)];
    for part in parts.into_iter().flatten() {
        messages.text("system", part);
    }
    for item in &request.input {
        match (&**item, forced) {
            (Item::Message(message), None) => messages.message(message),
            (Item::Message(message), Some(_)) if message.role == Role::Assistant => {
                messages.text("assistant", &ForcedTools::answer_text(&message.to_text()));
            }
            (Item::Message(message), Some(_)) => messages.message(message),
            (Item::ToolCall(call), None) => messages.call(call),
            (Item::ToolCall(call), Some(_)) => {
                let arguments = json_arguments(call);
                messages.text("assistant", &ForcedTools::call_text(&call.name, &arguments));
            }
            (Item::ToolResult(result), None) => messages.result(result),
            (Item::ToolResult(result), Some(_)) => {
                let text = result.output.to_text();
                messages.text("user", &format!("{} answered:\n{text}", result.name));
                messages.keep_images(result);
            }
            _ => {}
        }
    }
    messages.finish()
}

#[derive(Default)]
struct Messages {
    written: Vec<Value>,
    /// Images of tool outputs, which may follow only after all outputs.
    images: Vec<Value>,
}

impl Messages {
    fn message(&mut self, message: &Message) {
        let role = match &message.role {
            Role::Assistant => "assistant",
            // Few chat templates know the role of the developer.
            Role::Developer => "system",
            Role::Unknown(role) => role,
            _ => "user",
        };
        let has_image = message.content.iter().any(|part| matches!(part, Content::Image { .. }));
        if has_image && role == "user" {
            self.flush_images();
            let parts: Vec<_> = message.content.iter().filter_map(write_part).collect();
            self.written.push(json!({"role": role, "content": parts}));
        } else {
            self.text(role, &message.to_text());
        }
    }

    fn text(&mut self, role: &str, text: &str) {
        self.flush_images();
        match self.written.last_mut() {
            Some(last) if last["role"] == role && last["content"].is_string() => {
                let before = last["content"].as_str().unwrap_or_default();
                last["content"] = json!(format!("{before}\n\n{text}"));
            }
            // Words that follow the calls of the same answer.
            Some(last) if last["role"] == role && last["content"].is_null() => {
                last["content"] = json!(text);
            }
            _ => self.written.push(json!({"role": role, "content": text})),
        }
    }

    fn call(&mut self, call: &ToolCall) {
        self.flush_images();
        let mut value = json!({
            "id": call.call_id.as_str(),
            "type": "function",
            "function": {"name": call.name, "arguments": json_arguments(call)},
        });
        if let (Value::Object(fields), Some(Value::Object(extra))) =
            (&mut value, call.extra.get(CHAT_FIELDS))
        {
            fields.extend(extra.clone());
        }
        if self.written.last().is_none_or(|last| last["role"] != "assistant") {
            self.written.push(json!({"role": "assistant", "content": null}));
        }
        if let Some(last) = self.written.last_mut() {
            match &mut last["tool_calls"] {
                Value::Array(calls) => calls.push(value),
                none => *none = json!([value]),
            }
        }
    }

    fn result(&mut self, result: &ToolResult) {
        self.written.push(json!({
            "role": "tool",
            "tool_call_id": result.call_id.as_str(),
            "content": result.output.to_text(),
        }));
        self.keep_images(result);
    }

    fn keep_images(&mut self, result: &ToolResult) {
        let images = result.output.content.iter().filter(|p| matches!(p, Content::Image { .. }));
        let images: Vec<_> = images.filter_map(write_part).collect();
        if !images.is_empty() {
            let text = format!("Images in the output of {}:", result.name);
            self.images.push(json!({"type": "text", "text": text}));
            self.images.extend(images);
        }
    }

    fn flush_images(&mut self) {
        if !self.images.is_empty() {
            let parts = std::mem::take(&mut self.images);
            self.written.push(json!({"role": "user", "content": parts}));
        }
    }

    fn finish(mut self) -> Value {
        self.flush_images();
        Value::Array(self.written)
    }
}

fn write_part(part: &Content) -> Option<Value> {
    match part {
        Content::Text { text } => Some(json!({"type": "text", "text": text})),
        Content::Image { media_type, data_base64 } => Some(json!({
            "type": "image_url",
            "image_url": {"url": format!("data:{media_type};base64,{data_base64}")},
        })),
        _ => None,
    }
}

/// Returns a call's input as JSON text. Servers parse it to fill their template, and fail if it is broken.
fn json_arguments(call: &ToolCall) -> String {
    let input = &call.input;
    if call.kind == ToolCallKind::Custom {
        return json!({"input": input}).to_string();
    }
    match serde_json::from_str::<Value>(input) {
        Ok(Value::Object(_)) => input.clone(),
        Err(_) if input.trim().is_empty() => "{}".to_owned(),
        _ => json!({"malformed_arguments": input}).to_string(),
    }
}

//! [`ResponsesDecoder`]: the events of a Responses stream, as model events.
//!
//! Written for what servers really send: events twice, unknown events, a completed response without its items or items
//! without a completed response's copy, streams without sequence numbers or indexes (llama.cpp), errors flat or nested.

use std::collections::{BTreeMap, HashMap, VecDeque};

use cofferdam_core::{CallId, Item, Usage};
use cofferdam_model::{ModelError, ModelEvent, ModelResponse, StopReason};
use serde_json::Value;

use super::items;
use crate::{
    error_map::{ProviderError, from_stream},
    json::take,
    sse::SseEvent,
    transport::Decoder,
};

/// Reads one answer.
#[derive(Debug)]
pub(super) struct ResponsesDecoder {
    model: String,
    /// The length of the conversation before, so that ids made here differ from turn to turn.
    conversation: usize,
    started: bool,
    last_sequence: Option<u64>,
    /// Items by their place in the answer.
    items: BTreeMap<u64, Item>,
    /// Call ids by item id and by place, for the deltas of a call's input.
    calls: HashMap<String, CallId>,
}

impl ResponsesDecoder {
    pub(super) fn new(model: &str, conversation: usize) -> Self {
        Self {
            model: model.to_owned(),
            conversation,
            started: false,
            last_sequence: None,
            items: BTreeMap::new(),
            calls: HashMap::new(),
        }
    }

    fn handle(
        &mut self,
        kind: &str,
        mut event: Value,
        out: &mut VecDeque<ModelEvent>,
    ) -> Result<(), ModelError> {
        let delta = |event: &mut Value| match take(event, "delta") {
            Value::String(delta) => delta,
            _ => String::new(),
        };
        match kind {
            "response.created" | "response.queued" | "response.in_progress" => {
                self.start(&event["response"], out);
            }
            "response.output_text.delta" | "response.refusal.delta" => {
                out.push_back(ModelEvent::TextDelta(delta(&mut event)));
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                out.push_back(ModelEvent::ReasoningDelta(delta(&mut event)));
            }
            "response.function_call_arguments.delta"
            | "response.custom_tool_call_input.delta"
            | "response.shell_call_command.delta"
            | "response.apply_patch_call_operation_diff.delta" => {
                let call_id = self.call_of(&event);
                out.push_back(ModelEvent::ToolInputDelta { call_id, delta: delta(&mut event) });
            }
            "response.output_item.added" => self.note_call(&event),
            "response.output_item.done" => {
                // Without an index an item takes the next place, unless it is there already.
                let item = take(&mut event, "item");
                let place = event["output_index"].as_u64().or_else(|| self.next_place(&item));
                if let Some(place) = place {
                    self.take_item(place, item, out);
                }
            }
            "response.completed" | "response.incomplete" => {
                self.complete(take(&mut event, "response"), out)?;
            }
            "response.failed" => return Err(self.error(&event["response"])),
            "error" => return Err(self.error(&event)),
            kind if is_silent(kind) => {}
            _ => out.push_back(ModelEvent::Unknown(event)),
        }
        Ok(())
    }

    fn start(&mut self, response: &Value, out: &mut VecDeque<ModelEvent>) {
        if !std::mem::replace(&mut self.started, true) {
            let response_id = response["id"].as_str().map(str::to_owned);
            out.push_back(ModelEvent::Started { response_id });
        }
    }

    fn note_call(&mut self, event: &Value) {
        if let Some(call_id) = event["item"]["call_id"].as_str() {
            let keys = [event["item"]["id"].as_str().map(str::to_owned), place_key(event)];
            for key in keys.into_iter().flatten() {
                self.calls.insert(key, CallId::new(call_id));
            }
        }
    }

    fn call_of(&self, event: &Value) -> Option<CallId> {
        let by_item = event["item_id"].as_str().and_then(|id| self.calls.get(id));
        by_item.or_else(|| place_key(event).and_then(|key| self.calls.get(&key))).cloned()
    }

    /// Returns the place of an item that came without one; `None` if it is there already.
    fn next_place(&self, raw: &Value) -> Option<u64> {
        let last = self.items.last_key_value().map(|(place, _)| *place);
        let place = last.map_or(0, |place| place + 1);
        let item = self.read(place, raw.clone());
        let is_there = |known: &Item| match (known, &item) {
            (Item::ToolCall(known), Item::ToolCall(new)) => known.call_id == new.call_id,
            (known, new) => known == new,
        };
        (!self.items.values().any(is_there)).then_some(place)
    }

    fn read(&self, place: u64, raw: Value) -> Item {
        items::read(raw, &format!("call_{}_{place}", self.conversation))
    }

    fn take_item(&mut self, place: u64, raw: Value, out: &mut VecDeque<ModelEvent>) {
        if !raw.is_object() || self.items.contains_key(&place) {
            return;
        }
        let item = self.read(place, raw);
        self.items.insert(place, item.clone());
        out.push_back(ModelEvent::ItemDone(item));
    }

    fn complete(
        &mut self,
        mut response: Value,
        out: &mut VecDeque<ModelEvent>,
    ) -> Result<(), ModelError> {
        if response["status"] == "failed" {
            return Err(self.error(&response));
        }
        self.start(&response, out);
        // Items that came one by one are whole; the response's list fills in those that did not.
        if let Value::Array(output) = take(&mut response, "output")
            && output.len() > self.items.len()
        {
            for (place, raw) in (0..).zip(output) {
                self.take_item(place, raw, out);
            }
        }
        let stop = stop_reason(&response);
        let mut items: Vec<_> = std::mem::take(&mut self.items).into_values().collect();
        if stop != StopReason::Done {
            drop_unfinished(&mut items);
        }
        out.push_back(ModelEvent::Completed(ModelResponse {
            id: response["id"].as_str().map(str::to_owned),
            model: response["model"].as_str().map(str::to_owned),
            items,
            usage: usage(&response["usage"]),
            stop,
        }));
        Ok(())
    }

    fn error(&self, said: &Value) -> ModelError {
        from_stream(&self.model, &ProviderError::from_value(said).unwrap_or_default())
    }

    fn protocol(&self, detail: String) -> ModelError {
        ModelError::Protocol { model: self.model.clone(), detail }
    }
}

impl Decoder for ResponsesDecoder {
    fn event(&mut self, event: SseEvent, out: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        if event.data == "[DONE]" {
            return self.end(out);
        }
        let value: Value = serde_json::from_str(&event.data)
            .map_err(|error| self.protocol(format!("an event that is not JSON: {error}")))?;
        if !value.is_object() {
            return Err(self.protocol("an event that is not a JSON object".to_owned()));
        }
        // Some servers number all events 0; a number above that which does not rise is a repeated event.
        let sequence = value["sequence_number"].as_u64().filter(|number| *number > 0);
        if sequence.is_some() && sequence <= self.last_sequence {
            return Ok(());
        }
        self.last_sequence = sequence.or(self.last_sequence);
        let kind = value["type"].as_str().unwrap_or(&event.name).to_owned();
        self.handle(&kind, value, out)
    }

    fn whole(&mut self, answer: Value, out: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        if answer.get("output").is_some_and(Value::is_array) {
            return self.complete(answer, out);
        }
        match ProviderError::from_value(&answer) {
            Some(said) => Err(from_stream(&self.model, &said)),
            None => Err(self.protocol("JSON that is not a response".to_owned())),
        }
    }

    fn end(&mut self, _out: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        Ok(()) // only the server's last event says that an answer is whole
    }
}

fn place_key(event: &Value) -> Option<String> {
    event["output_index"].as_u64().map(|place| format!("#{place}"))
}

/// Returns whether an event is known and says nothing that other events do not say.
fn is_silent(kind: &str) -> bool {
    matches!(
        kind,
        "response.content_part.added"
            | "response.content_part.done"
            | "response.output_text.done"
            | "response.output_text.annotation.added"
            | "response.refusal.done"
            | "response.reasoning_summary_part.added"
            | "response.reasoning_summary_part.done"
            | "response.reasoning_summary_text.done"
            | "response.reasoning_text.done"
            | "response.function_call_arguments.done"
            | "response.custom_tool_call_input.done"
            | "response.shell_call_command.added"
            | "response.shell_call_command.done"
            | "response.apply_patch_call_operation_diff.done"
    )
}

fn stop_reason(response: &Value) -> StopReason {
    match response["incomplete_details"]["reason"].as_str() {
        Some("max_output_tokens") => StopReason::MaxOutputTokens,
        Some("content_filter") => StopReason::ContentFilter,
        Some(other) => StopReason::Unknown(other.to_owned()),
        None => match response["status"].as_str() {
            None | Some("completed") => StopReason::Done,
            Some(other) => StopReason::Unknown(other.to_owned()),
        },
    }
}

/// Leaves unfinished calls out, and the reasoning before them, which is refused without what it led to.
fn drop_unfinished(items: &mut Vec<Item>) {
    while let Some(unfinished) = items.iter().rposition(items::is_unfinished) {
        items.remove(unfinished);
        let reasoning = items[..unfinished].iter().rev().take_while(|i| items::is_reasoning(i));
        items.drain(unfinished - reasoning.count()..unfinished);
    }
}

fn usage(usage: &Value) -> Usage {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    Usage {
        requests: 1,
        input_tokens: count(&usage["input_tokens"]),
        cached_input_tokens: count(&usage["input_tokens_details"]["cached_tokens"]),
        output_tokens: count(&usage["output_tokens"]),
        reasoning_tokens: count(&usage["output_tokens_details"]["reasoning_tokens"]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::strategy::any_event;

    proptest! {
        #[test]
        fn no_event_makes_it_panic(events in prop::collection::vec(any_event(), 0..8)) {
            let mut decoder = ResponsesDecoder::new("m", 0);
            let mut out = VecDeque::new();
            for event in &events {
                let data = event.to_string();
                let _ = decoder.event(SseEvent { data, ..SseEvent::default() }, &mut out);
            }
            for event in events {
                let _ = ResponsesDecoder::new("m", 0).whole(event, &mut out);
            }
            let completed = out.iter().filter_map(|event| match event {
                ModelEvent::Completed(response) => Some(response),
                _ => None,
            });
            for response in completed {
                prop_assert!(
                    response.stop == StopReason::Done
                        || !response.items.iter().any(items::is_unfinished)
                );
            }
        }
    }

    #[test]
    fn unfinished_calls_go_with_their_reasoning() {
        let item = |raw: &str| items::read(serde_json::from_str(raw).unwrap(), "x");
        let reasoning = item(r#"{"type":"reasoning","id":"r","summary":[]}"#);
        let whole = item(
            r#"{"type":"function_call","call_id":"a","name":"f","arguments":"{}",
                             "status":"completed"}"#,
        );
        let half = item(
            r#"{"type":"function_call","call_id":"b","name":"f","arguments":"{",
                            "status":"incomplete"}"#,
        );
        let mut items =
            vec![reasoning.clone(), whole.clone(), reasoning.clone(), reasoning.clone(), half];
        drop_unfinished(&mut items);
        assert_eq!(items, [reasoning, whole]);
    }
}

//! [`ChatDecoder`]: the chunks of a Chat Completions stream, as model events.

use std::collections::{BTreeSet, VecDeque};

use cofferdam_core::{CallId, Item, ToolCall, ToolCallKind, ToolInputSpec, Usage};
use cofferdam_model::{ModelError, ModelEvent, ModelRequest, ModelResponse, StopReason};
use serde_json::{Map, Value, json};

use super::{
    CHAT_FIELDS,
    forced_tools::{ForcedReply, ForcedTools},
};
use crate::{
    error_map::{ProviderError, from_stream},
    json::take,
    sse::SseEvent,
    transport::Decoder,
};

/// Reads one answer.
#[derive(Debug)]
pub(super) struct ChatDecoder {
    name: String,
    /// The length of the conversation before, so that ids made here differ from turn to turn.
    conversation: usize,
    /// Tools whose input is free text.
    text_tools: BTreeSet<String>,
    forced: bool,
    started: bool,
    completed: bool,
    response: ModelResponse,
    text: String,
    calls: Vec<PartialCall>,
    finish: Option<String>,
}

/// A tool call as far as it has come.
#[derive(Debug, Default)]
struct PartialCall {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    extra: Map<String, Value>,
}

impl ChatDecoder {
    pub(super) fn new(name: &str, request: &ModelRequest, forced: bool) -> Self {
        let text_tools =
            request.tools.iter().filter(|spec| matches!(spec.input, ToolInputSpec::Text { .. }));
        Self {
            name: name.to_owned(),
            conversation: request.input.len(),
            text_tools: text_tools.map(|spec| spec.name.clone()).collect(),
            forced,
            started: false,
            completed: false,
            response: ModelResponse::default(),
            text: String::new(),
            calls: Vec::new(),
            finish: None,
        }
    }

    /// Takes a chunk, or a whole answer, whose `message` has the form of a delta.
    fn chunk(
        &mut self,
        mut chunk: Value,
        out: &mut VecDeque<ModelEvent>,
    ) -> Result<(), ModelError> {
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            let said = ProviderError::from_value(&chunk).unwrap_or_default();
            return Err(from_stream(&self.name, &said));
        }
        if !chunk.is_object() {
            return Err(self.protocol("an event that is not a JSON object".to_owned()));
        }
        if !std::mem::replace(&mut self.started, true) {
            self.response.id = chunk["id"].as_str().map(str::to_owned);
            self.response.model = chunk["model"].as_str().map(str::to_owned);
            out.push_back(ModelEvent::Started { response_id: self.response.id.clone() });
        }
        if chunk["usage"].get("prompt_tokens").is_some() {
            self.response.usage = usage(&chunk["usage"]);
        }
        match take(&mut chunk, "choices") {
            Value::Array(mut choices) => {
                if let Some(choice) = choices.first_mut() {
                    let key = if choice.get("delta").is_some() { "delta" } else { "message" };
                    self.delta(take(choice, key), out);
                    if let Some(reason) = choice["finish_reason"].as_str().filter(|r| !r.is_empty())
                    {
                        self.finish = Some(reason.to_owned());
                    }
                }
            }
            // Usage alone, or something that is not known here.
            _ if chunk.get("usage").is_some() => {}
            _ => out.push_back(ModelEvent::Unknown(chunk)),
        }
        Ok(())
    }

    fn delta(&mut self, mut delta: Value, out: &mut VecDeque<ModelEvent>) {
        let non_empty = |value: &Value| value.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
        for field in ["reasoning_content", "reasoning"] {
            if let Some(text) = non_empty(&delta[field]) {
                out.push_back(ModelEvent::ReasoningDelta(text));
                break; // some servers send both, with the same text
            }
        }
        for field in ["content", "refusal"] {
            if let Some(text) = non_empty(&delta[field]) {
                self.text.push_str(&text);
                // What is forced into JSON is no text to show.
                if !self.forced {
                    out.push_back(ModelEvent::TextDelta(text));
                }
            }
        }
        if let Value::Array(calls) = take(&mut delta, "tool_calls") {
            for call in calls {
                self.call_delta(call, out);
            }
        }
    }

    fn call_delta(&mut self, mut delta: Value, out: &mut VecDeque<ModelEvent>) {
        let id = delta["id"].as_str().unwrap_or_default().to_owned();
        let index = delta["index"].as_u64();
        let place = self.place_of(index, &id);
        let call = &mut self.calls[place];
        if !id.is_empty() {
            call.id = id;
        }
        let mut function = take(&mut delta, "function");
        if let Some(name) = function["name"].as_str()
            && call.name != name
            && call.arguments.is_empty()
        {
            call.name.push_str(name);
        }
        let arguments = match take(&mut function, "arguments") {
            Value::String(piece) => piece,
            Value::Null => String::new(),
            whole => whole.to_string(),
        };
        call.arguments.push_str(&arguments);
        if let Value::Object(fields) = delta {
            let further = fields.into_iter().filter(|(name, value)| {
                !matches!(name.as_str(), "id" | "index" | "type" | "function") && !value.is_null()
            });
            call.extra.extend(further);
        }
        if !arguments.is_empty() {
            let call_id = (!call.id.is_empty()).then(|| CallId::new(call.id.as_str()));
            out.push_back(ModelEvent::ToolInputDelta { call_id, delta: arguments });
        }
    }

    /// Returns the place of the call that a piece belongs to, and makes one for a new call.
    fn place_of(&mut self, index: Option<u64>, id: &str) -> usize {
        let known = match index {
            // Some servers number all calls 0; then a new id tells a new call.
            Some(_) => self.calls.iter().rposition(|call| {
                call.index == index && (id.is_empty() || call.id.is_empty() || call.id == id)
            }),
            None if id.is_empty() => self.calls.len().checked_sub(1),
            None => self.calls.iter().rposition(|call| call.id == id),
        };
        known.unwrap_or_else(|| {
            self.calls.push(PartialCall { index, ..PartialCall::default() });
            self.calls.len() - 1
        })
    }

    fn complete(&mut self, out: &mut VecDeque<ModelEvent>) {
        if std::mem::replace(&mut self.completed, true) {
            return;
        }
        let mut response = std::mem::take(&mut self.response);
        response.stop = match self.finish.as_deref() {
            None | Some("stop" | "tool_calls" | "function_call") => StopReason::Done,
            Some("length") => StopReason::MaxOutputTokens,
            Some("content_filter") => StopReason::ContentFilter,
            Some(other) => StopReason::Unknown(other.to_owned()),
        };
        response.usage.requests = 1;
        let mut text = std::mem::take(&mut self.text);
        if self.forced && self.calls.is_empty() {
            match ForcedTools::read(&text) {
                ForcedReply::Answer(answer) => text = answer,
                ForcedReply::Call { tool, arguments } => {
                    text.clear();
                    let arguments =
                        if arguments.is_null() { "{}".to_owned() } else { arguments.to_string() };
                    let call = PartialCall { name: tool, arguments, ..PartialCall::default() };
                    self.calls.push(call);
                }
            }
            if !text.is_empty() {
                out.push_back(ModelEvent::TextDelta(text.clone()));
            }
        }
        if !text.is_empty() {
            response.items.push(Item::assistant(text));
        }
        let was_cut = response.stop != StopReason::Done;
        for (place, call) in std::mem::take(&mut self.calls).into_iter().enumerate() {
            // A call that was cut is half a command, or half a patch: it must not run.
            let is_whole = serde_json::from_str::<Value>(&call.arguments).is_ok();
            if is_whole || !was_cut {
                response.items.push(self.read_call(place, call));
            }
        }
        out.extend(response.items.iter().cloned().map(ModelEvent::ItemDone));
        out.push_back(ModelEvent::Completed(response));
    }

    fn read_call(&self, place: usize, call: PartialCall) -> Item {
        let (kind, input) = if self.text_tools.contains(&call.name) {
            (ToolCallKind::Custom, text_input(call.arguments))
        } else {
            (ToolCallKind::Function, call.arguments)
        };
        let call_id = match call.id {
            id if id.is_empty() => CallId::new(format!("call_{}_{place}", self.conversation)),
            id => CallId::new(id),
        };
        let mut extra = Map::new();
        if !call.extra.is_empty() {
            extra.insert(CHAT_FIELDS.to_owned(), json!(call.extra));
        }
        Item::ToolCall(ToolCall { call_id, name: call.name, kind, input, extra })
    }

    fn protocol(&self, detail: String) -> ModelError {
        ModelError::Protocol { model: self.name.clone(), detail }
    }
}

impl Decoder for ChatDecoder {
    fn event(&mut self, event: SseEvent, out: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        if event.data.trim() == "[DONE]" {
            if self.started {
                self.complete(out);
            }
            return Ok(());
        }
        let chunk = serde_json::from_str(&event.data)
            .map_err(|error| self.protocol(format!("an event that is not JSON: {error}")))?;
        self.chunk(chunk, out)
    }

    fn whole(&mut self, answer: Value, out: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        if answer.get("choices").is_none() && answer.get("error").is_none() {
            return Err(self.protocol("JSON that is not a chat completion".to_owned()));
        }
        self.chunk(answer, out)?;
        self.complete(out);
        Ok(())
    }

    fn end(&mut self, out: &mut VecDeque<ModelEvent>) -> Result<(), ModelError> {
        // Without `[DONE]`, the reason why it finished says that the answer is whole.
        if self.finish.is_some() {
            self.complete(out);
        }
        Ok(())
    }
}

/// Takes the free text out of the function arguments that stand for it. A model that forgot the wrapping meant the text.
fn text_input(arguments: String) -> String {
    match serde_json::from_str::<Value>(&arguments) {
        Ok(mut object) => match take(&mut object, "input") {
            Value::String(input) => input,
            _ => arguments,
        },
        Err(_) => arguments,
    }
}

fn usage(usage: &Value) -> Usage {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    Usage {
        requests: 1,
        input_tokens: count(&usage["prompt_tokens"]),
        cached_input_tokens: count(&usage["prompt_tokens_details"]["cached_tokens"]),
        output_tokens: count(&usage["completion_tokens"]),
        reasoning_tokens: count(&usage["completion_tokens_details"]["reasoning_tokens"]),
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::ToolSpec;
    use proptest::prelude::*;

    use super::*;
    use crate::json::strategy::any_event;

    proptest! {
        #[test]
        fn no_event_makes_it_panic(
            events in prop::collection::vec(any_event(), 0..8),
            forced in any::<bool>(),
        ) {
            let request = ModelRequest::default();
            let mut decoder = ChatDecoder::new("m", &request, forced);
            let mut out = VecDeque::new();
            for event in &events {
                let data = event.to_string();
                let _ = decoder.event(SseEvent { data, ..SseEvent::default() }, &mut out);
            }
            let _ = decoder.end(&mut out);
            let answers = out.iter().filter(|event| matches!(event, ModelEvent::Completed(_)));
            prop_assert!(answers.count() <= 1);
            for event in events {
                let _ = ChatDecoder::new("m", &request, forced).whole(event, &mut out);
            }
        }
    }

    fn decode(chunks: &[&str]) -> Result<ModelResponse, String> {
        let spec = ToolSpec {
            name: "apply_patch".into(),
            description: String::new(),
            input: ToolInputSpec::Text { grammar: None },
        };
        let request = ModelRequest { tools: [spec].into(), ..ModelRequest::default() };
        let mut decoder = ChatDecoder::new("m", &request, false);
        let mut out = VecDeque::new();
        for chunk in chunks {
            let event = SseEvent { data: (*chunk).to_owned(), ..SseEvent::default() };
            decoder.event(event, &mut out).map_err(|error| error.to_string())?;
        }
        decoder.end(&mut out).map_err(|error| error.to_string())?;
        match out.pop_back() {
            Some(ModelEvent::Completed(response)) => Ok(response),
            other => Err(format!("not complete: {other:?}")),
        }
    }

    /// Feeds deltas of tool calls, then a finish reason, and compares `id name input`.
    fn check_calls(deltas: &[&str], finish: &str, expect: &[&str]) {
        let mut chunks: Vec<_> = deltas
            .iter()
            .map(|delta| format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{delta}]}}}}]}}"#))
            .collect();
        chunks.push(format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":{finish}}}]}}"#));
        chunks.push("[DONE]".to_owned());
        let chunks: Vec<_> = chunks.iter().map(String::as_str).collect();
        let response = decode(&chunks).unwrap();
        let found: Vec<_> = response
            .tool_calls()
            .map(|call| format!("{} {} {}", call.call_id, call.name, call.input))
            .collect();
        assert_eq!(found, expect, "{deltas:?}");
    }

    #[test]
    fn tool_calls_are_put_together_as_servers_send_them() {
        let f = r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#;
        let one = r#"{"index":0,"function":{"arguments":"{\"x\":"}}"#;
        let two = r#"{"index":0,"function":{"arguments":"1}"}}"#;
        check_calls(&[f, one, two], "\"tool_calls\"", &["a f {\"x\":1}"]);
        // A finish reason of plain text, an empty one, and none.
        check_calls(&[f, one, two], "\"stop\"", &["a f {\"x\":1}"]);
        check_calls(&[f, one, two], "\"\"", &["a f {\"x\":1}"]);
        check_calls(&[f, one, two], "null", &["a f {\"x\":1}"]);
        // Two calls whose pieces alternate.
        let g = r#"{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}"#;
        check_calls(&[f, one, g, two], "null", &["a f {\"x\":1}", "b g {}"]);
        // The same index for all, told apart by id.
        let g = r#"{"index":0,"id":"b","function":{"name":"g","arguments":"{}"}}"#;
        check_calls(&[f, one, two, g], "null", &["a f {\"x\":1}", "b g {}"]);
        // Id and name in each piece.
        let again = r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}"#;
        check_calls(&[f, again], "null", &["a f {}"]);
        // No index; no id; arguments as an object, whole.
        let bare = r#"{"function":{"name":"f","arguments":{"x":1}}}"#;
        check_calls(&[bare], "null", &["call_0_0 f {\"x\":1}"]);
        // Free text, wrapped as asked for, and not.
        let patch = r#"{"index":0,"id":"a","function":{"name":"apply_patch","arguments":"{\"input\":\"*** x\"}"}}"#;
        check_calls(&[patch], "null", &["a apply_patch *** x"]);
        let patch = r#"{"index":0,"id":"a","function":{"name":"apply_patch","arguments":"*** x"}}"#;
        check_calls(&[patch], "null", &["a apply_patch *** x"]);
        // Broken arguments are the harness's to answer, unless a bound of tokens broke them.
        check_calls(&[f, one], "\"tool_calls\"", &["a f {\"x\":"]);
        check_calls(&[f, one], "\"length\"", &[]);
    }

    #[test]
    fn further_fields_of_a_call_are_kept() {
        let response = decode(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","type":"function",
                "extra_content":{"signature":"s"},"function":{"name":"f","arguments":"{}"}}]}}]}"#,
            "[DONE]",
        ]);
        let response = response.unwrap();
        let call = response.tool_calls().next().unwrap();
        assert_eq!(
            Value::Object(call.extra.clone()),
            json!({"openai_chat": {"extra_content": {"signature": "s"}}})
        );
    }

    #[test]
    fn the_end_is_told_from_a_cut() {
        let text = r#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#;
        let stop = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{}}"#;
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,
            "prompt_tokens_details":{"cached_tokens":2}}}"#;
        let response = decode(&[text, stop, usage, "[DONE]", "[DONE]"]).unwrap();
        assert_eq!(response.text(), "hi");
        assert_eq!((response.usage.total_tokens(), response.usage.cached_input_tokens), (7, 2));
        assert_eq!(decode(&[text, "[DONE]"]).unwrap().text(), "hi");
        assert_eq!(decode(&[text, stop]).unwrap().text(), "hi");
        assert!(decode(&[text]).unwrap_err().starts_with("not complete"));
        assert_eq!(
            decode(&[text, r#"{"error":{"message":"out of memory","code":500}}"#]).unwrap_err(),
            "m failed to answer (code none): out of memory"
        );
        assert_eq!(
            decode(&["<html>"]).unwrap_err(),
            "m answered with something that is not its protocol: \
             an event that is not JSON: expected value at line 1 column 1"
        );
    }
}

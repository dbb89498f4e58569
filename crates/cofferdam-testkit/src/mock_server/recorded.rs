//! [`RecordedRequest`]: what the mock server was asked, and what can be read off it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Api;

/// One request.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// When it came, on the system's monotonic clock.
    pub monotonic_nanos: u64,
    /// The script that it asked for.
    pub script: String,
    /// The turn that it was answered with, from 0.
    pub turn: usize,
    /// The interface.
    pub api: Api,
    /// Its headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The size of its body.
    pub bytes_in: usize,
    /// The size of the answer.
    pub bytes_out: usize,
    /// Its body.
    pub body: Value,
}

impl RecordedRequest {
    /// Returns a header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the output that the request carries for a call, as text; JSON if it is not text.
    #[must_use]
    pub fn output_of(&self, call_id: &str) -> Option<String> {
        let items = conversation(self.api, &self.body);
        let output = items.iter().find_map(|item| match (self.api, ends(self.api, item)) {
            (Api::Responses, (_, Some(id))) if id == call_id => Some(&item["output"]),
            (Api::ChatCompletions, (_, Some(id))) if id == call_id => Some(&item["content"]),
            _ => None,
        })?;
        Some(output.as_str().map_or_else(|| output.to_string(), str::to_owned))
    }

    pub(super) fn log_line(&self) -> Value {
        json!([self.monotonic_nanos, self.script, self.turn, self.bytes_in, self.bytes_out])
    }
}

/// The time on the clock that all processes of the machine share.
pub(super) fn monotonic_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn conversation(api: Api, body: &Value) -> &[Value] {
    let field = match api {
        Api::Responses => "input",
        Api::ChatCompletions => "messages",
    };
    body[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Returns the next turn: one more than that of the last of the server's ids in the conversation.
pub(super) fn turn_of(api: Api, body: &Value) -> usize {
    let last = conversation(api, body).iter().rev().find_map(|item| {
        let calls = item["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ids = [&item["call_id"], &item["tool_call_id"], &item["id"]];
        ids.into_iter().chain(calls.iter().map(|call| &call["id"])).find_map(turn_in)
    });
    last.or_else(|| turn_in(&body["previous_response_id"])).map_or(0, |turn| turn + 1)
}

fn turn_in(id: &Value) -> Option<usize> {
    let id = id.as_str()?;
    let rest = ["call_t", "msg_t", "resp_t", "item_t"].iter().find_map(|p| id.strip_prefix(p))?;
    rest.split('_').next()?.parse().ok()
}

/// Returns the ids of the calls that an item makes, and the id of the call that it answers.
fn ends(api: Api, item: &Value) -> (Vec<&str>, Option<&str>) {
    match api {
        Api::ChatCompletions => {
            let calls = item["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
            (
                calls.iter().filter_map(|call| call["id"].as_str()).collect(),
                item["tool_call_id"].as_str(),
            )
        }
        Api::Responses => {
            let id = item["call_id"].as_str();
            match item["type"].as_str() {
                Some(kind) if kind.ends_with("_call_output") => (Vec::new(), id),
                Some(kind) if kind.ends_with("_call") => (id.into_iter().collect(), None),
                _ => (Vec::new(), None),
            }
        }
    }
}

/// Says which calls of a conversation have not exactly one output, and which outputs have no call before them.
pub(super) fn pairing_error(api: Api, body: &Value) -> Option<String> {
    let continued = body["previous_response_id"].is_string();
    let mut outputs: BTreeMap<&str, usize> = BTreeMap::new();
    let mut errors = Vec::new();
    for item in conversation(api, body) {
        let (calls, answered) = ends(api, item);
        for call in calls {
            if outputs.insert(call, 0).is_some() {
                errors.push(format!("the call id {call} was used twice"));
            }
        }
        // With a previous response the call itself is at the server.
        match answered.map(|id| (id, outputs.get_mut(id))) {
            Some((_, Some(count))) => *count += 1,
            Some((id, None)) if !continued => {
                errors.push(format!("no tool call found for output {id}"))
            }
            _ => {}
        }
    }
    for (call, count) in outputs {
        match count {
            0 => errors.push(format!("no tool output found for call {call}")),
            1 => {}
            _ => errors.push(format!("{count} tool outputs found for call {call}")),
        }
    }
    (!errors.is_empty()).then(|| errors.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairing_is_checked_both_ways() {
        let check = |api, body: Value, expect: Option<&str>| {
            assert_eq!(pairing_error(api, &body).as_deref(), expect, "{body}");
        };
        let call = |id: &str| json!({"type": "function_call", "call_id": id});
        let output =
            |id: &str| json!({"type": "function_call_output", "call_id": id, "output": ""});
        let input = |items: &[Value]| json!({"input": items});
        check(Api::Responses, json!({"input": "hi"}), None);
        check(Api::Responses, input(&[call("a"), call("b"), output("b"), output("a")]), None);
        check(Api::Responses, input(&[call("a")]), Some("no tool output found for call a"));
        check(Api::Responses, input(&[output("a")]), Some("no tool call found for output a"));
        check(
            Api::Responses,
            input(&[call("a"), output("a"), output("a")]),
            Some("2 tool outputs found for call a"),
        );
        check(
            Api::Responses,
            input(&[call("a"), output("a"), call("a"), output("a")]),
            Some("the call id a was used twice"),
        );
        check(
            Api::Responses,
            json!({"previous_response_id": "resp_t0_0", "input": [output("a")]}),
            None,
        );
        let assistant = json!({"role": "assistant", "tool_calls": [{"id": "a"}]});
        let tool = json!({"role": "tool", "tool_call_id": "a", "content": ""});
        check(Api::ChatCompletions, json!({"messages": [assistant, tool]}), None);
        check(
            Api::ChatCompletions,
            json!({"messages": [assistant]}),
            Some("no tool output found for call a"),
        );
    }

    #[test]
    fn the_turn_is_read_off_the_conversation() {
        let check =
            |body: Value, expect| assert_eq!(turn_of(Api::Responses, &body), expect, "{body}");
        check(json!({"input": "hi"}), 0);
        check(json!({"input": [{"call_id": "call_t3_0"}]}), 4);
        check(
            json!({"input": [{"id": "msg_t3_0"}, {"role": "user", "content": "\"call_t9_0\""}]}),
            4,
        );
        check(json!({"input": [{"call_id": "other"}], "previous_response_id": "resp_t1_0"}), 2);
    }
}

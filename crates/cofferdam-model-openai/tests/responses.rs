//! The Responses client against the mock server: what it streams, sends and survives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cofferdam_core::{Content, Item, Message, Role, Secret, ToolCallKind, ToolOutput, Usage};
use cofferdam_model::{
    ModelError, ModelEvent, ModelRequest, ModelSettings, OutputFormat, ReasoningEffort, StopReason,
    ToolChoice,
};
use cofferdam_model_openai::{Endpoint, NativeTools, ResponsesModel};
use cofferdam_testkit::mock_server::{Fault, MockItem, MockTurn};
use serde_json::{Value, json};
use support::{
    RESPONSE_CREATE_PARAMS, RESPONSE_INPUT_ITEM, answer, endpoint, events, failure, request,
    responses, result, say, serve, serve_raw,
};

/// One of everything that a model says.
fn everything() -> Vec<MockTurn> {
    vec![MockTurn::new([
        MockItem::Reasoning { encrypted_content: "gAAA==".into() },
        MockItem::message("Größe: 😀"),
        MockItem::function_call("exec_command", json!({"cmd": "echo grüße"})),
        MockItem::custom_tool_call("apply_patch", "*** Begin Patch\n*** End Patch\n"),
        MockItem::Raw { item: json!({"type": "hologram", "id": "h_1", "deep": {"w": [1, null]}}) },
    ])]
}

#[tokio::test]
async fn streams_pieces_and_then_the_whole_answer() {
    let server = serve(everything()).await;
    let events = events(&responses(&server), request([Item::user("go")])).await.unwrap();

    assert_eq!(events[0], ModelEvent::Started { response_id: Some("resp_t0_0".into()) });
    let text: String = events
        .iter()
        .filter_map(
            |e| if let ModelEvent::TextDelta(text) = e { Some(text.as_str()) } else { None },
        )
        .collect();
    assert_eq!(text, "Größe: 😀");
    let inputs: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            ModelEvent::ToolInputDelta { call_id: Some(id), delta } => {
                Some((id.as_str(), &**delta))
            }
            _ => None,
        })
        .collect();
    assert_eq!(inputs[0], ("call_t0_2", "{\"cmd\":\"echo grü"));
    assert_eq!(inputs.last().unwrap(), &("call_t0_3", "*** End Patch\n"));
    let done: Vec<_> = events
        .iter()
        .filter_map(|e| if let ModelEvent::ItemDone(item) = e { Some(item.clone()) } else { None })
        .collect();
    let Some(ModelEvent::Completed(response)) = events.last() else { panic!("{events:?}") };
    assert_eq!(response.items, done);
    assert_eq!(response.model.as_deref(), Some("mock"));
    assert_eq!(response.stop, StopReason::Done);
    assert_eq!(
        response.usage,
        Usage { requests: 1, input_tokens: 200, output_tokens: 14, ..Usage::default() }
    );
    let kinds: Vec<_> = response.tool_calls().map(|call| (&call.kind, &*call.input)).collect();
    assert_eq!(
        kinds,
        [
            (&ToolCallKind::Function, "{\"cmd\":\"echo grüße\"}"),
            (&ToolCallKind::Custom, "*** Begin Patch\n*** End Patch\n")
        ]
    );
}

/// Runs two turns and returns the second request's body.
async fn second_request(first: Vec<MockTurn>, native: NativeTools, output: ToolOutput) -> Value {
    let server = serve(first.into_iter().chain([say("done")])).await;
    let model = ResponsesModel::builder("mock").native_tools(native);
    let model = model.build(&endpoint(&server)).unwrap();
    let mut conversation = vec![Item::user("go")];
    let response = answer(&model, request(conversation.clone())).await.unwrap();
    let results: Vec<_> = response.tool_calls().map(|call| result(call, output.clone())).collect();
    conversation.extend(response.items);
    conversation.extend(results);
    let done = answer(&model, request(conversation)).await.unwrap();
    assert_eq!(done.text(), "done");
    server.assert_paired();
    server.requests().pop().unwrap().body
}

#[tokio::test]
async fn what_came_goes_back_unchanged() {
    let body = second_request(everything(), NativeTools::default(), ToolOutput::text("ok")).await;
    insta::assert_snapshot!(serde_json::to_string_pretty(&body["input"]).unwrap(), @r#"
    [
      {
        "content": [
          {
            "text": "go",
            "type": "input_text"
          }
        ],
        "role": "user",
        "type": "message"
      },
      {
        "encrypted_content": "gAAA==",
        "id": "item_t0_0",
        "summary": [],
        "type": "reasoning"
      },
      {
        "content": [
          {
            "annotations": [],
            "text": "Größe: 😀",
            "type": "output_text"
          }
        ],
        "id": "msg_t0_1",
        "role": "assistant",
        "status": "completed",
        "type": "message"
      },
      {
        "arguments": "{\"cmd\":\"echo grüße\"}",
        "call_id": "call_t0_2",
        "id": "item_t0_2",
        "name": "exec_command",
        "status": "completed",
        "type": "function_call"
      },
      {
        "call_id": "call_t0_3",
        "id": "item_t0_3",
        "input": "*** Begin Patch\n*** End Patch\n",
        "name": "apply_patch",
        "status": "completed",
        "type": "custom_tool_call"
      },
      {
        "deep": {
          "w": [
            1,
            null
          ]
        },
        "id": "h_1",
        "type": "hologram"
      },
      {
        "call_id": "call_t0_2",
        "output": "ok",
        "type": "function_call_output"
      },
      {
        "call_id": "call_t0_3",
        "output": "ok",
        "type": "custom_tool_call_output"
      }
    ]
    "#);
}

#[tokio::test]
async fn native_tools_are_called_and_answered_in_their_own_form() {
    let turns = vec![MockTurn::new([
        MockItem::ShellCall { commands: vec!["ls".into(), "pwd".into()] },
        MockItem::ApplyPatchCall { operation: json!({"type": "delete_file", "path": "a"}) },
    ])];
    let native = NativeTools { shell: true, apply_patch: true };
    let body = second_request(turns, native, ToolOutput::error("denied by policy")).await;
    for item in body["input"].as_array().unwrap() {
        RESPONSE_INPUT_ITEM.assert_valid(item);
    }
    let kept = json!({"input": body["input"], "tools": body["tools"]});
    insta::assert_snapshot!(serde_json::to_string_pretty(&kept).unwrap(), @r#"
    {
      "input": [
        {
          "content": [
            {
              "text": "go",
              "type": "input_text"
            }
          ],
          "role": "user",
          "type": "message"
        },
        {
          "action": {
            "commands": [
              "ls",
              "pwd"
            ],
            "max_output_length": 4096,
            "timeout_ms": null
          },
          "call_id": "call_t0_0",
          "environment": null,
          "id": "item_t0_0",
          "status": "completed",
          "type": "shell_call"
        },
        {
          "call_id": "call_t0_1",
          "id": "item_t0_1",
          "operation": {
            "path": "a",
            "type": "delete_file"
          },
          "status": "completed",
          "type": "apply_patch_call"
        },
        {
          "call_id": "call_t0_0",
          "max_output_length": 4096,
          "output": [
            {
              "outcome": {
                "exit_code": 1,
                "type": "exit"
              },
              "stderr": "denied by policy",
              "stdout": ""
            },
            {
              "outcome": {
                "exit_code": 1,
                "type": "exit"
              },
              "stderr": "denied by policy",
              "stdout": ""
            }
          ],
          "type": "shell_call_output"
        },
        {
          "call_id": "call_t0_1",
          "output": "denied by policy",
          "status": "failed",
          "type": "apply_patch_call_output"
        }
      ],
      "tools": [
        {
          "environment": {
            "type": "local"
          },
          "type": "shell"
        },
        {
          "type": "apply_patch"
        }
      ]
    }
    "#);
}

/// Sends a request and returns its body, which is checked against the vendor's schema.
async fn sent(request: ModelRequest) -> Value {
    let server = serve([say("ok")]).await;
    let model = ResponsesModel::builder("mock").body_field("service_tier", json!("flex"));
    answer(&model.build(&endpoint(&server)).unwrap(), request).await.unwrap();
    let body = server.requests().pop().unwrap().body;
    RESPONSE_CREATE_PARAMS.assert_valid(&body);
    for item in body["input"].as_array().unwrap() {
        RESPONSE_INPUT_ITEM.assert_valid(item);
    }
    body
}

#[tokio::test]
async fn a_whole_request() {
    let image = Content::Image { media_type: "image/png".into(), data_base64: "AA==".into() };
    let mut seen = Message::text(Role::User, "look");
    seen.content.push(image);
    let mut request = request([
        Item::Message(Message::text(Role::Developer, "be brief")),
        Item::Message(seen),
        Item::assistant("a cat"),
        Item::Provider { provider: "anthropic".into(), raw: json!({"type": "thinking"}) },
        Item::user("count it"),
    ]);
    request.instructions = Some("You count.".into());
    request.settings = ModelSettings {
        max_output_tokens: Some(100),
        temperature: Some(0.5),
        reasoning_effort: Some(ReasoningEffort::Xhigh),
        tool_choice: ToolChoice::Tool("apply_patch".into()),
        parallel_tool_calls: Some(false),
        output_format: OutputFormat::JsonSchema {
            name: "count".into(),
            schema: json!({"type": "object", "properties": {"n": {"type": "integer"}}}),
        },
        prompt_cache_key: Some("run-1".into()),
    }
    .into();
    let body = sent(request).await;
    insta::assert_snapshot!(serde_json::to_string_pretty(&body).unwrap(), @r#"
    {
      "include": [
        "reasoning.encrypted_content"
      ],
      "input": [
        {
          "content": [
            {
              "text": "be brief",
              "type": "input_text"
            }
          ],
          "role": "developer",
          "type": "message"
        },
        {
          "content": [
            {
              "text": "look",
              "type": "input_text"
            },
            {
              "detail": "auto",
              "image_url": "data:image/png;base64,AA==",
              "type": "input_image"
            }
          ],
          "role": "user",
          "type": "message"
        },
        {
          "content": "a cat",
          "role": "assistant",
          "type": "message"
        },
        {
          "content": [
            {
              "text": "count it",
              "type": "input_text"
            }
          ],
          "role": "user",
          "type": "message"
        }
      ],
      "instructions": "You count.",
      "max_output_tokens": 100,
      "model": "mock",
      "parallel_tool_calls": false,
      "prompt_cache_key": "run-1",
      "reasoning": {
        "effort": "xhigh"
      },
      "service_tier": "flex",
      "store": false,
      "stream": true,
      "temperature": 0.5,
      "text": {
        "format": {
          "name": "count",
          "schema": {
            "properties": {
              "n": {
                "type": "integer"
              }
            },
            "type": "object"
          },
          "strict": true,
          "type": "json_schema"
        }
      },
      "tool_choice": {
        "name": "apply_patch",
        "type": "custom"
      },
      "tools": [
        {
          "description": "Runs a command.",
          "name": "exec_command",
          "parameters": {
            "additionalProperties": false,
            "properties": {
              "cmd": {
                "type": "string"
              }
            },
            "required": [
              "cmd"
            ],
            "type": "object"
          },
          "strict": true,
          "type": "function"
        },
        {
          "description": "Changes files.",
          "format": {
            "definition": "start: \"x\"",
            "syntax": "lark",
            "type": "grammar"
          },
          "name": "apply_patch",
          "type": "custom"
        }
      ]
    }
    "#);
}

#[tokio::test]
async fn a_plain_request_says_no_more_than_it_must() {
    let request = ModelRequest { input: vec![Item::user("hi").into()], ..ModelRequest::default() };
    let body = sent(request).await;
    insta::assert_snapshot!(body, @r#"{"include":["reasoning.encrypted_content"],"input":[{"content":[{"text":"hi","type":"input_text"}],"role":"user","type":"message"}],"model":"mock","service_tier":"flex","store":false,"stream":true}"#);
}

#[tokio::test]
async fn the_key_goes_to_the_server_and_nowhere_else() {
    let server =
        serve([say("ok").fault(Fault::error(401, "invalid_api_key", "bad key sk-canary"))]).await;
    let endpoint = endpoint(&server).api_key(Secret::new("sk-canary"));
    let endpoint = endpoint.header("openai-project", &Secret::new("proj-canary")).unwrap();
    let model = ResponsesModel::builder("mock").build(&endpoint).unwrap();
    let (error, text) = failure(&model, request([])).await;
    assert_eq!(text, "openai:mock refused the credentials: bad key [api key]");
    assert!(!format!("{model:?} {error:?} {endpoint:?}").contains("canary"));
    let sent = server.requests().pop().unwrap();
    assert_eq!(sent.header("authorization"), Some("Bearer sk-canary"));
    assert_eq!(sent.header("openai-project"), Some("proj-canary"));
}

#[tokio::test]
async fn faults_that_change_nothing() {
    let good = answer(&responses(&serve(everything()).await), request([])).await.unwrap();
    let check = async |fault: Fault| {
        let turns = everything().into_iter().map(|turn| turn.fault(fault.clone()));
        let server = serve(turns).await;
        let response = answer(&responses(&server), request([])).await;
        assert_eq!(response.unwrap(), good, "{fault:?}");
    };
    check(Fault::SplitEvery { bytes: 1 }).await;
    check(Fault::SplitEvery { bytes: 7 }).await;
    check(Fault::Split { at: vec![3, 200, 1201, 1202], pause_ms: 20 }).await;
    check(Fault::LineEnding("\r\n".into())).await;
    check(Fault::LineEnding("\r".into())).await;
    check(Fault::DuplicateAll).await;
    check(Fault::keepalive(4)).await;
    check(Fault::unknown_event(4)).await;
    check(Fault::Insert { before: 2, event: json!({"type": "keepalive", "sequence_number": 3}) })
        .await;
    check(Fault::Omit { event_type: "response.output_item.done".into() }).await;
    check(Fault::Omit { event_type: "response.output_item.added".into() }).await;
    check(Fault::Omit { event_type: "response.created".into() }).await;
    check(Fault::OmitFields(vec!["sequence_number".into()])).await;
    // As llama.cpp does.
    check(Fault::OmitFields(vec!["sequence_number".into(), "output_index".into()])).await;
}

#[tokio::test]
async fn unknown_events_are_shown_as_they_came() {
    let server = serve([say("ok").fault(Fault::unknown_event(1))]).await;
    let events = events(&responses(&server), request([])).await.unwrap();
    let unknown = json!({"type": "response.hologram.delta", "delta": {"w": 1}});
    assert_eq!(events[1], ModelEvent::Unknown(unknown));
}

#[tokio::test]
async fn faults_that_end_a_call() {
    let check = async |fault: Fault, retryable: bool, expect: &str| {
        let server = serve([say("a long enough text to be cut").fault(fault.clone())]).await;
        let model = responses(&server);
        let (error, text) = failure(&model, request([])).await;
        let text = text.replace(&server.port().to_string(), "PORT");
        assert!(text.starts_with(expect), "{fault:?}\n found: {text}\nexpect: {expect}");
        assert_eq!(error.retry().is_retryable(), retryable, "{fault:?}");
        // The fault is used up: what a retry layer does next works.
        if retryable {
            assert_eq!(
                answer(&model, request([])).await.unwrap().text(),
                "a long enough text to be cut"
            );
        }
    };
    let cut = "the stream of openai:mock was cut after 4 events, before the answer was whole";
    check(Fault::CutAfter { events: 4 }, true, cut).await;
    check(Fault::EndAfter { events: 4 }, true, cut).await;
    check(Fault::ResetAfter { events: 4 }, true, "the stream of openai:mock was cut after").await;
    check(
        Fault::ResetAfter { events: 0 },
        true,
        "cannot reach openai:mock at http://127.0.0.1:PORT/v1/responses: ",
    )
    .await;
    check(Fault::HangBeforeFirstByte, true, "openai:mock did not answer within 300ms (first byte)")
        .await;
    check(
        Fault::HangAfter { events: 3 },
        true,
        "openai:mock did not answer within 300ms (next event)",
    )
    .await;
    check(
        Fault::Html,
        false,
        "openai:mock answered with something that is not its protocol: text/html; charset=utf-8, \
         beginning \"<!DOCTYPE html>\\n<html><title>Sign in</title></html>\"",
    )
    .await;
    check(
        Fault::Insert { before: 2, event: json!("data: {\"type\":") },
        false,
        "openai:mock answered with something that is not its protocol: \
         an event that is not JSON: EOF while parsing a value",
    )
    .await;
    check(
        Fault::rate_limited("0.01"),
        true,
        "openai:mock limits the rate of requests; it asks to wait 10ms",
    )
    .await;
    check(
        Fault::rate_limited("300"),
        false,
        "openai:mock failed to answer (code rate_limit_exceeded): Rate limit reached \
         (it asks to wait longer than 120s)",
    )
    .await;
    check(
        Fault::error(503, "server_is_overloaded", "busy"),
        true,
        "openai:mock is unavailable (status 503): busy",
    )
    .await;
    check(
        Fault::flat_error(4, "server_error", "oops"),
        true,
        "openai:mock failed to answer (code server_error): oops",
    )
    .await;
    check(
        Fault::nested_error(4, "server_error", "oops"),
        true,
        "openai:mock failed to answer (code server_error): oops",
    )
    .await;
    let failed = json!({"type": "response.failed", "sequence_number": 4, "response": {
        "status": "failed", "error": {"code": "invalid_prompt", "message": "no"}}});
    check(
        Fault::EndWith { after: 4, event: failed },
        false,
        "openai:mock failed to answer (code invalid_prompt): no",
    )
    .await;
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let model =
        ResponsesModel::builder("m").build(&Endpoint::new("http://127.0.0.1:1/v1").unwrap());
    let (error, text) = failure(&model.unwrap(), request([])).await;
    assert!(
        text.starts_with("cannot reach openai:m at http://127.0.0.1:1/v1/responses: ")
            && text.contains("Connection refused"),
        "{text}"
    );
    assert!(error.retry().is_retryable());
}

#[tokio::test]
async fn the_whole_call_is_bounded() {
    let server = serve([say("ok").fault(Fault::HangAfter { events: 3 })]).await;
    let mut timeouts = support::impatient();
    timeouts.whole = std::time::Duration::from_millis(100);
    let model = ResponsesModel::builder("m").build(&endpoint(&server).timeouts(timeouts)).unwrap();
    let (_, text) = failure(&model, request([])).await;
    assert_eq!(text, "openai:m did not answer within 100ms (whole call)");
}

#[tokio::test]
async fn a_cut_answer_runs_no_half_call() {
    let incomplete = json!({"type": "response.incomplete", "sequence_number": 99, "response": {
        "id": "resp_t0_0", "status": "incomplete", "model": "mock",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [
            {"type": "message", "id": "msg_t0_0", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "first", "annotations": []}]},
            {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x"},
            {"type": "custom_tool_call", "id": "c", "call_id": "call_t0_2", "status": "incomplete",
             "name": "apply_patch", "input": "*** Begin Patch\n*** Delete File: a"}],
        "usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}}});
    let server = serve([say("x").fault(Fault::EndWith { after: 2, event: incomplete })]).await;
    let response = answer(&responses(&server), request([])).await.unwrap();
    assert_eq!(response.stop, StopReason::MaxOutputTokens);
    assert_eq!(response.text(), "first");
    assert_eq!(response.items.len(), 1);
    assert_eq!(response.usage.total_tokens(), 12);
}

#[tokio::test]
async fn stale_reasoning_is_left_out_once() {
    let stale = || Fault::error(400, "invalid_encrypted_content", "cannot verify");
    let history = || {
        let raw =
            json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"});
        let mut words = Message::text(Role::Assistant, "hm");
        words.extra = json!({"id": "msg_x", "status": "completed"}).as_object().unwrap().clone();
        let reasoning = Item::Provider { provider: "openai-responses".into(), raw };
        [Item::user("go"), reasoning, Item::Message(words)]
    };

    let server = serve([say("ok").fault(stale())]).await;
    let response = answer(&responses(&server), request(history())).await.unwrap();
    assert_eq!(response.text(), "ok");
    let inputs: Vec<_> = server.requests().into_iter().map(|r| r.body["input"].clone()).collect();
    assert_eq!(inputs[0].as_array().unwrap().len(), 3);
    assert_eq!(
        inputs[1],
        json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]},
               {"type": "message", "role": "assistant", "content": "hm"}])
    );

    let server = serve([say("ok").fault(stale()).fault(stale())]).await;
    let (error, _) = failure(&responses(&server), request(history())).await;
    assert!(matches!(error, ModelError::StaleReasoning { .. }), "{error}");
    assert_eq!(server.requests().len(), 2);

    let server = serve([say("ok").fault(stale())]).await;
    let (_, text) = failure(&responses(&server), request([Item::user("go")])).await;
    assert_eq!(
        text,
        "openai:mock no longer accepts the reasoning that was sent back: cannot verify"
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let base_url = serve_raw(concat!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
        r#"{"id":"r","object":"response","status":"completed","output":[{"type":"message","#,
        r#""role":"assistant","content":[{"type":"output_text","text":"plain"}]}]}"#
    ))
    .await;
    let model = ResponsesModel::builder("m").build(&Endpoint::new(&base_url).unwrap()).unwrap();
    assert_eq!(answer(&model, request([])).await.unwrap().text(), "plain");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let base_url = serve_raw(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let model = ResponsesModel::builder("m").build(&Endpoint::new(&base_url).unwrap()).unwrap();
    let (_, text) = failure(&model, request([])).await;
    assert_eq!(
        text,
        "openai:m answered with something that is not its protocol: a redirect to http://elsewhere/; \
         redirects are not followed, correct the base url"
    );
}

//! The Chat Completions client against the mock server: what it streams, sends and survives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cofferdam_core::{
    Content, Item, Message, Role, ToolCall, ToolCallKind, ToolOutput, ToolResult,
};
use cofferdam_model::{
    ModelEvent, ModelRequest, ModelSettings, OutputFormat, ReasoningEffort, StopReason, ToolChoice,
};
use cofferdam_model_openai::{ChatModel, Endpoint};
use cofferdam_testkit::mock_server::{Fault, MockItem, MockTurn};
use serde_json::{Map, Value, json};
use support::{
    CHAT_COMPLETION_CREATE_PARAMS, answer, chat, endpoint, events, failure, request, result, say,
    serve, serve_raw,
};

fn calls() -> MockTurn {
    MockTurn::new([
        MockItem::message("Größe: 😀"),
        MockItem::function_call("exec_command", json!({"cmd": "echo grüße"})),
        MockItem::custom_tool_call("apply_patch", "*** Begin Patch\n*** End Patch\n"),
    ])
}

#[tokio::test]
async fn plays_a_script_with_tools() {
    let server = serve([calls(), say("done")]).await;
    let model = chat(&server);
    let mut conversation = vec![Item::user("go")];
    let streamed = events(&model, request(conversation.clone())).await.unwrap();
    let text: String = streamed
        .iter()
        .filter_map(
            |e| if let ModelEvent::TextDelta(text) = e { Some(text.as_str()) } else { None },
        )
        .collect();
    assert_eq!(text, "Größe: 😀");
    let Some(ModelEvent::Completed(response)) = streamed.last() else { panic!("{streamed:?}") };
    let found: Vec<_> = response.tool_calls().map(|call| (&call.kind, &*call.input)).collect();
    assert_eq!(
        found,
        [
            (&ToolCallKind::Function, "{\"cmd\":\"echo grüße\"}"),
            (&ToolCallKind::Custom, "*** Begin Patch\n*** End Patch\n")
        ]
    );
    assert_eq!(response.usage.input_tokens, 200);

    let results: Vec<_> =
        response.tool_calls().map(|call| result(call, ToolOutput::text("ok"))).collect();
    conversation.extend(response.items.clone());
    conversation.extend(results);
    assert_eq!(answer(&model, request(conversation)).await.unwrap().text(), "done");
    server.assert_paired();
    let messages = &server.requests()[1].body["messages"];
    insta::assert_snapshot!(serde_json::to_string_pretty(messages).unwrap(), @r#"
    [
      {
        "content": "go",
        "role": "user"
      },
      {
        "content": "Größe: 😀",
        "role": "assistant",
        "tool_calls": [
          {
            "function": {
              "arguments": "{\"cmd\":\"echo grüße\"}",
              "name": "exec_command"
            },
            "id": "call_t0_1",
            "type": "function"
          },
          {
            "function": {
              "arguments": "{\"input\":\"*** Begin Patch\\n*** End Patch\\n\"}",
              "name": "apply_patch"
            },
            "id": "call_t0_2",
            "type": "function"
          }
        ]
      },
      {
        "content": "ok",
        "role": "tool",
        "tool_call_id": "call_t0_1"
      },
      {
        "content": "ok",
        "role": "tool",
        "tool_call_id": "call_t0_2"
      }
    ]
    "#);
}

/// A conversation with everything that a chat template dislikes.
fn awkward() -> ModelRequest {
    let image = Content::Image { media_type: "image/png".into(), data_base64: "AA==".into() };
    let mut seen = Message::text(Role::User, "look");
    seen.content.push(image.clone());
    let call = |id: &str, kind: ToolCallKind, input: &str| ToolCall {
        call_id: cofferdam_core::CallId::new(id),
        name: "exec_command".into(),
        kind,
        input: input.into(),
        extra: Map::new(),
    };
    let calls = [
        call("a", ToolCallKind::Function, "{\"cmd\": "),
        call("b", ToolCallKind::Custom, "free"),
        call("c", ToolCallKind::Function, ""),
    ];
    let output = |call: &ToolCall, content: Vec<Content>| {
        Item::ToolResult(ToolResult {
            call_id: call.call_id.clone(),
            name: call.name.clone(),
            kind: call.kind.clone(),
            output: ToolOutput { content, ..ToolOutput::default() },
        })
    };
    let results = [
        output(&calls[0], vec![Content::text("broken arguments")]),
        output(&calls[1], vec![Content::text("a picture"), image]),
        output(&calls[2], vec![]),
    ];
    let mut items = vec![
        Item::Message(Message::text(Role::Developer, "be brief")),
        Item::Message(seen),
        Item::Provider { provider: "openai-responses".into(), raw: json!({"type": "reasoning"}) },
        Item::assistant("a cat"),
    ];
    items.extend(calls.map(Item::ToolCall));
    items.extend(results);
    items.extend([Item::user("go on"), Item::user("please")]);
    let mut request = request(items);
    request.instructions = Some("You look.".into());
    request
}

async fn sent(model: impl FnOnce(Endpoint) -> ChatModel, request: ModelRequest) -> Value {
    let server = serve([say("ok")]).await;
    let _ = answer(&model(endpoint(&server)), request).await.unwrap();
    let body = server.requests().pop().unwrap().body;
    CHAT_COMPLETION_CREATE_PARAMS.assert_valid(&body);
    body
}

#[tokio::test]
async fn a_whole_request() {
    let mut request = awkward();
    request.settings = ModelSettings {
        max_output_tokens: Some(100),
        temperature: Some(0.5),
        reasoning_effort: Some(ReasoningEffort::Low),
        tool_choice: ToolChoice::Required,
        parallel_tool_calls: Some(false),
        output_format: OutputFormat::JsonSchema {
            name: "count".into(),
            schema: json!({"type": "object"}),
        },
        prompt_cache_key: None,
    }
    .into();
    let model = |endpoint: Endpoint| {
        let builder = ChatModel::builder("m").body_field("chat_template_kwargs", json!({"t": 1}));
        builder.build(&endpoint).unwrap()
    };
    let body = sent(model, request).await;
    insta::assert_snapshot!(serde_json::to_string_pretty(&body).unwrap(), @r#"
    {
      "chat_template_kwargs": {
        "t": 1
      },
      "max_tokens": 100,
      "messages": [
        {
          "content": "You look.\n\nbe brief",
          "role": "system"
        },
        {
          "content": [
            {
              "text": "look",
              "type": "text"
            },
            {
              "image_url": {
                "url": "data:image/png;base64,AA=="
              },
              "type": "image_url"
            }
          ],
          "role": "user"
        },
        {
          "content": "a cat",
          "role": "assistant",
          "tool_calls": [
            {
              "function": {
                "arguments": "{\"malformed_arguments\":\"{\\\"cmd\\\": \"}",
                "name": "exec_command"
              },
              "id": "a",
              "type": "function"
            },
            {
              "function": {
                "arguments": "{\"input\":\"free\"}",
                "name": "exec_command"
              },
              "id": "b",
              "type": "function"
            },
            {
              "function": {
                "arguments": "{}",
                "name": "exec_command"
              },
              "id": "c",
              "type": "function"
            }
          ]
        },
        {
          "content": "broken arguments",
          "role": "tool",
          "tool_call_id": "a"
        },
        {
          "content": "a picture",
          "role": "tool",
          "tool_call_id": "b"
        },
        {
          "content": "",
          "role": "tool",
          "tool_call_id": "c"
        },
        {
          "content": [
            {
              "text": "Images in the output of exec_command:",
              "type": "text"
            },
            {
              "image_url": {
                "url": "data:image/png;base64,AA=="
              },
              "type": "image_url"
            }
          ],
          "role": "user"
        },
        {
          "content": "go on\n\nplease",
          "role": "user"
        }
      ],
      "model": "m",
      "parallel_tool_calls": false,
      "reasoning_effort": "low",
      "response_format": {
        "json_schema": {
          "name": "count",
          "schema": {
            "type": "object"
          },
          "strict": true
        },
        "type": "json_schema"
      },
      "stream": true,
      "stream_options": {
        "include_usage": true
      },
      "temperature": 0.5,
      "tool_choice": "required",
      "tools": [
        {
          "function": {
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
            "strict": true
          },
          "type": "function"
        },
        {
          "function": {
            "description": "Changes files.",
            "name": "apply_patch",
            "parameters": {
              "additionalProperties": false,
              "properties": {
                "input": {
                  "type": "string"
                }
              },
              "required": [
                "input"
              ],
              "type": "object"
            }
          },
          "type": "function"
        }
      ]
    }
    "#);
}

#[tokio::test]
async fn a_whole_request_with_forced_tools() {
    let model =
        |endpoint: Endpoint| ChatModel::builder("m").forced_tools(true).build(&endpoint).unwrap();
    let body = sent(model, awkward()).await;
    insta::assert_snapshot!(serde_json::to_string_pretty(&body).unwrap(), @r#"
    {
      "messages": [
        {
          "content": "You look.\n\nReply with one JSON object and nothing else. To use a tool, reply with {\"tool\": NAME, \"tool_arguments\": {...}}; its output comes next. When the work is done, reply with {\"answer\": ...} instead.\n\nTools:\n- exec_command: Runs a command.\n  arguments: {\"additionalProperties\":false,\"properties\":{\"cmd\":{\"type\":\"string\"}},\"required\":[\"cmd\"],\"type\":\"object\"}\n- apply_patch: Changes files.\n  arguments: {\"additionalProperties\":false,\"properties\":{\"input\":{\"type\":\"string\"}},\"required\":[\"input\"],\"type\":\"object\"}\n\nbe brief",
          "role": "system"
        },
        {
          "content": [
            {
              "text": "look",
              "type": "text"
            },
            {
              "image_url": {
                "url": "data:image/png;base64,AA=="
              },
              "type": "image_url"
            }
          ],
          "role": "user"
        },
        {
          "content": "{\"answer\":\"a cat\"}\n\n{\"tool\":\"exec_command\",\"tool_arguments\":{\"malformed_arguments\":\"{\\\"cmd\\\": \"}}\n\n{\"tool\":\"exec_command\",\"tool_arguments\":{\"input\":\"free\"}}\n\n{\"tool\":\"exec_command\",\"tool_arguments\":{}}",
          "role": "assistant"
        },
        {
          "content": "exec_command answered:\nbroken arguments\n\nexec_command answered:\na picture",
          "role": "user"
        },
        {
          "content": [
            {
              "text": "Images in the output of exec_command:",
              "type": "text"
            },
            {
              "image_url": {
                "url": "data:image/png;base64,AA=="
              },
              "type": "image_url"
            }
          ],
          "role": "user"
        },
        {
          "content": "exec_command answered:\n\n\ngo on\n\nplease",
          "role": "user"
        }
      ],
      "model": "m",
      "response_format": {
        "json_schema": {
          "name": "reply",
          "schema": {
            "anyOf": [
              {
                "additionalProperties": false,
                "properties": {
                  "tool": {
                    "const": "exec_command"
                  },
                  "tool_arguments": {
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
                  }
                },
                "required": [
                  "tool",
                  "tool_arguments"
                ],
                "type": "object"
              },
              {
                "additionalProperties": false,
                "properties": {
                  "tool": {
                    "const": "apply_patch"
                  },
                  "tool_arguments": {
                    "additionalProperties": false,
                    "properties": {
                      "input": {
                        "type": "string"
                      }
                    },
                    "required": [
                      "input"
                    ],
                    "type": "object"
                  }
                },
                "required": [
                  "tool",
                  "tool_arguments"
                ],
                "type": "object"
              },
              {
                "additionalProperties": false,
                "properties": {
                  "answer": {
                    "type": "string"
                  }
                },
                "required": [
                  "answer"
                ],
                "type": "object"
              }
            ]
          },
          "strict": true
        },
        "type": "json_schema"
      },
      "stream": true,
      "stream_options": {
        "include_usage": true
      }
    }
    "#);
}

#[tokio::test]
async fn forced_tools_are_called_and_answered() {
    let server = serve([
        MockTurn::new([MockItem::message(
            r#"{"tool": "exec_command", "tool_arguments": {"cmd": "ls"}}"#,
        )]),
        // A chat message carries no id, so the script does not go on by itself.
    ])
    .await;
    let model = ChatModel::builder("m").forced_tools(true).build(&endpoint(&server)).unwrap();
    let streamed = events(&model, request([Item::user("list")])).await.unwrap();
    assert!(!streamed.iter().any(|event| matches!(event, ModelEvent::TextDelta(_))));
    let Some(ModelEvent::Completed(response)) = streamed.last() else { panic!("{streamed:?}") };
    let call = response.tool_calls().next().unwrap();
    assert_eq!(
        (call.call_id.as_str(), &*call.name, &*call.input),
        ("call_1_0", "exec_command", "{\"cmd\":\"ls\"}")
    );

    let patch = r#"{"tool": "apply_patch", "tool_arguments": {"input": "*** Begin"}}"#;
    let server = serve([say(patch)]).await;
    let model = ChatModel::builder("m").forced_tools(true).build(&endpoint(&server)).unwrap();
    let response = answer(&model, request([])).await.unwrap();
    let call = response.tool_calls().next().unwrap();
    assert_eq!((&call.kind, &*call.input), (&ToolCallKind::Custom, "*** Begin"));

    for (reply, expect) in [(r#"{"answer": "two files"}"#, "two files"), ("I am free", "I am free")]
    {
        let server = serve([say(reply)]).await;
        let model = ChatModel::builder("m").forced_tools(true).build(&endpoint(&server)).unwrap();
        let response = answer(&model, request([])).await.unwrap();
        assert_eq!((response.text().as_str(), response.tool_calls().count()), (expect, 0));
    }
}

#[tokio::test]
async fn faults_that_change_nothing() {
    let good = answer(&chat(&serve([calls()]).await), request([])).await.unwrap();
    let check = async |fault: Fault| {
        let server = serve([calls().fault(fault.clone())]).await;
        let response = answer(&chat(&server), request([])).await;
        assert_eq!(response.unwrap(), good, "{fault:?}");
    };
    check(Fault::SplitEvery { bytes: 1 }).await;
    check(Fault::LineEnding("\r\n".into())).await;
    check(Fault::keepalive(2)).await;
    check(Fault::Insert { before: 2, event: json!({"object": "ping"}) }).await;
    check(Fault::OmitFields(vec!["finish_reason".into(), "type".into()])).await;
}

#[tokio::test]
async fn faults_that_end_a_call() {
    let check = async |fault: Fault, retryable: bool, expect: &str| {
        let server = serve([calls().fault(fault.clone())]).await;
        let (error, text) = failure(&chat(&server), request([])).await;
        assert!(text.starts_with(expect), "{fault:?}\n found: {text}\nexpect: {expect}");
        assert_eq!(error.retry().is_retryable(), retryable, "{fault:?}");
    };
    let cut = "the stream of chat:mock was cut after 5 events, before the answer was whole";
    check(Fault::CutAfter { events: 5 }, true, cut).await;
    check(Fault::EndAfter { events: 5 }, true, cut).await;
    check(
        Fault::HangAfter { events: 3 },
        true,
        "chat:mock did not answer within 300ms (next event)",
    )
    .await;
    check(
        Fault::Html,
        false,
        "chat:mock answered with something that is not its protocol: text/html; charset=utf-8, \
         beginning \"<!DOCTYPE html>",
    )
    .await;
    check(
        Fault::EndWith {
            after: 3,
            event: json!({"error": {"type": "server_error", "message": "out of memory"}}),
        },
        true,
        "chat:mock failed to answer (code server_error): out of memory",
    )
    .await;
    check(
        Fault::Status {
            status: 400,
            headers: Vec::new(),
            body: json!({"error": {"code": 400, "type": "exceed_context_size_error",
                                   "message": "too many tokens"}}),
        },
        false,
        "the conversation is too long for chat:mock: too many tokens",
    )
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let base_url = serve_raw(concat!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
        r#"{"id":"c","model":"m","choices":[{"finish_reason":"length","message":"#,
        r#"{"role":"assistant","content":"plain"}}],"usage":{"prompt_tokens":1}}"#
    ))
    .await;
    let model = ChatModel::builder("m").build(&Endpoint::new(&base_url).unwrap()).unwrap();
    let response = answer(&model, request([])).await.unwrap();
    assert_eq!((response.text().as_str(), response.stop), ("plain", StopReason::MaxOutputTokens));
}

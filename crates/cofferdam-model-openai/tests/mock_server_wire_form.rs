//! The mock server's answers against JSON Schemas of the vendor's own types.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use cofferdam_testkit::mock_server::{MockItem, MockModelServer, MockTurn};
use serde_json::{Value, json};
use support::{CHAT_COMPLETION, CHAT_COMPLETION_CHUNK, RESPONSE, RESPONSE_STREAM_EVENT, serve};

fn turns() -> [MockTurn; 2] {
    [
        MockTurn::new([
            MockItem::Reasoning { encrypted_content: "gAAA==".into() },
            MockItem::message("Größe"),
            MockItem::function_call("exec_command", json!({"cmd": "true"})),
            MockItem::custom_tool_call("apply_patch", "*** Begin Patch\n*** End Patch\n"),
            MockItem::ShellCall { commands: vec!["ls".into()] },
            MockItem::ApplyPatchCall {
                operation: json!({"type": "update_file", "path": "a", "diff": "@@\n-a\n+b\n"}),
            },
        ]),
        MockTurn::new([MockItem::function_call("broken", json!("{\"cmd\": "))]),
    ]
}

async fn post(server: &MockModelServer, path: &str, body: Value) -> String {
    let client = reqwest::Client::builder().no_proxy();
    // The client wants a TLS configuration, though nothing here uses TLS.
    let tls = rustls::ClientConfig::builder_with_provider(
        rustls::crypto::ring::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(rustls::RootCertStore::empty())
    .with_no_client_auth();
    let client = client.tls_backend_preconfigured(tls).build().unwrap();
    let url = format!("{}/{path}", server.base_url());
    client.post(url).body(body.to_string()).send().await.unwrap().text().await.unwrap()
}

fn data(stream: &str) -> Vec<Value> {
    stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn conversation(turn: usize) -> Value {
    let call = format!("call_t{}_0", turn.wrapping_sub(1));
    match turn {
        0 => json!([]),
        _ => json!([{"type": "function_call", "call_id": call},
                    {"type": "function_call_output", "call_id": call, "output": ""}]),
    }
}

#[tokio::test]
async fn responses_are_well_formed() {
    let server = serve(turns()).await;
    for turn in 0..3 {
        let input = conversation(turn);
        let whole = post(&server, "responses", json!({"input": input})).await;
        RESPONSE.assert_valid(&serde_json::from_str(&whole).unwrap());
        let stream = post(&server, "responses", json!({"input": input, "stream": true})).await;
        let events = data(&stream);
        assert!(events.len() > 5, "{stream}");
        for event in &events {
            RESPONSE_STREAM_EVENT.assert_valid(event);
        }
    }
}

#[tokio::test]
async fn chat_completions_are_well_formed() {
    let server = serve(turns()).await;
    let messages = json!([{"role": "user", "content": "go"}]);
    let whole = post(&server, "chat/completions", json!({"messages": messages})).await;
    CHAT_COMPLETION.assert_valid(&serde_json::from_str(&whole).unwrap());
    let body = json!({"messages": messages, "stream": true});
    let stream = post(&server, "chat/completions", body).await;
    let chunks = data(&stream);
    assert!(chunks.len() > 5, "{stream}");
    for chunk in &chunks {
        CHAT_COMPLETION_CHUNK.assert_valid(chunk);
    }
    assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
}

#[tokio::test]
async fn an_unpaired_conversation_is_refused() {
    let server = serve(turns()).await;
    let input = json!([{"type": "function_call", "call_id": "call_t0_0"}]);
    let answer = post(&server, "responses", json!({"input": input})).await;
    assert_eq!(
        answer,
        r#"{"error":{"code":"invalid_request_error","message":"no tool output found for call call_t0_0","param":null,"type":"invalid_request_error"}}"#
    );
    let found = std::panic::catch_unwind(|| server.assert_paired()).unwrap_err();
    assert_eq!(
        found.downcast_ref::<String>().map(String::as_str),
        Some("request 0 is not paired: no tool output found for call call_t0_0")
    );
}

#[test]
fn the_schemas_refuse_what_is_wrong() {
    assert!(!RESPONSE.is_valid(&json!({"id": "r"})));
    assert!(!RESPONSE_STREAM_EVENT.is_valid(&json!({"type": "response.output_text.delta"})));
    assert!(!CHAT_COMPLETION_CHUNK.is_valid(&json!({"id": "c", "choices": [{}]})));
}

//! The clients against a real, small model behind a llama.cpp server, where there is one.
//!
//! `COFFERDAM_LOCAL_MODEL_URL` tells its base address; `cargo xtask suite local-model` starts one and sets it. What a
//! model of 135 million parameters says is not judged, only that it arrives whole and in form.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use cofferdam_core::Item;
use cofferdam_model::{ModelEvent, ModelRequest, ModelSettings, StopReason, ToolChoice};
use cofferdam_model_openai::{ChatModel, Endpoint, ResponsesModel};
use serde_json::Value;
use support::{answer, events, failure, request, result};

const NAME: &str = "smollm2";

#[expect(clippy::disallowed_methods, reason = "the suite passes the address in the environment")]
fn server(test: &str) -> Option<Endpoint> {
    let Ok(url) = std::env::var("COFFERDAM_LOCAL_MODEL_URL") else {
        cofferdam_testkit::skip(
            test,
            "COFFERDAM_LOCAL_MODEL_URL names no model server; `cargo xtask suite local-model` starts one",
        );
        return None;
    };
    Some(Endpoint::new(&url).unwrap())
}

fn question(text: &str, tokens: u64) -> ModelRequest {
    let settings = ModelSettings {
        max_output_tokens: Some(tokens),
        temperature: Some(0.0),
        ..ModelSettings::default()
    };
    ModelRequest {
        input: vec![Item::user(text).into()],
        settings: settings.into(),
        ..ModelRequest::default()
    }
}

/// The text that came in pieces, and the whole answer.
fn split(events: Vec<ModelEvent>) -> (String, cofferdam_model::ModelResponse) {
    let text = events
        .iter()
        .filter_map(
            |e| if let ModelEvent::TextDelta(text) = e { Some(text.as_str()) } else { None },
        )
        .collect();
    let Some(ModelEvent::Completed(response)) = events.into_iter().next_back() else {
        panic!("no answer")
    };
    (text, response)
}

#[tokio::test]
async fn chat_streams_text() {
    let Some(endpoint) = server("chat_streams_text") else { return };
    let model = ChatModel::builder(NAME).build(&endpoint).unwrap();
    let events = events(&model, question("Say hello.", 40)).await.unwrap();
    let (pieces, response) = split(events);
    assert!(!pieces.trim().is_empty());
    assert_eq!(response.text(), pieces);
    assert!(response.usage.input_tokens > 0 && response.usage.output_tokens > 0, "{response:?}");
}

#[tokio::test]
async fn responses_streams_text() {
    let Some(endpoint) = server("responses_streams_text") else { return };
    let model = ResponsesModel::builder(NAME).build(&endpoint).unwrap();
    let events = events(&model, question("Say hello.", 40)).await.unwrap();
    let (pieces, response) = split(events);
    assert!(!pieces.trim().is_empty());
    assert_eq!(response.text(), pieces);
    let mut conversation = vec![Item::user("Say hello.")];
    conversation.extend(response.items);
    conversation.push(Item::user("And goodbye."));
    let mut next = question("", 20);
    next.input = conversation.into_iter().map(Arc::new).collect();
    assert!(!answer(&model, next).await.unwrap().text().is_empty());
}

#[tokio::test]
async fn a_bound_of_tokens_is_told() {
    let Some(endpoint) = server("a_bound_of_tokens_is_told") else { return };
    let model = ChatModel::builder(NAME).build(&endpoint).unwrap();
    let response = answer(&model, question("Count from 1 to 100.", 8)).await.unwrap();
    assert_eq!(response.stop, StopReason::MaxOutputTokens);
    assert!(response.usage.output_tokens <= 8, "{response:?}");
}

#[tokio::test]
async fn forced_tools_are_called_in_form() {
    let Some(endpoint) = server("forced_tools_are_called_in_form") else { return };
    let model = ChatModel::builder(NAME).forced_tools(true).build(&endpoint).unwrap();
    let mut ask = request([Item::user("List the files of the current directory with a command.")]);
    ask.settings = ModelSettings {
        max_output_tokens: Some(200),
        temperature: Some(0.0),
        tool_choice: ToolChoice::Tool("exec_command".into()),
        ..ModelSettings::default()
    }
    .into();
    let response = answer(&model, ask.clone()).await.unwrap();
    let call = response.tool_calls().next().unwrap();
    assert_eq!(call.name, "exec_command");
    let arguments: Value = serde_json::from_str(&call.input).unwrap();
    assert!(arguments["cmd"].is_string(), "{arguments}");

    // Its output goes back, and the conversation goes on.
    let output = result(call, cofferdam_core::ToolOutput::text("README.md\nsrc\n"));
    ask.input.extend(response.items.into_iter().chain([output]).map(Arc::new));
    ask.settings =
        ModelSettings { tool_choice: ToolChoice::Auto, ..(*ask.settings).clone() }.into();
    let next = answer(&model, ask).await.unwrap();
    assert!(!next.items.is_empty() || next.stop == StopReason::MaxOutputTokens, "{next:?}");
}

#[tokio::test]
async fn a_conversation_that_is_too_long_is_told() {
    let Some(endpoint) = server("a_conversation_that_is_too_long_is_told") else {
        return;
    };
    let model = ChatModel::builder(NAME).build(&endpoint).unwrap();
    let (_, text) = failure(&model, question(&"word ".repeat(20_000), 8)).await;
    assert!(text.starts_with("the conversation is too long for chat:smollm2: "), "{text}");
}

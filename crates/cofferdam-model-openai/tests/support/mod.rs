//! What the tests of the wire clients share.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{path::Path, sync::LazyLock, time::Duration};

use cofferdam_core::{Grammar, Item, ToolCall, ToolInputSpec, ToolOutput, ToolResult, ToolSpec};
use cofferdam_model::{Model, ModelError, ModelEvent, ModelRequest, ModelResponse};
use cofferdam_model_openai::{ChatModel, Endpoint, ResponsesModel, Timeouts};
use cofferdam_testkit::mock_server::{MockItem, MockModelServer, MockScript, MockTurn};
use futures::StreamExt;
use jsonschema::Validator;
use serde_json::{Value, json};

/// The vendor's own types as JSON Schemas; `xtask/suites/schemas.py` writes them.
pub(crate) struct Schema(LazyLock<Validator>);

macro_rules! schemas {
    ($($name:ident: $file:literal,)*) => {
        $(pub(crate) static $name: Schema = Schema(LazyLock::new(|| load($file)));)*
    };
}

schemas! {
    CHAT_COMPLETION: "ChatCompletion",
    CHAT_COMPLETION_CHUNK: "ChatCompletionChunk",
    CHAT_COMPLETION_CREATE_PARAMS: "ChatCompletionCreateParams",
    RESPONSE: "Response",
    RESPONSE_CREATE_PARAMS: "ResponseCreateParams",
    RESPONSE_INPUT_ITEM: "ResponseInputItem",
    RESPONSE_STREAM_EVENT: "ResponseStreamEvent",
}

fn load(name: &str) -> Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/schema/{name}.json"));
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

impl Schema {
    /// Checks a value; the failure names each place that does not fit.
    #[track_caller]
    pub(crate) fn assert_valid(&self, value: &Value) {
        let errors: Vec<_> = self
            .0
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}\n{value:#}", errors.join("\n"));
    }

    pub(crate) fn is_valid(&self, value: &Value) -> bool {
        self.0.is_valid(value)
    }
}

/// Timeouts that let a test of a server that hangs end soon.
pub(crate) fn impatient() -> Timeouts {
    Timeouts {
        first_byte: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        ..Timeouts::default()
    }
}

pub(crate) async fn serve(turns: impl IntoIterator<Item = MockTurn>) -> MockModelServer {
    MockModelServer::start(MockScript::new(turns)).await.unwrap()
}

pub(crate) fn say(text: &str) -> MockTurn {
    MockTurn::new([MockItem::message(text)])
}

pub(crate) fn endpoint(server: &MockModelServer) -> Endpoint {
    Endpoint::new(&server.base_url()).unwrap().timeouts(impatient())
}

pub(crate) fn responses(server: &MockModelServer) -> ResponsesModel {
    ResponsesModel::builder("mock").build(&endpoint(server)).unwrap()
}

pub(crate) fn chat(server: &MockModelServer) -> ChatModel {
    ChatModel::builder("mock").build(&endpoint(server)).unwrap()
}

pub(crate) fn request(items: impl IntoIterator<Item = Item>) -> ModelRequest {
    let input = items.into_iter().map(Into::into).collect();
    ModelRequest { input, tools: tools().into(), ..ModelRequest::default() }
}

pub(crate) fn tools() -> Vec<ToolSpec> {
    vec![
        ToolSpec {
            name: "exec_command".into(),
            description: "Runs a command.".into(),
            input: ToolInputSpec::Json {
                schema: json!({"type": "object", "properties": {"cmd": {"type": "string"}},
                               "required": ["cmd"], "additionalProperties": false}),
                strict: true,
            },
        },
        ToolSpec {
            name: "apply_patch".into(),
            description: "Changes files.".into(),
            input: ToolInputSpec::Text {
                grammar: Some(Grammar { syntax: "lark".into(), definition: "start: \"x\"".into() }),
            },
        },
    ]
}

/// Everything that a model streams, up to the first error.
pub(crate) async fn events(
    model: &dyn Model,
    request: ModelRequest,
) -> Result<Vec<ModelEvent>, ModelError> {
    let mut stream = model.stream(request).await?;
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event?);
    }
    Ok(events)
}

pub(crate) async fn answer(
    model: &dyn Model,
    request: ModelRequest,
) -> Result<ModelResponse, ModelError> {
    match events(model, request).await?.pop() {
        Some(ModelEvent::Completed(response)) => Ok(response),
        other => panic!("the stream ended with {other:?}"),
    }
}

/// The error of a call with its causes.
pub(crate) async fn failure(model: &dyn Model, request: ModelRequest) -> (ModelError, String) {
    let error = answer(model, request).await.unwrap_err();
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let text = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    (error, text)
}

pub(crate) fn result(call: &ToolCall, output: ToolOutput) -> Item {
    Item::ToolResult(ToolResult {
        call_id: call.call_id.clone(),
        name: call.name.clone(),
        kind: call.kind.clone(),
        output,
    })
}

/// Serves one fixed HTTP answer to each request, for servers that no mock script describes.
pub(crate) async fn serve_raw(answer: &'static str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 65536];
            if stream.read(&mut request).await.is_ok() {
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    format!("http://{address}/v1")
}

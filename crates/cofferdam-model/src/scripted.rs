//! [`ScriptedModel`]: a model whose words are fixed in advance. What it asks for really happens; only the words are
//! scripted, and whoever shows such a run says so.
//!
//! A script is strict: each turn may state what the model must have been sent, and a turn too many is an error. The turn
//! is read off the conversation (one per answer of the model in it), so a script also works for many runs at once and
//! for a run that is resumed.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_core::{CallId, Item, ToolCall, ToolCallKind, Usage};
use futures::{StreamExt, stream, stream::BoxStream};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Model, ModelError, ModelEvent, ModelRequest, ModelResponse, StopReason};

/// A model that says what its script says.
#[derive(Debug, Clone)]
pub struct ScriptedModel {
    name: String,
    turns: Arc<[Turn]>,
}

/// Why a scripted model cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The script is not what a script looks like.
    #[error("the script is malformed: {detail}")]
    Malformed {
        /// What is wrong and where.
        detail: String,
    },
    /// The run goes on after the script's last turn.
    #[error("the script {script:?} has {turns} turns and the run asks for turn {asked}")]
    Exhausted {
        /// The script.
        script: String,
        /// Turns that it has.
        turns: usize,
        /// The turn that was asked for, from 1.
        asked: usize,
    },
    /// The model was sent something other than the script expects.
    #[error(
        "turn {turn} of the script {script:?} expects {expected}; the outputs before it were: {found}"
    )]
    Unexpected {
        /// The script.
        script: String,
        /// The turn, from 1.
        turn: usize,
        /// What was expected.
        expected: String,
        /// What was there, shortened.
        found: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    name: String,
    turns: Vec<Turn>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    #[serde(default)]
    expect: Expect,
    items: Vec<ScriptItem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expect {
    last_output_contains: Vec<String>,
    last_exit_code: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum ScriptItem {
    Message { message: String },
    Function { call: String, arguments: Value },
    Custom { call: String, input: String },
}

impl ScriptedModel {
    /// Reads a script: a name and a list of turns, each with `items` (`message`, or `call` with `arguments` or `input`)
    /// and optionally `expect` (`last_output_contains`, `last_exit_code`) on the outputs of the turn before.
    ///
    /// # Errors
    ///
    /// [`ScriptError::Malformed`].
    pub fn from_yaml(yaml: &str) -> Result<Self, ScriptError> {
        let script: Script = serde_yaml::from_str(yaml)
            .map_err(|error| ScriptError::Malformed { detail: error.to_string() })?;
        Ok(Self { name: format!("scripted:{}", script.name), turns: script.turns.into() })
    }

    /// Returns how many turns the script has.
    #[must_use]
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    fn answer(&self, request: &ModelRequest) -> Result<ModelResponse, ScriptError> {
        let index = answers_in(&request.input);
        let turn = self.turns.get(index).ok_or_else(|| ScriptError::Exhausted {
            script: self.name.clone(),
            turns: self.turns.len(),
            asked: index + 1,
        })?;
        self.check(index + 1, &turn.expect, &request.input)?;
        let items: Vec<Item> = turn
            .items
            .iter()
            .enumerate()
            .map(|(place, item)| item.to_item(index + 1, place))
            .collect();
        Ok(ModelResponse {
            id: Some(format!("script-{}", index + 1)),
            model: Some(self.name.clone()),
            items,
            usage: Usage { requests: 1, ..Usage::default() },
            stop: StopReason::Done,
        })
    }

    fn check(&self, turn: usize, expect: &Expect, input: &[Arc<Item>]) -> Result<(), ScriptError> {
        let outputs: Vec<_> = input
            .iter()
            .rev()
            .map_while(|item| match &**item {
                Item::ToolResult(result) => Some(result.output.to_text()),
                _ => None,
            })
            .collect();
        let all = outputs.join("\n");
        let unexpected = |expected: String| ScriptError::Unexpected {
            script: self.name.clone(),
            turn,
            expected,
            found: all.chars().take(2000).collect(),
        };
        for text in &expect.last_output_contains {
            if !all.contains(text.as_str()) {
                return Err(unexpected(format!("{text:?} in the outputs")));
            }
        }
        if let Some(code) = expect.last_exit_code {
            let line = format!("Process exited with code {code}\n");
            if !outputs.first().is_some_and(|output| output.contains(&line)) {
                return Err(unexpected(format!("exit code {code}")));
            }
        }
        Ok(())
    }
}

/// Counts the answers of the model in a conversation: unbroken rows of items that the model wrote.
fn answers_in(input: &[Arc<Item>]) -> usize {
    let mut answers = 0;
    let mut in_answer = false;
    for item in input {
        let by_model = match &**item {
            Item::Message(message) => message.role == cofferdam_core::Role::Assistant,
            Item::ToolCall(_) | Item::Provider { .. } => true,
            _ => false,
        };
        answers += usize::from(by_model && !in_answer);
        in_answer = by_model;
    }
    answers
}

impl ScriptItem {
    fn to_item(&self, turn: usize, place: usize) -> Item {
        let call_id = || CallId::new(format!("call_{turn}_{place}"));
        match self {
            Self::Message { message } => Item::assistant(message.trim_end()),
            Self::Function { call, arguments } => Item::ToolCall(ToolCall {
                call_id: call_id(),
                name: call.clone(),
                kind: ToolCallKind::Function,
                input: match arguments {
                    Value::String(raw) => raw.clone(),
                    object => object.to_string(),
                },
                extra: Map::new(),
            }),
            Self::Custom { call, input } => Item::ToolCall(ToolCall {
                call_id: call_id(),
                name: call.clone(),
                kind: ToolCallKind::Custom,
                input: input.clone(),
                extra: Map::new(),
            }),
        }
    }
}

#[async_trait]
impl Model for ScriptedModel {
    fn name(&self) -> &str {
        &self.name
    }

    async fn stream(
        &self,
        request: ModelRequest,
    ) -> Result<BoxStream<'static, Result<ModelEvent, ModelError>>, ModelError> {
        let response = self.answer(&request)?;
        let mut events = vec![ModelEvent::Started { response_id: response.id.clone() }];
        for item in &response.items {
            if let Item::Message(message) = item {
                events.push(ModelEvent::TextDelta(message.to_text().into_owned()));
            }
            events.push(ModelEvent::ItemDone(item.clone()));
        }
        events.push(ModelEvent::Completed(response));
        Ok(stream::iter(events.into_iter().map(Ok)).boxed())
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::{ToolOutput, ToolResult};
    use futures::executor::block_on;

    use super::*;
    use crate::ModelExt;

    const SCRIPT: &str = "
name: demo
turns:
  - items:
      - message: looking
      - call: exec_command
        arguments: { cmd: ls }
  - expect: { last_output_contains: [a.txt], last_exit_code: 1 }
    items:
      - call: apply_patch
        input: |
          *** Begin Patch
";

    fn ask(model: &ScriptedModel, input: &[Item]) -> Result<ModelResponse, ModelError> {
        let input = input.iter().cloned().map(Arc::new).collect();
        block_on(model.respond(ModelRequest { input, ..ModelRequest::default() }))
    }

    fn result(text: &str) -> Item {
        Item::ToolResult(ToolResult {
            call_id: CallId::new("call_1_1"),
            name: "exec_command".into(),
            kind: ToolCallKind::Function,
            output: ToolOutput::text(text),
        })
    }

    #[test]
    fn plays_its_turns_and_checks_what_it_is_sent() {
        let model = ScriptedModel::from_yaml(SCRIPT).unwrap();
        let mut conversation = vec![Item::user("go")];
        let first = ask(&model, &conversation).unwrap();
        assert_eq!(first.text(), "looking");
        assert_eq!(first.tool_calls().next().unwrap().input, r#"{"cmd":"ls"}"#);
        conversation.extend(first.items);

        let mut wrong = conversation.clone();
        wrong.push(result("Process exited with code 0\nb.txt"));
        let error = ask(&model, &wrong).unwrap_err().to_string();
        assert!(
            error.starts_with("turn 2 of the script \"scripted:demo\" expects \"a.txt\""),
            "{error}"
        );

        conversation.push(result("Process exited with code 1\na.txt"));
        let second = ask(&model, &conversation).unwrap();
        assert_eq!(second.tool_calls().next().unwrap().kind, ToolCallKind::Custom);
        conversation.extend(second.items);
        conversation.push(result(""));
        let end = ask(&model, &conversation).unwrap_err().to_string();
        assert_eq!(end, "the script \"scripted:demo\" has 2 turns and the run asks for turn 3");
    }

    #[test]
    fn refuses_malformed_scripts() {
        let error = ScriptedModel::from_yaml("name: x\nturns: [{itms: []}]").unwrap_err();
        assert!(error.to_string().contains("itms"), "{error}");
    }
}

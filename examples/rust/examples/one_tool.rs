//! An agent with one tool of your own beside the built-in ones. The model is scripted.
//!
//! ```sh
//! cargo run -p cofferdam-examples --example one_tool
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use async_trait::async_trait;
use cofferdam::{
    Agent,
    core::{Effects, ToolInputSpec, ToolOutput, ToolSpec},
    model::ScriptedModel,
    tool::{Tool, ToolContext, ToolError, ToolInput},
};
use serde_json::json;

/// Looks words up in a glossary that stays in the control plane.
#[derive(Debug)]
struct Glossary(ToolSpec);

impl Glossary {
    fn new() -> Self {
        Self(ToolSpec {
            name: "look_up".into(),
            description: "Looks a word up in the glossary.".into(),
            input: ToolInputSpec::Json {
                schema: json!({
                    "type": "object",
                    "properties": { "word": { "type": "string" } },
                    "required": ["word"],
                    "additionalProperties": false,
                }),
                strict: true,
            },
        })
    }
}

#[async_trait]
impl Tool for Glossary {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    // It changes nothing, so calls of it may run at the same time.
    fn effects(&self, _: &ToolInput) -> Effects {
        Effects::PURE
    }

    async fn call(&self, _: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        let word: String = input.decode_field("word")?;
        match word.as_str() {
            "cofferdam" => {
                Ok(ToolOutput::text("an enclosure, pumped dry, to work in below the waterline"))
            }
            _ => Ok(ToolOutput::error(format!("the glossary does not have {word:?}"))),
        }
    }
}

const SCRIPT: &str = "
name: glossary
turns:
  - items: [{call: look_up, arguments: {word: cofferdam}}]
  - expect: {last_output_contains: [pumped dry]}
    items: [{call: exec_command, arguments: {cmd: 'echo it stays dry in here > note.txt; cat note.txt'}}]
  - expect: {last_output_contains: [it stays dry], last_exit_code: 0}
    items: [{message: A cofferdam keeps the water out.}]
";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let agent = Agent::builder("explainer")
        .model(ScriptedModel::from_yaml(SCRIPT)?)
        .tool(Glossary::new())
        .build()?;
    let report = agent.run("What is a cofferdam?").await?;
    println!("{} ({} turns, {} tool calls)", report.output, report.turns, report.tool_calls);
    Ok(())
}

//! One request to a model, shown as it streams. The model here is scripted: its words are fixed in advance.
//!
//! ```sh
//! cargo run -p cofferdam-examples --example model_call
//! ```
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use cofferdam::{
    core::Item,
    model::{Model, ModelEvent, ModelRequest, ScriptedModel},
};
use futures::StreamExt as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let model = ScriptedModel::from_yaml("name: demo\nturns: [{items: [{message: Four.}]}]")?;
    let request = ModelRequest {
        input: vec![Item::user("What is 2 + 2?").into()],
        ..ModelRequest::default()
    };
    let mut events = model.stream(request).await?;
    while let Some(event) = events.next().await {
        match event? {
            ModelEvent::TextDelta(delta) => println!("… {delta}"),
            ModelEvent::Completed(response) => {
                println!("{} ({:?})", response.text(), response.usage)
            }
            _ => {}
        }
    }
    Ok(())
}

//! [`CrashingModel`]: any model, with points, that writes down that it was asked.

use std::sync::Arc;

use async_trait::async_trait;
use cofferdam_core::{Item, Role};
use cofferdam_model::{Model, ModelError, ModelEvent, ModelRequest};
use futures::{StreamExt, stream::BoxStream};

use crate::{
    ledger::{Deed, Ledger},
    point::Points,
};

/// A model whose process may die before it is asked, at each event of its answer, and after it.
#[derive(Debug)]
pub struct CrashingModel {
    inner: Arc<dyn Model>,
    points: Arc<Points>,
    ledger: Ledger,
}

impl CrashingModel {
    /// Puts points around a model.
    pub fn new(inner: Arc<dyn Model>, points: Arc<Points>, ledger: Ledger) -> Self {
        Self { inner, points, ledger }
    }
}

#[async_trait]
impl Model for CrashingModel {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn stream(
        &self,
        request: ModelRequest,
    ) -> Result<BoxStream<'static, Result<ModelEvent, ModelError>>, ModelError> {
        self.points.pass("model.ask.before");
        let turn = turn(&request.input);
        self.ledger.write(Deed::Asked { turn }).map_err(|error| {
            ModelError::from(cofferdam_model::ScriptError::Malformed { detail: error.to_string() })
        })?;
        let events = self.inner.stream(request).await?;
        let points = Arc::clone(&self.points);
        Ok(events
            .inspect(move |event| {
                points.pass(match event {
                    Ok(ModelEvent::Completed(_)) => "model.ask.after",
                    _ => "model.event",
                });
            })
            .boxed())
    }
}

/// Returns the turn that a conversation asks for: one more than the answers of the model in it.
fn turn(input: &[Arc<Item>]) -> u32 {
    let by_model = |item: &Item| match item {
        Item::Message(message) => message.role == Role::Assistant,
        Item::ToolCall(_) => true,
        _ => false,
    };
    let starts = input
        .iter()
        .enumerate()
        .filter(|(at, item)| by_model(item) && (*at == 0 || !by_model(&input[at - 1])));
    u32::try_from(starts.count()).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cofferdam_core::Item;

    use super::turn;

    #[test]
    fn a_turn_is_read_off_the_conversation() {
        let items = |texts: &[(&str, bool)]| {
            let item = |(text, user): &(&str, bool)| {
                Arc::new(if *user { Item::user(*text) } else { Item::assistant(*text) })
            };
            texts.iter().map(item).collect::<Vec<_>>()
        };
        assert_eq!(turn(&items(&[("go", true)])), 1);
        assert_eq!(turn(&items(&[("go", true), ("a", false), ("b", false)])), 2);
        assert_eq!(turn(&items(&[("go", true), ("a", false), ("on", true), ("b", false)])), 3);
    }
}

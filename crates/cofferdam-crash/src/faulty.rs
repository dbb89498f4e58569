//! Parts with a planted [`Defect`]: as sound as the ones that they decorate until the process dies at the wrong moment.

mod objects;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::{Effects, RunId, ToolOutput, ToolSpec};
use cofferdam_journal::{
    Entry, Journal, JournalDecorator, JournalError, Lease, Record, RecordBody, Seq,
};
use cofferdam_tool::{ProbeOutcome, Tool, ToolContext, ToolError, ToolInput};
use futures::{FutureExt, StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::ObjectStore;
use serde_json::Value;

use self::objects::LateObjects;
use crate::defect::Defect;

/// Plants the defect in a journal, if it is one of a journal.
pub(crate) fn journal(inner: Arc<dyn Journal>, defect: Option<Defect>) -> Arc<dyn Journal> {
    match defect {
        Some(Defect::EarlyJournal | Defect::LateIntent) => {
            let only_intents = defect == Some(Defect::LateIntent);
            Arc::new(LateJournal { inner, only_intents, held: Mutex::default() })
        }
        Some(Defect::ForgottenAnswer | Defect::ForgottenResult) => {
            let answers = defect == Some(Defect::ForgottenAnswer);
            Arc::new(ForgetfulJournal { inner, answers })
        }
        _ => inner,
    }
}

/// Plants the defect in an object store, if it is one of an object store.
pub(crate) fn objects(inner: Arc<dyn ObjectStore>, defect: Option<Defect>) -> Arc<dyn ObjectStore> {
    match defect {
        Some(Defect::EarlyObjects) => LateObjects::new(inner),
        _ => inner,
    }
}

/// Plants the defect in a tool, if it is one of a tool.
pub(crate) fn tool(inner: Arc<dyn Tool>, defect: Option<Defect>, process: u32) -> Arc<dyn Tool> {
    match defect {
        Some(Defect::NewKeys) => Arc::new(NewKeys { inner, process }),
        _ => inner,
    }
}

/// An append that was acknowledged and not made.
type Held = (Lease, Seq, Vec<Entry>);

/// Acknowledges an append, and makes it before the next.
#[derive(Debug)]
struct LateJournal {
    inner: Arc<dyn Journal>,
    only_intents: bool,
    held: Mutex<Option<Held>>,
}

impl LateJournal {
    async fn make_up(&self) -> Result<(), JournalError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((lease, expected, entries)) = held {
            self.inner.append(&lease, expected, entries).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl JournalDecorator for LateJournal {
    fn inner(&self) -> &dyn Journal {
        &*self.inner
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease, JournalError> {
        self.make_up().await?;
        self.inner.renew(lease, duration).await
    }

    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        self.make_up().await?;
        let intents = entries.iter().all(|it| matches!(it.body, RecordBody::ToolIntended { .. }));
        if self.only_intents && !intents {
            return self.inner.append(lease, expected, entries).await;
        }
        let last = Seq(expected.0 + entries.len() as u64);
        let held = (lease.clone(), expected, entries);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(last)
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.make_up().await?;
        self.inner.release(lease).await
    }
}

/// Does not give back the last record, if it is an answer of the model, or a result of a tool.
#[derive(Debug)]
struct ForgetfulJournal {
    inner: Arc<dyn Journal>,
    answers: bool,
}

#[async_trait]
impl JournalDecorator for ForgetfulJournal {
    fn inner(&self) -> &dyn Journal {
        &*self.inner
    }

    fn read(&self, run: &RunId, from: Seq) -> BoxStream<'static, Result<Record, JournalError>> {
        let (records, answers) = (self.inner.read(run, from), self.answers);
        let forget = async move {
            let mut records: Vec<Record> = records.try_collect().await?;
            let forgotten = match records.last().map(|record| &record.body) {
                Some(RecordBody::ModelResponded { .. }) => answers,
                Some(RecordBody::ToolFinished { .. }) => !answers,
                _ => false,
            };
            if forgotten {
                records.pop();
            }
            Ok(stream::iter(records.into_iter().map(Ok)))
        };
        forget.into_stream().try_flatten().boxed()
    }
}

/// Is given another key by each process.
#[derive(Debug)]
struct NewKeys {
    inner: Arc<dyn Tool>,
    process: u32,
}

impl NewKeys {
    fn changed(&self, context: &ToolContext) -> ToolContext {
        let mut context = context.clone();
        context.idempotency_key = format!("{}/{}", context.idempotency_key, self.process).into();
        context
    }
}

#[async_trait]
impl Tool for NewKeys {
    fn spec(&self) -> &ToolSpec {
        self.inner.spec()
    }

    fn effects(&self, input: &ToolInput) -> Effects {
        self.inner.effects(input)
    }

    fn touches_sandbox(&self, input: &ToolInput) -> bool {
        self.inner.touches_sandbox(input)
    }

    async fn call(&self, context: &ToolContext, input: ToolInput) -> Result<ToolOutput, ToolError> {
        self.inner.call(&self.changed(context), input).await
    }

    async fn probe(
        &self,
        context: &ToolContext,
        input: &ToolInput,
        intended: &Value,
    ) -> Result<ProbeOutcome, ToolError> {
        self.inner.probe(&self.changed(context), input, intended).await
    }
}

//! [`StandsStill`]: a source whose sandbox is frozen while it is read, and the truth about whether it was to the end.

use async_trait::async_trait;
use cofferdam_sandbox::{Frozen, freezer::DEFAULT_FREEZE};
use cofferdam_snapshot::{
    Content, Previous, SnapshotId, Source, SourceError, SourceFacts, TreeId, Walk, Wanted,
};
use futures::stream::BoxStream;
use tokio::time::Instant;

/// A source that is read while its sandbox stands still, if it does.
#[derive(Debug)]
pub(crate) struct StandsStill<'a> {
    source: &'a dyn Source,
    frozen: Option<Frozen>,
    /// When the sandbox goes on by itself.
    until: Instant,
}

impl<'a> StandsStill<'a> {
    /// Takes a source whose sandbox was just frozen for [`DEFAULT_FREEZE`], or was not.
    pub(crate) fn new(source: &'a dyn Source, frozen: Option<Frozen>) -> Self {
        Self { source, frozen, until: Instant::now() + DEFAULT_FREEZE }
    }

    /// Lets the sandbox go on.
    pub(crate) async fn end(self) {
        if let Some(frozen) = self.frozen {
            // Whether it stood still was told when everything had been read.
            if let Err(error) = frozen.thaw().await {
                tracing::debug!(%error, "a frozen sandbox has ended");
            }
        }
    }
}

#[async_trait]
impl Source for StandsStill<'_> {
    async fn begin<'b>(&'b self, previous: Option<&Previous>) -> Result<Walk<'b>, SourceError> {
        self.source.begin(previous).await
    }

    fn read<'b>(&'b self, files: Vec<Wanted>) -> BoxStream<'b, Result<Content, SourceError>> {
        self.source.read(files)
    }

    /// Asked when everything was read: a sandbox that went on before that did not stand still.
    fn facts(&self) -> SourceFacts {
        let facts = self.source.facts();
        let stands = self.frozen.is_some() && Instant::now() < self.until;
        SourceFacts { frozen: facts.frozen || stands, ..facts }
    }

    async fn committed(&self, snapshot: &SnapshotId, tree: &TreeId) {
        self.source.committed(snapshot, tree).await;
    }
}

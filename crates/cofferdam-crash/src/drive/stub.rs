use async_trait::async_trait;
use cofferdam_core::{RunId, Timestamp};
use cofferdam_journal::*;
use futures::{StreamExt, stream, stream::BoxStream};
use std::{io::Write, path::PathBuf, sync::Arc, time::Duration};
#[derive(Debug)]
pub(crate) struct SqliteJournal {
    file: PathBuf,
    inner: MemoryJournal,
}
impl SqliteJournal {
    pub(crate) fn open(
        p: PathBuf,
        c: Arc<dyn cofferdam_core::Clock>,
    ) -> Result<Self, JournalError> {
        Ok(Self { file: p, inner: MemoryJournal::new(c) })
    }
    fn all(&self) -> Vec<Record> {
        std::fs::read_to_string(&self.file)
            .unwrap_or_default()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}
#[async_trait]
impl Journal for SqliteJournal {
    async fn lease(&self, run: &RunId, owner: &str, d: Duration) -> Result<Lease, JournalError> {
        let mut l = self.inner.lease(run, owner, d).await?;
        l.last = Seq(self.all().len() as u64);
        Ok(l)
    }
    async fn renew(&self, lease: &Lease, d: Duration) -> Result<Lease, JournalError> {
        self.inner.renew(lease, d).await
    }
    async fn append(
        &self,
        lease: &Lease,
        _e: Seq,
        entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        let mut all = self.all();
        let mut text = String::new();
        for e in entries {
            let r = Record::following(&lease.run, all.last(), e)?;
            text += &serde_json::to_string(&r).unwrap();
            text += "\n";
            all.push(r);
        }
        let mut f = std::fs::OpenOptions::new().create(true).append(true).open(&self.file).unwrap();
        f.write_all(text.as_bytes()).unwrap();
        Ok(Seq(all.len() as u64))
    }
    fn read(&self, _run: &RunId, _f: Seq) -> BoxStream<'static, Result<Record, JournalError>> {
        stream::iter(self.all().into_iter().map(Ok)).boxed()
    }
    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        self.inner.release(lease).await
    }
    async fn runs(&self, f: &RunFilter) -> Result<Vec<RunSummary>, JournalError> {
        self.inner.runs(f).await
    }
    async fn remove(&self, r: &RunId) -> Result<(), JournalError> {
        self.inner.remove(r).await
    }
}

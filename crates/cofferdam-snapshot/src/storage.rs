//! [`Storage`]: the objects of one store, with typed failures and a bounded number of tries.

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use cofferdam_core::Retry;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{
    Error, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    path::Path,
};

use crate::error::SnapshotError;

/// How often and how long storage is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageRetry {
    /// How often an operation is tried in all. Default 5.
    pub attempts: u32,
    /// The pause after the first failure; each further one is twice as long, up to 5 seconds. Default 100 ms.
    pub pause: Duration,
    /// How long one try may take before it counts as failed. Default 60 s.
    pub timeout: Duration,
}

impl Default for StorageRetry {
    fn default() -> Self {
        Self { attempts: 5, pause: Duration::from_millis(100), timeout: Duration::from_secs(60) }
    }
}

impl StorageRetry {
    /// The default, without pauses: for tests and for storage that does not profit from waiting.
    #[must_use]
    pub fn without_pause() -> Self {
        Self { pause: Duration::ZERO, ..Self::default() }
    }
}

const MAX_PAUSE: Duration = Duration::from_secs(5);

/// What came of an attempt to make an object that must not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// It has these bytes.
    Ours,
    /// It was there before, with others.
    Taken,
}

/// An object as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its path below what was listed.
    pub(crate) name: String,
    pub(crate) size: u64,
}

/// The objects of one store.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    retry: StorageRetry,
}

impl Storage {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: Path, retry: StorageRetry) -> Self {
        Self { store, prefix, retry }
    }

    pub(crate) fn prefix(&self) -> &str {
        self.prefix.as_ref()
    }

    fn path(&self, object: &str) -> Path {
        object.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Tries an operation until it succeeds, fails for good, or was tried often enough.
    async fn attempt<T, F>(
        &self,
        operation: &'static str,
        object: &str,
        mut call: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pause = self.retry.pause;
        let mut left = self.retry.attempts.max(1);
        loop {
            left -= 1;
            let failure = match tokio::time::timeout(self.retry.timeout, call()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(Error::NotFound { .. })) => return Err(Failure::NotFound),
                Ok(Err(Error::AlreadyExists { .. } | Error::Precondition { .. })) => {
                    return Err(Failure::Exists);
                }
                Ok(Err(error)) => failed(operation, object, retry_of(&error), error),
                Err(elapsed) => failed(operation, object, Retry::Backoff, elapsed),
            };
            if left == 0 || !failure.retry().is_retryable() {
                return Err(Failure::Other(failure));
            }
            tracing::debug!(operation, object, error = ?failure, "storage is tried again");
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Puts an object whose name nobody else uses.
    pub(crate) async fn put(&self, object: &str, bytes: Bytes) -> Result<(), SnapshotError> {
        let path = self.path(object);
        let put = || self.store.put(&path, PutPayload::from_bytes(bytes.clone()));
        self.attempt("put", object, put).await.map(|_| ()).map_err(|f| f.into_error("put", object))
    }

    /// Puts an object unless there is one of that name. That an answer is lost does not matter: who finds his own bytes has
    /// put them.
    pub(crate) async fn create(
        &self,
        object: &str,
        bytes: Bytes,
    ) -> Result<Created, SnapshotError> {
        let path = self.path(object);
        let put = || {
            let options = PutOptions::from(PutMode::Create);
            self.store.put_opts(&path, PutPayload::from_bytes(bytes.clone()), options)
        };
        let failure = match self.attempt("create", object, put).await {
            Ok(_) => return Ok(Created::Ours),
            Err(failure) => failure,
        };
        // After a failure too: the last try may have succeeded without saying so.
        match (self.get(object).await, failure) {
            (Ok(Some(found)), _) if found == bytes => Ok(Created::Ours),
            (Ok(Some(_)), _) => Ok(Created::Taken),
            (Err(error), Failure::Exists) => Err(error),
            (_, failure) => Err(failure.into_error("create", object)),
        }
    }

    /// Returns an object, or `None` if it is not there.
    pub(crate) async fn get(&self, object: &str) -> Result<Option<Bytes>, SnapshotError> {
        let path = self.path(object);
        let get = || async { self.store.get(&path).await?.bytes().await };
        found(self.attempt("get", object, get).await, "get", object)
    }

    /// Returns a part of an object, less if it ends before, or `None` if it is not there.
    pub(crate) async fn get_range(
        &self,
        object: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, SnapshotError> {
        let path = self.path(object);
        let get = || async {
            let error = match self.store.get_range(&path, range.clone()).await {
                Ok(part) => return Ok(part),
                Err(error) => error,
            };
            // A part that begins behind the end is a failure of the request to some, and the object's own to us.
            match self.store.head(&path).await {
                Ok(meta) if meta.size <= range.start => Ok(Bytes::new()),
                _ => Err(error),
            }
        };
        found(self.attempt("get a part of", object, get).await, "get a part of", object)
    }

    /// Returns whether an object is there.
    pub(crate) async fn exists(&self, object: &str) -> Result<bool, SnapshotError> {
        let path = self.path(object);
        let head = || self.store.head(&path);
        found(self.attempt("look for", object, head).await, "look for", object)
            .map(|meta| meta.is_some())
    }

    /// Removes an object; that it is not there is as good.
    pub(crate) async fn delete(&self, object: &str) -> Result<(), SnapshotError> {
        let path = self.path(object);
        let delete = || self.store.delete(&path);
        found(self.attempt("delete", object, delete).await, "delete", object).map(|_| ())
    }

    /// Returns every object below a directory, in ascending order of names.
    pub(crate) async fn list(&self, directory: &str) -> Result<Vec<Listed>, SnapshotError> {
        let path = self.path(directory);
        let list = || async {
            let mut listed: Vec<Listed> = self
                .store
                .list(Some(&path))
                .try_filter_map(|meta: ObjectMeta| {
                    let name = meta.location.prefix_match(&path).map(|parts| {
                        parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/")
                    });
                    futures::future::ok(name.map(|name| Listed { name, size: meta.size }))
                })
                .try_collect()
                .await?;
            listed.sort_by(|a, b| a.name.cmp(&b.name));
            listed.dedup_by(|a, b| a.name == b.name);
            Ok(listed)
        };
        Ok(found(self.attempt("list", directory, list).await, "list", directory)?
            .unwrap_or_default())
    }

    /// Returns the names of the directories in a directory, in ascending order.
    pub(crate) async fn directories(&self, directory: &str) -> Result<Vec<String>, SnapshotError> {
        let path = self.path(directory);
        let list = || async {
            let listed = self.store.list_with_delimiter(Some(&path)).await?;
            let mut names: Vec<String> = listed
                .common_prefixes
                .iter()
                .filter_map(|prefix| prefix.filename().map(str::to_owned))
                .collect();
            names.sort();
            names.dedup();
            Ok(names)
        };
        Ok(found(self.attempt("list", directory, list).await, "list", directory)?
            .unwrap_or_default())
    }

    /// Removes many objects, some at the same time.
    pub(crate) async fn delete_all(&self, objects: Vec<String>) -> Result<(), SnapshotError> {
        futures::stream::iter(objects)
            .map(|object| async move { self.delete(&object).await })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }

    /// Puts many small objects, some at the same time.
    pub(crate) async fn put_all(&self, objects: Vec<String>) -> Result<(), SnapshotError> {
        futures::stream::iter(objects)
            .map(|object| async move { self.put(&object, Bytes::new()).await })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await
    }
}

const PARALLEL: usize = 8;

enum Failure {
    NotFound,
    Exists,
    Other(SnapshotError),
}

impl Failure {
    fn into_error(self, operation: &'static str, object: &str) -> SnapshotError {
        let unexpected = |what: &str| failed(operation, object, Retry::Never, what.to_owned());
        match self {
            Self::NotFound => unexpected("the storage says that there is no such place"),
            Self::Exists => unexpected("the storage says that it is there already"),
            Self::Other(error) => error,
        }
    }
}

fn found<T>(
    result: Result<T, Failure>,
    operation: &'static str,
    object: &str,
) -> Result<Option<T>, SnapshotError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure::NotFound) => Ok(None),
        Err(failure) => Err(failure.into_error(operation, object)),
    }
}

fn failed(
    operation: &'static str,
    object: &str,
    retry: Retry,
    source: impl Into<cofferdam_core::BoxError>,
) -> SnapshotError {
    SnapshotError::Storage { operation, object: object.to_owned(), retry, source: source.into() }
}

fn retry_of(error: &Error) -> Retry {
    match error {
        Error::Generic { .. } | Error::JoinError { .. } => Retry::Backoff,
        _ => Retry::Never,
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn creating_tells_ours_from_others() {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let storage =
            Storage::new(memory, Path::from("some/prefix"), StorageRetry::without_pause());
        let create = |bytes: &'static [u8]| storage.create("heads/a/1", Bytes::from_static(bytes));
        assert_eq!(create(b"one").await.unwrap(), Created::Ours);
        assert_eq!(create(b"one").await.unwrap(), Created::Ours);
        assert_eq!(create(b"two").await.unwrap(), Created::Taken);
        assert_eq!(storage.get("heads/a/1").await.unwrap().unwrap(), &b"one"[..]);
        assert_eq!(storage.get("heads/a/2").await.unwrap(), None);
        let listed = storage.list("heads").await.unwrap();
        assert_eq!(listed, [Listed { name: "a/1".to_owned(), size: 3 }]);
        assert_eq!(storage.directories("heads").await.unwrap(), ["a"]);
        let part = storage.get_range("heads/a/1", 1..100).await.unwrap().unwrap();
        assert_eq!(part, &b"ne"[..]);
        storage.delete("heads/a/1").await.unwrap();
        storage.delete("heads/a/1").await.unwrap();
        assert!(!storage.exists("heads/a/1").await.unwrap());
    }
}

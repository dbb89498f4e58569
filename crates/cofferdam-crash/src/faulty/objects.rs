//! An object store that acknowledges packs before it has written them: a head may name what is not there.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Extensions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// Answers as if everything were there, as long as its process lives.
#[derive(Debug)]
pub(super) struct LateObjects {
    inner: Arc<dyn ObjectStore>,
    held: Mutex<Option<(Path, PutPayload, PutOptions)>>,
}

impl LateObjects {
    pub(super) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, held: Mutex::default() })
    }

    async fn make_up(&self) -> Result<()> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((location, payload, options)) = held {
            self.inner.put_opts(&location, payload, options).await?;
        }
        Ok(())
    }
}

impl fmt::Display for LateObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, written late", self.inner)
    }
}

#[async_trait]
impl ObjectStore for LateObjects {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if location.parts().any(|part| part.as_ref() == "heads") {
            return self.inner.put_opts(location, payload, opts).await;
        }
        self.make_up().await?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((location.clone(), payload, opts));
        Ok(PutResult { e_tag: None, version: None, extensions: Extensions::new() })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.make_up().await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.make_up().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.make_up().await?;
        self.inner.copy_opts(from, to, options).await
    }
}

//! [`CrashingObjectStore`]: any object store, with points.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

use crate::point::Points;

/// An object store whose process may die at each of its calls. Objects are told apart by the first part of their path.
#[derive(Debug)]
pub struct CrashingObjectStore {
    inner: Arc<dyn ObjectStore>,
    points: Arc<Points>,
}

impl CrashingObjectStore {
    /// Puts points around an object store.
    pub fn new(inner: Arc<dyn ObjectStore>, points: Arc<Points>) -> Self {
        Self { inner, points }
    }
}

impl fmt::Display for CrashingObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, with points", self.inner)
    }
}

fn call(name: &str, location: &Path) -> String {
    let parts: Vec<_> = location.parts().collect();
    // The last part is the object's own name; of those before it, the first tells what it is.
    let family = if parts.len() > 1 { parts[0].as_ref() } else { "object" };
    format!("object.{name}.{family}")
}

#[async_trait]
impl ObjectStore for CrashingObjectStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let put = self.inner.put_opts(location, payload, opts);
        self.points.around(&call("put", location), put).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let put = self.inner.put_multipart_opts(location, opts);
        self.points.around(&call("put_parts", location), put).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let get = self.inner.get_opts(location, options);
        self.points.around(&call("get", location), get).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.points.pass("object.delete.before");
        let points = Arc::clone(&self.points);
        self.inner
            .delete_stream(locations)
            .inspect(move |_| points.pass("object.delete.after"))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.points.pass("object.list");
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.points.pass("object.list");
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.points.pass("object.list");
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.points.around(&call("copy", to), self.inner.copy_opts(from, to, options)).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    #[test]
    fn objects_are_told_apart_by_what_they_are() {
        let check = |path: &str, expect| assert_eq!(super::call("put", &Path::from(path)), expect);
        check("heads/run/00000001", "object.put.heads");
        check("packs/ab/abcdef", "object.put.packs");
        check("format", "object.put.object");
    }
}

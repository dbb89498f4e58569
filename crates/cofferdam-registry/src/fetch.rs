//! [`RegistryFetch`]: what `cofferdam-image` reads an image of a registry through.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;
use cofferdam_image::{Digest, Fetch, ImageError};
use reqwest::Response;
use tokio::runtime::Handle;

use crate::client::{self, Client, MANIFESTS};

/// Waits for the registry on the thread that unpacks.
#[derive(Debug)]
pub(crate) struct RegistryFetch {
    pub(crate) client: Arc<Client>,
    pub(crate) handle: Handle,
}

impl RegistryFetch {
    fn document(&self, part: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let client = &self.client;
        self.handle.block_on(async {
            let answer = client.get(part, MANIFESTS).await?;
            client::read(answer, limit, part, client.timeout).await
        })
    }
}

impl Fetch for RegistryFetch {
    fn named(&self, limit: u64) -> Result<Vec<u8>, ImageError> {
        let name = &self.client.name;
        let part = match (&name.digest, &name.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        };
        self.document(&format!("manifests/{part}"), limit)
    }

    fn manifest(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ImageError> {
        self.document(&format!("manifests/{digest}"), limit)
    }

    fn blob(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, ImageError> {
        let what = format!("blobs/{digest}");
        let answer = self.handle.block_on(self.client.get(&what, "*/*"))?;
        let (client, handle) = (Arc::clone(&self.client), self.handle.clone());
        Ok(Box::new(Blob { answer, what, client, handle, rest: io::Cursor::default() }))
    }
}

struct Blob {
    answer: Response,
    what: String,
    client: Arc<Client>,
    handle: Handle,
    rest: io::Cursor<Bytes>,
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.rest.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let chunk = client::chunk(&mut self.answer, &self.what, self.client.timeout);
            match self.handle.block_on(chunk).map_err(io::Error::other)? {
                Some(chunk) => self.rest = io::Cursor::new(chunk),
                None => return Ok(0),
            }
        }
    }
}

//! [`Codec`]: ids, and the frames in which chunks and nodes lie in packs and heads.
//!
//! A frame is its encoding (0 raw, 1 zstd), the length of its content, and the content: compressed, and then sealed if the
//! store is encrypted. Nothing in it is believed before the hash of the content is that of the id.

use std::{fmt, sync::Arc};

use crate::{
    chunk::MAX_CHUNK,
    contexts::Contexts,
    crypt::{Keys, OVERHEAD},
    id::{ChunkId, TreeId},
    node::{self, Draft, MAX_NODE_BYTES, Node},
    wire::{Decoder, Encoder, Malformed},
};

/// What lies in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FrameKind {
    Chunk,
    Node,
}

impl FrameKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Chunk => 1,
            Self::Node => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<Self, Malformed> {
        match code {
            1 => Ok(Self::Chunk),
            2 => Ok(Self::Node),
            _ => Err(Malformed("a frame is of an unknown kind")),
        }
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chunk => "chunk",
            Self::Node => "node",
        })
    }
}

/// A frame's kind and id, by which it is found.
pub(crate) type FrameKey = (FrameKind, [u8; 32]);

const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// The most bytes that a frame has.
pub(crate) const MAX_FRAME: usize = MAX_NODE_BYTES * 2 + 64 + OVERHEAD;

/// Makes ids and frames, with the keys of the store if it has some.
#[derive(Debug, Clone, Default)]
pub(crate) struct Codec {
    keys: Option<Arc<Keys>>,
    contexts: Arc<Contexts>,
}

impl Codec {
    pub(crate) fn new(keys: Option<Keys>) -> Self {
        Self { keys: keys.map(Arc::new), contexts: Arc::default() }
    }

    pub(crate) fn keys(&self) -> Option<&Keys> {
        self.keys.as_deref()
    }

    fn hash(&self, content: &[u8]) -> [u8; 32] {
        match &self.keys {
            Some(keys) => *keys.hash(content).as_bytes(),
            None => *blake3::hash(content).as_bytes(),
        }
    }

    pub(crate) fn chunk_id(&self, content: &[u8]) -> ChunkId {
        ChunkId::from_bytes(self.hash(content))
    }

    pub(crate) fn node_id(&self, canonical: &[u8]) -> TreeId {
        TreeId::from_bytes(self.hash(canonical))
    }

    pub(crate) fn node_frame(&self, id: &TreeId, node: &Draft) -> Result<Vec<u8>, Malformed> {
        self.frame(FrameKind::Node, id.as_bytes(), &node.stored())
    }

    /// Makes a frame.
    pub(crate) fn frame(
        &self,
        kind: FrameKind,
        id: &[u8; 32],
        content: &[u8],
    ) -> Result<Vec<u8>, Malformed> {
        let compressed = self.contexts.compress(content);
        let (encoding, body) = match &compressed {
            Some(compressed) => (ZSTD, &compressed[..]),
            None => (RAW, content),
        };
        let mut encoder = Encoder::default();
        encoder.byte(encoding);
        encoder.count(content.len());
        match self.keys() {
            None => encoder.raw(body),
            Some(keys) => {
                let about = about(kind, id, encoding, content.len() as u64);
                let sealed = keys.seal(&about, body);
                encoder.raw(&sealed.map_err(|_| Malformed("it is too large to be sealed"))?);
            }
        }
        Ok(encoder.into_bytes())
    }

    /// Returns the content of a chunk's frame, which has the id that was asked for.
    pub(crate) fn open_chunk(&self, id: &ChunkId, frame: &[u8]) -> Result<Vec<u8>, Malformed> {
        let content = self.content(FrameKind::Chunk, id.as_bytes(), frame, MAX_CHUNK)?;
        if self.chunk_id(&content) == *id { Ok(content) } else { Err(OTHER) }
    }

    /// Returns the node in a frame, which has the id that was asked for.
    pub(crate) fn open_node(&self, id: &TreeId, frame: &[u8]) -> Result<Node, Malformed> {
        let content = self.content(FrameKind::Node, id.as_bytes(), frame, MAX_NODE_BYTES * 2)?;
        let (canonical, places) = node::split(&content)?;
        if self.node_id(canonical) != *id {
            return Err(OTHER);
        }
        Node::decode(canonical, places)
    }

    fn content(
        &self,
        kind: FrameKind,
        id: &[u8; 32],
        frame: &[u8],
        most: usize,
    ) -> Result<Vec<u8>, Malformed> {
        let mut decoder = Decoder::new(frame);
        let encoding = decoder.byte()?;
        let length = usize::try_from(decoder.number()?).unwrap_or(usize::MAX);
        if length > most {
            return Err(Malformed("its content is too large"));
        }
        let opened;
        let body = match self.keys() {
            None => decoder.rest(),
            Some(keys) => {
                let about = about(kind, id, encoding, length as u64);
                opened = keys
                    .open(&about, decoder.rest())
                    .map_err(|_| Malformed("it does not open with the key of the store"))?;
                &opened
            }
        };
        let content = match encoding {
            RAW => body.to_vec(),
            ZSTD => self
                .contexts
                .decompress(body, length)
                .ok_or(Malformed("it cannot be decompressed"))?,
            _ => return Err(Malformed("its encoding is unknown")),
        };
        if content.len() == length { Ok(content) } else { Err(Malformed("its length is wrong")) }
    }
}

const OTHER: Malformed = Malformed("its content has another hash");

/// What a sealed frame is bound to.
fn about(kind: FrameKind, id: &[u8; 32], encoding: u8, length: u64) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.byte(kind.code());
    encoder.raw(id);
    encoder.byte(encoding);
    encoder.number(length);
    encoder.into_bytes()
}

#[cfg(test)]
mod tests {
    use cofferdam_core::Secret;
    use proptest::prelude::*;

    use super::*;

    fn codecs() -> [Codec; 2] {
        [Codec::default(), Codec::new(Some(Keys::derive(&Secret::new("k".repeat(32)))))]
    }

    #[test]
    fn chunks_come_back_and_nothing_else_does() {
        for codec in codecs() {
            for content in [&b"x".repeat(5000)[..], &blake3::hash(b"noise").as_bytes()[..], b"y"] {
                let id = codec.chunk_id(content);
                let frame = codec.frame(FrameKind::Chunk, id.as_bytes(), content).unwrap();
                assert_eq!(codec.open_chunk(&id, &frame).unwrap(), content);
                let other = codec.chunk_id(b"other");
                assert!(codec.open_chunk(&other, &frame).is_err());
                for at in 0..frame.len() {
                    let mut changed = frame.clone();
                    changed[at] ^= 0x10;
                    // A changed bit is either seen or, in what zstd ignores, without effect.
                    if let Ok(opened) = codec.open_chunk(&id, &changed) {
                        assert_eq!(opened, content, "byte {at}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_frames_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for codec in codecs() {
                prop_assert!(codec.open_chunk(&ChunkId::from_bytes([1; 32]), &bytes).is_err());
                prop_assert!(codec.open_node(&TreeId::from_bytes([1; 32]), &bytes).is_err());
            }
        }
    }
}

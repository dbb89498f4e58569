//! Packs: many frames in one object, with a footer that says what is in it.
//!
//! ```text
//! frames … | footer: count, then kind, id, offset, length of each | hash of the footer | its length | magic
//! ```

use std::collections::HashMap;

use crate::{
    frame::{FrameKey, FrameKind, MAX_FRAME},
    id::PackName,
    node::Place,
    wire::{Decoder, Encoder, Malformed},
};

/// A pack is put when it has this many bytes.
pub(crate) const TARGET_BYTES: usize = 8 << 20;
const MAGIC: &[u8; 8] = b"cfdpack\x01";
/// Bytes after the footer: hash, length, magic.
pub(crate) const TRAILER: usize = 32 + 4 + 8;

/// A pack that is known by name and form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PackRef {
    pub(crate) name: PackName,
    /// All of its bytes.
    pub(crate) size: u32,
    /// Where its footer begins.
    pub(crate) footer: u32,
}

impl PackRef {
    pub(crate) const LEAST_BYTES: usize = PackName::BYTES + 2;

    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.raw(self.name.as_bytes());
        encoder.number(u64::from(self.size));
        encoder.number(u64::from(self.footer));
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let name = PackName::from_bytes(decoder.array()?);
        let pack = Self { name, size: decoder.number_u32()?, footer: decoder.number_u32()? };
        let room = u64::from(pack.footer) + TRAILER as u64;
        if room > u64::from(pack.size) {
            return Err(Malformed("a pack is smaller than its footer"));
        }
        Ok(pack)
    }
}

/// What is in a pack.
pub(crate) type Contents = HashMap<FrameKey, Place>;

/// A pack that is being filled.
#[derive(Debug)]
pub(crate) struct PackBuilder {
    name: PackName,
    bytes: Vec<u8>,
    frames: Vec<(FrameKey, u32, u32)>,
}

impl PackBuilder {
    pub(crate) fn new(name: PackName) -> Self {
        Self { name, bytes: Vec::new(), frames: Vec::new() }
    }

    /// Returns the bytes of the frames in it.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a frame and returns where it lies.
    pub(crate) fn append(&mut self, key: FrameKey, frame: &[u8]) -> Place {
        let offset = position(self.bytes.len());
        let length = position(frame.len());
        self.bytes.extend_from_slice(frame);
        self.frames.push((key, offset, length));
        Place::Pack { pack: self.name, offset, length }
    }

    /// Ends the pack: what it is called, the object, and the ids in it.
    pub(crate) fn finish(self) -> (PackRef, Vec<u8>, Vec<FrameKey>) {
        let Self { name, mut bytes, frames } = self;
        let mut encoder = Encoder::default();
        encoder.count(frames.len());
        for ((kind, id), offset, length) in &frames {
            encoder.byte(kind.code());
            encoder.raw(id);
            encoder.number(u64::from(*offset));
            encoder.number(u64::from(*length));
        }
        let footer = encoder.into_bytes();
        let begins = position(bytes.len());
        bytes.extend_from_slice(&footer);
        bytes.extend_from_slice(blake3::hash(&footer).as_bytes());
        bytes.extend_from_slice(&position(footer.len()).to_le_bytes());
        bytes.extend_from_slice(MAGIC);
        let pack = PackRef { name, size: position(bytes.len()), footer: begins };
        (pack, bytes, frames.into_iter().map(|(key, ..)| key).collect())
    }
}

/// A pack holds frames of bounded size and is put at [`TARGET_BYTES`]: it is far from 4 GiB.
fn position(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Reads a footer: all bytes of a pack from where it begins.
pub(crate) fn read_footer(pack: &PackRef, end: &[u8]) -> Result<Contents, Malformed> {
    let footer = end.len().checked_sub(TRAILER).ok_or(Malformed("it ends too early"))?;
    let (footer, trailer) = end.split_at(footer);
    let mut trailer = Decoder::new(trailer);
    let (hash, length) = (trailer.array::<32>()?, u32::from_le_bytes(trailer.array()?));
    if trailer.array::<8>()? != *MAGIC {
        return Err(Malformed("it does not end as a pack ends"));
    }
    if length as usize != footer.len() || hash != *blake3::hash(footer).as_bytes() {
        return Err(Malformed("its footer has another hash"));
    }
    let mut decoder = Decoder::new(footer);
    let count = decoder.count(1 + 32 + 2)?;
    let mut contents = Contents::with_capacity(count);
    for _ in 0..count {
        let kind = FrameKind::from_code(decoder.byte()?)?;
        let id = decoder.array()?;
        let (offset, length) = (decoder.number_u32()?, decoder.number_u32()?);
        if u64::from(offset) + u64::from(length) > u64::from(pack.footer)
            || length as usize > MAX_FRAME
        {
            return Err(Malformed("a frame is outside of its pack"));
        }
        contents.insert((kind, id), Place::Pack { pack: pack.name, offset, length });
    }
    decoder.end()?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn built() -> (PackRef, Vec<u8>) {
        let mut builder = PackBuilder::new(PackName::from_bytes([7; 16]));
        builder.append((FrameKind::Chunk, [1; 32]), b"one");
        builder.append((FrameKind::Node, [2; 32]), b"two!");
        let (pack, bytes, keys) = builder.finish();
        assert_eq!(keys.len(), 2);
        (pack, bytes)
    }

    #[test]
    fn a_footer_says_what_is_in_a_pack() {
        let (pack, bytes) = built();
        let contents = read_footer(&pack, &bytes[pack.footer as usize..]).unwrap();
        let place = |offset, length| Place::Pack { pack: pack.name, offset, length };
        assert_eq!(contents[&(FrameKind::Chunk, [1; 32])], place(0, 3));
        assert_eq!(contents[&(FrameKind::Node, [2; 32])], place(3, 4));
        assert_eq!(contents.len(), 2);
    }

    proptest! {
        #[test]
        fn a_changed_footer_is_refused(at in any::<prop::sample::Index>(), bit in 0..8) {
            let (pack, bytes) = built();
            let mut end = bytes[pack.footer as usize..].to_vec();
            let at = at.index(end.len());
            end[at] ^= 1_u8 << bit;
            prop_assert!(read_footer(&pack, &end).is_err());
            prop_assert!(read_footer(&pack, &end[..at]).is_err());
        }
    }
}

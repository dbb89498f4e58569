//! [`Head`]: the object that makes a snapshot. It names the root of the tree, and holds what is too small for a pack.
//!
//! A snapshot exists when its head does. Heads are put with put-if-absent under `heads/LINEAGE/NUMBER`, so that one number
//! is one snapshot, whoever else writes.

use std::collections::BTreeMap;

use bytes::Bytes;
use cofferdam_core::Timestamp;

use crate::{
    error::SnapshotError,
    frame::{Codec, FrameKey, FrameKind, MAX_FRAME},
    id::{Lineage, PackName, SnapshotId, TreeId},
    index::MAX_SEGMENTS,
    node::{
        Metadata, Place, Stored, Totals, decode_metadata, decode_totals, encode_metadata,
        encode_totals,
    },
    pack::PackRef,
    source::Detection,
    wire::{Decoder, Encoder, Malformed},
};

const MAGIC: &[u8; 8] = b"cfdhead\x01";
/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Frames of up to this many bytes lie in the head instead of a pack.
pub(crate) const MAX_INLINE_BYTES: usize = 512 << 10;
/// The longest note.
pub(crate) const MAX_NOTE_BYTES: usize = 4096;
/// The most packs that a head names because they are in no index yet.
pub(crate) const MAX_RECENT_PACKS: usize = 16;

/// A segment of the index, by name and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentRef {
    pub(crate) name: PackName,
    /// How many ids are in it.
    pub(crate) ids: u64,
}

/// Where to look for content that is there already. Losing it costs room and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct IndexRefs {
    /// Packs that are in no segment yet, oldest first.
    pub(crate) recent: Vec<PackRef>,
    /// Oldest first.
    pub(crate) segments: Vec<SegmentRef>,
}

impl IndexRefs {
    /// Takes in what others name: they are older than what is here, and each is named once.
    pub(crate) fn merge(&mut self, older: Self) {
        let recent = older.recent.into_iter().filter(|pack| !self.recent.contains(pack));
        let recent: Vec<_> = recent.chain(self.recent.iter().copied()).collect();
        let segments = older.segments.into_iter().filter(|it| !self.segments.contains(it));
        let mut segments: Vec<_> = segments.chain(self.segments.iter().cloned()).collect();
        segments.drain(..segments.len().saturating_sub(MAX_SEGMENTS));
        (self.recent, self.segments) = (recent, segments);
    }
}

/// A snapshot as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) snapshot: SnapshotId,
    /// Its parent and the hash of the parent's object.
    pub(crate) parent: Option<(SnapshotId, [u8; 32])>,
    /// A number of this attempt, so that two writers never put the same bytes.
    pub(crate) attempt: [u8; 16],
    pub(crate) created: Timestamp,
    pub(crate) root: Metadata,
    pub(crate) tree: Stored<TreeId>,
    pub(crate) totals: Totals,
    pub(crate) detection: Detection,
    pub(crate) frozen: bool,
    pub(crate) skipped: u64,
    pub(crate) note: String,
    pub(crate) index: IndexRefs,
    pub(crate) frames: BTreeMap<FrameKey, Bytes>,
}

/// A head that was read, and the hash of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadHead {
    pub(crate) head: Head,
    pub(crate) hash: [u8; 32],
}

/// Returns the object of a snapshot. Numbers are written with 20 digits, so that names are in order.
pub(crate) fn object(snapshot: &SnapshotId) -> String {
    format!("heads/{}/{:020}", snapshot.lineage, snapshot.seq)
}

/// Returns the snapshot of an object below `heads`; `None` if it is no head's name.
pub(crate) fn snapshot_of(name: &str) -> Option<SnapshotId> {
    let (lineage, seq) = name.split_once('/')?;
    let digits = seq.len() == 20 && seq.bytes().all(|byte| byte.is_ascii_digit());
    let seq = seq.parse().ok().filter(|seq| digits && *seq > 0)?;
    Some(SnapshotId { lineage: lineage.parse().ok()?, seq })
}

impl Head {
    pub(crate) fn encode(&self, codec: &Codec) -> Result<Bytes, SnapshotError> {
        let mut body = Encoder::default();
        encode_id(&mut body, &self.snapshot);
        body.byte(u8::from(self.parent.is_some()));
        if let Some((parent, hash)) = &self.parent {
            encode_id(&mut body, parent);
            body.raw(hash);
        }
        body.raw(&self.attempt);
        body.number(self.created.as_millis());
        encode_metadata(&mut body, &self.root);
        body.raw(self.tree.id.as_bytes());
        encode_place(&mut body, &self.tree.place);
        encode_totals(&mut body, &self.totals);
        body.byte(match self.detection {
            Detection::Content => 1,
            Detection::Stat => 2,
            Detection::Layer => 3,
        });
        body.byte(u8::from(self.frozen));
        body.number(self.skipped);
        body.text(self.note.as_bytes());
        body.count(self.index.recent.len());
        self.index.recent.iter().for_each(|pack| pack.encode(&mut body));
        body.count(self.index.segments.len());
        for segment in &self.index.segments {
            body.raw(segment.name.as_bytes());
            body.number(segment.ids);
        }
        body.count(self.frames.len());
        for ((kind, id), frame) in &self.frames {
            body.byte(kind.code());
            body.raw(id);
            body.text(frame);
        }
        seal(codec, MAGIC, VERSION, &object(&self.snapshot), &body.into_bytes())
    }

    pub(crate) fn decode(
        codec: &Codec,
        snapshot: &SnapshotId,
        bytes: &[u8],
    ) -> Result<ReadHead, SnapshotError> {
        let name = object(snapshot);
        let body = unseal(codec, MAGIC, VERSION, &name, bytes)?;
        let corrupt = |Malformed(reason)| SnapshotError::Corrupt {
            object: name.clone(),
            holds: format!("the head of {snapshot}"),
            reason: reason.to_owned(),
        };
        let head = decode_body(&body).map_err(corrupt)?;
        if head.snapshot != *snapshot {
            return Err(corrupt(Malformed("it is the head of another snapshot")));
        }
        Ok(ReadHead { head, hash: *blake3::hash(bytes).as_bytes() })
    }
}

pub(crate) fn decode_body(body: &[u8]) -> Result<Head, Malformed> {
    let mut body = Decoder::new(body);
    let snapshot = decode_id(&mut body)?;
    let parent = match body.flag()? {
        true => Some((decode_id(&mut body)?, body.array()?)),
        false => None,
    };
    let attempt = body.array()?;
    let created = Timestamp(body.number()?);
    let root = decode_metadata(&mut body)?;
    let tree = Stored { id: TreeId::from_bytes(body.array()?), place: decode_place(&mut body)? };
    let totals = decode_totals(&mut body)?;
    let detection = match body.byte()? {
        1 => Detection::Content,
        2 => Detection::Stat,
        3 => Detection::Layer,
        _ => return Err(Malformed("a way of detection is unknown")),
    };
    let frozen = body.flag()?;
    let skipped = body.number()?;
    let note = String::from_utf8(body.text(MAX_NOTE_BYTES)?.to_vec())
        .map_err(|_| Malformed("a note is no text"))?;
    let recent = (0..body.count(PackRef::LEAST_BYTES)?)
        .map(|_| PackRef::decode(&mut body))
        .collect::<Result<Vec<_>, _>>()?;
    let segments = (0..body.count(PackName::BYTES + 1)?)
        .map(|_| Ok(SegmentRef { name: PackName::from_bytes(body.array()?), ids: body.number()? }))
        .collect::<Result<Vec<_>, Malformed>>()?;
    let mut frames = BTreeMap::new();
    for _ in 0..body.count(1 + 32 + 1)? {
        let key = (FrameKind::from_code(body.byte()?)?, body.array()?);
        if frames.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(Malformed("frames are not in ascending order"));
        }
        frames.insert(key, Bytes::copy_from_slice(body.text(MAX_FRAME)?));
    }
    body.end()?;
    let index = IndexRefs { recent, segments };
    Ok(Head {
        snapshot,
        parent,
        attempt,
        created,
        root,
        tree,
        totals,
        detection,
        frozen,
        skipped,
        note,
        index,
        frames,
    })
}

fn encode_id(encoder: &mut Encoder, snapshot: &SnapshotId) {
    encoder.text(snapshot.lineage.as_str().as_bytes());
    encoder.number(snapshot.seq);
}

fn decode_id(decoder: &mut Decoder<'_>) -> Result<SnapshotId, Malformed> {
    let lineage = std::str::from_utf8(decoder.text(Lineage::MAX_BYTES)?).ok();
    let lineage = lineage.and_then(|lineage| lineage.parse().ok());
    Ok(SnapshotId {
        lineage: lineage.ok_or(Malformed("a lineage cannot be one"))?,
        seq: decoder.number()?,
    })
}

fn encode_place(encoder: &mut Encoder, place: &Place) {
    match place {
        Place::Head => encoder.byte(0),
        Place::Pack { pack, offset, length } => {
            encoder.byte(1);
            encoder.raw(pack.as_bytes());
            encoder.number(u64::from(*offset));
            encoder.number(u64::from(*length));
        }
    }
}

fn decode_place(decoder: &mut Decoder<'_>) -> Result<Place, Malformed> {
    Ok(match decoder.flag()? {
        false => Place::Head,
        true => Place::Pack {
            pack: PackName::from_bytes(decoder.array()?),
            offset: decoder.number_u32()?,
            length: decoder.number_u32()?,
        },
    })
}

/// Makes an object of a body: magic, version, whether it is sealed, the hash of the rest, the body.
pub(crate) fn seal(
    codec: &Codec,
    magic: &[u8; 8],
    version: u32,
    object: &str,
    body: &[u8],
) -> Result<Bytes, SnapshotError> {
    let sealed = match codec.keys() {
        None => None,
        Some(keys) => Some(keys.seal(object.as_bytes(), body).map_err(|_| {
            SnapshotError::TooLarge { what: "an object, in bytes,", limit: u64::from(u32::MAX) }
        })?),
    };
    let body = sealed.as_deref().unwrap_or(body);
    let mut encoder = Encoder::default();
    encoder.raw(magic);
    encoder.number(u64::from(version));
    encoder.byte(u8::from(sealed.is_some()));
    encoder.raw(blake3::hash(body).as_bytes());
    encoder.raw(body);
    Ok(encoder.into_bytes().into())
}

/// Returns the body of an object that [`seal`] made.
pub(crate) fn unseal(
    codec: &Codec,
    magic: &[u8; 8],
    known: u32,
    object: &str,
    bytes: &[u8],
) -> Result<Vec<u8>, SnapshotError> {
    let corrupt = |reason: &str| SnapshotError::Corrupt {
        object: object.to_owned(),
        holds: String::from_utf8_lossy(&magic[..7]).into_owned(),
        reason: reason.to_owned(),
    };
    let malformed = |Malformed(reason)| corrupt(reason);
    let mut decoder = Decoder::new(bytes);
    if decoder.array::<8>().map_err(malformed)? != *magic {
        return Err(corrupt("it does not begin as one"));
    }
    let version = decoder.number_u32().map_err(malformed)?;
    if version == 0 || version > known {
        return Err(SnapshotError::Version { object: object.to_owned(), version, known });
    }
    let sealed = decoder.flag().map_err(malformed)?;
    let hash: [u8; 32] = decoder.array().map_err(malformed)?;
    let body = decoder.rest();
    if hash != *blake3::hash(body).as_bytes() {
        return Err(corrupt("its content has another hash"));
    }
    match (sealed, codec.keys()) {
        (false, None) => Ok(body.to_vec()),
        (true, Some(keys)) => keys
            .open(object.as_bytes(), body)
            .map_err(|_| corrupt("it does not open with the key of the store")),
        (true, None) => Err(corrupt("it is sealed, and the store is not")),
        (false, Some(_)) => Err(corrupt("it is not sealed, and the store is")),
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_core::Secret;
    use proptest::prelude::*;

    use super::*;
    use crate::crypt::Keys;

    fn head() -> Head {
        let snapshot: SnapshotId = "run@2".parse().unwrap();
        let pack = PackRef { name: PackName::from_bytes([3; 16]), size: 1000, footer: 900 };
        Head {
            parent: Some(("other@7".parse().unwrap(), [1; 32])),
            snapshot,
            attempt: [2; 16],
            created: Timestamp(5),
            root: Metadata { mode: 0o755, modified_ns: -1, xattrs: Vec::new() },
            tree: Stored { id: TreeId::from_bytes([4; 32]), place: Place::Head },
            totals: Totals { files: 1, directories: 2, symbolic_links: 3, bytes: 4 },
            detection: Detection::Layer,
            frozen: true,
            skipped: 6,
            note: "a note".to_owned(),
            index: IndexRefs {
                recent: vec![pack],
                segments: vec![SegmentRef { name: PackName::from_bytes([5; 16]), ids: 9 }],
            },
            frames: [((FrameKind::Node, [4; 32]), Bytes::from_static(b"frame"))].into(),
        }
    }

    fn codecs() -> [Codec; 2] {
        [Codec::default(), Codec::new(Some(Keys::derive(&Secret::new("k".repeat(32)))))]
    }

    #[test]
    fn heads_come_back_and_only_from_their_place() {
        let head = head();
        for codec in codecs() {
            let bytes = head.encode(&codec).unwrap();
            assert_eq!(Head::decode(&codec, &head.snapshot, &bytes).unwrap().head, head);
            let elsewhere = Head::decode(&codec, &"run@3".parse().unwrap(), &bytes);
            assert!(matches!(elsewhere, Err(SnapshotError::Corrupt { .. })), "{elsewhere:?}");
        }
        let [plain, sealed] = codecs();
        let bytes = head.encode(&sealed).unwrap();
        assert!(Head::decode(&plain, &head.snapshot, &bytes).is_err());
        assert!(!bytes.windows(6).any(|window| window == b"a note"));
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = head().encode(&Codec::default()).unwrap().to_vec();
        bytes[8] = 9;
        let error = Head::decode(&Codec::default(), &head().snapshot, &bytes).unwrap_err();
        assert!(matches!(error, SnapshotError::Version { version: 9, known: 1, .. }), "{error}");
    }

    #[test]
    fn names_of_heads_are_read_strictly() {
        let check = |name: &str, expect: Option<&str>| {
            assert_eq!(snapshot_of(name).map(|id| id.to_string()).as_deref(), expect, "{name}");
        };
        check("a/00000000000000000007", Some("a@7"));
        check("a/7", None);
        check("a/00000000000000000000", None);
        check("a/b/00000000000000000007", None);
        check("a", None);
        assert_eq!(object(&"a@7".parse().unwrap()), "heads/a/00000000000000000007");
    }

    proptest! {
        #[test]
        fn changed_heads_are_refused(at in any::<prop::sample::Index>(), bit in 0..8) {
            let head = head();
            for codec in codecs() {
                let mut bytes = head.encode(&codec).unwrap().to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= 1_u8 << bit;
                prop_assert!(Head::decode(&codec, &head.snapshot, &bytes).is_err());
                prop_assert!(Head::decode(&codec, &head.snapshot, &bytes[..at]).is_err());
            }
        }

        #[test]
        fn arbitrary_bodies_do_no_harm(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let codec = Codec::default();
            let snapshot: SnapshotId = "a@1".parse().unwrap();
            let bytes = seal(&codec, MAGIC, VERSION, &object(&snapshot), &body).unwrap();
            if let Ok(read) = Head::decode(&codec, &snapshot, &bytes) {
                prop_assert_eq!(read.head.encode(&codec).unwrap(), bytes);
            }
        }
    }
}

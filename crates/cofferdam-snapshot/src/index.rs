//! [`Index`]: where content lies that is there already, so that it is not stored twice.
//!
//! Nothing is *read* through it: whoever names a chunk or node also says where it lies. So it may be incomplete, stale or
//! lost, and costs room then and nothing else; it holds half an id, and the footer of the pack has the last word. Its size
//! in memory is bounded: what is too old for the bound is not found, and stored again.
//!
//! A head names the packs of late, whose footers are read, and *segments*, which are objects under `indexes/`. When the
//! packs of late are many they become a segment, which takes in the segments before it that are not much larger: their
//! number grows with the logarithm of what there is.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    error::SnapshotError,
    frame::FrameKey,
    head::{IndexRefs, MAX_RECENT_PACKS, SegmentRef, seal, unseal},
    id::PackName,
    moved::{MAX_STEPS, Moved},
    node::Place,
    pack::{Contents, PackRef, read_footer},
    store::Env,
    windows::pack_object,
    wire::{Decoder, Encoder, Malformed},
};

const MAGIC: &[u8; 8] = b"cfdindx\x01";
const VERSION: u32 = 1;
/// The most ids that are known at a time, 12 bytes each and the room of a table.
const MAX_IDS: usize = 1 << 20;
/// The most segments that a head names; the oldest are forgotten.
pub(crate) const MAX_SEGMENTS: usize = 24;
/// Footers that are kept in memory.
const KEPT_FOOTERS: usize = 24;
const PARALLEL: usize = 8;

/// Footers that were read lately, of whatever snapshot.
#[derive(Debug, Default)]
pub(crate) struct Footers(Mutex<VecDeque<(PackName, Arc<Contents>)>>);

impl Footers {
    fn find(&self, pack: &PackName) -> Option<Arc<Contents>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == pack)?;
        let found = kept.remove(at)?;
        kept.push_front(found.clone());
        Some(found.1)
    }

    fn keep(&self, pack: PackName, contents: Arc<Contents>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((pack, contents));
        kept.truncate(KEPT_FOOTERS);
    }
}

/// Reads a pack's footer; `None` if the pack is not there.
pub(crate) async fn footer(
    env: &Env,
    pack: &PackRef,
) -> Result<Option<Arc<Contents>>, SnapshotError> {
    let object = pack_object(&pack.name);
    let range = u64::from(pack.footer)..u64::from(pack.size);
    let Some(end) = env.storage.get_range(&object, range).await? else { return Ok(None) };
    let contents = read_footer(pack, &end).map_err(|Malformed(reason)| SnapshotError::Corrupt {
        object,
        holds: "the list of what is in it".to_owned(),
        reason: reason.to_owned(),
    })?;
    let contents = Arc::new(contents);
    env.footers.keep(pack.name, Arc::clone(&contents));
    Ok(Some(contents))
}

/// What is known to be there.
#[derive(Debug, Default)]
pub(crate) struct Index {
    packs: Vec<PackRef>,
    by_prefix: HashMap<u64, u32>,
    /// Packs that were seen to be there since this index was loaded; false if they were not.
    confirmed: HashMap<PackName, bool>,
    /// Packs that something was found in.
    used: HashSet<PackName>,
    /// Packs that are about to be deleted.
    condemned: HashSet<PackName>,
    /// Where frames went of packs that are not there.
    moved: HashMap<PackName, Option<Arc<Moved>>>,
}

/// The half of an id by which it is looked for.
pub(crate) fn prefix(id: &[u8; 32]) -> u64 {
    let mut half = [0; 8];
    half.copy_from_slice(&id[..8]);
    u64::from_le_bytes(half)
}

impl Index {
    /// Loads what a head names, newest first, without the packs that are about to be deleted.
    pub(crate) async fn load(
        env: &Env,
        refs: &IndexRefs,
        condemned: &HashSet<PackName>,
    ) -> Result<Self, SnapshotError> {
        let mut index = Self { condemned: condemned.clone(), ..Self::default() };
        let recent = refs.recent.iter().rev().filter(|pack| !condemned.contains(&pack.name));
        let recent: Vec<PackRef> = recent.copied().collect();
        let known: Vec<(PackRef, Vec<u64>)> = stream::iter(recent)
            .map(|pack| async move { Ok::<_, SnapshotError>((pack, prefixes(env, &pack).await?)) })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        for (pack, prefixes) in known {
            index.add(pack, prefixes.into_iter());
        }
        for segment in refs.segments.iter().rev() {
            if index.by_prefix.len() >= MAX_IDS {
                break;
            }
            let Some(segment) = tolerate(Segment::load(env, segment).await)?.flatten() else {
                continue;
            };
            let numbers: Vec<Option<u32>> = segment
                .packs
                .iter()
                .map(|pack| (!condemned.contains(&pack.name)).then(|| index.number(*pack)))
                .collect();
            for (prefix, pack) in segment.ids {
                let number = numbers.get(pack as usize).copied().flatten();
                if let Some(number) = number.filter(|_| index.by_prefix.len() < MAX_IDS) {
                    index.by_prefix.entry(prefix).or_insert(number);
                }
            }
        }
        Ok(index)
    }

    fn number(&mut self, pack: PackRef) -> u32 {
        self.packs.push(pack);
        u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
    }

    fn add(&mut self, pack: PackRef, prefixes: impl Iterator<Item = u64>) {
        let number = self.number(pack);
        for prefix in prefixes.take(MAX_IDS - self.by_prefix.len().min(MAX_IDS)) {
            self.by_prefix.entry(prefix).or_insert(number);
        }
    }

    /// Adds a pack that was just put.
    pub(crate) fn put(&mut self, pack: PackRef, keys: &[FrameKey]) {
        self.confirmed.insert(pack.name, true);
        self.add(pack, keys.iter().map(|(_, id)| prefix(id)));
    }

    /// Returns what can be looked for.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = u64> {
        self.by_prefix.keys().copied()
    }

    /// Returns where something lies, if that is known and still so.
    pub(crate) async fn find(
        &mut self,
        env: &Env,
        key: &FrameKey,
    ) -> Result<Option<Place>, SnapshotError> {
        let Some(number) = self.by_prefix.get(&prefix(&key.1)) else { return Ok(None) };
        let Some(pack) = self.packs.get(*number as usize).copied() else { return Ok(None) };
        if self.confirmed.get(&pack.name) == Some(&false) {
            return self.find_moved(env, pack.name, key).await;
        }
        let contents = match env.footers.find(&pack.name) {
            Some(contents) => contents,
            None => match tolerate(footer(env, &pack).await)?.flatten() {
                Some(contents) => {
                    self.confirmed.insert(pack.name, true);
                    contents
                }
                None => {
                    self.confirmed.insert(pack.name, false);
                    return self.find_moved(env, pack.name, key).await;
                }
            },
        };
        let Some(place) = contents.get(key).copied() else { return Ok(None) };
        let there = match self.confirmed.get(&pack.name) {
            Some(there) => *there,
            None => env.storage.exists(&pack_object(&pack.name)).await?,
        };
        self.confirmed.insert(pack.name, there);
        if !there {
            return self.find_moved(env, pack.name, key).await;
        }
        self.used.insert(pack.name);
        Ok(Some(place))
    }

    /// Returns where something went from a pack that is not there.
    async fn find_moved(
        &mut self,
        env: &Env,
        mut pack: PackName,
        key: &FrameKey,
    ) -> Result<Option<Place>, SnapshotError> {
        for _ in 0..MAX_STEPS {
            let moved = match self.moved.get(&pack) {
                Some(known) => known.clone(),
                None => {
                    let read = tolerate(env.packs().moved(&pack).await)?.flatten();
                    self.moved.insert(pack, read.clone());
                    read
                }
            };
            let Some(place) = moved.and_then(|moved| moved.place_of(key)) else { return Ok(None) };
            let Place::Pack { pack: target, .. } = place else { return Ok(None) };
            if self.condemned.contains(&target) {
                return Ok(None);
            }
            let there = match self.confirmed.get(&target) {
                Some(there) => *there,
                None => env.storage.exists(&pack_object(&target)).await?,
            };
            self.confirmed.insert(target, there);
            if there {
                self.used.insert(target);
                return Ok(Some(place));
            }
            pack = target;
        }
        Ok(None)
    }

    /// Returns the packs that something was found in.
    pub(crate) fn used(&self) -> &HashSet<PackName> {
        &self.used
    }
}

/// A hint that cannot be read is no hint; that storage fails is another matter.
fn tolerate<T>(result: Result<T, SnapshotError>) -> Result<Option<T>, SnapshotError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error @ (SnapshotError::Corrupt { .. } | SnapshotError::Missing { .. })) => {
            tracing::warn!(%error, "a part of the index cannot be used");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns what is in a pack, or what was moved out of it if it is gone; nothing if that is not known.
async fn prefixes(env: &Env, pack: &PackRef) -> Result<Vec<u64>, SnapshotError> {
    let contents = match env.footers.find(&pack.name) {
        Some(contents) => Some(contents),
        None => tolerate(footer(env, pack).await)?.flatten(),
    };
    if let Some(contents) = contents {
        return Ok(contents.keys().map(|(_, id)| prefix(id)).collect());
    }
    let moved = tolerate(env.packs().moved(&pack.name).await)?.flatten();
    Ok(moved.map(|moved| moved.keys().map(|(_, id)| prefix(id)).collect()).unwrap_or_default())
}

/// Returns what the next head names, with these packs added; many packs become a segment, which is put.
pub(crate) async fn next_refs(
    env: &Env,
    refs: &IndexRefs,
    put: &[PackRef],
) -> Result<IndexRefs, SnapshotError> {
    let mut next = refs.clone();
    next.recent.extend_from_slice(put);
    if next.recent.len() <= MAX_RECENT_PACKS {
        return Ok(next);
    }
    let mut segment = Segment::default();
    for pack in std::mem::take(&mut next.recent) {
        let prefixes = prefixes(env, &pack).await?;
        if prefixes.is_empty() {
            continue;
        }
        let number = segment.number(pack);
        segment.ids.extend(prefixes.into_iter().map(|prefix| (prefix, number)));
    }
    while let Some(last) = next.segments.last() {
        let most = (segment.ids.len() as u64) * 2;
        if last.ids > most || last.ids + segment.ids.len() as u64 > MAX_IDS as u64 {
            break;
        }
        if let Some(older) = tolerate(Segment::load(env, last).await)?.flatten() {
            segment.merge(older);
        }
        next.segments.pop();
    }
    let name = PackName::generate(env.clock.now(), &*env.entropy);
    let ids = segment.ids.len() as u64;
    let bytes = segment.encode(env, &name)?;
    env.storage.put(&object(&name), bytes).await?;
    next.segments.push(SegmentRef { name, ids });
    let forgotten = next.segments.len().saturating_sub(MAX_SEGMENTS);
    next.segments.drain(..forgotten);
    Ok(next)
}

/// Returns the object of a segment.
pub(crate) fn object(name: &PackName) -> String {
    format!("indexes/{name}")
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    packs: Vec<PackRef>,
    /// Halves of ids and the numbers of their packs, in order when encoded.
    ids: Vec<(u64, u32)>,
}

impl Segment {
    fn number(&mut self, pack: PackRef) -> u32 {
        self.packs.push(pack);
        u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
    }

    fn merge(&mut self, older: Self) {
        let first = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.extend(older.packs);
        self.ids.extend(older.ids.into_iter().map(|(id, pack)| (id, first.saturating_add(pack))));
    }

    fn encode(mut self, env: &Env, name: &PackName) -> Result<bytes::Bytes, SnapshotError> {
        self.ids.sort_unstable();
        let mut body = Encoder::default();
        body.count(self.packs.len());
        self.packs.iter().for_each(|pack| pack.encode(&mut body));
        body.count(self.ids.len());
        for (id, pack) in &self.ids {
            body.raw(&id.to_le_bytes());
            body.number(u64::from(*pack));
        }
        seal(&env.codec, MAGIC, VERSION, &object(name), &body.into_bytes())
    }

    /// Returns a segment; `None` if it is not there.
    async fn load(env: &Env, segment: &SegmentRef) -> Result<Option<Self>, SnapshotError> {
        let object = object(&segment.name);
        let Some(bytes) = env.storage.get(&object).await? else { return Ok(None) };
        let body = unseal(&env.codec, MAGIC, VERSION, &object, &bytes)?;
        let decoded = Self::decode(&body).map_err(|Malformed(reason)| SnapshotError::Corrupt {
            object,
            holds: "a segment of the index".to_owned(),
            reason: reason.to_owned(),
        });
        decoded.map(Some)
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut body = Decoder::new(body);
        let packs = (0..body.count(PackRef::LEAST_BYTES)?)
            .map(|_| PackRef::decode(&mut body))
            .collect::<Result<Vec<_>, _>>()?;
        let ids = (0..body.count(9)?)
            .map(|_| Ok((u64::from_le_bytes(body.array()?), body.number_u32()?)))
            .collect::<Result<Vec<_>, Malformed>>()?;
        body.end()?;
        if ids.iter().any(|(_, pack)| *pack as usize >= packs.len()) {
            return Err(Malformed("an id is in no pack"));
        }
        Ok(Self { packs, ids })
    }
}

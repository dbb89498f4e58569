//! [`Index`]: where content lies that is there already, so that it is not stored twice.
//!
//! Nothing is *read* through it: whoever names a chunk or node also says where it lies. So it may be incomplete, stale or
//! lost, and costs room then and nothing else; it holds half an id, and the footer of the pack has the last word. Its size
//! in memory is bounded: what is too old for the bound is not found, and stored again. What was read of it stays in memory
//! ([`Hints`]), so that a snapshot of a few files does not pay for an index of many.
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
/// The most ids that are known at a time, 16 bytes each.
const MAX_IDS: usize = 1 << 20;
/// The most segments that a head names; the oldest are forgotten.
pub(crate) const MAX_SEGMENTS: usize = 24;
/// Footers that are kept in memory. More than a head names.
const KEPT_FOOTERS: usize = 24;
const PARALLEL: usize = 8;

/// What was read lately of the index, of whatever snapshot. No pack and no segment ever changes.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    footers: Mutex<VecDeque<Footer>>,
    segments: Mutex<VecDeque<(PackName, Arc<Segment>)>>,
}

/// What is in one pack.
#[derive(Debug, Clone)]
pub(crate) struct Footer {
    pack: PackName,
    pub(crate) contents: Arc<Contents>,
    /// Halves of the ids in it, in order.
    prefixes: Arc<[u64]>,
}

impl Hints {
    fn footer(&self, pack: &PackName) -> Option<Footer> {
        let mut kept = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|footer| footer.pack == *pack)?;
        let found = kept.remove(at)?;
        kept.push_front(found.clone());
        Some(found)
    }

    fn keep_footer(&self, footer: Footer) {
        let mut kept = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front(footer);
        kept.truncate(KEPT_FOOTERS);
    }

    fn segment(&self, name: &PackName) -> Option<Arc<Segment>> {
        let mut kept = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == name)?;
        let found = kept.remove(at)?;
        kept.push_front(found.clone());
        Some(found.1)
    }

    fn keep_segment(&self, name: PackName, segment: Arc<Segment>) {
        let mut kept = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((name, segment));
        let mut ids = 0;
        kept.retain(|(_, segment)| {
            ids += segment.ids.len();
            ids <= MAX_IDS
        });
    }
}

/// Reads a pack's footer; `None` if the pack is not there.
pub(crate) async fn footer(env: &Env, pack: &PackRef) -> Result<Option<Footer>, SnapshotError> {
    let object = pack_object(&pack.name);
    let range = u64::from(pack.footer)..u64::from(pack.size);
    let Some(end) = env.storage.get_range(&object, range).await? else { return Ok(None) };
    let contents = read_footer(pack, &end).map_err(|Malformed(reason)| SnapshotError::Corrupt {
        object,
        holds: "the list of what is in it".to_owned(),
        reason: reason.to_owned(),
    })?;
    let mut prefixes: Vec<u64> = contents.keys().map(|(_, id)| prefix(id)).collect();
    prefixes.sort_unstable();
    let footer =
        Footer { pack: pack.name, contents: Arc::new(contents), prefixes: prefixes.into() };
    env.hints.keep_footer(footer.clone());
    Ok(Some(footer))
}

/// Returns a pack's footer, read if it is not kept; `None` if it cannot be used.
async fn usable_footer(env: &Env, pack: &PackRef) -> Result<Option<Footer>, SnapshotError> {
    match env.hints.footer(&pack.name) {
        Some(footer) => Ok(Some(footer)),
        None => Ok(tolerate(footer(env, pack).await)?.flatten()),
    }
}

/// Returns halves of the ids in a pack, or of what was moved out of it if it is gone, in order; `None` if they are not known.
async fn prefixes(env: &Env, pack: &PackRef) -> Result<Option<Arc<[u64]>>, SnapshotError> {
    if let Some(footer) = usable_footer(env, pack).await? {
        return Ok(Some(footer.prefixes));
    }
    let Some(moved) = tolerate(env.packs().moved(&pack.name).await)?.flatten() else {
        return Ok(None);
    };
    let mut prefixes: Vec<u64> = moved.keys().map(|(_, id)| prefix(id)).collect();
    prefixes.sort_unstable();
    Ok(Some(prefixes.into()))
}

/// What heads name: packs of late and segments, newest first. Threads that hash share it.
#[derive(Debug, Default)]
pub(crate) struct Known {
    layers: Vec<Layer>,
    condemned: HashSet<PackName>,
}

#[derive(Debug)]
enum Layer {
    Pack(PackRef, Arc<[u64]>),
    Segment(Arc<Segment>),
}

impl Known {
    /// Returns whether something may be there. It is only a guess.
    pub(crate) fn may_hold(&self, id: &[u8; 32]) -> bool {
        self.packs(prefix(id)).next().is_some()
    }

    /// Returns the packs that something may be in.
    fn packs(&self, prefix: u64) -> impl Iterator<Item = PackRef> {
        let found = self.layers.iter().flat_map(move |layer| {
            let (one, several) = match layer {
                Layer::Pack(pack, prefixes) => {
                    (prefixes.binary_search(&prefix).is_ok().then_some(*pack), None)
                }
                Layer::Segment(segment) => (None, Some(segment.packs(prefix))),
            };
            one.into_iter().chain(several.into_iter().flatten())
        });
        found.filter(|pack| !self.condemned.contains(&pack.name))
    }
}

/// What is known to be there.
#[derive(Debug, Default)]
pub(crate) struct Index {
    known: Arc<Known>,
    /// Packs that were put since this index was loaded.
    put: HashMap<u64, PackRef>,
    /// Packs that were seen to be there since then; false if they were not.
    confirmed: HashMap<PackName, bool>,
    /// Packs that something was found in.
    used: HashSet<PackName>,
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
    /// Loads what a head names, newest first, without the packs that are about to be deleted. What was loaded before is kept:
    /// the next snapshot pays for what is new.
    pub(crate) async fn load(
        env: &Env,
        refs: &IndexRefs,
        condemned: HashSet<PackName>,
    ) -> Result<Self, SnapshotError> {
        let recent = refs.recent.iter().rev().filter(|pack| !condemned.contains(&pack.name));
        let recent: Vec<PackRef> = recent.copied().collect();
        let footers: Vec<(PackRef, Option<Arc<[u64]>>)> = stream::iter(recent)
            .map(|pack| async move { Ok::<_, SnapshotError>((pack, prefixes(env, &pack).await?)) })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let (mut layers, mut ids) = (Vec::new(), 0);
        for (pack, prefixes) in footers {
            let Some(prefixes) = prefixes.filter(|_| ids < MAX_IDS) else { continue };
            ids += prefixes.len();
            layers.push(Layer::Pack(pack, prefixes));
        }
        if layers.len() > MAX_RECENT_PACKS {
            // Those of several lineages: to look through each, for every chunk, would take longer than this.
            layers = vec![Layer::Segment(Arc::new(Segment::of(&layers)))];
        }
        for segment in refs.segments.iter().rev() {
            if ids >= MAX_IDS {
                break;
            }
            let Some(segment) = Segment::usable(env, segment).await? else { continue };
            ids += segment.ids.len();
            layers.push(Layer::Segment(segment));
        }
        Ok(Self { known: Arc::new(Known { layers, condemned }), ..Self::default() })
    }

    /// Returns what was loaded.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// Adds a pack that was just put.
    pub(crate) fn put(&mut self, pack: PackRef, keys: &[FrameKey]) {
        self.confirmed.insert(pack.name, true);
        for (_, id) in keys.iter().take(MAX_IDS - self.put.len().min(MAX_IDS)) {
            self.put.entry(prefix(id)).or_insert(pack);
        }
    }

    /// Returns where something lies, if that is known and still so.
    pub(crate) async fn find(
        &mut self,
        env: &Env,
        key: &FrameKey,
    ) -> Result<Option<Place>, SnapshotError> {
        let prefix = prefix(&key.1);
        let known = self.known();
        let put = self.put.get(&prefix).copied();
        for pack in known.packs(prefix).chain(put) {
            if let Some(place) = self.find_in(env, &pack, key).await? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Returns where something lies in a pack, if it does and the pack is there.
    async fn find_in(
        &mut self,
        env: &Env,
        pack: &PackRef,
        key: &FrameKey,
    ) -> Result<Option<Place>, SnapshotError> {
        if self.confirmed.get(&pack.name) == Some(&false) {
            return self.find_moved(env, pack.name, key).await;
        }
        let contents = match env.hints.footer(&pack.name) {
            Some(footer) => footer.contents,
            None => match tolerate(footer(env, pack).await)?.flatten() {
                Some(footer) => {
                    self.confirmed.insert(pack.name, true);
                    footer.contents
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
            if self.known.condemned.contains(&target) {
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
        let Some(prefixes) = prefixes(env, &pack).await? else { continue };
        segment.add(pack, &prefixes);
    }
    while let Some(last) = next.segments.last() {
        let most = (segment.ids.len() as u64) * 2;
        if last.ids > most || last.ids + segment.ids.len() as u64 > MAX_IDS as u64 {
            break;
        }
        if let Some(older) = Segment::usable(env, last).await? {
            segment.merge(&older);
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
    /// Halves of ids and the numbers of their packs, in order when it is encoded or looked into.
    ids: Vec<(u64, u32)>,
}

impl Segment {
    /// Makes one of layers that are packs.
    fn of(layers: &[Layer]) -> Self {
        let mut segment = Self::default();
        for layer in layers {
            if let Layer::Pack(pack, prefixes) = layer {
                segment.add(*pack, prefixes);
            }
        }
        segment.ids.sort_unstable();
        segment
    }

    fn add(&mut self, pack: PackRef, prefixes: &[u64]) {
        let number = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.push(pack);
        self.ids.extend(prefixes.iter().map(|prefix| (*prefix, number)));
    }

    fn merge(&mut self, older: &Self) {
        let first = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.extend_from_slice(&older.packs);
        self.ids.extend(older.ids.iter().map(|(id, pack)| (*id, first.saturating_add(*pack))));
    }

    /// Returns the packs that something may be in.
    fn packs(&self, prefix: u64) -> impl Iterator<Item = PackRef> {
        let first = self.ids.partition_point(|(id, _)| *id < prefix);
        let same = self.ids[first..].iter().take_while(move |(id, _)| *id == prefix);
        same.filter_map(|(_, pack)| self.packs.get(*pack as usize).copied())
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

    /// Returns a segment, read if it is not kept; `None` if it cannot be used.
    async fn usable(env: &Env, segment: &SegmentRef) -> Result<Option<Arc<Self>>, SnapshotError> {
        if let Some(kept) = env.hints.segment(&segment.name) {
            return Ok(Some(kept));
        }
        let Some(read) = tolerate(Self::load(env, segment).await)?.flatten() else {
            return Ok(None);
        };
        let read = Arc::new(read);
        env.hints.keep_segment(segment.name, Arc::clone(&read));
        Ok(Some(read))
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
        let mut ids = (0..body.count(9)?)
            .map(|_| Ok((u64::from_le_bytes(body.array()?), body.number_u32()?)))
            .collect::<Result<Vec<_>, Malformed>>()?;
        body.end()?;
        if !ids.is_sorted() {
            ids.sort_unstable();
        }
        if ids.iter().any(|(_, pack)| *pack as usize >= packs.len()) {
            return Err(Malformed("an id is in no pack"));
        }
        Ok(Self { packs, ids })
    }
}

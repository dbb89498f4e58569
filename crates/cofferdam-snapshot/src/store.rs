//! [`SnapshotStore`]: the front of the crate.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cofferdam_core::{Clock, Entropy, Timestamp};
use futures::{StreamExt as _, stream::BoxStream};
use object_store::{ObjectStore, path::Path};
use tokio::time::Instant;

use crate::{
    crypt::{KeyProvider, Keys, MIN_KEY_CHARACTERS},
    error::SnapshotError,
    frame::Codec,
    gc,
    head::{self, Head, IndexRefs, MAX_NOTE_BYTES, ReadHead},
    heads::{Heads, KeptHead},
    id::{Lineage, PackName, SnapshotId},
    index::{Hints, next_refs},
    log::LogEntry,
    moved::{Moves, Packs},
    node::Totals,
    nodes::Nodes,
    reader::Reader,
    receipt::{Receipt, RestoreReceipt},
    restore,
    source::{Coverage, Previous, Source},
    storage::{Created, Storage, StorageRetry},
    target::{RestorePlan, Target, TargetEntry, TargetError},
    windows::Windows,
    wire::{Decoder, Encoder, Malformed},
    writer::Writer,
};

const CONFIG: &str = "config";
const CONFIG_MAGIC: &[u8; 8] = b"cfdstor\x01";
/// The version that a store is made with.
const VERSION: u32 = 1;
/// The version of a store in which packs were repacked, and the newest that is read.
const VERSION_WITH_MOVES: u32 = 2;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// The time of day: when snapshots and packs are said to be made, and how long ago that was.
    pub clock: Arc<dyn Clock>,
    /// Randomness for names. It must differ from process to process; no secret depends on it.
    pub entropy: Arc<dyn Entropy>,
    /// The key; with one, everything is sealed. A store is sealed from its first opening, or never. Default none.
    pub key: Option<Arc<dyn KeyProvider>>,
    /// How long what seems to be unused is kept before it is deleted, and the longest that taking one snapshot can take is
    /// half of that. Counts when the store is made; after that the store's own holds. Default 24 hours.
    pub grace: Duration,
    /// How often storage is tried.
    pub retry: StorageRetry,
}

impl StoreOptions {
    /// The default, with these for time and names.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            clock,
            entropy,
            key: None,
            grace: Duration::from_secs(24 * 60 * 60),
            retry: StorageRetry::default(),
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("sealed", &self.key.is_some())
            .field("grace", &self.grace)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// What a snapshot is the child of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Parent {
    /// The newest of its lineage; none if that is empty.
    #[default]
    Newest,
    /// This one: of the same lineage, and then it must be the newest; or of another, and then the lineage begins with this
    /// snapshot.
    At(SnapshotId),
}

/// Other lineages that are asked where content lies when a new one begins.
const HINTING_LINEAGES: usize = 8;

/// How a snapshot is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotOptions {
    /// What it is the child of. Default the newest of its lineage.
    pub parent: Parent,
    /// A text of up to 4096 bytes that is kept with it. Default empty.
    pub note: String,
}

/// What all parts of a store have in hand.
#[derive(Debug, Clone)]
pub(crate) struct Env {
    pub(crate) storage: Storage,
    pub(crate) codec: Codec,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) grace: Duration,
    pub(crate) windows: Arc<Windows>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) hints: Arc<Hints>,
    pub(crate) heads: Arc<Heads>,
    pub(crate) moves: Arc<Moves>,
}

impl Env {
    /// Returns what reads packs.
    pub(crate) fn packs(&self) -> Packs {
        Packs {
            storage: self.storage.clone(),
            codec: self.codec.clone(),
            moves: Arc::clone(&self.moves),
        }
    }
}

/// Snapshots of trees, kept as objects below a prefix.
///
/// Cloning it gives another handle. Any number of processes may use one store at the same time, and nobody holds a lock:
/// two that add to one lineage are told apart by [`SnapshotError::Conflict`].
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    pub(crate) env: Env,
}

impl SnapshotStore {
    /// Opens the store below a prefix, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Key`] if the key is not that of the store, one is missing, or there should be none;
    /// [`SnapshotError::Version`] if a later release made it.
    pub async fn open(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        options: StoreOptions,
    ) -> Result<Self, SnapshotError> {
        let StoreOptions { clock, entropy, key, grace, retry } = options;
        let storage = Storage::new(objects, Path::from(prefix), retry);
        let keys = match &key {
            None => None,
            Some(provider) => {
                let secret = provider.key(storage.prefix()).await.map_err(|error| {
                    SnapshotError::Key { reason: "there is no key".to_owned(), source: Some(error) }
                })?;
                if secret.expose().chars().count() < MIN_KEY_CHARACTERS {
                    return Err(wrong_key("a key has at least 32 characters"));
                }
                Some(Keys::derive(&secret))
            }
        };
        let codec = Codec::new(keys);
        let bytes = match storage.get(CONFIG).await? {
            Some(bytes) => bytes,
            None => {
                let made = encode_config(&codec, grace)?;
                match storage.create(CONFIG, made.clone()).await? {
                    Created::Ours => made,
                    Created::Taken => storage.get(CONFIG).await?.unwrap_or_default(),
                }
            }
        };
        let grace = decode_config(&codec, &bytes)?;
        let (windows, nodes, moves) = (Arc::default(), Arc::default(), Arc::default());
        let (hints, heads) = (Arc::default(), Arc::default());
        let env =
            Env { storage, codec, clock, entropy, grace, windows, nodes, hints, heads, moves };
        Ok(Self { env })
    }

    /// Takes a snapshot.
    ///
    /// When this returns, the snapshot and all that it needs are durable, as far as the object store's word goes. Nobody
    /// sees a part of it before.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Conflict`] if somebody else added to the lineage meanwhile; see [`SnapshotError`] for the rest. The
    /// lineage is then as it was, but for one case: if storage failed at the very end, the snapshot may turn up after all,
    /// whole.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped there is no snapshot, or a whole one. What was put is removed by [`Self::gc`].
    pub async fn snapshot(
        &self,
        lineage: &Lineage,
        source: &dyn Source,
        options: SnapshotOptions,
    ) -> Result<Receipt, SnapshotError> {
        let taken = self.take(lineage, source, options).await;
        if taken.is_err() {
            // Something may not be as it is remembered.
            self.env.heads.clear();
        }
        taken
    }

    async fn take(
        &self,
        lineage: &Lineage,
        source: &dyn Source,
        options: SnapshotOptions,
    ) -> Result<Receipt, SnapshotError> {
        let began = Instant::now();
        if options.note.len() > MAX_NOTE_BYTES {
            return Err(SnapshotError::TooLarge {
                what: "a note, in bytes,",
                limit: MAX_NOTE_BYTES as u64,
            });
        }
        let started = self.env.clock.now();
        // Where there is a snapshot before, its index is looked into, without what is condemned by now.
        let (place, condemned) = futures::join!(self.place(lineage, &options.parent), async {
            match self.env.heads.newest(lineage) {
                Some(_) => Some(gc::condemned(&self.env.storage).await),
                None => None,
            }
        });
        let (snapshot, parent) = place?;
        let previous = parent.as_ref().map(|parent| self.reader(Arc::clone(&parent.head)));
        let known = previous.as_ref().map(|reader| Previous {
            snapshot: reader.head.snapshot.clone(),
            tree: reader.head.tree.id,
        });
        let walk = source.begin(known.as_ref()).await?;
        let mut needed: Vec<SnapshotId> = known.iter().map(|k| k.snapshot.clone()).collect();
        let base = match &walk.coverage {
            Coverage::Whole => None,
            Coverage::ChangesTo(base) => match &previous {
                Some(previous) if previous.head.snapshot == *base => Some(previous.clone()),
                _ => {
                    needed.push(base.clone());
                    Some(self.reader(self.kept_head(base).await?.head))
                }
            },
        };
        let refs = match (&parent, &base) {
            (Some(parent), _) => parent.head.index.clone(),
            (None, Some(base)) => base.head.index.clone(),
            (None, None) => self.hints(lineage).await?,
        };
        let condemned = match condemned {
            Some(condemned) => condemned?,
            None if refs == IndexRefs::default() => HashMap::new(),
            None => gc::condemned(&self.env.storage).await?,
        };
        let condemned = condemned.into_keys().collect();
        let hints = (refs.clone(), condemned);
        let mut writer = Writer::new(self.env.clone(), source, previous, base, hints);
        let root = writer.write(walk).await?;
        let facts = source.facts();
        let tree = root.node.id;
        let (place, frames) =
            writer.packer.finish(&mut writer.index, tree, root.node.place).await?;
        let index = next_refs(&self.env, &refs, &writer.packer.packs).await?;
        let head = Head {
            snapshot: snapshot.clone(),
            parent: parent.as_ref().map(|p| (p.head.snapshot.clone(), p.hash)),
            attempt: self.attempt(),
            created: self.env.clock.now(),
            root: root.metadata,
            tree: crate::node::Stored { id: tree, place },
            totals: root.totals,
            detection: facts.detection,
            frozen: facts.frozen,
            skipped: writer.skipped.count,
            note: options.note,
            index,
            frames: frames.into_iter().collect(),
        };
        let head = Arc::new(head);
        let bytes = self.commit(&head, &needed, writer.index.used(), started).await?;
        source.committed(&snapshot, &tree).await;
        let mut stored = writer.packer.stored;
        stored.bytes_put += bytes;
        stored.objects_put += 1;
        Ok(Receipt {
            snapshot,
            tree,
            parent: head.parent.as_ref().map(|(parent, _)| parent.clone()),
            created: head.created,
            totals: head.totals,
            stored,
            skipped: writer.skipped,
            detection: facts.detection,
            frozen: facts.frozen,
            took: began.elapsed(),
        })
    }

    /// Returns where a lineage that begins looks for content: where the newest of the others do. Names of runs are in the order of
    /// their times, so the last ones by name are the likeliest to hold the same.
    async fn hints(&self, lineage: &Lineage) -> Result<IndexRefs, SnapshotError> {
        let mut refs = IndexRefs::default();
        let others = self.lineages().await?;
        for other in others.iter().rev().filter(|other| *other != lineage).take(HINTING_LINEAGES) {
            let Some(newest) = self.newest(other).await? else { continue };
            match self.head(&newest).await {
                Ok(read) => refs.merge(read.head.index),
                // A hint that cannot be had costs room, and no snapshot.
                Err(SnapshotError::NotFound { .. } | SnapshotError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(refs)
    }

    /// Begins a new lineage with the tree of a snapshot. Nothing is copied: it is one small object, whatever the size.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Conflict`] if the lineage is not empty; [`SnapshotError::NotFound`] if there is no such snapshot.
    ///
    /// # Cancel safety
    ///
    /// As [`Self::snapshot`].
    pub async fn fork(
        &self,
        from: &SnapshotId,
        lineage: &Lineage,
    ) -> Result<SnapshotId, SnapshotError> {
        let started = self.env.clock.now();
        let (snapshot, parent) = self.place(lineage, &Parent::At(from.clone())).await?;
        if from.lineage == *lineage {
            return Err(SnapshotError::Conflict { snapshot });
        }
        let parent = parent.ok_or_else(|| SnapshotError::NotFound { snapshot: from.clone() })?;
        let head = Head {
            snapshot: snapshot.clone(),
            parent: Some((from.clone(), parent.hash)),
            attempt: self.attempt(),
            created: self.env.clock.now(),
            ..Head::clone(&parent.head)
        };
        let head = Arc::new(head);
        self.commit(&head, std::slice::from_ref(from), &HashSet::new(), started).await?;
        Ok(snapshot)
    }

    /// Restores a snapshot, verifying everything that is read, and compares what was made with what it holds.
    ///
    /// # Errors
    ///
    /// What the target fails with; [`TargetError::Snapshot`] if the snapshot cannot be read;
    /// [`TargetError::Incomplete`] if the target made something else.
    ///
    /// # Cancel safety
    ///
    /// The store is untouched; for the target see [`Target::restore`].
    pub async fn restore(
        &self,
        snapshot: &SnapshotId,
        target: &mut dyn Target,
    ) -> Result<RestoreReceipt, TargetError> {
        let began = Instant::now();
        let head = self.head(snapshot).await?.head;
        let plan = RestorePlan { totals: head.totals, root: head.root.clone() };
        let tree = head.tree.id;
        let entries = restore::entries(self.reader(head));
        let made = target.restore(&plan, entries).await?;
        if made != plan.totals {
            return Err(TargetError::Incomplete { expected: plan.totals, made });
        }
        let took = began.elapsed();
        Ok(RestoreReceipt { snapshot: snapshot.clone(), tree, totals: made, took })
    }

    /// Returns everything in a snapshot, verified, in the order in which a target would make it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`] if there is no such snapshot. The stream ends with its first error.
    pub async fn entries(
        &self,
        snapshot: &SnapshotId,
    ) -> Result<BoxStream<'static, Result<TargetEntry, SnapshotError>>, SnapshotError> {
        let head = self.head(snapshot).await?.head;
        Ok(restore::entries(self.reader(head)).boxed())
    }

    /// Returns what is known of a snapshot.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`] if there is no such snapshot.
    pub async fn get(&self, snapshot: &SnapshotId) -> Result<LogEntry, SnapshotError> {
        Ok(self.head(snapshot).await?.head.into())
    }

    /// Returns how much is in a snapshot.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub async fn totals(&self, snapshot: &SnapshotId) -> Result<Totals, SnapshotError> {
        Ok(self.head(snapshot).await?.head.totals)
    }

    pub(crate) async fn head(&self, snapshot: &SnapshotId) -> Result<ReadHead, SnapshotError> {
        let object = head::object(snapshot);
        let bytes = self.env.storage.get(&object).await?;
        let bytes = bytes.ok_or_else(|| SnapshotError::NotFound { snapshot: snapshot.clone() })?;
        Head::decode(&self.env.codec, snapshot, &bytes)
    }

    /// Returns a head that somebody has seen before; that it is still there is looked at before anything builds upon it.
    async fn kept_head(&self, snapshot: &SnapshotId) -> Result<KeptHead, SnapshotError> {
        if let Some(kept) = self.env.heads.find(snapshot) {
            return Ok(kept);
        }
        let ReadHead { head, hash } = self.head(snapshot).await?;
        let read = KeptHead { head: Arc::new(head), hash };
        self.env.heads.keep(read.clone());
        Ok(read)
    }

    pub(crate) fn reader(&self, head: impl Into<Arc<Head>>) -> Reader {
        Reader {
            packs: self.env.packs(),
            codec: self.env.codec.clone(),
            windows: Arc::clone(&self.env.windows),
            nodes: Arc::clone(&self.env.nodes),
            head: head.into(),
        }
    }

    /// Says to earlier releases that they cannot read the store. Idempotent.
    pub(crate) async fn raise_version(&self) -> Result<(), SnapshotError> {
        let (plain, storage) = (Codec::default(), &self.env.storage);
        let Some(bytes) = storage.get(CONFIG).await? else { return Ok(()) };
        let body = head::unseal(&plain, CONFIG_MAGIC, VERSION_WITH_MOVES, CONFIG, &bytes)?;
        let raised = head::seal(&plain, CONFIG_MAGIC, VERSION_WITH_MOVES, CONFIG, &body)?;
        if raised == bytes { Ok(()) } else { storage.put(CONFIG, raised).await }
    }

    fn attempt(&self) -> [u8; 16] {
        let entropy = &self.env.entropy;
        let random = (u128::from(entropy.next_u64()) << 64) | u128::from(entropy.next_u64());
        random.to_le_bytes()
    }

    /// Returns what a new snapshot is called, and its parent.
    async fn place(
        &self,
        lineage: &Lineage,
        parent: &Parent,
    ) -> Result<(SnapshotId, Option<KeptHead>), SnapshotError> {
        let newest = match self.env.heads.newest(lineage) {
            Some(kept) if self.is_newest(&kept).await? => Some(kept),
            _ => self.newest(lineage).await?,
        };
        let next = newest.as_ref().map_or(1, |newest| newest.seq.saturating_add(1));
        let snapshot = SnapshotId::new(lineage.clone(), next);
        let parent = match parent {
            Parent::Newest => newest,
            Parent::At(parent) if parent.lineage == *lineage => {
                if newest.as_ref() != Some(parent) {
                    let seq = parent.seq.saturating_add(1);
                    let snapshot = SnapshotId::new(lineage.clone(), seq);
                    return Err(match newest {
                        Some(newest) if newest.seq > parent.seq => {
                            SnapshotError::Conflict { snapshot }
                        }
                        _ => SnapshotError::NotFound { snapshot: parent.clone() },
                    });
                }
                newest
            }
            Parent::At(parent) => {
                if newest.is_some() {
                    let snapshot = SnapshotId::new(lineage.clone(), 1);
                    return Err(SnapshotError::Conflict { snapshot });
                }
                Some(parent.clone())
            }
        };
        let parent = match parent {
            Some(parent) => Some(self.kept_head(&parent).await?),
            None => None,
        };
        Ok((snapshot, parent))
    }

    /// Returns whether a snapshot is there and the next of its lineage is not: numbers follow each other up to the newest.
    async fn is_newest(&self, snapshot: &SnapshotId) -> Result<bool, SnapshotError> {
        let next = SnapshotId::new(snapshot.lineage.clone(), snapshot.seq.saturating_add(1));
        let (this, next) = (head::object(snapshot), head::object(&next));
        let storage = &self.env.storage;
        let (this, next) = futures::try_join!(storage.exists(&this), storage.exists(&next))?;
        Ok(this && !next)
    }

    /// Puts a head, after a last look at what it builds upon. Returns its size in bytes.
    ///
    /// What is deleted was condemned for a whole grace before, and nothing is condemned that a head names. So a look that
    /// finds all of it there, followed by the head within a part of the grace, is enough: if it is condemned in between, the
    /// head is seen before it is deleted.
    async fn commit(
        &self,
        head: &Arc<Head>,
        needed: &[SnapshotId],
        reused: &HashSet<PackName>,
        started: Timestamp,
    ) -> Result<u64, SnapshotError> {
        let bytes: Bytes = head.encode(&self.env.codec)?;
        let overtaken = |what: String| SnapshotError::Overtaken { what };
        let gone = async {
            let there = needed.iter().map(|parent| async move {
                let there = self.env.storage.exists(&head::object(parent)).await?;
                Ok::<_, SnapshotError>((!there).then_some(parent))
            });
            let gone = futures::future::try_join_all(there).await?;
            Ok::<_, SnapshotError>(gone.into_iter().flatten().next())
        };
        let condemned = async {
            match reused.is_empty() {
                true => Ok(HashMap::new()),
                false => gc::condemned(&self.env.storage).await,
            }
        };
        let (gone, condemned) = futures::try_join!(gone, condemned)?;
        if let Some(parent) = gone {
            return Err(overtaken(format!("the snapshot {parent}")));
        }
        if let Some(pack) = reused.iter().find(|pack| condemned.contains_key(*pack)) {
            return Err(overtaken(format!("the pack {pack}")));
        }
        let took = self.env.clock.now().as_millis().saturating_sub(started.as_millis());
        if u128::from(took) > self.env.grace.as_millis() / 2 {
            return Err(overtaken("what took longer to store than half the grace".to_owned()));
        }
        match self.env.storage.create(&head::object(&head.snapshot), bytes.clone()).await? {
            Created::Ours => {
                let hash = *blake3::hash(&bytes).as_bytes();
                self.env.heads.keep(KeptHead { head: Arc::clone(head), hash });
                Ok(bytes.len() as u64)
            }
            Created::Taken => Err(SnapshotError::Conflict { snapshot: head.snapshot.clone() }),
        }
    }
}

fn wrong_key(reason: &str) -> SnapshotError {
    SnapshotError::Key { reason: reason.to_owned(), source: None }
}

const CHECK: &[u8] = b"this opens with the key of the store";

/// What holds for all of a store: its grace, and a text that opens with its key alone.
fn encode_config(codec: &Codec, grace: Duration) -> Result<Bytes, SnapshotError> {
    let mut body = Encoder::default();
    body.number(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    body.byte(u8::from(codec.keys().is_some()));
    if let Some(keys) = codec.keys() {
        let sealed = keys.seal(CONFIG.as_bytes(), CHECK);
        body.text(&sealed.map_err(|_| wrong_key("the key does not seal"))?);
    }
    head::seal(&Codec::default(), CONFIG_MAGIC, VERSION, CONFIG, &body.into_bytes())
}

fn decode_config(codec: &Codec, bytes: &[u8]) -> Result<Duration, SnapshotError> {
    let body = head::unseal(&Codec::default(), CONFIG_MAGIC, VERSION_WITH_MOVES, CONFIG, bytes)?;
    let mut body = Decoder::new(&body);
    let mut read = || {
        let grace = Duration::from_millis(body.number()?);
        let check = match body.flag()? {
            true => Some(body.text(1024)?.to_vec()),
            false => None,
        };
        body.end()?;
        Ok((grace, check))
    };
    let (grace, check) = read().map_err(|Malformed(reason)| SnapshotError::Corrupt {
        object: CONFIG.to_owned(),
        holds: "what holds for all of the store".to_owned(),
        reason: reason.to_owned(),
    })?;
    match (check, codec.keys()) {
        (None, None) => Ok(grace),
        (Some(_), None) => Err(wrong_key("it is sealed, and no key was given")),
        (None, Some(_)) => Err(wrong_key("it is not sealed, and a key was given")),
        (Some(check), Some(keys)) => match keys.open(CONFIG.as_bytes(), &check) {
            Ok(text) if text == CHECK => Ok(grace),
            _ => Err(wrong_key("the key is not that of the store")),
        },
    }
}

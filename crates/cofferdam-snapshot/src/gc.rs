//! Collection of what no snapshot needs, in two steps and without locks.
//!
//! A pack that no head needs is *condemned*: a mark with the time is put beside it. It is deleted by a later pass, if the
//! mark is older than the grace and still no head needs it. A writer does not reuse what is condemned, and looks again just
//! before it puts its head ([`SnapshotStore::snapshot`]); so what is condemned after that look stays long enough for the head
//! to be seen.
//!
//! The order within a pass carries the proof:
//!
//! 1. Heads are listed, then marks: a mark that was taken off before a head was dropped is not seen as old.
//! 2. All heads are walked, also those to be dropped. Marks on whatever any of them needs are taken off, so that the grace
//!    begins anew for what only a dropped head needs.
//! 3. Heads are dropped.
//! 4. What nothing needs any more is condemned, but for packs that were begun less than a grace ago, which a writer may be
//!    filling.
//! 5. What was condemned for longer than the grace, and is needed by none of the heads of step 1, is deleted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use cofferdam_core::Timestamp;

use crate::{
    error::SnapshotError,
    head::{self, Head},
    id::{Lineage, PackName, SnapshotId},
    index,
    node::{Node, Place},
    path::TreePath,
    reader::{MAX_DEPTH, Reader},
    storage::Storage,
    store::SnapshotStore,
    windows::pack_object,
};

/// What a collection keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcOptions {
    /// The newest so many of each lineage are kept; at least one. Default 10.
    pub keep_last: usize,
    /// Snapshots that are younger are kept. Default: the grace of the store.
    pub keep_younger: Option<Duration>,
    /// These are kept, beside those that are pinned.
    pub keep: HashSet<SnapshotId>,
    /// Lineages that are dropped as a whole, whatever their age, but for what is pinned or in `keep`.
    pub drop: HashSet<Lineage>,
    /// Whether only to tell what would be done. Default no.
    pub dry_run: bool,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            keep_last: 10,
            keep_younger: None,
            keep: HashSet::new(),
            drop: HashSet::new(),
            dry_run: false,
        }
    }
}

/// What a collection has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GcReport {
    /// Snapshots that were kept.
    pub kept: u64,
    /// Snapshots that were dropped.
    pub dropped: u64,
    /// Packs that some snapshot needs.
    pub needed: u64,
    /// Packs that were condemned in this pass.
    pub condemned: u64,
    /// Bytes of the packs that were condemned in this pass.
    pub condemned_bytes: u64,
    /// Packs whose marks were taken off, because a snapshot needs them.
    pub pardoned: u64,
    /// Packs that were deleted.
    pub deleted: u64,
    /// Bytes of the packs that were deleted.
    pub deleted_bytes: u64,
}

/// Returns the packs that are marked and when that was; of several marks the latest counts.
pub(crate) async fn condemned(
    storage: &Storage,
) -> Result<HashMap<PackName, Timestamp>, SnapshotError> {
    let mut condemned: HashMap<PackName, Timestamp> = HashMap::new();
    for listed in storage.list(MARKS).await? {
        let Some((pack, time)) = parse_mark(&listed.name) else { continue };
        let latest = condemned.entry(pack).or_default();
        *latest = time.max(*latest);
    }
    Ok(condemned)
}

const MARKS: &str = "condemned";

fn mark(pack: &PackName, time: Timestamp) -> String {
    format!("{MARKS}/{pack}.{}", time.as_millis())
}

fn parse_mark(name: &str) -> Option<(PackName, Timestamp)> {
    let (pack, time) = name.split_once('.')?;
    Some((pack.parse().ok()?, Timestamp(time.parse().ok()?)))
}

impl SnapshotStore {
    /// Drops snapshots that are not to be kept, and takes one step in removing what none needs. It may run at any time, also
    /// while snapshots are taken, and several times at once; a pass that fails is made up for by the next.
    ///
    /// # Errors
    ///
    /// If anything that is kept cannot be read, nothing is dropped or deleted.
    ///
    /// # Cancel safety
    ///
    /// As after a crash: what is left is seen to by the next pass.
    pub async fn gc(&self, options: &GcOptions) -> Result<GcReport, SnapshotError> {
        let storage = &self.env.storage;
        let now = self.env.clock.now();
        let mut heads = Vec::new();
        for lineage in self.lineages().await? {
            heads.extend(self.snapshots(&lineage).await?);
        }
        let marks = storage.list(MARKS).await?;
        let packs = storage.list("packs").await?;
        let segments = storage.list("indexes").await?;

        let mut read: BTreeMap<SnapshotId, Head> = BTreeMap::new();
        for snapshot in heads {
            match self.head(&snapshot).await {
                Ok(head) => drop(read.insert(snapshot, head.head)),
                // Another pass has dropped it.
                Err(SnapshotError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let pinned = self.pins().await?.into_iter().map(|(_, snapshot)| snapshot).collect();
        let dropped = to_drop(&read, options, &pinned, now, self.env.grace);
        let mut marker = Marker::default();
        let (gone, kept): (Vec<_>, Vec<_>) =
            read.values().partition(|head| dropped.contains(&head.snapshot));
        for head in &kept {
            marker.walk(&self.reader((*head).clone())).await?;
        }
        let needed = marker.packs.clone();
        for head in &gone {
            // What cannot be read of a snapshot that is dropped does not matter.
            if let Err(error) = marker.walk(&self.reader((*head).clone())).await {
                tracing::warn!(snapshot = %head.snapshot, %error, "a snapshot that is dropped cannot be read");
            }
        }
        let named = marker.packs;

        let mut report = GcReport {
            kept: kept.len() as u64,
            dropped: gone.len() as u64,
            needed: needed.len() as u64,
            ..GcReport::default()
        };
        let marks: Vec<(String, PackName, Timestamp)> = marks
            .into_iter()
            .filter_map(|listed| parse_mark(&listed.name).map(|(p, t)| (listed.name, p, t)))
            .collect();
        let pardoned: Vec<String> = marks
            .iter()
            .filter(|(_, pack, _)| named.contains(pack))
            .map(|(name, ..)| format!("{MARKS}/{name}"))
            .collect();
        report.pardoned = pardoned.len() as u64;
        if !options.dry_run {
            storage.delete_all(pardoned).await?;
            let heads = gone.iter().map(|head| head::object(&head.snapshot)).collect();
            storage.delete_all(heads).await?;
        }

        let mut latest: HashMap<PackName, Timestamp> = HashMap::new();
        for (_, pack, time) in marks.iter().filter(|(_, pack, _)| !named.contains(pack)) {
            let known = latest.entry(*pack).or_default();
            *known = (*time).max(*known);
        }
        let age = |since: Timestamp| {
            Duration::from_millis(now.as_millis().saturating_sub(since.as_millis()))
        };
        let mut new_marks = Vec::new();
        let mut doomed = Vec::new();
        let mut there = HashSet::new();
        for listed in &packs {
            let Ok(pack) = listed.name.parse::<PackName>() else { continue };
            there.insert(pack);
            if needed.contains(&pack) {
                continue;
            }
            match latest.get(&pack) {
                Some(since) if age(*since) > self.env.grace => {
                    report.deleted += 1;
                    report.deleted_bytes += listed.size;
                    doomed.push(pack);
                }
                Some(_) => {}
                None if named.contains(&pack) || age(pack.begun()) > self.env.grace => {
                    report.condemned += 1;
                    report.condemned_bytes += listed.size;
                    new_marks.push(mark(&pack, now));
                }
                None => {}
            }
        }
        if options.dry_run {
            return Ok(report);
        }
        storage.put_all(new_marks).await?;
        storage.delete_all(doomed.iter().map(pack_object).collect()).await?;
        let done: HashSet<&PackName> = doomed.iter().collect();
        let old_marks = marks.iter().filter(|(_, pack, _)| done.contains(pack));
        storage.delete_all(old_marks.map(|(name, ..)| format!("{MARKS}/{name}")).collect()).await?;

        let used: HashSet<PackName> = kept
            .iter()
            .flat_map(|head| head.index.segments.iter().map(|segment| segment.name))
            .collect();
        let old_segments = segments.iter().filter_map(|listed| listed.name.parse().ok()).filter(
            |segment: &PackName| !used.contains(segment) && age(segment.begun()) > self.env.grace,
        );
        storage.delete_all(old_segments.map(|segment| index::object(&segment)).collect()).await?;
        Ok(report)
    }
}

/// Returns the snapshots that are not to be kept.
fn to_drop(
    heads: &BTreeMap<SnapshotId, Head>,
    options: &GcOptions,
    pinned: &HashSet<SnapshotId>,
    now: Timestamp,
    grace: Duration,
) -> HashSet<SnapshotId> {
    let young = options.keep_younger.unwrap_or(grace);
    let mut dropped = HashSet::new();
    let mut newer: HashMap<&Lineage, usize> = HashMap::new();
    for (snapshot, head) in heads.iter().rev() {
        let rank = newer.entry(&snapshot.lineage).or_default();
        *rank += 1;
        if pinned.contains(snapshot) || options.keep.contains(snapshot) {
            continue;
        }
        let age = now.as_millis().saturating_sub(head.created.as_millis());
        let old = u128::from(age) >= young.as_millis() && *rank > options.keep_last.max(1);
        if old || options.drop.contains(&snapshot.lineage) {
            dropped.insert(snapshot.clone());
        }
    }
    dropped
}

/// Finds the packs that snapshots need. A node that was seen is not walked again, so the cost is that of what differs.
#[derive(Debug, Default)]
struct Marker {
    packs: HashSet<PackName>,
    /// Nodes in packs, by where they lie: the same node at another place may name other places.
    seen: HashSet<(PackName, u32)>,
}

impl Marker {
    async fn walk(&mut self, reader: &Reader) -> Result<(), SnapshotError> {
        let mut open = vec![(reader.head.tree, 0)];
        let mut seen_in_head = HashSet::new();
        let path = TreePath::root();
        while let Some((stored, depth)) = open.pop() {
            let new = match stored.place {
                Place::Head => seen_in_head.insert(stored.id),
                Place::Pack { pack, offset, .. } => {
                    self.packs.insert(pack);
                    self.seen.insert((pack, offset))
                }
            };
            if !new {
                continue;
            }
            // A directory in pages has two nodes to a level, and a list of pieces is one more.
            if depth > MAX_DEPTH * 2 + 4 {
                return Err(SnapshotError::TooLarge {
                    what: "the depth of a tree",
                    limit: MAX_DEPTH as u64,
                });
            }
            let mut node: Node = reader.node(stored, &path).await?;
            node.references(|kind, id, place| {
                if let Place::Pack { pack, .. } = place {
                    self.packs.insert(*pack);
                }
                if kind == crate::frame::FrameKind::Node {
                    let id = crate::id::TreeId::from_bytes(*id);
                    open.push((crate::node::Stored { id, place: *place }, depth + 1));
                }
            });
        }
        Ok(())
    }
}

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
//! 5. What was condemned for longer than the grace, and is needed by none of the heads of step 1, is deleted. If one of those
//!    was gone before it could be read, nothing is: somebody may have begun anew with it.
//! 6. Packs of which little is needed are repacked ([`crate::repack`]). A frame that was moved is needed where it went, so an
//!    old pack is needed no more than any other that no head names, and goes by steps 4 and 5.
//! 7. What says where the frames of a pack went is deleted when the pack is gone and all that they went to.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use cofferdam_core::Timestamp;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::{
    error::SnapshotError,
    head::{self, Head},
    id::{Lineage, PackName, SnapshotId},
    index,
    marker::{AllMoves, Marker},
    moved,
    repack::{self, Repacker, Sparse},
    storage::{Listed, Storage},
    store::SnapshotStore,
    windows::pack_object,
};

/// Objects that are read at the same time.
const PARALLEL: usize = 8;

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
    /// A pack of which less than so many percent are needed is repacked: that is copied, and the pack is deleted by later passes. 0
    /// for never, at most 90. Default 50.
    pub repack_below: u8,
    /// The most bytes that one pass copies for that. Default 256 MiB.
    pub repack_bytes: u64,
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
            repack_below: 50,
            repack_bytes: 256 << 20,
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
    /// Packs that were repacked, and are condemned with it.
    pub repacked: u64,
    /// Bytes that were copied out of them.
    pub repacked_bytes: u64,
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
        // Before the packs: what it says that frames went to is among those.
        let moves = self.all_moves().await?;
        let packs = storage.list("packs").await?;
        let segments = storage.list("indexes").await?;

        let mut read: BTreeMap<SnapshotId, Head> = BTreeMap::new();
        let mut missed = false;
        for snapshot in heads {
            match self.head(&snapshot).await {
                Ok(head) => drop(read.insert(snapshot, head.head)),
                // Another pass has dropped it. What it needed is not known here, and somebody may go on from it.
                Err(SnapshotError::NotFound { .. }) => missed = true,
                Err(error) => return Err(error),
            }
        }
        let pinned = self.pins().await?.into_iter().map(|(_, snapshot)| snapshot).collect();
        let dropped = to_drop(&read, options, &pinned, now, self.env.grace);
        let age = |since: Timestamp| {
            Duration::from_millis(now.as_millis().saturating_sub(since.as_millis()))
        };
        let sizes: HashMap<PackName, u64> = packs.iter().filter_map(sized).collect();
        let percent = u64::from(options.repack_below.min(90));
        let little = sizes.iter().filter(|(pack, _)| age(pack.begun()) > self.env.grace);
        let little = little.map(|(pack, size)| (*pack, size.saturating_mul(percent) / 100));
        let mut marker = Marker::new(moves, little.filter(|(_, most)| *most > 0).collect());
        let (gone, kept): (Vec<_>, Vec<_>) =
            read.values().partition(|head| dropped.contains(&head.snapshot));
        for head in &kept {
            marker.walk(&self.reader((*head).clone())).await?;
        }
        let needed = marker.packs.clone();
        let little = marker.take_little();
        for head in &gone {
            // What cannot be read of a snapshot that is dropped does not matter.
            if let Err(error) = marker.walk(&self.reader((*head).clone())).await {
                tracing::warn!(snapshot = %head.snapshot, %error, "a snapshot that is dropped cannot be read");
            }
        }
        let sparse = repack::choose(little, &sizes, marker.moves(), options.repack_bytes);
        let named = &marker.packs;

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
        let mut new_marks = Vec::new();
        let mut doomed = Vec::new();
        for (pack, size) in &sizes {
            if needed.contains(pack) {
                continue;
            }
            match latest.get(pack) {
                Some(since) if age(*since) > self.env.grace && !missed => {
                    report.deleted += 1;
                    report.deleted_bytes += size;
                    doomed.push(*pack);
                }
                Some(_) => {}
                None if named.contains(pack) || age(pack.begun()) > self.env.grace => {
                    report.condemned += 1;
                    report.condemned_bytes += size;
                    new_marks.push(mark(pack, now));
                }
                None => {}
            }
        }
        if options.dry_run {
            report.repacked = sparse.len() as u64;
            report.repacked_bytes = sparse.iter().map(|it| it.needed_bytes).sum();
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
        let old_moves = forgotten(marker.moves(), &sizes);
        storage.delete_all(old_moves.iter().map(moved::object).collect()).await?;
        self.repack(&sparse, marker.moves().is_empty(), &mut report).await?;
        Ok(report)
    }

    /// Reads where the frames went of all packs that were repacked.
    async fn all_moves(&self) -> Result<AllMoves, SnapshotError> {
        let mut packs: Vec<PackName> = Vec::new();
        for listed in self.env.storage.list(moved::DIRECTORY).await? {
            packs.extend(listed.name.parse::<PackName>().ok());
        }
        let mut reads = futures::stream::iter(packs)
            .map(|pack| {
                let packs = self.env.packs();
                async move { Ok::<_, SnapshotError>((pack, packs.moved(&pack).await?)) }
            })
            .buffer_unordered(PARALLEL);
        let mut moves = AllMoves::new();
        while let Some((pack, moved)) = reads.try_next().await? {
            moves.extend(moved.map(|moved| (pack, moved)));
        }
        Ok(moves)
    }

    /// Copies what is needed of packs of which little is, and condemns them.
    async fn repack(
        &self,
        sparse: &[Sparse],
        is_first: bool,
        report: &mut GcReport,
    ) -> Result<(), SnapshotError> {
        if sparse.is_empty() {
            return Ok(());
        }
        if is_first {
            // A release that does not know of it would find packs missing.
            self.raise_version().await?;
        }
        let mut repacker = Repacker::new(self.env.clone());
        for one in sparse {
            repacker.copy(one).await?;
        }
        let done: HashSet<PackName> = repacker.finish().await?.into_iter().collect();
        let done = sparse.iter().filter(|one| done.contains(&one.pack));
        let now = self.env.clock.now();
        let mut marks = Vec::new();
        for one in done {
            report.repacked += 1;
            report.repacked_bytes += one.needed_bytes;
            report.condemned += 1;
            report.condemned_bytes += one.size;
            marks.push(mark(&one.pack, now));
        }
        self.env.storage.put_all(marks).await
    }
}

fn sized(listed: &Listed) -> Option<(PackName, u64)> {
    Some((listed.name.parse().ok()?, listed.size))
}

/// Returns the packs of which nobody can need any more where their frames went: they are gone, and so is all that those went to.
fn forgotten(moves: &AllMoves, packs: &HashMap<PackName, u64>) -> Vec<PackName> {
    let is_there = |pack: &PackName| packs.contains_key(pack) || moves.contains_key(pack);
    let gone = moves
        .iter()
        .filter(|(pack, moved)| !packs.contains_key(pack) && !moved.targets().iter().any(is_there));
    gone.map(|(pack, _)| *pack).collect()
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

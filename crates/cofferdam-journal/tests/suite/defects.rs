//! The conformance suite itself: a store with one planted defect at a time must fail the cases that look for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use cofferdam_core::{Clock, RunId, Timestamp};
use cofferdam_journal::{
    Entry, Epoch, Journal, JournalError, Lease, MemoryJournal, Record, RecordBody, RunFilter,
    RunSummary, Seq,
    conformance::{self, Options, Subject},
};
use futures::{StreamExt as _, stream, stream::BoxStream};

/// What is wrong with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    /// None: the control.
    None,
    AppendIsForgotten,
    LastOfAUnitIsDropped,
    UnitIsReversed,
    UnitIsWrittenTwice,
    NumberIsOfTheFirst,
    ExpectedIsIgnored,
    EpochIsIgnored,
    ExpiryIsIgnored,
    RefusedUnitIsHalfWritten,
    LeaseIsAlwaysGranted,
    LeaseOfTheSameOwnerIsGranted,
    EpochStays,
    RenewalRevivesTheFormer,
    RenewalDoesNotExtend,
    ReleaseIsIgnored,
    ReleaseIsOfAnybody,
    DroppedLeaseStays,
    LastIsStale,
    ReadBeginsAtTheBeginning,
    ReadEndsEarly,
    ReadSkipsOne,
    TextIsWrittenAnew,
    TimeIsRounded,
    RunsAreMixed,
    ListIsReversed,
    ListIgnoresLimit,
    ListIgnoresStatus,
    ListIgnoresAfter,
    ListHasNoHolder,
    HolderIsAlwaysLive,
    HeadIsLost,
    RemovalIsIgnored,
    RemovalOfALeasedOne,
    RemovalOfAll,
}

#[derive(Debug)]
struct Faulty {
    inner: MemoryJournal,
    defect: Defect,
    /// The newest lease of each run, and what has been kept although it was dropped.
    newest: Mutex<HashMap<RunId, Lease>>,
    kept: Mutex<Vec<Lease>>,
}

impl Faulty {
    fn newest(&self, lease: &Lease) -> Lease {
        // A clone would hold the lease: only its number is taken.
        let newest = self.newest.lock().unwrap();
        newest.get(&lease.run).cloned().unwrap_or_else(|| lease.clone())
    }

    fn alone(run: &RunId) -> RunId {
        RunId::new(run.as_str().to_lowercase().trim_end())
    }
}

#[async_trait]
impl Journal for Faulty {
    async fn lease(
        &self,
        run: &RunId,
        owner: &str,
        duration: Duration,
    ) -> Result<Lease, JournalError> {
        let run = if self.defect == Defect::RunsAreMixed { Self::alone(run) } else { run.clone() };
        let granted = match (self.inner.lease(&run, owner, duration).await, self.defect) {
            (Err(JournalError::Leased { .. }), Defect::LeaseIsAlwaysGranted) => {
                let former = self.newest.lock().unwrap().get(&run).cloned().unwrap();
                self.inner.release(&former).await?;
                self.inner.lease(&run, owner, duration).await?
            }
            (
                Err(JournalError::Leased { owner: holder, .. }),
                Defect::LeaseOfTheSameOwnerIsGranted,
            ) if holder == owner => self.newest.lock().unwrap().get(&run).cloned().unwrap(),
            (granted, _) => granted?,
        };
        let shown = match self.defect {
            Defect::EpochStays => {
                Lease::new(granted.run.clone(), Epoch(1), granted.expires, granted.last)
            }
            Defect::LastIsStale => granted.extended(granted.expires, Seq(0)),
            _ => granted.clone(),
        };
        let bare = Lease::new(granted.run.clone(), granted.epoch, granted.expires, granted.last);
        self.newest.lock().unwrap().insert(run, bare);
        if matches!(self.defect, Defect::DroppedLeaseStays | Defect::EpochStays) {
            self.kept.lock().unwrap().push(granted);
        }
        Ok(shown)
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease, JournalError> {
        match self.defect {
            Defect::RenewalRevivesTheFormer => {
                let renewed = self.inner.renew(&self.newest(lease), duration).await?;
                Ok(lease.extended(renewed.expires, renewed.last))
            }
            Defect::RenewalDoesNotExtend => {
                Ok(lease.extended(Timestamp(lease.expires.0 + 30_000), lease.last))
            }
            _ => self.inner.renew(lease, duration).await,
        }
    }

    async fn append(
        &self,
        lease: &Lease,
        expected: Seq,
        mut entries: Vec<Entry>,
    ) -> Result<Seq, JournalError> {
        let (mut lease, mut expected) = (lease.clone(), expected);
        match self.defect {
            Defect::AppendIsForgotten => return Ok(Seq(expected.0 + entries.len() as u64)),
            Defect::LastOfAUnitIsDropped if entries.len() > 1 => {
                entries.pop();
                return self
                    .inner
                    .append(&lease, expected, entries)
                    .await
                    .map(|seq| Seq(seq.0 + 1));
            }
            Defect::UnitIsReversed => entries.reverse(),
            Defect::UnitIsWrittenTwice => entries.extend(entries.clone()),
            Defect::NumberIsOfTheFirst if !entries.is_empty() => {
                self.inner.append(&lease, expected, entries).await?;
                return Ok(Seq(expected.0 + 1));
            }
            Defect::ExpectedIsIgnored => {
                if let Err(JournalError::Conflict { actual, .. }) =
                    self.inner.append(&lease, expected, Vec::new()).await
                {
                    expected = actual;
                }
            }
            Defect::EpochIsIgnored | Defect::EpochStays => lease = self.newest(&lease),
            Defect::ExpiryIsIgnored => {
                if let Err(JournalError::Expired { .. }) =
                    self.inner.append(&lease, expected, Vec::new()).await
                {
                    self.inner.renew(&lease, Duration::from_millis(1)).await?;
                }
            }
            Defect::RefusedUnitIsHalfWritten => {
                let mut last = expected;
                for entry in entries {
                    last = self.inner.append(&lease, last, vec![entry]).await?;
                }
                return Ok(last);
            }
            Defect::TextIsWrittenAnew => {
                for entry in &mut entries {
                    if let RecordBody::Unknown(value) = &mut entry.body
                        && let Some(object) = value.as_object_mut()
                    {
                        object.retain(|key, _| !key.is_empty());
                    }
                }
            }
            Defect::TimeIsRounded => {
                entries.iter_mut().for_each(|entry| entry.time.0 = entry.time.0 / 1000 * 1000);
            }
            _ => {}
        }
        self.inner.append(&lease, expected, entries).await
    }

    fn read(&self, run: &RunId, from: Seq) -> BoxStream<'static, Result<Record, JournalError>> {
        let run = if self.defect == Defect::RunsAreMixed { Self::alone(run) } else { run.clone() };
        match self.defect {
            Defect::ReadBeginsAtTheBeginning => self.inner.read(&run, Seq(1)),
            Defect::ReadEndsEarly => self.inner.read(&run, from).take(1000).boxed(),
            Defect::ReadSkipsOne => {
                let all = self.inner.read(&run, from).enumerate();
                all.filter_map(async |(at, record)| (at != 1).then_some(record)).boxed()
            }
            Defect::AppendIsForgotten => stream::empty().boxed(),
            _ => self.inner.read(&run, from),
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        match self.defect {
            Defect::ReleaseIsIgnored => Ok(()),
            Defect::ReleaseIsOfAnybody => self.inner.release(&self.newest(lease)).await,
            _ => self.inner.release(lease).await,
        }
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, JournalError> {
        let mut filter = filter.clone();
        match self.defect {
            Defect::ListIgnoresLimit => filter.limit = RunFilter::MAX_LIMIT,
            Defect::ListIgnoresStatus => filter.status = None,
            Defect::ListIgnoresAfter => filter.after = None,
            _ => {}
        }
        let mut runs = self.inner.runs(&filter).await?;
        for run in &mut runs {
            match self.defect {
                Defect::ListHasNoHolder => run.holder = None,
                Defect::HolderIsAlwaysLive => {
                    run.holder.iter_mut().for_each(|holder| holder.live = true);
                }
                Defect::HeadIsLost => run.head = None,
                _ => {}
            }
        }
        if self.defect == Defect::ListIsReversed {
            runs.reverse();
        }
        Ok(runs)
    }

    async fn remove(&self, run: &RunId) -> Result<(), JournalError> {
        match self.defect {
            Defect::RemovalIsIgnored => Ok(()),
            Defect::RemovalOfALeasedOne => {
                let newest = self.newest.lock().unwrap().get(run).cloned();
                if let Some(lease) = newest {
                    self.inner.release(&lease).await?;
                }
                self.inner.remove(run).await
            }
            Defect::RemovalOfAll => {
                for run in self.inner.runs(&RunFilter::default()).await? {
                    self.inner.remove(&run.run).await?;
                }
                Ok(())
            }
            _ => self.inner.remove(run).await,
        }
    }
}

#[async_trait]
impl Subject for Defect {
    async fn fresh(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Journal>, JournalError> {
        Ok(Arc::new(Faulty {
            inner: MemoryJournal::new(clock),
            defect: *self,
            newest: Mutex::default(),
            kept: Mutex::default(),
        }))
    }
}

/// Runs cases on a store with a defect, and demands that each of them fails.
async fn check(rows: &[(Defect, &[&str])]) {
    for (defect, cases) in rows {
        assert!(!cases.is_empty(), "{defect:?} is found by nothing");
        for case in *cases {
            let options = Options { filter: Some((*case).to_owned()), ..Options::default() };
            let report = conformance::run(defect, &options).await;
            let found = report.failed().any(|failed| failed.name == *case);
            assert!(found, "{defect:?} is not found by {case}: {report}");
        }
    }
}

#[tokio::test]
async fn none_is_found_where_there_is_none() {
    conformance::run(&Defect::None, &Options::default()).await.assert_passed();
}

#[tokio::test]
async fn defects_of_appends_are_found() {
    check(&[
        (Defect::AppendIsForgotten, &["appends::are_read_at_once"]),
        (Defect::LastOfAUnitIsDropped, &["appends::keep_order", "races::one_writer_for_many"]),
        (Defect::UnitIsReversed, &["appends::keep_order", "reads::many"]),
        (Defect::UnitIsWrittenTwice, &["appends::are_numbered", "races::dropped_appends"]),
        (Defect::NumberIsOfTheFirst, &["appends::are_numbered"]),
        (Defect::ExpectedIsIgnored, &["appends::too_early_or_late", "races::one_is_first"]),
        (Defect::RefusedUnitIsHalfWritten, &["appends::a_refused_unit_is_not_there"]),
        (Defect::TextIsWrittenAnew, &["appends::content_is_kept"]),
        (Defect::TimeIsRounded, &["appends::times_are_kept"]),
        (Defect::RunsAreMixed, &["appends::runs_are_apart"]),
    ])
    .await;
}

#[tokio::test]
async fn defects_of_leases_are_found() {
    check(&[
        (Defect::EpochIsIgnored, &["leases::former_is_fenced", "lists::begun_anew"]),
        (Defect::ExpiryIsIgnored, &["leases::expired_does_not_append"]),
        (Defect::LeaseIsAlwaysGranted, &["leases::one_at_a_time", "races::one_gets_the_lease"]),
        (Defect::LeaseOfTheSameOwnerIsGranted, &["leases::same_owner_is_another"]),
        (Defect::EpochStays, &["leases::epochs_rise", "leases::former_is_fenced"]),
        (Defect::RenewalRevivesTheFormer, &["leases::former_is_fenced"]),
        (Defect::RenewalDoesNotExtend, &["leases::expired_is_renewed", "leases::renewal_extends"]),
        (Defect::ReleaseIsIgnored, &["leases::release_is_at_once", "leases::released_is_over"]),
        (Defect::ReleaseIsOfAnybody, &["leases::release_twice"]),
        (Defect::DroppedLeaseStays, &["leases::dropped_is_over"]),
        (Defect::LastIsStale, &["leases::release_is_at_once", "appends::chain_goes_on"]),
    ])
    .await;
}

#[tokio::test]
async fn defects_of_reads_and_lists_are_found() {
    check(&[
        (Defect::ReadBeginsAtTheBeginning, &["reads::from_a_place", "reads::past_the_end"]),
        (Defect::ReadEndsEarly, &["reads::many"]),
        (Defect::ReadSkipsOne, &["reads::many", "appends::keep_order"]),
        (Defect::ListIsReversed, &["lists::in_order"]),
        (Defect::ListIgnoresLimit, &["lists::in_pages"]),
        (Defect::ListIgnoresStatus, &["lists::by_status"]),
        (Defect::ListIgnoresAfter, &["lists::in_pages"]),
        (Defect::ListHasNoHolder, &["lists::holders"]),
        (Defect::HolderIsAlwaysLive, &["lists::holders"]),
        (Defect::HeadIsLost, &["lists::facts"]),
        (Defect::RemovalIsIgnored, &["lists::removed"]),
        (Defect::RemovalOfALeasedOne, &["lists::removal_of_a_leased_one"]),
        (Defect::RemovalOfAll, &["lists::removed"]),
    ])
    .await;
}

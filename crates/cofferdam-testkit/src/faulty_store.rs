//! [`FaultyStore`]: an object store that fails as storage fails, by a plan and a seed.
//!
//! It never breaks what an object store promises: a put is whole or not there, and put-if-absent has one winner. It breaks
//! what people come to rely on all the same: that an answer comes, that an error means that nothing happened, that a request
//! arrives once, that a list is of now.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

use crate::random::Random;

/// How often what fails, each in a thousand operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultPlan {
    /// The operation does not happen, and fails.
    pub error: u64,
    /// The operation happens, and fails all the same: its answer was lost.
    pub lost: u64,
    /// A put arrives twice, and the second answer is what comes back.
    pub twice: u64,
    /// A list is that of an earlier time.
    pub stale: u64,
    /// No answer ever comes; half of the time the operation happens.
    pub hang: u64,
    /// The answer takes up to a second.
    pub slow: u64,
}

/// An object store that fails.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    plan: FaultPlan,
    random: Mutex<Random>,
    healthy: AtomicBool,
    /// Operations until everything fails.
    left: AtomicU64,
    /// Puts, deletions and copies until those fail.
    writes_left: AtomicU64,
    faults: AtomicU64,
    lists: Mutex<HashMap<Option<Path>, Vec<ObjectMeta>>>,
}

/// What happens to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Error,
    Lost,
    Twice,
    Stale,
    Hang { happens: bool },
    Slow(Duration),
}

impl FaultyStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, plan: FaultPlan, seed: u64) -> Self {
        let state = State {
            plan,
            random: Mutex::new(Random::new(seed)),
            healthy: AtomicBool::new(false),
            left: AtomicU64::new(u64::MAX),
            writes_left: AtomicU64::new(u64::MAX),
            faults: AtomicU64::new(0),
            lists: Mutex::default(),
        };
        Self { inner, state: Arc::new(state) }
    }

    /// Lets so many more operations happen; then all fail, as if the storage were gone.
    pub fn fail_after(&self, operations: u64) {
        self.state.left.store(operations, Ordering::SeqCst);
    }

    /// Lets so many more puts, deletions and copies happen; then all of those fail, and what is there can still be read.
    pub fn fail_writes_after(&self, writes: u64) {
        self.state.writes_left.store(writes, Ordering::SeqCst);
    }

    /// From now on nothing fails, or things fail again.
    pub fn set_healthy(&self, healthy: bool) {
        self.state.healthy.store(healthy, Ordering::SeqCst);
    }

    /// Returns how often something failed.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.state.faults.load(Ordering::SeqCst)
    }

    fn draw(&self, list: bool) -> Fault {
        let state = &self.state;
        if state.healthy.load(Ordering::SeqCst) {
            return Fault::None;
        }
        if !one_less(&state.left) {
            return self.count(Fault::Error);
        }
        let mut random = state.random.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = &state.plan;
        let mut at = random.below(1000);
        let happens = random.below(2) == 0;
        let slow = Fault::Slow(Duration::from_millis(random.below(1000)));
        drop(random);
        let faults = [
            (plan.error, Fault::Error),
            (plan.lost, Fault::Lost),
            (plan.twice, Fault::Twice),
            (if list { plan.stale } else { 0 }, Fault::Stale),
            (plan.hang, Fault::Hang { happens }),
            (plan.slow, slow),
        ];
        for (share, fault) in faults {
            match at.checked_sub(share) {
                Some(rest) => at = rest,
                None => return self.count(fault),
            }
        }
        Fault::None
    }

    fn count(&self, fault: Fault) -> Fault {
        self.state.faults.fetch_add(1, Ordering::SeqCst);
        fault
    }

    /// Plays a fault around an operation that changes something.
    async fn play_write<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        if !self.state.healthy.load(Ordering::SeqCst) && !one_less(&self.state.writes_left) {
            self.count(Fault::Error);
            return Err(failure());
        }
        self.play(call).await
    }

    /// Plays a fault around an operation.
    async fn play<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        match self.draw(false) {
            Fault::None | Fault::Stale => call().await,
            Fault::Error => Err(failure()),
            // Whatever the answer was, nobody hears it.
            Fault::Lost => {
                drop(call().await);
                Err(failure())
            }
            Fault::Twice => {
                drop(call().await);
                call().await
            }
            Fault::Hang { happens } => {
                if happens {
                    drop(call().await);
                }
                futures::future::pending().await
            }
            Fault::Slow(pause) => {
                tokio::time::sleep(pause).await;
                call().await
            }
        }
    }
}

/// Takes one from what is left; false if nothing is.
fn one_less(left: &AtomicU64) -> bool {
    let down = |left: u64| left.checked_sub(1);
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, down).is_ok()
}

fn failure() -> Error {
    Error::Generic { store: "FaultyStore", source: "the storage failed".into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.play_write(|| self.inner.put_opts(location, payload.clone(), options.clone())).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.play(|| self.inner.get_opts(location, options.clone())).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.play(|| self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let delete = || {
                        let one = stream::iter([Ok(location.clone())]).boxed();
                        let mut deleted = store.inner.delete_stream(one);
                        async move { deleted.try_next().await }
                    };
                    store.play_write(delete).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let fault = store.draw(true);
            if fault == Fault::Error || fault == Fault::Lost {
                return Err(failure());
            }
            if matches!(fault, Fault::Hang { .. }) {
                futures::future::pending::<()>().await;
            }
            let now: Vec<ObjectMeta> = store.inner.list(prefix.as_ref()).try_collect().await?;
            let mut lists = store.state.lists.lock().unwrap_or_else(PoisonError::into_inner);
            let before = lists.insert(prefix, now.clone());
            drop(lists);
            Ok(if fault == Fault::Stale { before.unwrap_or_default() } else { now })
        };
        stream::once(listed)
            .map_ok(|listed| stream::iter(listed.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.play(|| self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.play_write(|| self.inner.copy_opts(from, to, options.clone())).await
    }
}

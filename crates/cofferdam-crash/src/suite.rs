//! [`Suite`]: plays scenarios until enough processes were killed.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    defect::Defect,
    judge::Expected,
    plan::{Opening, Plan},
    process::Blow,
    scenario::{Outcome, Scenario},
    table::Table,
    world::World,
};

/// Failures after which the suite stops: more would tell nothing new.
const ENOUGH_FAILURES: usize = 10;

/// What is to be played.
#[derive(Debug)]
pub struct Suite<'a> {
    /// The program of this suite.
    pub program: &'a Path,
    /// What runs work in.
    pub worlds: &'a [World],
    /// Processes that are to be killed at least.
    pub crashes: u64,
    /// Where the order of the points comes from.
    pub seed: u64,
    /// Scenarios at a time.
    pub parallel: NonZeroUsize,
    /// What is broken on purpose.
    pub defect: Option<Defect>,
}

/// A scenario in which something did not hold.
#[derive(Debug)]
pub struct Failure {
    /// Its world.
    pub world: World,
    /// What killed its processes.
    pub blows: Vec<Blow>,
    /// What did not hold.
    pub wrong: Vec<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// The crashes.
    pub table: Table,
    /// Scenarios that were played.
    pub scenarios: u64,
    /// What did not hold.
    pub failures: Vec<Failure>,
    /// What was reported as unknown, and how often: tools, and the workspace.
    pub reported: BTreeMap<String, u64>,
    /// Sandboxes that nobody had gone on with, since the process that made them died before it wrote that down.
    pub orphans: usize,
    /// Points that are known and at which no process was killed.
    pub unvisited: Vec<(World, String)>,
    /// How many points are known.
    pub points: usize,
    /// Strikes at undisturbed runs that were not made, since enough processes had been killed.
    pub left: usize,
    /// How long it took.
    pub time: Duration,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    summary: Summary,
    struck: BTreeMap<(World, String), u64>,
    begun: u64,
    error: Option<anyhow::Error>,
}

impl Suite<'_> {
    /// Plays it.
    ///
    /// # Errors
    ///
    /// If the suite itself fails, or two runs that nobody disturbs differ, so that nothing can be compared.
    pub fn play(&self) -> Result<Summary> {
        let start = Instant::now();
        let places = places()?;
        let mut plan = Plan::new(self.seed);
        let mut expected = BTreeMap::new();
        for &world in self.worlds {
            expected.insert(world, self.undisturbed(world, places.path(), &mut plan)?);
        }
        let shared = Mutex::new(Shared {
            plan,
            summary: Summary::default(),
            struck: BTreeMap::new(),
            begun: 0,
            error: None,
        });
        thread::scope(|scope| {
            for _ in 0..self.parallel.get() {
                scope.spawn(|| {
                    if let Err(error) = self.work(places.path(), &expected, &shared) {
                        lock(&shared).error.get_or_insert(error);
                    }
                });
            }
        });
        let Shared { plan, mut summary, struck, error, .. } =
            shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = error {
            return Err(error);
        }
        let points = plan.points();
        summary.points = points.len();
        summary.left = plan.left();
        summary.unvisited = points
            .into_iter()
            .map(|(world, point)| (world, point.to_owned()))
            .filter(|point| !struck.contains_key(point))
            .collect();
        summary.time = start.elapsed();
        Ok(summary)
    }

    /// Runs a world twice without disturbing it: the first is what later ones are compared with, the second shows that this can
    /// be compared.
    fn undisturbed(&self, world: World, places: &Path, plan: &mut Plan) -> Result<Expected> {
        // What is broken on purpose must show in crashes; what is expected is what a sound run leaves.
        let scenario = Scenario { program: self.program, places, world, defect: None };
        let first = scenario.play(None, |_| None)?;
        let Some(end) = first.end.filter(|_| first.wrong.is_empty()) else {
            bail!("{world}: a run that nobody disturbs fails: {}", first.wrong.join("; "));
        };
        let expected = Expected::of(end, &first.lines);
        let start = Instant::now();
        let scenario = Scenario { defect: self.defect, ..scenario };
        let again = scenario.play(Some(&expected), |_| None)?;
        if !again.wrong.is_empty() {
            bail!("{world}: two runs that nobody disturbs differ: {}", again.wrong.join("; "));
        }
        plan.undisturbed(world, &again.points_from_start, start.elapsed());
        Ok(expected)
    }

    /// Plays one scenario, whose processes are killed by these blows.
    ///
    /// # Errors
    ///
    /// As [`Suite::play`].
    pub fn again(&self, world: World, blows: &[Blow]) -> Result<Outcome> {
        let places = places()?;
        let expected = self.undisturbed(world, places.path(), &mut Plan::new(self.seed))?;
        let scenario =
            Scenario { program: self.program, places: places.path(), world, defect: self.defect };
        scenario.play(Some(&expected), |number| blows.get(usize::try_from(number).ok()?).cloned())
    }

    fn work(
        &self,
        places: &Path,
        expected: &BTreeMap<World, Expected>,
        shared: &Mutex<Shared>,
    ) -> Result<()> {
        loop {
            let opening = {
                let mut shared = lock(shared);
                let enough = shared.begun >= self.crashes
                    || shared.summary.failures.len() >= ENOUGH_FAILURES
                    || shared.error.is_some();
                let opening = if enough { None } else { shared.plan.open() };
                let Some(opening) = opening else { return Ok(()) };
                shared.begun += 1;
                opening
            };
            let world = opening.world;
            let scenario = Scenario { program: self.program, places, world, defect: self.defect };
            let Opening { blows, more, .. } = opening;
            let outcome = scenario.play(expected.get(&world), |number| {
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                match blows.get(number) {
                    Some(blow) => Some(blow.clone()),
                    None if number < blows.len() + more => lock(shared).plan.resumed(world),
                    None => None,
                }
            })?;
            lock(shared).note(world, outcome);
        }
    }
}

impl Shared {
    fn note(&mut self, world: World, outcome: Outcome) {
        self.plan.learn(world, &outcome);
        self.summary.table.add(&outcome);
        self.summary.scenarios += 1;
        self.summary.orphans += outcome.orphans;
        for (_, what) in &outcome.ambiguous {
            *self.summary.reported.entry(what.clone()).or_default() += 1;
        }
        for blow in &outcome.blows {
            *self.struck.entry((world, blow.name())).or_default() += 1;
        }
        // What was planned and did not come about is planned again.
        self.begun = self.summary.table.sum().crashes;
        if !outcome.wrong.is_empty() {
            self.summary.failures.push(Failure {
                world,
                blows: outcome.blows,
                wrong: outcome.wrong,
            });
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the directory of the scenarios: in memory where there is such a place, since what is tried is the death of processes and
/// not the loss of power, and waiting for a disk would be most of the time.
fn places() -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("cofferdam-crash-");
    Ok(builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir())?)
}

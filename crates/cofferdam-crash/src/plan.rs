//! [`Plan`]: which point of which world is struck next.
//!
//! First each point that an undisturbed run passes, each time that it passes it; then, and for the later processes of a chain,
//! points that were struck least. Points that only a resumed run passes are known as soon as one such run tells of them. Now and then
//! a process is killed at a random time instead.

use std::{collections::BTreeMap, time::Duration};

use crate::{point::Strike, process::Blow, random::Random, scenario::Outcome, world::World};

/// One in so many blows comes at a random time.
const ONE_IN_RANDOM: u64 = 8;

/// Processes of a scenario that are struck at most: the first, and the resumes of it.
const MAX_CHAIN: u64 = 4;

/// What is known of a world's points.
#[derive(Debug, Default)]
struct Known {
    /// The most often that one process passed the point, by process: the first one, or one that resumes.
    from_start: BTreeMap<String, u64>,
    from_resume: BTreeMap<String, u64>,
    struck: BTreeMap<String, u64>,
    /// Strikes at an undisturbed run that are still to come.
    queue: Vec<Strike>,
    /// How long an undisturbed run takes.
    length: Duration,
}

/// The points that are known, and which were struck how often.
#[derive(Debug)]
pub struct Plan {
    worlds: BTreeMap<World, Known>,
    order: Vec<World>,
    turn: usize,
    random: Random,
}

/// The beginning of a scenario.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The world.
    pub world: World,
    /// What kills the first process.
    pub blow: Blow,
    /// How many of the later processes are killed too.
    pub more: u64,
}

impl Plan {
    /// Makes a plan whose order follows from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { worlds: BTreeMap::new(), order: Vec::new(), turn: 0, random: Random::new(seed) }
    }

    /// Takes in what an undisturbed run of a world passed, and how long it took.
    pub fn undisturbed(&mut self, world: World, points: &BTreeMap<String, u64>, length: Duration) {
        let strikes = points.iter().flat_map(|(point, &times)| {
            (1..=times).map(|time| Strike { point: point.clone(), time })
        });
        let mut queue: Vec<_> = strikes.collect();
        self.random.shuffle(&mut queue);
        // The first of each point come first, so that a short suite sees as many points as it can.
        queue.sort_by_key(|strike| strike.time > 1);
        queue.reverse();
        let known = Known { from_start: points.clone(), queue, length, ..Known::default() };
        self.worlds.insert(world, known);
        self.order.push(world);
    }

    /// Returns how many strikes at undisturbed runs are still to come.
    #[must_use]
    pub fn left(&self) -> usize {
        self.worlds.values().map(|known| known.queue.len()).sum()
    }

    /// Returns the next scenario; `None` if there is no world.
    pub fn open(&mut self) -> Option<Opening> {
        // The world with the most left, and in turn when nothing is.
        let most = self.order.iter().copied().max_by_key(|world| self.worlds[world].queue.len());
        let world = match most {
            Some(world) if !self.worlds[&world].queue.is_empty() => world,
            _ => {
                self.turn += 1;
                *self.order.get(self.turn % self.order.len().max(1))?
            }
        };
        let is_random = self.random.below(ONE_IN_RANDOM) == 0;
        let known = self.worlds.get_mut(&world)?;
        let queued = if is_random { None } else { known.queue.pop() };
        let blow = match queued {
            Some(strike) => Blow::Strike(strike),
            None => self.later(world, true)?,
        };
        self.count(world, &blow);
        let more = self.random.below(MAX_CHAIN);
        Some(Opening { world, blow, more })
    }

    /// Returns what kills a process that resumes a run.
    pub fn resumed(&mut self, world: World) -> Option<Blow> {
        let blow = self.later(world, false)?;
        self.count(world, &blow);
        Some(blow)
    }

    fn later(&mut self, world: World, first: bool) -> Option<Blow> {
        let known = self.worlds.get(&world)?;
        let points = if first || known.from_resume.is_empty() {
            &known.from_start
        } else {
            &known.from_resume
        };
        if self.random.below(ONE_IN_RANDOM) == 0 || points.is_empty() {
            let length = u64::try_from(known.length.as_micros()).unwrap_or(u64::MAX);
            return Some(Blow::Time(Duration::from_micros(self.random.below(length))));
        }
        let struck = |point: &String| known.struck.get(point).copied().unwrap_or(0);
        let least = points.keys().map(struck).min()?;
        let candidates: Vec<_> =
            points.iter().filter(|(point, _)| struck(point) == least).collect();
        let at = self.random.below(candidates.len() as u64);
        let (point, times) = *candidates.get(usize::try_from(at).ok()?)?;
        // Early times are met by more of the runs that are resumed somewhere in the middle.
        let bound = 1 + self.random.below(*times);
        let time = 1 + self.random.below(bound);
        Some(Blow::Strike(Strike { point: point.clone(), time }))
    }

    fn count(&mut self, world: World, blow: &Blow) {
        if let (Blow::Strike(strike), Some(known)) = (blow, self.worlds.get_mut(&world)) {
            *known.struck.entry(strike.point.clone()).or_default() += 1;
        }
    }

    /// Takes in what the resumed runs of a scenario passed.
    pub fn learn(&mut self, world: World, outcome: &Outcome) {
        let Some(known) = self.worlds.get_mut(&world) else { return };
        for (point, times) in &outcome.points_from_resume {
            let most = known.from_resume.entry(point.clone()).or_default();
            *most = (*times).max(*most);
        }
    }

    /// Returns the points of a world that are known.
    #[must_use]
    pub fn points(&self) -> Vec<(World, &str)> {
        let mut all: Vec<(World, &str)> = Vec::new();
        for (world, known) in &self.worlds {
            let points = known.from_start.keys().chain(known.from_resume.keys());
            all.extend(points.map(|point| (*world, point.as_str())));
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

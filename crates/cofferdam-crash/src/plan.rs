//! [`Plan`]: which point of which world is struck next.
//!
//! First each point that an undisturbed run passes, each time that it passes it; then, and for the later processes of a chain,
//! points that were aimed at least. Points that only a resumed run passes are known as soon as one such run tells of them. Now and then
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
    /// The blows after which a resumed run passed the point first.
    way_to: BTreeMap<String, Vec<Blow>>,
    /// How often a point was aimed at.
    tried: BTreeMap<String, u64>,
    /// Scenarios that are still to come: each passage of an undisturbed run, and the way to each point of a resumed one.
    queue: Vec<Vec<Blow>>,
    /// How long an undisturbed run takes.
    length: Duration,
}

/// Calls of a run on its sandbox, which may be lost there. What fills the sandbox comes before the run, and what is read of it
/// after.
const ON_A_SANDBOX: [&str; 3] = ["sandbox.exec.", "sandbox.file.", "sandbox.session."];

fn is_of_a_sandbox(strike: &Strike) -> bool {
    ON_A_SANDBOX.iter().any(|calls| strike.point.starts_with(calls))
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
    /// What kills the first processes.
    pub blows: Vec<Blow>,
    /// How many of the later processes are killed too.
    pub more: usize,
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
        let strikes: Vec<_> = strikes.collect();
        let losses = strikes.iter().filter(|strike| is_of_a_sandbox(strike)).cloned();
        let mut queue: Vec<(u64, Blow)> = losses
            .map(|strike| (strike.time, Blow::Loss(strike)))
            .chain(strikes.iter().map(|strike| (strike.time, Blow::Strike(strike.clone()))))
            .collect();
        self.random.shuffle(&mut queue);
        // The first of each point come first, so that a short suite sees as many points as it can.
        queue.sort_by_key(|(time, _)| *time > 1);
        let queue = queue.into_iter().rev().map(|(_, blow)| vec![blow]).collect();
        let known = Known { from_start: points.clone(), queue, length, ..Known::default() };
        self.worlds.insert(world, known);
        self.order.push(world);
    }

    /// Returns how many scenarios are still to come until each point that is known was struck.
    #[must_use]
    pub fn left(&self) -> usize {
        self.worlds.values().map(|known| known.queue.len()).sum()
    }

    /// Returns the next scenario; `None` if there is no world.
    pub fn open(&mut self) -> Option<Opening> {
        // In turn, those in which there is something left before the others.
        let count = self.order.len().max(1);
        let in_turn: Vec<_> =
            (1..=count).filter_map(|next| self.order.get((self.turn + next) % count)).collect();
        let is_left = |world: &&World| !self.worlds[world].queue.is_empty();
        let world = **in_turn.iter().find(|world| is_left(world)).or(in_turn.first())?;
        self.turn = self.order.iter().position(|it| *it == world)?;
        let is_random = self.random.below(ONE_IN_RANDOM) == 0;
        let known = self.worlds.get_mut(&world)?;
        let queued = if is_random { None } else { known.queue.pop() };
        let blows = match queued {
            Some(blows) => blows,
            None => vec![self.later(world, true)?],
        };
        let more = usize::try_from(self.random.below(MAX_CHAIN)).unwrap_or(0);
        Some(Opening { world, blows, more })
    }

    /// Returns what kills a process that resumes a run.
    pub fn resumed(&mut self, world: World) -> Option<Blow> {
        self.later(world, false)
    }

    fn later(&mut self, world: World, first: bool) -> Option<Blow> {
        let known = self.worlds.get_mut(&world)?;
        let points = if first || known.from_resume.is_empty() {
            &known.from_start
        } else {
            &known.from_resume
        };
        if self.random.below(ONE_IN_RANDOM) == 0 || points.is_empty() {
            let length = u64::try_from(known.length.as_micros()).unwrap_or(u64::MAX);
            return Some(Blow::Time(Duration::from_micros(self.random.below(length))));
        }
        let tried = |point: &String| known.tried.get(point).copied().unwrap_or(0);
        let least = points.keys().map(tried).min()?;
        let candidates: Vec<_> = points.iter().filter(|(point, _)| tried(point) == least).collect();
        let at = self.random.below(candidates.len() as u64);
        let (point, times) = *candidates.get(usize::try_from(at).ok()?)?;
        // Early times are met by more of the runs that are resumed somewhere in the middle.
        let bound = 1 + self.random.below(*times);
        let time = 1 + self.random.below(bound);
        let strike = Strike { point: point.clone(), time };
        *known.tried.entry(strike.point.clone()).or_default() += 1;
        Some(Blow::Strike(strike))
    }

    /// Takes in what the resumed runs of a scenario passed.
    pub fn learn(&mut self, world: World, outcome: &Outcome) {
        let Some(known) = self.worlds.get_mut(&world) else { return };
        for (blows, points) in &outcome.points_from_resume {
            for (point, times) in points {
                let most = known.from_resume.entry(point.clone()).or_default();
                *most = (*times).max(*most);
                if known.from_start.contains_key(point) || known.way_to.contains_key(point) {
                    continue;
                }
                let way = outcome.blows.get(..*blows).unwrap_or_default().to_vec();
                if way.iter().any(|blow| matches!(blow, Blow::Time(_))) {
                    // It would not lead there again.
                    continue;
                }
                let strike = Blow::Strike(Strike { point: point.clone(), time: 1 });
                known.queue.push([way.clone(), vec![strike]].concat());
                known.way_to.insert(point.clone(), way);
            }
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::Plan;
    use crate::{process::Blow, scenario::Outcome, world::World};

    fn points(known: &[(&str, u64)]) -> BTreeMap<String, u64> {
        known.iter().map(|&(point, times)| (point.to_owned(), times)).collect()
    }

    fn plan() -> Plan {
        let mut plan = Plan::new(1);
        plan.undisturbed(World::Bare, &points(&[("a", 3), ("b", 1)]), Duration::from_millis(9));
        plan
    }

    #[test]
    fn each_passage_of_an_undisturbed_run_is_struck_once() {
        let mut plan = plan();
        let mut strikes = Vec::new();
        while plan.left() > 0 {
            let opening = plan.open().unwrap();
            assert_eq!(opening.world, World::Bare);
            if let [Blow::Strike(strike)] = opening.blows.as_slice()
                && opening.more < 4
            {
                strikes.push(strike.to_string());
            }
        }
        // Each point before any point a second time.
        strikes[..2].sort_unstable();
        strikes[2..].sort_unstable();
        assert_eq!(strikes, ["a#1", "b#1", "a#2", "a#3"]);
    }

    #[test]
    fn points_of_resumed_runs_are_learned() {
        let mut plan = plan();
        let after = |blow: &str| Outcome {
            blows: vec![blow.parse().unwrap()],
            points_from_resume: vec![(1, points(&[("c", 2)]))],
            ..Outcome::default()
        };
        let left = plan.left();
        plan.learn(World::Bare, &after("70us"));
        assert_eq!(plan.left(), left, "no way leads through a random time");
        plan.learn(World::Bare, &after("a#1"));
        plan.learn(World::Bare, &after("a#2"));
        assert_eq!(plan.left(), left + 1);
        assert_eq!(plan.points(), [(World::Bare, "a"), (World::Bare, "b"), (World::Bare, "c")]);
        let blows: Vec<_> = (0..20).filter_map(|_| plan.resumed(World::Bare)).collect();
        assert!(blows.iter().any(|blow| blow.name() == "c"), "{blows:?}");
        assert!(blows.iter().all(|blow| ["c", "at a random time"].contains(&&*blow.name())));
    }
}

//! [`Scenario`]: one run of the agent, from its first process to the one that ends it, with those between that were killed.

use std::{collections::BTreeMap, path::Path};

use crate::{
    defect::Defect,
    drive,
    ending::{Ending, Final, State},
    judge::{self, Expected, Judge, Notices},
    ledger::{Deed, Ledger, Line},
    point::Points,
    process::{Blow, End, Process},
    tools::names,
    world::World,
};
use anyhow::{Context as _, Result};
use cofferdam_core::RunId;
use cofferdam_core::StepId;
use cofferdam_journal::{Decision, PauseReason};

/// Processes of one scenario at most; one that needs more goes round in circles.
const MAX_PROCESSES: u32 = 40;

/// What is in doubt if the workspace is older than what was done outside of it.
pub const WORKSPACE: &str = "workspace";

/// A run to be disturbed.
#[derive(Debug, Clone, Copy)]
pub struct Scenario<'a> {
    /// The program of this suite.
    pub program: &'a Path,
    /// Where directories of scenarios are made.
    pub places: &'a Path,
    /// What the run works in.
    pub world: World,
    /// What is broken on purpose.
    pub defect: Option<Defect>,
}

/// What came of a scenario.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What killed its processes, in order.
    pub blows: Vec<Blow>,
    /// What the run reported as unknown, the tool of a call or the [`WORKSPACE`], with the number of blows by then.
    pub ambiguous: Vec<(usize, String)>,
    /// What must not be.
    pub wrong: Vec<String>,
    /// How often each point was passed by the first process, if it was not killed.
    pub points_from_start: BTreeMap<String, u64>,
    /// How often each point was passed by each later process, unless it died at a random time, with the number of blows by then.
    pub points_from_resume: Vec<(usize, BTreeMap<String, u64>)>,
    /// What the run left.
    pub end: Option<Final>,
    /// The ledger.
    pub lines: Vec<Line>,
    /// Sandboxes that nobody had gone on with at the end, and that were removed.
    pub orphans: usize,
}

impl Scenario<'_> {
    /// Plays it. `next` says what is to kill the process of this number; `None`: nothing more is.
    ///
    /// # Errors
    ///
    /// If the suite itself fails; what the run does wrong is in the outcome.
    pub fn play(
        &self,
        expected: Option<&Expected>,
        mut next: impl FnMut(u32) -> Option<Blow>,
    ) -> Result<Outcome> {
        let place = tempfile::Builder::new().prefix("scenario-").tempdir_in(self.places)?;
        let mut outcome = self.play_in(place.path(), expected, &mut next)?;
        if self.world == World::Lingering {
            outcome.orphans = drive::sweep(place.path())?;
        }
        Ok(outcome)
    }

    fn play_in(
        &self,
        place: &Path,
        expected: Option<&Expected>,
        next: &mut impl FnMut(u32) -> Option<Blow>,
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut judge = Judge::default();
        let (mut calm, mut decision) = (false, None);
        for number in 0..MAX_PROCESSES {
            let blow = if calm { None } else { next(number) };
            calm |= blow.is_none();
            let process = Process {
                program: self.program,
                place,
                world: self.world,
                number,
                blow: blow.as_ref(),
                decision: decision.take().as_ref(),
                defect: self.defect,
            }
            .run()?;
            let records = drive::records(place)?;
            outcome.lines = Ledger::new(drive::ledger(place), number).read()?;
            outcome.wrong.extend(judge.after(number, &outcome.lines, &records));
            match process {
                End::Killed => {
                    let passed = Points::told(&drive::points(place));
                    if number > 0 {
                        outcome.note_points(number, passed);
                    }
                    outcome.blows.extend(blow);
                }
                End::Broken(why) => outcome.wrong.push(format!("process {number}: {why}")),
                End::Done => {
                    let ending = Ending::take(place).context("a process left no ending")?;
                    outcome.blows.extend(blow.filter(|blow| ending.tells_of(blow)));
                    outcome.note_points(number, ending.points);
                    match ending.state {
                        State::Paused { reason } => {
                            decision = outcome.decide(&reason);
                        }
                        State::Failed { why } => {
                            outcome.wrong.push(format!("the run failed: {why}"))
                        }
                        State::Finished(end) => {
                            if let Some(expected) = expected {
                                let told = Notices::of(&records);
                                let lines = &outcome.lines;
                                outcome
                                    .wrong
                                    .extend(judge::at_the_end(expected, &end, lines, &told));
                            }
                            outcome.end = Some(end);
                            return Ok(outcome);
                        }
                    }
                }
            }
            if !outcome.wrong.is_empty() {
                return Ok(outcome);
            }
        }
        outcome.wrong.push(format!("the run is not done after {MAX_PROCESSES} processes"));
        Ok(outcome)
    }
}

impl Outcome {
    fn note_points(&mut self, process: u32, points: BTreeMap<String, u64>) {
        if process == 0 {
            self.points_from_start = points;
        } else {
            self.points_from_resume.push((self.blows.len(), points));
        }
    }

    /// Decides as a person would who can look at the ledger: what happened is not done again.
    fn decide(&mut self, reason: &PauseReason) -> Option<Decided> {
        match reason {
            PauseReason::Decision { step, tool, why } => {
                // A patch that was carried out in part is named as such; anything else can be found out.
                if ![names::SEND, names::APPLY_PATCH].contains(&tool.as_str()) {
                    self.wrong.push(format!("what became of step {step} can be known: {why}"));
                }
                let in_part = tool == names::APPLY_PATCH;
                let (of, step) = (*step, step.to_string());
                let happened = in_part
                    || self.lines.iter().any(
                        |line| matches!(&line.deed, Deed::Effect { step: it, .. } if *it == step),
                    );
                self.ambiguous.push((self.blows.len(), tool.clone()));
                let decision = if happened { Decision::TellModel } else { Decision::RunAgain };
                Some((Some(of), decision))
            }
            PauseReason::Workspace { .. } => {
                self.ambiguous.push((self.blows.len(), WORKSPACE.to_owned()));
                Some((None, Decision::AcceptWorkspace))
            }
            other => {
                self.wrong.push(format!("the run waits for {other}"));
                None
            }
        }
    }
}

/// A decision, and the step that it is about.
pub type Decided = (Option<StepId>, Decision);

/// The run of every scenario.
#[must_use]
pub fn run() -> RunId {
    RunId::new("accounts")
}

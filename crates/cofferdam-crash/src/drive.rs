//! A process of a scenario: begins the run or goes on with it, until it is done, waits for somebody, or this process is killed.

mod run;
mod sandboxed;
mod workspace;

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use cofferdam::SystemClock;
use cofferdam_harness::{GivenDecision, ResumeRequest, RunRequest};
use cofferdam_journal::{Journal, Record, Seq, SqliteJournal};
use cofferdam_model::Model;
use cofferdam_tool::Tool;
use futures::TryStreamExt;

use self::run::Begin;
use crate::{
    crashing::{CrashingJournal, CrashingModel, CrashingTool},
    defect::Defect,
    ending::{Ending, State},
    faulty,
    ledger::Ledger,
    point::{Points, Strike},
    scenario, script,
    tools::{LedgerTool, names},
    world::World,
};

/// What this process is to do, from its command line.
#[derive(Debug)]
pub struct Drive {
    /// The scenario's directory.
    place: PathBuf,
    world: World,
    number: u32,
    strike: Option<Strike>,
    loss: Option<Strike>,
    decision: Option<GivenDecision>,
    defect: Option<Defect>,
}

/// What a process works with: everything that it shares with the world is behind points.
#[derive(Debug)]
struct Parts {
    points: Arc<Points>,
    ledger: Ledger,
    journal: Arc<dyn Journal>,
    model: Arc<dyn Model>,
    tools: Vec<CrashingTool>,
}

impl Drive {
    /// Reads a command line.
    ///
    /// # Errors
    ///
    /// If it is not `PLACE WORLD NUMBER [--strike POINT#TIME] [--lose POINT#TIME] [--decide JSON] [--defect NAME]`.
    pub fn parse(words: &[String]) -> Result<Self> {
        let [place, world, number, options @ ..] = words else { bail!("PLACE WORLD NUMBER") };
        let mut drive = Self {
            place: PathBuf::from(place),
            world: world.parse()?,
            number: number.parse()?,
            strike: None,
            loss: None,
            decision: None,
            defect: None,
        };
        for option in options.chunks(2) {
            match option {
                [name, value] if name == "--strike" => drive.strike = Some(value.parse()?),
                [name, value] if name == "--lose" => drive.loss = Some(value.parse()?),
                [name, value] if name == "--decide" => drive.decision = Some(decision(value)?),
                [name, value] if name == "--defect" => {
                    drive.defect = Some(Defect::from_str(value)?)
                }
                other => bail!("unknown option {other:?}"),
            }
        }
        Ok(drive)
    }

    /// Does it, and leaves an [`Ending`] if it gets so far.
    ///
    /// # Errors
    ///
    /// If the suite itself fails; a run that fails is an ending.
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let points =
                Points::new(self.strike.clone(), self.loss.clone(), Some(points(&self.place)));
            let parts = self.parts(Arc::clone(&points))?;
            let state = if self.world.has_sandbox() {
                sandboxed::drive(&self, &parts).await?
            } else {
                self.bare(&parts).await?
            };
            Ending { state, points: points.passed() }.write(&self.place)?;
            Ok(())
        })
    }

    /// A run without a sandbox, put together from the crates.
    async fn bare(&self, parts: &Parts) -> Result<State> {
        let request = RunRequest::new(script::AGENT, script::TASK);
        let begin = if is_new(&*parts.journal).await? {
            Begin::Run(request)
        } else {
            Begin::Resume(ResumeRequest::new(request), None)
        };
        run::go_on(self, parts, &run::harness(self, parts)?, begin).await
    }

    fn parts(&self, points: Arc<Points>) -> Result<Parts> {
        let ledger = Ledger::new(ledger(&self.place), self.number);
        let journal = faulty::journal(Arc::new(open_journal(&self.place)?), self.defect);
        let model: Arc<dyn Model> = Arc::new(script::model(self.world)?);
        let mut tools = Vec::new();
        for tool in LedgerTool::all(&ledger) {
            let lies = self.defect == Some(Defect::LyingTool) && tool.name() == names::SEND;
            let tool: Arc<dyn Tool> = Arc::new(if lies { tool.lying() } else { tool });
            let tool = faulty::tool(tool, self.defect, self.number);
            tools.push(CrashingTool::new(tool, Arc::clone(&points)));
        }
        Ok(Parts {
            journal: Arc::new(CrashingJournal::new(journal, Arc::clone(&points))),
            model: Arc::new(CrashingModel::new(model, Arc::clone(&points), ledger.clone())),
            tools,
            ledger,
            points,
        })
    }
}

/// Returns true if the run has not begun, as far as the journal knows.
async fn is_new(journal: &dyn Journal) -> Result<bool> {
    Ok(journal.read(&scenario::run(), Seq(1)).try_next().await?.is_none())
}

fn decision(json: &str) -> Result<GivenDecision> {
    let (step, decision) = serde_json::from_str(json).context("a decision")?;
    Ok(GivenDecision { step, decision, by: "the suite".to_owned(), reason: String::new() })
}

fn open_journal(place: &Path) -> Result<SqliteJournal> {
    Ok(SqliteJournal::open(place.join("journal"), Arc::new(SystemClock))?)
}

/// Returns the ledger of a scenario.
#[must_use]
pub fn ledger(place: &Path) -> PathBuf {
    place.join("ledger")
}

/// Returns where a process that dies at its strike tells what it passed.
#[must_use]
pub fn points(place: &Path) -> PathBuf {
    place.join("points")
}

/// Reads the journal as it is on disk.
///
/// # Errors
///
/// If it cannot be read, or a record does not fit.
pub fn records(place: &Path) -> Result<Vec<Record>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let journal = open_journal(place)?;
        Ok(journal.read(&scenario::run(), Seq(1)).try_collect().await?)
    })
}

/// Removes the sandboxes of a scenario that wait for a process that will not come, and returns how many there were.
///
/// # Errors
///
/// If they cannot be listed or removed.
pub fn sweep(place: &Path) -> Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(sandboxed::sweep(place))
}

/// Makes a sandbox as a run in this world would have, and closes it.
///
/// # Errors
///
/// Why it cannot be made.
pub fn try_sandbox(world: World) -> Result<()> {
    let place = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(sandboxed::try_sandbox(place.path(), world.linger()))
}

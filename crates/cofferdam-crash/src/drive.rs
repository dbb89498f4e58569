//! A process of a scenario: begins the run or goes on with it, until it is done, waits for somebody, or this process is killed.

mod bare;

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use cofferdam::SystemClock;
use cofferdam_harness::{GivenDecision, RunError, RunFailure, RunReport};
use cofferdam_journal::{Journal, Record, Seq, SqliteJournal};
use cofferdam_layers::{Approval, Approver, AuditEvent, AuditSink};
use cofferdam_model::Model;
use cofferdam_policy::{Rule, RulePolicy, Verdict};
use cofferdam_tool::{Tool, ToolRequest};
use futures::TryStreamExt;

use crate::{
    crashing::{CrashingJournal, CrashingModel, CrashingTool},
    defect::Defect,
    ending::{Ending, Final, State, comparable},
    faulty,
    ledger::{Deed, Ledger},
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
    tools: Vec<Arc<dyn Tool>>,
}

impl Drive {
    /// Reads a command line.
    ///
    /// # Errors
    ///
    /// If it is not `PLACE WORLD NUMBER [--strike POINT#TIME] [--decide JSON] [--defect NAME]`.
    pub fn parse(words: &[String]) -> Result<Self> {
        let [place, world, number, options @ ..] = words else { bail!("PLACE WORLD NUMBER") };
        let mut drive = Self {
            place: PathBuf::from(place),
            world: world.parse()?,
            number: number.parse()?,
            strike: None,
            decision: None,
            defect: None,
        };
        for option in options.chunks(2) {
            match option {
                [name, value] if name == "--strike" => drive.strike = Some(value.parse()?),
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
            let points = Points::new(self.strike.clone());
            let parts = self.parts(Arc::clone(&points))?;
            let state = bare::drive(&self, &parts).await?;
            Ending { state, points: points.passed() }.write(&self.place)?;
            Ok(())
        })
    }

    fn parts(&self, points: Arc<Points>) -> Result<Parts> {
        let ledger = Ledger::new(ledger(&self.place), self.number);
        let journal = faulty::journal(Arc::new(open_journal(&self.place)?), self.defect);
        let model: Arc<dyn Model> = Arc::new(script::model(self.world)?);
        let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
        for tool in LedgerTool::all(&ledger) {
            let lies = self.defect == Some(Defect::LyingTool) && tool.name() == names::SEND;
            let tool: Arc<dyn Tool> = Arc::new(if lies { tool.lying() } else { tool });
            let tool = faulty::tool(tool, self.defect, self.number);
            tools.push(Arc::new(CrashingTool::new(tool, Arc::clone(&points))));
        }
        Ok(Parts {
            journal: Arc::new(CrashingJournal::new(journal, Arc::clone(&points))),
            model: Arc::new(CrashingModel::new(model, Arc::clone(&points), ledger.clone())),
            tools,
            ledger,
            points,
        })
    }

    /// Returns true if the run has not begun, as far as the journal knows.
    async fn is_new(&self, journal: &dyn Journal) -> Result<bool> {
        let first = journal.read(&scenario::run(), Seq(1)).try_next().await?;
        Ok(first.is_none())
    }
}

fn decision(json: &str) -> Result<GivenDecision> {
    let (step, decision) = serde_json::from_str(json).context("a decision")?;
    Ok(GivenDecision { step, decision, by: "the suite".to_owned(), reason: String::new() })
}

/// Says how far a run is.
fn state(result: Result<RunReport, Box<RunFailure>>) -> State {
    match result {
        Ok(report) => State::Finished(Final {
            output: report.output,
            conversation: comparable(&report.items),
            ..Final::default()
        }),
        Err(failure) => match failure.error {
            RunError::Paused { reason } => State::Paused { reason },
            error => State::Failed { why: format!("{:#}", anyhow::Error::new(error)) },
        },
    }
}

fn open_journal(place: &Path) -> Result<SqliteJournal> {
    Ok(SqliteJournal::open(place.join("journal"), Arc::new(SystemClock))?)
}

/// Returns the ledger of a scenario.
#[must_use]
pub fn ledger(place: &Path) -> PathBuf {
    place.join("ledger")
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

/// What is allowed: everything, but a person is asked about transfers.
fn policy() -> RulePolicy {
    RulePolicy::new([Rule {
        tool: names::TRANSFER.to_owned(),
        writes: None,
        network: None,
        decision: Verdict::Ask,
        reason: "a transfer is for a person to approve".to_owned(),
    }])
}

/// A person who approves, and whom the ledger counts the questions of.
#[derive(Debug)]
struct Person {
    ledger: Ledger,
}

#[async_trait]
impl Approver for Person {
    async fn approve(&self, request: &ToolRequest, _: &[String]) -> Approval {
        let step = request.context.step.to_string();
        match self.ledger.write(Deed::Approval { step }) {
            Ok(()) => Approval::Approved,
            Err(error) => Approval::Refused { reason: error.to_string() },
        }
    }
}

/// Nobody reads the audit trail of the suite.
#[derive(Debug)]
struct NoAudit;

impl AuditSink for NoAudit {
    fn record(&self, _: AuditEvent) {}
}

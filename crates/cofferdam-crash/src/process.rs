//! [`Process`]: one process of a scenario, which lives until it is done or is killed.

use std::{
    fmt, fs, io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open},
};

use crate::{defect::Defect, point::Strike, scenario::Decided, world::World};

/// How long a process may take before it counts as one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of what a process complained that are shown.
const MAX_COMPLAINT: usize = 2000;

/// What kills a process, or its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blow {
    /// Itself, at a point.
    Strike(Strike),
    /// Nothing: its sandbox is ended, at a point of a call on it.
    Loss(Strike),
    /// The suite, after a time.
    Time(Duration),
}

/// What a process is to do.
#[derive(Debug)]
pub struct Process<'a> {
    /// The program of this suite.
    pub program: &'a Path,
    /// The scenario's directory.
    pub place: &'a Path,
    /// What the run works in.
    pub world: World,
    /// Its number in the scenario, from 0.
    pub number: u32,
    /// What kills it, if anything does.
    pub blow: Option<&'a Blow>,
    /// What is to be decided on a run that waits for it.
    pub decision: Option<&'a Decided>,
    /// What is broken on purpose.
    pub defect: Option<Defect>,
}

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, having written its ending.
    Done,
    /// It was killed by what was to kill it.
    Killed,
    /// Otherwise: how, and what it complained.
    Broken(String),
}

impl Process<'_> {
    /// Runs the process to its end.
    ///
    /// # Errors
    ///
    /// If it cannot be started or watched.
    pub fn run(&self) -> Result<End> {
        let complaints = self.place.join("complaints");
        let mut child = self.command(&complaints)?.spawn().context("could not start a process")?;
        let killed_at = match self.blow {
            Some(Blow::Time(time)) => Some(*time),
            _ => None,
        };
        let in_time = ends_within(&child, killed_at.unwrap_or(PATIENCE))?;
        if !in_time {
            child.kill()?;
        }
        let status = child.wait()?;
        let was_killed = status.signal() == Some(Signal::KILL.as_raw());
        Ok(match self.blow {
            _ if status.success() => End::Done,
            Some(Blow::Time(_)) if was_killed => End::Killed,
            Some(Blow::Strike(_)) if was_killed && in_time => End::Killed,
            _ if !in_time => {
                End::Broken(format!("it hung for {PATIENCE:?}; {}", said(&complaints)))
            }
            _ => End::Broken(format!("it ended with {status}; {}", said(&complaints))),
        })
    }

    #[expect(clippy::disallowed_methods, reason = "the suite starts the processes that it kills")]
    fn command(&self, complaints: &Path) -> io::Result<Command> {
        let mut command = Command::new(self.program);
        command.arg("drive").arg(self.place).arg(self.world.to_string());
        command.arg(self.number.to_string());
        match self.blow {
            Some(Blow::Strike(strike)) => {
                command.args(["--strike", &strike.to_string()]);
            }
            Some(Blow::Loss(strike)) => {
                command.args(["--lose", &strike.to_string()]);
            }
            Some(Blow::Time(_)) | None => {}
        }
        if let Some(decision) = self.decision {
            command.args(["--decide", &serde_json::to_string(decision)?]);
        }
        if let Some(defect) = self.defect {
            command.args(["--defect", &defect.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(complaints)?);
        Ok(command)
    }
}

/// Waits for the end of a process, at most for a time; leaves it to be reaped.
fn ends_within(child: &Child, time: Duration) -> Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
    let watched = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec::try_from(time)?;
    let mut ready = [PollFd::new(&watched, PollFlags::IN)];
    Ok(poll(&mut ready, Some(&timeout))? > 0)
}

fn said(complaints: &PathBuf) -> String {
    let text = fs::read(complaints).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(MAX_COMPLAINT)..]);
    let text = text.trim();
    if text.is_empty() { "it said nothing".to_owned() } else { format!("it said: {text}") }
}

impl Blow {
    /// Returns the name under which such blows are counted.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Strike(strike) => strike.point.clone(),
            Self::Loss(strike) => format!("{}, the sandbox alone", strike.point),
            Self::Time(_) => "at a random time".to_owned(),
        }
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strike(strike) => strike.fmt(f),
            Self::Loss(strike) => write!(f, "lose:{strike}"),
            Self::Time(time) => write!(f, "{}us", time.as_micros()),
        }
    }
}

impl FromStr for Blow {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(point) = text.strip_prefix("lose:") {
            return point.parse().map(Self::Loss);
        }
        match text.strip_suffix("us").and_then(|text| text.parse().ok()) {
            Some(micros) => Ok(Self::Time(Duration::from_micros(micros))),
            None => text.parse().map(Self::Strike),
        }
    }
}

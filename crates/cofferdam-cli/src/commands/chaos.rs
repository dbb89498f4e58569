//! `cofferdam run --chaos`: the run is played by another process, which is killed at random, as is its sandbox; each time it is
//! resumed, until it ends by itself.
//!
//! This process only looks at the journal, so it strikes between and within steps alike. Which blow falls when comes from a
//! seed, which is told; what a run does between two looks is the machine's.

use std::{
    io::Write as _,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use cofferdam::{
    SystemClock, SystemEntropy,
    core::{Entropy as _, RunId},
    journal::Journal,
    sandbox::SandboxBackend,
};
use tokio::process::{Child, Command};

use super::runs;
use crate::{
    arguments::RunArguments,
    exit::{Exit, Failure},
    state::State,
};

/// How often the journal is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A blow falls within so many records after the last one, and up to so many milliseconds later.
const RECORDS: u64 = 10;
const DELAY_MS: u64 = 150;

/// Processes that are started at most: those that are killed, and as many again that may end by themselves.
const STARTS_PER_BLOW: u32 = 2;

/// What is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Harness,
    Sandbox,
}

/// Plays a run under blows; ends as the run does.
pub(crate) async fn run(arguments: RunArguments) -> Result<Exit, Failure> {
    let seed = match arguments.chaos.flatten() {
        Some(seed) => seed,
        None => SystemEntropy.next_u64() % 1_000_000,
    };
    let state = State::open(&arguments.state)?;
    let run = RunId::generate(cofferdam::core::Clock::now(&SystemClock), &SystemEntropy);
    let mut storm = Storm {
        journal: Arc::clone(state.journal()),
        backend: arguments.place.backend()?,
        run,
        random: SplitMix(seed),
        left: arguments.chaos_blows,
        struck: Vec::new(),
    };
    storm.tell(&format!("chaos with seed {seed}: {} blows", storm.left));
    let mut child = storm.start()?;
    let starts = arguments.chaos_blows * STARTS_PER_BLOW + 1;
    for _ in 0..starts {
        let status = storm.strike_until_it_ends(&mut child).await?;
        match status {
            Some(status) => {
                storm.summarise();
                return Ok(exit(status));
            }
            None => child = storm.resume()?,
        }
    }
    Err(Failure::new(Exit::Failed, anyhow::anyhow!("the run did not end in {starts} processes")))
}

/// One run under blows.
struct Storm {
    journal: Arc<dyn Journal>,
    backend: Arc<dyn SandboxBackend>,
    run: RunId,
    random: SplitMix,
    left: u32,
    struck: Vec<(Blow, u64)>,
}

impl Storm {
    /// Starts the run in a process of its own, as this one was started.
    fn start(&self) -> Result<Child, Failure> {
        let words = std::env::args_os().skip(1).filter(|word| {
            // The value of the flag is written with `=`, so it goes with it.
            !word.to_str().is_some_and(|word| word.starts_with("--chaos"))
        });
        let mut command = this_program()?;
        command.args(words).arg("--run-id").arg(self.run.as_str());
        spawn(&mut command)
    }

    fn resume(&self) -> Result<Child, Failure> {
        let mut command = this_program()?;
        command.arg("resume").arg(self.run.as_str());
        if let Some(words) = state_words() {
            command.args(words);
        }
        spawn(&mut command)
    }

    /// Returns how the process ended, or `None` if it was killed here.
    async fn strike_until_it_ends(
        &mut self,
        child: &mut Child,
    ) -> Result<Option<ExitStatus>, Failure> {
        while self.left > 0 {
            let blow = if self.random.below(2) == 0 { Blow::Harness } else { Blow::Sandbox };
            let target = self.records().await?.max(1) + 1 + self.random.below(RECORDS);
            let delay = Duration::from_millis(self.random.below(DELAY_MS));
            loop {
                if let Some(status) = child.try_wait().context("cannot wait for the run")? {
                    return Ok(Some(status));
                }
                if self.records().await? >= target {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
            tokio::time::sleep(delay).await;
            if let Some(status) = child.try_wait().context("cannot wait for the run")? {
                return Ok(Some(status));
            }
            match blow {
                Blow::Harness => {
                    child.kill().await.context("cannot kill the run")?;
                    self.note(blow).await?;
                    return Ok(None);
                }
                Blow::Sandbox => {
                    if self.end_sandbox().await? {
                        self.note(blow).await?;
                    }
                }
            }
        }
        Ok(Some(child.wait().await.context("cannot wait for the run")?))
    }

    async fn note(&mut self, blow: Blow) -> Result<(), Failure> {
        self.left -= 1;
        let at = self.records().await?;
        self.struck.push((blow, at));
        let what = match blow {
            Blow::Harness => "harness",
            Blow::Sandbox => "sandbox",
        };
        self.tell(&format!("chaos: killed the {what} at record {at}"));
        Ok(())
    }

    /// Ends the sandboxes of the run from outside, as a host does that runs out of memory.
    async fn end_sandbox(&self) -> Result<bool, Failure> {
        let listed =
            self.backend.list().await.map_err(|error| Failure::new(Exit::Failed, error))?;
        let mut ended = false;
        for sandbox in listed {
            if sandbox.labels.get("run").map(String::as_str) == Some(self.run.as_str()) {
                // One that ends by itself in this moment is as good as ended.
                ended |= self.backend.remove(&sandbox.id).await.is_ok();
            }
        }
        Ok(ended)
    }

    async fn records(&self) -> Result<u64, Failure> {
        match runs::find(&self.journal, &self.run).await {
            Ok(found) => Ok(found.records.0),
            // It has not begun yet.
            Err(failure) if failure.exit == Exit::Usage => Ok(0),
            Err(failure) => Err(failure),
        }
    }

    fn summarise(&self) {
        let count = |wanted| self.struck.iter().filter(|(blow, _)| *blow == wanted).count();
        self.tell(&format!(
            "chaos: the harness was killed {} times, the sandbox {} times",
            count(Blow::Harness),
            count(Blow::Sandbox)
        ));
    }

    fn tell(&self, line: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

/// The words of this process that say where runs are recorded, for a process that resumes.
fn state_words() -> Option<Vec<std::ffi::OsString>> {
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        if word == "--state" {
            return words.next().map(|value| vec![word, value]);
        }
        if word.to_str().is_some_and(|word| word.starts_with("--state=")) {
            return Some(vec![word]);
        }
    }
    None
}

#[expect(
    clippy::disallowed_methods,
    reason = "the process that is going to be killed must be another one"
)]
fn this_program() -> Result<Command, Failure> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    Ok(Command::from(std::process::Command::new(program)))
}

fn spawn(command: &mut Command) -> Result<Child, Failure> {
    let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn();
    Ok(child.context("cannot start the run in a process of its own")?)
}

fn exit(status: ExitStatus) -> Exit {
    match status.code() {
        Some(0) => Exit::Done,
        Some(code) => Exit::Code(u8::try_from(code).unwrap_or(1)),
        None => Exit::Failed,
    }
}

/// The generator of Steele, Lea and Flood: what a seed gives is the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_blows() {
        let take = |seed| {
            let mut random = SplitMix(seed);
            [random.below(100), random.below(100), random.below(100)]
        };
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
    }
}

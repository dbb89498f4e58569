//! [`Points`]: the named places at which a process may be made to die, and [`Strike`]: the one at which it does.
//!
//! A point is named by the seam, the call, and whether the call is about to be made or has been: `journal.append.model_responded.after`.
//! Nothing in the product knows of points: the decorators of [`crate::crashing`] pass them.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use cofferdam_sandbox::Sandbox;

/// Counts the points that a process passes, and ends it at one of them.
#[derive(Debug, Default)]
pub struct Points {
    passed: Mutex<BTreeMap<String, u64>>,
    strike: Option<Strike>,
    loss: Option<Strike>,
    /// Where what was passed is told at the strike.
    report: Option<PathBuf>,
}

/// The n-th time that a process passes a point, written `journal.append.model_responded.after#2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike {
    /// The point.
    pub point: String,
    /// Which time, from 1.
    pub time: u64,
}

impl Points {
    /// Makes the points of a process that dies at `strike` and whose sandbox dies at `loss`, if it gets there.
    ///
    /// A process that dies at its strike leaves what it passed in `report`, as [`Points::told`] reads it.
    #[must_use]
    pub fn new(strike: Option<Strike>, loss: Option<Strike>, report: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self { passed: Mutex::default(), strike, loss, report })
    }

    /// Returns what a process passed that died at its strike; nothing if it died otherwise. It is told once.
    #[must_use]
    pub fn told(report: &Path) -> BTreeMap<String, u64> {
        let told = fs::read(report).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let _ = fs::remove_file(report);
        told.unwrap_or_default()
    }

    /// Passes a point, or ends the process there: by `SIGKILL`, so that nothing of it runs on, no destructor either.
    pub fn pass(&self, point: &str) {
        self.count(point);
    }

    fn count(&self, point: &str) -> u64 {
        let time = {
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            let times = passed.entry(point.to_owned()).or_default();
            *times += 1;
            *times
        };
        if self.strike.as_ref().is_some_and(|it| it.is(point, time)) {
            if let Some(report) = &self.report {
                // Without it less is known of what may be struck, and nothing is wrong.
                let _ = fs::write(report, serde_json::to_vec(&self.passed()).unwrap_or_default());
            }
            die();
        }
        time
    }

    /// As [`Points::pass`], of a call on a sandbox, which may be ended there instead of the process.
    pub async fn pass_in(&self, sandbox: &dyn Sandbox, point: &str) {
        let time = self.count(point);
        if self.loss.as_ref().is_some_and(|it| it.is(point, time)) {
            // That it cannot be closed shows in what follows.
            let _ = sandbox.close().await;
        }
    }

    /// As [`Points::around`], of a call on a sandbox, which may be ended there instead of the process.
    pub async fn around_in<T>(
        &self,
        sandbox: &dyn Sandbox,
        call: &str,
        act: impl Future<Output = T>,
    ) -> T {
        self.pass_in(sandbox, &format!("{call}.before")).await;
        let result = act.await;
        self.pass_in(sandbox, &format!("{call}.after")).await;
        result
    }

    /// Passes the point before a call, awaits the call, and passes the point after it.
    pub async fn around<T>(&self, call: &str, act: impl Future<Output = T>) -> T {
        self.pass(&format!("{call}.before"));
        let result = act.await;
        self.pass(&format!("{call}.after"));
        result
    }

    /// Returns how often each point was passed.
    #[must_use]
    pub fn passed(&self) -> BTreeMap<String, u64> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn die() -> ! {
    // A process may always send itself a signal, and this one cannot be held back.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}

impl Strike {
    fn is(&self, point: &str, time: u64) -> bool {
        self.point == point && self.time == time
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.point, self.time)
    }
}

impl FromStr for Strike {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (point, time) =
            text.rsplit_once('#').with_context(|| format!("{text:?} is not POINT#TIME"))?;
        let time = time.parse().with_context(|| format!("{time:?} is no number"))?;
        anyhow::ensure!(time > 0, "the first time is 1");
        Ok(Self { point: point.to_owned(), time })
    }
}

#[cfg(test)]
mod tests {
    use super::{Points, Strike};

    #[test]
    fn strikes_are_read_as_they_are_written() {
        let check = |text: &str, expect: &str| {
            let got = text.parse::<Strike>();
            assert_eq!(
                got.map_or_else(|error| error.to_string(), |strike| strike.to_string()),
                expect
            );
        };
        check("model.ask.before#3", "model.ask.before#3");
        check("model.ask.before", "\"model.ask.before\" is not POINT#TIME");
        check("model.ask.before#x", "\"x\" is no number");
        check("model.ask.before#0", "the first time is 1");
    }

    #[test]
    fn points_are_counted_by_name() {
        let points = Points::new(Some(Strike { point: "a".into(), time: 9 }), None, None);
        points.pass("a");
        points.pass("b");
        points.pass("a");
        let passed: Vec<_> = points.passed().into_iter().collect();
        assert_eq!(passed, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    }
}

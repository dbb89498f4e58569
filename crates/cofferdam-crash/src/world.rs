//! [`World`]: what a run works in, and what is left of that when its process dies.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::bail;
use serde::{Deserialize, Serialize};

use crate::drive;

/// What a run works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum World {
    /// No sandbox: tools that reach outside, and the journal.
    Bare,
    /// A Linux sandbox that ends with the process; its workspace comes back from the last snapshot.
    Sealed,
    /// A Linux sandbox that outlives the process, and is found again.
    Lingering,
}

impl World {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bare, Self::Sealed, Self::Lingering];

    /// Returns true if there is a sandbox.
    #[must_use]
    pub fn has_sandbox(self) -> bool {
        self != Self::Bare
    }

    /// Returns why runs cannot work in it here, if they cannot. Tries it.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        if !self.has_sandbox() {
            return None;
        }
        drive::try_sandbox(self)
            .err()
            .map(|error| format!("no sandbox can be made here: {error:#}"))
    }

    /// Returns how long its sandboxes outlive their process.
    #[must_use]
    pub fn linger(self) -> Duration {
        match self {
            Self::Lingering => LINGER,
            Self::Bare | Self::Sealed => Duration::ZERO,
        }
    }
}

/// How long a lingering sandbox waits for the next process: longer than that takes to start on a loaded machine, and no longer,
/// since one that is never found again stays for so long.
const LINGER: Duration = Duration::from_secs(20);

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare",
            Self::Sealed => "sealed",
            Self::Lingering => "lingering",
        })
    }
}

impl FromStr for World {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some(world) = Self::ALL.into_iter().find(|world| world.to_string() == text) else {
            bail!("no world {text:?}; there are bare, sealed and lingering");
        };
        Ok(world)
    }
}

//! Attacks through the interface of a sandbox: what a command can prepare for a harness that reads and writes its files, and
//! what it can leave behind.
//!
//! Each has a control: the same done on the host as a careless harness would, in a directory of its own.
//!
//! - `files`: links, races, special files, odd names, what an uploaded tree may do.
//! - `lifetime`: what lives on, what is killed, what floods.
//! - `roots`: root file systems that lead their launcher astray.
//! - `bases`: directories that workspaces begin with and share.

mod bases;
mod files;
mod lifetime;
mod naive;
mod roots;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use cofferdam_sandbox::{Sandbox, SandboxBackend};
use futures::future::BoxFuture;

use crate::{
    report::{Answer, Attack, Outcome},
    worker,
};

/// What one attack may take.
const TIMEOUT: Duration = Duration::from_secs(90);

/// What an attack found.
pub(crate) type Found = (Outcome, String);

/// One attack.
pub(crate) struct Entry {
    id: &'static str,
    name: &'static str,
    run: for<'a> fn(&'a Trial) -> BoxFuture<'a, Result<Found>>,
    control: fn(&Targets) -> Result<Found>,
}

/// Writes the table of a group.
macro_rules! attack_table {
    ($($function:ident $id:literal $name:literal, $control:path;)+) => {
        pub(super) const ENTRIES: &[crate::harness::Entry] = &[$(crate::harness::Entry {
            id: $id,
            name: $name,
            run: |trial| Box::pin($function(trial)),
            control: $control,
        }),+];
    };
}
use attack_table;

/// What an attack is made on.
pub(crate) struct Trial {
    backend: Arc<dyn SandboxBackend>,
    /// The words by which a worker makes the backend again.
    words: String,
    targets: Targets,
    text: String,
}

impl Trial {
    /// Makes a sandbox with the probe program in it.
    async fn sandbox(&self) -> Result<Arc<dyn Sandbox>> {
        worker::prepared(&*self.backend, &worker::spec(), &self.text).await
    }

    /// Runs the program in a sandbox to its end; its output.
    async fn run(&self, sandbox: &dyn Sandbox, words: &[&str]) -> Result<String> {
        use cofferdam_sandbox::SandboxExt as _;
        let output = sandbox.run(worker::program(words), 64 << 10).await?;
        let (said, complained) = (output.stdout.to_text(), output.stderr.to_text());
        let status = output.status.context("it did not end")?;
        anyhow::ensure!(status.success(), "{words:?} ended with {status}: {complained}");
        Ok(said.into_owned())
    }
}

/// What the host prepared.
pub(crate) struct Targets {
    token: String,
    outside: PathBuf,
    /// How long races are run. Default 10 s.
    race: Duration,
}

impl Targets {
    fn read(text: &str) -> Self {
        let get = |name: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        Self {
            token: get("token").unwrap_or_default(),
            outside: get("outside").unwrap_or_default().into(),
            race: Duration::from_secs(get("race").and_then(|it| it.parse().ok()).unwrap_or(10)),
        }
    }

    /// Whether bytes are the host's secret file.
    fn is_canary(&self, bytes: &[u8]) -> bool {
        String::from_utf8_lossy(bytes).contains(&format!("file-{}", self.token))
    }

    /// Takes away what was made outside under a name; whether it was there.
    fn take(&self, name: &str) -> bool {
        let path = self.outside.join(name);
        std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path)).is_ok()
    }

    /// The canary, with its directory written as a path without the first slash.
    fn canary(&self) -> PathBuf {
        self.outside.join("canary")
    }
}

fn open(seen: impl Into<String>) -> Result<Found> {
    Ok((Outcome::Open, seen.into()))
}

fn denied(seen: impl Into<String>) -> Result<Found> {
    Ok((Outcome::Denied, seen.into()))
}

fn text_of(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    [files::ENTRIES, lifetime::ENTRIES, roots::ENTRIES, bases::ENTRIES].into_iter().flatten()
}

/// Returns the attack of a name.
pub(crate) fn find(id: &str) -> Option<&'static Entry> {
    entries().find(|entry| entry.id == id)
}

/// Returns the attacks for the table.
pub fn attacks() -> impl Iterator<Item = Attack> {
    entries().map(|entry| Attack {
        id: entry.id.to_owned(),
        group: "through the interface".to_owned(),
        name: entry.name.to_owned(),
    })
}

/// Returns what cannot be attacked yet, because the part of the project is not built.
#[must_use]
pub fn not_built() -> Vec<Attack> {
    const NAMES: &[&str] = &[
        "secrets as placeholders: sent to a host that is not allowed, in a query, a compressed body, under another Host \
         header or server name, through an own relay, in HTTP/2",
        "redirects and name answers that lead to metadata or private addresses",
        "names as a tunnel (DNS)",
        "the egress proxy's socket replaced from inside",
        "in a checkpoint: a special or sparse file, a changed file with its old time, a set-id bit, a damaged chunk",
    ];
    let attack = |name: &&str| Attack {
        id: String::new(),
        group: "not built".to_owned(),
        name: (*name).to_owned(),
    };
    NAMES.iter().map(attack).collect()
}

fn answer(id: &str, found: Result<Found>) -> Answer {
    match found {
        Ok((outcome, evidence)) => Answer::new(id, outcome, evidence),
        Err(error) => Answer::new(id, Outcome::Broken, format!("{error:#}")),
    }
}

fn trial(backend: Arc<dyn SandboxBackend>, words: &str, targets: &str) -> Trial {
    let (words, text) = (words.to_owned(), targets.to_owned());
    Trial { backend, words, targets: Targets::read(targets), text }
}

/// Makes a sandbox in which a process lingers under `word`, prints `ready`, and waits to be killed.
///
/// # Errors
///
/// If it cannot be made.
pub async fn hold(words: &str, targets: &str, word: &str) -> Result<()> {
    lifetime::hold(&trial(worker::backend(words)?, words, targets), word).await
}

/// Makes an attack on a backend.
pub(crate) async fn attack(
    backend: &Arc<dyn SandboxBackend>,
    words: &str,
    targets: &str,
    id: &str,
) -> Answer {
    let Some(entry) = find(id) else { return answer(id, Err(anyhow::anyhow!("no such attack"))) };
    let trial = trial(Arc::clone(backend), words, targets);
    let found = tokio::time::timeout(TIMEOUT, (entry.run)(&trial)).await;
    answer(id, found.unwrap_or_else(|_| Err(anyhow::anyhow!("not within {TIMEOUT:?}"))))
}

/// Does what a careless harness would, without a sandbox.
#[must_use]
pub fn control(id: &str, targets: &str) -> Answer {
    let found = match find(id) {
        Some(entry) => (entry.control)(&Targets::read(targets)),
        None => Err(anyhow::anyhow!("no such attack")),
    };
    answer(id, found)
}

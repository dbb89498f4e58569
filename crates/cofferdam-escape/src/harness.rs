//! Attacks through the interface of a sandbox: what a harness does with files and trees that a command has prepared.
//!
//! Each has a control: the same done by the host itself, as a careless harness would, on a directory of its own.

use std::sync::Arc;

use cofferdam_sandbox::SandboxBackend;
use futures::future::BoxFuture;

use crate::report::{Answer, Attack, Outcome};

/// What an attack found.
pub(crate) type Found = (Outcome, String);

/// One attack.
pub(crate) struct Entry {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) run: for<'a> fn(&'a Trial) -> BoxFuture<'a, anyhow::Result<Found>>,
    pub(crate) control: fn(&Targets) -> anyhow::Result<Found>,
}

/// What an attack is made on.
pub(crate) struct Trial {
    pub(crate) backend: Arc<dyn SandboxBackend>,
    pub(crate) targets: Targets,
    pub(crate) text: String,
}

/// What the host prepared.
pub(crate) struct Targets {
    pub(crate) token: String,
    pub(crate) outside: std::path::PathBuf,
}

impl Targets {
    fn read(text: &str) -> Self {
        let get = |name: &str| {
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
        };
        Self {
            token: get("token").unwrap_or_default(),
            outside: get("outside").unwrap_or_default().into(),
        }
    }
}

const ENTRIES: &[&[Entry]] = &[];

fn entries() -> impl Iterator<Item = &'static Entry> {
    ENTRIES.iter().copied().flatten()
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

fn answer(id: &str, found: anyhow::Result<Found>) -> Answer {
    match found {
        Ok((outcome, evidence)) => Answer::new(id, outcome, evidence),
        Err(error) => Answer::new(id, Outcome::Broken, format!("{error:#}")),
    }
}

/// Makes an attack on a backend.
pub async fn attack(backend: &Arc<dyn SandboxBackend>, targets: &str, id: &str) -> Answer {
    let Some(entry) = find(id) else { return answer(id, Err(anyhow::anyhow!("no such attack"))) };
    let trial = Trial {
        backend: Arc::clone(backend),
        targets: Targets::read(targets),
        text: targets.to_owned(),
    };
    answer(id, (entry.run)(&trial).await)
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

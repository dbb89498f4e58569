//! What an agent is, as hashes by name: so that a run is not gone on with by another.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_journal::content_hash;
use cofferdam_tool::ToolSet;
use serde::Serialize;

use crate::{Difference, RunRequest, state::Begun};

/// Longer texts are not recorded beside their hash: 4 KiB.
const MAX_TEXT_BYTES: usize = 4 << 10;

/// The parts of a set-up, as hashes and, where they are short, as texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) hashes: BTreeMap<String, String>,
    pub(crate) texts: BTreeMap<String, String>,
}

impl Setup {
    pub(crate) fn of(request: &RunRequest, model: &str, tools: &ToolSet) -> Self {
        let mut setup = Self::default();
        for (name, text) in &request.setup {
            setup.add(name.clone(), text.clone());
        }
        setup.add("agent".into(), request.agent.clone());
        setup.add("model".into(), model.to_owned());
        setup.add("instructions".into(), request.instructions.as_deref().unwrap_or("").to_owned());
        setup.add("settings".into(), json(&*request.settings));
        for spec in tools.specs().iter() {
            setup.add(format!("tool:{}", spec.name), json(spec));
        }
        setup
    }

    fn add(&mut self, name: String, text: String) {
        self.hashes.insert(name.clone(), content_hash(text.as_bytes()));
        if text.len() <= MAX_TEXT_BYTES {
            self.texts.insert(name, text);
        }
    }

    /// Says in what this set-up is not the one that a run began with.
    pub(crate) fn differences(&self, begun: &Begun) -> Vec<Difference> {
        let names: BTreeSet<&String> =
            self.hashes.keys().chain(begun.fingerprints.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.hashes.get(*name) != begun.fingerprints.get(*name))
            .map(|name| Difference {
                name: name.clone(),
                old: begun.fingerprints.get(name).cloned(),
                new: self.hashes.get(name).cloned(),
                old_text: begun.texts.get(name).cloned(),
                new_text: self.texts.get(name).cloned(),
            })
            .collect()
    }
}

/// Specifications and settings are made of strings, numbers and JSON values, none of which can fail to serialise.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

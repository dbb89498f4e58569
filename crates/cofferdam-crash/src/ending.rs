//! [`Ending`]: what a process that was not killed says of the run before it ends.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use cofferdam_core::{Content, Item};
use cofferdam_journal::PauseReason;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::process::Blow;

/// What a process wrote at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// How far the run is.
    pub state: State,
    /// How often the process passed each point.
    pub points: BTreeMap<String, u64>,
}

/// How far a run is at the end of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The model is done.
    Finished(Final),
    /// The run waits for somebody, and no process is held by it.
    Paused {
        /// What it waits for.
        reason: PauseReason,
    },
    /// The run ended early.
    Failed {
        /// Why, with all causes.
        why: String,
    },
}

/// What a finished run leaves: the same, however often its processes died.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Final {
    /// The model's last words.
    pub output: String,
    /// The conversation, without what differs between two runs that nobody disturbed.
    pub conversation: Vec<Value>,
    /// The workspace: what is at each path, with mode and content.
    pub workspace: BTreeMap<String, String>,
}

impl Ending {
    /// Returns true if the process got to the point at which its sandbox was to be ended.
    #[must_use]
    pub fn tells_of(&self, blow: &Blow) -> bool {
        let Blow::Loss(loss) = blow else { return false };
        self.points.get(&loss.point).is_some_and(|times| *times >= loss.time)
    }

    const FILE: &str = "ending.json";

    /// Leaves the ending in the scenario's directory.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, place: &Path) -> io::Result<()> {
        // Whoever reads waits for the end of the process, so no half-written file is seen.
        fs::write(place.join(Self::FILE), serde_json::to_vec(self)?)
    }

    /// Takes the ending out of the scenario's directory.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn take(place: &Path) -> io::Result<Self> {
        let file = place.join(Self::FILE);
        let ending = serde_json::from_slice(&fs::read(&file)?)?;
        fs::remove_file(file)?;
        Ok(ending)
    }
}

/// Lines of a command's response that name an id or a time.
const OF_THE_MOMENT: [&str; 2] = ["Chunk ID: ", "Wall time: "];

/// Facts of a command's response that are an id or a time.
const FACTS_OF_THE_MOMENT: [&str; 2] = ["chunk_id", "wall_time_seconds"];

/// Returns a conversation without ids and times.
#[must_use]
pub fn comparable(items: &[Arc<Item>]) -> Vec<Value> {
    let comparable = |item: &Arc<Item>| {
        let mut item = Item::clone(item);
        if let Item::ToolResult(result) = &mut item {
            for content in &mut result.output.content {
                if let Content::Text { text } = content {
                    let lasting =
                        |line: &&str| !OF_THE_MOMENT.iter().any(|it| line.starts_with(it));
                    *text = text.lines().filter(lasting).collect::<Vec<_>>().join("\n");
                }
            }
            if let Value::Object(facts) = &mut result.output.structured {
                facts.retain(|name, _| !FACTS_OF_THE_MOMENT.contains(&name.as_str()));
            }
        }
        serde_json::to_value(item).unwrap_or_default()
    };
    items.iter().map(comparable).collect()
}

//! [`MockScript`]: what the mock server answers, turn by turn.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::Fault;

/// The script that is played where no name is in the path.
pub(super) const DEFAULT: &str = "default";

/// The scripts of a server by name.
#[derive(Debug, Clone)]
pub struct MockScript {
    scripts: BTreeMap<String, Vec<MockTurn>>,
    pub(super) delta_chars: usize,
    pub(super) delay: Duration,
}

/// One answer of the model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MockTurn {
    /// What it consists of, in order.
    pub items: Vec<MockItem>,
    /// What goes wrong: the first requests for this turn take one each, the next is answered well.
    pub faults: Vec<Fault>,
}

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum MockItem {
    /// The model speaks.
    Message {
        /// What it says.
        text: String,
    },
    /// The model calls a function.
    FunctionCall {
        /// The function.
        name: String,
        /// Its arguments; a string is sent as it is, so that they can be malformed.
        #[serde(default)]
        arguments: Value,
    },
    /// The model calls a custom tool.
    CustomToolCall {
        /// The tool.
        name: String,
        /// Its input.
        input: String,
    },
    /// The model calls the built-in shell.
    ShellCall {
        /// The commands.
        commands: Vec<String>,
    },
    /// The model calls the built-in patch tool.
    ApplyPatchCall {
        /// The operation, such as `{"type": "delete_file", "path": "a"}`.
        operation: Value,
    },
    /// The model has reasoned.
    Reasoning {
        /// What a client sees of it.
        encrypted_content: String,
    },
    /// Anything else, sent as it is.
    Raw {
        /// The item of the Responses API.
        item: Value,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ScriptFile {
    One(Vec<TurnFile>),
    Many(BTreeMap<String, Vec<TurnFile>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TurnFile {
    Plain(Vec<MockItem>),
    Full(FullTurn),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullTurn {
    items: Vec<MockItem>,
    #[serde(default)]
    faults: Vec<Fault>,
    #[serde(default = "one")]
    repeat: usize,
}

fn one() -> usize {
    1
}

impl MockScript {
    /// Makes a script of these turns.
    pub fn new(turns: impl IntoIterator<Item = MockTurn>) -> Self {
        Self::default().named(DEFAULT, turns)
    }

    /// Adds a script, served below its name.
    #[must_use]
    pub fn named(mut self, name: &str, turns: impl IntoIterator<Item = MockTurn>) -> Self {
        self.scripts.insert(name.to_owned(), turns.into_iter().collect());
        self
    }

    /// Streams text in pieces of this many characters; default: 16.
    #[must_use]
    pub fn delta_chars(mut self, chars: usize) -> Self {
        self.delta_chars = chars.max(1);
        self
    }

    /// Thinks this long before each answer.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Reads a script: a list of turns, or an object of such lists by name. A turn is a list of [`MockItem`]s, or an object
    /// with `items`, `repeat` (how many turns it stands for) and `faults`.
    ///
    /// # Errors
    ///
    /// If the text is not a script.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        let scripts = match serde_json::from_str(json)? {
            ScriptFile::One(turns) => BTreeMap::from([(DEFAULT.to_owned(), turns)]),
            ScriptFile::Many(scripts) => scripts,
        };
        Ok(scripts.into_iter().fold(Self::default(), |script, (name, turns)| {
            script.named(&name, turns.into_iter().flat_map(TurnFile::expand))
        }))
    }

    pub(super) fn turns(&self, script: &str) -> Option<&[MockTurn]> {
        self.scripts.get(script).map(Vec::as_slice)
    }
}

impl Default for MockScript {
    fn default() -> Self {
        Self { scripts: BTreeMap::new(), delta_chars: 16, delay: Duration::ZERO }
    }
}

impl TurnFile {
    fn expand(self) -> impl Iterator<Item = MockTurn> {
        let (items, faults, repeat) = match self {
            Self::Plain(items) => (items, Vec::new(), 1),
            Self::Full(turn) => (turn.items, turn.faults, turn.repeat),
        };
        std::iter::repeat_n(MockTurn { items, faults }, repeat)
    }
}

impl MockTurn {
    /// Makes a turn of these items.
    pub fn new(items: impl IntoIterator<Item = MockItem>) -> Self {
        Self { items: items.into_iter().collect(), faults: Vec::new() }
    }

    /// Adds a fault for one more request.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }
}

impl MockItem {
    /// Makes a message.
    pub fn message(text: impl Into<String>) -> Self {
        Self::Message { text: text.into() }
    }

    /// Makes a function call; arguments that are a string are sent as they are.
    pub fn function_call(name: impl Into<String>, arguments: Value) -> Self {
        Self::FunctionCall { name: name.into(), arguments }
    }

    /// Makes a call of a custom tool.
    pub fn custom_tool_call(name: impl Into<String>, input: impl Into<String>) -> Self {
        Self::CustomToolCall { name: name.into(), input: input.into() }
    }
}

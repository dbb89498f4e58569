//! [`Ledger`]: the world outside, in which effects are seen to happen, once or more.
//!
//! It is a file that only the suite owns, one line for each deed, written in one piece by the process that does the deed.
//! A line is there or not when the process is killed, as with any party on the other side of a connection: that power may be cut
//! is not what is tried here. Deeds that depend on earlier ones hold the file's lock, which ends with its holder.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// The file of one scenario, as one of its processes sees it.
#[derive(Debug, Clone)]
pub struct Ledger {
    file: PathBuf,
    process: u32,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The process that did it: 0 for the first of its scenario.
    pub process: u32,
    /// What it did.
    pub deed: Deed,
}

/// Something that happened outside of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum Deed {
    /// A tool took effect.
    Effect {
        /// The step, such as `3.0`.
        step: String,
        /// The tool.
        tool: String,
        /// The idempotency key that the tool was given.
        key: String,
        /// What was done.
        what: String,
    },
    /// A tool was told again what had been done under its key, and did nothing.
    Repeat {
        /// The step.
        step: String,
        /// The key.
        key: String,
    },
    /// The model was asked.
    Asked {
        /// The turn, from 1.
        turn: u32,
    },
    /// A person was asked to approve a call.
    Approval {
        /// The step.
        step: String,
    },
}

impl Ledger {
    /// Names the ledger of a scenario for its `process`.
    pub fn new(file: impl Into<PathBuf>, process: u32) -> Self {
        Self { file: file.into(), process }
    }

    /// Writes a deed.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, deed: Deed) -> io::Result<()> {
        self.append(&mut self.open()?, deed)
    }

    /// Writes an effect unless one of its key is there. Returns true if it was written, and leaves a note of the repeat if not.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written.
    pub fn write_once(&self, step: &str, tool: &str, key: &str, what: &str) -> io::Result<bool> {
        let mut file = self.open()?;
        file.lock()?;
        let known = of_key(&read(&mut file)?, key).is_some();
        let (step, key) = (step.to_owned(), key.to_owned());
        let deed = if known {
            Deed::Repeat { step, key }
        } else {
            Deed::Effect { step, tool: tool.to_owned(), key, what: what.to_owned() }
        };
        self.append(&mut file, deed)?;
        Ok(!known)
    }

    /// Returns what was done under a key.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn find(&self, key: &str) -> io::Result<Option<String>> {
        Ok(of_key(&self.read()?, key))
    }

    /// Returns all lines, in their order.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or a line is none.
    pub fn read(&self) -> io::Result<Vec<Line>> {
        read(&mut self.open()?)
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).read(true).open(&self.file)
    }

    fn append(&self, file: &mut File, deed: Deed) -> io::Result<()> {
        let line = Line { process: self.process, deed };
        let text = format!("{}\n", serde_json::to_string(&line)?);
        // One call, so that a process that is killed leaves all of the line or none.
        let written = file.write(text.as_bytes())?;
        if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

fn read(file: &mut File) -> io::Result<Vec<Line>> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
}

fn of_key(lines: &[Line], wanted: &str) -> Option<String> {
    lines.iter().find_map(|line| match &line.deed {
        Deed::Effect { key, what, .. } if key == wanted => Some(what.clone()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Deed, Ledger, Line};

    #[test]
    fn one_key_takes_effect_once() {
        let place = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(place.path().join("ledger"), 0);
        assert_eq!(ledger.find("r/1.0").unwrap(), None);
        assert!(ledger.write_once("1.0", "pay", "r/1.0", "pay 7").unwrap());
        let later = Ledger::new(place.path().join("ledger"), 1);
        assert!(!later.write_once("1.0", "pay", "r/1.0", "pay 7").unwrap());
        later.write(Deed::Asked { turn: 2 }).unwrap();
        assert_eq!(later.find("r/1.0").unwrap().as_deref(), Some("pay 7"));
        let (step, key) = ("1.0".to_owned(), "r/1.0".to_owned());
        let effect = Deed::Effect {
            step: step.clone(),
            tool: "pay".into(),
            key: key.clone(),
            what: "pay 7".into(),
        };
        assert_eq!(
            later.read().unwrap(),
            [
                Line { process: 0, deed: effect },
                Line { process: 1, deed: Deed::Repeat { step, key } },
                Line { process: 1, deed: Deed::Asked { turn: 2 } },
            ]
        );
    }
}

//! What came of attacks: [`Answer`], [`Column`], [`Report`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An attack as tables show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attack {
    /// Its short name.
    pub id: String,
    /// What it aims at.
    pub group: String,
    /// The attempt in words.
    pub name: String,
}

/// What came of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It worked.
    Open,
    /// Something stood in the way.
    Denied,
    /// It could not be tried.
    Broken,
}

/// One attack's outcome, with what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The attack.
    pub id: String,
    /// What came of it.
    pub outcome: Outcome,
    /// An errno, or what was found.
    pub evidence: String,
}

impl Answer {
    /// Puts an answer together.
    pub fn new(id: impl Into<String>, outcome: Outcome, evidence: impl Into<String>) -> Self {
        Self { id: id.into(), outcome, evidence: evidence.into() }
    }
}

/// Something that was attacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name, such as `Linux, root`.
    pub name: String,
    /// Whose it is.
    pub kind: Kind,
    /// Whether it ran as the superuser; a column is compared with the control of the same user.
    pub root: bool,
    /// By attack; none where it was skipped.
    pub answers: BTreeMap<String, Answer>,
    /// Why it could not be attacked here.
    pub skipped: Option<String>,
}

/// Whose walls a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Nobody's.
    Control,
    /// This project's.
    Own,
    /// Somebody else's.
    Peer,
}

/// What a cell of the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// The attack worked.
    Open,
    /// Denied, and the control shows that it works where nothing stands in the way.
    Denied,
    /// Denied, and the control was denied too: it proves nothing on this host.
    NotProven,
    /// The probe was broken.
    Broken,
    /// Not tried.
    NotTried,
}

/// How many cells of each kind a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Worked.
    pub open: usize,
    /// Denied and proven.
    pub denied: usize,
    /// Denied and not proven here.
    pub not_proven: usize,
    /// Broken.
    pub broken: usize,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// The attacks, in the order of the table.
    pub attacks: Vec<Attack>,
    /// What was attacked.
    pub columns: Vec<Column>,
}

impl Report {
    /// Returns what the table says of an attack on a column.
    #[must_use]
    pub fn cell(&self, column: &Column, id: &str) -> Cell {
        match column.answers.get(id).map(|answer| answer.outcome) {
            None => Cell::NotTried,
            Some(Outcome::Open) => Cell::Open,
            Some(Outcome::Broken) => Cell::Broken,
            Some(Outcome::Denied) if self.works_outside(column.root, id) => Cell::Denied,
            Some(Outcome::Denied) => Cell::NotProven,
        }
    }

    /// Whether the attack works without a sandbox, as the same user.
    fn works_outside(&self, root: bool, id: &str) -> bool {
        let controls = self.columns.iter().filter(|it| it.kind == Kind::Control && it.root == root);
        controls
            .filter_map(|control| control.answers.get(id))
            .any(|answer| answer.outcome == Outcome::Open)
    }

    /// Counts the cells of a column.
    #[must_use]
    pub fn counts(&self, column: &Column) -> Counts {
        let mut counts = Counts::default();
        for attack in &self.attacks {
            match self.cell(column, &attack.id) {
                Cell::Open => counts.open += 1,
                Cell::Denied => counts.denied += 1,
                Cell::NotProven => counts.not_proven += 1,
                Cell::Broken => counts.broken += 1,
                Cell::NotTried => {}
            }
        }
        counts
    }
}

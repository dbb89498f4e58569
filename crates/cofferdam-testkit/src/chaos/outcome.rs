//! What came of the rounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::Victim;

/// What a harness that lived to its end says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Testimony {
    /// Operations, and how often each ended how.
    pub(super) endings: BTreeMap<String, BTreeMap<String, u64>>,
    /// What must not happen and did.
    pub(super) violations: Vec<String>,
}

/// One round.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) victim: Victim,
    /// Whether the victim was there to be killed.
    pub(super) hit: bool,
    /// Whether something was left that the next start removed.
    pub(super) swept: bool,
    pub(super) testimony: Option<Testimony>,
    pub(super) violations: Vec<String>,
}

/// All rounds, counted.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<Victim, Row>,
    endings: BTreeMap<String, BTreeMap<String, u64>>,
    failures: Vec<String>,
}

#[derive(Debug, Default)]
struct Row {
    rounds: u64,
    hit: u64,
    survived: u64,
    swept: u64,
    failed: u64,
}

impl Table {
    /// Counts how an operation ended that the director did.
    pub(super) fn count(&mut self, operation: &str, ending: &str) {
        let endings = self.endings.entry(operation.to_owned()).or_default();
        *endings.entry(ending.to_owned()).or_default() += 1;
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        let row = self.rows.entry(outcome.victim).or_default();
        row.rounds += 1;
        row.hit += u64::from(outcome.hit);
        row.survived += u64::from(outcome.testimony.is_some());
        row.swept += u64::from(outcome.swept);
        row.failed += u64::from(!outcome.violations.is_empty());
        for (operation, endings) in outcome.testimony.into_iter().flat_map(|it| it.endings) {
            let counted = self.endings.entry(operation).or_default();
            endings.into_iter().for_each(|(ending, times)| {
                *counted.entry(ending).or_default() += times;
            });
        }
        let (seed, victim) = (outcome.seed, outcome.victim);
        self.failures.extend(
            outcome.violations.into_iter().map(|what| format!("seed {seed}, {victim}: {what}")),
        );
    }

    /// What did not hold, with its seed.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["rounds", "killed", "survived", "swept", "failed"];
        write!(f, "{:<16}", "victim")?;
        heads.iter().try_for_each(|head| write!(f, "{head:>9}"))?;
        writeln!(f)?;
        for (victim, row) in &self.rows {
            write!(f, "{victim:<16}")?;
            for count in [row.rounds, row.hit, row.survived, row.swept, row.failed] {
                write!(f, "{count:>9}")?;
            }
            writeln!(f)?;
        }
        let kinds: BTreeSet<&String> = self.endings.values().flat_map(BTreeMap::keys).collect();
        write!(f, "\n{:<16}", "operation")?;
        kinds.iter().try_for_each(|kind| write!(f, "{kind:>12}"))?;
        writeln!(f)?;
        for (operation, endings) in &self.endings {
            write!(f, "{operation:<16}")?;
            for kind in &kinds {
                write!(f, "{:>12}", endings.get(*kind).copied().unwrap_or(0))?;
            }
            writeln!(f)?;
        }
        self.failures.iter().try_for_each(|failure| writeln!(f, "\n{failure}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_counts() {
        let mut table = Table::default();
        let testimony = Testimony {
            endings: [("exec".to_owned(), [("done".to_owned(), 2), ("lost".to_owned(), 1)].into())]
                .into(),
            violations: Vec::new(),
        };
        for seed in 7..9 {
            table.add(Outcome {
                seed,
                victim: Victim::Guest,
                hit: true,
                swept: false,
                testimony: Some(testimony.clone()),
                violations: if seed == 8 { vec!["hung".to_owned()] } else { Vec::new() },
            });
        }
        assert_eq!(table.failures(), ["seed 8, guest: hung"]);
        assert_eq!(
            table.to_string(),
            "victim             rounds   killed survived    swept   failed\n\
             guest                   2        2        2        0        1\n\
             \n\
             operation               done        lost\n\
             exec                       4           2\n\
             \nseed 8, guest: hung\n"
        );
    }
}

//! [`Table`]: what came of how many crashes, by point.

use std::{collections::BTreeMap, fmt};

use crate::scenario::Outcome;

/// What came of the crashes at one point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Row {
    /// Processes that were killed there.
    pub crashes: u64,
    /// Those whose run was resumed and ended as an undisturbed one.
    pub resumed: u64,
    /// Those after which each effect was there exactly once, without anybody being asked.
    pub exactly_once: u64,
    /// Those after which the run reported a step as of unknown outcome; it was decided, and each effect was there exactly once.
    pub ambiguous: u64,
    /// Those after which something did not hold.
    pub wrong: u64,
}

impl Row {
    fn add(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.resumed += other.resumed;
        self.exactly_once += other.exactly_once;
        self.ambiguous += other.ambiguous;
        self.wrong += other.wrong;
    }
}

/// The crashes of a run of the suite.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    rows: BTreeMap<String, Row>,
}

impl Table {
    /// Counts a scenario.
    pub fn add(&mut self, outcome: &Outcome) {
        let wrong = !outcome.wrong.is_empty();
        for (at, blow) in outcome.blows.iter().enumerate() {
            // Reported after this crash and before the next: this crash made it unknown, or left it so.
            let ambiguous = outcome.ambiguous.iter().any(|(blows, _)| *blows == at + 1);
            // What is wrong is charged to the last crash, after which it showed.
            let wrong = wrong && at + 1 == outcome.blows.len();
            self.rows.entry(blow.name()).or_default().add(Row {
                crashes: 1,
                resumed: u64::from(!wrong),
                exactly_once: u64::from(!wrong && !ambiguous),
                ambiguous: u64::from(!wrong && ambiguous),
                wrong: u64::from(wrong),
            });
        }
    }

    /// Returns the row of a point.
    #[must_use]
    pub fn row(&self, point: &str) -> Row {
        self.rows.get(point).copied().unwrap_or_default()
    }

    /// Returns the sum of all rows.
    #[must_use]
    pub fn sum(&self) -> Row {
        let mut sum = Row::default();
        for row in self.rows.values() {
            sum.add(*row);
        }
        sum
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.keys().map(String::len).max().unwrap_or(0).max("point".len());
        writeln!(
            f,
            "{:width$}  crashes  resumed  exactly once  reported ambiguous  wrong",
            "point"
        )?;
        let mut line = |name: &str, row: &Row| {
            writeln!(
                f,
                "{name:width$}  {:>7}  {:>7}  {:>12}  {:>18}  {:>5}",
                row.crashes, row.resumed, row.exactly_once, row.ambiguous, row.wrong
            )
        };
        for (point, row) in &self.rows {
            line(point, row)?;
        }
        line("all", &self.sum())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;
    use crate::{process::Blow, scenario::Outcome};

    #[test]
    fn crashes_are_charged_with_what_came_of_them() {
        let blows = |texts: &[&str]| texts.iter().map(|it| it.parse::<Blow>().unwrap()).collect();
        let mut table = Table::default();
        table.add(&Outcome {
            blows: blows(&["tool.send.call.after#1", "journal.read#1", "900us"]),
            ambiguous: vec![(1, "5.0".to_owned())],
            ..Outcome::default()
        });
        table.add(&Outcome {
            blows: blows(&["journal.read#1", "journal.read#2"]),
            wrong: vec!["step 3.0 took effect 2 times".to_owned()],
            ..Outcome::default()
        });
        insta::assert_snapshot!(table.to_string(), @r"
        point                 crashes  resumed  exactly once  reported ambiguous  wrong
        at a random time            1        1             1                   0      0
        journal.read                3        2             2                   0      1
        tool.send.call.after        1        1             0                   1      0
        all                         5        4             3                   1      1
        ");
    }
}

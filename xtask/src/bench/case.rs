//! One measured case, as a benchmark prints it.
//!
//! ```json
//! {"case": "exec true", "median_ms": 1.9, "min_ms": 1.7, "n": 200, "floor": "fork+exec+wait", "ratio": 1.4, "bar": 2.0}
//! ```
//!
//! All but `case` and `median_ms` may be absent. `floor` is what the case is compared with, `ratio` how many times as
//! long it takes, and `bar` the ratio allowed at most. A floor may also be given by its time, as `floor_NAME_ms`: the
//! ratio of the medians follows. A bar on a time instead of a ratio is `bar_ms`, and is met by `max_ms` if that is given, else
//! by `median_ms`. With `against` the floor is a case of another benchmark of the same run, and there is no ratio if that was
//! not run. What is memory and not a time ends with `_kib` instead of `_ms`.
//!
//! A case that could not run has nothing but `skipped`, which says why.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::report::Skip;

/// What a benchmark says in one line.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    Case(Case),
    Skip(Skip),
}

impl Line {
    /// Reads one line; none where it says something else.
    pub(crate) fn parse(line: &str) -> Option<Result<Self>> {
        let raw: Value = serde_json::from_str(line).ok()?;
        let what = raw.get("case")?;
        Some(match raw["skipped"].as_str() {
            Some(why) => Ok(Self::Skip(Skip {
                what: what.as_str().unwrap_or_default().to_owned(),
                why: why.to_owned(),
            })),
            None => Case::from_json(raw).map(Self::Case),
        })
    }
}

/// A case, and the JSON that it came from: a benchmark may print more than the table shows.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    unit: Unit,
    median: f64,
    min: Option<f64>,
    max: Option<f64>,
    n: Option<u64>,
    floor: String,
    ratio: Option<f64>,
    bar: Option<Bar>,
    pub(crate) raw: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Milliseconds,
    Kibibytes,
}

impl Unit {
    fn text(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Kibibytes => "KiB",
        }
    }

    /// The member of this name in this unit.
    fn of(self, raw: &Value, name: &str) -> Option<f64> {
        raw[format!("{name}_{}", self.text().to_lowercase())].as_f64()
    }

    fn show(self, amount: f64) -> String {
        match self {
            Self::Milliseconds => format!("{amount:.3} ms"),
            Self::Kibibytes => format!("{amount} KiB"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Bar {
    Ratio(f64),
    Amount(f64),
}

impl Case {
    pub(crate) const HEADING: [&'static str; 9] =
        ["case", "median", "min", "max", "n", "floor", "ratio", "bar", ""];

    pub(crate) fn from_json(raw: Value) -> Result<Self> {
        let (unit, median) = [Unit::Milliseconds, Unit::Kibibytes]
            .into_iter()
            .find_map(|unit| Some((unit, unit.of(&raw, "median")?)))
            .context("neither `median_ms` nor `median_kib` is a number")?;
        let bar = raw["bar"].as_f64().map(Bar::Ratio);
        let bar = bar.or_else(|| unit.of(&raw, "bar").map(Bar::Amount));
        let timed = timed_floor(&raw);
        let ratio =
            raw["ratio"].as_f64().or_else(|| timed.as_ref().map(|(_, floor_ms)| median / floor_ms));
        let against = raw["against"].as_str();
        anyhow::ensure!(
            against.is_some() || !matches!((bar, ratio), (Some(Bar::Ratio(_)), None)),
            "`bar` without `ratio`"
        );
        Ok(Self {
            name: raw["case"].as_str().context("`case` is not a string")?.to_owned(),
            unit,
            median,
            min: unit.of(&raw, "min"),
            max: unit.of(&raw, "max"),
            n: raw["n"].as_u64(),
            floor: raw["floor"]
                .as_str()
                .or(against)
                .map(str::to_owned)
                .or(timed.map(|(name, _)| name))
                .unwrap_or_default(),
            ratio,
            bar,
            raw,
        })
    }

    /// Compares the cases that name one of another benchmark with it.
    pub(crate) fn compare(cases: &mut [Self]) {
        let medians: Vec<(String, f64)> =
            cases.iter().map(|case| (case.name.clone(), case.median)).collect();
        for case in cases.iter_mut().filter(|case| case.ratio.is_none()) {
            let Some(against) = case.raw["against"].as_str() else { continue };
            let found = medians.iter().find(|(name, _)| name == against);
            case.ratio = found.map(|(_, median)| case.median / median);
        }
    }

    /// Whether the case keeps to its bar, where it has one.
    pub(crate) fn within_bar(&self) -> Option<bool> {
        match self.bar? {
            Bar::Ratio(bar) => self.ratio.map(|ratio| ratio <= bar),
            Bar::Amount(bar) => Some(self.max.unwrap_or(self.median) <= bar),
        }
    }

    /// The cells under [`Self::HEADING`].
    pub(crate) fn row(&self) -> [String; 9] {
        let bar = match self.bar {
            Some(Bar::Ratio(bar)) => format!("{bar:.2}"),
            Some(Bar::Amount(bar)) => format!("{bar} {}", self.unit.text()),
            None => String::new(),
        };
        let verdict = match self.within_bar() {
            Some(true) => "ok",
            Some(false) => "over",
            None => "",
        };
        let shown = |amount: Option<f64>| amount.map(|a| self.unit.show(a)).unwrap_or_default();
        [
            self.name.clone(),
            self.unit.show(self.median),
            shown(self.min),
            shown(self.max),
            self.n.map(|n| n.to_string()).unwrap_or_default(),
            self.floor.clone(),
            self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            bar,
            verdict.to_owned(),
        ]
    }
}

/// The name and the time of a floor that is given as `floor_NAME_ms`.
fn timed_floor(raw: &Value) -> Option<(String, f64)> {
    raw.as_object()?.iter().find_map(|(key, value)| {
        let name = key.strip_prefix("floor_")?.strip_suffix("_ms")?;
        Some((name.replace('_', " "), value.as_f64()?))
    })
}

#[cfg(test)]
mod tests {
    use super::{Case, Line};
    use crate::report::Skip;

    fn case(line: &str) -> Case {
        match Line::parse(line).unwrap().unwrap() {
            Line::Case(case) => case,
            Line::Skip(skip) => panic!("{skip:?}"),
        }
    }

    #[test]
    fn a_bar_on_the_ratio() {
        let over = case(
            r#"{"case":"a","median_ms":3,"min_ms":2.5,"n":10,"floor":"fork","ratio":2.14,"bar":2}"#,
        );
        assert_eq!(
            over.row(),
            ["a", "3.000 ms", "2.500 ms", "", "10", "fork", "2.14", "2.00", "over"]
        );
        assert_eq!(over.within_bar(), Some(false));
    }

    #[test]
    fn a_bar_on_the_time_and_no_bar() {
        let ok = case(r#"{"case":"a","median_ms":3,"min_ms":2.5,"n":10,"bar_ms":10}"#);
        assert_eq!(ok.row(), ["a", "3.000 ms", "2.500 ms", "", "10", "", "", "10 ms", "ok"]);
        let free =
            case(r#"{"case":"a","median_ms":3,"min_ms":2.5,"n":10,"floor":"fork","ratio":2.1}"#);
        assert_eq!(free.row()[5..], ["fork", "2.10", "", ""]);
        assert_eq!(free.within_bar(), None);
    }

    #[test]
    fn a_bar_on_memory_is_kept_by_the_largest() {
        let over = case(r#"{"case":"a","median_kib":900,"max_kib":1200,"bar_kib":1024}"#);
        assert_eq!(over.row(), ["a", "900 KiB", "", "1200 KiB", "", "", "", "1024 KiB", "over"]);
    }

    #[test]
    fn a_floor_by_its_time() {
        let timed = case(r#"{"case":"a","median_ms":12,"floor_read_write_ms":8,"bar":1.4}"#);
        assert_eq!(
            timed.row(),
            ["a", "12.000 ms", "", "", "", "read write", "1.50", "1.40", "over"]
        );
    }

    #[test]
    fn a_case_of_another_benchmark_as_floor() {
        let ours = r#"{"case":"ours","median_ms":1,"against":"theirs","bar":0.5}"#;
        let mut alone = [case(ours)];
        Case::compare(&mut alone);
        assert_eq!(alone[0].within_bar(), None);
        let mut both = [case(ours), case(r#"{"case":"theirs","median_ms":4}"#)];
        Case::compare(&mut both);
        assert_eq!(both[0].row()[5..], ["theirs", "0.25", "0.50", "ok"]);
    }

    #[test]
    fn a_case_that_could_not_run() {
        let line = Line::parse(r#"{"case":"a","skipped":"no compiler"}"#).unwrap().unwrap();
        let Line::Skip(skip) = line else { panic!("{line:?}") };
        assert_eq!(skip, Skip { what: "a".to_owned(), why: "no compiler".to_owned() });
    }

    #[test]
    fn other_lines_are_no_cases_and_broken_cases_are_errors() {
        for line in ["", "running 3 tests", "{\"port\": 1}", "[1]"] {
            assert!(Line::parse(line).is_none(), "{line}");
        }
        for (line, message) in [
            (r#"{"case":"a"}"#, "neither `median_ms` nor `median_kib` is a number"),
            (r#"{"case":"a","median_ms":1,"min_ms":1,"n":1,"bar":2}"#, "`bar` without `ratio`"),
        ] {
            assert_eq!(Line::parse(line).unwrap().unwrap_err().to_string(), message);
        }
    }
}

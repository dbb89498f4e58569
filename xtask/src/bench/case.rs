//! One measured case, as a benchmark prints it.
//!
//! ```json
//! {"case": "exec true", "median_ms": 1.9, "min_ms": 1.7, "n": 200, "floor": "fork+exec+wait", "ratio": 1.4, "bar": 2.0}
//! ```
//!
//! `floor` (what it is compared with), `ratio` (to that floor) and `bar` (the ratio allowed at most) may be absent. A
//! bar on a time instead of a ratio is `bar_ms`, and is met by `median_ms`.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A case, and the JSON that it came from: a benchmark may print more than the table shows.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    median_ms: f64,
    min_ms: f64,
    n: u64,
    floor: String,
    ratio: Option<f64>,
    bar: Option<Bar>,
    pub(crate) raw: Value,
}

#[derive(Debug, Clone, Copy)]
enum Bar {
    Ratio(f64),
    MedianMs(f64),
}

impl Case {
    pub(crate) const HEADING: [&'static str; 8] =
        ["case", "median ms", "min ms", "n", "floor", "ratio", "bar", ""];

    /// Reads one line; none where it is no case at all.
    pub(crate) fn parse(line: &str) -> Option<Result<Self>> {
        let raw: Value = serde_json::from_str(line).ok()?;
        raw.get("case")?;
        Some(Self::from_json(raw))
    }

    pub(crate) fn from_json(raw: Value) -> Result<Self> {
        let number =
            |key: &str| raw[key].as_f64().with_context(|| format!("`{key}` is not a number"));
        let bar = match (raw["bar"].as_f64(), raw["bar_ms"].as_f64()) {
            (Some(ratio), _) => Some(Bar::Ratio(ratio)),
            (None, Some(milliseconds)) => Some(Bar::MedianMs(milliseconds)),
            (None, None) => None,
        };
        let ratio = raw["ratio"].as_f64();
        anyhow::ensure!(
            !matches!((bar, ratio), (Some(Bar::Ratio(_)), None)),
            "`bar` without `ratio`"
        );
        Ok(Self {
            name: raw["case"].as_str().context("`case` is not a string")?.to_owned(),
            median_ms: number("median_ms")?,
            min_ms: number("min_ms")?,
            n: raw["n"].as_u64().context("`n` is not a count")?,
            floor: match &raw["floor"] {
                Value::String(name) => name.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            },
            ratio,
            bar,
            raw,
        })
    }

    /// Whether the case keeps to its bar, where it has one.
    pub(crate) fn within_bar(&self) -> Option<bool> {
        match self.bar? {
            Bar::Ratio(bar) => self.ratio.map(|ratio| ratio <= bar),
            Bar::MedianMs(bar) => Some(self.median_ms <= bar),
        }
    }

    /// The cells under [`Self::HEADING`].
    pub(crate) fn row(&self) -> [String; 8] {
        let bar = match self.bar {
            Some(Bar::Ratio(bar)) => format!("{bar:.2}"),
            Some(Bar::MedianMs(bar)) => format!("{bar} ms"),
            None => String::new(),
        };
        let verdict = match self.within_bar() {
            Some(true) => "ok",
            Some(false) => "over",
            None => "",
        };
        [
            self.name.clone(),
            format!("{:.3}", self.median_ms),
            format!("{:.3}", self.min_ms),
            self.n.to_string(),
            self.floor.clone(),
            self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            bar,
            verdict.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::Case;

    fn case(line: &str) -> Case {
        Case::parse(line).unwrap().unwrap()
    }

    #[test]
    fn a_bar_on_the_ratio() {
        let over = case(
            r#"{"case":"a","median_ms":3,"min_ms":2.5,"n":10,"floor":"fork","ratio":2.14,"bar":2}"#,
        );
        assert_eq!(over.row(), ["a", "3.000", "2.500", "10", "fork", "2.14", "2.00", "over"]);
        assert_eq!(over.within_bar(), Some(false));
    }

    #[test]
    fn a_bar_on_the_time_and_no_bar() {
        let ok = case(r#"{"case":"a","median_ms":3,"min_ms":2.5,"n":10,"bar_ms":10}"#);
        assert_eq!(ok.row(), ["a", "3.000", "2.500", "10", "", "", "10 ms", "ok"]);
        let free =
            case(r#"{"case":"a","median_ms":3,"min_ms":2.5,"n":10,"floor":1.4,"ratio":2.1}"#);
        assert_eq!(free.row()[4..], ["1.4", "2.10", "", ""]);
        assert_eq!(free.within_bar(), None);
    }

    #[test]
    fn other_lines_are_no_cases_and_broken_cases_are_errors() {
        for line in ["", "running 3 tests", "{\"port\": 1}", "[1]"] {
            assert!(Case::parse(line).is_none(), "{line}");
        }
        for (line, message) in [
            (r#"{"case":"a"}"#, "`median_ms` is not a number"),
            (r#"{"case":"a","median_ms":1,"min_ms":1,"n":1,"bar":2}"#, "`bar` without `ratio`"),
        ] {
            assert_eq!(Case::parse(line).unwrap().unwrap_err().to_string(), message);
        }
    }
}

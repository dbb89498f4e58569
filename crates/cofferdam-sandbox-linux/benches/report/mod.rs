//! JSON lines, one a case, and the medians that later cases are compared with.

use std::{io::Write, time::Duration};

use serde_json::{Value, json};

/// The lines, and the medians that later cases are compared with.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<(String, f64)>);

impl Report {
    pub(crate) fn add(&mut self, case: &str, floor: Option<(&str, f64)>, times: &[Duration]) {
        let mut sorted: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        let floor = floor.and_then(|(name, bar)| {
            let (_, floor) = self.0.iter().find(|(case, _)| case == name)?;
            Some((name, median / floor, bar))
        });
        self.0.push((case.to_owned(), median));
        line(&json!({
            "case": case,
            "median_ms": rounded(median),
            "min_ms": rounded(sorted[0]),
            "n": times.len(),
            "floor": floor.map(|(name, ..)| name),
            "ratio": floor.map(|(_, ratio, _)| rounded(ratio)),
            "bar": floor.map(|(.., bar)| rounded(bar)),
        }));
    }
}

pub(crate) fn skip(case: &str, reason: &str) {
    line(&json!({ "case": case, "skipped": reason }));
}

pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

pub(crate) fn line(value: &Value) {
    // A reader that is gone needs no lines.
    let _ = writeln!(std::io::stdout(), "{value}");
}

//! Compares an output in JSON Lines with the truth, line by line: precision, recall, and how often the other fields
//! agree. Pure; the truth stays in the control plane.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// How an output compares with the truth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Evaluation {
    /// Lines of the truth.
    pub(crate) expected: usize,
    /// Lines of the output that are JSON objects.
    pub(crate) found: usize,
    /// Lines of the output that are not.
    pub(crate) malformed: usize,
    /// Lines that have the same key on both sides; each counts once.
    pub(crate) matched: usize,
    /// For each compared field, how many of the matched lines agree on it.
    pub(crate) agreement: Vec<(String, usize)>,
    /// Keys of some lines that are in the truth alone.
    pub(crate) missing: Vec<String>,
    /// Keys of some lines that are in the output alone.
    pub(crate) spurious: Vec<String>,
}

/// Keys listed on each side at most.
const LISTED: usize = 5;

impl Evaluation {
    /// Returns the share of found lines that are in the truth; 1 if none was found.
    pub(crate) fn precision(&self) -> f64 {
        share(self.matched, self.found + self.malformed)
    }

    /// Returns the share of the truth that was found; 1 if there is none.
    pub(crate) fn recall(&self) -> f64 {
        share(self.matched, self.expected)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// Compares two texts in JSON Lines. `key` tells which lines belong together, `compare` what must agree besides.
pub(crate) fn evaluate(
    expected: &str,
    found: &str,
    key: &[String],
    compare: &[String],
) -> Evaluation {
    let (truth, _) = objects(expected);
    let (output, malformed) = objects(found);
    let mut waiting: HashMap<String, Vec<&Map<String, Value>>> = HashMap::new();
    for line in &truth {
        waiting.entry(key_of(line, key)).or_default().push(line);
    }
    let mut agreement: Vec<_> = compare.iter().map(|field| (field.clone(), 0)).collect();
    let mut matched = 0;
    let mut spurious = Vec::new();
    for line in &output {
        let line_key = key_of(line, key);
        let Some(partner) = waiting.get_mut(&line_key).and_then(Vec::pop) else {
            spurious.push(line_key);
            continue;
        };
        matched += 1;
        for (field, agreed) in &mut agreement {
            *agreed += usize::from(partner.get(field) == line.get(field));
        }
    }
    let mut missing: Vec<_> = waiting
        .into_iter()
        .flat_map(|(key, lines)| lines.into_iter().map(move |_| key.clone()))
        .collect();
    missing.sort();
    missing.truncate(LISTED);
    spurious.sort();
    spurious.truncate(LISTED);
    Evaluation {
        expected: truth.len(),
        found: output.len(),
        malformed,
        matched,
        agreement,
        missing,
        spurious,
    }
}

fn objects(text: &str) -> (Vec<Map<String, Value>>, usize) {
    let mut objects = Vec::new();
    let mut malformed = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(Value::Object(object)) => objects.push(object),
            _ => malformed += 1,
        }
    }
    (objects, malformed)
}

fn key_of(line: &Map<String, Value>, key: &[String]) -> String {
    let parts: Vec<_> = key
        .iter()
        .map(|field| match line.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "-".into(),
        })
        .collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_matches_once_and_names_the_rest() {
        let truth =
            "{\"id\":1,\"v\":\"a\"}\n{\"id\":2,\"v\":\"b\"}\n{\"id\":2,\"v\":\"b\"}\n{\"id\":3}\n";
        let found =
            "{\"id\":2,\"v\":\"b\"}\n\n{\"id\":1,\"v\":\"x\"}\n{\"id\":1}\n{\"id\":9}\nnonsense\n";
        let evaluation = evaluate(truth, found, &["id".into()], &["v".into()]);
        assert_eq!(
            evaluation,
            Evaluation {
                expected: 4,
                found: 4,
                malformed: 1,
                matched: 2,
                agreement: vec![("v".into(), 1)],
                missing: vec!["2".into(), "3".into()],
                spurious: vec!["1".into(), "9".into()],
            }
        );
        assert_eq!((evaluation.precision(), evaluation.recall()), (0.4, 0.5));
    }

    #[test]
    fn nothing_found_is_no_false_alarm_and_no_recall() {
        let evaluation = evaluate("{\"id\":1}\n", "", &["id".into()], &[]);
        assert_eq!((evaluation.precision(), evaluation.recall()), (1.0, 0.0));
    }
}

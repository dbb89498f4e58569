//! Finds the known name that a misspelt one was meant to be.

/// Returns the known name nearest to `name` by edit distance, if it is near enough to be a misspelling.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    // Distance grows with length times length, and a long text is no misspelt field name.
    if name.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|candidate| (distance(&name.to_lowercase(), candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The optimal string alignment distance: insert, delete, replace, or swap two neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                let before: &Vec<usize> = &before;
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_misspellings_only() {
        let known = ["instructions", "workspace", "mode", "model", "outputs"];
        let check = |name: &str, expect: Option<&str>| {
            assert_eq!(nearest(name, &known), expect, "for {name:?}");
        };
        check("instruction", Some("instructions"));
        check("wrokspace", Some("workspace"));
        check("Mode", Some("mode"));
        check("modell", Some("model"));
        check("output", Some("outputs"));
        check("banana", None);
        check("", None);
        check(&"x".repeat(100_000), None);
    }
}

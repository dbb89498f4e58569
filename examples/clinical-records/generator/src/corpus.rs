//! The whole corpus: the files of all charts and the ground truth, from one seed.

use std::collections::BTreeMap;

use crate::encounter;
use crate::page;
use crate::prng::Prng;
use crate::truth;

/// Where the ground truth is, below the output directory.
pub(crate) const TRUTH: &str = "truth/encounters.jsonl";

/// Returns the text of every file of the corpus, by its path below the output directory.
pub(crate) fn generate(seed: u64) -> BTreeMap<String, String> {
    assemble(seed, false)
}

fn assemble(seed: u64, perfect: bool) -> BTreeMap<String, String> {
    let seed = Prng::new(seed);
    let mut files = BTreeMap::new();
    let mut lines = Vec::new();
    for chart in encounter::plan(&mut seed.fork("plan")) {
        let file = format!("records/{}.txt", chart.name());
        let scan = page::scan(&chart, &seed, perfect);
        lines.extend(scan.found.iter().map(|found| truth::line(&file, found)));
        files.insert(file, scan.text);
    }
    lines.sort();
    files.insert(TRUTH.to_owned(), lines.concat());
    files
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::encounter::Kind;

    /// The seed of the checked-in files.
    const SEED: u64 = 20_260_101;

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        assert_eq!(generate(7), generate(7));
        assert_ne!(generate(7), generate(8));
    }

    #[test]
    fn size_and_count_keep_to_what_the_job_promises() {
        for seed in [SEED, 1] {
            let files = generate(seed);
            let records: usize =
                files.iter().filter(|(path, _)| *path != TRUTH).map(|(_, text)| text.len()).sum();
            assert!((5_000_000..7_000_000).contains(&records), "{records} bytes");
            let encounters = files[TRUTH].lines().count();
            assert!((200..=340).contains(&encounters), "{encounters} encounters");
        }
    }

    #[test]
    fn every_kind_occurs_and_no_two_encounters_share_a_key() {
        let files = generate(SEED);
        let truth = &files[TRUTH];
        for kind in Kind::ALL {
            let wanted = format!("\"type\":\"{}\"", kind.name());
            assert!(truth.lines().filter(|line| line.contains(&wanted)).count() >= 15, "{wanted}");
        }
        let keys: BTreeSet<&str> =
            truth.lines().filter_map(|line| line.split(",\"provider\"").next()).collect();
        assert_eq!(keys.len(), truth.lines().count());
    }

    #[test]
    fn noise_never_touches_the_truth() {
        let (noisy, perfect) = (generate(SEED), assemble(SEED, true));
        assert_eq!(noisy[TRUTH], perfect[TRUTH]);
        assert_ne!(noisy["records/chart-01.txt"], perfect["records/chart-01.txt"]);
    }
}

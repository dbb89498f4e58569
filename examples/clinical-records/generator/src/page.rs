//! Pages: the body text is cut into pages, which get headers and footers, are scanned, and come out in a poor order.

use crate::encounter::{Chart, Encounter};
use crate::noise::{self, Quality};
use crate::note;
use crate::people::Patient;
use crate::prng::Prng;
use crate::sheet::Line;

const LINES: usize = 58;
const NOTICE: &str = "SYNTHETIC RECORD - NOT A REAL PERSON";
const FACILITIES: [&str; 4] = [
    "ASHGROVE & DUNMERE HEALTH",
    "NORTHMOOR GENERAL HOSPITAL",
    "LAKE VELDEN CLINIC",
    "SAINT ORRIN MEDICAL CENTER",
];

/// A page as it was printed.
#[derive(Debug)]
struct Page<'a> {
    /// From 1, in the order of printing.
    number: usize,
    patient: &'a Patient,
    lines: Vec<Line>,
}

/// A scanned chart and what is known of it.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    pub(crate) text: String,
    pub(crate) found: Vec<Found<'a>>,
}

/// Where an encounter begins.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) patient: &'a Patient,
    pub(crate) encounter: &'a Encounter,
    /// The number printed on its first page.
    pub(crate) page: usize,
}

/// Prints and scans one chart. With `perfect`, pages lie in their order and nothing is damaged.
pub(crate) fn scan<'a>(chart: &'a Chart, seed: &Prng, perfect: bool) -> Scan<'a> {
    let name = chart.name();
    let (pages, found) = print(chart, seed);
    let mut noise = seed.fork(&format!("{name} noise"));
    let order =
        if perfect { (0..pages.len()).collect() } else { shuffled(&mut noise, pages.len()) };
    let facility = FACILITIES[chart.number % FACILITIES.len()];
    let mut text = String::new();
    for index in order {
        let page = &pages[index];
        let quality = if perfect { Quality::Perfect } else { Quality::draw(&mut noise) };
        for printed in layout(page, &mut noise, quality, facility, &name, pages.len()) {
            if let Some(dust) = noise::dust(&mut noise, quality) {
                text.push_str(&dust);
                text.push('\n');
            }
            text.push_str(&noise::line(&mut noise, quality, &printed));
            text.push('\n');
        }
        // The scanner writes a form feed after each page, but two sheets may go through together.
        if perfect || !noise.one_in(25) {
            text.push_str("\u{c}\n");
        }
    }
    Scan { text, found }
}

/// Cuts the text of all folders into pages; each folder begins on a new one.
fn print<'a>(chart: &'a Chart, seed: &Prng) -> (Vec<Page<'a>>, Vec<Found<'a>>) {
    let (mut pages, mut found) = (Vec::new(), Vec::new());
    for (index, folder) in chart.folders.iter().enumerate() {
        let prng = seed.fork(&format!("{} folder {index}", chart.name()));
        for lines in note::write(folder, prng).chunks(LINES) {
            let number = pages.len() + 1;
            let opened = lines
                .iter()
                .filter_map(|line| line.opens)
                .filter_map(|index| folder.encounters.get(index));
            found.extend(opened.map(|encounter| Found {
                patient: &folder.patient,
                encounter,
                page: number,
            }));
            pages.push(Page { number, patient: &folder.patient, lines: lines.to_vec() });
        }
    }
    (pages, found)
}

/// Returns all lines of a page, with its header and footer unless those were cut off by the scanner.
fn layout(
    page: &Page<'_>,
    noise: &mut Prng,
    quality: Quality,
    facility: &str,
    chart: &str,
    of: usize,
) -> Vec<String> {
    let Page { number, patient, lines } = page;
    let Patient { mrn, family, given, birth, .. } = patient;
    let damaged = quality != Quality::Perfect;
    let mut printed = Vec::with_capacity(lines.len() + 5);
    if !(damaged && noise.one_in(25)) {
        printed.push(format!("{facility:<40}MRN {mrn:<18}Page {number} of {of}"));
        let family = family.to_uppercase();
        printed.push(format!(
            "Patient: {family}, {given}     DOB: {birth}     Sex: {}",
            patient.sex()
        ));
        printed.push(String::new());
    }
    printed.extend(lines.iter().map(|line| line.text.clone()));
    printed.push(String::new());
    let corner = if damaged && noise.one_in(25) {
        String::new()
    } else {
        format!("{chart}   p. {number}/{of}")
    };
    printed.push(format!("{NOTICE:<56}{corner}").trim_end().to_owned());
    printed
}

/// Returns the page indices in the order in which they were scanned, some of them twice.
fn shuffled(prng: &mut Prng, pages: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..pages).collect();
    // A dropped stack: a few runs of pages were picked up and put back elsewhere, some upside down.
    for _ in 0..3 {
        let length = prng.between(2, 9.min(pages));
        let start = prng.below(pages - length + 1);
        let mut run: Vec<usize> = order.drain(start..start + length).collect();
        if prng.one_in(2) {
            run.reverse();
        }
        let target = prng.below(order.len() + 1);
        order.splice(target..target, run);
    }
    for index in 1..pages {
        if prng.one_in(14) {
            order.swap(index - 1, index);
        }
    }
    for index in (0..pages).rev() {
        if prng.one_in(70) {
            order.insert(index, order[index]);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encounter::plan;

    #[test]
    fn every_page_is_scanned_and_some_are_out_of_order_or_scanned_twice() {
        let order = shuffled(&mut Prng::new(4), 300);
        assert!((0..300).all(|page| order.contains(&page)));
        assert!(order.len() > 300);
        assert!(order.windows(2).any(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn the_notice_is_at_the_foot_of_every_printed_page() {
        let seed = Prng::new(6);
        let charts = plan(&mut seed.fork("plan"));
        let scan = scan(&charts[0], &seed, true);
        let pages: Vec<&str> = scan.text.split_terminator("\u{c}\n").collect();
        assert!(pages.len() > 20);
        for page in pages {
            let last = page.lines().last().unwrap_or_default();
            assert!(last.starts_with(NOTICE), "{last}");
        }
    }

    #[test]
    fn an_encounter_is_found_on_the_page_that_shows_its_provider_first() {
        let seed = Prng::new(6);
        let charts = plan(&mut seed.fork("plan"));
        let scan = scan(&charts[0], &seed, true);
        let encounters: usize =
            charts[0].folders.iter().map(|folder| folder.encounters.len()).sum();
        assert_eq!(scan.found.len(), encounters);
        for found in &scan.found {
            let heading = format!("Page {} of ", found.page);
            let page =
                scan.text.split("\u{c}\n").find(|page| page.contains(&heading)).unwrap_or_default();
            assert!(page.contains(&found.patient.mrn), "{found:?}");
        }
    }
}

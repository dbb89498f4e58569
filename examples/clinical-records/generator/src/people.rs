//! The invented patients and clinicians.

use std::collections::BTreeSet;

use crate::date::Date;
use crate::prng::Prng;

/// An invented patient.
#[derive(Debug, Clone)]
pub(crate) struct Patient {
    /// Medical record number: eight digits, the same in every chart.
    pub(crate) mrn: String,
    pub(crate) family: &'static str,
    pub(crate) given: &'static str,
    pub(crate) female: bool,
    pub(crate) birth: Date,
}

impl Patient {
    pub(crate) fn title(&self) -> &'static str {
        if self.female { "Ms." } else { "Mr." }
    }

    pub(crate) fn pronoun(&self) -> &'static str {
        if self.female { "She" } else { "He" }
    }

    pub(crate) fn sex(&self) -> char {
        if self.female { 'F' } else { 'M' }
    }
}

/// An invented clinician; the family name alone is unique.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) family: &'static str,
    pub(crate) given: &'static str,
    pub(crate) credential: &'static str,
}

impl Provider {
    /// Writes the name in one of the forms that the records use.
    pub(crate) fn written(&self, prng: &mut Prng) -> String {
        let Self { family, given, credential } = self;
        match prng.below(4) {
            0 if *credential == "MD" => format!("Dr. {given} {family}"),
            0 | 1 => format!("{given:.1}. {family}, {credential}"),
            2 => format!("{}, {} {credential}", family.to_uppercase(), given.to_uppercase()),
            _ => format!("{given} {family} ({credential})"),
        }
    }
}

const fn provider(family: &'static str, given: &'static str, credential: &'static str) -> Provider {
    Provider { family, given, credential }
}

/// Everybody who answers for an encounter.
pub(crate) const PROVIDERS: [Provider; 16] = [
    provider("Lindqvist", "Anna", "MD"),
    provider("Okonjo", "Samuel", "MD"),
    provider("Baranski", "Teresa", "NP"),
    provider("Whitfield", "Hugh", "MD"),
    provider("Castellano", "Marta", "MD"),
    provider("Thornbury", "Giles", "PA-C"),
    provider("Vasquez", "Ines", "MD"),
    provider("Dunleavy", "Patrick", "MD"),
    provider("Hashimoto", "Keiko", "MD"),
    provider("Renwick", "Oliver", "NP"),
    provider("Achterberg", "Lotte", "MD"),
    provider("Mulholland", "Fiona", "MD"),
    provider("Szabo", "Istvan", "MD"),
    provider("Prendergast", "Colin", "PA-C"),
    provider("Delacroix", "Amelie", "MD"),
    provider("Fairweather", "Joan", "NP"),
];

/// Nurses, who write in the charts but answer for no encounter.
pub(crate) const NURSES: [&str; 8] = [
    "R. Okafor RN",
    "T. Brandt RN",
    "L. Pham RN",
    "J. Moreau RN",
    "K. Ostrow LPN",
    "D. Ferris RN",
    "M. Quill RN",
    "S. Adeyemi RN",
];

const FAMILIES: [&str; 36] = [
    "Abernathy",
    "Blackwood",
    "Carmody",
    "Dabrowski",
    "Ellingsen",
    "Farquhar",
    "Greenhalgh",
    "Halvorsen",
    "Ivanek",
    "Jorgensen",
    "Kettleman",
    "Lachance",
    "Mavros",
    "Nakagawa",
    "Oyelaran",
    "Petrossian",
    "Quintero",
    "Rasmussen",
    "Sandoval",
    "Tomlinson",
    "Underhill",
    "Villanueva",
    "Wexford",
    "Yarrow",
    "Zelenka",
    "Ashdown",
    "Birtwistle",
    "Colquhoun",
    "Drummond",
    "Esterhazy",
    "Fothergill",
    "Gutierrez",
    "Hollander",
    "Imamura",
    "Kowalczyk",
    "Leverett",
];
const FEMALE: [&str; 14] = [
    "Greta",
    "Maribel",
    "Dorothea",
    "Ingrid",
    "Lucille",
    "Pauline",
    "Rosalind",
    "Sabine",
    "Theodora",
    "Winifred",
    "Yolanda",
    "Constance",
    "Beatriz",
    "Harriet",
];
const MALE: [&str; 14] = [
    "Anselm",
    "Bertram",
    "Clement",
    "Desmond",
    "Emeric",
    "Florian",
    "Gideon",
    "Horace",
    "Ignatius",
    "Leopold",
    "Montague",
    "Percival",
    "Rufus",
    "Sylvester",
];

/// Invents `count` patients with different record numbers.
pub(crate) fn patients(prng: &mut Prng, count: usize) -> Vec<Patient> {
    let mut taken = BTreeSet::new();
    let mut invented = Vec::with_capacity(count);
    while invented.len() < count {
        let mrn = prng.between(10_000_000, 99_999_999).to_string();
        let female = prng.percent(50);
        let patient = Patient {
            family: prng.pick(&FAMILIES),
            given: if female { prng.pick(&FEMALE) } else { prng.pick(&MALE) },
            birth: Date::new(1931, 1, 1).plus(prng.below(20_000)),
            female,
            mrn,
        };
        if taken.insert(patient.mrn.clone()) {
            invented.push(patient);
        }
    }
    invented
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_numbers_are_eight_digits_and_unique() {
        let invented = patients(&mut Prng::new(5), 200);
        let numbers: BTreeSet<_> = invented.iter().map(|patient| patient.mrn.as_str()).collect();
        assert_eq!(numbers.len(), 200);
        assert!(
            numbers
                .iter()
                .all(|mrn| mrn.len() == 8 && mrn.bytes().all(|byte| byte.is_ascii_digit()))
        );
    }

    #[test]
    fn family_names_of_providers_are_unique() {
        let names: BTreeSet<_> = PROVIDERS.iter().map(|provider| provider.family).collect();
        assert_eq!(names.len(), PROVIDERS.len());
    }
}

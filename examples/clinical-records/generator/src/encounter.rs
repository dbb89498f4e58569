//! What happened: which patients are in which chart, and the encounters of each.
//!
//! This is decided before a line of text is written, so that the ground truth owes nothing to the rendering.

use crate::date::Date;
use crate::people::{PROVIDERS, Patient, Provider, patients};
use crate::prng::Prng;
use crate::vocabulary::{DIAGNOSES, Diagnosis};

pub(crate) const CHARTS: usize = 16;
const PATIENTS: usize = 72;

/// The kind of an encounter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Progress,
    Emergency,
    Discharge,
    Telephone,
    Laboratory,
    Letter,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Progress,
        Self::Emergency,
        Self::Discharge,
        Self::Telephone,
        Self::Laboratory,
        Self::Letter,
    ];

    /// Returns the name that the ground truth and the task use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Progress => "progress_note",
            Self::Emergency => "ed_visit",
            Self::Discharge => "discharge_summary",
            Self::Telephone => "telephone",
            Self::Laboratory => "lab_visit",
            Self::Letter => "letter",
        }
    }

    fn draw(prng: &mut Prng) -> Self {
        Self::ALL[prng.weighted(&[30, 15, 11, 17, 15, 12])]
    }
}

/// One contact of a patient with a provider.
#[derive(Debug, Clone)]
pub(crate) struct Encounter {
    pub(crate) kind: Kind,
    /// The day on which the encounter began: admission, arrival, collection, call or visit.
    pub(crate) date: Date,
    /// Days from the beginning to the end: the length of a stay, the time to a report or a letter.
    pub(crate) days: usize,
    /// Minutes after midnight.
    pub(crate) minute: usize,
    pub(crate) provider: &'static Provider,
    pub(crate) diagnosis: &'static Diagnosis,
}

impl Encounter {
    pub(crate) fn end(&self) -> Date {
        self.date.plus(self.days)
    }
}

/// The encounters of one patient that were filed in one chart, oldest first.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) patient: Patient,
    pub(crate) encounters: Vec<Encounter>,
}

/// One scanned file.
#[derive(Debug)]
pub(crate) struct Chart {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) folders: Vec<Folder>,
}

impl Chart {
    pub(crate) fn name(&self) -> String {
        format!("chart-{:02}", self.number)
    }
}

/// Decides on the content of all charts.
pub(crate) fn plan(prng: &mut Prng) -> Vec<Chart> {
    let mut charts: Vec<Chart> =
        (1..=CHARTS).map(|number| Chart { number, folders: Vec::new() }).collect();
    for (index, patient) in patients(prng, PATIENTS).into_iter().enumerate() {
        let mut encounters = history(prng);
        // Some people moved house, and their later papers are in another chart.
        if encounters.len() > 3 && prng.one_in(6) {
            let later = encounters.split_off(encounters.len() / 2);
            charts[(index + 5) % CHARTS]
                .folders
                .push(Folder { patient: patient.clone(), encounters: later });
        }
        charts[index % CHARTS].folders.push(Folder { patient, encounters });
    }
    charts
}

/// Invents the encounters of one patient. Their days differ, so that patient, date and kind identify one.
fn history(prng: &mut Prng) -> Vec<Encounter> {
    let team: [&'static Provider; 3] = std::array::from_fn(|_| prng.pick_ref(&PROVIDERS));
    let problems: [&'static Diagnosis; 3] = std::array::from_fn(|_| prng.pick_ref(&DIAGNOSES));
    let mut day = Date::new(2019, 2, 1).plus(prng.below(1100));
    let count = prng.between(2, 6);
    (0..count)
        .map(|_| {
            day = day.plus(prng.between(12, 220));
            let kind = Kind::draw(prng);
            Encounter {
                kind,
                date: day,
                days: match kind {
                    Kind::Discharge => prng.between(2, 9),
                    Kind::Letter | Kind::Laboratory => prng.between(1, 3),
                    _ => 0,
                },
                minute: 5 * prng.between(84, 240),
                provider: team[prng.below(team.len())],
                diagnosis: problems[prng.below(problems.len())],
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_patient_has_two_encounters_on_a_day() {
        let mut prng = Prng::new(3);
        for _ in 0..200 {
            let dates: Vec<Date> =
                history(&mut prng).iter().map(|encounter| encounter.date).collect();
            assert!(dates.windows(2).all(|pair| pair[0] < pair[1]), "{dates:?}");
        }
    }

    #[test]
    fn each_chart_holds_several_patients_and_some_patients_are_in_two() {
        let charts = plan(&mut Prng::new(3));
        assert!(charts.iter().all(|chart| chart.folders.len() >= 3));
        let folders: usize = charts.iter().map(|chart| chart.folders.len()).sum();
        assert!(folders > PATIENTS);
    }
}

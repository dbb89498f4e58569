//! The ground truth: one JSON object on a line for each encounter.

use crate::page::Found;

/// Writes the line of one encounter. No value needs escaping: all come from the word lists of this program.
pub(crate) fn line(file: &str, found: &Found<'_>) -> String {
    let Found { patient, encounter, page } = found;
    format!(
        "{{\"patient_id\":\"{}\",\"date\":\"{}\",\"type\":\"{}\",\"provider\":\"{}\",\"diagnosis\":\"{}\",\
         \"file\":\"{file}\",\"page\":{page}}}\n",
        patient.mrn,
        encounter.date,
        encounter.kind.name(),
        encounter.provider.family,
        encounter.diagnosis.code,
    )
}

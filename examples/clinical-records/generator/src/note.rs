//! The text of a folder: each encounter with its opening, its body and its decoys.
//!
//! Decoys look like an encounter and are none: addenda, text copied forward from an earlier note, lists of earlier
//! contacts, appointments, and the dates of tables.

use crate::bulk;
use crate::date::Date;
use crate::encounter::{Encounter, Folder, Kind};
use crate::opening;
use crate::prng::Prng;
use crate::sheet::{Line, Sheet, clock};
use crate::vocabulary::{DIAGNOSES, Diagnosis, EXAMINATION, HISTORY, NURSING, PLANS};

/// Writes all encounters of `folder`, one after the other, with nothing between them but a blank line at times.
pub(crate) fn write(folder: &Folder, prng: Prng) -> Vec<Line> {
    let mut sheet = Sheet::new(prng);
    let mut order: Vec<usize> = (0..folder.encounters.len()).collect();
    // Some offices file the newest paper on top.
    if sheet.prng.one_in(3) {
        order.reverse();
    }
    for index in order {
        let (earlier, rest) = folder.encounters.split_at(index);
        if let Some(encounter) = rest.first() {
            sheet.open(index);
            opening::write(&mut sheet, &folder.patient, encounter);
            body(&mut sheet, encounter, earlier);
            if !sheet.prng.one_in(3) {
                sheet.blank();
            }
        }
    }
    sheet.lines
}

fn body(sheet: &mut Sheet, encounter: &Encounter, earlier: &[Encounter]) {
    match encounter.kind {
        Kind::Progress => progress(sheet, encounter, earlier),
        Kind::Emergency => emergency(sheet, encounter, earlier),
        Kind::Discharge => discharge(sheet, encounter, earlier),
        Kind::Telephone => telephone(sheet, encounter),
        Kind::Laboratory => laboratory(sheet, encounter, earlier),
        Kind::Letter => letter(sheet, encounter, earlier),
    }
    if sheet.prng.one_in(4) {
        addendum(sheet, encounter);
    }
}

fn progress(sheet: &mut Sheet, encounter: &Encounter, earlier: &[Encounter]) {
    narrative(sheet, &HISTORY, 4, 9);
    copied_forward(sheet, encounter, earlier);
    bulk::medicines(sheet, encounter.date, 9);
    narrative(sheet, &EXAMINATION, 5, 9);
    list_of_contacts(sheet, earlier);
    for _ in 0..sheet.prng.between(2, 4) {
        bulk::panel(sheet, encounter.date, 36);
    }
    bulk::trend(sheet, &trend_dates(encounter, earlier));
    narrative(sheet, &HISTORY, 5, 10);
    assessment(sheet, encounter, "Assessment");
    secondary(sheet, encounter);
    plan(sheet, encounter);
    signature(sheet, encounter);
}

fn emergency(sheet: &mut Sheet, encounter: &Encounter, earlier: &[Encounter]) {
    narrative(sheet, &HISTORY, 5, 10);
    list_of_contacts(sheet, earlier);
    bulk::medicines(sheet, encounter.date, 8);
    narrative(sheet, &EXAMINATION, 6, 10);
    let hours = sheet.prng.between(48, 96);
    bulk::flowsheet(sheet, encounter.date, encounter.minute, hours);
    for _ in 0..sheet.prng.between(3, 5) {
        bulk::panel(sheet, encounter.date, 40);
    }
    copied_forward(sheet, encounter, earlier);
    assessment(sheet, encounter, "Impression");
    secondary(sheet, encounter);
    plan(sheet, encounter);
    signature(sheet, encounter);
}

fn discharge(sheet: &mut Sheet, encounter: &Encounter, earlier: &[Encounter]) {
    assessment(sheet, encounter, "Principal diagnosis");
    secondary(sheet, encounter);
    narrative(sheet, &HISTORY, 6, 12);
    copied_forward(sheet, encounter, earlier);
    for day in 0..=encounter.days {
        if sheet.prng.percent(85) {
            bulk::panel(sheet, encounter.date.plus(day), 40);
        }
    }
    bulk::administration(sheet, encounter.date, encounter.days + 1, 12);
    let hours = 24 * encounter.days;
    bulk::flowsheet(sheet, encounter.date, encounter.minute, hours.min(168));
    narrative(sheet, &EXAMINATION, 6, 10);
    list_of_contacts(sheet, earlier);
    plan(sheet, encounter);
    signature(sheet, encounter);
}

fn telephone(sheet: &mut Sheet, encounter: &Encounter) {
    narrative(sheet, &HISTORY, 2, 5);
    narrative(sheet, &PLANS, 1, 3);
    assessment(sheet, encounter, "Reason for call");
    if sheet.prng.percent(50) {
        signature(sheet, encounter);
    }
}

fn laboratory(sheet: &mut Sheet, encounter: &Encounter, earlier: &[Encounter]) {
    assessment(sheet, encounter, "Clinical indication");
    for _ in 0..sheet.prng.between(4, 8) {
        bulk::panel(sheet, encounter.date, 40);
        narrative(sheet, &NURSING, 1, 2);
    }
    bulk::trend(sheet, &trend_dates(encounter, earlier));
    let reported = sheet.date(encounter.end());
    sheet.line(format!("End of report. Verified {reported} by the duty biochemist."));
}

fn letter(sheet: &mut Sheet, encounter: &Encounter, earlier: &[Encounter]) {
    narrative(sheet, &HISTORY, 8, 14);
    narrative(sheet, &EXAMINATION, 6, 10);
    list_of_contacts(sheet, earlier);
    assessment(sheet, encounter, "My diagnosis is");
    secondary(sheet, encounter);
    narrative(sheet, &PLANS, 3, 6);
    sheet.line("Yours sincerely,");
    let name = sheet.name(encounter.provider);
    sheet.line(format!("    {name}"));
    for _ in 0..sheet.prng.between(2, 4) {
        sheet.line("Enclosure: results");
        bulk::panel(sheet, encounter.date, 40);
    }
}

fn narrative(sheet: &mut Sheet, choices: &[&'static str], low: usize, high: usize) {
    let count = sheet.prng.between(low, high);
    let text = sheet.sentences(choices, count);
    sheet.paragraph(&text);
}

fn assessment(sheet: &mut Sheet, encounter: &Encounter, label: &str) {
    let Diagnosis { code, name, .. } = encounter.diagnosis;
    let text = match sheet.prng.below(3) {
        0 => format!("{label}: {name} ({code})"),
        1 => format!("{label}: {code} {name}"),
        _ => format!("{label}: {name}, ICD-10 {code}"),
    };
    sheet.line(text);
}

/// Adds other diagnoses, whose codes are decoys.
fn secondary(sheet: &mut Sheet, encounter: &Encounter) {
    for _ in 0..sheet.prng.below(3) {
        let other = sheet.prng.pick_ref(&DIAGNOSES);
        if other != encounter.diagnosis {
            sheet.line(format!("Also known: {} {}", other.code, other.name));
        }
    }
}

fn plan(sheet: &mut Sheet, encounter: &Encounter) {
    sheet.line("Plan:");
    narrative(sheet, &PLANS, 3, 6);
    if sheet.prng.percent(60) {
        let days = sheet.prng.between(20, 120);
        let next = sheet.date(encounter.end().plus(days));
        let text = match sheet.prng.below(3) {
            0 => format!("Next clinic visit - {next}"),
            1 => format!("Return appointment {next}"),
            _ => format!("Laboratory tests due {next}"),
        };
        sheet.line(text);
    }
}

fn signature(sheet: &mut Sheet, encounter: &Encounter) {
    let name = sheet.name(encounter.provider);
    let signed = sheet.date(encounter.end());
    let time = clock(encounter.minute + 240);
    let text = match sheet.prng.below(3) {
        0 => format!("Electronically signed: {name} {signed} {time}"),
        1 => format!("Signed {signed}, {name}"),
        _ => format!("/s/ {name}"),
    };
    sheet.line(text);
}

/// Adds a later remark: it has an author, a date and often a heading, and belongs to the encounter above it.
fn addendum(sheet: &mut Sheet, encounter: &Encounter) {
    let days = sheet.prng.between(1, 6);
    let later = sheet.date(encounter.end().plus(days));
    let original = sheet.date(encounter.date);
    let name = sheet.name(encounter.provider);
    let count = sheet.prng.between(1, 3);
    let text = sheet.sentences(&PLANS, count);
    match sheet.prng.below(3) {
        0 => sheet.line(format!("ADDENDUM {later}   {name}")),
        1 => sheet.line(format!("Late entry {later} to the note of {original}, {name}")),
        _ => {
            sheet.line("Addendum to");
            sheet.line(format!("PROGRESS NOTE of {original}, added {later} by {name}"));
        }
    }
    sheet.paragraph(&text);
}

/// Adds an old note that was copied into the new one, heading and all.
fn copied_forward(sheet: &mut Sheet, encounter: &Encounter, earlier: &[Encounter]) {
    if !sheet.prng.percent(35) {
        return;
    }
    // Without an earlier encounter in this chart, the text comes from one that is not in any.
    let (date, provider, diagnosis) = match earlier.last() {
        Some(last) if sheet.prng.percent(60) => (last.date, last.provider, last.diagnosis),
        _ => {
            let long_ago = Date::new(2016, 1, 4).plus(sheet.prng.below(900));
            (long_ago, encounter.provider, sheet.prng.pick_ref(&DIAGNOSES))
        }
    };
    let date = sheet.date(date);
    let name = sheet.name(provider);
    let marker = sheet.prng.pick(&[
        "[copied from previous record]",
        "--- Copied forward ---",
        "Copied from last note:",
    ]);
    sheet.line(marker);
    match sheet.prng.below(3) {
        0 => {
            sheet.line("PROGRESS NOTE");
            sheet.line(format!("Date of service: {date}      Provider: {name}"));
        }
        1 => sheet.line(format!("Clinic visit - {date} - {name}")),
        _ => {
            sheet.line("EMERGENCY DEPARTMENT RECORD");
            sheet.line(format!("Arrival: {date} 11:40     Attending: {name}"));
        }
    }
    narrative(sheet, &HISTORY, 3, 6);
    sheet.line(format!("Assessment then: {} {}", diagnosis.code, diagnosis.name));
    if sheet.prng.percent(60) {
        sheet.line("[end of copied text]");
    }
}

/// Adds a table of earlier contacts, as systems print them into the margin of a note.
fn list_of_contacts(sheet: &mut Sheet, earlier: &[Encounter]) {
    if earlier.is_empty() || !sheet.prng.percent(45) {
        return;
    }
    sheet.line("Previous contacts:");
    for encounter in earlier {
        let date = sheet.date(encounter.date);
        let what = match encounter.kind {
            Kind::Progress => "Clinic visit",
            Kind::Emergency => "ED physician note",
            Kind::Discharge => "Discharge summary",
            Kind::Telephone => "Telephone encounter",
            Kind::Laboratory => "Laboratory report",
            Kind::Letter => "Letter",
        };
        let name = sheet.name(encounter.provider);
        sheet.line(format!("   {date}   {what}   {name}   {}", encounter.diagnosis.code));
    }
}

fn trend_dates(encounter: &Encounter, earlier: &[Encounter]) -> Vec<Date> {
    let recent = earlier.len().saturating_sub(3);
    earlier[recent..].iter().map(|one| one.date).chain([encounter.date]).collect()
}

//! How an encounter begins: several styles for each kind, and no marker that all of them share.

use crate::encounter::{Encounter, Kind};
use crate::people::{PROVIDERS, Patient};
use crate::sheet::{Sheet, clock};
use crate::vocabulary::CALLERS;

/// Writes the first lines of `encounter`.
pub(crate) fn write(sheet: &mut Sheet, patient: &Patient, encounter: &Encounter) {
    match encounter.kind {
        Kind::Progress => progress(sheet, patient, encounter),
        Kind::Emergency => emergency(sheet, patient, encounter),
        Kind::Discharge => discharge(sheet, encounter),
        Kind::Telephone => telephone(sheet, encounter),
        Kind::Laboratory => laboratory(sheet, encounter),
        Kind::Letter => letter(sheet, patient, encounter),
    }
}

fn progress(sheet: &mut Sheet, patient: &Patient, encounter: &Encounter) {
    let date = sheet.date(encounter.date);
    let name = sheet.name(encounter.provider);
    let complaint = encounter.diagnosis.complaint;
    match sheet.prng.below(5) {
        0 => {
            sheet.line("PROGRESS NOTE");
            sheet.line(format!("Date of service: {date}      Provider: {name}"));
            sheet.line(format!("Chief complaint: {complaint}"));
        }
        1 => {
            sheet.line(format!("Clinic visit - {date} - {name}"));
            sheet.line(format!("Here today because of {complaint}."));
        }
        // Only the letters of the SOAP scheme say what this is.
        2 => {
            sheet.line(format!("{date}  {}  {name}", clock(encounter.minute)));
            sheet.line(format!("S: {complaint}."));
        }
        3 => {
            sheet.line(format!("OFFICE VISIT                          Visit date {date}"));
            sheet.line(format!("Seen by {name}. Reason: {complaint}"));
        }
        _ => {
            sheet.line("Follow-up note");
            let title = patient.title();
            let family = patient.family;
            sheet.paragraph(&format!(
                "{title} {family} was seen on {date} by {name} on account of {complaint}."
            ));
        }
    }
}

fn emergency(sheet: &mut Sheet, patient: &Patient, encounter: &Encounter) {
    let date = sheet.date(encounter.date);
    let time = clock(encounter.minute);
    let name = sheet.name(encounter.provider);
    let triage = sheet.prng.between(2, 4);
    match sheet.prng.below(4) {
        0 => {
            sheet.line("EMERGENCY DEPARTMENT RECORD");
            sheet.line(format!("Arrival: {date} {time}     Mode: ambulance     Triage: {triage}"));
            sheet.line(format!("Attending: {name}"));
        }
        1 => {
            sheet.line("ED physician note");
            sheet.line(format!("Time seen {date} {time}. {name}"));
        }
        2 => {
            let out = clock(encounter.minute + 190);
            sheet.line(format!("Emerg. Dept.   in: {date} {time}   out: {out}   cat {triage}"));
            sheet.line(format!("Treating clinician {name}"));
        }
        _ => {
            let title = patient.title();
            let family = patient.family;
            sheet.paragraph(&format!(
                "{title} {family} was brought to the emergency department by ambulance on {date} at {time} and was \
                 assessed by {name} on arrival."
            ));
        }
    }
    sheet.line(format!("Presenting with {}.", encounter.diagnosis.complaint));
}

fn discharge(sheet: &mut Sheet, encounter: &Encounter) {
    let admitted = sheet.date(encounter.date);
    let discharged = sheet.date(encounter.end());
    let name = sheet.name(encounter.provider);
    match sheet.prng.below(3) {
        0 => {
            sheet.line("DISCHARGE SUMMARY");
            sheet.line(format!("Admitted: {admitted}          Discharged: {discharged}"));
            sheet.line(format!("Attending physician: {name}"));
        }
        1 => {
            let ward = sheet.prng.between(2, 7);
            sheet.line("Summary of inpatient stay");
            sheet.line(format!(
                "Adm {admitted} - Disch {discharged}    Ward {ward}B    Consultant {name}"
            ));
        }
        _ => {
            sheet.line("HOSPITAL COURSE");
            sheet.line(format!("Date of discharge {discharged}"));
            sheet.line(format!("Date of admission {admitted}"));
            sheet.line(format!("Responsible clinician {name}"));
        }
    }
}

fn telephone(sheet: &mut Sheet, encounter: &Encounter) {
    let date = sheet.date(encounter.date);
    let time = clock(encounter.minute);
    let name = sheet.name(encounter.provider);
    let caller = sheet.prng.pick(&CALLERS);
    match sheet.prng.below(3) {
        0 => {
            sheet.line("TELEPHONE ENCOUNTER");
            sheet.line(format!("Call received {date} {time}     Taken by: {name}"));
            sheet.line(format!("Caller: {caller}"));
        }
        1 => {
            sheet.paragraph(&format!("T/C {date} {time} - {caller} called and spoke with {name}."))
        }
        _ => {
            sheet.line(format!("Phone message taken {date} at {time}"));
            sheet.line(format!("For: {name}      From: {caller}"));
        }
    }
    sheet.line(format!("Regarding {}.", encounter.diagnosis.complaint));
}

fn laboratory(sheet: &mut Sheet, encounter: &Encounter) {
    let collected = sheet.date(encounter.date);
    let reported = sheet.date(encounter.end());
    let time = clock(encounter.minute);
    let name = sheet.name(encounter.provider);
    let accession = sheet.prng.between(100_000, 999_999);
    match sheet.prng.below(3) {
        0 => {
            sheet.line("LABORATORY REPORT");
            sheet.line(format!("Collected: {collected} {time}     Reported: {reported}"));
            sheet.line(format!("Ordering provider: {name}"));
        }
        1 => {
            sheet.line(format!("Phlebotomy visit {collected} {time}"));
            sheet.line(format!("Specimens drawn for {name}. Accession A-{accession}"));
        }
        _ => {
            sheet.line(format!("Accession A-{accession}      Report issued {reported}"));
            sheet.line(format!("Drawn {collected} {time}      Requested by {name}"));
        }
    }
}

fn letter(sheet: &mut Sheet, patient: &Patient, encounter: &Encounter) {
    let seen = sheet.date(encounter.date);
    let dictated = sheet.date(encounter.date.plus(encounter.days - 1));
    let typed = sheet.date(encounter.end());
    let birth = sheet.date(patient.birth);
    let colleague = sheet.prng.pick_ref(&PROVIDERS).family;
    let complaint = encounter.diagnosis.complaint;
    let Patient { family, given, .. } = patient;
    let age = encounter.date.age(patient.birth);
    match sheet.prng.below(3) {
        0 => {
            sheet.line(format!("Dictated {dictated}     Typed {typed}"));
            sheet.line(format!("Dear Dr. {colleague},"));
            sheet.line(format!("Re: {given} {family}, born {birth}"));
            sheet.paragraph(&format!(
                "Thank you for asking me to see this patient aged {age} years, whom I saw in clinic on {seen} because of \
                 {complaint}."
            ));
        }
        1 => {
            sheet.line("Dear Colleague,");
            sheet.line(format!("RE: {given} {family}, DOB {birth}"));
            sheet.paragraph(&format!(
                "I reviewed {} {family} on {seen}, as you had suggested, for {complaint}.",
                patient.title()
            ));
        }
        _ => {
            sheet.line(format!("To: Dr. {colleague}"));
            sheet.line(format!("Letter dictated {dictated}"));
            sheet.line("Dear Doctor,");
            sheet.paragraph(&format!(
                "It was a pleasure to meet {given} {family} (born {birth}), who attended my clinic on {seen}. {} came \
                 because of {complaint}.",
                patient.pronoun()
            ));
        }
    }
}

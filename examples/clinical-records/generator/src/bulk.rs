//! The long tables that fill a chart, most of them full of dates which begin nothing.

use crate::date::Date;
use crate::people::NURSES;
use crate::sheet::{Sheet, clock};
use crate::vocabulary::{ANALYTES, Analyte, DRUGS, NURSING};

/// Adds a panel of results of one collection.
pub(crate) fn panel(sheet: &mut Sheet, collected: Date, rows: usize) {
    let when = sheet.date(collected);
    sheet.blank();
    sheet.line(format!(
        "{:<26}{:>9}  {:<5}{:<12}{:<16}{}",
        "TEST", "RESULT", "FLAG", "UNITS", "REFERENCE", "COLLECTED"
    ));
    let first = sheet.prng.below(ANALYTES.len());
    for analyte in ANALYTES.iter().cycle().skip(first).take(rows) {
        let (name, low, high, divisor, unit) = *analyte;
        let (result, flag) = result(sheet, analyte);
        let reference = format!("{} - {}", scaled(low, divisor), scaled(high, divisor));
        sheet.line(format!("{name:<26}{result:>9}  {flag:<5}{unit:<12}{reference:<16}{when}"));
    }
    sheet.blank();
}

/// Adds a table of earlier results, a column for each of `dates`.
pub(crate) fn trend(sheet: &mut Sheet, dates: &[Date]) {
    sheet.line("Results over time");
    let mut heading = format!("{:<26}", "");
    for &date in dates {
        heading.push_str(&format!("{:>16}", sheet.date(date)));
    }
    sheet.line(heading);
    let first = sheet.prng.below(ANALYTES.len());
    for analyte in ANALYTES.iter().cycle().skip(first).take(12) {
        let mut row = format!("{:<26}", analyte.0);
        for _ in dates {
            row.push_str(&format!("{:>16}", result(sheet, analyte).0));
        }
        sheet.line(row);
    }
    sheet.blank();
}

/// Adds a row of vital signs for each hour, and now and then what a nurse wrote.
pub(crate) fn flowsheet(sheet: &mut Sheet, start: Date, minute: usize, hours: usize) {
    sheet.blank();
    sheet.line(
        "Flowsheet      Time              T      HR    RR    BP         SpO2   Pain   In/Out ml",
    );
    for hour in 0..hours {
        let now = minute + 60 * hour;
        let date = start.plus(now / 1440);
        let day = sheet.date(date);
        let temperature = sheet.prng.between(362, 379);
        let (pulse, rate) = (sheet.prng.between(58, 108), sheet.prng.between(12, 22));
        let (upper, lower) = (sheet.prng.between(104, 162), sheet.prng.between(58, 96));
        let (oxygen, pain) = (sheet.prng.between(92, 100), sheet.prng.below(7));
        let (taken, lost) = (10 * sheet.prng.below(40), 10 * sheet.prng.below(35));
        sheet.line(format!(
            "{day:>18} {}  {}  {pulse:>5} {rate:>5}    {upper}/{lower:<6} {oxygen:>4}   {pain:>3}    {taken}/{lost}",
            clock(now),
            scaled(temperature, 10),
        ));
        if sheet.prng.one_in(4) {
            let nurse = sheet.prng.pick(&NURSES);
            let count = sheet.prng.between(1, 3);
            let text = sheet.sentences(&NURSING, count);
            sheet.paragraph(&format!("{day}  {}  {nurse}  {text}", clock(now + 10)));
        }
    }
    sheet.blank();
}

/// Adds the record of medicines given over `days`.
pub(crate) fn administration(sheet: &mut Sheet, start: Date, days: usize, drugs: usize) {
    sheet.line("Medication administration record");
    let first = sheet.prng.below(DRUGS.len());
    for day in 0..days {
        let heading = sheet.date(start.plus(day));
        sheet.line(format!("Day {} of stay, {heading}", day + 1));
        for drug in DRUGS.iter().cycle().skip(first).take(drugs) {
            let mut row = format!("  {drug:<28} oral  ");
            for hour in [6, 10, 14, 18, 22] {
                let nurse = sheet.prng.pick(&NURSES);
                let initials: String =
                    nurse.chars().filter(char::is_ascii_uppercase).take(2).collect();
                let given = if sheet.prng.one_in(7) { "--".to_owned() } else { initials };
                row.push_str(&format!("  {hour:02}00 {given}"));
            }
            sheet.line(row);
        }
    }
    sheet.blank();
}

/// Adds the list of present medicines, with the dates on which they were started.
pub(crate) fn medicines(sheet: &mut Sheet, before: Date, count: usize) {
    sheet.line("Current medications:");
    let first = sheet.prng.below(DRUGS.len());
    for drug in DRUGS.iter().cycle().skip(first).take(count) {
        let year = sheet.prng.between(2011, 2018);
        let times = sheet.prng.pick(&["once daily", "twice daily", "at bedtime", "as needed"]);
        sheet.line(format!("  - {drug}, {times}, since {year}"));
    }
    let checked = sheet.date(before);
    sheet.line(format!("  (list verified with pharmacy {checked})"));
}

fn result(sheet: &mut Sheet, analyte: &Analyte) -> (String, &'static str) {
    let &(_, low, high, divisor, _) = analyte;
    let spread = (high - low) / 4 + 1;
    let value = sheet.prng.between(low.saturating_sub(spread), high + spread);
    let flag = if value < low {
        "L"
    } else if value > high {
        "H"
    } else {
        ""
    };
    (scaled(value, divisor), flag)
}

/// Writes `value / divisor` with as many decimals as the divisor has zeros.
fn scaled(value: usize, divisor: usize) -> String {
    match divisor {
        1 => value.to_string(),
        10 => format!("{}.{}", value / 10, value % 10),
        _ => format!("{}.{:02}", value / 100, value % 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    #[test]
    fn decimals_follow_the_divisor() {
        assert_eq!([scaled(140, 1), scaled(47, 10), scaled(405, 100)], ["140", "4.7", "4.05"]);
    }

    #[test]
    fn tables_have_a_row_for_each_hour_day_and_analyte() {
        let mut sheet = Sheet::new(Prng::new(2));
        let start = Date::new(2024, 3, 7);
        panel(&mut sheet, start, 30);
        assert_eq!(sheet.lines.len(), 33);
        administration(&mut sheet, start, 3, 5);
        assert_eq!(sheet.lines.len(), 33 + 2 + 3 * 6);
        let before = sheet.lines.len();
        flowsheet(&mut sheet, start, 60, 48);
        assert!(sheet.lines.len() >= before + 51);
    }
}

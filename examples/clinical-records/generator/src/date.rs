//! Calendar dates, and the ways in which the records write them.

use std::fmt;

use crate::prng::Prng;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A day of the Gregorian calendar; `Display` gives the ISO form of the ground truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Date {
    year: i64,
    month: i64,
    day: i64,
}

/// How a date is written in the records: three formats, the last in a long and a short form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DateStyle {
    /// `2024-03-07`
    Iso,
    /// `03/07/2024`, month first
    Slashes,
    /// `7 March 2024`
    Long,
    /// `7-Mar-24`
    Short,
}

impl DateStyle {
    /// Picks a style; the two forms of the third format share its weight.
    pub(crate) fn draw(prng: &mut Prng) -> Self {
        [Self::Iso, Self::Slashes, Self::Long, Self::Short][prng.weighted(&[2, 2, 1, 1])]
    }
}

impl Date {
    /// Makes a date of numbers that are known to be one.
    pub(crate) const fn new(year: i64, month: i64, day: i64) -> Self {
        Self { year, month, day }
    }

    /// Returns the date `days` later.
    pub(crate) fn plus(self, days: usize) -> Self {
        let mut later = self;
        for _ in 0..days {
            later = later.next();
        }
        later
    }

    fn next(self) -> Self {
        let last = match self.month {
            2 if self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if self.day < last {
            Self { day: self.day + 1, ..self }
        } else if self.month < 12 {
            Self { month: self.month + 1, day: 1, ..self }
        } else {
            Self::new(self.year + 1, 1, 1)
        }
    }

    /// Returns the age in whole years, on this day, of somebody born on `birth`.
    pub(crate) fn age(self, birth: Self) -> i64 {
        let before_birthday = (self.month, self.day) < (birth.month, birth.day);
        self.year - birth.year - i64::from(before_birthday)
    }

    /// Writes the date in the given style.
    pub(crate) fn written(self, style: DateStyle) -> String {
        let Self { year, month, day } = self;
        let name = usize::try_from(month - 1)
            .ok()
            .and_then(|index| MONTHS.get(index))
            .copied()
            .unwrap_or("?");
        match style {
            DateStyle::Iso => self.to_string(),
            DateStyle::Slashes => format!("{month:02}/{day:02}/{year}"),
            DateStyle::Long => format!("{day} {name} {year}"),
            DateStyle::Short => format!("{day}-{:.3}-{:02}", name, year % 100),
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_in_four_ways() {
        let date = Date::new(2024, 3, 7);
        let styles = [DateStyle::Iso, DateStyle::Slashes, DateStyle::Long, DateStyle::Short];
        assert_eq!(
            styles.map(|style| date.written(style)),
            ["2024-03-07", "03/07/2024", "7 March 2024", "7-Mar-24"]
        );
    }

    #[test]
    fn days_are_added_over_ends_of_months_and_years() {
        let check =
            |start: Date, days, expect: &str| assert_eq!(start.plus(days).to_string(), expect);
        check(Date::new(2024, 2, 28), 1, "2024-02-29");
        check(Date::new(2023, 2, 28), 1, "2023-03-01");
        check(Date::new(2023, 12, 31), 1, "2024-01-01");
        check(Date::new(2023, 1, 1), 365, "2024-01-01");
    }

    #[test]
    fn age_counts_whole_years() {
        let birth = Date::new(1950, 6, 15);
        assert_eq!(Date::new(2020, 6, 14).age(birth), 69);
        assert_eq!(Date::new(2020, 6, 15).age(birth), 70);
    }
}

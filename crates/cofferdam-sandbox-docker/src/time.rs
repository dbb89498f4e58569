//! Reads the time that an engine tells.

/// Reads RFC 3339 in UTC, such as `2026-01-02T03:04:05.678Z`, to whole seconds since 1970.
pub(crate) fn seconds_since_epoch(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once('T')?;
    let numbers = |text: &str, separator| -> Option<[i64; 3]> {
        let mut numbers = text.split(separator).map(str::parse::<i64>);
        let three = [numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?];
        numbers.next().is_none().then_some(three)
    };
    let [year, month, day] = numbers(date, '-')?;
    let clock = rest.get(..8)?;
    let [hour, minute, second] = numbers(clock, ':')?;
    // A service may tell the time of its own zone: `+02:00` after the fraction.
    let zone = rest.get(8..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes().first()? {
        b'Z' => 0,
        sign @ (b'+' | b'-') => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    Some(
        days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
            - offset * 60,
    )
}

/// The days from 1970-01-01 to a date (Howard Hinnant's `days_from_civil`).
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::seconds_since_epoch;

    #[test]
    fn times() {
        let check = |text: &str, expect| assert_eq!(seconds_since_epoch(text), expect, "{text}");
        check("1970-01-01T00:00:00Z", Some(0));
        check("2000-02-29T00:00:00.000Z", Some(951_782_400));
        check("2026-01-02T03:04:05.678901234Z", Some(1_767_323_045));
        check("2026-01-02T05:04:05.6+02:00", Some(1_767_323_045));
        check("2026-01-02T03:04:05", None);
        check("", None);
        check("now", None);
        check("2026-01-02T03:04:0", None);
    }
}

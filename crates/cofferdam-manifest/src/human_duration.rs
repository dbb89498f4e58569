//! [`HumanDuration`]: a span of time as people write it.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// A span of time, written as `10m`, `1h30m` or `250ms`.
///
/// ```
/// use cofferdam_manifest::HumanDuration;
///
/// let time: HumanDuration = "1h30m".parse()?;
/// assert_eq!(time.as_duration().as_secs(), 5400);
/// assert_eq!(time.to_string(), "1h30m");
/// # Ok::<(), cofferdam_manifest::HumanDurationError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration {
    millis: u64,
}

/// Why a text is no span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HumanDurationError {
    /// The text is not a series of whole numbers with units.
    #[error(
        "{text:?} is no duration; write whole numbers with the units d, h, m, s or ms, such as \"10m\" or \"1h30m\""
    )]
    Malformed {
        /// The text that was given.
        text: String,
    },
    /// The span is longer than [`HumanDuration::MAX`].
    #[error("duration {text:?} is too long; 3650d is the bound")]
    TooLong {
        /// The text that was given.
        text: String,
    },
}

/// Units in milliseconds, the longest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl HumanDuration {
    /// The longest span accepted: 3650 days.
    pub const MAX: Self = Self { millis: 3650 * 86_400_000 };

    /// Makes a span, cut to whole milliseconds and to [`HumanDuration::MAX`].
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self { millis: millis.min(Self::MAX.millis) }
    }

    /// Returns the span.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.millis)
    }
}

impl FromStr for HumanDuration {
    type Err = HumanDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || HumanDurationError::Malformed { text: text.to_owned() };
        let too_long = || HumanDurationError::TooLong { text: text.to_owned() };
        let mut millis: u64 = 0;
        let mut rest = text;
        if rest.is_empty() {
            return Err(malformed());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(letters);
            let factor =
                UNITS.iter().find(|(name, _)| *name == unit).map(|u| u.1).ok_or_else(malformed)?;
            if number.is_empty() {
                return Err(malformed());
            }
            let number: u64 = number.parse().map_err(|_| too_long())?;
            millis = number
                .checked_mul(factor)
                .and_then(|part| millis.checked_add(part))
                .filter(|millis| *millis <= Self::MAX.millis)
                .ok_or_else(too_long)?;
            rest = tail;
        }
        Ok(Self { millis })
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.millis;
        for (unit, factor) in UNITS {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A span of time: `10m`, `1h30m`, `250ms`.",
            "type": "string",
            "pattern": "^([0-9]+(d|h|m|s|ms))+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_and_displays() {
        let check = |text: &str, expect: &str| {
            let got = match text.parse::<HumanDuration>() {
                Ok(time) => format!("{} {time}", time.as_duration().as_millis()),
                Err(error) => format!("{error:?}").split(' ').next().unwrap().to_owned(),
            };
            assert_eq!(got, expect, "for {text:?}");
        };
        check("0s", "0 0s");
        check("90s", "90000 1m30s");
        check("1h30m", "5400000 1h30m");
        check("1d", "86400000 1d");
        check("250ms", "250 250ms");
        check("", "Malformed");
        check("10", "Malformed");
        check("m", "Malformed");
        check("1 h", "Malformed");
        check("1w", "Malformed");
        check("-1s", "Malformed");
        check("3651d", "TooLong");
        check("99999999999999999999s", "TooLong");
    }

    proptest! {
        #[test]
        fn display_parses_back(millis in 0..=HumanDuration::MAX.millis) {
            let time = HumanDuration { millis };
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}

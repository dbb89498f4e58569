//! [`ByteSize`]: a number of bytes as people write it.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// A number of bytes, written as `512MiB`, `2GB` or `4096`.
///
/// Units with an `i` count in 1024, the others in 1000, as IEC 80000-13 has it.
///
/// ```
/// use cofferdam_manifest::ByteSize;
///
/// let size: ByteSize = "512MiB".parse()?;
/// assert_eq!(size.bytes(), 512 << 20);
/// assert_eq!(size.to_string(), "512MiB");
/// # Ok::<(), cofferdam_manifest::ByteSizeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ByteSizeError {
    /// The text is not a whole number with a known unit.
    #[error("{text:?} is no size; write a whole number and a unit, such as \"512MiB\" or \"2GB\"")]
    Malformed {
        /// The text that was given.
        text: String,
    },
    /// The number of bytes does not fit into 64 bits.
    #[error("size {text:?} is larger than any file system")]
    TooLarge {
        /// The text that was given.
        text: String,
    },
}

/// Units from the one tried first when displaying.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// Makes a size from a number of bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ByteSizeError::Malformed { text: text.to_owned() };
        let too_large = || ByteSizeError::TooLarge { text: text.to_owned() };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.strip_prefix(' ').unwrap_or(unit);
        let factor = match unit {
            "" => 1,
            "KB" => 1_000,
            unit => {
                UNITS.iter().find(|(name, _)| *name == unit).map(|u| u.1).ok_or_else(malformed)?
            }
        };
        if number.is_empty() {
            return Err(malformed());
        }
        let number: u64 = number.parse().map_err(|_| too_large())?;
        number.checked_mul(factor).map(Self).ok_or_else(too_large)
    }
}

impl fmt::Display for ByteSize {
    /// Writes the largest unit that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes: `512MiB`, `2GB`, `4096`.",
            "anyOf": [
                { "type": "string", "pattern": "^[0-9]+ ?(B|[kK]B|[MGT]B|[KMGT]iB)?$" },
                { "type": "integer", "minimum": 0 },
            ],
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
            let got = match text.parse::<ByteSize>() {
                Ok(size) => format!("{} {size}", size.bytes()),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expect, "for {text:?}");
        };
        check("0", "0 0B");
        check("1", "1 1B");
        check("1024", "1024 1KiB");
        check("1GiB", "1073741824 1GiB");
        check("10 MB", "10000000 10MB");
        check("2KB", "2000 2kB");
        check("1536MiB", "1610612736 1536MiB");
        check(
            "1.5GiB",
            r#""1.5GiB" is no size; write a whole number and a unit, such as "512MiB" or "2GB""#,
        );
        check(
            "MiB",
            r#""MiB" is no size; write a whole number and a unit, such as "512MiB" or "2GB""#,
        );
        check("99999999TiB", r#"size "99999999TiB" is larger than any file system"#);
        check(
            "99999999999999999999",
            r#"size "99999999999999999999" is larger than any file system"#,
        );
    }

    proptest! {
        #[test]
        fn display_parses_back(bytes: u64) {
            let size = ByteSize::from_bytes(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}

//! [`Mode`]: permission bits without set-id bits.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// Permission bits, written in octal as `"0755"`; set-user-id and set-group-id cannot be expressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mode(u32);

/// Why a text or number is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModeError {
    /// The text is not three or four octal digits.
    #[error("{text:?} is no mode; write three or four octal digits in quotes, such as \"0644\"")]
    Malformed {
        /// The text that was given.
        text: String,
    },
    /// The mode has a set-id bit.
    #[error(
        "mode {bits:04o} sets a set-user-id or set-group-id bit; write it as \"{:04o}\"",
        bits & !0o6000
    )]
    SetId {
        /// The bits that were given.
        bits: u32,
    },
}

impl Mode {
    /// `0644`, the mode of an inline file that gives none.
    pub const FILE: Self = Self(0o644);
    /// `0755`, the mode of a directory that gives none.
    pub const DIRECTORY: Self = Self(0o755);

    /// Makes a mode from permission bits.
    ///
    /// # Errors
    ///
    /// Refuses set-id bits and bits beyond `0o7777`.
    pub fn from_bits(bits: u32) -> Result<Self, ModeError> {
        if bits > 0o7777 {
            return Err(ModeError::Malformed { text: format!("{bits:o}") });
        }
        if bits & 0o6000 != 0 {
            return Err(ModeError::SetId { bits });
        }
        Ok(Self(bits))
    }

    /// Returns the permission bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ModeError::Malformed { text: text.to_owned() };
        if !(3..=4).contains(&text.len()) || !text.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
            return Err(malformed());
        }
        Self::from_bits(u32::from_str_radix(text, 8).map_err(|_| malformed())?)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Permission bits in octal, without set-id bits: `\"0755\"`.",
            "type": "string",
            "pattern": "^[01]?[0-7]{3}$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_or_refuses() {
        let check = |text: &str, expect: &str| {
            let got =
                text.parse::<Mode>().map_or_else(|error| error.to_string(), |m| m.to_string());
            assert_eq!(got, expect, "for {text:?}");
        };
        check("0755", "0755");
        check("640", "0640");
        check("1777", "1777");
        check(
            "0o755",
            r#""0o755" is no mode; write three or four octal digits in quotes, such as "0644""#,
        );
        check(
            "0899",
            r#""0899" is no mode; write three or four octal digits in quotes, such as "0644""#,
        );
        check("4755", r#"mode 4755 sets a set-user-id or set-group-id bit; write it as "0755""#);
        assert!(Mode::from_bits(0o10755).is_err());
    }
}

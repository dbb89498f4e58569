//! Secrets by name and by value. A [`SecretRef`] may be written anywhere; a [`Secret`] has no `Debug` of its value, no
//! `Serialize`, no `Display`, and is wiped when dropped.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The name of a secret, as manifests and journals hold it: `env:OPENAI_API_KEY`, `file:/run/secrets/key`.
///
/// Only the control plane resolves a reference; resolving gives a [`Secret`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretRef {
    provider: String,
    name: String,
}

/// Why a text is no secret reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretRefError {
    /// The text has no `provider:` prefix.
    #[error("secret reference {text:?} names no provider; write it as `env:NAME` or `file:PATH`")]
    NoProvider {
        /// The text that was given.
        text: String,
    },
    /// The part after the provider is empty.
    #[error("secret reference {text:?} names nothing after its provider")]
    NoName {
        /// The text that was given.
        text: String,
    },
}

impl SecretRef {
    /// Returns who holds the secret, such as `env`.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Returns the secret's name at its provider.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for SecretRef {
    type Err = SecretRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (provider, name) = text
            .split_once(':')
            .filter(|(provider, _)| !provider.is_empty())
            .ok_or_else(|| SecretRefError::NoProvider { text: text.to_owned() })?;
        if name.is_empty() {
            return Err(SecretRefError::NoName { text: text.to_owned() });
        }
        Ok(Self { provider: provider.to_owned(), name: name.to_owned() })
    }
}

impl TryFrom<String> for SecretRef {
    type Error = SecretRefError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SecretRef> for String {
    fn from(reference: SecretRef) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.provider, self.name)
    }
}

/// A secret's value; it stays in the control plane.
///
/// ```
/// let key = cofferdam_core::Secret::new("hunter2");
/// assert_eq!(format!("{key:?}"), "Secret(..)");
/// assert_eq!(key.expose(), "hunter2");
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// Returns the value; the one place to search for when reviewing where secrets go.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_references() {
        let reference: SecretRef = "env:API:KEY".parse().unwrap();
        assert_eq!((reference.provider(), reference.name()), ("env", "API:KEY"));
        assert_eq!(reference.to_string(), "env:API:KEY");
        assert!(matches!("plain".parse::<SecretRef>(), Err(SecretRefError::NoProvider { .. })));
        assert!(matches!(":x".parse::<SecretRef>(), Err(SecretRefError::NoProvider { .. })));
        assert!(matches!("env:".parse::<SecretRef>(), Err(SecretRefError::NoName { .. })));
    }
}

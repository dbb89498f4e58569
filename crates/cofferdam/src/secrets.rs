//! Turns references to secrets into secrets: here, in the control plane, and nowhere else.

use std::sync::Arc;

use cofferdam_core::{Secret, SecretRef};
use cofferdam_workspace::SecretResolver;

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Nobody by that name holds secrets.
    #[error("secret {reference} names the provider {provider:?}; `env` and `file` are known")]
    UnknownProvider {
        /// The reference.
        reference: SecretRef,
        /// Its provider.
        provider: String,
    },
    /// The variable is not set.
    #[error("secret {reference} is not set in the environment of this process")]
    NotSet {
        /// The reference.
        reference: SecretRef,
    },
    /// The file cannot be read.
    #[error("secret {reference} cannot be read")]
    Unreadable {
        /// The reference.
        reference: SecretRef,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Resolves `env:NAME` from the environment and `file:PATH` from a file, whose trailing line break is dropped.
///
/// # Errors
///
/// [`SecretError`] names the reference, never a value.
pub fn resolve(reference: &SecretRef) -> Result<Secret, SecretError> {
    match reference.provider() {
        "env" => {
            #[expect(
                clippy::disallowed_methods,
                reason = "the facade resolves secrets from the environment"
            )]
            let value = std::env::var(reference.name());
            value.map(Secret::new).map_err(|_| SecretError::NotSet { reference: reference.clone() })
        }
        "file" => std::fs::read_to_string(reference.name())
            .map(|text| Secret::new(text.trim_end_matches(['\r', '\n'])))
            .map_err(|source| SecretError::Unreadable { reference: reference.clone(), source }),
        provider => Err(SecretError::UnknownProvider {
            reference: reference.clone(),
            provider: provider.to_owned(),
        }),
    }
}

/// Returns [`resolve`] in the form that the workspace asks for.
#[must_use]
pub fn resolver() -> SecretResolver {
    Arc::new(|reference: &SecretRef| resolve(reference).map_err(Into::into))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_files_and_names_what_is_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        let reference = format!("file:{}", file.path().display()).parse().unwrap();
        assert_eq!(resolve(&reference).unwrap().expose(), "hunter2");

        let check = |reference: &str, expect: &str| {
            assert_eq!(resolve(&reference.parse().unwrap()).unwrap_err().to_string(), expect);
        };
        check(
            "env:COFFERDAM_NO_SUCH_VARIABLE",
            "secret env:COFFERDAM_NO_SUCH_VARIABLE is not set in the environment of this process",
        );
        check("vault:x", "secret vault:x names the provider \"vault\"; `env` and `file` are known");
        check("file:/no/such", "secret file:/no/such cannot be read");
    }
}

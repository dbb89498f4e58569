//! [`CredentialProvider`]: what the control plane knows of registries.

use std::fmt::Debug;

use cofferdam_core::Secret;

/// Knows who one is at which registry.
pub trait CredentialProvider: Debug + Send + Sync + 'static {
    /// Returns the login for a registry, by its host as in the names of images (`docker.io`, `127.0.0.1:5000`); `None` to
    /// ask as nobody.
    fn login(&self, registry: &str) -> Option<Login>;
}

/// A user and a password or token.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password, or a token that the registry takes for one.
    pub password: Secret,
}

//! The sandbox backends of this build, by name.
//!
//! A backend is a crate of its own and needs nothing of this one; this is the list from which the command and
//! [`crate::AgentBuilder`] choose.

use std::sync::Arc;

use cofferdam_sandbox::SandboxBackend;

/// A backend that this build does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// No backend has this name: use one of those that this build has.
    #[error("no sandbox backend {name:?} in this build, which has {}", list(.known))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none; enable the feature `linux`".to_owned() } else { names.join(", ") }
}

/// What makes a backend.
type Open = fn() -> Arc<dyn SandboxBackend>;

/// The backends of this build, the default first.
const BACKENDS: &[(&str, Open)] = &[
    #[cfg(all(feature = "linux", target_os = "linux"))]
    ("linux", || Arc::new(cofferdam_sandbox_linux::LinuxBackend::default())),
];

/// Returns the names of the backends of this build, the default first.
pub fn names() -> impl Iterator<Item = &'static str> {
    BACKENDS.iter().map(|(name, _)| *name)
}

/// Returns the backend of a name; nothing is started or probed yet.
///
/// # Errors
///
/// [`BackendError::Unknown`].
pub fn open(name: &str) -> Result<Arc<dyn SandboxBackend>, BackendError> {
    let found = BACKENDS.iter().find(|(known, _)| *known == name);
    let (_, open) = found
        .ok_or_else(|| BackendError::Unknown { name: name.to_owned(), known: names().collect() })?;
    Ok(open())
}

/// Returns the first backend of this build, if there is one.
#[must_use]
pub fn default_backend() -> Option<Arc<dyn SandboxBackend>> {
    BACKENDS.first().map(|(_, open)| open())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_has_the_name_by_which_it_is_found() {
        for name in names() {
            assert_eq!(open(name).unwrap().name(), name);
        }
        assert_eq!(
            default_backend().map(|backend| backend.name().to_owned()),
            names().next().map(str::to_owned)
        );
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_that_there_are() {
        let error = open("vm").unwrap_err().to_string();
        assert!(
            error.starts_with("no sandbox backend \"vm\" in this build, which has "),
            "{error}"
        );
    }
}

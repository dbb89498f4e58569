//! The sandbox backends of this build, by name.
//!
//! A backend is a crate of its own and needs nothing of this one; this is the list from which the command and
//! [`crate::AgentBuilder`] choose.

#[cfg(all(feature = "registry", feature = "linux", target_os = "linux"))]
mod fetching;

use std::sync::Arc;

use cofferdam_sandbox::{SandboxBackend, SandboxError};

/// Why a backend cannot be opened.
#[derive(Debug, thiserror::Error)]
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
    /// What the environment says of the backend cannot be used: correct the variable.
    #[error("the variable {variable} cannot be used")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<SandboxError>,
    },
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none; enable the feature `linux`".to_owned() } else { names.join(", ") }
}

/// What makes a backend.
type Open = fn() -> Result<Arc<dyn SandboxBackend>, BackendError>;

/// The backends of this build, the default first.
const BACKENDS: &[(&str, Open)] = &[
    #[cfg(all(feature = "linux", target_os = "linux"))]
    ("linux", || Ok(linux::open())),
    #[cfg(feature = "docker")]
    ("docker", || docker::open()),
];

/// Returns the names of the backends of this build, the default first.
pub fn names() -> impl Iterator<Item = &'static str> {
    BACKENDS.iter().map(|(name, _)| *name)
}

/// Returns the backend of a name; nothing is started or probed yet.
///
/// # Errors
///
/// [`BackendError::Unknown`]; [`BackendError::Environment`] for an engine that the environment names wrongly.
pub fn open(name: &str) -> Result<Arc<dyn SandboxBackend>, BackendError> {
    let found = BACKENDS.iter().find(|(known, _)| *known == name);
    let (_, open) = found
        .ok_or_else(|| BackendError::Unknown { name: name.to_owned(), known: names().collect() })?;
    open()
}

/// Returns the first backend of this build, if there is one.
#[must_use]
pub fn default_backend() -> Option<Arc<dyn SandboxBackend>> {
    BACKENDS.first().and_then(|(_, open)| open().ok())
}

/// The backend without a daemon, with a place for the images that sandboxes are made from, and one for those that outlive this
/// process.
#[cfg(all(feature = "linux", target_os = "linux"))]
mod linux {
    use std::{path::PathBuf, sync::Arc};

    use cofferdam_sandbox::SandboxBackend;
    use cofferdam_sandbox_linux::{ImageCacheOptions, LinuxBackend};

    use super::variable;

    /// Returns the backend, which unpacks images below `COFFERDAM_CACHE`, else below the user's cache directory. Without
    /// either it refuses images by name. Sandboxes that linger are found again below `XDG_RUNTIME_DIR`, else below the user's
    /// directory in `/run/user` or `/tmp`.
    pub(super) fn open() -> Arc<dyn SandboxBackend> {
        let backend = LinuxBackend::default().with_state_directory(state_directory());
        let Some(cache) = cache_directory() else { return Arc::new(backend) };
        let backend = backend.with_image_cache(&cache, ImageCacheOptions::default());
        #[cfg(feature = "registry")]
        let backend = super::fetching::FetchingBackend { inner: backend, cache };
        Arc::new(backend)
    }

    /// A place that does not outlive a boot where there is one. The backend refuses one that others can use.
    fn state_directory() -> PathBuf {
        let user = rustix::process::geteuid().as_raw();
        let of_session = || {
            let directory = PathBuf::from(format!("/run/user/{user}"));
            directory.is_dir().then_some(directory)
        };
        let runtime = directory("XDG_RUNTIME_DIR").filter(|directory| directory.is_absolute());
        match runtime.or_else(of_session) {
            Some(runtime) => runtime.join("cofferdam/sandboxes"),
            // Directly there: what is above it must be of somebody who is trusted.
            None => PathBuf::from(format!("/tmp/cofferdam-{user}")),
        }
    }

    fn directory(name: &str) -> Option<PathBuf> {
        variable(name).map(PathBuf::from)
    }

    fn cache_directory() -> Option<PathBuf> {
        let of_the_user = || {
            let shared = directory("XDG_CACHE_HOME")
                .or_else(|| directory("HOME").map(|home| home.join(".cache")));
            shared.map(|shared| shared.join("cofferdam"))
        };
        directory("COFFERDAM_CACHE")
            .or_else(of_the_user)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join("images"))
    }
}

/// Returns a variable that is set to something.
#[cfg(any(feature = "docker", all(feature = "linux", target_os = "linux")))]
#[expect(clippy::disallowed_methods, reason = "the facade reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where the environment says that the container engine is, in the words of the `docker` command.
#[cfg(feature = "docker")]
mod docker {
    use std::{path::PathBuf, sync::Arc};

    use cofferdam_sandbox::{SandboxBackend, SandboxError};
    use cofferdam_sandbox_docker::{DockerBackend, DockerEndpoint, TlsCertificates};

    use super::{BackendError, variable};

    /// Returns the backend for `DOCKER_HOST`, `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`, with `COFFERDAM_DOCKER_IMAGE` as the
    /// image of sandboxes that name no root.
    pub(super) fn open() -> Result<Arc<dyn SandboxBackend>, BackendError> {
        let mut builder = DockerBackend::builder();
        if let Some(endpoint) = endpoint()? {
            builder = builder.endpoint(endpoint);
        }
        if let Some(image) = variable("COFFERDAM_DOCKER_IMAGE") {
            builder = builder.default_image(image);
        }
        Ok(Arc::new(builder.build()))
    }

    fn endpoint() -> Result<Option<DockerEndpoint>, BackendError> {
        let Some(host) = variable("DOCKER_HOST") else { return Ok(None) };
        let wrong = |variable| {
            move |source| BackendError::Environment { variable, source: Box::new(source) }
        };
        let endpoint: DockerEndpoint = host.parse().map_err(wrong("DOCKER_HOST"))?;
        Ok(Some(match endpoint {
            DockerEndpoint::Tcp { address } if variable("DOCKER_TLS_VERIFY").is_some() => {
                let certificates = certificates().map_err(wrong("DOCKER_CERT_PATH"))?;
                DockerEndpoint::Tls { address, certificates }
            }
            endpoint => endpoint,
        }))
    }

    fn certificates() -> Result<TlsCertificates, SandboxError> {
        let directory = match (variable("DOCKER_CERT_PATH"), variable("HOME")) {
            (Some(directory), _) => PathBuf::from(directory),
            (None, home) => PathBuf::from(home.unwrap_or_default()).join(".docker"),
        };
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).map_err(|error| SandboxError::InvalidRequest {
                reason: format!("cannot read {}: {error}", path.display()),
            })
        };
        Ok(TlsCertificates {
            authority: read("ca.pem")?,
            certificate: read("cert.pem")?,
            key: read("key.pem")?,
        })
    }
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

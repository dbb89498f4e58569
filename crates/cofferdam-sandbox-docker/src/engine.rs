//! [`Engine`]: requests to the container engine, each bounded in time, and what their failures mean to a caller.

use std::{error::Error as _, fmt, io, sync::Arc, time::Duration};

use bollard::{Docker, errors::Error};
use cofferdam_sandbox::SandboxError;

use crate::endpoint::DockerEndpoint;

/// The backend's name.
pub(crate) const BACKEND: &str = "docker";

/// The oldest interface that has all that is used here: that of Docker 20.10.
const OLDEST_API: (u32, u32) = (1, 41);

/// A connection to one engine.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    client: Docker,
    endpoint: Arc<DockerEndpoint>,
    timeout: Duration,
    is_podman: bool,
}

impl Engine {
    /// Makes a client and asks the engine which interface it speaks.
    pub(crate) async fn connect(
        endpoint: Arc<DockerEndpoint>,
        timeout: Duration,
    ) -> Result<Self, SandboxError> {
        let client = endpoint.client(timeout)?;
        let mut engine = Self { client, endpoint, timeout, is_podman: false };
        let version = engine.call("ask for the engine's version", engine.client.version()).await?;
        let mut components = version.components.iter().flatten();
        engine.is_podman = components.any(|component| component.name.contains("Podman"));
        let spoken = version.api_version.unwrap_or_default();
        if parse_version(&spoken).is_none_or(|spoken| spoken < OLDEST_API) {
            return Err(SandboxError::Unavailable {
                backend: BACKEND,
                reason: format!("{} speaks version {spoken:?} of the interface", engine.endpoint),
                remedy: "use an engine that speaks 1.41 or later, such as Docker 20.10".to_owned(),
            });
        }
        Ok(engine)
    }

    /// The client, for requests whose answer is a stream.
    pub(crate) fn client(&self) -> &Docker {
        &self.client
    }

    /// Whether it is Podman, which speaks Docker's interface with an accent.
    pub(crate) fn is_podman(&self) -> bool {
        self.is_podman
    }

    /// Whether it is of this host.
    pub(crate) fn is_local(&self) -> bool {
        matches!(*self.endpoint, DockerEndpoint::Unix(_))
    }

    pub(crate) fn endpoint(&self) -> &DockerEndpoint {
        &self.endpoint
    }

    /// Waits for the answer to a request, for the time that any request may take.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, SandboxError> {
        self.call_within(self.timeout, operation, request).await
    }

    /// Waits for the answer to a request that may take longer than others.
    pub(crate) async fn call_within<T>(
        &self,
        timeout: Duration,
        operation: &'static str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, SandboxError> {
        match tokio::time::timeout(timeout, request).await {
            Ok(answer) => answer.map_err(|error| self.explain(operation, error)),
            Err(_elapsed) => Err(self.silent(operation, timeout)),
        }
    }

    fn silent(&self, operation: &'static str, timeout: Duration) -> SandboxError {
        SandboxError::Unavailable {
            backend: BACKEND,
            reason: format!(
                "{} did not {operation} within {} s",
                self.endpoint,
                timeout.as_secs_f32()
            ),
            remedy: "look at the engine's log and load, or allow more time".to_owned(),
        }
    }

    /// Turns a failure into one that says what to do.
    pub(crate) fn explain(&self, operation: &'static str, error: Error) -> SandboxError {
        match error {
            Error::RequestTimeoutError => self.silent(operation, self.timeout),
            Error::DockerResponseServerError { .. } => {
                SandboxError::Host { operation, source: Box::new(error) }
            }
            error if connection_failure(&error).is_some() => unavailable(&self.endpoint, &error),
            error => SandboxError::Host { operation, source: Box::new(error) },
        }
    }
}

/// Returns the status of an answer that refuses, and its text.
pub(crate) fn refusal(error: &SandboxError) -> Option<(u16, &str)> {
    let SandboxError::Host { source, .. } = error else { return None };
    match source.downcast_ref::<Error>()? {
        Error::DockerResponseServerError { status_code, message } => Some((*status_code, message)),
        _ => None,
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Returns why no connection came about, if that is what failed.
fn connection_failure(error: &Error) -> Option<String> {
    match error {
        Error::SocketNotFoundError(_) => Some("there is no such socket".to_owned()),
        Error::HyperLegacyError { .. }
        | Error::HyperResponseError { .. }
        | Error::IOError { .. } => {
            let mut cause = error.source();
            let mut text = error.to_string();
            while let Some(next) = cause {
                text = next.to_string();
                cause = next.source();
            }
            Some(text)
        }
        _ => None,
    }
}

/// Returns the kind of the I/O error at the bottom of a failure.
fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(next) = cause {
        if let Some(error) = next.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = next.source();
    }
    None
}

/// The error for an engine that cannot be reached.
pub(crate) fn unavailable(endpoint: &DockerEndpoint, error: &Error) -> SandboxError {
    let reason = connection_failure(error).unwrap_or_else(|| error.to_string());
    let local = matches!(endpoint, DockerEndpoint::Unix(_));
    let remedy = match io_kind(error) {
        Some(io::ErrorKind::PermissionDenied) => {
            "add this user to the group that owns the socket (often `docker`, and as good as root), or use a rootless \
             engine"
        }
        _ if local => {
            "start the engine (`systemctl start docker`), name its socket, or use another backend, such as linux"
        }
        _ => "check the address, that the engine runs there, and the certificates or keys",
    };
    SandboxError::Unavailable {
        backend: BACKEND,
        reason: format!("{endpoint} cannot be reached: {reason}"),
        remedy: remedy.to_owned(),
    }
}

/// The error for a request that makes no sense.
pub(crate) fn invalid(reason: impl fmt::Display) -> SandboxError {
    SandboxError::InvalidRequest { reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        let check = |text: &str, expect| assert_eq!(parse_version(text), expect, "{text}");
        check("1.41", Some((1, 41)));
        check("1.100", Some((1, 100)));
        check("", None);
        check("1", None);
        check("one.two", None);
        assert!(
            parse_version("1.9") < Some(OLDEST_API) && parse_version("1.100") > Some(OLDEST_API)
        );
    }
}

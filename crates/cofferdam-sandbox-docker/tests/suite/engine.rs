//! The backend on the engine of the test kit.

use std::time::Duration;

use cofferdam_sandbox_docker::{DockerBackend, DockerBackendBuilder, DockerEndpoint};
use cofferdam_testkit::TestEngine;

/// How long one request may take in tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// What tests of the backend want of an engine.
pub(crate) trait TestEngineExt {
    /// Where it listens.
    fn endpoint(&self) -> DockerEndpoint;

    /// Begins a backend on it, with patience for a machine that does much else.
    fn builder(&self) -> DockerBackendBuilder;

    /// A backend on it.
    fn backend(&self) -> DockerBackend;

    /// A client of it, to do what others do.
    fn client(&self) -> Result<bollard::Docker, bollard::errors::Error>;
}

impl TestEngineExt for TestEngine {
    fn endpoint(&self) -> DockerEndpoint {
        DockerEndpoint::Unix(self.socket().to_owned())
    }

    fn builder(&self) -> DockerBackendBuilder {
        DockerBackend::builder().endpoint(self.endpoint()).request_timeout(PATIENCE)
    }

    fn backend(&self) -> DockerBackend {
        self.builder().build()
    }

    fn client(&self) -> Result<bollard::Docker, bollard::errors::Error> {
        let path = self.socket().display().to_string();
        bollard::Docker::connect_with_unix(&path, 30, bollard::API_DEFAULT_VERSION)
    }
}

//! [`DockerEndpoint`]: where the engine listens, and the client that gets there.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use bollard::{BollardRequest, Docker, errors::Error};
use cofferdam_sandbox::SandboxError;
use hyper_util::{
    client::legacy::{Client, connect::Connect},
    rt::TokioExecutor,
};

use crate::{engine::unavailable, ssh::SshConnector};

/// Where a container engine listens. Podman's service speaks the same interface on a socket of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DockerEndpoint {
    /// A socket of this host. Default: `/var/run/docker.sock`.
    Unix(PathBuf),
    /// A port that anybody who reaches it may use: only on loopback or in a network of one's own.
    Tcp {
        /// Host and port.
        address: String,
    },
    /// A port with TLS on both sides.
    Tls {
        /// Host and port.
        address: String,
        /// Whom to trust, and as whom to come.
        certificates: TlsCertificates,
    },
    /// An engine on a machine that the `ssh` program of this host can log in to without asking. `docker` must be installed
    /// there: its `system dial-stdio` is what is spoken to.
    Ssh {
        /// `[user@]host`, or a name of the configuration of `ssh`.
        destination: String,
        /// The port. Default: that of the configuration.
        port: Option<u16>,
        /// More arguments for `ssh`, such as `-i` and a key file.
        arguments: Vec<String>,
    },
}

/// Certificates in PEM form. No authority of the host is trusted beside the given one.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsCertificates {
    /// The authority that signed the engine's certificate.
    pub authority: Vec<u8>,
    /// The client's certificate chain.
    pub certificate: Vec<u8>,
    /// The client's private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCertificates").finish_non_exhaustive()
    }
}

impl Default for DockerEndpoint {
    fn default() -> Self {
        Self::Unix(PathBuf::from("/var/run/docker.sock"))
    }
}

impl fmt::Display for DockerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { address } => write!(f, "tcp://{address}"),
            Self::Tls { address, .. } => write!(f, "tcp://{address} (TLS)"),
            Self::Ssh { destination, port: None, .. } => write!(f, "ssh://{destination}"),
            Self::Ssh { destination, port: Some(port), .. } => {
                write!(f, "ssh://{destination}:{port}")
            }
        }
    }
}

impl FromStr for DockerEndpoint {
    type Err = SandboxError;

    /// Reads the form of `DOCKER_HOST`: `unix://PATH`, `tcp://HOST:PORT` or `ssh://[USER@]HOST[:PORT]`.
    fn from_str(text: &str) -> Result<Self, SandboxError> {
        let invalid = || SandboxError::InvalidRequest {
            reason: format!(
                "{text:?} is no address of an engine: write unix://PATH, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT]"
            ),
        };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp" | "http", address)) if has_port(address) => {
                Ok(Self::Tcp { address: address.trim_end_matches('/').to_owned() })
            }
            // What begins with a dash would be an option of `ssh`.
            Some(("ssh", rest)) if !rest.is_empty() && !rest.starts_with('-') => {
                let rest = rest.trim_end_matches('/');
                let (destination, port) = match rest.rsplit_once(':') {
                    Some((destination, port)) => {
                        (destination, Some(port.parse().map_err(|_error| invalid())?))
                    }
                    None => (rest, None),
                };
                let destination = destination.to_owned();
                Ok(Self::Ssh { destination, port, arguments: Vec::new() })
            }
            _ => Err(invalid()),
        }
    }
}

fn has_port(address: &str) -> bool {
    let port = address.trim_end_matches('/').rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| port.parse::<u16>().is_ok())
}

impl DockerEndpoint {
    /// Makes a client; it connects with the first request, and once for each.
    pub(crate) fn client(&self, timeout: Duration) -> Result<Docker, SandboxError> {
        let version = bollard::API_DEFAULT_VERSION;
        let seconds = timeout.as_secs().max(1);
        let made = match self {
            Self::Unix(path) => {
                Docker::connect_with_unix(&path.to_string_lossy(), seconds, version)
            }
            Self::Tcp { address } => {
                Docker::connect_with_http(&format!("tcp://{address}"), seconds, version)
            }
            Self::Tls { address, certificates } => {
                let tls = Arc::new(certificates.client_config(self)?);
                let connector = hyper_rustls::HttpsConnectorBuilder::new()
                    .with_tls_config(tls.as_ref().clone())
                    .https_only()
                    .enable_http1()
                    .build();
                let address = format!("https://{address}");
                through(connector, address, seconds)
            }
            Self::Ssh { destination, port, arguments } => {
                let connector = SshConnector::new(destination, *port, arguments);
                // The program on the other side knows where its engine is; this name is only a header.
                through(connector, "http://engine".to_owned(), seconds)
            }
        };
        made.map_err(|error| unavailable(self, &error))
    }
}

/// Makes a client that has a connection of its own for each request.
fn through<C>(connector: C, address: String, seconds: u64) -> Result<Docker, Error>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let transport = move |request: BollardRequest| {
        let response = client.request(request);
        async move { response.await.map_err(Error::from) }
    };
    let version = bollard::API_DEFAULT_VERSION;
    Docker::connect_with_custom_transport(transport, Some(address), seconds, version)
}

impl TlsCertificates {
    fn client_config(
        &self,
        endpoint: &DockerEndpoint,
    ) -> Result<rustls::ClientConfig, SandboxError> {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

        let bad = |what: &str, error: &dyn fmt::Display| SandboxError::InvalidRequest {
            reason: format!("the {what} for {endpoint} cannot be used: {error}"),
        };
        let chain = |what: &str, pem: &[u8]| {
            CertificateDer::pem_slice_iter(pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| bad(what, &error))
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in chain("authority", &self.authority)? {
            roots.add(certificate).map_err(|error| bad("authority", &error))?;
        }
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| bad("private key", &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad("TLS versions", &error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain("certificate", &self.certificate)?, key)
            .map_err(|error| bad("certificate", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expect: Option<&str>| {
            let read = text.parse::<DockerEndpoint>().ok().map(|endpoint| endpoint.to_string());
            assert_eq!(read.as_deref(), expect, "{text}");
        };
        check("unix:///run/engine.sock", Some("unix:///run/engine.sock"));
        check("tcp://127.0.0.1:2375", Some("tcp://127.0.0.1:2375"));
        check("tcp://127.0.0.1:2375/", Some("tcp://127.0.0.1:2375"));
        check("ssh://me@host", Some("ssh://me@host"));
        check("ssh://me@host:2222", Some("ssh://me@host:2222"));
        for wrong in [
            "",
            "unix://relative",
            "tcp://host",
            "tcp://host:port",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "npipe://x",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let certificates = TlsCertificates {
            authority: b"a".to_vec(),
            certificate: b"c".to_vec(),
            key: b"hidden".to_vec(),
        };
        assert_eq!(format!("{certificates:?}"), "TlsCertificates { .. }");
    }
}

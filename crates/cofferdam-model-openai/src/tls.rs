//! The one TLS stack: rustls with `ring`, and the operating system's trusted roots.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// Makes the configuration; it is passed on and not installed, since a process-wide default is the program's to choose.
///
/// Without `trust` it trusts nobody, which is enough for plain HTTP and works on a host that has no certificates.
pub(crate) fn client_config(trust: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let mut config = if trust {
        // "dangerous" is rustls's word for any verifier that is not its own; this one is the system's.
        let verifier = Arc::new(Verifier::new(provider)?);
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    } else {
        builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

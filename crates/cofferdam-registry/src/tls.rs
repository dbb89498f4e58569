//! The one TLS stack: rustls with `ring`, and the operating system's trusted roots.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_platform_verifier::Verifier;

/// Makes the configuration; it is passed on and not installed, since a process-wide default is the program's to choose.
pub(crate) fn client_config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // "dangerous" is rustls's word for any verifier that is not its own; this one is the system's.
    let verifier = Arc::new(Verifier::new(Arc::clone(&provider))?);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

//! TLS as a client: how this registry calls other servers.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::Error;

/// What to trust and offer when another server is called: the authorities of this machine (Debian's `ca-certificates`, or
/// the file and folder that `SSL_CERT_FILE` and `SSL_CERT_DIR` name), TLS 1.2 and later, and the cipher suites in the order
/// that suits the CPU.
///
/// A machine without authorities gets a configuration that trusts nobody, since plain HTTP has to work all the same.
pub(crate) fn client_config() -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (known, broken) = roots.add_parsable_certificates(found.certs);
    if known == 0 {
        let why: String = found.errors.iter().map(|e| format!(": {e}")).collect();
        log::warn!(
            "no certificate authorities were found on this machine, so no https server is trusted; install the package \
             ca-certificates{why}"
        );
    } else {
        log::debug!("{known} certificate authorities; {broken} that could not be read");
    }
    let provider = Arc::new(super::suites::provider(&[], super::suites::cpu_has_aes())?);
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Config { source })?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

//! TLS: certificates that can be replaced while the server runs, and what of the protocol is offered.
//!
//! ```text
//! http.tls -> Acceptor (the current ServerConfig, swapped as a whole by reload)
//!               |- pem          certificates and keys from files
//!               |- suites       cipher suites by name and in an order that suits the CPU
//!               `- client_auth  distribution's four modes
//! client: how other servers are called
//! local_ca -> machine   a CA of this machine's own, and certificates for its names as they change
//! ```

mod address_watch;
pub(crate) mod client;
mod client_auth;
mod clock;
pub(crate) mod follow;
pub(crate) mod local_ca;
mod machine;
mod names;
mod pem;
mod suites;
pub(crate) mod trust;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::ProducesTickets;
use rustls::sign::CertifiedKey;

pub(crate) use client_auth::ClientAuth;
pub(crate) use local_ca::Facts;

/// What is served, in the words of the TLS library: what `http.tls` comes down to.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// PEM: the server's certificate first, then its issuers.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// PEM files of the authorities that client certificates are checked against.
    pub(crate) client_cas: Vec<PathBuf>,
    pub(crate) client_auth: ClientAuth,
    /// Refuse TLS 1.2.
    pub(crate) only_13: bool,
    /// IANA names; empty means all that are good.
    pub(crate) cipher_suites: Vec<String>,
    /// The protocols that are spoken inside (ALPN), the one for clients that know several first.
    pub(crate) protocols: Vec<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is not valid PEM")]
    Pem {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} holds no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate { path: PathBuf },
    #[error("{path} holds no private key (-----BEGIN PRIVATE KEY-----)")]
    NoKey { path: PathBuf },
    #[error("the key in {path} cannot be used")]
    Key {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error("the key in {key} does not belong to the certificate in {certificate}")]
    Mismatch {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("the client authority in {path} cannot be used")]
    ClientCa {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error("client certificates cannot be checked without http.tls.clientcas")]
    NoClientCas,
    #[error("client certificates cannot be checked with http.tls.clientcas as it is")]
    ClientVerifier {
        source: rustls::server::VerifierBuilderError,
    },
    #[error("none of http.tls.ciphersuites is one that can be offered")]
    NoSuites,
    #[error("the protocol versions and cipher suites do not go together")]
    Config { source: rustls::Error },
    #[error("no key for session tickets")]
    Tickets { source: rustls::Error },
}

/// The TLS side of the server: what a new connection is accepted with.
#[derive(Debug)]
pub(crate) struct Acceptor {
    settings: Settings,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    authorities: Vec<client_auth::Authority>,
    /// Outlives reloads, so that sessions can be resumed across them: docker makes a handshake for each request. Not those that
    /// change who vouches for clients: a resumed session has the certificate that was checked when it began.
    tickets: Arc<dyn ProducesTickets>,
}

impl Acceptor {
    /// # Errors
    /// Says which file is bad, and how.
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        let current = RwLock::new(load(&settings, None)?);
        Ok(Acceptor { settings, current })
    }

    /// For the next handshake.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .config
            .clone()
    }

    /// The common name in the certificate of the client, if `http.tls.clientcas` vouch for it.
    pub(crate) fn client_name(&self, connection: &rustls::ServerConnection) -> Option<String> {
        match self.settings.client_auth {
            ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
                client_auth::common_name(connection.peer_certificates()?.first()?)
            }
            // Anybody can write anything into those.
            ClientAuth::None | ClientAuth::Request | ClientAuth::RequireAny => None,
        }
    }

    /// Reads all files again. New connections get what they say; connections that are open stay as they are.
    ///
    /// # Errors
    /// What [`Acceptor::new`] says; then everything stays as it was.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        let old = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            (current.authorities.clone(), current.tickets.clone())
        };
        let new = load(&self.settings, Some(old))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

/// `old` are the authorities and the tickets of before.
fn load(
    settings: &Settings,
    old: Option<(Vec<client_auth::Authority>, Arc<dyn ProducesTickets>)>,
) -> Result<Current, Error> {
    let authorities = client_auth::authorities(settings)?;
    let tickets = match old {
        Some((before, tickets)) if before == authorities => tickets,
        _ => ring::Ticketer::new().map_err(|source| Error::Tickets { source })?,
    };
    let chain = pem::certificates(&settings.certificate)?;
    let certified = certified(chain, &settings.key).map_err(|error| match error {
        Error::Mismatch { key, source, .. } => Error::Mismatch {
            certificate: settings.certificate.clone(),
            key,
            source,
        },
        error => error,
    })?;
    let provider = Arc::new(suites::provider(
        &settings.cipher_suites,
        suites::cpu_has_aes(),
    )?);
    let versions: &[&rustls::SupportedProtocolVersion] = if settings.only_13 {
        &[&rustls::version::TLS13]
    } else {
        rustls::ALL_VERSIONS
    };
    let verifier = client_auth::verifier(settings, &authorities, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|source| Error::Config { source })?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.ticketer = tickets.clone();
    // One is what a client uses up with its next connection; each costs it a record to read.
    config.send_tls13_tickets = 1;
    // A client's own CPU says nothing about this one, which serves many.
    config.ignore_client_order = true;
    config.alpn_protocols.clone_from(&settings.protocols);
    Ok(Current {
        config: Arc::new(config),
        authorities,
        tickets,
    })
}

/// Whether a certificate can be for this text: a DNS name, perhaps a wildcard, or an address.
pub(crate) fn is_certificate_name(text: &str) -> bool {
    names::Names::default().add(text)
}

/// What the first certificate of a PEM file says.
///
/// # Errors
/// Says what is bad about the file.
pub(crate) fn facts(path: &Path) -> Result<Facts, Error> {
    let chain = pem::certificates(path)?;
    let facts = chain.first().and_then(Facts::of);
    facts.ok_or_else(|| Error::NoCertificate {
        path: path.to_owned(),
    })
}

/// `chain` and the key in the file `key`, which has to be that of the first certificate.
fn certified(chain: Vec<CertificateDer<'static>>, key: &Path) -> Result<CertifiedKey, Error> {
    let signing = ring::sign::any_supported_type(&pem::key(key)?).map_err(|source| Error::Key {
        path: key.to_owned(),
        source,
    })?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        // A key whose public half the library cannot tell is taken at its word.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(source) => Err(Error::Mismatch {
            certificate: key.to_owned(),
            key: key.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests;

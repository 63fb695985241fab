//! Client certificates: CNCF distribution's `http.tls.clientauth`, in its four modes.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use super::{Error, Settings, pem};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// None is asked for.
    None,
    /// Asked for, not needed, not checked.
    Request,
    /// Needed, not checked.
    RequireAny,
    /// Checked when there is one.
    VerifyIfGiven,
    RequireAndVerify,
}

/// Who may vouch for clients: a certificate, and the file it is from.
pub(super) type Authority = (PathBuf, CertificateDer<'static>);

/// What `http.tls.clientcas` say; nobody where certificates are not checked.
///
/// # Errors
/// Those of the files.
pub(super) fn authorities(settings: &Settings) -> Result<Vec<Authority>, Error> {
    match settings.client_auth {
        ClientAuth::None | ClientAuth::Request | ClientAuth::RequireAny => return Ok(Vec::new()),
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {}
    }
    let mut authorities = Vec::new();
    for path in &settings.client_cas {
        let certificates = pem::certificates(path)?.into_iter();
        authorities.extend(certificates.map(|certificate| (path.clone(), certificate)));
    }
    Ok(authorities)
}

/// `authorities` are those of [`authorities`].
pub(super) fn verifier(
    settings: &Settings,
    authorities: &[Authority],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let any = |required| {
        let algorithms = provider.signature_verification_algorithms;
        Ok::<Arc<dyn ClientCertVerifier>, Error>(Arc::new(AnyCertificate {
            required,
            algorithms,
        }))
    };
    let optional = match settings.client_auth {
        ClientAuth::None => return Ok(Arc::new(NoClientAuth)),
        ClientAuth::Request => return any(false),
        ClientAuth::RequireAny => return any(true),
        ClientAuth::VerifyIfGiven => true,
        ClientAuth::RequireAndVerify => false,
    };
    let mut roots = RootCertStore::empty();
    for (path, certificate) in authorities {
        roots
            .add(certificate.clone())
            .map_err(|source| Error::ClientCa {
                path: path.clone(),
                source,
            })?;
    }
    if roots.is_empty() {
        return Err(Error::NoClientCas);
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if optional {
        builder.allow_unauthenticated()
    } else {
        builder
    };
    builder
        .build()
        .map_err(|source| Error::ClientVerifier { source })
}

/// The common name of the subject (RFC 5280 section 4.1.2.6). None without one, or with several: which of them an authority
/// had in mind is nobody's guess.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    (names.next().is_none() && !name.is_empty()).then(|| name.to_owned())
}

/// Takes every certificate whose key the client proves to hold.
#[derive(Debug)]
struct AnyCertificate {
    required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

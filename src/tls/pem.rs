//! Certificates and keys from PEM files.

use std::fs;
use std::path::Path;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Error;

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    match all(&read(path)?) {
        Ok(chain) if chain.is_empty() => Err(Error::NoCertificate {
            path: path.to_owned(),
        }),
        Ok(chain) => Ok(chain),
        Err(source) => Err(Error::Pem {
            path: path.to_owned(),
            source,
        }),
    }
}

pub(super) fn all(text: &[u8]) -> std::io::Result<Vec<CertificateDer<'static>>> {
    rustls_pemfile::certs(&mut &text[..]).collect()
}

/// The first key of the file: PKCS#8, PKCS#1 or SEC1.
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(path)?;
    match rustls_pemfile::private_key(&mut &text[..]) {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(Error::NoKey {
            path: path.to_owned(),
        }),
        Err(source) => Err(Error::Pem {
            path: path.to_owned(),
            source,
        }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

//! A CA and a certificate for this machine, for the embedded default: TLS without having been given any.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// Where they lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    /// What clients are given to trust.
    pub(crate) ca: PathBuf,
    /// The server's certificate, followed by the CA's.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// The certificate below `dir`, made there if it is missing. The CA's key is made anew with it and thrown away: nothing
/// else is ever to be signed by it.
///
/// # Errors
/// Those of the disk, and of names that no certificate can have.
pub(crate) fn ensure(dir: &Path, hostname: Option<&str>) -> Result<Files, Error> {
    let files = Files {
        ca: dir.join("ca.crt"),
        certificate: dir.join("server.crt"),
        key: dir.join("server.key"),
    };
    // Written last.
    if files.certificate.exists() && files.key.exists() && files.ca.exists() {
        return Ok(files);
    }
    fs::create_dir_all(dir).map_err(|source| Error::Write {
        path: dir.to_owned(),
        source,
    })?;
    let (ca, certificate, key) = make(hostname)?;
    write(&files.key, &key, 0o600)?;
    write(&files.ca, &ca, 0o644)?;
    write(&files.certificate, &format!("{certificate}{ca}"), 0o644)?;
    Ok(files)
}

/// CA, certificate and its key, as PEM. Clocks of machines without a battery are behind, so both begin long ago.
fn make(hostname: Option<&str>) -> Result<(String, String, String), rcgen::Error> {
    let begin = OffsetDateTime::UNIX_EPOCH + Duration::days(365 * 50);
    let now = OffsetDateTime::now_utc().max(begin);

    let mut ca = CertificateParams::default();
    ca.distinguished_name = called("registry local CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (ca.not_before, ca.not_after) = (begin, now + Duration::days(3650));
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    names.extend(
        hostname
            .filter(|name| *name != "localhost")
            .map(str::to_owned),
    );
    let mut leaf = CertificateParams::new(names)?;
    // Only names that DNS can have: a machine may be called anything.
    leaf.subject_alt_names.retain(|name| match name {
        SanType::DnsName(name) => name
            .as_str()
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'.'),
        _ => true,
    });
    leaf.distinguished_name = called(hostname.unwrap_or("localhost"));
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    // More than 825 days and Apple's clients refuse it.
    (leaf.not_before, leaf.not_after) = (now - Duration::days(1), now + Duration::days(820));
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    Ok((issuer.pem(), certificate.pem(), key.serialize_pem()))
}

fn called(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// All of it or nothing, and on the disk when this returns.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let temporary = path.with_extension(format!("tmp.{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed)?;
    }
    Ok(())
}

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore,
    ServerConnection,
};

use super::local_ca::LocalCa;
use super::*;

struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// A CA and a certificate in `dir`, with the key in a file of its own.
fn ensure(dir: &Path, name: Option<&str>) -> Files {
    let names: Vec<String> = name.into_iter().map(str::to_owned).collect();
    let ca = LocalCa::new(dir, &names);
    ca.ensure().unwrap();
    let files = Files {
        ca: dir.join("ca.crt"),
        certificate: dir.join("server.crt"),
        key: dir.join("server.key"),
    };
    fs::copy(ca.server_pem(), &files.key).unwrap();
    files
}

fn settings(files: &Files) -> Settings {
    Settings {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        client_cas: Vec::new(),
        client_auth: ClientAuth::None,
        only_13: false,
        cipher_suites: Vec::new(),
        protocols: vec![b"http/1.1".to_vec(), b"h2".to_vec()],
    }
}

fn client(
    ca: &Path,
    identity: Option<&Files>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(pem::certificates(ca).unwrap().remove(0)).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = pem::certificates(&files.certificate).unwrap();
            builder
                .with_client_auth_cert(chain, pem::key(&files.key).unwrap())
                .unwrap()
        }
    })
}

/// Both ends in memory; the server's last word reaches the client too, since TLS 1.3 refuses client certificates late.
fn shake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<ClientConnection, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    client.writer().write_all(b"hello").unwrap();
    for _ in 0..6 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    let mut got = [0; 5];
    server.reader().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    Ok(client)
}

#[test]
fn a_certificate_by_a_ca_of_our_own_is_good_for_its_names_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let files = ensure(dir.path(), Some("pi.example.com"));
    let acceptor = Acceptor::new(settings(&files)).unwrap();
    for name in ["localhost", "127.0.0.1", "::1", "pi.example.com"] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            shake(acceptor.config(), client(&files.ca, None, version), name).unwrap();
        }
    }
    shake(
        acceptor.config(),
        client(&files.ca, None, &rustls::version::TLS13),
        "other.host",
    )
    .unwrap_err();
}

#[test]
fn sessions_resume_and_outlive_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let files = ensure(dir.path(), None);
    let acceptor = Acceptor::new(settings(&files)).unwrap();
    let client = client(&files.ca, None, &rustls::version::TLS13);
    let first = shake(acceptor.config(), client.clone(), "localhost").unwrap();
    assert_eq!(first.handshake_kind(), Some(HandshakeKind::Full));
    acceptor.reload().unwrap();
    let second = shake(acceptor.config(), client, "localhost").unwrap();
    assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn a_reload_takes_the_new_certificate_and_a_broken_one_keeps_the_old() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (old, new) = (ensure(one.path(), None), ensure(two.path(), None));
    let old_ca = one.path().join("old-ca.crt");
    fs::copy(&old.ca, &old_ca).unwrap();
    let acceptor = Acceptor::new(settings(&old)).unwrap();
    let trusts = |ca: &Path| {
        shake(
            acceptor.config(),
            client(ca, None, &rustls::version::TLS13),
            "localhost",
        )
        .is_ok()
    };

    fs::copy(&new.certificate, &old.certificate).unwrap();
    let error = acceptor.reload().unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    assert!(trusts(&old_ca) && !trusts(&new.ca));

    fs::copy(&new.key, &old.key).unwrap();
    acceptor.reload().unwrap();
    assert!(trusts(&new.ca) && !trusts(&old_ca));

    fs::write(&old.certificate, "no PEM").unwrap();
    assert!(matches!(
        acceptor.reload().unwrap_err(),
        Error::NoCertificate { .. }
    ));
    fs::remove_file(&old.key).unwrap();
    acceptor.reload().unwrap_err();
    assert!(trusts(&new.ca));
}

#[test]
fn the_four_modes_of_client_certificates() {
    let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (files, stranger) = (ensure(mine.path(), None), ensure(other.path(), None));
    // Anybody's certificate will do: which usages it has matters to the two modes that verify.
    for (mode, none, unknown) in [
        (ClientAuth::None, true, true),
        (ClientAuth::Request, true, true),
        (ClientAuth::RequireAny, false, true),
        (ClientAuth::VerifyIfGiven, true, false),
        (ClientAuth::RequireAndVerify, false, false),
    ] {
        let settings = Settings {
            client_auth: mode,
            client_cas: vec![files.ca.clone()],
            ..settings(&files)
        };
        let acceptor = Acceptor::new(settings).unwrap();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let without = shake(
                acceptor.config(),
                client(&files.ca, None, version),
                "localhost",
            );
            assert_eq!(without.is_ok(), none, "{mode:?} without a certificate");
            let with = shake(
                acceptor.config(),
                client(&files.ca, Some(&stranger), version),
                "localhost",
            );
            assert_eq!(with.is_ok(), unknown, "{mode:?} with an unknown one");
        }
    }
    let unset = Settings {
        client_auth: ClientAuth::RequireAndVerify,
        ..settings(&files)
    };
    assert!(matches!(Acceptor::new(unset), Err(Error::NoClientCas)));
}

/// A CA, and a certificate by it for a client.
fn client_authority(dir: &Path) -> Files {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertifiedIssuer::self_signed(ca, ca_key).unwrap();
    let mut leaf = rcgen::CertificateParams::default();
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &ca).unwrap();
    let files = Files {
        ca: dir.join("clients.crt"),
        certificate: dir.join("client.crt"),
        key: dir.join("client.key"),
    };
    fs::write(&files.ca, ca.pem()).unwrap();
    fs::write(&files.certificate, leaf.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn a_session_does_not_outlive_who_vouched_for_its_client() {
    let (dir, clients, others) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let files = ensure(dir.path(), None);
    let (build, other) = (
        client_authority(clients.path()),
        client_authority(others.path()),
    );
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let authorities = dir.path().join("authorities.pem");
        fs::copy(&build.ca, &authorities).unwrap();
        let acceptor = Acceptor::new(Settings {
            client_auth: ClientAuth::RequireAndVerify,
            client_cas: vec![authorities.clone()],
            ..settings(&files)
        })
        .unwrap();
        let client = client(&files.ca, Some(&build), version);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let connection = shake(acceptor.config(), client.clone(), "localhost").unwrap();
            kinds.push(connection.handshake_kind());
            acceptor.reload().unwrap();
        }
        assert_eq!(
            kinds,
            [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]
        );
        fs::copy(&other.ca, &authorities).unwrap();
        acceptor.reload().unwrap();
        let resumed = shake(acceptor.config(), client.clone(), "localhost");
        assert!(resumed.is_err(), "{version:?}");
    }
}

#[test]
fn the_minimum_version_and_alpn_are_the_configured_ones() {
    let dir = tempfile::tempdir().unwrap();
    let files = ensure(dir.path(), None);
    let only = Acceptor::new(Settings {
        only_13: true,
        protocols: vec![b"http/1.1".to_vec()],
        ..settings(&files)
    })
    .unwrap();
    shake(
        only.config(),
        client(&files.ca, None, &rustls::version::TLS12),
        "localhost",
    )
    .unwrap_err();
    let new = shake(
        only.config(),
        client(&files.ca, None, &rustls::version::TLS13),
        "localhost",
    )
    .unwrap();
    assert_eq!(new.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(only.config().alpn_protocols, [b"http/1.1".to_vec()]);
    let both = Acceptor::new(settings(&files)).unwrap();
    assert_eq!(
        both.config().alpn_protocols,
        [b"http/1.1".to_vec(), b"h2".to_vec()]
    );
}

#[test]
fn the_servers_order_of_cipher_suites_decides_and_one_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let files = ensure(dir.path(), None);
    let served = Acceptor::new(settings(&files)).unwrap().config();
    assert!(served.ignore_client_order);
    let negotiated = |aes: bool, version, offered: &[CipherSuite]| {
        let suites = Arc::new(suites::provider(&[], aes).unwrap());
        let mut server = ServerConfig::builder_with_provider(suites)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(served.cert_resolver.clone());
        server.ignore_client_order = served.ignore_client_order;
        let mut provider = ring::default_provider();
        provider
            .cipher_suites
            .retain(|suite| offered.contains(&suite.suite()));
        provider
            .cipher_suites
            .sort_by_key(|suite| offered.iter().position(|o| *o == suite.suite()));
        let mut roots = RootCertStore::empty();
        roots
            .add(pem::certificates(&files.ca).unwrap().remove(0))
            .unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = shake(Arc::new(server), Arc::new(client), "localhost").unwrap();
        connection.negotiated_cipher_suite().unwrap().suite()
    };
    for (version, aes_128, aes_256, chacha) in [
        (
            &rustls::version::TLS13,
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ),
        (
            &rustls::version::TLS12,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
    ] {
        for order in [[chacha, aes_256, aes_128], [aes_256, aes_128, chacha]] {
            assert_eq!(negotiated(true, version, &order), aes_128);
            assert_eq!(negotiated(false, version, &order), chacha);
        }
        for only in [chacha, aes_256, aes_128] {
            assert_eq!(negotiated(true, version, &[only]), only);
            assert_eq!(negotiated(false, version, &[only]), only);
        }
    }
}

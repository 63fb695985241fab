use std::path::Path;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::key::NamedKey;
use super::*;

const NOW: i64 = 1_800_000_000;

fn pair(algorithm: &str) -> KeyPair {
    KeyPair::generate_for(match algorithm {
        "EdDSA" => &rcgen::PKCS_ED25519,
        "ES256" => &rcgen::PKCS_ECDSA_P256_SHA256,
        _ => &rcgen::PKCS_ECDSA_P384_SHA384,
    })
    .unwrap()
}

/// A token signed with the header's `alg`, whatever the key is.
fn token(header: &Value, claims: &Value, key: &KeyPair) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let pkcs8 = key.serialize_der();
    let random = SystemRandom::new();
    let ecdsa = |algorithm| {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8, &random).unwrap();
        pair.sign(&random, message.as_bytes())
            .unwrap()
            .as_ref()
            .to_vec()
    };
    let signature = match header["alg"].as_str().unwrap() {
        "EdDSA" => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8)
            .unwrap()
            .sign(message.as_bytes())
            .as_ref()
            .to_vec(),
        "ES256" => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
        "ES384" => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
        _ => Vec::new(),
    };
    format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn claims() -> Value {
    json!({
        "iss": "auth.test", "aud": "registry.test", "sub": "alice", "exp": NOW + 300, "nbf": NOW - 10, "iat": NOW - 10,
        "jti": "x", "access": [{"type": "repository", "name": "a/b", "actions": ["pull", "push"]}],
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn verifier(
    dir: &Path,
    certificates: &[String],
    jwks: Option<Value>,
    algorithms: &[&str],
) -> Result<Verifier, SetupError> {
    let mut settings = Token {
        service: "registry.test".to_owned(),
        issuer: "auth.test".to_owned(),
        signing_algorithms: algorithms.iter().map(|&name| name.to_owned()).collect(),
        ..Token::default()
    };
    if !certificates.is_empty() {
        let path = dir.join("bundle.pem");
        std::fs::write(&path, certificates.concat()).unwrap();
        settings.root_cert_bundle = Some(path);
    }
    if let Some(jwks) = jwks {
        let path = dir.join("jwks.json");
        std::fs::write(&path, jwks.to_string()).unwrap();
        settings.jwks = Some(path);
    }
    Verifier::open(&settings)
}

fn self_signed(key: &KeyPair) -> rcgen::Certificate {
    CertificateParams::new(vec!["auth.test".to_owned()])
        .unwrap()
        .self_signed(key)
        .unwrap()
}

/// One certificate, its key, and the names it goes by: RFC 7638's and libtrust's.
fn one(algorithm: &str) -> (TempDir, Verifier, KeyPair, Vec<String>) {
    let dir = TempDir::new().unwrap();
    let key = pair(algorithm);
    let certificate = self_signed(&key);
    let names = NamedKey::of_certificate(certificate.der()).unwrap().names;
    let verifier = verifier(dir.path(), &[certificate.pem()], None, &[]).unwrap();
    (dir, verifier, key, names)
}

#[test]
fn a_key_is_found_by_either_of_its_names() {
    for algorithm in ["EdDSA", "ES256", "ES384"] {
        let (_dir, verifier, key, names) = one(algorithm);
        assert!(names.len() >= 2, "{names:?}");
        assert_eq!(names.last().unwrap().len(), 59, "{names:?}");
        for name in names {
            let token = token(
                &json!({"alg": algorithm, "kid": name, "typ": "JWT"}),
                &claims(),
                &key,
            );
            // The second time from memory.
            for _ in 0..2 {
                let claims = verifier.verify(&token, NOW).unwrap();
                assert_eq!(claims.sub, "alice");
                assert_eq!(claims.access.to_string(), "repository:a/b:pull,push");
            }
        }
    }
}

#[test]
fn what_is_forged_or_not_for_here_is_refused() {
    let (_dir, verifier, key, names) = one("ES256");
    let header = json!({"alg": "ES256", "kid": names[0]});
    let good = token(&header, &claims(), &key);
    assert!(verifier.verify(&good, NOW).is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let encode = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let unsigned = |algorithm: &str, signature: &str| {
        format!(
            "{}.{}.{signature}",
            encode(json!({"alg": algorithm, "kid": names[0]})),
            parts[1]
        )
    };
    let hmac_with_public_key = {
        let public = self_signed(&key).pem();
        let message = format!(
            "{}.{}",
            encode(json!({"alg": "HS256", "kid": names[0]})),
            parts[1]
        );
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()),
            message.as_bytes(),
        );
        format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    };
    let stranger = pair("ES256");
    for (what, token, error) in [
        ("alg none", unsigned("none", ""), TokenError::Malformed),
        (
            "alg none with a signature",
            unsigned("none", parts[2]),
            TokenError::Malformed,
        ),
        (
            "HS256 with the public key",
            hmac_with_public_key,
            TokenError::Algorithm,
        ),
        (
            "another algorithm of the family",
            unsigned("ES384", parts[2]),
            TokenError::Signature,
        ),
        (
            "another family",
            unsigned("EdDSA", parts[2]),
            TokenError::Algorithm,
        ),
        (
            "no signature",
            format!("{}.{}.", parts[0], parts[1]),
            TokenError::Signature,
        ),
        (
            "another key",
            token(&header, &claims(), &stranger),
            TokenError::Signature,
        ),
        (
            "other claims",
            format!(
                "{}.{}.{}",
                parts[0],
                encode(with("sub", json!("root"))),
                parts[2]
            ),
            TokenError::Signature,
        ),
        (
            "an unknown kid",
            token(&json!({"alg": "ES256", "kid": "x"}), &claims(), &key),
            TokenError::UntrustedKey("x".to_owned()),
        ),
        (
            "no kid",
            token(&json!({"alg": "ES256"}), &claims(), &key),
            TokenError::NoKey,
        ),
        (
            "crit",
            token(
                &json!({"alg": "ES256", "kid": names[0], "crit": ["b64"]}),
                &claims(),
                &key,
            ),
            TokenError::Critical,
        ),
        (
            "another issuer",
            token(&header, &with("iss", json!("evil")), &key),
            TokenError::Issuer("evil".to_owned()),
        ),
        (
            "another audience",
            token(&header, &with("aud", json!(["other.test"])), &key),
            TokenError::Audience,
        ),
        (
            "expired",
            token(&header, &with("exp", json!(NOW - 61)), &key),
            TokenError::Expired,
        ),
        (
            "not yet valid",
            token(&header, &with("nbf", json!(NOW + 61)), &key),
            TokenError::NotYet,
        ),
        (
            "two parts",
            format!("{}.{}", parts[0], parts[1]),
            TokenError::Malformed,
        ),
        ("four parts", format!("{good}.x"), TokenError::Malformed),
        ("too long", "x".repeat(MAX_TOKEN + 1), TokenError::TooLong),
        ("nothing", String::new(), TokenError::Malformed),
    ] {
        assert_eq!(verifier.verify(&token, NOW), Err(error), "{what}");
    }
}

#[test]
fn what_is_remembered_expires_all_the_same() {
    let (_dir, verifier, key, names) = one("EdDSA");
    let token = token(&json!({"alg": "EdDSA", "kid": names[0]}), &claims(), &key);
    assert!(verifier.verify(&token, NOW).is_ok());
    assert_eq!(verifier.verify(&token, NOW + 361), Err(TokenError::Expired));
    assert_eq!(verifier.verify(&token, NOW - 71), Err(TokenError::NotYet));
}

#[test]
fn certificates_that_come_along_need_a_root() {
    let dir = TempDir::new().unwrap();
    let ca = || {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let root = CertifiedIssuer::self_signed(ca(), pair("ES256")).unwrap();
    let between = CertifiedIssuer::signed_by(ca(), pair("ES256"), &root).unwrap();
    let key = pair("ES256");
    // Any purpose will do, as in distribution.
    let mut leaf = CertificateParams::default();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let leaf = leaf.signed_by(&key, &between).unwrap();
    let alone = self_signed(&pair("EdDSA"));
    let verifier = verifier(dir.path(), &[root.pem(), alone.pem()], None, &[]).unwrap();

    let signed = |chain: &[&[u8]], key: &KeyPair| {
        let chain: Vec<String> = chain.iter().map(|der| BASE64.encode(der)).collect();
        token(&json!({"alg": "ES256", "x5c": chain}), &claims(), key)
    };
    let (leaf, middle, top): (&[u8], &[u8], &[u8]) = (leaf.der(), between.der(), root.der());
    for (chain, signer) in [
        (vec![leaf, middle], &key),
        (vec![leaf, middle, top], &key),
        // A root that signs by itself.
        (vec![top], root.key()),
    ] {
        let token = signed(&chain, signer);
        assert!(
            verifier.verify(&token, NOW).is_ok(),
            "{:?}",
            verifier.verify(&token, NOW)
        );
    }
    let stranger = pair("ES256");
    let forged = self_signed(&stranger);
    let forged: &[u8] = forged.der();
    for (what, chain, signer) in [
        ("without the one between", vec![leaf], &key),
        ("a stranger's", vec![forged], &stranger),
        ("a stranger's in front", vec![forged, top], &stranger),
        ("no certificate", vec![b"x".as_slice()], &key),
        ("too many", vec![leaf; 20], &key),
    ] {
        let token = signed(&chain, signer);
        assert!(
            matches!(verifier.verify(&token, NOW), Err(TokenError::Chain(_))),
            "{what}"
        );
    }
    // A good chain, and another's signature.
    assert_eq!(
        verifier.verify(&signed(&[leaf, middle], &stranger), NOW),
        Err(TokenError::Signature)
    );
    let no_base64 = token(&json!({"alg": "ES256", "x5c": ["*"]}), &claims(), &key);
    assert!(matches!(
        verifier.verify(&no_base64, NOW),
        Err(TokenError::Chain(_))
    ));
}

#[test]
fn keys_of_a_set() {
    let dir = TempDir::new().unwrap();
    let (ed, ec) = (pair("EdDSA"), pair("ES256"));
    let x = BASE64URL_NOPAD.encode(ed.public_key_raw());
    let point = ec.public_key_raw();
    let (ecx, ecy) = (
        BASE64URL_NOPAD.encode(&point[1..33]),
        BASE64URL_NOPAD.encode(&point[33..]),
    );
    let ec_jwk = json!({"kty": "EC", "crv": "P-256", "kid": "mine", "x": ecx, "y": ecy});
    let set = json!({"keys": [
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        {"kty": "future", "kid": "unknown"},
        {"kty": "OKP", "crv": "Ed25519", "x": x},
        ec_jwk,
    ]});
    let verifier = verifier(dir.path(), &[], Some(set), &[]).unwrap();
    let verify =
        |header: Value, key: &KeyPair| verifier.verify(&token(&header, &claims(), key), NOW);
    assert!(verify(json!({"alg": "ES256", "kid": "mine"}), &ec).is_ok());
    // Without a kid of its own, by its thumbprint.
    let thumbprint = super::super::key::ed25519_thumbprint(ed.public_key_raw());
    assert!(verify(json!({"alg": "EdDSA", "kid": thumbprint}), &ed).is_ok());
    // A key in the token says which one it is; what it says of itself is not believed.
    assert!(verify(json!({"alg": "ES256", "jwk": ec_jwk}), &ec).is_ok());
    let mut forged = ec_jwk.clone();
    forged["x"] = json!(BASE64URL_NOPAD.encode(&pair("ES256").public_key_raw()[1..33]));
    let stranger = pair("ES256");
    assert_eq!(
        verify(json!({"alg": "ES256", "jwk": forged}), &stranger).unwrap_err(),
        TokenError::Signature
    );
    forged["kid"] = json!("theirs");
    assert!(matches!(
        verify(json!({"alg": "ES256", "jwk": forged}), &stranger),
        Err(TokenError::UntrustedKey(_))
    ));
    // A secret is no public key.
    assert_eq!(
        verify(json!({"alg": "HS256", "kid": "shared"}), &ec).unwrap_err(),
        TokenError::UntrustedKey("shared".to_owned())
    );
}

#[test]
fn algorithms_can_be_chosen() {
    let dir = TempDir::new().unwrap();
    let key = pair("ES256");
    let certificate = self_signed(&key);
    let name = NamedKey::of_certificate(certificate.der())
        .unwrap()
        .names
        .remove(0);
    let good = token(&json!({"alg": "ES256", "kid": name}), &claims(), &key);
    for (algorithms, accepted) in [
        (vec!["ES256", "RS256"], true),
        (vec!["RS256", "HS256"], false),
    ] {
        let verifier = verifier(dir.path(), &[certificate.pem()], None, &algorithms).unwrap();
        assert_eq!(
            verifier.verify(&good, NOW).is_ok(),
            accepted,
            "{algorithms:?}"
        );
    }
}

#[test]
fn a_server_without_keys_is_none() {
    let dir = TempDir::new().unwrap();
    let none = |certificates: &[String], jwks| {
        verifier(dir.path(), certificates, jwks, &[])
            .map(|_| ())
            .unwrap_err()
    };
    assert!(matches!(none(&[], None), SetupError::NoKey));
    assert!(matches!(
        none(&["no PEM".to_owned()], None),
        SetupError::NoKey
    ));
    assert!(matches!(
        none(&[], Some(json!({"keys": []}))),
        SetupError::NoKey
    ));
    assert!(matches!(
        none(&[], Some(json!([]))),
        SetupError::Jwks { .. }
    ));
    let missing = Token {
        jwks: Some(dir.path().join("missing")),
        ..Token::default()
    };
    assert!(matches!(
        Verifier::open(&missing),
        Err(SetupError::Read { .. })
    ));
}

proptest! {
    #[test]
    fn no_text_panics_and_none_is_accepted(text in "[A-Za-z0-9_.-]{0,200}|\\PC{0,60}") {
        thread_local!(static ONE: (TempDir, Verifier, KeyPair, Vec<String>) = one("EdDSA"));
        prop_assert!(ONE.with(|(_, verifier, ..)| verifier.verify(&text, NOW)).is_err());
    }

    /// One bit of a good token turned makes a bad one.
    #[test]
    fn no_bit_can_be_turned(at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
        thread_local!(static ONE: (TempDir, Verifier, KeyPair, Vec<String>) = one("EdDSA"));
        ONE.with(|(_, verifier, key, names)| {
            let good = token(&json!({"alg": "EdDSA", "kid": names[0]}), &claims(), key);
            let mut bytes = good.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let Ok(bad) = String::from_utf8(bytes) else { return Ok(()) };
            prop_assert!(verifier.verify(&good, NOW).is_ok());
            prop_assert!(verifier.verify(&bad, NOW).is_err(), "{}", bad);
            Ok(())
        })?;
    }
}

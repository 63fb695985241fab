//! A token server's half: keys and certificates that openssl made, and JSON Web Tokens signed with them. Nothing of the
//! server under test is used, so that what it accepts is what others write.

use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::{BASE32, BASE64, BASE64URL_NOPAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};

/// A key and its certificate.
pub(crate) struct Signer {
    /// The algorithm that it signs with, as in the header of a token.
    pub(crate) algorithm: &'static str,
    key: PathBuf,
    /// In PEM.
    pub(crate) certificate: PathBuf,
}

impl Signer {
    /// With a certificate that it signed itself. Files begin with `name`.
    pub(crate) fn new(folder: &Path, name: &str, algorithm: &'static str) -> Self {
        let signer = Signer {
            algorithm,
            key: folder.join(format!("{name}.key")),
            certificate: folder.join(format!("{name}.crt")),
        };
        let options: &[&str] = match algorithm {
            "RS256" | "PS256" => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            "ES256" => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "ES384" => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            "EdDSA" => &["-algorithm", "ED25519"],
            _ => panic!("no key for {algorithm}"),
        };
        openssl(
            Command::new("openssl")
                .arg("genpkey")
                .args(options)
                .arg("-out")
                .arg(&signer.key),
        );
        openssl(
            Command::new("openssl")
                .args(["req", "-x509", "-new", "-days", "2", "-subj"])
                .arg(format!("/CN={name}"))
                .arg("-key")
                .arg(&signer.key)
                .arg("-out")
                .arg(&signer.certificate),
        );
        signer
    }

    /// With a certificate that `self` signed.
    pub(crate) fn issue(&self, folder: &Path, name: &str, algorithm: &'static str) -> Self {
        let signer = Signer::new(folder, name, algorithm);
        let request = folder.join(format!("{name}.csr"));
        openssl(
            Command::new("openssl")
                .args(["req", "-new", "-subj"])
                .arg(format!("/CN={name}"))
                .arg("-key")
                .arg(&signer.key)
                .arg("-out")
                .arg(&request),
        );
        let extensions = folder.join("leaf.ext");
        std::fs::write(
            &extensions,
            "basicConstraints=CA:FALSE\nextendedKeyUsage=codeSigning\n",
        )
        .expect("a file");
        openssl(
            Command::new("openssl")
                .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"])
                .arg(&request)
                .arg("-CA")
                .arg(&self.certificate)
                .arg("-CAkey")
                .arg(&self.key)
                .arg("-extfile")
                .arg(&extensions)
                .arg("-out")
                .arg(&signer.certificate),
        );
        signer
    }

    /// libtrust's name of the key, which distribution 2 uses.
    pub(crate) fn fingerprint(&self) -> String {
        let public = openssl(
            Command::new("openssl")
                .args(["pkey", "-pubout", "-outform", "DER", "-in"])
                .arg(&self.key),
        );
        let hash = ring::digest::digest(&ring::digest::SHA256, &public);
        let text = BASE32.encode(&hash.as_ref()[..30]);
        let groups: Vec<&str> = (0..12).map(|i| &text[4 * i..4 * i + 4]).collect();
        groups.join(":")
    }

    /// The certificate, as in `x5c`.
    pub(crate) fn der(&self) -> String {
        BASE64.encode(&openssl(
            Command::new("openssl")
                .args(["x509", "-outform", "DER", "-in"])
                .arg(&self.certificate),
        ))
    }

    /// `header` gets the `alg` of this key unless it has one.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let mut header = header.clone();
        if header.get("alg").is_none() {
            header["alg"] = json!(self.algorithm);
        }
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.sign(message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let pem = std::fs::read(&self.key).expect("a key");
        let key = rustls_pemfile::private_key(&mut &pem[..])
            .expect("PEM")
            .expect("a key");
        let (key, random) = (key.secret_der(), SystemRandom::new());
        let ecdsa = |algorithm| {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, key, &random).expect("a key");
            pair.sign(&random, message)
                .expect("a signature")
                .as_ref()
                .to_vec()
        };
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let pair = RsaKeyPair::from_pkcs8(key).expect("a key");
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(encoding, &random, message, &mut signature)
                .expect("a signature");
            signature
        };
        match self.algorithm {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "ES256" => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            _ => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).expect("a key");
                pair.sign(message).as_ref().to_vec()
            }
        }
    }
}

/// A part of a token.
pub(crate) fn part(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

/// What a part of a token says, as anybody can read it.
#[track_caller]
pub(crate) fn read_part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("a part");
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).expect("base64url"))
        .expect("JSON")
}

#[track_caller]
fn openssl(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("openssl runs");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

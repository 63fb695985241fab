//! Content digests (OCI image-spec, descriptor.md, "Digests").

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use sha2::Digest as _;

/// The registered algorithms this registry can store content under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Length of a hash value in bytes.
    pub fn size(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    pub fn hasher(self) -> Hasher {
        Hasher::new(self)
    }

    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Algorithm::ALL
            .into_iter()
            .find(|a| a.name() == text)
            .ok_or(DigestError::Algorithm)
    }
}

/// `algorithm:hex`. Made only by parsing or by finishing a hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Value);

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Value {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("a digest looks like sha256:<64 lowercase hex digits>")]
    Format,
    #[error("the digest algorithm is not one of sha256, sha512")]
    Algorithm,
    #[error("the digest has the wrong number of hex digits for its algorithm")]
    Length,
}

impl Digest {
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Value::Sha256(_) => Algorithm::Sha256,
            Value::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Value::Sha256(bytes) => bytes,
            Value::Sha512(bytes) => bytes,
        }
    }

    /// The hash value in lowercase hex.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(self.bytes().len() * 2);
        for byte in self.bytes() {
            hex.push(DIGITS[usize::from(byte >> 4)] as char);
            hex.push(DIGITS[usize::from(byte & 15)] as char);
        }
        hex
    }

    /// From the two path components that the disk layout splits a digest into.
    pub fn from_parts(algorithm: Algorithm, hex: &str) -> Result<Self, DigestError> {
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(DigestError::Format),
        };
        if hex.len() != algorithm.size() * 2 {
            return Err(DigestError::Length);
        }
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self::from_bytes(algorithm, &bytes[..algorithm.size()]))
    }

    fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Self {
        Digest(match algorithm {
            Algorithm::Sha256 => {
                let mut value = [0; 32];
                value.copy_from_slice(bytes);
                Value::Sha256(value)
            }
            Algorithm::Sha512 => {
                let mut value = [0; 64];
                value.copy_from_slice(bytes);
                Value::Sha512(value)
            }
        })
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::Format)?;
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+._-".contains(&c);
        if algorithm.is_empty() || hex.is_empty() || !algorithm.bytes().all(plain) {
            return Err(DigestError::Format);
        }
        Digest::from_parts(algorithm.parse()?, hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A running hash. The `sha2` crate where the CPU hashes in hardware, `ring`'s vector assembly where it does not:
/// each is the faster one there (docs/performance.md, "Which SHA-256").
#[derive(Clone)]
pub struct Hasher(Algorithm, State);

#[derive(Clone)]
enum State {
    Ring(Box<ring::digest::Context>),
    Sha256(Box<sha2::Sha256>),
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        let ring = |algorithm| State::Ring(Box::new(ring::digest::Context::new(algorithm)));
        let state = match algorithm {
            Algorithm::Sha256 if cpu_hashes() => State::Sha256(Box::default()),
            Algorithm::Sha256 => ring(&ring::digest::SHA256),
            Algorithm::Sha512 => ring(&ring::digest::SHA512),
        };
        Hasher(algorithm, state)
    }

    pub fn algorithm(&self) -> Algorithm {
        self.0
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.1 {
            State::Ring(context) => context.update(bytes),
            State::Sha256(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        match self.1 {
            State::Ring(context) => Digest::from_bytes(self.0, context.finish().as_ref()),
            State::Sha256(hasher) => Digest::from_bytes(self.0, &hasher.finalize()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.0).finish()
    }
}

fn cpu_hashes() -> bool {
    static HASHES: OnceLock<bool> = OnceLock::new();
    *HASHES.get_or_init(|| {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        return std::arch::is_x86_feature_detected!("sha");
        #[cfg(target_arch = "aarch64")]
        return std::arch::is_aarch64_feature_detected!("sha2");
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
        return false;
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_digests_of_nothing_are_the_published_ones() {
        assert_eq!(
            Algorithm::Sha256.digest(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(
            Algorithm::Sha512
                .digest(b"")
                .to_string()
                .starts_with("sha512:cf83e1357eefb8bdf1542850d66d8007")
        );
    }

    #[test]
    fn both_hash_implementations_agree() {
        let data: Vec<u8> = (0..100_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
        let ring = ring::digest::digest(&ring::digest::SHA256, &data);
        assert_eq!(ring.as_ref(), sha2::Sha256::digest(&data).as_slice());
        assert_eq!(ring.as_ref(), Algorithm::Sha256.digest(&data).bytes());
    }

    #[test]
    fn refuses_what_is_not_a_digest() {
        let hex = "a".repeat(64);
        for (text, error) in [
            (String::new(), DigestError::Format),
            ("sha256".into(), DigestError::Format),
            ("sha256:".into(), DigestError::Format),
            (format!("sha256:{hex}a"), DigestError::Length),
            (format!("sha256:{}\n", &hex[1..]), DigestError::Format),
            (format!("sha256:{}A", &hex[1..]), DigestError::Format),
            (format!("sha512:{hex}"), DigestError::Length),
            (format!("md5:{hex}"), DigestError::Algorithm),
            (format!("../x:{hex}"), DigestError::Format),
            (format!(" sha256:{hex}"), DigestError::Format),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parse_and_display_round_trip(data: Vec<u8>, long: bool) {
            let algorithm = if long { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let digest = algorithm.digest(&data);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
            prop_assert_eq!(Digest::from_parts(algorithm, &digest.hex()), Ok(digest));
        }

        #[test]
        fn never_panics_and_keeps_what_it_accepts(text in "(sha256|sha512|x):?[0-9a-g]{0,130}|\\PC*") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}

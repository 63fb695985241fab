//! The `Authorization` header (RFC 9110 section 11.6.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What somebody says to be known by.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials<'a> {
    /// RFC 7617.
    Basic { name: String, password: Vec<u8> },
    /// RFC 6750.
    Bearer(&'a str),
    /// Basic with neither name nor password: what podman and skopeo send when they have none.
    Nothing,
    /// Another scheme, or one of these that cannot be read.
    Unreadable,
}

impl<'a> Credentials<'a> {
    pub(super) fn parse(header: &'a str) -> Self {
        let Some((scheme, rest)) = header.trim().split_once(' ') else {
            return Credentials::Unreadable;
        };
        let rest = rest.trim_start();
        if scheme.eq_ignore_ascii_case("basic") {
            Self::basic(rest).unwrap_or(Credentials::Unreadable)
        } else if scheme.eq_ignore_ascii_case("bearer") {
            Credentials::Bearer(rest)
        } else {
            Credentials::Unreadable
        }
    }

    fn basic(encoded: &str) -> Option<Self> {
        let decoded = STANDARD.decode(encoded).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
        let password = decoded[colon + 1..].to_vec();
        Some(match (name.as_str(), password.as_slice()) {
            ("", []) => Credentials::Nothing,
            _ => Credentials::Basic { name, password },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(header: &str) -> String {
        match Credentials::parse(header) {
            Credentials::Basic { name, password } => {
                format!("{name}|{}", String::from_utf8_lossy(&password))
            }
            Credentials::Bearer(token) => format!("bearer {token}"),
            Credentials::Nothing => "nothing".to_owned(),
            Credentials::Unreadable => "unreadable".to_owned(),
        }
    }

    #[test]
    fn reads_what_clients_send() {
        for (header, expected) in [
            ("Basic YWxpY2U6c2VjcmV0", "alice|secret"),
            ("basic  YWxpY2U6c2U6Y3JldA==", "alice|se:cret"),
            ("Basic YWxpY2U6", "alice|"),
            ("Basic Og==", "nothing"),
            ("BEARER a.b.c", "bearer a.b.c"),
            ("Basic", "unreadable"),
            ("Basic ", "unreadable"),
            ("Basic YWxpY2U", "unreadable"),
            ("Basic YWxpY2U6c2VjcmV0 x", "unreadable"),
            ("Basic /3M6", "unreadable"),
            ("Digest username=\"alice\"", "unreadable"),
            ("", "unreadable"),
        ] {
            assert_eq!(shown(header), expected, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn any_password_arrives(name in "[^:\\x00-\\x1f]{1,20}", password in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes = [name.as_bytes(), b":", &password].concat();
            let header = format!("Basic {}", STANDARD.encode(bytes));
            let expected = Credentials::Basic { name, password };
            prop_assert!(Credentials::parse(&header) == expected);
        }

        #[test]
        fn nothing_panics(header in any::<String>()) {
            let _ = Credentials::parse(&header);
        }
    }
}

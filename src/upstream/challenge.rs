//! `WWW-Authenticate`: what an upstream wants to see before it answers (RFC 9110, section 11.6.1; RFC 6750; Docker's token
//! authentication).

/// One of the ways to authenticate that an upstream offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        /// The URL of the token server.
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best that the header's values offer, `None` if none of it is understood. Tokens go before passwords: a registry
    /// that has a token server takes passwords there.
    pub(super) fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut best = None;
        for challenge in values.flat_map(parse) {
            match challenge {
                Challenge::Bearer { .. } => return Some(challenge),
                Challenge::Basic => best = best.or(Some(challenge)),
            }
        }
        best
    }
}

/// Everything in one value of the header that is understood.
fn parse(value: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = value;
    while let Some((scheme, after)) = token(rest) {
        let mut parameters = Vec::new();
        rest = after;
        loop {
            let before = rest.trim_start_matches([' ', '\t', ',']);
            let Some((name, after)) = token(before) else {
                // Something that is no word: the rest cannot be made sense of.
                rest = "";
                break;
            };
            let Some(after) = after.trim_start().strip_prefix('=') else {
                rest = before; // a word without a value begins the next challenge
                break;
            };
            let Some((text, after)) = quoted_or_token(after.trim_start()) else {
                rest = "";
                break;
            };
            parameters.push((name.to_ascii_lowercase(), text));
            rest = after;
        }
        found.extend(challenge(scheme, parameters));
    }
    found
}

fn challenge(scheme: &str, mut parameters: Vec<(String, String)>) -> Option<Challenge> {
    let mut take = |name: &str| {
        let at = parameters.iter().position(|(known, _)| known == name)?;
        Some(parameters.swap_remove(at).1).filter(|value| !value.is_empty())
    };
    if scheme.eq_ignore_ascii_case("basic") {
        Some(Challenge::Basic)
    } else if scheme.eq_ignore_ascii_case("bearer") {
        Some(Challenge::Bearer {
            realm: take("realm")?,
            service: take("service"),
            scope: take("scope"),
        })
    } else {
        None
    }
}

/// A token of RFC 9110, section 5.6.2, at the beginning of `text`, and what comes after it.
fn token(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn quoted_or_token(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Challenge;
    use proptest::prelude::*;

    fn choose(values: &[&str]) -> Option<Challenge> {
        Challenge::choose(values.iter().copied())
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        })
    }

    #[test]
    fn what_registries_send_is_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        let expected = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:library/alpine:pull"),
        );
        assert_eq!(choose(&[hub]), expected);
        assert_eq!(
            choose(&[r#"BEARER Realm = "a\"b" , SCOPE=x"#]),
            bearer("a\"b", None, Some("x"))
        );
        assert_eq!(
            choose(&[r#"Basic realm="Registry Realm""#]),
            Some(Challenge::Basic)
        );
        assert_eq!(choose(&["basic"]), Some(Challenge::Basic));
    }

    #[test]
    fn a_token_server_goes_before_a_password() {
        let both = r#"Basic realm="x", Negotiate, Bearer realm="https://a/t", service=s"#;
        assert_eq!(choose(&[both]), bearer("https://a/t", Some("s"), None));
        assert_eq!(
            choose(&["Basic realm=x", r#"Bearer realm="https://a/t""#]),
            bearer("https://a/t", None, None)
        );
    }

    #[test]
    fn what_is_no_challenge_is_none() {
        for bad in [
            "",
            "Negotiate",
            "Bearer",
            "Bearer realm=",
            "Bearer realm=\"open",
            "=\"",
            "Digest realm=\"x\"",
        ] {
            assert_eq!(choose(&[bad]), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(value in ".{0,200}") {
            let _ = choose(&[&value]);
        }

        #[test]
        fn values_arrive_as_they_were_sent(realm in "[ -~]{1,40}", scope in "[ -~]{1,40}") {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let value = format!("Bearer realm=\"{}\",scope=\"{}\"", quote(&realm), quote(&scope));
            prop_assert_eq!(choose(&[&value]), bearer(&realm, None, Some(&scope)));
        }
    }
}

//! Patterns of repository names: what rules and policies are written with.

use std::fmt;
use std::str::FromStr;

use super::RepoName;

/// Which repositories: `team/app` is that one, `*` stands for anything within a component, `**` for any components.
///
/// As in git's ignore files, `team/**` is everything below `team` and not `team` itself, `**/app` is `app` at any depth,
/// and `**` alone is every repository.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RepoPattern {
    text: String,
    components: Vec<Component>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Component {
    /// `**`: any number of components, none included.
    Any,
    /// May have `*` in it.
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern has 1 to 255 characters")]
    Length,
    #[error(
        "a pattern consists of lowercase letters, digits, `.`, `_`, `-` and `*`, in components joined by `/`"
    )]
    Format,
    #[error("`**` stands for whole components: write `team/**`, or `team-*`")]
    Stars,
}

impl RepoPattern {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Takes time proportional to the two lengths at worst, whoever wrote them.
    pub fn matches(&self, name: &RepoName) -> bool {
        let name: Vec<&str> = name.as_str().split('/').collect();
        wildcard(
            &self.components,
            &name,
            |component| *component == Component::Any,
            |component, name| match component {
                Component::Any => true,
                Component::Text(text) => {
                    wildcard(text.as_bytes(), name.as_bytes(), |c| *c == b'*', u8::eq)
                }
            },
        )
    }
}

/// Whether `text` is what `pattern` says, where some of its items stand for any run of items: greedy, going back to the
/// last such item alone, which is enough.
pub(super) fn wildcard<P, T>(
    pattern: &[P],
    text: &[T],
    is_any: impl Fn(&P) -> bool,
    is_same: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    // After the last run: where the pattern goes on, and what of the text the run has taken.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(item) if is_any(item) => {
                p += 1;
                back = Some((p, t));
            }
            Some(item) if is_same(item, &text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match &mut back {
                Some((after, taken)) => {
                    *taken += 1;
                    (p, t) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(is_any)
}

impl FromStr for RepoPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > RepoName::MAX {
            return Err(PatternError::Length);
        }
        let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-*".contains(&c);
        let mut components = Vec::new();
        for component in text.split('/') {
            if component.is_empty() || !component.bytes().all(known) {
                return Err(PatternError::Format);
            }
            components.push(match component {
                "**" => Component::Any,
                _ if component.contains("**") => return Err(PatternError::Stars),
                _ => Component::Text(component.to_owned()),
            });
        }
        // At the end it is what lies below.
        if components.len() > 1 && components.last() == Some(&Component::Any) {
            components.insert(components.len() - 1, Component::Text("*".to_owned()));
        }
        Ok(RepoPattern {
            text: text.to_owned(),
            components,
        })
    }
}

impl From<&RepoName> for RepoPattern {
    /// The pattern that is this one repository.
    fn from(name: &RepoName) -> Self {
        let components = name.as_str().split('/');
        RepoPattern {
            text: name.to_string(),
            components: components
                .map(|component| Component::Text(component.to_owned()))
                .collect(),
        }
    }
}

impl fmt::Display for RepoPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RepoPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let name: RepoName = name.parse().unwrap();
        pattern.parse::<RepoPattern>().unwrap().matches(&name)
    }

    #[test]
    fn matches_as_gits_ignore_files_do() {
        for (pattern, yes, no) in [
            ("app", &["app"][..], &["apps", "a", "team/app", "app/x"][..]),
            ("**", &["a", "a/b", "a/b/c"], &[]),
            ("*", &["a", "app"], &["a/b"]),
            (
                "team/**",
                &["team/a", "team/a/b"],
                &["team", "teams/a", "x/team/a"],
            ),
            ("team/*", &["team/a"], &["team", "team/a/b"]),
            ("**/app", &["app", "a/app", "a/b/app"], &["a/apps", "app/a"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a", "a/z/b", "z"]),
            ("team-*/app", &["team-a/app", "team-b-c/app"], &["team/app"]),
            ("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "a/b"]),
            ("**/x/**", &["x/a", "a/x/b/c"], &["x", "a/x"]),
        ] {
            for name in yes {
                assert!(matches(pattern, name), "{pattern} is to match {name}");
            }
            for name in no {
                assert!(!matches(pattern, name), "{pattern} is not to match {name}");
            }
        }
    }

    #[test]
    fn refuses_what_can_match_nothing() {
        use PatternError::{Format, Length, Stars};
        for (text, error) in [
            ("", Length),
            ("/", Format),
            ("a/", Format),
            ("/a", Format),
            ("a//b", Format),
            ("Team/*", Format),
            ("a b", Format),
            ("a?", Format),
            ("team**", Stars),
            ("***", Stars),
        ] {
            assert_eq!(text.parse::<RepoPattern>(), Err(error), "{text:?}");
        }
        assert_eq!("a".repeat(256).parse::<RepoPattern>(), Err(Length));
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_nothing_else(
            a in "[a-z0-9]{1,3}(/[a-z0-9]{1,3}){0,3}",
            b in "[a-z0-9]{1,3}(/[a-z0-9]{1,3}){0,3}",
        ) {
            let name: RepoName = a.parse().unwrap();
            prop_assert!(RepoPattern::from(&name).matches(&name));
            prop_assert_eq!(matches(&a, &b), a == b);
        }

        /// Against a search that tries everything.
        #[test]
        fn agrees_with_a_search(pattern in "(a|b|\\*|\\*\\*|a\\*|\\*b)(/(a|b|\\*|\\*\\*|a\\*)){0,4}", name in "[ab]{1,2}(/[ab]{1,2}){0,4}") {
            fn text(p: &[u8], t: &[u8]) -> bool {
                match p.split_first() {
                    None => t.is_empty(),
                    Some((b'*', rest)) => (0..=t.len()).any(|n| text(rest, &t[n..])),
                    Some((c, rest)) => t.split_first().is_some_and(|(d, t)| c == d && text(rest, t)),
                }
            }
            fn all(p: &[&str], t: &[&str], whole: bool) -> bool {
                match p.split_first() {
                    None => t.is_empty(),
                    Some((&"**", rest)) => {
                        let least = usize::from(rest.is_empty() && !whole);
                        (least..=t.len()).any(|n| all(rest, &t[n..], false))
                    }
                    Some((c, rest)) => t.split_first().is_some_and(|(d, t)| text(c.as_bytes(), d.as_bytes()) && all(rest, t, false)),
                }
            }
            let (p, t): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), name.split('/').collect());
            prop_assert_eq!(matches(&pattern, &name), all(&p, &t, true));
        }
    }
}

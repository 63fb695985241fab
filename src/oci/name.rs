//! Repository names (distribution-spec, "Pulling manifests": `<name>`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A repository name such as `team/app`: lowercase components joined by `/`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoName(Arc<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a repository name has at most 255 characters")]
    TooLong,
    #[error(
        "a repository name consists of lowercase letters and digits, separated by one `.`, one or two `_`, or any \
         number of `-`, in components joined by `/`"
    )]
    Format,
}

impl RepoName {
    /// CNCF distribution's and docker's limit.
    pub const MAX: usize = 255;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the repository `component` below this one; `None` when that is not a name.
    pub fn child(&self, component: &str) -> Option<RepoName> {
        if component.contains('/') {
            return None;
        }
        format!("{self}/{component}").parse().ok()
    }

    /// Order of CNCF distribution's catalog: by component, so that `a/b` comes before `a-b` (`/` sorts before all).
    pub fn cmp_components(&self, other: &RepoName) -> std::cmp::Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }
}

impl FromStr for RepoName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > RepoName::MAX {
            return Err(NameError::TooLong);
        }
        if text.split('/').all(is_component) {
            Ok(RepoName(text.into()))
        } else {
            Err(NameError::Format)
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let word = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !word(*first) || !word(*last) {
        return false;
    }
    bytes
        .split(|c| word(*c))
        .filter(|separator| !separator.is_empty())
        .all(|separator| {
            matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|c| *c == b'-')
        })
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_the_names_of_the_specification() {
        for name in [
            "a",
            "library/busybox",
            "a.b_c__d---e/f0",
            "0/1/2",
            &"a".repeat(255),
        ] {
            assert_eq!(
                name.parse::<RepoName>().map(|n| n.to_string()),
                Ok(name.to_owned())
            );
        }
    }

    #[test]
    fn refuses_everything_else() {
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a._b",
            "a___b",
            "_a",
            "a_",
            "-a",
            "a-",
            ".",
            "..",
            "../a",
            "a/..",
            "a/./b",
            "_layers",
            "a/_manifests",
            "a b",
            "a%2fb",
            "ä",
            "a\0",
        ] {
            assert_eq!(name.parse::<RepoName>(), Err(NameError::Format), "{name:?}");
        }
        assert_eq!("a".repeat(256).parse::<RepoName>(), Err(NameError::TooLong));
    }

    #[test]
    fn sorts_by_component() {
        let mut names: Vec<RepoName> = ["a-b", "a/b", "a", "ab", "a.b"]
            .iter()
            .map(|n| n.parse().unwrap())
            .collect();
        names.sort_by(RepoName::cmp_components);
        assert_eq!(
            names.iter().map(RepoName::as_str).collect::<Vec<_>>(),
            ["a", "a/b", "a-b", "a.b", "ab"]
        );
    }

    proptest! {
        #[test]
        fn every_prefix_of_a_name_at_a_slash_is_a_name(name in "[a-z0-9]{1,3}([._-][a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}){0,4}") {
            let mut prefix: Option<RepoName> = None;
            for component in name.split('/') {
                prefix = match prefix {
                    None => component.parse().ok(),
                    Some(parent) => parent.child(component),
                };
                prop_assert!(prefix.is_some());
            }
            prop_assert_eq!(prefix.unwrap().to_string(), name);
        }

        #[test]
        fn what_is_accepted_stays_in_its_folder(text in "[a-z_./-]{0,12}|\\PC{0,20}") {
            if let Ok(name) = text.parse::<RepoName>() {
                for component in name.as_str().split('/') {
                    prop_assert!(!component.is_empty() && !component.starts_with(['.', '_']));
                }
            }
        }
    }
}

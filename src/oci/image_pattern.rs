//! Patterns of tags, and of tags together with their repositories: `pr-*`, `team/**:v*`, `team/app@sha256:...`.

use std::fmt;
use std::str::FromStr;

use super::pattern::wildcard;
use super::{Digest, DigestError, PatternError, RepoName, RepoPattern, Tag};

/// Which tags: `v1` is that one, `*` stands for any run of characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TagPattern(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern of tags has 1 to 128 letters, digits, `.`, `_`, `-` and `*`")]
pub struct TagPatternError;

impl TagPattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes time proportional to the two lengths at worst, whoever wrote them.
    pub fn matches(&self, tag: &Tag) -> bool {
        wildcard(
            self.0.as_bytes(),
            tag.as_str().as_bytes(),
            |c| *c == b'*',
            u8::eq,
        )
    }

    /// The one tag that it can match, if it is one without `*`.
    pub fn as_tag(&self) -> Option<Tag> {
        self.0.parse().ok()
    }
}

impl FromStr for TagPattern {
    type Err = TagPatternError;

    fn from_str(text: &str) -> Result<Self, TagPatternError> {
        let known = |c: u8| c.is_ascii_alphanumeric() || b"._-*".contains(&c);
        // No tag begins so.
        let can_match = !text.starts_with(['.', '-']);
        if (1..=128).contains(&text.len()) && text.bytes().all(known) && can_match {
            Ok(TagPattern(text.to_owned()))
        } else {
            Err(TagPatternError)
        }
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which tags of which repositories: `v*` in all of them, `team/**:v*` in those.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TagsOf {
    /// None: all.
    repositories: Option<RepoPattern>,
    tags: TagPattern,
}

impl TagsOf {
    pub fn matches(&self, repo: &RepoName, tag: &Tag) -> bool {
        let of_repo = |pattern: &RepoPattern| pattern.matches(repo);
        self.repositories.as_ref().is_none_or(of_repo) && self.tags.matches(tag)
    }
}

impl FromStr for TagsOf {
    type Err = ImagePatternError;

    fn from_str(text: &str) -> Result<Self, ImagePatternError> {
        let (repositories, tags) = match text.rsplit_once(':') {
            Some((repositories, tags)) => (Some(repositories.parse()?), tags),
            None => (None, text),
        };
        Ok(TagsOf {
            repositories,
            tags: tags.parse()?,
        })
    }
}

impl fmt::Display for TagsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(repositories) = &self.repositories {
            write!(f, "{repositories}:")?;
        }
        self.tags.fmt(f)
    }
}

/// Which images: `team/app` is all that a repository has, `team/**:pr-*` are tags, `team/app@sha256:...` is a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImagePattern {
    pub repositories: RepoPattern,
    pub part: ImagePart,
}

/// What of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImagePart {
    All,
    Tags(TagPattern),
    Manifest(Digest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImagePatternError {
    #[error(transparent)]
    Repositories(#[from] PatternError),
    #[error(transparent)]
    Tags(#[from] TagPatternError),
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl FromStr for ImagePattern {
    type Err = ImagePatternError;

    fn from_str(text: &str) -> Result<Self, ImagePatternError> {
        let (repositories, part) = if let Some((repositories, digest)) = text.split_once('@') {
            (repositories, ImagePart::Manifest(digest.parse()?))
        } else if let Some((repositories, tags)) = text.rsplit_once(':') {
            (repositories, ImagePart::Tags(tags.parse()?))
        } else {
            (text, ImagePart::All)
        };
        Ok(ImagePattern {
            repositories: repositories.parse()?,
            part,
        })
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repositories = &self.repositories;
        match &self.part {
            ImagePart::All => repositories.fmt(f),
            ImagePart::Tags(tags) => write!(f, "{repositories}:{tags}"),
            ImagePart::Manifest(digest) => write!(f, "{repositories}@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_are_matched_as_a_whole() {
        for (pattern, yes, no) in [
            ("v1", &["v1"][..], &["v10", "v", "V1"][..]),
            ("*", &["a", "_", "v1.2.3-rc"], &[]),
            ("pr-*", &["pr-1", "pr-"], &["pr", "xpr-1"]),
            ("v*.*", &["v1.2", "v.", "v1.2.3"], &["v1", "1.2"]),
        ] {
            let pattern: TagPattern = pattern.parse().unwrap();
            for tag in yes {
                assert!(pattern.matches(&tag.parse().unwrap()), "{pattern} {tag}");
            }
            for tag in no {
                assert!(!pattern.matches(&tag.parse().unwrap()), "{pattern} {tag}");
            }
        }
        for bad in ["", ".a", "-*", "a b", "a/b", "a?", &"x".repeat(129)] {
            assert!(bad.parse::<TagPattern>().is_err(), "{bad}");
        }
        assert!("v*".parse::<TagPattern>().unwrap().as_tag().is_none());
    }

    #[test]
    fn a_tag_alone_is_one_of_every_repository() {
        let all: TagsOf = "v*".parse().unwrap();
        let some: TagsOf = "team/**:v*".parse().unwrap();
        let (app, other) = ("team/app".parse().unwrap(), "other".parse().unwrap());
        let (v1, latest) = ("v1".parse().unwrap(), "latest".parse().unwrap());
        assert!(all.matches(&app, &v1) && all.matches(&other, &v1));
        assert!(some.matches(&app, &v1) && !some.matches(&other, &v1));
        assert!(!some.matches(&app, &latest));
        for bad in ["", ":", "a:", ":v1", "Team:v1", "team/**"] {
            assert!(bad.parse::<TagsOf>().is_err(), "{bad}");
        }
    }

    #[test]
    fn images_are_repositories_tags_or_a_manifest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let part = |text: &str| text.parse::<ImagePattern>().unwrap().part;
        assert_eq!(part("team/**"), ImagePart::All);
        assert_eq!(part("a:v1"), ImagePart::Tags("v1".parse().unwrap()));
        assert!(matches!(
            part(&format!("a@{digest}")),
            ImagePart::Manifest(_)
        ));
        for bad in [
            "",
            ":v1",
            "a:",
            "a@",
            "a@sha256:1",
            "a:v1@x",
            "host:5000/a:v1",
        ] {
            assert!(bad.parse::<ImagePattern>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "[a-z*/]{1,8}((:[a-z.*]{1,8})|(@sha256:[0-9a-f]{64}))?") {
            if let Ok(pattern) = text.parse::<ImagePattern>() {
                prop_assert_eq!(pattern.to_string(), text.clone());
            }
            if let Ok(pattern) = text.parse::<TagsOf>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<ImagePattern>();
            let _ = text.parse::<TagsOf>();
        }

        #[test]
        fn a_tag_matches_itself_and_nothing_else(a in "[a-z0-9]{1,3}", b in "[a-z0-9]{1,3}") {
            let tag: Tag = a.parse().unwrap();
            prop_assert!(a.parse::<TagPattern>().unwrap().matches(&tag));
            prop_assert_eq!(b.parse::<TagPattern>().unwrap().matches(&tag), a == b);
        }
    }
}

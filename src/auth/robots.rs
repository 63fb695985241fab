//! API keys for machines, in a file beside the users': `ci sha256=... allow=pull,push repositories=team/** expires=...`
//!
//! A key is 32 random bytes. Nobody can guess or search such a thing, so one SHA-256 keeps it as safe as bcrypt would, and
//! a request costs a microsecond and not a tenth of a second.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom as _;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::access::Permissions;
use super::htpasswd::{BadLine, check_name};
use super::identity::Grant;
use crate::oci::RepoPattern;

/// What keys begin with, for those who search for leaked ones.
const KEY_PREFIX: &str = "rrk_";
const KEY_BYTES: usize = 32;

/// One of them, without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Robot {
    pub(crate) name: String,
    /// SHA-256 of the key.
    hash: [u8; 32],
    pub(crate) allow: Permissions,
    /// At least one.
    pub(crate) repositories: Vec<RepoPattern>,
    /// None: never.
    pub(crate) expires: Option<OffsetDateTime>,
}

/// The robots with a good line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Robots(HashMap<String, Robot>);

impl Robot {
    /// A new one, and its key, which is nowhere else.
    ///
    /// # Errors
    /// A system that has no randomness.
    pub(crate) fn new(
        name: String,
        allow: Permissions,
        repositories: Vec<RepoPattern>,
        expires: Option<OffsetDateTime>,
    ) -> Result<(Self, String), ring::error::Unspecified> {
        let mut bytes = [0; KEY_BYTES];
        ring::rand::SystemRandom::new().fill(&mut bytes)?;
        let key = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let robot = Robot {
            name,
            hash: Sha256::digest(&key).into(),
            allow: allow.implied(),
            repositories,
            expires,
        };
        Ok((robot, key))
    }

    pub(crate) fn has_expired(&self, now: OffsetDateTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// SHA-256 of the key.
    pub(super) fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    pub(super) fn scope(&self) -> Arc<[Grant]> {
        let patterns = self.repositories.iter();
        let grants = patterns.map(|pattern| Grant {
            repositories: Some(pattern.clone()),
            permissions: self.allow,
        });
        // The catalog shows a robot what its scope has.
        let server = Grant {
            repositories: None,
            permissions: self.allow,
        };
        grants.chain([server]).collect()
    }
}

impl Robots {
    pub(super) fn parse(text: &str) -> (Self, Vec<BadLine>) {
        let (mut robots, mut bad) = (HashMap::new(), Vec::new());
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.parse::<Robot>() {
                Ok(robot) => {
                    robots.insert(robot.name.clone(), robot);
                }
                Err(why) => bad.push(BadLine {
                    line: i + 1,
                    text: why.to_owned(),
                }),
            }
        }
        (Robots(robots), bad)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Robot> {
        self.0.get(name)
    }

    /// The robot of that name if `key` is its key. Takes as long when there is none.
    pub(super) fn check(&self, name: &str, key: &[u8], now: OffsetDateTime) -> Option<&Robot> {
        let robot = self.0.get(name);
        let presented: [u8; 32] = Sha256::digest(key).into();
        let expected = robot.map_or([0; 32], |robot| robot.hash);
        let is_key = expected
            .iter()
            .zip(presented)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0;
        robot.filter(|robot| is_key && !robot.has_expired(now))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Robot> {
        self.0.values()
    }
}

/// All robots of a file's text, by name, and its bad lines.
pub(crate) fn list(text: &str) -> (Vec<Robot>, Vec<BadLine>) {
    let (robots, bad) = Robots::parse(text);
    let mut robots: Vec<Robot> = robots.iter().cloned().collect();
    robots.sort_by(|a, b| a.name.cmp(&b.name));
    (robots, bad)
}

impl FromStr for Robot {
    type Err = &'static str;

    fn from_str(line: &str) -> Result<Self, &'static str> {
        let mut fields = line.split_whitespace();
        let name = fields.next().unwrap_or_default();
        check_name(name)?;
        let (mut hash, mut allow, mut repositories, mut expires) =
            (None, Permissions::NONE, Vec::new(), None);
        for field in fields {
            let (key, value) = field.split_once('=').ok_or("a field is not NAME=VALUE")?;
            match key {
                "sha256" => {
                    hash = Some(from_hex(value).ok_or("sha256 is not 64 hexadecimal digits")?)
                }
                "allow" => {
                    for word in value.split(',') {
                        let permission = word.parse().map_err(|()| "allow has an unknown word")?;
                        allow = allow.with(permission);
                    }
                }
                "repositories" => {
                    for pattern in value.split(',') {
                        let pattern = pattern.parse().map_err(|_| "repositories has no pattern")?;
                        repositories.push(pattern);
                    }
                }
                "expires" => {
                    let time = OffsetDateTime::parse(value, &Rfc3339);
                    expires = Some(time.map_err(|_| "expires is no time as 2027-01-31T00:00:00Z")?);
                }
                // A restriction that this version does not know must not be passed over.
                _ => return Err("has a field that is not known"),
            }
        }
        if repositories.is_empty() || allow.is_empty() {
            return Err("needs allow and repositories");
        }
        Ok(Robot {
            name: name.to_owned(),
            hash: hash.ok_or("needs sha256")?,
            allow,
            repositories,
            expires,
        })
    }
}

impl fmt::Display for Robot {
    /// Its line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sha256=", self.name)?;
        self.hash
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        let allow: Vec<&str> = self.allow.iter().map(|p| p.as_str()).collect();
        let repositories: Vec<&str> = self.repositories.iter().map(RepoPattern::as_str).collect();
        write!(
            f,
            " allow={} repositories={}",
            allow.join(","),
            repositories.join(",")
        )?;
        match self.expires.and_then(|time| time.format(&Rfc3339).ok()) {
            Some(expires) => write!(f, " expires={expires}"),
            None => Ok(()),
        }
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::access::Permission;

    fn new(expires: Option<OffsetDateTime>) -> (Robot, String) {
        let allow = Permissions::NONE.with(Permission::Push);
        Robot::new(
            "ci".to_owned(),
            allow,
            vec!["team/**".parse().unwrap()],
            expires,
        )
        .unwrap()
    }

    #[test]
    fn a_robot_is_its_line() {
        let expires = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        for expires in [None, Some(expires)] {
            let (robot, key) = new(expires);
            let line = robot.to_string();
            assert!(!line.contains(&key) && key.len() > 40 && key.starts_with("rrk_"));
            assert_eq!(line.parse(), Ok(robot.clone()), "{line}");
            assert_eq!(robot.allow.to_string(), "pull, push");
        }
    }

    #[test]
    fn only_its_key_opens_and_only_in_time() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let (robot, key) = new(Some(now + time::Duration::SECOND));
        let (robots, bad) = Robots::parse(&format!(
            "# c\n{robot}\nx y\nold sha256=00 allow=pull repositories=a\n"
        ));
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [3, 4]);
        assert!(robots.check("ci", key.as_bytes(), now).is_some());
        assert!(
            robots
                .check("ci", key.as_bytes(), now + time::Duration::SECOND)
                .is_none()
        );
        assert!(robots.check("ci", b"", now).is_none());
        assert!(robots.check("other", key.as_bytes(), now).is_none());
    }

    #[test]
    fn what_is_not_understood_lets_nobody_in() {
        let (robot, _) = new(None);
        for line in [
            format!("{robot} from=10.0.0.0/8"),
            robot.to_string().replace("team/**", "Team"),
            robot.to_string().replace("pull,push", "read"),
            robot.to_string().replace("allow=", "deny="),
            "ci".to_owned(),
        ] {
            assert!(line.parse::<Robot>().is_err(), "{line}");
        }
    }
}

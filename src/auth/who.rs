//! Whom a rule speaks of.

use std::fmt;

use super::identity::{Identity, ROBOT_PREFIX, Subject};

/// One item of `who`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Anyone,
    /// Who did not say who they are.
    Anonymous,
    Users,
    User(String),
    Group(String),
    Robots,
    Robot(String),
    Certificates,
    Certificate(String),
    /// Whoever has a token, which says the rest. Only in rules of our own.
    Bearers,
}

impl Who {
    pub(super) fn is(&self, identity: &Identity) -> bool {
        match (self, &identity.subject) {
            (Who::Anyone, _) => true,
            (Who::Bearers, _) => identity.token.is_some(),
            (Who::Anonymous, subject) => *subject == Subject::Anonymous,
            (Who::Users, Subject::User { .. })
            | (Who::Robots, Subject::Robot { .. })
            | (Who::Certificates, Subject::Certificate { .. }) => true,
            (Who::User(wanted), Subject::User { name, .. })
            | (Who::Robot(wanted), Subject::Robot { name, .. })
            | (Who::Certificate(wanted), Subject::Certificate { name }) => **wanted == **name,
            (Who::Group(wanted), Subject::User { groups, .. }) => groups.contains(wanted),
            _ => false,
        }
    }

    /// # Errors
    /// What is wrong with it, after the text itself.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (kind, name) = text.split_once(':').unwrap_or(("", text));
        if name.is_empty() || name.contains(|c: char| c.is_control() || c == ':') {
            return Err("is no name");
        }
        let name = name.to_owned();
        Ok(match (kind, name.as_str()) {
            ("", "anyone") => Who::Anyone,
            ("", "anonymous") => Who::Anonymous,
            ("", "users") => Who::Users,
            ("", "robots") => Who::Robots,
            ("", "certificates") => Who::Certificates,
            ("", robot) if robot.starts_with(ROBOT_PREFIX) => {
                Who::Robot(robot[ROBOT_PREFIX.len()..].to_owned())
            }
            ("" | "user", _) => Who::User(name),
            ("group", _) => Who::Group(name),
            ("robot", _) => Who::Robot(name),
            ("certificate", _) => Who::Certificate(name),
            _ => {
                return Err("begins with none of user:, group:, robot: and certificate:");
            }
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Anyone => f.write_str("anyone"),
            Who::Anonymous => f.write_str("anonymous"),
            Who::Users => f.write_str("users"),
            Who::User(name) => write!(f, "user:{name}"),
            Who::Group(name) => write!(f, "group:{name}"),
            Who::Robots => f.write_str("robots"),
            Who::Robot(name) => write!(f, "robot:{name}"),
            Who::Certificates => f.write_str("certificates"),
            Who::Certificate(name) => write!(f, "certificate:{name}"),
            Who::Bearers => f.write_str("whom their token allows it"),
        }
    }
}

//! `WWW-Authenticate` (RFC 9110 section 11.6.1): how a client can say who it is.

use std::fmt::Write as _;

use super::access::{Access, Permission};
use super::tokens::Fault;

/// What a client that was refused is told to come back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The values of as many headers, the best one first.
    pub(crate) headers: Vec<String>,
}

/// RFC 7617.
pub(super) fn basic(realm: &str) -> String {
    format!("Basic realm={}", quoted(realm))
}

/// RFC 6750 section 3, with distribution's `service` and `scope`.
pub(super) fn bearer(realm: &str, service: &str, access: &Access<'_>, fault: Fault) -> String {
    let mut header = format!("Bearer realm={},service={}", quoted(realm), quoted(service));
    let scopes = scopes(access);
    if !scopes.is_empty() {
        let _ = write!(header, ",scope={}", quoted(&scopes));
    }
    if let Some(error) = fault.as_str() {
        let _ = write!(header, ",error={}", quoted(error));
    }
    header
}

/// What a token has to grant for it, as distribution spells it: `repository:a:pull,push repository:b:pull`.
fn scopes(access: &Access<'_>) -> String {
    let Some(permission) = access.action.permission() else {
        return String::new();
    };
    let actions = match permission {
        Permission::Push => "pull,push",
        permission => permission.as_str(),
    };
    let mut scopes = match (permission, access.repository) {
        (_, Some(name)) => format!("repository:{name}:{actions}"),
        (_, None) => "registry:catalog:*".to_owned(),
    };
    if let Some(from) = access.also_pull {
        let _ = write!(scopes, " repository:{from}:pull");
    }
    scopes
}

/// A quoted string (RFC 9110 section 5.6.4) of what can stand in one.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text
        .chars()
        .filter(|c| c.is_ascii() && !c.is_ascii_control())
    {
        if c == '"' || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_cannot_break_out_of_its_quotes() {
        assert_eq!(basic("Registry"), "Basic realm=\"Registry\"");
        assert_eq!(basic("a\"b\\c\r\nX: ä"), "Basic realm=\"a\\\"b\\\\cX: \"");
    }
}

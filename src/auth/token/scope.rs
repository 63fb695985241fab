//! What tokens are asked for and used for: `repository:team/app:pull,push`.
//!
//! The grammar is distribution's ("Token Scope Documentation"), read as its token servers read it: what is no scope is
//! left out, and never an error.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The type of a resource that is a repository.
pub(crate) const REPOSITORY: &str = "repository";
/// The type of what concerns the whole server; the only name in use is [`CATALOG`].
pub(crate) const REGISTRY: &str = "registry";
pub(crate) const CATALOG: &str = "catalog";
/// As an action: all of them.
pub(crate) const ANY: &str = "*";

/// Actions on one resource: a scope, and an element of the `access` claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResourceActions {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    /// `plugin` of `repository(plugin)`: out of use, and of no meaning to who may do what.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "or_default"
    )]
    pub(crate) class: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) actions: Vec<String>,
}

/// Servers written in Go say `null` for an empty list.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ResourceActions {
    #[cfg(test)]
    pub(crate) fn repository(name: &str, actions: &[&str]) -> Self {
        ResourceActions {
            kind: REPOSITORY.to_owned(),
            class: String::new(),
            name: name.to_owned(),
            actions: actions.iter().map(|&action| action.to_owned()).collect(),
        }
    }

    #[cfg(test)]
    pub(crate) fn catalog() -> Self {
        ResourceActions {
            kind: REGISTRY.to_owned(),
            class: String::new(),
            name: CATALOG.to_owned(),
            actions: vec![ANY.to_owned()],
        }
    }

    /// `type[(class)]:name:action[,action]...`; the name may have a colon, before a port. None for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let (kind, class) = match kind.split_once('(') {
            Some((kind, class)) => (kind, class.strip_suffix(')')?),
            None => (kind, ""),
        };
        let is_word = |word: &str| {
            word.bytes()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        let is_name = |c: u8| c.is_ascii_alphanumeric() || b"._-/:".contains(&c);
        if kind.is_empty()
            || !is_word(kind)
            || !is_word(class)
            || name.is_empty()
            || !name.bytes().all(is_name)
        {
            return None;
        }
        let mut known: Vec<String> = Vec::new();
        for action in actions.split(',').filter(|action| !action.is_empty()) {
            if action != ANY && !action.bytes().all(|c| c.is_ascii_lowercase()) {
                return None;
            }
            if !known.iter().any(|one| one == action) {
                known.push(action.to_owned());
            }
        }
        Some(ResourceActions {
            kind: kind.to_owned(),
            class: class.to_owned(),
            name: name.to_owned(),
            actions: known,
        })
    }

    fn allows(&self, kind: &str, name: &str, action: &str) -> bool {
        self.kind == kind
            && self.name == name
            && self.actions.iter().any(|one| one == ANY || one == action)
    }
}

impl fmt::Display for ResourceActions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.class.is_empty() {
            write!(f, "({})", self.class)?;
        }
        write!(f, ":{}:{}", self.name, self.actions.join(","))
    }
}

/// A list of scopes, as in the `scope` of a request or a challenge, and in the `access` claim of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Scopes(pub(crate) Vec<ResourceActions>);

impl Scopes {
    /// A request asks for no more than this; a push with mounts from many repositories asks for a dozen.
    pub(crate) const MAX: usize = 100;

    /// From the values of `scope`, each of which may be a list with spaces between. What is no scope is left out, and
    /// so is everything after [`Self::MAX`].
    pub(crate) fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let words = values.into_iter().flat_map(|value| value.split(' '));
        let scopes = words.filter(|word| !word.is_empty()).take(Self::MAX);
        Scopes(scopes.filter_map(ResourceActions::parse).collect())
    }

    /// Whether all of `needed` is in these. Classes mean nothing, as in distribution.
    pub(crate) fn allow(&self, needed: &Scopes) -> bool {
        needed.0.iter().all(|resource| {
            resource.actions.iter().all(|action| {
                self.0
                    .iter()
                    .any(|granted| granted.allows(&resource.kind, &resource.name, action))
            })
        })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, scope) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{scope}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> String {
        Scopes::parse([text]).to_string()
    }

    #[test]
    fn what_clients_send() {
        for scope in [
            "repository:samalba/my-app:pull,push",
            "repository:a:push,pull",
            "repository:a:pull,push repository:b/c:pull",
            "registry:catalog:*",
            "repository(plugin):a/b:pull",
            "repository:host.lan:5000/a:pull",
            "repository:a:delete",
            "repository:a:",
        ] {
            assert_eq!(parsed(scope), scope);
        }
        let several = [
            "repository:a:pull",
            "repository:b:pull,push registry:catalog:*",
        ];
        assert_eq!(
            Scopes::parse(several).to_string(),
            "repository:a:pull repository:b:pull,push registry:catalog:*"
        );
    }

    #[test]
    fn what_is_no_scope_is_left_out() {
        for text in [
            "",
            " ",
            "repository",
            "repository:a",
            ":a:pull",
            "repository::pull",
            "Repository:a:pull",
            "repository(plugin:a:pull",
            "repository:a\"b:pull",
            "repository:a:pull\r\nx",
            "repository:ä:pull",
            "repository:a:Pull",
        ] {
            assert_eq!(parsed(text), "", "{text:?}");
        }
        assert_eq!(parsed("nonsense repository:a:pull  x"), "repository:a:pull");
        assert_eq!(
            parsed("repository:a:pull,,pull,push"),
            "repository:a:pull,push"
        );
    }

    #[test]
    fn a_request_cannot_ask_for_any_number() {
        let many = "repository:a:pull ".repeat(10 * Scopes::MAX);
        assert_eq!(Scopes::parse([many.as_str()]).0.len(), Scopes::MAX);
    }

    #[test]
    fn who_has_what() {
        let granted = Scopes::parse([
            "repository:a:pull repository:a:push repository:b:* repository(plugin):c:pull",
        ]);
        for needed in [
            "",
            "repository:a:pull,push",
            "repository:b:delete",
            "repository:c:pull",
        ] {
            assert!(granted.allow(&Scopes::parse([needed])), "{needed}");
        }
        for needed in [
            "repository:a:delete",
            "repository:a/b:pull",
            "repository:c:push",
            "registry:a:pull",
            "registry:catalog:*",
            "repository:a:pull repository:d:pull",
        ] {
            assert!(!granted.allow(&Scopes::parse([needed])), "{needed}");
        }
        assert!(!Scopes::default().allow(&Scopes(vec![ResourceActions::catalog()])));
    }

    #[test]
    fn the_claim_is_read_as_servers_write_it() {
        let claim = r#"[{"type":"repository","class":"","name":"a","actions":["pull","*"]},
                        {"type":"repository","name":"b","actions":null},{"type":"x"}]"#;
        let scopes: Scopes = serde_json::from_str(claim).unwrap();
        assert_eq!(scopes.to_string(), "repository:a:pull,* repository:b: x::");
        let written =
            serde_json::to_string(&Scopes(vec![ResourceActions::repository("a", &["pull"])]))
                .unwrap();
        assert_eq!(
            written,
            r#"[{"type":"repository","name":"a","actions":["pull"]}]"#
        );
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_written_the_same(
            kind in "[a-z0-9]{1,10}", class in "[a-z0-9]{0,5}", name in "[a-z0-9]{1,5}([./_:-][a-z0-9]{1,4}){0,3}",
            actions in proptest::collection::btree_set("[a-z]{1,6}|\\*", 0..4),
        ) {
            let class = if class.is_empty() { class } else { format!("({class})") };
            let actions: Vec<_> = actions.into_iter().collect();
            let text = format!("{kind}{class}:{name}:{}", actions.join(","));
            prop_assert_eq!(parsed(&text), text);
        }

        #[test]
        fn nothing_panics_and_all_that_is_accepted_can_stand_in_a_header(text in "\\PC{0,60}|[a-z:,()* /.]{0,40}") {
            let scopes = Scopes::parse([text.as_str()]);
            let written = scopes.to_string();
            prop_assert!(written.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'"' && c != b'\\'));
            prop_assert_eq!(Scopes::parse([written.as_str()]), scopes);
        }
    }
}

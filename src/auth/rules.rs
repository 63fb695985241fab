//! `access:`: who may do what, from where. The first rule that speaks of a request decides; what no rule speaks of is denied.

use std::fmt;

use crate::oci::{RepoName, RepoPattern};

use super::access::{Access, Action, Permission, Permissions};
use super::identity::{Identity, Subject, covered};
use super::place::{Network, Place};
use super::settings::RuleSettings;
use super::who::Who;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules(Vec<Rule>);

/// One rule: shown as it would be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// One of them.
    who: Vec<Who>,
    from: Vec<Network>,
    /// None: every one, and what concerns the whole server.
    repositories: Option<Vec<RepoPattern>>,
    effect: Effect,
    /// Other permissions than these it does not speak of.
    permissions: Permissions,
    /// `access[2]`.
    label: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

/// What the rules say to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision<'a> {
    Allowed(Reason<'a>),
    Denied(Reason<'a>),
    /// The rules would allow it; the token that came is for something else, and the client has to ask for another one.
    BeyondToken,
}

/// Which rule decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason<'a> {
    /// It says nothing about the content, so no rule is asked.
    Public,
    Rule(&'a Rule),
    /// None speaks of it.
    NoRule,
    /// The rules would have allowed it, and yet the client has to come back with a token.
    TokenWanted,
    /// The rules would have allowed it, but the robot was not made for it.
    RobotScope,
}

/// A value of `access:` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleError {
    /// `access[2].from`.
    pub(crate) key: String,
    pub(crate) text: String,
}

impl Decision<'_> {
    pub(crate) fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allowed(_))
    }
}

impl Rules {
    /// What counts when nothing says anything about access: an open registry for the networks that are nobody's but the
    /// owner's, as `registry:2` would be, and for nobody else. Only this machine may delete.
    pub(crate) fn open() -> Self {
        let others = [Permission::Pull, Permission::Push, Permission::List];
        let others = others.into_iter().collect();
        Rules(vec![
            Rule::built_in(Who::Anyone, Network::Loopback, Permissions::ALL),
            Rule::built_in(Who::Anyone, Network::Private, others),
        ])
    }

    /// CNCF distribution's `auth.htpasswd`: who has a password may do everything, others nothing.
    pub(crate) fn of_users() -> Self {
        let allow = |who| Rule::built_in(who, Network::Anywhere, Permissions::ALL);
        Rules(vec![
            allow(Who::Users),
            allow(Who::Robots),
            allow(Who::Bearers),
        ])
    }

    /// CNCF distribution's `auth.token`: the token says what may be done.
    pub(crate) fn of_tokens() -> Self {
        Rules(vec![Rule::built_in(
            Who::Bearers,
            Network::Anywhere,
            Permissions::ALL,
        )])
    }

    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn parse(settings: &[RuleSettings]) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let rules = settings.iter().enumerate();
        let rules = rules
            .map(|(i, settings)| Rule::parse(i, settings, &mut errors))
            .collect();
        if errors.is_empty() {
            Ok(Rules(rules))
        } else {
            Err(errors)
        }
    }

    /// Whether `identity` may do it from `place`, and which rule says so.
    pub(crate) fn permits<'a>(
        &'a self,
        identity: &Identity,
        place: &Place,
        access: &Access<'_>,
    ) -> Decision<'a> {
        match access.action.permission() {
            Some(permission) => self.decide(identity, place, access.repository, permission),
            None if access.action == Action::Ping => self.greets(identity, place),
            None => Decision::Allowed(Reason::Public),
        }
    }

    pub(crate) fn decide<'a>(
        &'a self,
        identity: &Identity,
        place: &Place,
        repository: Option<&RepoName>,
        permission: Permission,
    ) -> Decision<'a> {
        let mut speaking = self.speaking(identity, place, permission);
        let rule = speaking.find(|rule| rule.is_about(repository, permission));
        let allowed = match rule {
            None => return Decision::Denied(Reason::NoRule),
            Some(rule) if rule.effect == Effect::Deny => return Decision::Denied(rule.reason()),
            Some(rule) => rule.reason(),
        };
        if let Subject::Robot { scope, .. } = &identity.subject
            && !covered(scope, repository, permission)
        {
            return Decision::Denied(Reason::RobotScope);
        }
        if let Some(grants) = &identity.token
            && !covered(grants, repository, permission)
        {
            return Decision::BeyondToken;
        }
        Decision::Allowed(allowed)
    }

    /// `GET /v2/`: whether these credentials, or none, are good for anything here. Clients that get no for an answer ask
    /// their user for a password, and those that get yes send none with what follows.
    fn greets<'a>(&'a self, identity: &Identity, place: &Place) -> Decision<'a> {
        let wanted = |permission| !identity.is_anonymous() || permission == Permission::Pull;
        let rule = Permission::ALL
            .into_iter()
            .filter(|permission| wanted(*permission))
            .find_map(|permission| {
                self.speaking(identity, place, permission)
                    .find(|rule| rule.effect == Effect::Allow)
            });
        match rule {
            Some(rule) => Decision::Allowed(rule.reason()),
            None => Decision::Denied(Reason::NoRule),
        }
    }

    /// Whether there is no repository that `identity` may not pull: for what would otherwise ask about each.
    pub(crate) fn may_pull_all(&self, identity: &Identity, place: &Place) -> bool {
        let whole = |pattern: &RepoPattern| pattern.as_str() == "**";
        let unlimited = |grants: &[super::identity::Grant]| {
            grants.iter().any(|grant| {
                grant.permissions.contains(Permission::Pull)
                    && grant.repositories.as_ref().is_some_and(whole)
            })
        };
        let limited_robot = match &identity.subject {
            Subject::Robot { scope, .. } => !unlimited(scope),
            _ => false,
        };
        if limited_robot || identity.token.as_deref().is_some_and(|t| !unlimited(t)) {
            return false;
        }
        for rule in self.speaking(identity, place, Permission::Pull) {
            match (&rule.repositories, rule.effect) {
                (_, Effect::Deny) => return false,
                (None, Effect::Allow) => return true,
                (Some(patterns), Effect::Allow) if patterns.iter().any(whole) => return true,
                (Some(_), Effect::Allow) => {}
            }
        }
        false
    }

    /// Whether nobody at all may do anything from there, whoever they are: then there is no use in asking who.
    pub(crate) fn shuts_out(&self, place: &Place) -> bool {
        let mut allowing = self.0.iter().filter(|rule| rule.effect == Effect::Allow);
        !allowing.any(|rule| place.is_within(&rule.from))
    }

    /// Whether a rule lets somebody do something who does not say who they are.
    pub(crate) fn know_strangers(&self) -> bool {
        let unnamed = |who: &Who| matches!(who, Who::Anyone | Who::Anonymous);
        let mut allowing = self.0.iter().filter(|rule| rule.effect == Effect::Allow);
        allowing.any(|rule| rule.who.iter().any(unnamed))
    }

    /// Whether a rule names somebody who has to say who they are.
    pub(crate) fn know_names(&self) -> bool {
        let unnamed = |who: &Who| matches!(who, Who::Anyone | Who::Anonymous);
        self.0.iter().any(|rule| !rule.who.iter().all(unnamed))
    }

    /// Whether a rule allows `identity` something, from somewhere.
    pub(crate) fn mention(&self, identity: &Identity) -> bool {
        let mut allowing = self.0.iter().filter(|rule| rule.effect == Effect::Allow);
        allowing.any(|rule| rule.who.iter().any(|who| who.is(identity)))
    }

    /// The rules that speak of these, whatever the repository, in their order.
    fn speaking<'a, 'q>(
        &'a self,
        identity: &'q Identity,
        place: &'q Place,
        permission: Permission,
    ) -> impl Iterator<Item = &'a Rule> + use<'a, 'q> {
        self.0.iter().filter(move |rule| {
            let here = match rule.effect {
                Effect::Allow => place.is_within(&rule.from),
                Effect::Deny => place.touches(&rule.from),
            };
            here && rule.permissions.contains(permission)
                && rule.who.iter().any(|who| who.is(identity))
        })
    }
}

impl Rule {
    fn built_in(who: Who, from: Network, permissions: Permissions) -> Self {
        Rule {
            who: vec![who],
            from: vec![from],
            repositories: None,
            effect: Effect::Allow,
            permissions,
            label: "the built-in rule".to_owned(),
        }
    }

    fn parse(index: usize, settings: &RuleSettings, errors: &mut Vec<RuleError>) -> Self {
        let label = format!("access[{index}]");
        let mut error = |key: &str, text: String| {
            errors.push(RuleError {
                key: format!("{label}{key}"),
                text,
            });
        };
        if settings.who.is_empty() {
            error(
                ".who",
                "is missing: a user's name, group:NAME, robot:NAME, certificate:NAME, users, robots, certificates, \
                 anonymous or anyone"
                    .to_owned(),
            );
        }
        let mut who = Vec::new();
        for text in &settings.who {
            match Who::parse(text) {
                Ok(parsed) => who.push(parsed),
                Err(why) => error(".who", format!("`{}` {why}", text.escape_debug())),
            }
        }
        let mut from = Vec::new();
        for text in &settings.from {
            match text.parse() {
                Ok(network) => from.push(network),
                Err(why) => error(".from", format!("`{}`: {why}", text.escape_debug())),
            }
        }
        if settings.from.is_empty() {
            from.push(Network::Anywhere);
        }
        let mut patterns = Vec::new();
        for text in &settings.repositories {
            match text.parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => error(".repositories", format!("`{}`: {why}", text.escape_debug())),
            }
        }
        let (effect, key, words) = match (settings.allow.as_slice(), settings.deny.as_slice()) {
            ([_, ..], [_, ..]) => {
                error(
                    "",
                    "has both `allow` and `deny`: make two rules of it".to_owned(),
                );
                (Effect::Deny, ".deny", settings.deny.as_slice())
            }
            ([], []) => {
                error(
                    "",
                    "needs `allow` or `deny`, with some of pull, push, delete, list and admin, or all".to_owned(),
                );
                (Effect::Deny, ".deny", [].as_slice())
            }
            (allow, []) => (Effect::Allow, ".allow", allow),
            ([], deny) => (Effect::Deny, ".deny", deny),
        };
        let mut permissions = Permissions::NONE;
        for word in words {
            match word.parse() {
                Ok(permission) => permissions = permissions.with(permission),
                Err(()) if word == "all" => permissions = Permissions::ALL,
                Err(()) => error(
                    key,
                    format!(
                        "`{}` is none of pull, push, delete, list, admin and all",
                        word.escape_debug()
                    ),
                ),
            }
        }
        let is_all = words.iter().any(|word| word == "all");
        if !patterns.is_empty() && !is_all {
            for permission in permissions.iter().filter(|p| !p.is_of_repository()) {
                // The catalog shows what one may pull, so such a rule says something; but not as a denial.
                if permission == Permission::Admin || effect == Effect::Deny {
                    error(
                        key,
                        format!(
                            "{permission} is about the whole server: put it into a rule without `repositories`"
                        ),
                    );
                }
            }
        }
        Rule {
            who,
            from,
            repositories: (!settings.repositories.is_empty()).then_some(patterns),
            effect,
            permissions: match effect {
                Effect::Allow => permissions.implied(),
                Effect::Deny => permissions,
            },
            label,
        }
    }

    fn is_about(&self, repository: Option<&RepoName>, permission: Permission) -> bool {
        match (&self.repositories, repository) {
            (None, _) => true,
            (Some(patterns), Some(name)) => patterns.iter().any(|pattern| pattern.matches(name)),
            (Some(_), None) => permission == Permission::List && self.effect == Effect::Allow,
        }
    }

    fn reason(&self) -> Reason<'_> {
        Reason::Rule(self)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: ToString>(items: &[T]) -> String {
            let items: Vec<String> = items.iter().map(T::to_string).collect();
            match items.as_slice() {
                [one] => one.clone(),
                all => format!("[{}]", all.join(", ")),
            }
        }
        write!(f, "{{who: {}, from: {}", list(&self.who), list(&self.from))?;
        if let Some(patterns) = &self.repositories {
            write!(f, ", repositories: {}", list(patterns))?;
        }
        let effect = match self.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        write!(f, ", {effect}: [{}]}}", self.permissions)
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Public => f.write_str("it says nothing about the content"),
            Reason::Rule(rule) => write!(f, "{} {rule}", rule.label),
            Reason::NoRule => f.write_str("no rule speaks of it"),
            Reason::TokenWanted => f.write_str("a token is wanted first"),
            Reason::RobotScope => f.write_str("the robot's own scope does not reach that far"),
        }
    }
}

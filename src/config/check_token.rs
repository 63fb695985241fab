//! What the keys of `auth.token` say together.

use super::Config;
use super::check::Checker;
use crate::auth::token::Signing;

pub(super) fn check(config: &mut Config, checker: &mut Checker<'_>) {
    let Some(token) = &mut config.auth.token else {
        return;
    };
    let missing = [
        ("realm", token.realm.is_empty()),
        ("service", token.service.is_empty()),
        ("issuer", token.issuer.is_empty()),
        (
            "rootcertbundle",
            token.root_cert_bundle.is_none() && token.jwks.is_none(),
        ),
    ];
    checker.missing("auth.token", &missing);
    if let Some(path) = &token.auto_redirect_path
        && !path.is_empty()
        && !path.starts_with('/')
    {
        checker.error(
            "auth.token.autoredirectpath",
            "expected a path as `/auth/token`",
        );
    }
    if token.auto_redirect_path.is_some() && !token.auto_redirect {
        checker.warn(
            "auth.token.autoredirectpath",
            "has no effect: it needs `autoredirect: true` beside it",
        );
    }
    algorithms(&mut token.signing_algorithms, checker);
}

/// Distribution knows more of them than can be checked here.
fn algorithms(names: &mut Vec<String>, checker: &mut Checker<'_>) {
    const KEY: &str = "auth.token.signingalgorithms";
    let known = || Signing::ACCEPTED.join(", ");
    let asked = names.len();
    names.retain(|name| {
        let shown = name.escape_debug();
        match Signing::of(name) {
            Signing::Accepted => return true,
            Signing::Shared => checker.warn(
                KEY,
                format!("`{shown}` is left out: whoever can check such a token can make one"),
            ),
            Signing::Unsupported => {
                checker.warn(KEY, format!("`{shown}` is left out: it cannot be checked"));
            }
            Signing::Unknown => {
                checker.error(KEY, format!("`{shown}` is unknown; known are {}", known()));
            }
        }
        false
    });
    if asked > 0 && names.is_empty() {
        let text = format!("none of them can be used; choose from {}", known());
        checker.error(KEY, text);
    }
}

//! Bearer tokens: those of an external token server, beside Debian's `docker-registry` with the same configuration, and
//! those that the registry hands out itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{
    migrate::docker_registry,
    support::{
        http::Client,
        jwt::{Signer, part},
        server::Server,
    },
};

const NO_DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_secs()).expect("seconds")
}

fn claims(access: Value) -> Value {
    json!({
        "iss": "auth.test", "aud": "registry.test", "sub": "alice", "exp": now() + 300, "nbf": now() - 10,
        "iat": now() - 10, "jti": "one", "access": access,
    })
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value;
    claims
}

fn repository(name: &str, actions: &[&str]) -> Value {
    json!([{"type": "repository", "name": name, "actions": actions}])
}

fn external(server: Server, bundle: &Path) -> Server {
    server
        .set("auth.token.realm", "https://auth.test/token")
        .set("auth.token.service", "registry.test")
        .set("auth.token.issuer", "auth.test")
        .set("auth.token.rootcertbundle", bundle.to_str().expect("UTF-8"))
}

/// Status, and the challenge with its scope's actions in one order: distribution's is random.
fn verdict(
    client: &Client,
    method: &str,
    target: &str,
    authorization: Option<&str>,
) -> (bool, Option<String>, BTreeSet<String>) {
    let mut request = client.request(method, target);
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let reply = request.send();
    let refused = reply.status == 401;
    if refused && method != "HEAD" {
        assert_eq!(
            reply.error_code().as_deref(),
            Some("UNAUTHORIZED"),
            "{reply:?}"
        );
    }
    let challenge = reply.header("www-authenticate").unwrap_or_default();
    let scope = parameter(challenge, "scope").unwrap_or_default();
    let rest = challenge.replace(&scope, "");
    let scopes = scope.split([' ', ',', ':']).map(str::to_owned).collect();
    (refused, refused.then_some(rest), scopes)
}

/// `name="value"` of a challenge.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
    Some(rest.split('"').next()?.to_owned())
}

#[test]
fn tokens_of_another_server_are_judged_as_distribution_judges_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (rsa, ec) = (
        Signer::new(folder, "rsa", "RS256"),
        Signer::new(folder, "ec", "ES256"),
    );
    let leaf = rsa.issue(folder, "leaf", "ES256");
    let stranger = Signer::new(folder, "stranger", "RS256");
    let bundle = folder.join("bundle.pem");
    let certificates =
        [&rsa, &ec].map(|signer| std::fs::read_to_string(&signer.certificate).expect("PEM"));
    std::fs::write(&bundle, certificates.concat()).expect("a bundle");
    let ours = external(Server::new(), &bundle).start();
    let theirs = external(docker_registry(Server::new()), &bundle).start();

    let (rsa_kid, ec_kid) = (
        json!({"kid": rsa.fingerprint()}),
        json!({"kid": ec.fingerprint()}),
    );
    let both = claims(repository("a/b", &["pull", "push"]));
    let good = rsa.token(&rsa_kid, &both);
    let parts: Vec<&str> = good.split('.').collect();
    let unsigned =
        |header: Value, signature: &str| format!("{}.{}.{signature}", part(&header), parts[1]);
    let hmac = {
        let secret = std::fs::read(&rsa.certificate).expect("PEM");
        let message = format!(
            "{}.{}",
            part(&json!({"alg": "HS256", "kid": rsa.fingerprint()})),
            parts[1]
        );
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let tag = ring::hmac::sign(&key, message.as_bytes());
        format!(
            "{message}.{}",
            data_encoding::BASE64URL_NOPAD.encode(tag.as_ref())
        )
    };
    let bearer = |token: String| format!("Bearer {token}");
    let of = |access: Value| bearer(rsa.token(&rsa_kid, &claims(access)));
    let presented: Vec<(&str, Option<String>)> = vec![
        ("nothing", None),
        ("no token", Some("Bearer".into())),
        ("an empty token", Some("Bearer ".into())),
        ("a password", Some("Basic YWxpY2U6d29uZGVybGFuZA==".into())),
        ("nonsense", Some("Bearer x.y.z".into())),
        (
            "two parts",
            Some(format!("Bearer {}.{}", parts[0], parts[1])),
        ),
        ("a good one", Some(bearer(good.clone()))),
        ("one in lower case", Some(format!("bearer {good}"))),
        ("another algorithm", Some(bearer(ec.token(&ec_kid, &both)))),
        (
            "without access",
            Some(bearer(rsa.token(&rsa_kid, &claims(json!([]))))),
        ),
        ("null for access", Some(of(Value::Null))),
        ("only pull", Some(of(repository("a/b", &["pull"])))),
        ("only push", Some(of(repository("a/b", &["push"])))),
        ("delete", Some(of(repository("a/b", &["delete"])))),
        ("everything", Some(of(repository("a/b", &["*"])))),
        (
            "another repository",
            Some(of(repository("a/c", &["pull", "push"]))),
        ),
        (
            "the catalog",
            Some(of(
                json!([{"type": "registry", "name": "catalog", "actions": ["*"]}]),
            )),
        ),
        (
            "a class",
            Some(of(
                json!([{"type": "repository", "class": "plugin", "name": "a/b", "actions": ["pull"]}]),
            )),
        ),
        (
            "two elements",
            Some(of(json!([
                {"type": "repository", "name": "a/b", "actions": ["pull"]}, {"type": "repository", "name": "a/b", "actions": ["push"]},
            ]))),
        ),
        (
            "a chain",
            Some(bearer(leaf.token(&json!({"x5c": [leaf.der()]}), &both))),
        ),
        (
            "a chain to the top",
            Some(bearer(
                leaf.token(&json!({"x5c": [leaf.der(), rsa.der()]}), &both),
            )),
        ),
        (
            "a stranger's chain",
            Some(bearer(
                stranger.token(&json!({"x5c": [stranger.der()]}), &both),
            )),
        ),
        (
            "a chain of another key",
            Some(bearer(stranger.token(&json!({"x5c": [rsa.der()]}), &both))),
        ),
        (
            "a stranger's key",
            Some(bearer(
                stranger.token(&json!({"kid": stranger.fingerprint()}), &both),
            )),
        ),
        (
            "a stranger's signature",
            Some(bearer(stranger.token(&rsa_kid, &both))),
        ),
        ("no key", Some(bearer(rsa.token(&json!({}), &both)))),
        (
            "alg none",
            Some(bearer(unsigned(
                json!({"alg": "none", "kid": rsa.fingerprint()}),
                "",
            ))),
        ),
        (
            "alg none, signed",
            Some(bearer(unsigned(
                json!({"alg": "none", "kid": rsa.fingerprint()}),
                parts[2],
            ))),
        ),
        ("HS256 with the certificate", Some(bearer(hmac))),
        (
            "other claims",
            Some(bearer(format!(
                "{}.{}.{}",
                parts[0],
                part(&claims(repository("a/b", &["*"]))),
                parts[2]
            ))),
        ),
        (
            "expired",
            Some(bearer(
                rsa.token(&rsa_kid, &with(&both, "exp", json!(now() - 90))),
            )),
        ),
        (
            "expired within leeway",
            Some(bearer(
                rsa.token(&rsa_kid, &with(&both, "exp", json!(now() - 20))),
            )),
        ),
        (
            "not yet",
            Some(bearer(
                rsa.token(&rsa_kid, &with(&both, "nbf", json!(now() + 120))),
            )),
        ),
        (
            "not yet within leeway",
            Some(bearer(
                rsa.token(&rsa_kid, &with(&both, "nbf", json!(now() + 30))),
            )),
        ),
        (
            "without an end",
            Some(bearer(
                rsa.token(&rsa_kid, &with(&both, "exp", Value::Null)),
            )),
        ),
        (
            "another issuer",
            Some(bearer(
                rsa.token(&rsa_kid, &with(&both, "iss", json!("evil.test"))),
            )),
        ),
        (
            "another audience",
            Some(bearer(
                rsa.token(&rsa_kid, &with(&both, "aud", json!("other.test"))),
            )),
        ),
        (
            "no subject",
            Some(bearer(
                rsa.token(&rsa_kid, &with(&both, "sub", Value::Null)),
            )),
        ),
    ];
    let requests = [
        ("GET", "/v2/".to_owned()),
        ("GET", "/v2/a/b/tags/list".to_owned()),
        ("HEAD", "/v2/a/b/manifests/latest".to_owned()),
        ("POST", "/v2/a/b/blobs/uploads/".to_owned()),
        ("PUT", "/v2/a/b/manifests/latest".to_owned()),
        ("DELETE", format!("/v2/a/b/manifests/{NO_DIGEST}")),
        ("GET", "/v2/_catalog".to_owned()),
    ];
    let (ours, theirs) = (ours.client(), theirs.client());
    let mut allowed = 0;
    for (what, authorization) in &presented {
        for (method, target) in &requests {
            let judged = |client| verdict(client, method, target, authorization.as_deref());
            let verdict = judged(&ours);
            assert_eq!(verdict, judged(&theirs), "{what}: {method} {target}");
            allowed += usize::from(!verdict.0);
        }
    }
    // Both could refuse everything.
    assert!(allowed > 40, "{allowed}");

    // What distribution 3 takes and 2 does not.
    let reply = |token: String| {
        ours.get("/v2/a/b/tags/list")
            .header("Authorization", bearer(token))
            .send()
            .status
    };
    assert_eq!(
        reply(rsa.token(
            &rsa_kid,
            &with(&both, "aud", json!(["other.test", "registry.test"]))
        )),
        404
    );
    assert_eq!(
        reply(rsa.token(&rsa_kid, &with(&both, "aud", json!(["other.test"])))),
        401
    );
}

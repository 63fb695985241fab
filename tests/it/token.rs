//! Bearer tokens: those of an external token server, beside Debian's `docker-registry` with the same configuration, and
//! those that the registry hands out itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    migrate::docker_registry,
    support::{
        http::{Client, Response},
        image::Image,
        jwt::{Signer, part, read_part},
        server::{Server, eventually},
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
        // Ours says more plainly than distribution that asking for another token may be of no use.
        let code = reply.error_code();
        assert!(
            matches!(code.as_deref(), Some("UNAUTHORIZED" | "DENIED")),
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

// --- tokens of our own ---

/// wonderland, builder.
const ALICE: &str = "alice:$2y$05$BXbd5nEN1ZJKkAe3zoV6M.DvRtFPrN1AV.9NCqQKA3IyDOsTUVEaC\n";
const BOB: &str = "bob:$2y$05$ggb5qXNx.bLVr180pYuNe.KfVV7Ps0o9hzZ4w.MXVF8R8e1A4hGzi\n";
/// `wonderland` again, with another salt.
const ALICE_AGAIN: &str = "alice:$2y$05$cTe68qxka2LBvGJS3vGa5ugFqZm8Xd/WxKKzg.Xv629je.1FqaV5y\n";

const ALICE_IN: &str = "Basic YWxpY2U6d29uZGVybGFuZA==";
const BOB_IN: &str = "Basic Ym9iOmJ1aWxkZXI=";

/// Anybody pulls what is public, bob works in his team's repositories, alice may do everything.
const RULES: &str = "[{who: anyone, from: private, repositories: 'public/**', allow: pull}, \
                      {who: bob, repositories: 'team/**', allow: [pull, push]}, \
                      {who: alice, allow: all}]";

fn mixed() -> Server {
    let server = Server::new()
        .set("access", RULES)
        .set("auth.htpasswd.realm", "Registry");
    let path = server.dir().join("htpasswd");
    std::fs::write(&path, format!("{ALICE}{BOB}")).expect("htpasswd");
    server.set("auth.htpasswd.path", path.to_str().expect("UTF-8"))
}

fn get_token(client: &Client, query: &str, authorization: Option<&str>) -> Response {
    let request = client.get(&format!("/auth/token?service=registry{query}"));
    match authorization {
        Some(authorization) => request.header("Authorization", authorization).send(),
        None => request.send(),
    }
}

fn post_token(client: &Client, form: &str) -> Response {
    let request = client
        .post("/auth/token")
        .header("Content-Type", "application/x-www-form-urlencoded");
    request.body(form).send()
}

#[track_caller]
fn text(reply: &Response, name: &str) -> String {
    reply.json()[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name}: {reply:?}"))
        .to_owned()
}

/// A token for these scopes, as a header.
#[track_caller]
fn bearer(client: &Client, scopes: &str, authorization: Option<&str>) -> String {
    let query: String = scopes
        .split_whitespace()
        .map(|scope| format!("&scope={scope}"))
        .collect();
    let reply = get_token(client, &query, authorization).expect(200);
    format!("Bearer {}", text(&reply, "token"))
}

fn status(client: &Client, method: &str, target: &str, authorization: &str) -> u16 {
    client
        .request(method, target)
        .header("Authorization", authorization)
        .send()
        .status
}

#[track_caller]
fn challenge(client: &Client, method: &str, target: &str, authorization: Option<&str>) -> String {
    let mut request = client.request(method, target);
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let reply = request.send().expect(401);
    let values = reply.header_values("www-authenticate");
    assert_eq!(values.len(), 1, "docker follows every challenge: {reply:?}");
    values[0].to_owned()
}

#[test]
fn anonymous_pull_beside_pushes_with_a_password() {
    let server = mixed().start();
    let client = server.client();
    let realm = format!(
        "Bearer realm=\"http://{}/auth/token\",service=\"registry\"",
        server.addr()
    );
    // Docker asks once whether it needs a token.
    assert_eq!(challenge(&client, "GET", "/v2/", None), realm);

    let reply = get_token(
        &client,
        "&scope=repository:public/a:pull,push&scope=repository:secret:pull",
        None,
    )
    .expect(200);
    assert_eq!(text(&reply, "scope"), "repository:public/a:pull");
    assert_eq!(text(&reply, "token"), text(&reply, "access_token"));
    assert_eq!(text(&reply, "token_type"), "Bearer");
    assert!(
        reply.json()["expires_in"]
            .as_u64()
            .is_some_and(|seconds| seconds >= 60),
        "{reply:?}"
    );
    assert!(reply.json().get("refresh_token").is_none(), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let anonymous = format!("Bearer {}", text(&reply, "token"));
    assert_eq!(status(&client, "GET", "/v2/", &anonymous), 200);
    assert_eq!(
        status(&client, "GET", "/v2/public/a/tags/list", &anonymous),
        404
    );
    client
        .get("/v2/public/a/tags/list")
        .send()
        .expect_error(404, "NAME_UNKNOWN");
    for (method, target, scope) in [
        (
            "POST",
            "/v2/public/a/blobs/uploads/",
            "repository:public/a:pull,push",
        ),
        ("GET", "/v2/secret/tags/list", "repository:secret:pull"),
        ("GET", "/v2/_catalog", "registry:catalog:*"),
    ] {
        assert_eq!(
            challenge(&client, method, target, None),
            format!("{realm},scope=\"{scope}\"")
        );
        assert_eq!(
            challenge(&client, method, target, Some(&anonymous)),
            format!("{realm},scope=\"{scope}\",error=\"insufficient_scope\"")
        );
    }
    assert_eq!(
        challenge(&client, "GET", "/v2/", Some("Bearer x.y.z")),
        format!("{realm},error=\"invalid_token\"")
    );

    let alice = bearer(&client, "repository:public/a:pull,push", Some(ALICE_IN));
    assert_eq!(
        status(&client, "POST", "/v2/public/a/blobs/uploads/", &alice),
        202
    );
    // Basic, for who sends it unasked.
    assert_eq!(
        status(&client, "POST", "/v2/public/a/blobs/uploads/", ALICE_IN),
        202
    );
    assert_eq!(status(&client, "GET", "/v2/", ALICE_IN), 200);
}

#[test]
fn a_token_has_what_was_asked_for_and_the_rules_give() {
    let server = mixed().start();
    let client = server.client();
    for (who, asked, granted) in [
        (Some(ALICE_IN), "", ""),
        (
            Some(ALICE_IN),
            "&scope=repository:a:pull,push,delete",
            "repository:a:pull,push,delete",
        ),
        (
            Some(ALICE_IN),
            "&scope=repository:a:*",
            "repository:a:pull,push,delete",
        ),
        (
            Some(ALICE_IN),
            "&scope=registry:catalog:*",
            "registry:catalog:*",
        ),
        // Two in one value, and what is no scope.
        (
            Some(ALICE_IN),
            "&scope=repository:a:push%20repository:b:pull+x&scope=y",
            "repository:a:push repository:b:pull",
        ),
        (
            Some(ALICE_IN),
            "&scope=repository(plugin):a:pull",
            "repository(plugin):a:pull",
        ),
        (
            Some(ALICE_IN),
            "&scope=repository:NO:pull&scope=registry:other:*&scope=robot:a:pull",
            "",
        ),
        (
            Some(BOB_IN),
            "&scope=repository:team/x:pull,push,delete",
            "repository:team/x:pull,push",
        ),
        (
            Some(BOB_IN),
            "&scope=repository:public/x:push,pull",
            "repository:public/x:pull",
        ),
        (
            Some(BOB_IN),
            "&scope=repository:teams:pull&scope=registry:catalog:*",
            "",
        ),
        (None, "&scope=repository:team/x:pull,push", ""),
    ] {
        let reply = get_token(&client, asked, who).expect(200);
        assert_eq!(text(&reply, "scope"), granted, "{who:?} {asked}");
    }
    // And no more than that, whatever the rules give.
    let token = bearer(&client, "repository:a:pull", Some(ALICE_IN));
    assert_eq!(status(&client, "GET", "/v2/a/tags/list", &token), 404);
    for (method, target) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("GET", "/v2/b/tags/list".to_owned()),
        ("DELETE", format!("/v2/a/manifests/{NO_DIGEST}")),
        ("GET", "/v2/_catalog".to_owned()),
    ] {
        assert_eq!(
            status(&client, method, &target, &token),
            401,
            "{method} {target}"
        );
    }
    // Nor a better one with it.
    get_token(&client, "&scope=repository:b:push", Some(&token)).expect_error(401, "UNAUTHORIZED");
}

/// Docker retries a 403 for seconds, and a 401 only once, with a fresh token; what is hidden looks as before.
#[test]
fn a_token_that_does_not_grant_it_ends_in_a_plain_no() {
    let server = mixed().start();
    let client = server.client();
    let denied = |token: &str, method: &str, target: &str, scope: &str| {
        let reply = client
            .request(method, target)
            .header("Authorization", token)
            .send();
        let told = reply.header("www-authenticate").unwrap_or_default();
        let end = format!("service=\"registry\",scope=\"{scope}\",error=\"insufficient_scope\"");
        assert!(told.ends_with(&end), "{target}: {told}");
        reply.expect_error(401, "DENIED");
    };
    for (repository, granted) in [("public/a", "repository:public/a:pull"), ("secret/a", "")] {
        let push = format!("repository:{repository}:pull,push");
        let reply = get_token(&client, &format!("&scope={push}"), Some(BOB_IN)).expect(200);
        // As often as it asks: the scope that he may not have is not in it.
        assert_eq!(text(&reply, "scope"), granted);
        let token = format!("Bearer {}", text(&reply, "token"));
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        denied(&token, "POST", &uploads, &push);
        let manifest = format!("/v2/{repository}/manifests/1");
        denied(&token, "PUT", &manifest, &push);
        denied(
            &token,
            "DELETE",
            &manifest,
            &format!("repository:{repository}:delete"),
        );
        // Whether there is a repository of that name makes no difference to who may not know of it.
        let list = format!("/v2/{repository}/tags/list");
        let reply = client.get(&list).header("Authorization", &token).send();
        reply.expect_error(404, "NAME_UNKNOWN");
        // By Basic there is no better credential to come back with.
        let reply = client.post(&uploads).header("Authorization", BOB_IN).send();
        reply.expect_error(403, "DENIED");
    }
    denied(
        &bearer(&client, "registry:catalog:*", Some(BOB_IN)),
        "GET",
        "/v2/_catalog",
        "registry:catalog:*",
    );
}

#[test]
fn a_wrong_password_is_told_in_the_usual_words() {
    let server = mixed().start();
    let client = server.client();
    let wrong = "Basic YWxpY2U6bm90IHRoaXM=";
    let basic = Some("Basic realm=\"Registry\"");
    for reply in [
        get_token(&client, "", Some(wrong)),
        get_token(&client, "", Some("Basic bm9ib2R5OnRoaXM=")),
        post_token(&client, "grant_type=password&username=bob&password=x"),
        post_token(&client, "grant_type=refresh_token&refresh_token=x.y.z"),
    ] {
        let reply = reply.expect_error(401, "UNAUTHORIZED");
        assert_eq!(reply.header("www-authenticate"), basic, "{reply:?}");
        assert_eq!(
            reply.json()["errors"][0]["message"],
            "incorrect username or password"
        );
        assert_eq!(text(&reply, "error"), "invalid_grant");
    }
    for (form, error) in [
        ("", "invalid_request"),
        ("grant_type=password&username=a", "invalid_request"),
        ("grant_type=client_credentials", "unsupported_grant_type"),
    ] {
        assert_eq!(
            text(&post_token(&client, form).expect(400), "error"),
            error,
            "{form}"
        );
    }
    let json = client
        .post("/auth/token")
        .header("Content-Type", "application/json")
        .body("{}")
        .send();
    assert_eq!(text(&json.expect(400), "error"), "invalid_request");
    let large = format!("grant_type=password&username={}", "a".repeat(40 << 10));
    assert_eq!(
        text(&post_token(&client, &large).expect(400), "error"),
        "invalid_request"
    );
    client
        .put("/auth/token")
        .send()
        .expect_error(405, "UNSUPPORTED");
}

#[test]
fn docker_login_keeps_a_token_that_ends_with_the_password() {
    let mut server = mixed().start();
    let client = server.client();
    let login = get_token(
        &client,
        "&account=alice&client_id=docker&offline_token=true",
        Some(ALICE_IN),
    )
    .expect(200);
    let refresh = text(&login, "refresh_token");
    // containerd asks with a form.
    let form = "grant_type=password&service=registry&client_id=containerd-client&username=alice&password=wonderland\
                &scope=repository%3Aa%3Apull%2Cpush+repository%3Ab%3Apull&access_type=offline";
    let reply = post_token(&client, form).expect(200);
    assert_eq!(
        text(&reply, "scope"),
        "repository:a:pull,push repository:b:pull"
    );
    assert!(!text(&reply, "refresh_token").is_empty());

    let again = |client: &Client| {
        let form = format!(
            "grant_type=refresh_token&refresh_token={refresh}&service=registry&client_id=docker&scope=repository%3Aa%3Apull"
        );
        post_token(client, &form)
    };
    let reply = again(&client).expect(200);
    assert_eq!(text(&reply, "scope"), "repository:a:pull");
    let access = format!("Bearer {}", text(&reply, "access_token"));
    assert_eq!(status(&client, "GET", "/v2/a/tags/list", &access), 404);
    // One is not the other.
    assert_eq!(
        status(&client, "GET", "/v2/", &format!("Bearer {refresh}")),
        401
    );
    let stolen = format!(
        "grant_type=refresh_token&refresh_token={}",
        text(&reply, "access_token")
    );
    post_token(&client, &stolen).expect(401);

    // A restart ends neither, and the keys are nobody else's.
    server.restart();
    let client = server.client();
    again(&client).expect(200);
    assert_eq!(status(&client, "GET", "/v2/a/tags/list", &access), 404);
    let keys = server.tree().join(".registry/auth/token-keys.json");
    let mode = std::os::unix::fs::MetadataExt::mode(&keys.metadata().expect("the keys")) & 0o777;
    assert_eq!(mode, 0o600);

    // The same password set again ends both, and so does the end of the user.
    let htpasswd = server.dir().join("htpasswd");
    for content in [format!("{ALICE_AGAIN}{BOB}"), BOB.to_owned()] {
        std::fs::write(&htpasswd, content).expect("htpasswd");
        eventually("the old password's tokens end", || {
            (again(&client).status == 401).then_some(())
        });
        let realm = challenge(&client, "GET", "/v2/a/tags/list", Some(&access));
        assert!(realm.ends_with("error=\"invalid_token\""), "{realm}");
    }
    // As they were before.
    std::fs::write(&htpasswd, ALICE).expect("htpasswd");
    eventually("the old password is back", || {
        (again(&client).status == 200).then_some(())
    });
}

#[test]
fn forged_tokens_of_our_own_are_refused() {
    let server = mixed().start();
    let client = server.client();
    let good = text(
        &get_token(&client, "&scope=repository:a:pull", Some(ALICE_IN)).expect(200),
        "token",
    );
    assert_eq!(
        status(&client, "GET", "/v2/a/tags/list", &format!("Bearer {good}")),
        404
    );
    let parts: Vec<&str> = good.split('.').collect();
    let (header, claims) = (read_part(&good, 0), read_part(&good, 1));
    assert_eq!(header["alg"], "EdDSA");

    let keys = std::fs::read_to_string(server.tree().join(".registry/auth/token-keys.json"))
        .expect("keys");
    let keys: Value = serde_json::from_str(&keys).expect("JSON");
    let public = keys["keys"][0]["x"].as_str().expect("a public key");
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        part(&claims)
    };
    let header_with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        part(&header)
    };
    let hmac = |secret: &[u8]| {
        let message = format!("{}.{}", header_with("alg", json!("HS256")), parts[1]);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let tag = ring::hmac::sign(&key, message.as_bytes());
        format!(
            "{message}.{}",
            data_encoding::BASE64URL_NOPAD.encode(tag.as_ref())
        )
    };
    let folder = tempfile::tempdir().expect("a folder");
    let stranger = Signer::new(folder.path(), "stranger", "EdDSA");
    let anything = json!([{"type": "repository", "name": "a", "actions": ["*"]}]);
    // Another registry's, with a key file of its own.
    let other = mixed().start();
    let theirs = text(
        &get_token(&other.client(), "&scope=repository:a:pull", Some(ALICE_IN)).expect(200),
        "token",
    );
    for (what, token) in [
        (
            "alg none",
            format!("{}.{}.", header_with("alg", json!("none")), parts[1]),
        ),
        (
            "alg none, signed",
            format!(
                "{}.{}.{}",
                header_with("alg", json!("none")),
                parts[1],
                parts[2]
            ),
        ),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("HS256 with the public key", hmac(public.as_bytes())),
        (
            "HS256 with its bytes",
            hmac(
                &data_encoding::BASE64URL_NOPAD
                    .decode(public.as_bytes())
                    .expect("bytes"),
            ),
        ),
        (
            "another scope",
            format!(
                "{}.{}.{}",
                parts[0],
                with("access", anything.clone()),
                parts[2]
            ),
        ),
        (
            "another user",
            format!("{}.{}.{}", parts[0], with("sub", json!("bob")), parts[2]),
        ),
        (
            "another audience",
            format!("{}.{}.{}", parts[0], with("aud", json!("x")), parts[2]),
        ),
        (
            "a later end",
            format!(
                "{}.{}.{}",
                parts[0],
                with("exp", json!(now() + 1_000_000)),
                parts[2]
            ),
        ),
        (
            "a refresh token's header",
            format!(
                "{}.{}.{}",
                header_with("typ", json!("refresh+jwt")),
                parts[1],
                parts[2]
            ),
        ),
        (
            "a stranger's key under our name",
            stranger.token(&header, &claims),
        ),
        (
            "a stranger's key",
            stranger.token(&json!({"kid": "x", "typ": header["typ"]}), &claims),
        ),
        (
            "a key that came along",
            stranger.token(
                &json!({"typ": header["typ"], "x5c": [stranger.der()]}),
                &claims,
            ),
        ),
        ("another registry's", theirs),
    ] {
        let challenge = challenge(
            &client,
            "GET",
            "/v2/a/tags/list",
            Some(&format!("Bearer {token}")),
        );
        assert!(
            challenge.ends_with("error=\"invalid_token\""),
            "{what}: {challenge}"
        );
        // It is not taken for anonymous either, where that would be enough.
        let public = client
            .get("/v2/public/a/tags/list")
            .header("Authorization", format!("Bearer {token}"))
            .send();
        assert_eq!(public.status, 401, "{what}: {public:?}");
    }
    // Two headers: which of them counts is no question.
    let twice = client
        .get("/v2/a/tags/list")
        .header("Authorization", format!("Bearer {good}"));
    assert_eq!(twice.header("Authorization", "Bearer x").send().status, 401);
}

#[test]
fn where_a_token_is_used_counts_and_not_where_it_was_asked_for() {
    let server = mixed().start();
    let client = server.client();
    let anonymous = bearer(&client, "repository:public/a:pull", None);
    assert_eq!(
        status(&client, "GET", "/v2/public/a/tags/list", &anonymous),
        404
    );
    let from_outside = |target: &str| client.get(target).header("X-Forwarded-For", "192.0.2.7");
    let reply = from_outside("/v2/public/a/tags/list")
        .header("Authorization", &anonymous)
        .send();
    assert_eq!(reply.status, 401, "{reply:?}");
    let reply = from_outside("/auth/token?scope=repository:public/a:pull")
        .send()
        .expect(200);
    assert_eq!(text(&reply, "scope"), "");
}

#[test]
fn the_catalog_of_a_token_is_that_of_its_holder() {
    let server = Server::new()
        .set("auth.htpasswd.realm", "Registry")
        .set(
            "access",
            "[{who: anonymous, allow: pull, repositories: 'public/**'}, {who: bob, allow: [pull, list], repositories: ['team/**', 'public/**']}, \
              {who: bob, allow: list}, {who: alice, allow: all}]",
        );
    let path = server.dir().join("htpasswd");
    std::fs::write(&path, format!("{ALICE}{BOB}")).expect("htpasswd");
    let server = server
        .set("auth.htpasswd.path", path.to_str().expect("UTF-8"))
        .start();
    let client = server.client().with_header("Authorization", ALICE_IN);
    for name in ["public/a", "secret/a", "team/a"] {
        Image::new(7).push(&client, name, "latest");
    }
    let client = server.client();
    for (who, expected) in [
        (ALICE_IN, vec!["public/a", "secret/a", "team/a"]),
        (BOB_IN, vec!["public/a", "team/a"]),
    ] {
        let token = bearer(&client, "registry:catalog:*", Some(who));
        let reply = client
            .get("/v2/_catalog")
            .header("Authorization", &token)
            .send()
            .expect(200);
        assert_eq!(reply.json()["repositories"], json!(expected));
        // It is good for nothing else.
        assert_eq!(
            status(&client, "GET", "/v2/public/a/tags/list", &token),
            401
        );
    }
}

#[test]
fn the_realm_is_where_the_client_finds_this_registry() {
    let realm = |server: &Server, headers: &[(&str, &str)]| {
        let client = server.client();
        let mut request = client.get(if headers.iter().any(|(name, _)| *name == "prefix") {
            "/in/v2/"
        } else {
            "/v2/"
        });
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let reply = request.send().expect(401);
        parameter(
            reply.header("www-authenticate").unwrap_or_default(),
            "realm",
        )
        .expect("a realm")
    };
    let server = mixed().start();
    assert_eq!(
        realm(&server, &[]),
        format!("http://{}/auth/token", server.addr())
    );
    assert_eq!(
        realm(
            &server,
            &[
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Host", "registry.test")
            ]
        ),
        "https://registry.test/auth/token"
    );
    assert_eq!(
        realm(
            &server,
            &[("Forwarded", "proto=https;host=\"r.test:8443\"")]
        ),
        "https://r.test:8443/auth/token"
    );
    let named = mixed()
        .set("http.host", "https://images.test:5000")
        .set("http.relativeurls", "true")
        .start();
    assert_eq!(realm(&named, &[]), "https://images.test:5000/auth/token");
    let below = mixed()
        .set("http.prefix", "/in/")
        .ready_path("/in/v2/")
        .start();
    assert_eq!(
        realm(&below, &[("prefix", "")]),
        format!("http://{}/in/auth/token", below.addr())
    );
}

#[test]
fn without_a_mix_there_are_no_tokens() {
    // Nobody has a password.
    let open = Server::new().start();
    open.client().get("/v2/").send().expect(200);
    get_token(&open.client(), "", None).expect(404);
    // Everybody needs one.
    let closed = Server::new().set("auth.htpasswd.realm", "Registry");
    let path = closed.dir().join("htpasswd");
    std::fs::write(&path, ALICE).expect("htpasswd");
    let closed = closed
        .set("auth.htpasswd.path", path.to_str().expect("UTF-8"))
        .start();
    assert_eq!(
        challenge(&closed.client(), "GET", "/v2/", None),
        "Basic realm=\"Registry\""
    );
    get_token(&closed.client(), "", Some(ALICE_IN)).expect(404);
    // Nobody has one yet: docker need not ask for it.
    let mut waiting = mixed();
    std::fs::write(waiting.dir().join("htpasswd"), "").expect("htpasswd");
    waiting = waiting.start();
    waiting.client().get("/v2/").send().expect(200);
    std::fs::write(waiting.dir().join("htpasswd"), ALICE).expect("htpasswd");
    let client = waiting.client();
    eventually("somebody has a password", || {
        (client.get("/v2/").send().status == 401).then_some(())
    });
}

#[test]
fn no_secret_of_a_log_in_is_in_the_log() {
    let server = mixed().set("log.level", "debug").start();
    let client = server.client();
    let login = get_token(
        &client,
        "&offline_token=true&scope=repository:a:pull",
        Some(ALICE_IN),
    )
    .expect(200);
    let (access, refresh) = (text(&login, "token"), text(&login, "refresh_token"));
    status(
        &client,
        "GET",
        "/v2/a/tags/list",
        &format!("Bearer {access}"),
    );
    status(
        &client,
        "GET",
        "/v2/a/tags/list",
        &format!("Bearer {refresh}"),
    );
    post_token(
        &client,
        "grant_type=password&username=alice&password=wonderland",
    )
    .expect(200);
    post_token(
        &client,
        "grant_type=password&username=alice&password=wonder%20less",
    )
    .expect(401);
    post_token(
        &client,
        &format!("grant_type=refresh_token&refresh_token={refresh}x"),
    )
    .expect(401);
    let log = server.log();
    assert!(log.contains("get-token repository:a:pull"), "{log}");
    for secret in [
        "wonderland",
        "wonder less",
        "d29uZGVybGFuZA",
        "$2y$",
        &access[access.len() - 40..],
        &refresh[refresh.len() - 40..],
    ] {
        assert!(!log.contains(secret), "{secret}\n{log}");
    }
}

#[test]
fn without_its_keys_the_registry_has_logged_out_everybody() {
    let server = mixed().start();
    let client = server.client();
    let login = get_token(
        &client,
        "&offline_token=true&scope=repository:a:pull",
        Some(ALICE_IN),
    )
    .expect(200);
    let access = format!("Bearer {}", text(&login, "token"));
    let again = format!(
        "grant_type=refresh_token&refresh_token={}",
        text(&login, "refresh_token")
    );
    post_token(&client, &again).expect(200);
    std::fs::remove_file(server.tree().join(".registry/auth/token-keys.json")).expect("the keys");
    server.signal(Signal::SIGHUP);
    eventually("nobody is logged in", || {
        (post_token(&client, &again).status == 401).then_some(())
    });
    assert_eq!(status(&client, "GET", "/v2/a/tags/list", &access), 401);
    bearer(&client, "repository:a:pull", Some(ALICE_IN));
}

#[test]
fn keys_of_another_server_are_read_again_when_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (
        Signer::new(folder.path(), "old", "EdDSA"),
        Signer::new(folder.path(), "new", "ES384"),
    );
    let bundle = folder.path().join("bundle.pem");
    std::fs::copy(&old.certificate, &bundle).expect("a bundle");
    let server = external(Server::new(), &bundle).start();
    let client = server.client();
    let of = |signer: &Signer| {
        let token = signer.token(
            &json!({"kid": signer.fingerprint()}),
            &claims(repository("a", &["pull"])),
        );
        status(
            &client,
            "GET",
            "/v2/a/tags/list",
            &format!("Bearer {token}"),
        )
    };
    assert_eq!((of(&old), of(&new)), (404, 401));
    std::fs::copy(&new.certificate, &bundle).expect("a bundle");
    server.signal(Signal::SIGHUP);
    eventually("the new key is known", || (of(&new) == 404).then_some(()));
    assert_eq!(of(&old), 401);
    // A bundle that holds nothing changes nothing.
    std::fs::write(&bundle, "").expect("a bundle");
    server.signal(Signal::SIGHUP);
    eventually("that is told", || {
        server
            .log()
            .contains("keys of tokens not reloaded")
            .then_some(())
    });
    assert_eq!(of(&new), 404);
}

#[test]
fn the_realm_can_be_the_host_that_was_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let signer = Signer::new(folder.path(), "one", "PS256");
    for (path, expected) in [
        (None, "/auth/token"),
        (Some("/tokens/here"), "/tokens/here"),
    ] {
        let server =
            external(Server::new(), &signer.certificate).set("auth.token.autoredirect", "true");
        let server = match path {
            Some(path) => server.set("auth.token.autoredirectpath", path),
            None => server,
        };
        let server = server.start();
        let client = server.client();
        let realm = |request: crate::support::http::Request<'_>| {
            let reply = request.send().expect(401);
            parameter(
                reply.header("www-authenticate").unwrap_or_default(),
                "realm",
            )
            .expect("a realm")
        };
        let host = client.addr();
        assert_eq!(
            realm(client.get("/v2/")),
            format!("https://{host}{expected}")
        );
        assert_eq!(
            realm(client.get("/v2/").header("X-Forwarded-Proto", "http")),
            format!("http://{host}{expected}")
        );
        let token = signer.token(&json!({"kid": signer.fingerprint()}), &claims(json!([])));
        assert_eq!(
            status(&client, "GET", "/v2/", &format!("Bearer {token}")),
            200
        );
        // Nobody gets tokens here.
        client.get("/auth/token").send().expect(404);
    }
}

//! Every operation, asked by everybody from everywhere, under four sets of rules.

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, Uri, Version};
use base64::Engine as _;

use super::*;
use crate::auth::robots::Robot;
use crate::auth::settings::{Htpasswd, RuleSettings, Settings as AuthSettings};
use crate::auth::{Auth, Permission, Permissions, Scopes};
use crate::health;
use crate::http::op::PageQuery;
use crate::http::settings::Settings;
use crate::metrics::Metrics;
use crate::notifications::{self, Notifier};
use crate::oci::{Algorithm, Digest, Reference, Tag};
use crate::registry::{Current, UploadId};
use crate::storage::Away;

/// An operation of each kind, and its row in the tables.
macro_rules! operations {
    ($($row:literal: $pattern:pat => $sample:expr,)*) => {
        /// A new operation does not compile until it has its line in `operations!`.
        fn row_of(op: &Op) -> &'static str {
            match op {
                $($pattern => $row,)*
            }
        }

        fn samples() -> Vec<Op> {
            vec![$($sample,)*]
        }
    };
}

fn repo() -> RepoName {
    "team/app".parse().unwrap()
}

fn digest() -> Digest {
    Algorithm::Sha256.digest(b"x")
}

fn tag() -> Tag {
    "v1".parse().unwrap()
}

fn id() -> UploadId {
    uuid::Uuid::from_u128(7).to_string().parse().unwrap()
}

operations! {
    "page": Op::Home => Op::Home,
    "page": Op::GetCa => Op::GetCa,
    "page": Op::GetTrustScript => Op::GetTrustScript,
    "page": Op::GetTrustPowershell => Op::GetTrustPowershell,
    "page": Op::Health => Op::Health,
    "page": Op::Ready => Op::Ready,
    "token": Op::GetToken { .. } => Op::GetToken { scopes: Scopes(Vec::new()), offline: false },
    "token": Op::PostToken => Op::PostToken,
    "ping": Op::Ping => Op::Ping,
    "list": Op::ListRepositories { .. } => Op::ListRepositories { page: PageQuery::default() },
    "metrics": Op::Metrics => Op::Metrics,
    "pull": Op::GetManifest { .. } => Op::GetManifest { repo: repo(), reference: Reference::Tag(tag()) },
    "pull": Op::HeadManifest { .. } => Op::HeadManifest { repo: repo(), reference: Reference::Digest(digest()) },
    "pull": Op::GetBlob { .. } => Op::GetBlob { repo: repo(), digest: digest() },
    "pull": Op::HeadBlob { .. } => Op::HeadBlob { repo: repo(), digest: digest() },
    "pull": Op::ListTags { .. } => Op::ListTags { repo: repo(), page: PageQuery::default() },
    "pull": Op::ListReferrers { .. } => Op::ListReferrers {
        repo: repo(), subject: digest(), artifact_type: None, n: None, last: None,
    },
    "push": Op::PutManifest { .. } => Op::PutManifest { repo: repo(), reference: Reference::Tag(tag()), tags: Vec::new() },
    "push": Op::StartUpload { .. } => Op::StartUpload { repo: repo(), algorithm: None },
    "push": Op::PushBlob { .. } => Op::PushBlob { repo: repo(), digest: digest() },
    "push": Op::MountBlob { .. } => Op::MountBlob {
        repo: repo(), digest: digest(), from: Some("secret/app".parse().unwrap()), algorithm: None,
    },
    "push": Op::UploadStatus { .. } => Op::UploadStatus { repo: repo(), id: id() },
    "push": Op::AppendUpload { .. } => Op::AppendUpload { repo: repo(), id: id() },
    "push": Op::FinishUpload { .. } => Op::FinishUpload { repo: repo(), id: id(), digest: digest() },
    "push": Op::CancelUpload { .. } => Op::CancelUpload { repo: repo(), id: id() },
    "delete": Op::DeleteManifest { .. } => Op::DeleteManifest { repo: repo(), digest: digest() },
    "delete": Op::DeleteTag { .. } => Op::DeleteTag { repo: repo(), tag: tag() },
    "delete": Op::DeleteBlob { .. } => Op::DeleteBlob { repo: repo(), digest: digest() },
    "admin": Op::GetReadOnly => Op::GetReadOnly,
    "admin": Op::SetReadOnly => Op::SetReadOnly,
}

/// In the order of the columns; alice is in the group, the robot may push to `team/**`.
const WHO: [&str; 5] = ["anonymous", "bob", "alice", "robot+ci", "CN=build-7"];

/// In the order of the groups of columns: the address, and what a proxy says of it.
const FROM: [(&str, Option<&str>); 4] = [
    ("192.168.1.5", None),
    ("8.8.8.8", None),
    ("10.0.0.9", Some("192.168.1.5")),
    ("10.0.0.9", Some("8.8.8.8")),
];

/// `+` it is done, `?` 401, `-` 403, `0` as if there were no such thing; a letter for each of `WHO`, a group for each of
/// `FROM`.
const TABLES: [(&str, &str, &str); 4] = [
    (
        "nothing configured",
        "",
        "page    +++++ +++++ +++++ +++++
         token   +++++ +++++ +++++ +++++
         ping    +++++ ----- +++++ -----
         list    +++++ ----- +++++ -----
         metrics +++++ ----- +++++ -----
         pull    +++++ ----- +++++ -----
         push    +++++ ----- +++++ -----
         delete  ----- ----- ----- -----
         admin   ----- ----- ----- -----",
    ),
    (
        "passwords alone",
        "htpasswd",
        "page    +++++ +++++ +++++ +++++
         token   +++++ +++++ +++++ +++++
         ping    ?+++- ?+++- ?+++- ?+++-
         list    ?++-- ?++-- ?++-- ?++--
         metrics ?++-- ?++-- ?++-- ?++--
         pull    ?+++0 ?+++0 ?+++0 ?+++0
         push    ?+++- ?+++- ?+++- ?+++-
         delete  ?++-- ?++-- ?++-- ?++--
         admin   ?++-- ?++-- ?++-- ?++--",
    ),
    (
        "as the package has it",
        "[{who: [anyone], from: [private], allow: [pull, push, list]},
          {who: [users, robots], from: [private], allow: [all]}]",
        "page    +++++ +++++ +++++ +++++
         token   +++++ +++++ +++++ +++++
         ping    +++++ ----- +++++ -----
         list    +++-+ ----- +++-+ -----
         metrics +++-+ ----- +++-+ -----
         pull    +++++ ----- +++++ -----
         push    +++++ ----- +++++ -----
         delete  ?++-- ----- ?++-- -----
         admin   ?++-- ----- ?++-- -----",
    ),
    (
        "teams",
        "[{who: ['group:team'], repositories: [team/**], allow: [push, delete]},
          {who: [robots], from: [private], repositories: [team/**], allow: [push]},
          {who: ['certificate:build-7'], from: [private], allow: [pull, list]},
          {who: [bob], from: [private], allow: [list, admin]}]",
        "page    +++++ +++++ +++++ +++++
         token   +++++ +++++ +++++ +++++
         ping    ?++++ ?-+-- ?++++ ?-+--
         list    ?+--+ ?---- ?+--+ ?----
         metrics ?+--+ ?---- ?+--+ ?----
         pull    ?0+++ ?0+00 ?0+++ ?0+00
         push    ?-++- ?-+-- ?-++- ?-+--
         delete  ?-+-- ?-+-- ?-+-- ?-+--
         admin   ?+--- ?---- ?+--- ?----",
    ),
];

struct Lab {
    front: Front,
    key: String,
    _folder: tempfile::TempDir,
}

impl Lab {
    fn new(rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let hash = bcrypt::hash("secret", 4).unwrap();
        file("htpasswd", format!("alice:{hash}\nbob:{hash}\n"));
        file("groups", "team: alice\n".to_owned());
        let (robot, key) = Robot::new(
            "ci".to_owned(),
            Permissions::NONE.with(Permission::Push),
            vec!["team/**".parse().unwrap()],
            None,
        )
        .unwrap();
        file("robots", format!("{robot}\n"));
        let htpasswd = Htpasswd {
            realm: "Registry".to_owned(),
            path: folder.path().join("htpasswd"),
            ..Htpasswd::default()
        };
        let auth = AuthSettings {
            htpasswd: (!rules.is_empty()).then_some(htpasswd),
            rules: rules.starts_with('[').then(|| parsed(rules)),
            ..AuthSettings::default()
        };
        let registry = Current::new(Err(Away::Missing));
        let metrics = Metrics::new("test");
        let settings = Settings {
            trusted_proxies: vec!["10.0.0.9".parse().unwrap()],
            ..Settings::default()
        };
        let notifier = Notifier::start(
            &notifications::settings::Settings::default(),
            String::new(),
            &metrics,
        );
        let checks = health::Checks::new(&health::settings::Settings::default(), &registry);
        let front = Front::new(
            registry,
            metrics,
            Auth::new(&auth, None).unwrap().into(),
            notifier.unwrap().0,
            &settings,
            checks.unwrap().health(),
            0,
        );
        Lab {
            front,
            key,
            _folder: folder,
        }
    }

    async fn outcome(&self, op: &Op, who: &str, from: (&str, Option<&str>)) -> char {
        let mut headers = HeaderMap::new();
        let password = match who {
            "alice" | "bob" => Some("secret"),
            "robot+ci" => Some(self.key.as_str()),
            _ => None,
        };
        if let Some(password) = password {
            let basic = base64::prelude::BASE64_STANDARD.encode(format!("{who}:{password}"));
            let value = HeaderValue::from_str(&format!("Basic {basic}")).unwrap();
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(client) = from.1 {
            headers.insert(
                HeaderName::from_static("x-forwarded-for"),
                HeaderValue::from_str(client).unwrap(),
            );
        }
        let certificate = who.strip_prefix("CN=").map(str::to_owned);
        let peer = Peer::new(true, false, false).with_certificate(certificate);
        let uri = Uri::from_static("/");
        let head = Head {
            method: &Method::GET,
            uri: &uri,
            version: Version::HTTP_11,
            headers: &headers,
            client: Some(format!("{}:4000", from.0).parse().unwrap()),
            peer: Some(&peer),
        };
        match admit(&self.front, &head, op, &mut None).await {
            Ok(_) => '+',
            Err(Failure::Unauthorized { .. }) => '?',
            Err(Failure::Denied { .. }) => '-',
            Err(Failure::Hidden { .. }) => '0',
            Err(other) => panic!("{op:?} by {who} from {from:?}: {other}"),
        }
    }
}

/// Lists of texts alone, so that this needs nothing of the configuration's own reader.
fn parsed(rules: &str) -> Vec<RuleSettings> {
    let rules: Vec<std::collections::HashMap<String, Vec<String>>> =
        serde_yaml::from_str(rules).unwrap();
    let rules = rules.into_iter().map(|mut rule| RuleSettings {
        who: rule.remove("who").unwrap_or_default(),
        from: rule.remove("from").unwrap_or_default(),
        repositories: rule.remove("repositories").unwrap_or_default(),
        allow: rule.remove("allow").unwrap_or_default(),
        deny: rule.remove("deny").unwrap_or_default(),
    });
    rules.collect()
}

#[tokio::test]
async fn every_operation_by_everybody_from_everywhere() {
    let mut wrong = Vec::new();
    for (name, rules, table) in TABLES {
        let lab = Lab::new(rules);
        let rows: Vec<(&str, &str)> = table
            .lines()
            .map(|line| line.trim().split_once(' ').unwrap())
            .collect();
        for op in samples() {
            let row = row_of(&op);
            let (_, expected) = rows.iter().find(|(known, _)| *known == row).unwrap();
            let mut groups = Vec::new();
            for from in FROM {
                let mut group = String::new();
                for who in WHO {
                    group.push(lab.outcome(&op, who, from).await);
                }
                groups.push(group);
            }
            let found = groups.join(" ");
            if found != expected.trim() {
                wrong.push(format!("{name}: {} ({row}): {found}", op.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! What a registry owes its clients: everything that was asked of it, and what it acknowledged. After a crash, `check`
//! compares that with what it serves.
//!
//! An operation is a list of effects on keys (a tag, a manifest in a repository, a blob in a repository). Acknowledged, its
//! effects hold. Unanswered, each key may be as it was or as it was to become; whatever is found then is what holds from
//! there on. Content is whole in every case: what is visible has the right bytes, and everything it points to is there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use super::{
    http::{Client, Response},
    image::{ANY_MANIFEST, Blob, Manifest, OCI_INDEX},
    seed::Rng,
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Blob { repo: String, digest: String },
    Manifest { repo: String, digest: String },
    Tag { repo: String, tag: String },
}

impl Key {
    pub(crate) fn blob(repo: &str, digest: &str) -> Self {
        Self::Blob {
            repo: repo.to_owned(),
            digest: digest.to_owned(),
        }
    }

    pub(crate) fn manifest(repo: &str, digest: &str) -> Self {
        Self::Manifest {
            repo: repo.to_owned(),
            digest: digest.to_owned(),
        }
    }

    pub(crate) fn tag(repo: &str, tag: &str) -> Self {
        Self::Tag {
            repo: repo.to_owned(),
            tag: tag.to_owned(),
        }
    }

    pub(crate) fn repo(&self) -> &str {
        match self {
            Self::Blob { repo, .. } | Self::Manifest { repo, .. } | Self::Tag { repo, .. } => repo,
        }
    }

    pub(crate) fn target(&self) -> String {
        match self {
            Self::Blob { repo, digest } => format!("/v2/{repo}/blobs/{digest}"),
            Self::Manifest {
                repo,
                digest: reference,
            }
            | Self::Tag {
                repo,
                tag: reference,
            } => {
                format!("/v2/{repo}/manifests/{reference}")
            }
        }
    }

    /// The key with its value while it exists: a tag has a digest, the others are their own.
    fn own_digest(&self) -> Option<&str> {
        match self {
            Self::Blob { digest, .. } | Self::Manifest { digest, .. } => Some(digest),
            Self::Tag { .. } => None,
        }
    }
}

/// What a key is to become: the digest it resolves to, or nothing.
pub(crate) type Effect = (Key, Option<String>);

/// A key that comes into being.
pub(crate) fn made(key: Key) -> Effect {
    let digest = key.own_digest().map(str::to_owned);
    (key, digest)
}

/// A key that goes.
pub(crate) fn gone(key: Key) -> Effect {
    (key, None)
}

#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
pub(crate) struct Asked(u64);

#[derive(Default)]
struct State {
    /// What was acknowledged, or found by a check.
    held: BTreeMap<Key, Option<String>>,
    /// What was asked and not answered.
    open: HashMap<u64, Vec<Effect>>,
    next: u64,
    acknowledged: u64,
    /// Keys that something happened to since the last check.
    touched: BTreeSet<Key>,
    /// The bytes behind every digest, and what they say they are.
    contents: HashMap<String, Arc<Content>>,
}

#[derive(Debug)]
struct Content {
    bytes: Vec<u8>,
    /// Blobs and manifests that a manifest points to; its subject, which need not exist.
    blobs: Vec<String>,
    children: Vec<String>,
    subject: Option<String>,
}

#[derive(Default)]
pub(crate) struct Ledger(Mutex<State>);

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn learn_blob(&self, blob: &Blob) {
        let content = Content {
            bytes: blob.bytes.clone(),
            blobs: Vec::new(),
            children: Vec::new(),
            subject: None,
        };
        self.state()
            .contents
            .entry(blob.digest.clone())
            .or_insert_with(|| Arc::new(content));
    }

    pub(crate) fn learn_manifest(&self, manifest: &Manifest) {
        let value = manifest.value();
        let digest = |value: &Value| value["digest"].as_str().map(str::to_owned);
        let all = |field: &str| -> Vec<String> {
            value[field]
                .as_array()
                .map(|list| list.iter().filter_map(digest).collect())
                .unwrap_or_default()
        };
        let content = Content {
            bytes: manifest.bytes().to_vec(),
            blobs: digest(&value["config"])
                .into_iter()
                .chain(all("layers"))
                .collect(),
            children: all("manifests"),
            subject: digest(&value["subject"]),
        };
        self.state()
            .contents
            .insert(manifest.digest().to_owned(), Arc::new(content));
    }

    // --- asking and answering ---

    /// Before the request goes out.
    pub(crate) fn ask(&self, effects: Vec<Effect>) -> Asked {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        state
            .touched
            .extend(effects.iter().map(|(key, _)| key.clone()));
        state.open.insert(id, effects);
        Asked(id)
    }

    /// The success that the protocol has for it came back.
    pub(crate) fn acknowledged(&self, asked: Asked) {
        let mut state = self.state();
        let effects = state
            .open
            .remove(&asked.0)
            .expect("asked once, answered once");
        state.held.extend(effects);
        state.acknowledged += 1;
    }

    /// The server said that it did not do it (and was not in trouble: a 4xx).
    pub(crate) fn refused(&self, asked: Asked) {
        self.state().open.remove(&asked.0);
    }

    // --- what workers ask ---

    pub(crate) fn holds(&self, key: &Key) -> bool {
        self.state().held.get(key).is_some_and(Option::is_some)
    }

    /// Everything that is held in `repo`.
    pub(crate) fn held_in(&self, repo: &str) -> Vec<(Key, String)> {
        let state = self.state();
        let held = state.held.iter().filter(|(key, _)| key.repo() == repo);
        held.filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
            .collect()
    }

    /// Whether a manifest that is there, or may be, points to `digest`.
    pub(crate) fn is_referenced(&self, repo: &str, digest: &str) -> bool {
        let state = self.state();
        let held = state
            .held
            .iter()
            .filter(|(_, value)| value.is_some())
            .map(|(key, _)| key);
        let open = state.open.values().flatten().map(|(key, _)| key);
        held.chain(open).any(|key| match key {
            Key::Manifest { repo: r, digest: d } if r == repo => {
                state.contents.get(d).is_some_and(|content| {
                    content
                        .blobs
                        .iter()
                        .chain(&content.children)
                        .any(|to| to == digest)
                })
            }
            _ => false,
        })
    }

    /// The manifests that go with `digest` when it is deleted: the untagged ones about it, and so on.
    pub(crate) fn untagged_referrers(&self, repo: &str, digest: &str) -> Vec<String> {
        let state = self.state();
        let held = || {
            state
                .held
                .iter()
                .filter(|(key, value)| key.repo() == repo && value.is_some())
        };
        let (mut all, mut todo) = (Vec::new(), vec![digest.to_owned()]);
        while let Some(subject) = todo.pop() {
            for (key, _) in held() {
                let Key::Manifest { digest: about, .. } = key else {
                    continue;
                };
                let subject_of = state
                    .contents
                    .get(about)
                    .and_then(|content| content.subject.as_ref());
                let tagged = held().any(|(key, value)| {
                    matches!(key, Key::Tag { .. }) && value.as_ref() == Some(about)
                });
                if subject_of == Some(&subject) && !tagged && !all.contains(about) {
                    all.push(about.clone());
                    todo.push(about.clone());
                }
            }
        }
        all
    }

    /// How many operations were acknowledged.
    pub(crate) fn acknowledgements(&self) -> u64 {
        self.state().acknowledged
    }

    /// How many operations have no answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.state().open.len()
    }

    // --- checking ---

    /// Compares what the registry serves with what it owes: everything touched since the last check, `sample` of the rest
    /// (all of it: `usize::MAX`), and every listing. Returns what is wrong. What was open is settled by what is found.
    pub(crate) fn check(&self, client: &Client, rng: &mut Rng, sample: usize) -> Vec<String> {
        let mut state = self.state();
        let mut check = Check {
            client,
            contents: &state.contents,
            found: BTreeMap::new(),
            wrong: Vec::new(),
        };

        let open: Vec<&Effect> = state.open.values().flatten().collect();
        let mut keys: BTreeSet<Key> = state.touched.clone();
        keys.extend(open.iter().map(|(key, _)| key.clone()));
        let mut rest: Vec<&Key> = state
            .held
            .keys()
            .filter(|key| !keys.contains(key))
            .collect();
        while rest.len() > sample {
            rest.swap_remove(rng.index(rest.len()));
        }
        keys.extend(rest.into_iter().cloned().collect::<Vec<_>>());
        // A tag is looked at together with what it names, whole.
        for key in &keys {
            let found = check.look(key);
            let mut allowed = vec![state.held.get(key).cloned().flatten()];
            allowed.extend(
                open.iter()
                    .filter(|(k, _)| k == key)
                    .map(|(_, value)| value.clone()),
            );
            if !allowed.contains(&found) {
                check.wrong.push(format!(
                    "{key:?} is {found:?}, and has to be {}",
                    either(&allowed)
                ));
            }
        }
        let manifests: BTreeSet<(String, String)> = check
            .found
            .iter()
            .filter_map(|(key, value)| match key {
                Key::Blob { .. } => None,
                Key::Manifest { repo, .. } | Key::Tag { repo, .. } => {
                    Some((repo.clone(), value.clone()?))
                }
            })
            .collect();
        for (repo, digest) in &manifests {
            check.whole(repo, digest, &mut Vec::new());
        }
        check.listings(&state.held, &keys);
        check.strangers(&state.held, &open, rng);

        let Check { found, wrong, .. } = check;
        for (key, value) in found {
            state.held.insert(key, value);
        }
        state.open.clear();
        state.touched.clear();
        wrong
    }
}

fn either(values: &[Option<String>]) -> String {
    let words: BTreeSet<&str> = values
        .iter()
        .map(|value| value.as_deref().unwrap_or("absent"))
        .collect();
    words.into_iter().collect::<Vec<_>>().join(" or ")
}

struct Check<'a> {
    client: &'a Client,
    contents: &'a HashMap<String, Arc<Content>>,
    found: BTreeMap<Key, Option<String>>,
    wrong: Vec<String>,
}

impl Check<'_> {
    fn get(&self, target: &str) -> Response {
        self.client
            .get(target)
            .header("Accept", ANY_MANIFEST)
            .send()
    }

    /// What a key resolves to, with the right bytes.
    fn look(&mut self, key: &Key) -> Option<String> {
        if let Some(found) = self.found.get(key) {
            return found.clone();
        }
        let reply = self.get(&key.target());
        let found = match reply.status {
            200 => self.content_of(key, &reply),
            404 => None,
            status => {
                self.wrong
                    .push(format!("{key:?}: {status} {}", reply.text()));
                None
            }
        };
        self.found.insert(key.clone(), found.clone());
        found
    }

    fn content_of(&mut self, key: &Key, reply: &Response) -> Option<String> {
        let said = reply.header("docker-content-digest");
        let digest = match (key.own_digest(), said) {
            (Some(own), None) => own.to_owned(),
            (Some(own), Some(said)) if own == said => own.to_owned(),
            (None, Some(said)) => said.to_owned(),
            (own, said) => {
                self.wrong.push(format!(
                    "{key:?}: Docker-Content-Digest is {said:?}, and has to be {own:?}"
                ));
                return None;
            }
        };
        match self.contents.get(&digest) {
            Some(content) if content.bytes == reply.body => {}
            Some(content) => self.wrong.push(format!(
                "{key:?}: {} bytes that are not the {} bytes of {digest}",
                reply.body.len(),
                content.bytes.len()
            )),
            None => self
                .wrong
                .push(format!("{key:?}: {digest} was never pushed")),
        }
        Some(digest)
    }

    /// Everything that a visible manifest points to is there.
    fn whole(&mut self, repo: &str, digest: &str, above: &mut Vec<String>) {
        let Some(content) = self.contents.get(digest).cloned() else {
            return;
        };
        if above.iter().any(|d| d == digest) {
            return;
        }
        above.push(digest.to_owned());
        if self.look(&Key::manifest(repo, digest)).is_none() {
            self.wrong.push(format!(
                "{repo}: {} names {digest}, which is not there",
                above.join(" > ")
            ));
        }
        for blob in &content.blobs {
            if self.look(&Key::blob(repo, blob)).is_none() {
                self.wrong.push(format!(
                    "{repo}: manifest {} is there without its blob {blob}",
                    above.join(" > ")
                ));
            }
        }
        for child in &content.children {
            self.whole(repo, child, above);
        }
        above.pop();
    }

    /// `tags/list`, the referrers and the catalog name what is there and nothing else.
    fn listings(&mut self, held: &BTreeMap<Key, Option<String>>, keys: &BTreeSet<Key>) {
        let repos: BTreeSet<String> = held
            .keys()
            .chain(keys)
            .map(|key| key.repo().to_owned())
            .collect();
        let touched: BTreeSet<String> = keys.iter().map(|key| key.repo().to_owned()).collect();
        // What was looked at counts as it was found, the rest as it is held.
        let mut present: BTreeMap<Key, String> = held
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
            .collect();
        for (key, value) in &self.found {
            match value {
                Some(digest) => present.insert(key.clone(), digest.clone()),
                None => present.remove(key),
            };
        }

        for repo in &touched {
            let tags: BTreeSet<String> = present
                .keys()
                .filter_map(|key| match key {
                    Key::Tag { repo: r, tag } if r == repo => Some(tag.clone()),
                    _ => None,
                })
                .collect();
            let listed = self.list(&format!("/v2/{repo}/tags/list?n=500"), "tags");
            if listed != tags {
                let (extra, missing) = (difference(&listed, &tags), difference(&tags, &listed));
                self.wrong.push(format!(
                    "{repo}: tags/list has {extra} too many, lacks {missing}"
                ));
            }

            let mut referrers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            let manifests = present.keys().chain(keys).filter_map(|key| match key {
                Key::Manifest { repo: r, digest } if r == repo => Some(digest),
                _ => None,
            });
            for digest in manifests {
                if let Some(subject) = self
                    .contents
                    .get(digest)
                    .and_then(|content| content.subject.clone())
                {
                    let of = referrers.entry(subject).or_default();
                    if present.contains_key(&Key::manifest(repo, digest)) {
                        of.insert(digest.clone());
                    }
                }
            }
            for (subject, expected) in referrers {
                self.referrers(repo, &subject, &expected);
            }
        }

        let listed = self.list("/v2/_catalog?n=500", "repositories");
        let with_tags: BTreeSet<String> = present
            .keys()
            .filter(|key| matches!(key, Key::Tag { .. }))
            .map(|key| key.repo().to_owned())
            .collect();
        let (extra, missing) = (difference(&listed, &repos), difference(&with_tags, &listed));
        if extra != "nothing" || missing != "nothing" {
            self.wrong
                .push(format!("_catalog has {extra} too many, lacks {missing}"));
        }
    }

    /// A listing, all its pages; nothing when there is no such repository.
    fn list(&mut self, target: &str, field: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut target = target.to_owned();
        loop {
            let reply = self.get(&target);
            match reply.status {
                200 => {}
                404 => return names,
                status => {
                    self.wrong
                        .push(format!("{target}: {status} {}", reply.text()));
                    return names;
                }
            }
            let page = reply.json();
            let page = page[field].as_array().into_iter().flatten();
            let before = names.len();
            names.extend(page.filter_map(|name| name.as_str().map(str::to_owned)));
            match reply.next_page() {
                Some(next) if names.len() > before => target = next,
                Some(next) => {
                    self.wrong.push(format!(
                        "{target}: a page with nothing new, and another one at {next}"
                    ));
                    return names;
                }
                None => return names,
            }
        }
    }

    fn referrers(&mut self, repo: &str, subject: &str, expected: &BTreeSet<String>) {
        let target = format!("/v2/{repo}/referrers/{subject}");
        let reply = self.get(&target);
        if reply.status == 404 {
            // CNCF distribution has no referrers; the spec says 200 with an empty list otherwise.
            if reply.error_code().is_some() || !expected.is_empty() {
                self.wrong.push(format!("{target}: {reply:?}"));
            }
            return;
        }
        if reply.status != 200 || reply.header("content-type") != Some(OCI_INDEX) {
            self.wrong.push(format!("{target}: {reply:?}"));
            return;
        }
        let listed: BTreeSet<String> = reply.json()["manifests"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["digest"].as_str().map(str::to_owned))
            .collect();
        if listed != *expected {
            let (extra, missing) = (difference(&listed, expected), difference(expected, &listed));
            self.wrong
                .push(format!("{target} has {extra} too many, lacks {missing}"));
        }
    }

    /// Content of one repository is not visible in another one that nobody pushed it to.
    fn strangers(&mut self, held: &BTreeMap<Key, Option<String>>, open: &[&Effect], rng: &mut Rng) {
        let repos: Vec<&str> = held
            .keys()
            .map(Key::repo)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut digests: Vec<&String> = self.contents.keys().collect();
        digests.sort();
        if repos.is_empty() || digests.is_empty() {
            return;
        }
        for _ in 0..6 {
            let (repo, digest) = (*rng.pick(&repos), *rng.pick(&digests));
            for key in [Key::blob(repo, digest), Key::manifest(repo, digest)] {
                // Manifests are blobs too, in the eyes of some registries.
                let known = |k: &Key| {
                    held.contains_key(k)
                        || self.found.contains_key(k)
                        || open.iter().any(|(o, _)| o == k)
                };
                if known(&Key::blob(repo, digest)) || known(&Key::manifest(repo, digest)) {
                    continue;
                }
                let status = self
                    .client
                    .head(&key.target())
                    .header("Accept", ANY_MANIFEST)
                    .send()
                    .status;
                if status != 404 {
                    self.wrong.push(format!(
                        "{key:?} was never pushed there, and HEAD says {status}"
                    ));
                }
            }
        }
    }
}

fn difference(one: &BTreeSet<String>, other: &BTreeSet<String>) -> String {
    let names: Vec<&str> = one.difference(other).map(String::as_str).collect();
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

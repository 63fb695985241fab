//! A client that pushes, mounts, deletes and pulls at random while garbage is collected, and knows what it is owed: what
//! a manifest refers to that it pushed and did not delete. Layers on their own are owed to nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    http::{Client, Request, Response, with_query},
    image::{ANY_MANIFEST, Blob, Image, Manifest},
    seed::Rng,
};

/// The server is dying: the request at hand has no answer, or a wrong one.
#[derive(Debug)]
pub(crate) struct Halt;

type Step<T = ()> = Result<T, Halt>;

/// A manifest that was pushed.
#[derive(Clone, Debug)]
struct Pushed {
    repo: String,
    manifest: Manifest,
    blobs: Vec<Blob>,
    children: Vec<String>,
    subject: Option<String>,
    tag: Option<String>,
}

/// What was asked and not answered.
enum Open {
    Push(Box<Pushed>),
    Delete { repo: String, digests: Vec<String> },
    Untag { repo: String, digest: String },
}

pub(crate) struct Owner<'a> {
    pub(crate) client: Client,
    rng: Rng,
    name: String,
    others: Vec<String>,
    /// Layers that all owners push.
    pool: &'a [Blob],
    /// Whether the server is dying.
    trouble: &'a (dyn Fn() -> bool + Sync),
    /// By repository and digest.
    held: BTreeMap<(String, String), Pushed>,
    /// Everything ever pushed, by digest.
    ever: BTreeMap<String, Pushed>,
    open: Option<Open>,
    made: u64,
    pub(crate) acknowledged: u64,
    /// Pushes that had to send their layers again.
    pub(crate) again: u64,
}

impl<'a> Owner<'a> {
    /// Owner `n` of `of`.
    pub(crate) fn new(
        (n, of): (u64, u64),
        client: Client,
        rng: Rng,
        pool: &'a [Blob],
        trouble: &'a (dyn Fn() -> bool + Sync),
    ) -> Self {
        Self {
            client,
            rng,
            name: format!("o{n}"),
            others: (0..of).map(|n| format!("o{n}/r{}", n % 2)).collect(),
            pool,
            trouble,
            held: BTreeMap::new(),
            ever: BTreeMap::new(),
            open: None,
            made: 0,
            acknowledged: 0,
            again: 0,
        }
    }

    /// Does one thing after the other until the trouble comes, or `enough` says so.
    pub(crate) fn work(&mut self, enough: &(dyn Fn() -> bool + Sync)) {
        while !enough() {
            if self.anything().is_err() {
                return;
            }
            self.acknowledged += 1;
        }
    }

    fn anything(&mut self) -> Step {
        let mine: Vec<Pushed> = self.held.values().cloned().collect();
        let some = (!mine.is_empty()).then(|| self.rng.pick(&mine).clone());
        // So that as much goes as comes.
        let full = mine.len() > 12;
        match (self.rng.below(10), some) {
            (0..=1, Some(pushed)) => self.pull(&pushed),
            (2, Some(child)) => self.push(Some(&child), None),
            (3, Some(subject)) => self.push(None, Some(&subject)),
            (4, Some(pushed)) => self.untag(&pushed),
            (5..=6, Some(pushed)) => self.delete(&pushed),
            (7..=8, Some(pushed)) if full => self.delete(&pushed),
            _ => self.push(None, None),
        }
    }

    // --- requests ---

    #[track_caller]
    fn send(&self, request: Request<'_>) -> Step<Response> {
        match (request.try_send(), (self.trouble)()) {
            (Ok(reply), _) if reply.status < 500 => Ok(reply),
            (_, true) => Err(Halt),
            (reply, false) => panic!("{}: {reply:?}", self.name),
        }
    }

    #[track_caller]
    fn expect(&self, status: u16, reply: &Response) -> Step {
        match (reply.status == status, (self.trouble)()) {
            (true, _) => Ok(()),
            (false, true) => Err(Halt),
            (false, false) => panic!("{}: {reply:?}, and not {status}", self.name),
        }
    }

    fn send_blob(&mut self, repo: &str, blob: &Blob) -> Step {
        let target = format!("/v2/{repo}/blobs/{}", blob.digest);
        if self.send(self.client.head(&target))?.status == 200 {
            return Ok(());
        }
        let mut target = format!("/v2/{repo}/blobs/uploads/");
        if self.rng.chance(60) {
            target = with_query(&target, "mount", &blob.digest);
            let from = self.rng.pick(&self.others).clone();
            target = with_query(&target, "from", &from);
        }
        let reply = self.send(self.client.post(&target))?;
        if reply.status == 201 {
            return Ok(());
        }
        self.expect(202, &reply)?;
        let target = with_query(&reply.location(), "digest", &blob.digest);
        let reply = self.send(self.client.put(&target).body(blob.bytes.clone()))?;
        self.expect(201, &reply)
    }

    fn push(&mut self, child: Option<&Pushed>, subject: Option<&Pushed>) -> Step {
        self.made += 1;
        let near = child.or(subject).map(|pushed| pushed.repo.clone());
        let repo = near.unwrap_or_else(|| format!("{}/r{}", self.name, self.rng.below(2)));
        let mut blobs = Vec::new();
        let mut manifest = match child {
            Some(child) => Manifest::index([&child.manifest]),
            None => {
                let mut builder = Image::builder(self.rng.next()).layers(0);
                for _ in 0..1 + self.rng.below(3) {
                    builder = builder.layer(self.rng.pick(self.pool).clone());
                }
                if let Some(subject) = subject {
                    builder = builder.subject(&subject.manifest);
                }
                let image = builder.build();
                blobs = image.blobs().cloned().collect();
                image.manifest
            }
        };
        let id = format!("{}-{}", self.name, self.made);
        manifest = manifest.edit(|value| value["annotations"]["id"] = id.clone().into());
        let tag = self.rng.chance(60).then_some(id);
        let digest = manifest.digest().to_owned();
        let pushed = Pushed {
            repo: repo.clone(),
            manifest: manifest.clone(),
            blobs: blobs.clone(),
            children: child
                .iter()
                .map(|c| c.manifest.digest().to_owned())
                .collect(),
            subject: subject.map(|s| s.manifest.digest().to_owned()),
            tag: tag.clone(),
        };
        self.ever.insert(digest.clone(), pushed.clone());
        let reference = tag.unwrap_or_else(|| digest.clone());
        // Whoever is told that a layer is missing sends it again, as docker does; without any grace that happens.
        for _ in 0..10_000 {
            for blob in &blobs {
                self.send_blob(&repo, blob)?;
            }
            self.open = Some(Open::Push(Box::new(pushed.clone())));
            let request = self
                .client
                .put(&format!("/v2/{repo}/manifests/{reference}"))
                .header("Content-Type", &manifest.media_type)
                .body(manifest.bytes());
            let reply = self.send(request)?;
            if reply.error_code().as_deref() == Some("MANIFEST_BLOB_UNKNOWN") {
                self.open = None;
                self.again += 1;
                continue;
            }
            self.expect(201, &reply)?;
            self.open = None;
            self.held.insert((repo, digest), pushed);
            return Ok(());
        }
        panic!("{}: its layers were always gone", self.name);
    }

    fn pull(&self, pushed: &Pushed) -> Step {
        let target = format!("/v2/{}/manifests/{}", pushed.repo, pushed.manifest.digest());
        let reply = self.send(self.client.get(&target).header("Accept", ANY_MANIFEST))?;
        self.expect(200, &reply)?;
        for blob in &pushed.blobs {
            let target = format!("/v2/{}/blobs/{}", pushed.repo, blob.digest);
            let reply = self.send(self.client.get(&target))?;
            self.expect(200, &reply)?;
            assert_eq!(reply.body, blob.bytes, "{target}");
        }
        Ok(())
    }

    fn untag(&mut self, pushed: &Pushed) -> Step {
        let Some(tag) = &pushed.tag else {
            return Ok(());
        };
        let (repo, digest) = (pushed.repo.clone(), pushed.manifest.digest().to_owned());
        let request = self.client.delete(&format!("/v2/{repo}/manifests/{tag}"));
        self.open = Some(Open::Untag {
            repo: repo.clone(),
            digest: digest.clone(),
        });
        let reply = self.send(request)?;
        self.expect(202, &reply)?;
        self.open = None;
        if let Some(held) = self.held.get_mut(&(repo, digest)) {
            held.tag = None;
        }
        Ok(())
    }

    /// A manifest goes with the untagged ones about it, but for those that a tagged index lists.
    fn doomed(&self, pushed: &Pushed) -> Vec<String> {
        let in_repo = || self.held.values().filter(|held| held.repo == pushed.repo);
        let is_listed = |digest: &str| {
            in_repo().any(|held| held.tag.is_some() && held.children.iter().any(|c| c == digest))
        };
        let (mut doomed, mut next) = (vec![pushed.manifest.digest().to_owned()], 0);
        while let Some(subject) = doomed.get(next).cloned() {
            next += 1;
            let about = in_repo()
                .filter(|held| held.subject.as_ref() == Some(&subject) && held.tag.is_none())
                .map(|held| held.manifest.digest().to_owned())
                .filter(|digest| !is_listed(digest));
            doomed.extend(about);
        }
        doomed
    }

    fn delete(&mut self, pushed: &Pushed) -> Step {
        let (repo, digests) = (pushed.repo.clone(), self.doomed(pushed));
        self.open = Some(Open::Delete {
            repo: repo.clone(),
            digests: digests.clone(),
        });
        let target = format!("/v2/{repo}/manifests/{}", digests[0]);
        let reply = self.send(self.client.delete(&target))?;
        self.expect(202, &reply)?;
        self.open = None;
        for digest in digests {
            self.held.remove(&(repo.clone(), digest));
        }
        Ok(())
    }

    // --- judging ---

    fn is_there(&self, repo: &str, reference: &str) -> bool {
        let target = format!("/v2/{repo}/manifests/{reference}");
        let reply = self.client.get(&target).header("Accept", ANY_MANIFEST);
        match reply.send().status {
            200 => true,
            404 => false,
            status => panic!("{target}: {status}"),
        }
    }

    /// After a restart: what had no answer is what is found now.
    pub(crate) fn settle(&mut self) {
        match self.open.take() {
            Some(Open::Push(mut pushed)) => {
                let (repo, digest) = (pushed.repo.clone(), pushed.manifest.digest().to_owned());
                if self.is_there(&repo, &digest) {
                    pushed.tag = pushed.tag.filter(|tag| self.is_there(&repo, tag));
                    self.held.insert((repo, digest), *pushed);
                }
            }
            Some(Open::Delete { repo, digests }) => {
                for digest in digests {
                    let key = (repo.clone(), digest);
                    if !self.is_there(&key.0, &key.1) {
                        self.held.remove(&key);
                    } else if let Some(held) = self.held.get(&key) {
                        let tag = held.tag.clone();
                        let tag = tag.filter(|tag| self.is_there(&key.0, tag));
                        self.held.entry(key).and_modify(|held| held.tag = tag);
                    }
                }
            }
            Some(Open::Untag { repo, digest }) => {
                let key = (repo, digest);
                let tag = self.held.get(&key).and_then(|held| held.tag.clone());
                if tag.is_some_and(|tag| !self.is_there(&key.0, &tag)) {
                    self.held.entry(key).and_modify(|held| held.tag = None);
                }
            }
            None => {}
        }
    }

    /// Pulls everything that is owed.
    pub(crate) fn pull_all(&self) {
        for pushed in self.held.values() {
            self.pull(pushed).expect("no trouble any more");
            if let Some(tag) = &pushed.tag {
                assert!(self.is_there(&pushed.repo, tag), "{}:{tag}", pushed.repo);
            }
        }
    }

    /// The digests that have to be on the disk, and the links of each repository to blobs; nothing else may be there.
    pub(crate) fn owed(&self, digests: &mut BTreeSet<String>, links: &mut BTreeSet<String>) {
        for held in self.held.values() {
            // An index keeps what it lists, even if that was deleted by its digest.
            let mut todo = vec![held.manifest.digest().to_owned()];
            while let Some(digest) = todo.pop() {
                let pushed = &self.ever[&digest];
                for blob in &pushed.blobs {
                    links.insert(format!("{}@{}", held.repo, blob.digest));
                    digests.insert(blob.digest.clone());
                }
                todo.extend(pushed.children.iter().cloned());
                digests.insert(digest);
            }
        }
    }
}

//! A client that pushes, deletes and reads at random and notes everything in the ledger: what it asks before it asks, what
//! was acknowledged when the answer is there.

use super::{
    http::{Client, Request, Response, with_query},
    image::{ANY_MANIFEST, Algorithm, Blob, Image, Manifest},
    ledger::{Effect, Key, Ledger, gone, made},
    seed::Rng,
};

/// Why a request may fail now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The server or its disk is dying: anything may come back, or nothing.
    Crash,
    /// The disk fails calls: an error of the protocol's form has to come back.
    Fault,
}

/// The request at hand has failed because of the trouble that there is.
#[derive(Debug)]
pub(crate) struct Halt;

pub(crate) type Step<T = ()> = Result<T, Halt>;

/// What the registry under test can do beyond CNCF distribution 2.8, which these stories can be run against too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    pub(crate) delete_tags: bool,
    pub(crate) referrers: bool,
    pub(crate) sha512: bool,
    pub(crate) many_tags: bool,
}

impl Abilities {
    pub(crate) fn of_server() -> Self {
        let ours = std::env::var_os("TEST_SERVER_BINARY").is_none();
        Self {
            delete_tags: ours,
            referrers: ours,
            sha512: ours,
            many_tags: ours,
        }
    }
}

/// An upload that was begun and left open.
#[derive(Debug)]
struct Session {
    repo: String,
    target: String,
    blob: Blob,
    /// Bytes that a 202 has confirmed, and bytes that were sent.
    confirmed: usize,
    sent: usize,
    /// The closing PUT went out: the session may be gone.
    closing: bool,
}

pub(crate) struct Worker<'a> {
    pub(crate) client: Client,
    pub(crate) rng: Rng,
    name: String,
    ledger: &'a Ledger,
    /// Blobs that every worker pushes.
    pool: &'a [Blob],
    trouble: &'a (dyn Fn() -> Option<Trouble> + Sync),
    abilities: Abilities,
    /// Manifests of its own, in the order in which they were pushed, and where to.
    mine: Vec<(String, Image)>,
    sessions: Vec<Session>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(
        name: &str,
        client: Client,
        rng: Rng,
        ledger: &'a Ledger,
        pool: &'a [Blob],
        trouble: &'a (dyn Fn() -> Option<Trouble> + Sync),
    ) -> Self {
        Self {
            client,
            rng,
            name: name.to_owned(),
            ledger,
            pool,
            trouble,
            abilities: Abilities::of_server(),
            mine: Vec::new(),
            sessions: Vec::new(),
        }
    }

    // --- requests ---

    #[track_caller]
    fn send(&self, request: Request<'_>) -> Step<Response> {
        let reply = request.try_send();
        match (reply, (self.trouble)()) {
            (Ok(reply), _) if reply.status < 500 => Ok(reply),
            (_, Some(Trouble::Crash)) => Err(Halt),
            (Ok(reply), Some(Trouble::Fault)) => {
                assert!(
                    reply.error_code().is_some(),
                    "an error without the protocol's body: {reply:?}"
                );
                Err(Halt)
            }
            (reply, trouble) => panic!("{}: {reply:?}, in trouble: {trouble:?}", self.name),
        }
    }

    /// Sends what is to have `effects`; anything but `success` is wrong, unless there is trouble.
    #[track_caller]
    fn change(&self, effects: Vec<Effect>, request: Request<'_>, success: u16) -> Step<Response> {
        let asked = self.ledger.ask(effects);
        let reply = self.send(request)?;
        if reply.status == success {
            self.ledger.acknowledged(asked);
            return Ok(reply);
        }
        self.unexpected(&reply)
    }

    /// An answer that is not what the protocol has for this request.
    #[track_caller]
    fn unexpected<T>(&self, reply: &Response) -> Step<T> {
        match (self.trouble)() {
            Some(Trouble::Crash) => Err(Halt),
            trouble => panic!("{}: {reply:?}, in trouble: {trouble:?}", self.name),
        }
    }

    // --- one operation each ---

    /// Opens an upload.
    fn open(&self, repo: &str) -> Step<String> {
        let reply = self.send(self.client.post(&format!("/v2/{repo}/blobs/uploads/")))?;
        if reply.status == 202 {
            Ok(reply.location())
        } else {
            self.unexpected(&reply)
        }
    }

    fn close(&self, repo: &str, target: &str, blob: &Blob, rest: &[u8]) -> Step {
        let request = self
            .client
            .put(&with_query(target, "digest", &blob.digest))
            .body(rest);
        let reply = self.change(vec![made(Key::blob(repo, &blob.digest))], request, 201)?;
        let digest = reply
            .header("docker-content-digest")
            .unwrap_or(&blob.digest);
        assert_eq!(digest, blob.digest, "{}: {reply:?}", self.name);
        Ok(())
    }

    /// POST, PUT.
    pub(crate) fn push_whole(&self, repo: &str, blob: &Blob) -> Step {
        self.ledger.learn_blob(blob);
        let target = self.open(repo)?;
        self.close(repo, &target, blob, &blob.bytes)
    }

    /// One POST with everything; a registry may answer it like an empty one.
    pub(crate) fn push_single(&self, repo: &str, blob: &Blob) -> Step {
        self.ledger.learn_blob(blob);
        let target = with_query(
            &format!("/v2/{repo}/blobs/uploads/"),
            "digest",
            &blob.digest,
        );
        let request = self
            .client
            .post(&target)
            .header("Content-Type", "application/octet-stream")
            .body(blob.bytes.clone());
        let asked = self.ledger.ask(vec![made(Key::blob(repo, &blob.digest))]);
        let reply = self.send(request)?;
        match reply.status {
            201 => self.ledger.acknowledged(asked),
            202 => {
                self.ledger.refused(asked);
                return self.close(repo, &reply.location(), blob, &blob.bytes);
            }
            _ => return self.unexpected(&reply),
        }
        Ok(())
    }

    /// POST, PATCHes (chunked as docker sends them, or with their range as the spec has it), PUT with or without the rest.
    pub(crate) fn push_in_parts(&mut self, repo: &str, blob: &Blob) -> Step {
        self.ledger.learn_blob(blob);
        let mut target = self.open(repo)?;
        let parts = 1 + self.rng.index(3);
        let last_with_put = self.rng.chance(50);
        let mut at = 0;
        for part in 1..=parts {
            let end = if part == parts {
                blob.len()
            } else {
                at + self.rng.index(blob.len() - at + 1)
            };
            if part == parts && last_with_put {
                break;
            }
            target = self.patch(&target, blob, at, end)?;
            at = end;
        }
        self.close(repo, &target, blob, &blob.bytes[at..])
    }

    fn patch(&mut self, target: &str, blob: &Blob, at: usize, end: usize) -> Step<String> {
        if at == end {
            return Ok(target.to_owned());
        }
        let bytes = &blob.bytes[at..end];
        let request = self
            .client
            .patch(target)
            .header("Content-Type", "application/octet-stream");
        let request = if self.rng.chance(50) {
            request.chunked(bytes, 3000)
        } else {
            request
                .header("Content-Range", format!("{at}-{}", end - 1))
                .body(bytes)
        };
        let reply = self.send(request)?;
        if reply.status != 202 {
            return self.unexpected(&reply);
        }
        assert_eq!(
            reply.header("range"),
            Some(format!("0-{}", end - 1).as_str()),
            "{}: {reply:?}",
            self.name
        );
        Ok(reply.location())
    }

    /// POST with `mount` and `from`; a registry may answer it like an empty one.
    pub(crate) fn mount(&self, repo: &str, from: &str, blob: &Blob) -> Step {
        self.ledger.learn_blob(blob);
        let target = with_query(&format!("/v2/{repo}/blobs/uploads/"), "mount", &blob.digest);
        let request = self.client.post(&with_query(&target, "from", from));
        let asked = self.ledger.ask(vec![made(Key::blob(repo, &blob.digest))]);
        let reply = self.send(request)?;
        match reply.status {
            201 => self.ledger.acknowledged(asked),
            202 => {
                self.ledger.refused(asked);
                return self.close(repo, &reply.location(), blob, &blob.bytes);
            }
            _ => return self.unexpected(&reply),
        }
        Ok(())
    }

    /// Docker's habit: what HEAD finds is not sent. True: found.
    pub(crate) fn is_there(&self, repo: &str, blob: &Blob) -> Step<bool> {
        let key = Key::blob(repo, &blob.digest);
        let reply = self.send(self.client.head(&key.target()))?;
        match reply.status {
            200 => Ok(true),
            404 if !self.ledger.holds(&key) => Ok(false),
            _ => self.unexpected(&reply),
        }
    }

    /// In one of the ways there are.
    pub(crate) fn push_blob(&mut self, repo: &str, blob: &Blob) -> Step {
        if self.rng.chance(60) && self.is_there(repo, blob)? {
            return Ok(());
        }
        let elsewhere = [format!("{}/app", self.name), "shared/app".to_owned()];
        let from = elsewhere
            .iter()
            .find(|from| *from != repo && self.ledger.holds(&Key::blob(from, &blob.digest)));
        match (self.rng.below(4), from) {
            (0 | 1, Some(from)) => self.mount(repo, from, blob),
            (0, None) => self.push_single(repo, blob),
            (1 | 2, _) => self.push_in_parts(repo, blob),
            _ => self.push_whole(repo, blob),
        }
    }

    /// By tags (at most one unless the registry takes more), or by digest when there is none.
    pub(crate) fn push_manifest(&mut self, repo: &str, image: &Image, tags: &[String]) -> Step {
        let manifest = &image.manifest;
        self.ledger.learn_manifest(manifest);
        let mut effects = vec![made(Key::manifest(repo, manifest.digest()))];
        effects.extend(
            tags.iter()
                .map(|tag| (Key::tag(repo, tag), Some(manifest.digest().to_owned()))),
        );
        // What HEAD found may have been another client's, still on its way: this 201 vouches for it as well.
        effects.extend(
            image
                .blobs()
                .map(|blob| made(Key::blob(repo, &blob.digest))),
        );
        let target = match tags {
            [tag] if manifest.digest().starts_with("sha256:") => {
                format!("/v2/{repo}/manifests/{tag}")
            }
            _ => tags.iter().fold(
                format!("/v2/{repo}/manifests/{}", manifest.digest()),
                |target, tag| with_query(&target, "tag", tag),
            ),
        };
        let request = self
            .client
            .put(&target)
            .header("Content-Type", &manifest.media_type)
            .body(manifest.bytes());
        let reply = self.change(effects, request, 201)?;
        assert_eq!(
            reply.header("docker-content-digest"),
            Some(manifest.digest()),
            "{}: {reply:?}",
            self.name
        );
        let entry = (repo.to_owned(), image.clone());
        if !self.mine.contains(&entry) {
            self.mine.push(entry);
        }
        Ok(())
    }

    pub(crate) fn push_image(&mut self, repo: &str, image: &Image, tags: &[String]) -> Step {
        for blob in image.layers.iter().chain([&image.config]) {
            self.ledger.learn_blob(blob);
            self.push_blob(repo, blob)?;
        }
        self.push_manifest(repo, image, tags)
    }

    pub(crate) fn delete_tag(&self, repo: &str, tag: &str) -> Step {
        let key = Key::tag(repo, tag);
        let request = self.client.delete(&key.target());
        self.change(vec![gone(key)], request, 202).map(drop)
    }

    /// The manifest, every tag that names it, and the untagged manifests that are about it.
    pub(crate) fn delete_manifest(&self, repo: &str, digest: &str) -> Step {
        let key = Key::manifest(repo, digest);
        let request = self.client.delete(&key.target());
        let tags = self.ledger.held_in(repo).into_iter();
        let tags = tags.filter(|(k, d)| matches!(k, Key::Tag { .. }) && d == digest);
        let mut effects: Vec<Effect> = tags.map(|(tag, _)| gone(tag)).collect();
        if self.abilities.referrers {
            let about = self.ledger.untagged_referrers(repo, digest);
            effects.extend(about.iter().map(|digest| gone(Key::manifest(repo, digest))));
        }
        effects.push(gone(key));
        self.change(effects, request, 202).map(drop)
    }

    pub(crate) fn delete_blob(&self, repo: &str, digest: &str) -> Step {
        let key = Key::blob(repo, digest);
        let request = self.client.delete(&key.target());
        self.change(vec![gone(key)], request, 202).map(drop)
    }

    // --- at random ---

    /// Works until there is trouble.
    pub(crate) fn work(&mut self) {
        while (self.trouble)().is_none() {
            if let Err(Halt) = self.anything() {
                return;
            }
        }
    }

    fn repo(&mut self) -> String {
        if self.rng.chance(60) {
            format!("{}/app", self.name)
        } else {
            "shared/app".to_owned()
        }
    }

    fn tag(&mut self) -> String {
        format!("{}-{}", self.name, self.rng.below(6))
    }

    fn anything(&mut self) -> Step {
        match self.rng.below(100) {
            0..34 => self.any_image(),
            34..44 => self.any_index(),
            44..54 if self.abilities.referrers => self.any_artifact(),
            54..64 if self.abilities.delete_tags => self.any_tag_deletion(),
            64..76 => self.any_manifest_deletion(),
            76..82 => self.any_loose_blob(),
            82..90 => self.any_session(),
            _ => self.any_read(),
        }
    }

    fn any_tags(&mut self) -> Vec<String> {
        let mut tags = match self.rng.below(10) {
            0 | 1 => Vec::new(),
            2 if self.abilities.many_tags => vec![self.tag(), self.tag()],
            _ => vec![self.tag()],
        };
        tags.sort();
        tags.dedup();
        tags
    }

    fn any_image(&mut self) -> Step {
        let repo = self.repo();
        let mut builder = Image::builder(self.rng.next())
            .layers(self.rng.index(3))
            .layer_size(1 + self.rng.index(24 * 1024));
        for _ in 0..self.rng.below(3) {
            builder = builder.layer(self.rng.pick(self.pool).clone());
        }
        if self.rng.chance(30) {
            builder = builder.docker();
        }
        if self.abilities.sha512 && self.rng.chance(15) {
            builder = builder.algorithm(Algorithm::Sha512);
        }
        if self.abilities.sha512 && self.rng.chance(15) {
            builder = builder.blob_algorithm(Algorithm::Sha512);
        }
        let image = builder.build();
        let tags = self.any_tags();
        self.push_image(&repo, &image, &tags)
    }

    /// Its own manifests that are there: (repository, image).
    fn present(&self) -> Vec<(String, Image)> {
        let present = |(repo, image): &&(String, Image)| {
            self.ledger.holds(&Key::manifest(repo, image.digest()))
        };
        self.mine.iter().filter(present).cloned().collect()
    }

    fn any_index(&mut self) -> Step {
        let repo = self.repo();
        let mut children: Vec<Manifest> = self
            .present()
            .into_iter()
            // What is about something else goes with it, also from an index.
            .filter(|(r, image)| *r == repo && image.manifest.value().get("subject").is_none())
            .map(|(_, image)| image.manifest)
            .collect();
        if children.is_empty() {
            return Ok(());
        }
        while children.len() > 3 {
            children.swap_remove(self.rng.index(children.len()));
        }
        let manifest = Manifest::index(&children);
        // An index is an image without blobs of its own.
        let index = Image {
            config: Blob::empty_json(),
            layers: Vec::new(),
            manifest,
        };
        let tags = self.any_tags();
        self.push_index(&repo, &index, &tags)
    }

    fn push_index(&mut self, repo: &str, index: &Image, tags: &[String]) -> Step {
        // `push_manifest` counts an image's blobs among what it vouches for; the empty config is a real blob here.
        self.ledger.learn_blob(&index.config);
        self.push_whole(repo, &index.config)?;
        self.push_manifest(repo, index, tags)
    }

    fn any_artifact(&mut self) -> Step {
        let present = self.present();
        if present.is_empty() {
            return Ok(());
        }
        let (repo, subject) = self.rng.pick(&present).clone();
        let artifact = Image::artifact(
            self.rng.next(),
            "application/vnd.example.signature",
            &subject.manifest,
        );
        self.push_image(&repo, &artifact, &[])
    }

    fn any_tag_deletion(&mut self) -> Step {
        let repo = self.repo();
        let tag = self.tag();
        if self.ledger.holds(&Key::tag(&repo, &tag)) {
            self.delete_tag(&repo, &tag)
        } else {
            Ok(())
        }
    }

    /// A manifest that no index needs, and sometimes what is left of it.
    fn any_manifest_deletion(&mut self) -> Step {
        let present = self.present();
        if present.len() < 4 {
            return Ok(());
        }
        let (repo, image) = self.rng.pick(&present).clone();
        if self.ledger.is_referenced(&repo, image.digest()) {
            return Ok(());
        }
        self.delete_manifest(&repo, image.digest())?;
        if self.rng.chance(50) {
            for blob in image.layers.iter().filter(|blob| !self.pool.contains(blob)) {
                if self.ledger.holds(&Key::blob(&repo, &blob.digest))
                    && !self.ledger.is_referenced(&repo, &blob.digest)
                {
                    self.delete_blob(&repo, &blob.digest)?;
                }
            }
        }
        Ok(())
    }

    /// A blob that no manifest ever names: pushed, and perhaps deleted.
    fn any_loose_blob(&mut self) -> Step {
        let repo = self.repo();
        let len = 1 + self.rng.index(4096);
        let blob = Blob::new(self.rng.bytes(len));
        self.push_blob(&repo, &blob)?;
        if self.rng.chance(60) {
            self.delete_blob(&repo, &blob.digest)
        } else {
            Ok(())
        }
    }

    fn any_read(&mut self) -> Step {
        let repo = self.repo();
        let held = self.ledger.held_in(&repo);
        let mine: Vec<_> = held
            .into_iter()
            .filter(|(key, _)| match key {
                Key::Tag { tag, .. } => tag.starts_with(&format!("{}-", self.name)),
                Key::Manifest { digest, .. } => self
                    .mine
                    .iter()
                    .any(|(r, image)| *r == repo && image.digest() == digest),
                Key::Blob { digest, .. } => self.pool.iter().any(|blob| blob.digest == *digest),
            })
            .collect();
        if mine.is_empty() {
            return Ok(());
        }
        let (key, digest) = self.rng.pick(&mine);
        let reply = self.send(
            self.client
                .get(&key.target())
                .header("Accept", ANY_MANIFEST),
        )?;
        if reply.status != 200 || super::image::digest_like(digest, &reply.body) != *digest {
            return self.unexpected(&reply);
        }
        Ok(())
    }

    // --- uploads that outlive the server ---

    fn any_session(&mut self) -> Step {
        if self.sessions.len() >= 3 {
            let n = self.rng.index(self.sessions.len());
            return if self.rng.chance(40) {
                self.close_session(n)
            } else {
                self.continue_session(n)
            };
        }
        let repo = self.repo();
        let len = 6000 + self.rng.index(40 * 1024);
        let blob = Blob::new(self.rng.bytes(len));
        self.ledger.learn_blob(&blob);
        let target = self.open(&repo)?;
        self.sessions.push(Session {
            repo,
            target,
            blob,
            confirmed: 0,
            sent: 0,
            closing: false,
        });
        self.continue_session(self.sessions.len() - 1)
    }

    fn continue_session(&mut self, n: usize) -> Step {
        let session = &mut self.sessions[n];
        let (at, blob, target) = (
            session.confirmed,
            session.blob.clone(),
            session.target.clone(),
        );
        let end = at + self.rng.index(blob.len() - at + 1);
        self.sessions[n].sent = end;
        let target = self.patch(&target, &blob, at, end)?;
        let session = &mut self.sessions[n];
        (session.target, session.confirmed) = (target, end);
        Ok(())
    }

    fn close_session(&mut self, n: usize) -> Step {
        self.sessions[n].closing = true;
        let session = &self.sessions[n];
        self.close(
            &session.repo,
            &session.target,
            &session.blob,
            &session.blob.bytes[session.confirmed..],
        )?;
        self.sessions.swap_remove(n);
        Ok(())
    }

    /// After a restart: what is left of the sessions is continued to their end. After the death of a process every one
    /// is there, with all that was confirmed; after a power cut it may be gone or damaged (the 202 of a PATCH promises
    /// nothing), which shows at the end at the latest.
    ///
    /// Returns what is wrong.
    pub(crate) fn resume(&mut self, power_cut: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        for session in std::mem::take(&mut self.sessions) {
            let Session {
                repo,
                target,
                blob,
                confirmed,
                sent,
                closing,
            } = session;
            let mut complain = |what: String| wrong.push(format!("upload {target}: {what}"));
            let status = self.client.get(&target).send();
            if status.status == 404 {
                if !closing && !power_cut {
                    complain(format!("forgotten, with {confirmed} bytes confirmed"));
                }
                continue;
            }
            let end = status
                .header("range")
                .and_then(|range| range.strip_prefix("0-")?.parse::<usize>().ok());
            let (204, Some(end)) = (status.status, end) else {
                complain(format!("{status:?}"));
                continue;
            };
            // `0-0` stands for nothing; no part here is a single byte by intent.
            let offset = if end == 0 { 0 } else { end + 1 };
            let sent = if closing { blob.len() } else { sent };
            if offset > sent || (offset < confirmed && !power_cut) {
                complain(format!(
                    "is at {offset}, with {confirmed} bytes confirmed and {sent} sent"
                ));
                continue;
            }
            let rest = &blob.bytes[offset..];
            let (part, rest) = rest.split_at(rest.len() / 2);
            let mut target = status
                .header("location")
                .map_or_else(|| target.clone(), |_| status.location());
            if !part.is_empty() {
                let range = format!("{offset}-{}", offset + part.len() - 1);
                let reply = self
                    .client
                    .patch(&target)
                    .header("Content-Range", range)
                    .body(part)
                    .send();
                if reply.status != 202 {
                    complain(format!("PATCH at {offset}: {reply:?}"));
                    continue;
                }
                target = reply.location();
            }
            let asked = self.ledger.ask(vec![made(Key::blob(&repo, &blob.digest))]);
            let reply = self
                .client
                .put(&with_query(&target, "digest", &blob.digest))
                .body(rest)
                .send();
            match reply.status {
                201 => self.ledger.acknowledged(asked),
                400 if power_cut => self.ledger.refused(asked),
                _ => complain(format!("PUT after {offset}: {reply:?}")),
            }
        }
        wrong
    }
}

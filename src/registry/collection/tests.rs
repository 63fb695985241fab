use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Report, Scope, Stepped};
use crate::oci::{Algorithm, Digest, Reference, RepoName};
use crate::registry::{Condition, Error, Registry, Settings, Shown};
use crate::storage::{
    self, Cached, Dir, Durability, Key, MemStore, Meta, Object, Space, Store, Upload,
};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const UNTAGGED: Scope = Scope {
    dry_run: false,
    untagged: true,
    alone: false,
};

fn registry(store: impl Store) -> Registry {
    let mut settings = Settings::default();
    settings.gc.grace = Duration::ZERO;
    Registry::new(store, settings).unwrap()
}

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn tag(name: &str) -> Reference {
    Reference::Tag(name.parse().unwrap())
}

async fn push_blob(registry: &Registry, repo: &RepoName, content: &[u8]) -> Digest {
    let digest = Algorithm::Sha256.digest(content);
    let id = registry.start_upload(repo, None).await.unwrap();
    let mut writer = registry
        .resume_upload(repo, &id, Some(0), None)
        .await
        .unwrap();
    writer.write(Bytes::copy_from_slice(content)).await.unwrap();
    writer.commit(&digest).await.unwrap();
    digest
}

fn descriptor(digest: &Digest, size: usize) -> String {
    format!(r#"{{"mediaType":"{OCI}","digest":"{digest}","size":{size}}}"#)
}

fn image(layers: &[(Digest, usize)], more: &str) -> Bytes {
    let config = descriptor(&layers[0].0, layers[0].1);
    let layers: Vec<String> = layers.iter().map(|(d, n)| descriptor(d, *n)).collect();
    let layers = layers.join(",");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI}","config":{config},"layers":[{layers}]{more}}}"#
    )
    .into()
}

fn index(children: &[(Digest, usize)], more: &str) -> Bytes {
    let children: Vec<String> = children.iter().map(|(d, n)| descriptor(d, *n)).collect();
    let children = children.join(",");
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{children}]{more}}}"#).into()
}

async fn put(
    registry: &Registry,
    repo: &RepoName,
    reference: Option<&str>,
    body: &Bytes,
) -> Result<Digest, Error> {
    let reference = match reference {
        Some(name) => tag(name),
        None => Reference::Digest(Algorithm::Sha256.digest(body)),
    };
    let condition = Condition::default();
    let put = registry.put_manifest(repo, &reference, &[], body.clone(), None, condition);
    Ok(put.await?.digest)
}

async fn collect(registry: &Registry, scope: Scope) -> Report {
    // Older than "now", as far as the clock can tell.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut collection = registry.collection(scope);
    while collection.step().await.unwrap() != Stepped::Done {}
    collection.report().clone()
}

/// The digests of all blobs.
async fn blobs(store: &impl Store) -> BTreeSet<Digest> {
    let mut all = BTreeSet::new();
    for algorithm in Algorithm::ALL {
        for first in 0..=255 {
            let shard = Dir::Shard(algorithm, first);
            let names = store.list(&shard, None, usize::MAX).await.unwrap();
            all.extend(
                names
                    .iter()
                    .map(|name| Digest::from_parts(algorithm, name).unwrap()),
            );
        }
    }
    all
}

#[tokio::test]
async fn what_nothing_refers_to_goes_and_a_dry_run_says_so_before() {
    let store = MemStore::default();
    let registry = registry(Cached::new(store.clone()));
    let (a, b) = (repo("a"), repo("b"));
    let shared = push_blob(&registry, &a, b"shared").await;
    let own = push_blob(&registry, &a, b"own").await;
    push_blob(&registry, &a, b"loose").await;
    let gone = put(
        &registry,
        &a,
        Some("t"),
        &image(&[(shared, 6), (own, 3)], ""),
    )
    .await
    .unwrap();
    registry
        .mount(&b, &shared, Some(&a), Shown::All)
        .await
        .unwrap();
    let kept = put(&registry, &b, Some("t"), &image(&[(shared, 6)], ""))
        .await
        .unwrap();
    registry.warm_up().await.unwrap();
    registry.delete_manifest(&a, &gone).await.unwrap();

    let before = blobs(&store).await;
    let dry = Scope {
        dry_run: true,
        ..Scope::default()
    };
    let preview = collect(&registry, dry).await;
    assert_eq!(blobs(&store).await, before);
    assert!(registry.stat_blob(&a, &shared).await.is_ok());
    assert_eq!(
        registry
            .catalog(None, None, Shown::All)
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    let report = collect(&registry, Scope::default()).await;
    assert_eq!(report, preview);
    let loose_and_own_and_gone = 5 + 3 + report.bytes - 8;
    assert_eq!((report.blobs, report.bytes), (3, loose_and_own_and_gone));
    assert_eq!((report.links, report.emptied, report.kept), (3, 1, 2));
    assert_eq!(blobs(&store).await, [shared, kept].into());
    assert_eq!(
        registry
            .catalog(None, None, Shown::All)
            .await
            .unwrap()
            .items,
        std::slice::from_ref(&b)
    );
    assert!(matches!(
        registry.tags(&a, None, None).await,
        Err(Error::RepoUnknown)
    ));
    assert!(
        registry.stat_blob(&a, &shared).await.is_err(),
        "its link is gone"
    );
    assert!(registry.open_blob(&b, &shared, None).await.is_ok());

    let again = collect(&registry, Scope::default()).await;
    assert_eq!(
        (again.blobs, again.links, again.emptied, again.debris),
        (0, 0, 0, 0)
    );
    // What is gone can be pushed again.
    push_blob(&registry, &a, b"own").await;
    assert!(registry.open_blob(&a, &own, None).await.is_ok());
}

#[tokio::test]
async fn an_index_keeps_its_images_and_an_image_its_signatures() {
    let store = MemStore::default();
    let registry = registry(Cached::new(store.clone()));
    let r = repo("r");
    let push = async |reference, content: &'static [u8], more: &str| {
        let layer = push_blob(&registry, &r, content).await;
        let body = image(&[(layer, content.len())], more);
        let digest = put(&registry, &r, reference, &body).await.unwrap();
        (digest, body.len())
    };
    let about =
        |(digest, size): &(Digest, usize)| format!(r#","subject":{}"#, descriptor(digest, *size));
    let arm = push(None, b"arm", "").await;
    let amd = push(None, b"amd", "").await;
    let signature = push(None, b"signature", &about(&arm)).await;
    let old = push(Some("v1"), b"old", "").await;
    let old_signature = push(None, b"old signature", &about(&old)).await;
    let old_sbom = push(Some("sbom"), b"old sbom", &about(&old)).await;
    let replaced = push(Some("v1"), b"new", "").await;
    let forgotten = push(Some("v1"), b"newer", "").await;
    put(&registry, &r, Some("all"), &index(&[arm, amd], ""))
        .await
        .unwrap();

    let report = collect(&registry, Scope::default()).await;
    assert_eq!(
        (report.blobs, report.untagged),
        (0, 0),
        "untagged manifests stay unless told"
    );
    let preview = collect(
        &registry,
        Scope {
            dry_run: true,
            ..UNTAGGED
        },
    )
    .await;
    let report = collect(&registry, UNTAGGED).await;
    assert_eq!(report, preview);
    assert_eq!(
        report.untagged, 1,
        "what v1 pointed to, and nothing points to now"
    );
    for (digest, _) in [arm, amd, signature, old, old_signature, old_sbom, forgotten] {
        let kept = registry.manifest(&r, &Reference::Digest(digest)).await;
        assert!(kept.is_ok(), "{digest}");
    }
    let gone = registry.manifest(&r, &Reference::Digest(replaced.0)).await;
    assert!(matches!(gone, Err(Error::ManifestUnknown)));
    assert_eq!(report.blobs, 2, "the manifest and its layer");

    // Nothing leads to an image, its index and its signatures once their tags are gone.
    for name in ["all", "sbom"] {
        registry
            .delete_tag(&r, &name.parse().unwrap())
            .await
            .unwrap();
    }
    let report = collect(&registry, UNTAGGED).await;
    assert_eq!(report.untagged, 7);
    let last = blobs(&store).await;
    assert_eq!(last.len(), 2, "v1 and its layer");
    assert!(last.contains(&forgotten.0));
}

#[tokio::test]
async fn what_a_client_was_told_of_stays_and_can_be_counted_on() {
    let store = MemStore::default();
    let registry = registry(Cached::new(store.clone()));
    let r = repo("r");
    let layer = push_blob(&registry, &r, b"layer").await;
    let other = push_blob(&registry, &r, b"other").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut collection = registry.collection(Scope::default());
    collection.step().await.unwrap();
    // Wherever the collection is, from here on: it was told that the layer is there.
    assert_eq!(registry.stat_blob(&r, &layer).await.unwrap(), 5);
    while collection.step().await.unwrap() != Stepped::Done {}
    assert_eq!(collection.report().young_blobs, 1);
    drop(collection);
    assert!(registry.stat_blob(&r, &other).await.is_err());
    put(&registry, &r, Some("t"), &image(&[(layer, 5)], ""))
        .await
        .unwrap();
    let refused = put(&registry, &r, Some("t"), &image(&[(other, 5)], "")).await;
    assert!(matches!(refused, Err(Error::ReferencesUnknown(_))));
}

#[tokio::test]
async fn within_the_grace_after_a_start_nothing_goes() {
    let store = MemStore::default();
    push_blob(&registry(store.clone()), &repo("r"), b"layer").await;
    let registry = Registry::new(store.clone(), Settings::default()).unwrap();
    let report = collect(&registry, Scope::default()).await;
    assert_eq!(
        (report.blobs, report.young_blobs, report.young_bytes),
        (0, 1, 5)
    );
    assert!(registry.collectable_in() > Duration::from_secs(3500));
    let alone = Scope {
        alone: true,
        ..Scope::default()
    };
    let report = collect(&registry, alone).await;
    assert_eq!(
        (report.blobs, report.young_blobs),
        (0, 1),
        "the file is new"
    );
}

#[tokio::test]
async fn where_a_manifest_cannot_be_read_everything_stays() {
    let store = MemStore::default();
    let first = registry(store.clone());
    let (r, other) = (repo("r"), repo("other"));
    let layer = push_blob(&first, &r, b"layer").await;
    let loose = push_blob(&first, &other, b"loose").await;
    let digest = put(&first, &r, Some("t"), &image(&[(layer, 5)], ""))
        .await
        .unwrap();
    for damaged in ["", "{", r#"{"schemaVersion":1}"#] {
        let key = Key::Blob(digest);
        store
            .put(&key, damaged.into(), Durability::Durable)
            .await
            .unwrap();
        let registry = registry(store.clone());
        let report = collect(&registry, UNTAGGED).await;
        assert_eq!(report.doubtful, 1);
        assert!(
            report.doubts[0].contains(&digest.to_string()),
            "{:?}",
            report.doubts
        );
        assert_eq!(
            (report.links, report.untagged),
            (u64::from(damaged.is_empty()), 0)
        );
    }
    let left = blobs(&store).await;
    assert!(left.contains(&layer) && left.contains(&digest) && !left.contains(&loose));
    // Pushed again, it can be read again, and deleted.
    let registry = registry(store.clone());
    put(&registry, &r, Some("t"), &image(&[(layer, 5)], ""))
        .await
        .unwrap();
    registry.delete_manifest(&r, &digest).await.unwrap();
    assert_eq!(collect(&registry, Scope::default()).await.doubtful, 0);
    assert!(blobs(&store).await.is_empty());
}

#[tokio::test]
async fn the_tree_of_another_registry_is_understood() {
    let store = MemStore::default();
    let registry = registry(store.clone());
    let r = repo("r");
    let put_text = async |key: Key, text: &str| {
        let text = Bytes::copy_from_slice(text.as_bytes());
        store.put(&key, text, Durability::Durable).await.unwrap();
    };
    // Distribution keeps content that was pushed by its sha512 under its sha256.
    let content = b"by another name";
    let (long, short) = (
        Algorithm::Sha512.digest(content),
        Algorithm::Sha256.digest(content),
    );
    put_text(Key::Blob(short), "by another name").await;
    put_text(Key::Layer(r.clone(), long), &short.to_string()).await;
    // An empty link is one all the same: the path says which.
    let body = image(&[(long, content.len())], "");
    let digest = Algorithm::Sha256.digest(&body);
    put_text(Key::Blob(digest), std::str::from_utf8(&body).unwrap()).await;
    put_text(Key::Revision(r.clone(), digest), "").await;
    let report = collect(&registry, Scope::default()).await;
    assert_eq!((report.blobs, report.links, report.kept), (0, 0, 2));
    registry.warm_up().await.unwrap();
    registry.delete_manifest(&r, &digest).await.unwrap();
    let report = collect(&registry, Scope::default()).await;
    assert_eq!((report.blobs, report.links, report.emptied), (2, 1, 1));
}

// --- at random ---

/// A number that looks random, from a seed.
#[derive(Clone)]
struct Dice(Arc<AtomicU64>);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let mut n = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (n ^ (n >> 31)) % sides
    }

    fn pick<T: Clone>(&self, of: &[T]) -> Option<T> {
        let at = self.roll(of.len().max(1) as u64) as usize;
        of.get(at).cloned()
    }
}

/// A store whose calls let others go first, as a disk's would.
struct Slow<S> {
    store: S,
    dice: Dice,
}

impl<S> Slow<S> {
    async fn wait(&self) {
        for _ in 0..self.dice.roll(4) {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl<S: Store> Store for Slow<S> {
    async fn stat(&self, key: &Key) -> storage::Result<Meta> {
        self.wait().await;
        self.store.stat(key).await
    }
    async fn read(&self, key: &Key, range: Option<Range<u64>>) -> storage::Result<Object> {
        self.wait().await;
        self.store.read(key, range).await
    }
    async fn get(&self, key: &Key, limit: usize) -> storage::Result<Bytes> {
        self.wait().await;
        self.store.get(key, limit).await
    }
    async fn put(&self, key: &Key, bytes: Bytes, how: Durability) -> storage::Result<()> {
        self.wait().await;
        let result = self.store.put(key, bytes, how).await;
        self.wait().await;
        result
    }
    async fn delete(&self, key: &Key, how: Durability) -> storage::Result<()> {
        self.wait().await;
        let result = self.store.delete(key, how).await;
        self.wait().await;
        result
    }
    async fn remove(&self, dir: &Dir, how: Durability) -> storage::Result<()> {
        self.wait().await;
        let result = self.store.remove(dir, how).await;
        self.wait().await;
        result
    }
    async fn sync(&self, dir: &Dir) -> storage::Result<()> {
        self.store.sync(dir).await
    }
    async fn list(&self, dir: &Dir, after: Option<&str>, n: usize) -> storage::Result<Vec<String>> {
        self.wait().await;
        let result = self.store.list(dir, after, n).await;
        self.wait().await;
        result
    }
    async fn has(&self, dir: &Dir) -> storage::Result<bool> {
        self.store.has(dir).await
    }
    async fn upload(&self, key: &Key, at: u64) -> storage::Result<Box<dyn Upload>> {
        self.store.upload(key, at).await
    }
    async fn space(&self) -> storage::Result<Option<Space>> {
        self.store.space().await
    }
    async fn probe(&self) -> storage::Result<()> {
        self.store.probe().await
    }
}

/// A manifest that was pushed, and what it needs.
#[derive(Clone)]
struct Pushed {
    repo: RepoName,
    digest: Digest,
    len: usize,
    tagged: bool,
    blobs: Vec<Digest>,
    children: Vec<Digest>,
    subject: Option<Digest>,
}

/// What has to be there: the manifests of all clients.
type Owed = Rc<RefCell<BTreeMap<(String, Digest), Pushed>>>;

struct Client {
    registry: Registry,
    dice: Dice,
    owed: Owed,
    ever: Rc<RefCell<BTreeMap<Digest, Pushed>>>,
    name: usize,
    pushes: usize,
}

impl Client {
    /// Those of this client: each manifest carries its name.
    fn mine(&self, name: &HashSet<Digest>) -> Vec<Pushed> {
        let owed = self.owed.borrow();
        owed.values()
            .filter(|p| name.contains(&p.digest))
            .cloned()
            .collect()
    }

    async fn work(mut self, rounds: usize) {
        let mut own = HashSet::new();
        for _ in 0..rounds {
            let mine = self.mine(&own);
            match (self.dice.roll(10), self.dice.pick(&mine)) {
                (0..=1, Some(victim)) => self.delete(victim).await,
                (2..=5, Some(pushed)) => self.pull(&pushed).await,
                (6, Some(child)) => own.extend(self.push(Some(child), None).await),
                (7, Some(subject)) => own.extend(self.push(None, Some(subject)).await),
                _ => own.extend(self.push(None, None).await),
            }
        }
    }

    /// As clients do: what a HEAD finds is not sent. Whoever is told that something is missing begins again.
    async fn push(&mut self, child: Option<Pushed>, subject: Option<Pushed>) -> Option<Digest> {
        let others = ["a", "a/b", "c"].map(repo);
        let near = child.as_ref().or(subject.as_ref());
        let to = near.map_or_else(|| self.dice.pick(&others).unwrap(), |p| p.repo.clone());
        self.pushes += 1;
        let mut more = format!(r#","annotations":{{"n":"{}/{}"}}"#, self.name, self.pushes);
        if let Some(subject) = &subject {
            more += &format!(r#","subject":{}"#, descriptor(&subject.digest, subject.len));
        }
        let name = (self.dice.roll(2) == 0).then(|| format!("t{}-{}", self.name, self.pushes));
        let contents: Vec<String> = (0..1 + self.dice.roll(3))
            .map(|_| format!("content {}", self.dice.roll(8)))
            .collect();
        for _ in 0..1000 {
            let mut layers = Vec::new();
            if child.is_none() {
                for content in &contents {
                    let digest = Algorithm::Sha256.digest(content.as_bytes());
                    let is_there = self.registry.stat_blob(&to, &digest).await.is_ok();
                    let from = self.dice.pick(&others);
                    let asks = self.dice.roll(2) == 0;
                    let mounted = !is_there
                        && asks
                        && self
                            .registry
                            .mount(&to, &digest, from.as_ref(), Shown::All)
                            .await
                            .unwrap()
                            .is_some();
                    if !is_there && !mounted {
                        push_blob(&self.registry, &to, content.as_bytes()).await;
                    }
                    layers.push((digest, content.len()));
                }
            }
            let body = match &child {
                Some(child) => index(&[(child.digest, child.len)], &more),
                None => image(&layers, &more),
            };
            match put(&self.registry, &to, name.as_deref(), &body).await {
                Err(Error::ReferencesUnknown(_)) => continue,
                digest => {
                    let digest = digest.unwrap();
                    let pushed = Pushed {
                        repo: to.clone(),
                        digest,
                        len: body.len(),
                        tagged: name.is_some(),
                        blobs: layers.iter().map(|(digest, _)| *digest).collect(),
                        children: child.iter().map(|child| child.digest).collect(),
                        subject: subject.map(|subject| subject.digest),
                    };
                    self.ever.borrow_mut().insert(digest, pushed.clone());
                    self.owed
                        .borrow_mut()
                        .insert((to.to_string(), digest), pushed);
                    return Some(digest);
                }
            }
        }
        panic!("a client has to send its layers a thousand times");
    }

    async fn delete(&mut self, victim: Pushed) {
        let (mut doomed, mut next) = (vec![victim.digest], 0);
        // Its untagged referrers go with it, but for those that a tagged index lists.
        while let Some(subject) = doomed.get(next).copied() {
            next += 1;
            let owed = self.owed.borrow();
            let in_repo = || owed.values().filter(|p| p.repo == victim.repo);
            doomed.extend(
                in_repo()
                    .filter(|p| p.subject == Some(subject) && !p.tagged)
                    .map(|p| p.digest)
                    .filter(|digest| !in_repo().any(|p| p.tagged && p.children.contains(digest))),
            );
        }
        for digest in doomed {
            self.owed
                .borrow_mut()
                .remove(&(victim.repo.to_string(), digest));
        }
        self.registry
            .delete_manifest(&victim.repo, &victim.digest)
            .await
            .unwrap();
    }

    async fn pull(&self, pushed: &Pushed) {
        let reference = Reference::Digest(pushed.digest);
        self.registry
            .manifest(&pushed.repo, &reference)
            .await
            .unwrap();
        for blob in &pushed.blobs {
            self.registry
                .open_blob(&pushed.repo, blob, None)
                .await
                .unwrap();
        }
    }
}

/// Clients push shared content and delete it again while collections go on without any grace: nothing that a manifest
/// refers to is ever missing, and in the end nothing else is there.
#[test]
fn nothing_is_missing_and_nothing_too_much_at_any_interleaving() {
    let seed = std::env::var("REGISTRY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = match seed {
        Some(seed) => vec![seed],
        None => (0..30)
            .map(|_| uuid::Uuid::new_v4().as_u64_pair().0)
            .collect(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut removed, mut left) = (0, 0);
    for seed in seeds {
        println!("REGISTRY_SEED={seed}");
        let (r, l) = tokio::task::LocalSet::new().block_on(&runtime, one_story(seed));
        (removed, left) = (removed + r, left + l);
    }
    assert!(
        removed > 100 && left > 100,
        "{removed} removed, {left} left: too little happened"
    );
}

async fn one_story(seed: u64) -> (u64, u64) {
    let dice = Dice(Arc::new(AtomicU64::new(seed)));
    let store = MemStore::default();
    let slow = Slow {
        store: store.clone(),
        dice: dice.clone(),
    };
    let registry = registry(Cached::new(slow));
    let owed = Owed::default();
    let ever: Rc<RefCell<BTreeMap<Digest, Pushed>>> = Rc::default();
    let clients: Vec<_> = (0..4)
        .map(|name| {
            let client = Client {
                registry: registry.clone(),
                dice: dice.clone(),
                owed: owed.clone(),
                ever: ever.clone(),
                name,
                pushes: 0,
            };
            tokio::task::spawn_local(client.work(25))
        })
        .collect();
    let mut removed = 0;
    while !clients.iter().all(|client| client.is_finished()) {
        let mut collection = registry.collection(Scope::default());
        while collection.step().await.unwrap() != Stepped::Done {}
        removed += collection.report().blobs;
    }
    for client in clients {
        client.await.unwrap();
    }

    removed += collect(&registry, Scope::default()).await.blobs;
    // An index keeps what it lists, also what was deleted by its digest, and what that refers to.
    let owed = owed.take();
    let mut expected = BTreeSet::new();
    for pushed in owed.values() {
        expected.insert(pushed.digest);
        expected.extend(&pushed.blobs);
        let reference = Reference::Digest(pushed.digest);
        registry.manifest(&pushed.repo, &reference).await.unwrap();
        for blob in &pushed.blobs {
            registry.stat_blob(&pushed.repo, blob).await.unwrap();
        }
    }
    let present = blobs(&store).await;
    let ever = ever.borrow();
    let mut listed: Vec<Digest> = owed.values().flat_map(|p| p.children.clone()).collect();
    while let Some(child) = listed.pop() {
        expected.insert(child);
        expected.extend(&ever[&child].blobs);
        listed.extend(&ever[&child].children);
    }
    let missing: Vec<_> = expected.difference(&present).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    let more: Vec<_> = present.difference(&expected).collect();
    assert!(more.is_empty(), "too much: {more:?}");
    (removed, present.len() as u64)
}

//! Clients at random, and a collection all the time: nothing is missing, and nothing too much.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::builds::{build, to_the_end};
use super::slow::{Dice, Slow};
use super::{blobs, collect, descriptor, image, index, push_blob, put, repo};
use crate::oci::{Algorithm, Digest, Reference, RepoName};
use crate::registry::collection::{Scope, Stepped};
use crate::registry::verification::Fault;
use crate::registry::{Check, Checked, Choice, Error, Mend, Registry, Rule, Settings, Shown};
use crate::storage::{Cached, MemStore};

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
    /// The delete that it went with, if it did.
    deleted: u64,
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
    deletes: u64,
    gone: BTreeMap<Digest, Pushed>,
    undone: usize,
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

    /// Says how much it brought back.
    async fn work(mut self, rounds: usize) -> usize {
        let mut own = HashSet::new();
        for _ in 0..rounds {
            let mine = self.mine(&own);
            let gone: Vec<Pushed> = self.gone.values().cloned().collect();
            match (self.dice.roll(12), self.dice.pick(&mine)) {
                (0, Some(victim)) => self.delete(victim).await,
                (1, Some(victim)) => self.remove(victim).await,
                (10..=11, _) if !gone.is_empty() => {
                    let victim = self.dice.pick(&gone).unwrap();
                    self.undo(victim).await;
                }
                (2..=5, Some(pushed)) => self.pull(&pushed).await,
                (6, Some(child)) => own.extend(self.push(Some(child), None).await),
                (7, Some(subject)) => own.extend(self.push(None, Some(subject)).await),
                _ => own.extend(self.push(None, None).await),
            }
        }
        self.undone
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
                        deleted: 0,
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
        self.deletes += 1;
        for digest in doomed {
            let key = (victim.repo.to_string(), digest);
            let mut pushed = self.owed.borrow_mut().remove(&key).unwrap();
            pushed.deleted = self.deletes;
            self.gone.insert(digest, pushed);
        }
        // What is deleted in the same millisecond counts as deleted at once.
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.registry
            .delete_manifest(&victim.repo, &victim.digest)
            .await
            .unwrap();
    }

    /// By its name: all that only it leads to goes with it.
    async fn remove(&mut self, victim: Pushed) {
        let mut below = BTreeSet::new();
        let mut todo = vec![victim.digest];
        let repo: Vec<Pushed> = {
            let owed = self.owed.borrow();
            let of_repo = owed.values().filter(|p| p.repo == victim.repo);
            of_repo.cloned().collect()
        };
        let about = |digest: Digest| {
            let about = repo.iter().filter(move |p| p.subject == Some(digest));
            about.map(|p| p.digest)
        };
        let children = |digest: Digest| {
            let found = repo.iter().filter(move |p| p.digest == digest);
            found.flat_map(|p| p.children.iter().copied())
        };
        while let Some(digest) = todo.pop() {
            if below.insert(digest) {
                todo.extend(about(digest).chain(children(digest)));
            }
        }
        let is_root =
            |p: &&Pushed| (p.tagged && p.digest != victim.digest) || !below.contains(&p.digest);
        let mut todo: Vec<Digest> = repo.iter().filter(is_root).map(|p| p.digest).collect();
        let mut kept = BTreeSet::new();
        while let Some(digest) = todo.pop() {
            if kept.insert(digest) {
                todo.extend(about(digest).chain(children(digest)));
                let found = repo.iter().filter(|p| p.digest == digest);
                todo.extend(found.filter_map(|p| p.subject));
            }
        }
        let mut expected: BTreeSet<Digest> = below.difference(&kept).copied().collect();
        // It was named.
        expected.insert(victim.digest);
        expected.retain(|digest| repo.iter().any(|p| p.digest == *digest));
        self.deletes += 1;
        for digest in &expected {
            let key = (victim.repo.to_string(), *digest);
            let mut pushed = self.owed.borrow_mut().remove(&key).unwrap();
            pushed.deleted = self.deletes;
            self.gone.insert(*digest, pushed);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        let pattern = format!("{}@{}", victim.repo, victim.digest);
        let choice = Choice::Images {
            patterns: vec![pattern.parse().unwrap()],
            older_than: None,
            not_after: None,
            force: false,
        };
        let removals = self.registry.removals(choice, false, false).await;
        let removed = to_the_end(removals.unwrap()).await;
        assert_eq!(removed, expected);
    }

    /// It comes back with all that it lists, and with what was about it and went with it.
    async fn undo(&mut self, victim: Pushed) {
        let reference = Reference::Digest(victim.digest);
        let undone = self.registry.undo(&victim.repo, &reference, None).await;
        let undone = undone.unwrap();
        assert!(undone.lost.is_empty());
        let mut todo = vec![victim.digest];
        let mut expected = BTreeSet::new();
        while let Some(digest) = todo.pop() {
            let Some(mut pushed) = self.gone.remove(&digest) else {
                continue;
            };
            expected.insert(digest);
            todo.extend(&pushed.children);
            let about = self.gone.values().filter(|p| {
                p.repo == victim.repo && p.subject == Some(digest) && p.deleted == victim.deleted
            });
            todo.extend(about.map(|p| p.digest));
            pushed.tagged &= digest == victim.digest;
            let key = (victim.repo.to_string(), digest);
            self.owed.borrow_mut().insert(key, pushed);
        }
        assert_eq!(
            undone.restored.into_iter().collect::<BTreeSet<_>>(),
            expected
        );
        self.undone += expected.len();
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

/// Clients push shared content, delete it and bring it back while collections go on without any grace, and checks that would
/// mend what they take for damage: nothing that a manifest
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
    let (mut removed, mut left, mut undone) = (0, 0, 0);
    for seed in seeds {
        println!("REGISTRY_SEED={seed}");
        let story = one_story(seed);
        let (r, l, u) = tokio::task::LocalSet::new().block_on(&runtime, story);
        (removed, left, undone) = (removed + r, left + l, undone + u);
    }
    assert!(
        removed > 100 && left > 100 && undone > 100,
        "{removed} removed, {left} left, {undone} back: too little happened"
    );
}

/// Checks everything, again and again, and would mend it: what it says, and how often it was done.
async fn check(registry: Registry, over: Rc<Cell<bool>>) -> (Vec<String>, u64) {
    let (mut alarms, mut checks) = (Vec::new(), 0);
    while !over.get() {
        let mut check = registry.verification(Check {
            contents: true,
            mend: Mend::All,
            ..Check::default()
        });
        while check.step().await.unwrap() != Checked::Done {}
        // An index whose image was deleted is not whole indeed.
        let news = check.take_news().into_iter();
        let alarm = news.filter(|finding| finding.fault != Fault::MissingManifest);
        alarms.extend(alarm.map(|finding| finding.to_string()));
        checks += 1;
    }
    (alarms, checks)
}

async fn one_story(seed: u64) -> (u64, u64, usize) {
    let dice = Dice(Arc::new(AtomicU64::new(seed)));
    let store = MemStore::default();
    let slow = Slow {
        store: store.clone(),
        dice: dice.clone(),
    };
    let mut settings = Settings {
        undo_keep: Duration::from_secs(3600),
        ..Settings::default()
    };
    settings.gc.grace = Duration::ZERO;
    settings.retention.rules = vec![Rule {
        repositories: vec!["builds".parse().unwrap()],
        keep_last: Some(2),
        ..Rule::default()
    }];
    let registry = Registry::new(Cached::new(slow), settings).unwrap();
    let owed = Owed::default();
    let ever: Rc<RefCell<BTreeMap<Digest, Pushed>>> = Rc::default();
    let client = |name| Client {
        registry: registry.clone(),
        dice: dice.clone(),
        owed: owed.clone(),
        ever: ever.clone(),
        name,
        pushes: 0,
        deletes: 0,
        gone: BTreeMap::new(),
        undone: 0,
    };
    let builds = tokio::task::spawn_local(build(registry.clone(), dice.clone(), 10));
    let clients: Vec<_> = (0..4)
        .map(|name| tokio::task::spawn_local(client(name).work(25)))
        .collect();
    let over = Rc::new(Cell::new(false));
    let checking = tokio::task::spawn_local(check(registry.clone(), over.clone()));
    let mut removed = 0;
    let retain = async || {
        let removals = registry.removals(Choice::Retention, false, false);
        to_the_end(removals.await.unwrap()).await
    };
    while !clients.iter().all(|client| client.is_finished()) || !builds.is_finished() {
        retain().await;
        let mut collection = registry.collection(Scope::default());
        while collection.step().await.unwrap() != Stepped::Done {}
        removed += collection.report().blobs;
    }
    let mut undone = 0;
    for client in clients {
        undone += client.await.unwrap();
    }
    over.set(true);
    let (alarms, checks) = checking.await.unwrap();
    assert!(alarms.is_empty(), "nothing is damaged: {alarms:?}");
    assert!(checks > 0);

    retain().await;
    let last_builds = builds.await.unwrap();
    let forget = Scope {
        forget_undo: true,
        ..Scope::default()
    };
    removed += collect(&registry, forget).await.blobs;
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
    for (digest, layers) in last_builds {
        expected.insert(digest);
        expected.extend(layers);
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
    (removed, present.len() as u64, undone)
}

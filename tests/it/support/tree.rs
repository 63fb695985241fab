//! The disk layout of CNCF distribution, read without a server: nothing on it is half there.

use std::{collections::BTreeMap, fs, path::Path};

use super::image::Algorithm;

/// What is wrong with the tree below `root` (`storage.filesystem.rootdirectory`): blobs whose bytes are not what their name
/// says, links that are no digest, point nowhere or elsewhere, tags without their manifest. Debris that no reader takes for
/// content (empty directories, open uploads, a tag's directory without its link) is not wrong.
pub(crate) fn faults(root: &Path) -> Vec<String> {
    let mut tree = Tree {
        v2: &root.join("docker/registry/v2"),
        faults: Vec::new(),
    };
    tree.blobs();
    tree.repositories(&tree.v2.join("repositories"));
    tree.faults
}

struct Tree<'a> {
    v2: &'a Path,
    faults: Vec<String>,
}

fn entries(dir: &Path) -> Vec<(String, bool)> {
    let Ok(list) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut entries: Vec<(String, bool)> = list
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((
                entry.file_name().into_string().ok()?,
                entry.file_type().ok()?.is_dir(),
            ))
        })
        .collect();
    entries.sort();
    entries
}

impl Tree<'_> {
    fn wrong(&mut self, path: &Path, what: &str) {
        let path = path
            .strip_prefix(self.v2)
            .unwrap_or(path)
            .display()
            .to_string();
        self.faults.push(format!("{path}: {what}"));
    }

    fn blobs(&mut self) {
        for (name, algorithm) in [("sha256", Algorithm::Sha256), ("sha512", Algorithm::Sha512)] {
            let base = self.v2.join("blobs").join(name);
            for (two, _) in entries(&base) {
                for (hex, _) in entries(&base.join(&two)) {
                    let path = base.join(&two).join(&hex).join("data");
                    let Ok(bytes) = fs::read(&path) else { continue };
                    if !hex.starts_with(&two) {
                        self.wrong(&path, "in the wrong directory");
                    }
                    if algorithm.digest(&bytes) != format!("{name}:{hex}") {
                        self.wrong(
                            &path,
                            &format!("{} bytes that are not what the name says", bytes.len()),
                        );
                    }
                }
            }
        }
    }

    fn repositories(&mut self, dir: &Path) {
        for (name, is_dir) in entries(dir) {
            let path = dir.join(&name);
            match name.as_str() {
                "_layers" => self.links(&path),
                "_manifests" => {
                    self.links(&path.join("revisions"));
                    self.tags(&path);
                }
                _ if name.starts_with('_') || !is_dir => {}
                _ => self.repositories(&path),
            }
        }
    }

    /// `<alg>/<hex>/link` below `dir`: each names the digest that its path names, and the blob is there.
    fn links(&mut self, dir: &Path) {
        for (algorithm, _) in entries(dir) {
            for (hex, _) in entries(&dir.join(&algorithm)) {
                let link = dir.join(&algorithm).join(&hex).join("link");
                if let Some(digest) = self.link(&link) {
                    // Distribution keeps everything under sha256, whatever the link's name says.
                    if digest != format!("{algorithm}:{hex}") && algorithm == "sha256" {
                        self.wrong(&link, &format!("says {digest}"));
                    }
                    if !self.blob_exists(&digest) {
                        self.wrong(&link, "its blob is not there");
                    }
                }
            }
        }
    }

    fn tags(&mut self, manifests: &Path) {
        for (tag, _) in entries(&manifests.join("tags")) {
            let link = manifests.join("tags").join(&tag).join("current/link");
            if let Some(digest) = self.link(&link) {
                let (algorithm, hex) = digest.split_once(':').expect("checked by link()");
                if !manifests
                    .join("revisions")
                    .join(algorithm)
                    .join(hex)
                    .join("link")
                    .exists()
                {
                    self.wrong(
                        &link,
                        &format!("names {digest}, of which there is no revision"),
                    );
                }
            }
        }
    }

    /// The digest in a link; `None` when there is no link.
    fn link(&mut self, link: &Path) -> Option<String> {
        let text = fs::read(link).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let hex_of = |prefix: &str, len: usize| {
            text.strip_prefix(prefix).is_some_and(|hex| {
                hex.len() == len
                    && hex
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
        };
        if hex_of("sha256:", 64) || hex_of("sha512:", 128) {
            return Some(text);
        }
        self.wrong(link, &format!("{text:?} is no digest"));
        None
    }

    fn blob_exists(&self, digest: &str) -> bool {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            self.v2
                .join("blobs")
                .join(algorithm)
                .join(&hex[..2])
                .join(hex)
                .join("data")
                .exists()
        })
    }
}

/// Every file below `root` by its path relative to it, with its content.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for (name, is_dir) in entries(&root.join(&folder)) {
            let path = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            if is_dir {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(root.join(&path)) {
                files.insert(path, bytes);
            }
        }
    }
    files
}

/// `snapshot` without the folders that are made ahead of need, in the background.
pub(crate) fn settled(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = snapshot(root);
    files.retain(|path, _| !path.starts_with(".registry/slots/"));
    files
}

/// The files of the layout that CNCF distribution knows: `snapshot` without what is ours alone.
pub(crate) fn shared_files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = snapshot(root);
    let ours = ["/_referrers/", "/_history/"];
    files.retain(|path, _| {
        !path.starts_with(".registry/") && !ours.iter().any(|part| path.contains(part))
    });
    files
}

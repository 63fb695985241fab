//! Whose a tree is that another registry made: what is added to it belongs to the same user, and has the same rights, so that
//! whoever made it can go on with it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, fchown};
use std::path::Path;

use nix::unistd::geteuid;

/// What differs from what this process makes by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    /// User and group. Only root can give files away.
    ids: Option<(u32, u32)>,
    /// Of folders.
    mode: Option<u32>,
}

impl Owner {
    /// That of the folder `content`, if it is there; `own` is a folder to try out in what is made without it.
    pub(super) fn of(content: &Path, own: &Path) -> io::Result<Self> {
        let theirs = match fs::metadata(content) {
            Ok(theirs) => theirs,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Owner::default()),
            Err(e) => return Err(e),
        };
        let trial = own.join("owner");
        fs::create_dir(&trial)?;
        let ours = fs::metadata(&trial);
        fs::remove_dir(&trial)?;
        let ours = ours?;
        let ids = |file: &fs::Metadata| (file.uid(), file.gid());
        let mode = |file: &fs::Metadata| file.mode() & 0o7777;
        let is_given = geteuid().is_root() && ids(&theirs) != ids(&ours);
        Ok(Owner {
            ids: is_given.then(|| ids(&theirs)),
            mode: Some(mode(&theirs)).filter(|theirs| *theirs != mode(&ours)),
        })
    }

    fn is_us(&self) -> bool {
        *self == Owner::default()
    }

    /// Makes a folder and those above it that are missing.
    pub(super) fn make_dirs(&self, folder: &Path) -> io::Result<()> {
        if self.is_us() {
            return fs::create_dir_all(folder);
        }
        match fs::create_dir(folder) {
            Ok(()) => self.own_dir(folder),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_dirs(folder.parent().ok_or(e)?)?;
                self.make_dirs(folder)
            }
            Err(_) if folder.is_dir() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// To be called of each folder that was made otherwise.
    pub(super) fn own_dir(&self, folder: &Path) -> io::Result<()> {
        if let Some((user, group)) = self.ids {
            chown(folder, Some(user), Some(group))?;
        }
        // After the user was changed, which may take away bits of it.
        match self.mode {
            Some(mode) => fs::set_permissions(folder, Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }

    /// To be called of each file that was made.
    pub(super) fn own_file(&self, file: &File) -> io::Result<()> {
        if let Some((user, group)) = self.ids {
            fchown(file, Some(user), Some(group))?;
        }
        match self.mode {
            Some(mode) => file.set_permissions(Permissions::from_mode(mode & 0o666)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::FsStore;
    use super::*;
    use crate::oci::Algorithm;
    use crate::storage::{Dir, Durability, Key, OpenError, Store as _, UploadId};
    use std::time::Duration;

    /// Every file and folder below `folder`.
    fn all(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all(&path, found);
            }
            found.push(path);
        }
    }

    #[tokio::test]
    async fn what_is_added_to_anothers_tree_is_theirs() {
        let root = tempfile::tempdir().unwrap();
        let content = root.path().join("docker/registry/v2");
        fs::create_dir_all(content.join("repositories")).unwrap();
        let folders = [
            "docker",
            "docker/registry",
            "docker/registry/v2",
            "docker/registry/v2/repositories",
        ];
        let (user, group) = match geteuid().is_root() {
            true => (12_345, 23_456),
            false => (geteuid().as_raw(), nix::unistd::getegid().as_raw()),
        };
        for folder in folders.map(|folder| root.path().join(folder)) {
            chown(&folder, Some(user), Some(group)).unwrap();
            fs::set_permissions(&folder, Permissions::from_mode(0o770)).unwrap();
        }
        let repo = "team/app".parse::<crate::oci::RepoName>().unwrap();
        for with_slots in [false, true] {
            // The one before may still be making folders ahead.
            let opened = async {
                loop {
                    match FsStore::open(root.path()) {
                        Err(OpenError::InUse(_)) => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        opened => return opened.unwrap(),
                    }
                }
            };
            let store = tokio::time::timeout(Duration::from_secs(60), opened)
                .await
                .unwrap();
            let store = if with_slots {
                store.with_slots()
            } else {
                store
            };
            for n in 0..3_u8 {
                let digest = Algorithm::Sha256.digest(&[n]);
                let key = Key::UploadData(repo.clone(), UploadId::new());
                let mut upload = store.upload(&key, 0).await.unwrap();
                upload.write(vec![vec![n].into()]).await.unwrap();
                upload.commit(&Key::Blob(digest)).await.unwrap();
                let link = Key::Layer(repo.clone(), digest);
                let text = digest.to_string();
                store
                    .put(&link, text.into(), Durability::Durable)
                    .await
                    .unwrap();
                let tag = Key::Tag(repo.clone(), format!("v{n}").parse().unwrap());
                store.put(&tag, "x".into(), Durability::Lazy).await.unwrap();
            }
            store.sync(&Dir::Repositories).await.unwrap();
        }
        let mut found = Vec::new();
        all(root.path(), &mut found);
        assert!(found.len() > 30);
        for path in found {
            let meta = fs::metadata(&path).unwrap();
            let mode = if meta.is_dir() { 0o770 } else { 0o660 };
            assert_eq!(
                (meta.uid(), meta.gid()),
                (user, group),
                "{}",
                path.display()
            );
            assert_eq!(meta.mode() & 0o7777, mode, "{}", path.display());
        }
    }
}

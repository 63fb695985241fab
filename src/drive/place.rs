//! The directory of the images: whether anything is mounted there, and what is in it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown, lchown};
use std::path::{Path, PathBuf};

use super::{Error, at};
use crate::storage::{Part, content};

/// The user that the service runs as.
const SERVICE_USER: &str = "registry";

/// Whether another file system is mounted at `root`.
pub(super) fn is_mounted(root: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
    match (device(root), root.parent().and_then(device)) {
        (Some(inside), Some(around)) => inside != around,
        _ => false,
    }
}

/// Whether there is any image content below `root`.
pub(super) fn has_images(root: &Path) -> Result<bool, Error> {
    has_file(&content(root), &|_| true).map_err(at(root))
}

/// Whether there is anything below `root` that a registry did not make for itself alone.
fn has_files(root: &Path) -> Result<bool, Error> {
    has_file(root, &|path| {
        path.strip_prefix(root)
            .is_ok_and(|path| Part::of(path) != Part::Volatile)
    })
    .map_err(at(root))
}

fn has_file(folder: &Path, counts: &dyn Fn(&Path) -> bool) -> io::Result<bool> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let found = if entry.file_type()?.is_dir() {
            has_file(&path, counts)?
        } else {
            counts(&path)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Who is to own the images, as user and group ids: the service's user, or whoever owns the directory now.
pub(super) fn owner(root: &Path) -> (u32, u32) {
    if let Ok(Some(user)) = nix::unistd::User::from_name(SERVICE_USER) {
        return (user.uid.as_raw(), user.gid.as_raw());
    }
    fs::metadata(root).map_or((0, 0), |meta| (meta.uid(), meta.gid()))
}

/// Gives the tree below `root` to `owner`; what else is on a drive keeps its owner.
pub(super) fn give(root: &Path, owner: (u32, u32)) -> Result<(), Error> {
    let (uid, gid) = (Some(owner.0), Some(owner.1));
    chown(root, uid, gid).map_err(at(root))?;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let entry = entry.map_err(at(&folder))?;
            let path = entry.path();
            let ours = path
                .strip_prefix(root)
                .is_ok_and(|path| Part::of(path) != Part::Other);
            if !ours {
                continue;
            }
            let meta = entry.metadata().map_err(at(&path))?;
            if (meta.uid(), meta.gid()) != owner {
                lchown(&path, uid, gid).map_err(at(&path))?;
            }
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}

/// The name that the directory gets when a drive takes its place.
pub(super) fn aside(root: &Path) -> PathBuf {
    sibling(root, "before-drive")
}

pub(super) fn sibling(root: &Path, suffix: &str) -> PathBuf {
    let mut name = root.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Leaves an empty directory at `root`, where nothing is mounted, and says where what was in it is now, if that was more than
/// empty folders.
pub(super) fn set_aside(root: &Path) -> Result<Option<PathBuf>, Error> {
    let mut kept = None;
    if has_files(root)? {
        let mut aside = aside(root);
        for n in 2.. {
            if !aside.exists() {
                break;
            }
            aside = sibling(root, &format!("before-drive-{n}"));
        }
        fs::rename(root, &aside).map_err(at(root))?;
        kept = Some(aside);
    } else if root.exists() {
        fs::remove_dir_all(root).map_err(at(root))?;
    }
    fs::create_dir_all(root).map_err(at(root))?;
    let parent = root.parent().unwrap_or(root);
    fs::File::open(parent)
        .and_then(|folder| folder.sync_all())
        .map_err(at(parent))?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_set_aside_and_empty_folders_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        fs::create_dir_all(content(&root)).unwrap();
        fs::create_dir_all(crate::storage::staging(&root)).unwrap();
        fs::write(crate::storage::staging(&root).join("half"), "x").unwrap();
        assert!(!has_images(&root).unwrap());
        assert_eq!(set_aside(&root).unwrap(), None);
        for n in 0..2 {
            fs::create_dir_all(content(&root)).unwrap();
            fs::write(content(&root).join("data"), "x").unwrap();
            assert!(has_images(&root).unwrap());
            let kept = set_aside(&root).unwrap().unwrap();
            assert!(has_images(&kept).unwrap(), "{n}");
            assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        }
        assert!(aside(&root).exists());
    }
}

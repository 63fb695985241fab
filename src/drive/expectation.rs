//! What this machine remembers of its drive: a small file of ours, beside the configuration, which upgrades leave alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The drive that belongs at the registry's directory. While the file is there, nothing is served without that drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expectation {
    /// The id in the marker on the drive.
    pub(crate) id: Uuid,
    /// The UUID of its file system, by which it is mounted.
    pub(crate) uuid: String,
    /// `storage.filesystem.rootdirectory`, where it is mounted.
    pub(crate) root: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpectationError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} is damaged ({source}): it should say which drive the images are on. Run `registry drive use DEVICE` again, or \
         remove the file if the images are on no drive"
    )]
    Text {
        path: PathBuf,
        source: serde_yaml::Error,
    },
}

impl Expectation {
    /// `None`: no drive is expected.
    ///
    /// # Errors
    /// The file is there, and cannot be read or understood.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, ExpectationError> {
        match fs::read_to_string(path) {
            Ok(text) => {
                serde_yaml::from_str(&text)
                    .map(Some)
                    .map_err(|source| ExpectationError::Text {
                        path: path.to_owned(),
                        source,
                    })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ExpectationError::Io {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Whole or not at all; durable when it returns.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_yaml::to_string(self).map_err(io::Error::other)?;
        let text = format!(
            "# Written by `registry drive use`: the images are on this drive. `registry drive release` undoes it.\n{text}"
        );
        super::durably::write(path, &text)
    }

    /// # Errors
    /// Those of the file system.
    pub(crate) fn remove(path: &Path) -> io::Result<()> {
        super::durably::remove(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_damaged_file_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/drive.yml");
        assert!(matches!(Expectation::read(&path), Ok(None)));
        let expected = Expectation {
            id: Uuid::new_v4(),
            uuid: "1234-ABCD".to_owned(),
            root: "/var/lib/registry".into(),
        };
        expected.write(&path).unwrap();
        assert_eq!(Expectation::read(&path).unwrap(), Some(expected));
        fs::write(&path, "").unwrap();
        assert!(matches!(
            Expectation::read(&path),
            Err(ExpectationError::Text { .. })
        ));
        Expectation::remove(&path).unwrap();
        Expectation::remove(&path).unwrap();
        assert!(matches!(Expectation::read(&path), Ok(None)));
    }
}

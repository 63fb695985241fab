//! The file on a drive that says whose it is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::key::{MARKER, OWN};

/// A marker is a few lines; whatever is larger is none.
const LIMIT: u64 = 4096;

/// What a drive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// Given to the drive when it was taken into use; the machine that uses it expects this one.
    pub(crate) id: Uuid,
    /// Where content is being copied from, while that is not done: the drive is not to be served yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) incoming: Option<String>,
}

impl Marker {
    /// The marker of the file system whose topmost folder is `root`; `None` if it has none that can be understood.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn read(root: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(root.join(MARKER)) {
            Ok(file) => file,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let text = io::read_to_string(io::Read::take(file, LIMIT));
        match text {
            Ok(text) => Ok(serde_yaml::from_str(&text).ok()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes it, whole or not at all; durable when it returns.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn write(&self, root: &Path) -> io::Result<()> {
        let own = root.join(OWN);
        fs::create_dir_all(&own)?;
        let target = root.join(MARKER);
        let staged = target.with_extension("new");
        let text = serde_yaml::to_string(self).map_err(io::Error::other)?;
        let mut file = File::create(&staged)?;
        file.write_all(
            b"# This drive holds the images of a container registry, which serves nothing without this file.\n",
        )?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&staged, &target)?;
        File::open(&own)?.sync_all()?;
        File::open(root)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_as_it_was_written_and_nothing_else_is_one() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Marker::read(root.path()).unwrap(), None);
        for incoming in [None, Some("pi:/var/lib/registry".to_owned())] {
            let marker = Marker {
                id: Uuid::new_v4(),
                incoming,
            };
            marker.write(root.path()).unwrap();
            assert_eq!(Marker::read(root.path()).unwrap(), Some(marker));
        }
        for text in [
            &b""[..],
            b"id: 5",
            b"\xff\xfe",
            b"incoming: x",
            &[b'x'; 9000],
        ] {
            fs::write(root.path().join(MARKER), text).unwrap();
            assert_eq!(Marker::read(root.path()).unwrap(), None, "{text:?}");
        }
        fs::remove_dir_all(root.path().join(OWN)).unwrap();
        fs::write(root.path().join(OWN), b"a file").unwrap();
        assert_eq!(Marker::read(root.path()).unwrap(), None);
    }
}

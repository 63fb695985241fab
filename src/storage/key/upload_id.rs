//! Ids of upload sessions.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The id of an upload session. Unguessable, since whoever knows it can write to the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UploadId(Uuid);

impl UploadId {
    pub(crate) fn new() -> Self {
        UploadId(Uuid::new_v4())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an upload id is a UUID")]
pub(crate) struct UploadIdError;

impl FromStr for UploadId {
    type Err = UploadIdError;

    /// Takes the hyphenated lowercase form alone, so that an id has one spelling on disk.
    fn from_str(text: &str) -> Result<Self, UploadIdError> {
        match Uuid::try_parse(text) {
            Ok(uuid) if uuid.hyphenated().to_string() == text => Ok(UploadId(uuid)),
            _ => Err(UploadIdError),
        }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_id_has_one_spelling() {
        let id = UploadId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "..",
            &id.to_string().to_uppercase(),
            &id.to_string().replace('-', ""),
            &format!("{{{id}}}"),
        ] {
            assert_eq!(bad.parse::<UploadId>(), Err(UploadIdError), "{bad}");
        }
    }
}
